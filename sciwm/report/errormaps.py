"""Maps of error and of skill: where a method errs, and where it is ahead of another."""

from collections.abc import Sequence
from html import escape

import numpy as np
import xarray as xr

from sciwm.report.browser import Choice, Frame, Panel, browser
from sciwm.report.labels import lead_axis, looks
from sciwm.report.panels import MapFrame, coastlines, color_bar, map_frame
from sciwm.report.pixels import diverging_scale, size_scale
from sciwm.skill.metrics import pretty_units

__all__ = ["error_map_section", "map_reference", "relative_error"]

_MOST_CHANNELS = 6
_MOST_PIXELS = 2_000_000  # of all maps together


def map_reference(methods: list[str], against: str) -> str:
    """Method that maps of skill compare with.

    It is ``against`` if that is among the methods. Otherwise it is the first of LIM, climatology
    and persistence that is, or the last method.
    """
    wanted = (against, "lim", "climatology", "persistence")
    return next((m for m in wanted if m in methods), methods[-1])


def relative_error(rmse: xr.DataArray, reference: str) -> xr.DataArray:
    """RMSE of each method minus that of the reference, in percent of the latter.

    Range [−100, ∞), negative is better; NaN where the reference has no error.
    """
    base = rmse.loc[{"method": reference}].drop_vars("method")
    relative: xr.DataArray = 100 * (rmse / base.where(base > 0) - 1)
    return relative


def error_map_section(diagnostics: xr.Dataset, *, against: str, method: str | None) -> str:
    """HTML of maps of RMSE, of bias and of skill, for each variable, method and lead.

    Parameters
    ----------
    diagnostics : Dataset
        From `diagnose`, with ``rmse`` and ``bias``.
    against : str
        Method that skill compares with, if it is there.
    method : str or None
        Method that is shown first.
    """
    methods = [str(m) for m in diagnostics["method"].values]
    reference = map_reference(methods, against)
    channels = [
        str(c)
        for c in diagnostics["channel"].values
        if np.isfinite(diagnostics["rmse"].sel(channel=c)).any()
    ][:_MOST_CHANNELS]
    leads = lead_axis(diagnostics["lead_time"])
    latitude, longitude = (diagnostics[d].values.astype(float) for d in ("latitude", "longitude"))
    lines = coastlines() if diagnostics.attrs.get("coastlines") != "none" else None
    pictures = 3 * len(methods) * len(channels) * len(leads.values)
    maps = map_frame(
        latitude, longitude, key="error-grid", lines=lines, most_cells=_MOST_PIXELS // pictures
    )
    labels = [look.label for look in looks(methods).values()]
    others = [m for m in methods if m != reference]
    shown = method if method in others else next(iter(others), reference)
    frames, bars = _frames(diagnostics.sel(channel=channels), reference, labels, maps)
    choices = [
        Choice("Variable", channels),
        Choice("Method", labels, start=methods.index(shown)),
        Choice("Lead time", [leads.text([k]) for k in range(len(leads.values))], buttons=True),
    ]
    size = int(diagnostics.attrs.get("cells_per_box", 1))
    box = f", as means over boxes of {size} × {size} cells" if size > 1 else ""
    rest = diagnostics.sizes["channel"] - len(channels)
    left = f" {rest} further variable(s) are not drawn." if rest > 0 else ""
    count = int(diagnostics.attrs.get("num_init", 0))
    base = escape(labels[methods.index(reference)])
    text = (
        f"<p>Root-mean-square error and mean error over {count:,} initial times at each place{box};"
        f" and the RMSE relative to that of the reference ({base}), blue where it is smaller."
        f" The colours of a variable and lead are the same for all methods.{left}</p>"
    )
    label = "Maps of error; the arrow keys left and right change the lead time"
    html = browser("error-maps", label=label, maps=maps, choices=choices, frames=frames, bars=bars)
    return text + maps.definition() + html


def _frames(
    diagnostics: xr.Dataset, reference: str, labels: Sequence[str], maps: MapFrame
) -> tuple[dict[tuple[int, ...], Frame], list[list[str]]]:
    """Frames by variable, method and lead, and colour bars by variable and lead."""
    methods = [str(m) for m in diagnostics["method"].values]
    base = labels[methods.index(reference)]
    # Climatology and persistence are much worse at some leads: on their scale, nothing else could
    # be told apart.
    keen = [i for i, m in enumerate(methods) if m not in ("climatology", "persistence")]
    keen = keen if {methods[i] for i in keen} - {reference} else list(range(len(methods)))
    rmse, bias = (
        diagnostics[n].transpose("channel", "method", "lead_time", ...) for n in ("rmse", "bias")
    )
    gain = relative_error(rmse, reference)
    gain = gain.where(gain["method"] != reference)
    leads = lead_axis(diagnostics["lead_time"])
    frames: dict[tuple[int, ...], Frame] = {}
    bars: list[list[str]] = []
    for i, channel in enumerate(diagnostics["channel"].values):
        units = pretty_units(str(diagnostics["units"].values[i]))
        tail = f" ({units})" if units else ""
        names = (
            f"{channel}, RMSE{tail}",
            f"{channel}, bias{tail}",
            f"{channel}, RMSE relative to {base} (%)",
        )
        values = [maps.cells(a.isel(channel=i).values) for a in (rmse, bias, gain)]
        for k in range(len(leads.values)):
            error, mean, relative = (v[keen, k] for v in values)
            scales = (
                size_scale(error),
                diverging_scale(mean),
                diverging_scale(relative.clip(-60, 60), judged=True),
            )
            for m, label in enumerate(labels):
                titles = (
                    "RMSE",
                    "Bias, forecast − truth",
                    "The reference itself" if methods[m] == reference else f"Against {base}",
                )
                panels = [
                    Panel(s.png(v[m, k]), title)
                    for s, v, title in zip(scales, values, titles, strict=True)
                ]
                said = _sentence(values[2][m, k], base)
                text = f"{label}, {channel}, {leads.text([k])}: {said}"
                frames[i, m, k] = Frame(panels, text, len(bars))
            bars.append([color_bar(scale, name) for scale, name in zip(scales, names, strict=True)])
    return frames, bars


def _sentence(relative: np.ndarray, base: str) -> str:
    seen = np.isfinite(relative)
    if not seen.any():
        return "RMSE and bias."
    share = 100 * (relative[seen] < 0).mean()
    return f"RMSE and bias; the RMSE is smaller than that of {base} on {share:.0f} % of the map."
