"""Spectra and rank histograms for the report: figures, and the same numbers as tables."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from sciwm.report.figures import SIZE, Margins, blank_figure, in_report_style, inline_svg
from sciwm.report.labels import INK, join_words, lead_axis, looks
from sciwm.skill.metrics import pretty_units

__all__ = ["rank_figures", "rank_frame", "spectrum_figures", "spectrum_frame"]

_MOST_CHANNELS = 6
_OBSERVED = "observed"


def _ends(diagnostics: xr.Dataset) -> list[int]:
    """First and last lead."""
    return sorted({0, diagnostics.sizes["lead_time"] - 1})


@in_report_style
def spectrum_figures(diagnostics: xr.Dataset) -> list[str]:
    """Power of every method and of the observations by zonal wavenumber, and their ratio.

    The first and the last lead are drawn.

    Parameters
    ----------
    diagnostics : Dataset
        From `diagnose`, with ``spectrum`` and ``observed_spectrum``; variables with missing values
        are left out.

    Returns
    -------
    list of str
        Inline SVG, two of each variable, or one with a single lead.
    """
    leads = lead_axis(diagnostics["lead_time"])
    methods = [str(m) for m in diagnostics["method"].values]
    out = []
    for i, channel in enumerate(_complete(diagnostics)):
        waves = diagnostics.sel(channel=channel).isel(zonal_wavenumber=slice(1, None))
        units = pretty_units(str(waves["units"].item()))
        square = f"({units})²" if " " in units else f"{units}²"
        for k in _ends(diagnostics):
            one = waves.isel(lead_time=k)
            figure, axes = blank_figure(SIZE[0], 400, rows=2, margins=Margins(down=22))
            _draw_spectra(axes[0, 0], axes[1, 0], one, methods)
            axes[0, 0].set_title(f"{channel}, {leads.text([k])}: variance by wave")
            axes[0, 0].set_ylabel(f"Power ({square})" if units else "Power")
            alt = _spectrum_words(one, methods, f"{channel} at a lead of {leads.text([k])}")
            out.append(inline_svg(figure, key=f"spectrum{i}-{k}", alt=alt))
    return out


def _draw_spectra(top: Axes, bottom: Axes, one: xr.Dataset, methods: list[str]) -> None:
    """Power above, its ratio to the observed below; the zonal mean, wave 0, is left out."""
    wave = one["zonal_wavenumber"].values
    observed = one["observed_spectrum"].values
    observed = np.where(observed > 0, observed, np.nan)
    for name, look in looks(methods).items():
        power = one["spectrum"].loc[{"method": name}].values
        if not (np.isfinite(power).all() and (power > 0).any()):
            continue
        line: Any = (0, look.dash) if isinstance(look.dash, tuple) else look.dash
        drawn = np.where(power > 0, power, np.nan)
        top.plot(wave, drawn, color=look.color, linestyle=line, linewidth=look.width)
        bottom.plot(wave, drawn / observed, color=look.color, linestyle=line, linewidth=look.width)
    top.plot(wave, observed, color=INK, linewidth=1.2)
    bottom.axhline(1.0, color=INK, linewidth=1.2)
    for ax in (top, bottom):
        _wave_axis(ax, wave)
    top.set_yscale("log")
    if np.isfinite(observed).any():
        least, most = np.nanmin(observed), np.nanmax(observed)
        top.set_ylim(max(least / 10, most * 1e-8), most * 4)
    top.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    top.yaxis.set_minor_locator(NullLocator())
    top.tick_params(labelbottom=False)
    bottom.set_ylabel("Forecast / truth")
    bottom.set_xlabel("Zonal wavenumber")
    bottom.set_yscale("log")
    bottom.set_ylim(0.08, 2.2)
    bottom.set_yticks([0.1, 0.2, 0.5, 1, 2])
    bottom.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    bottom.yaxis.set_minor_locator(NullLocator())


def _power_of_ten(value: float, _: int) -> str:
    return "10" + f"{round(np.log10(value))}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _wave_axis(ax: Axes, wave: np.ndarray) -> None:
    ax.set_xscale("log")
    ax.set_xlim(wave[0], max(wave[-1], wave[0] + 1))
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500) if t <= wave[-1]]
    ax.set_xticks(ticks, [f"{t}" for t in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(color=INK, alpha=0.12, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _spectrum_words(one: xr.Dataset, methods: list[str], what: str) -> str:
    """Say for each method how much of the variance on the shorter half of the waves it has."""
    observed = one["observed_spectrum"].values
    short = slice(len(observed) // 2, None)
    whole = max(observed[short].sum(), 1e-300)
    parts = []
    for name in methods:
        share = one["spectrum"].loc[{"method": name}].values[short].sum() / whole
        if np.isfinite(share):
            parts.append(f"{looks([name])[name].label} {100 * share:.0f} %")
    return (
        f"Power of {what} by zonal wavenumber. On the shorter half of the waves, of the variance of"
        f" the truth: {join_words(parts)}."
    )


def _complete(diagnostics: xr.Dataset) -> list[str]:
    seen = diagnostics["observed_spectrum"].notnull().all(("lead_time", "zonal_wavenumber"))
    return [str(c) for c in diagnostics["channel"].values[seen.values]][:_MOST_CHANNELS]


def spectrum_frame(diagnostics: xr.Dataset) -> pd.DataFrame:
    """One row for each power, of the methods and of the truth, which is the method ``observed``.

    Columns ``channel, lead, lead_unit, method, zonal_wavenumber, power, units``.
    """
    observed = diagnostics["observed_spectrum"].expand_dims({"method": [_OBSERVED]})
    power = xr.concat(
        [diagnostics["spectrum"], observed], "method", coords="minimal", compat="override"
    )
    frame = _rows(power, "zonal_wavenumber", "power")
    units = [str(u) for u in diagnostics["units"].values]
    squares = ["1" if u in ("", "1") else f"({u})^2" for u in units]
    by_channel = dict(zip(diagnostics["channel"].values.astype(str), squares, strict=True))
    return frame.assign(units=[by_channel[c] for c in frame["channel"]])


@in_report_style
def rank_figures(diagnostics: xr.Dataset) -> list[str]:
    """Rank histograms of every ensemble at the first and the last lead.

    Parameters
    ----------
    diagnostics : Dataset
        From `diagnose`, with ``rank_frequency``.

    Returns
    -------
    list of str
        Inline SVG.
    """
    leads = lead_axis(diagnostics["lead_time"])
    frequency = diagnostics["rank_frequency"]
    out = []
    for m, method in enumerate(diagnostics["method"].values):
        for i, channel in enumerate(diagnostics["channel"].values[:_MOST_CHANNELS]):
            both = frequency.isel(method=m, channel=i).transpose("lead_time", "rank")
            if not np.isfinite(both).any():
                continue
            top = max(2.0, 1.08 * float(both.isel(lead_time=_ends(diagnostics)).max()))
            for k in _ends(diagnostics):
                values = both.isel(lead_time=k).values
                values = values[np.isfinite(values)]
                figure, axes = blank_figure(SIZE[0], 250)
                ax = axes[0, 0]
                look = looks([str(method)])[str(method)]
                ax.bar(np.arange(len(values)), values, width=0.9, color=look.color, alpha=0.75)
                ax.axhline(1.0, color=INK, linewidth=1.2)
                ax.set_xlim(-0.7, len(values) - 0.3)
                ax.set_ylim(0, top)
                ax.set_title(f"{look.label}, {channel}, {leads.text([k])}")
                ax.set_xlabel("Rank of the truth among the members")
                ax.set_ylabel("Relative frequency")
                ax.grid(axis="y", color=INK, alpha=0.12, linewidth=0.7)
                ax.set_axisbelow(True)
                ax.spines[["top", "right"]].set_visible(False)
                middle = values[len(values) // 2]
                alt = (
                    f"Rank histogram of {look.label}, {channel}, at a lead of {leads.text([k])}:"
                    f" lowest rank {values[0]:.2f}, highest {values[-1]:.2f}, middle {middle:.2f};"
                    " 1 is reliable."
                )
                out.append(inline_svg(figure, key=f"rank{m}-{i}-{k}", alt=alt))
    return out


def rank_frame(diagnostics: xr.Dataset) -> pd.DataFrame:
    """One row for each rank; the frequency is 1 if reliable.

    Columns ``channel, lead, lead_unit, method, rank, frequency``.
    """
    return _rows(diagnostics["rank_frequency"], "rank", "frequency")


def _rows(array: xr.DataArray, dim: str, column: str) -> pd.DataFrame:
    order = ("channel", "lead_time", "method", dim)
    channel, when, method, place = (a.ravel() for a in np.indices([array.sizes[d] for d in order]))
    leads = lead_axis(array["lead_time"])
    frame = pd.DataFrame(
        {
            "channel": array["channel"].values.astype(str)[channel],
            "lead": np.array(leads.values)[when],
            "lead_unit": leads.unit,
            "method": array["method"].values.astype(str)[method],
            dim: array[dim].values[place],
            column: array.transpose(*order).values.ravel(),
        }
    )
    return frame[np.isfinite(frame[column])].reset_index(drop=True)
