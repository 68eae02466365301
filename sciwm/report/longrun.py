"""Simulations in the report: do mean, spread and seasons hold, in a figure, a table and words."""

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from sciwm.report.figures import Margins, blank_figure, in_report_style, inline_svg, swatch
from sciwm.report.labels import INK, Leads, Look, join_words, lead_axis, looks
from sciwm.skill.metrics import pretty_units
from sciwm.skill.simulation import simulation_table

__all__ = ["longrun_figure", "longrun_heading", "longrun_section"]

_MOST_CHANNELS = 6
_KEPT = (0.8, 1.25)  # ratios of spread and change that count as kept
_STILL = 0.3  # ratio of the change below which there is no weather
_TICKS = (1, 3, 10, 30, 90, 180, 365, 730, 1825, 3650, 7300)
_SHORT = {"northern_extratropics": "north", "southern_extratropics": "south", "all": "all"}
_MARGINS = Margins(left=64, right=8, top=30, bottom=46, across=66, down=74)
_PANEL = 210.0  # height, px
_LOST = "<td>–</td>"


def longrun_heading(simulation: xr.Dataset) -> str:
    """Name of the section: how long the simulations are.

    Examples
    --------
    >>> longrun_heading(xr.Dataset(attrs={"lead": "hours", "longest": 8760.0}))
    'One year, rolled forward'
    """
    return f"{_length(simulation).capitalize()}, rolled forward"


def _length(simulation: xr.Dataset) -> str:
    amount, unit = float(simulation.attrs["longest"]), str(simulation.attrs["lead"])
    if unit == "hours" and amount >= 48:
        amount, unit = amount / 24, "days"
    year = (unit == "days" and 364 <= amount <= 366) or (unit == "months" and amount == 12)
    return "one year" if year else f"{amount:g} {unit}"


def longrun_section(simulation: xr.Dataset, *, download: str = "") -> str:
    """HTML of what simulations do: words, one figure and a table.

    Parameters
    ----------
    simulation : Dataset
        From `sciwm.skill.simulation.diagnose_simulations`.
    download : str
        A link to the table.
    """
    table = simulation_table(simulation)
    words = "".join(f"<p>{escape(text)}</p>" for text in _words(simulation, table))
    rest = simulation.sizes["channel"] - _MOST_CHANNELS
    left = f" {rest} further variable(s) are in the table alone." if rest > 0 else ""
    about = (
        "<p class='soft'>Left: area mean of the departures from the climatology of the training"
        " block; in grey, twice its standard deviation in the truth. Middle: standard deviation"
        " over space and time. Thin lines in the colour of the text: the truth of the months that"
        " are met, and, as far as the record goes, dotted, the truth itself. Right: the annual"
        f" cycle of area means, as departures from the annual mean of the truth.{left}</p>"
    )
    figure = f'<figure class="wide"><div class="scroll">{longrun_figure(simulation)}</div></figure>'
    return f"{words}{about}{_legend(simulation)}{figure}{_table(table)}{download}"


def _looks(simulation: xr.Dataset) -> dict[str, Look]:
    """Colours of the methods, and what their simulations are."""
    found = looks(str(m) for m in simulation["method"].values)
    return {
        name: Look(_label(name), look.color, look.dash, "", look.width)
        for name, look in found.items()
    }


def _label(method: str) -> str:
    return "Members of the ensemble" if method.endswith("_ensemble") else "Single simulation"


def _legend(simulation: xr.Dataset) -> str:
    own = [*_looks(simulation).values(), Look("Truth", INK, "solid", "", 1.2)]
    marks = "".join(f"<li>{swatch(look)}{escape(look.label)}</li>" for look in own)
    marks = marks.replace("swatch-", "longrun-swatch-")
    return f'<ul class="legend" aria-label="Simulations">{marks}</ul>'


@in_report_style
def longrun_figure(simulation: xr.Dataset) -> str:
    """Mean, spread and annual cycle of every variable, beside those of the truth.

    Parameters
    ----------
    simulation : Dataset
        From `sciwm.skill.simulation.diagnose_simulations`; the first six channels are drawn.

    Returns
    -------
    str
        Inline SVG.
    """
    channels = [str(c) for c in simulation["channel"].values[:_MOST_CHANNELS]]
    rows, m = len(channels), _MARGINS
    height = m.top + m.bottom + rows * _PANEL + (rows - 1) * m.down
    figure, axes = blank_figure(1080, height, rows=rows, columns=3, margins=m)
    leads, look = lead_axis(simulation["lead_time"]), _looks(simulation)
    for row, channel in zip(axes, channels, strict=True):
        one = simulation.sel(channel=channel)
        units = pretty_units(str(one["units"].item()))
        tail = f" ({units})" if units else ""
        _draw_mean(row[0], one, leads, look)
        _draw_spread(row[1], one, leads, look)
        _draw_cycle(row[2], one, look)
        for ax, what in zip(row, ("mean", "standard deviation", "annual cycle"), strict=True):
            ax.set_title(f"{channel}: {what}{tail}")
            ax.grid(color=INK, alpha=0.12, linewidth=0.7)
            ax.set_axisbelow(True)
            ax.spines[["top", "right"]].set_visible(False)
    alt = (
        f"Area mean and standard deviation by lead time up to {_length(simulation)}, and annual"
        f" cycle, of {join_words(channels)}, simulated and true."
    )
    return inline_svg(figure, key="longrun", alt=alt)


def _line(look: Look) -> dict[str, Any]:
    dash = (0, look.dash) if isinstance(look.dash, tuple) else look.dash
    return {"color": look.color, "linestyle": dash, "linewidth": look.width}


def _draw_mean(ax: Axes, one: xr.Dataset, leads: Leads, styles: dict[str, Look]) -> None:
    x, usual = np.asarray(leads.values), 2 * float(one["training_mean_std"])
    ax.axhspan(-usual, usual, color=INK, alpha=0.1, linewidth=0)
    ax.axhline(0.0, color=INK, linewidth=0.8)
    ax.plot(x, one["observed_mean"].values, color=INK, linewidth=1.0, linestyle=(0, (1, 1.5)))
    for name, look in styles.items():
        mean, std = (one[v].sel({"method": name}).values for v in ("mean", "mean_std"))
        ax.fill_between(x, mean - std, mean + std, color=look.color, alpha=0.13, linewidth=0)
        ax.plot(x, mean, **_line(look))
    _root_axis(ax, leads)


def _draw_spread(ax: Axes, one: xr.Dataset, leads: Leads, styles: dict[str, Look]) -> None:
    x = np.asarray(leads.values)
    ax.plot(x, one["training_spread"].values, color=INK, linewidth=1.2)
    ax.plot(x, one["observed_spread"].values, color=INK, linewidth=1.0, linestyle=(0, (1, 1.5)))
    for name, look in styles.items():
        ax.plot(x, one["spread"].sel({"method": name}).values, **_line(look))
    ax.set_ylim(bottom=0)
    _root_axis(ax, leads)


def _root_axis(ax: Axes, leads: Leads) -> None:
    """Leads on a square-root scale: simulations fade in the first weeks, and drift in months."""
    last = max(leads.values)
    ax.set_xscale("function", functions=(lambda v: np.sqrt(np.maximum(v, 0.0)), np.square))
    ax.set_xlim(0, last * 1.02)
    ticks = [t for t in _TICKS if t <= last * 1.02]
    ax.set_xticks(ticks, [f"{t}" for t in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(f"Lead time ({leads.unit})")


def _draw_cycle(ax: Axes, one: xr.Dataset, styles: dict[str, Look]) -> None:
    month = one["month"].values
    drawn: list[np.ndarray] = []
    for region in one["region"].values:
        own = one.sel(region=region)
        truth = own["training_cycle"].isel(method=0).values
        middle = np.nanmean(truth) if np.isfinite(truth).any() else np.nan
        ax.plot(month, truth - middle, color=INK, linewidth=1.2)
        drawn.append(truth - middle)
        for name, look in styles.items():
            values = own["cycle"].sel({"method": name}).values - middle
            ax.plot(month, values, **_line(look))
            drawn.append(values)
        ends = np.flatnonzero(np.isfinite(truth))
        if len(one["region"]) > 1 and ends.size:
            text = _SHORT.get(str(region), str(region))
            at = (float(month[ends[-1]]), float(truth[ends[-1]] - middle))
            ax.annotate(text, at, (4, 0), textcoords="offset points", va="center", fontsize=11)
    if not any(np.isfinite(values).any() for values in drawn):
        ax.set_yticks([])
    ax.set_xlim(0.7, 13.6 if len(one["region"]) > 1 else 12.3)
    ax.set_xticks([1, 3, 5, 7, 9, 11], ["Jan", "Mar", "May", "Jul", "Sep", "Nov"])


def _words(simulation: xr.Dataset, table: pd.DataFrame) -> list[str]:
    """What the numbers say, in sentences."""
    count = int(simulation.attrs["num_init"])
    total = {
        _label(str(m)): int(n)
        for m, n in zip(
            simulation["method"].values, simulation["num_simulations"].values, strict=True
        )
    }
    members = total.get("Members of the ensemble", 0) // count
    beside = f", and {members} members of an ensemble" if members else ""
    start = (
        f"The model was rolled forward for {_length(simulation)} from {count} initial times: one"
        f" simulation each{beside}. Every state was read from its latents by one readout, which"
        " knows no lead. All that follows speaks of the last quarter."
    )
    single = table[~table["method"].str.endswith("_ensemble")]
    ensemble = table[table["method"].str.endswith("_ensemble")]
    parts = []
    if len(single) and np.isfinite(single["spread_ratio"]).any():
        parts.append(_single_words(single, bool(len(ensemble))))
    if len(ensemble) and np.isfinite(ensemble["spread_ratio"]).any():
        parts.append(_ensemble_words(ensemble))
    return [start, " ".join(parts), _lost_words(simulation, table)]


def _ratios(rows: pd.DataFrame) -> tuple[float, float]:
    """Spread and change relative to the truth's: the median of the variables."""
    return float(rows["spread_ratio"].median()), float(rows["change_ratio"].median())


def _judged(spread: float, change: float) -> str:
    """What a simulation with such shares of the spread and change of the truth does."""
    low, high = _KEPT
    if spread < low:
        return "fade towards the mean"
    if spread > high:
        return "spread wider than the truth"
    if change < _STILL:
        return "stand nearly still, at a fixed error of the climate"
    return "move too slowly" if change < low else "move too fast" if change > high else "hold"


def _single_words(rows: pd.DataFrame, noise: bool) -> str:
    spread, change = _ratios(rows)
    done = _judged(spread, change)
    text = f"The single simulations {done}: {_shares(spread, change)} (medians of the variables)."
    if done != "fade towards the mean":
        return text
    text += " That is no fault of training."
    text += " A single prediction of what cannot be predicted is its mean."
    advice = (
        " What can be held is an ensemble: train with model.noise_dim, and ask for members with"
        " forecast.members."
    )
    return text if noise else text + advice


def _ensemble_words(rows: pd.DataFrame) -> str:
    spread, change = _ratios(rows)
    done = _judged(spread, change)
    tail = " The ensemble is the one to hold." if done == "hold" else ""
    return f"The members {done}: {_shares(spread, change)}.{tail}"


def _shares(spread: float, change: float) -> str:
    return (
        f"they have {100 * spread:.0f} % of the standard deviation of the truth, and of its change"
        f" from state to state {100 * change:.0f} %"
    )


def _lost_words(simulation: xr.Dataset, table: pd.DataFrame) -> str:
    unit = str(simulation.attrs["lead"])
    parts = []
    for _, row in table.drop_duplicates("method").iterrows():
        name = "members" if str(row["method"]).endswith("_ensemble") else "single simulations"
        if not row["blown_up"]:
            parts.append(f"None of the {row['simulations']} {name} blew up.")
            continue
        first = row["first_blowup"] / 24 if unit == "hours" else row["first_blowup"]
        said = f"{first:.3g} {'days' if unit == 'hours' else unit}"
        parts.append(
            f"{row['blown_up']} of the {row['simulations']} {name} blew up, the first after {said};"
            " from there on they are left out."
        )
    worst = table.assign(size=table["drift"].abs() / table["truth_mean_std"]).dropna(subset="size")
    if len(worst):
        row = worst.loc[worst["size"].idxmax()]
        parts.append(
            f"The area mean drifts most in {row['channel']} ({_label(str(row['method'])).lower()}):"
            f" by {row['size']:.1f} times its standard deviation in the truth."
        )
    return " ".join(parts)


def _table(table: pd.DataFrame) -> str:
    cycles = [c for c in table.columns if c.startswith("cycle_ratio_")]
    heads = ["Variable", "", "Drift of the mean", "Standard deviation", "Change"]
    for column in cycles:
        where = _SHORT.get(column.removeprefix("cycle_ratio_"), "")
        heads.append("Annual cycle" + (f", {where}" if len(cycles) > 1 else ""))
    heads.append("Blown up")
    rows = []
    for _, row in table.iterrows():
        units = pretty_units(str(row["units"]))
        drift = _LOST
        if np.isfinite(row["drift"]):
            text = escape(f"{_signed(row['drift'])} {units}".strip())
            drift = f"<td>{text}<small>truth ± {row['truth_mean_std']:.2g}</small></td>"
        ratios = [
            f"<td>{row[c]:.2f}</td>" if np.isfinite(row[c]) else _LOST
            for c in ("spread_ratio", "change_ratio", *cycles)
        ]
        lost = f"<td>{row['blown_up']} of {row['simulations']}</td>"
        cells = f"<td>{_label(str(row['method']))}</td>{drift}{''.join(ratios)}{lost}"
        rows.append(f'<tr><th scope="row">{escape(str(row["channel"]))}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    caption = (
        "The last quarter of the leads. Drift is the area mean of departures from the climatology,"
        " beside the standard deviation of that mean in the truth. The rest are ratios to the"
        " truth, of which 1 is perfect; – where it has no annual cycle, or months are missing."
    )
    return (
        '<div class="scroll"><table class="tall">'
        f'<caption><span class="stay">{caption}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _signed(value: float) -> str:
    text = f"{abs(value):.2g}" if abs(value) < 100 else f"{abs(value):,.0f}"
    return f"{'−' if value < 0 else '+'}{text}"
