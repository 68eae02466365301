"""Forecasts beside the truth: maps to leaf through for grids, series for molecules and indices."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciwm.report.browser import Choice, Frame, Panel, browser
from sciwm.report.fields import Field, area, match_fields, stamp, truth_at, typical_case
from sciwm.report.labels import Leads, lead_axis
from sciwm.report.panels import MapFrame, coastlines, color_bar, map_frame
from sciwm.report.pixels import Scale, diverging_scale, field_scale
from sciwm.report.series import series_figure
from sciwm.skill.alignment import evenly_spread
from sciwm.skill.metrics import pretty_units

__all__ = ["case_section", "pick_cases"]

_MOST_FIELDS = 4
_MOST_LEADS = 10
_MOST_PIXELS = 3_000_000  # of all maps together: about 2 MB of page
_COUNTS = (16, 15, 14, 13, 12)  # initial times to leaf through


def case_section(forecast: xr.Dataset, observed: xr.Dataset, *, method: str = "") -> str:
    """HTML of forecasts beside the truth: a browser of maps for grids, series for components.

    Parameters
    ----------
    forecast : Dataset
        Dims ``init_time, lead_time, [number], [level], latitude, longitude`` or ``init_time,
        lead_time, component``.
    observed : Dataset
        The same variables with ``time`` in place of ``init_time, lead_time``.
    method : str
        What the forecast is called.

    Returns
    -------
    str
    """
    fields, remarks = match_fields(forecast, observed)
    maps = [f for f in fields if {"latitude", "longitude"} <= set(f.forecast.dims)]
    series = [f for f in fields if f.forecast.dims == ("init_time", "lead_time")]
    parts: list[str] = []
    try:
        for field in fields[:1]:
            truth_at(field.observed, field.forecast["init_time"], field.forecast["lead_time"])
        if maps:
            same = [f for f in maps if f.forecast.sizes == maps[0].forecast.sizes][:_MOST_FIELDS]
            lines = coastlines() if observed.attrs.get("coastlines") != "none" else None
            text, html = _map_browser(same, lines, method)
            remarks.append(text)
            parts.append(html)
        for i, f in enumerate(series[:_MOST_FIELDS]):
            picked = evenly_spread(f.forecast.sizes["lead_time"], 3)
            svg = series_figure(f, picked=picked, key=f"series{i}")
            parts.append(f'<figure class="wide"><div class="scroll">{svg}</div></figure>')
    except ValueError as error:  # a drawing that cannot be made is no reason to withhold the scores
        return f"<p>No forecast is drawn: {error}.</p>"
    if series:
        remarks.append("Each forecast at its valid time, for the first initial times.")
    left = max(0, len(maps) - _MOST_FIELDS) + max(0, len(series) - _MOST_FIELDS)
    if left:
        remarks.append(f"{left} further field(s) are in the forecast store but not drawn here.")
    return "".join(f"<p>{r}</p>" for r in remarks if r) + "".join(parts)


def pick_cases(
    init_time: np.ndarray, complete: np.ndarray, *, typical: int | None = None
) -> list[int]:
    """Initial times to look at: a dozen or more, evenly spread, and the typical one.

    Of the numbers from 12 to 16, that which meets the most seasons is taken. Even steps of a whole
    year would show one season only.

    Parameters
    ----------
    init_time : ndarray
        All initial times.
    complete : ndarray of int
        Positions of those with a truth at every lead.
    typical : int, optional
        Position of the one from `typical_case`.

    Examples
    --------
    >>> days = np.arange("2001-01-01", "2005-01-01", dtype="M8[D]").astype("M8[ns]")
    >>> len(pick_cases(days, np.arange(100)))
    16
    """
    best: list[int] = []
    for count in _COUNTS:
        picked = [int(complete[k]) for k in evenly_spread(len(complete), count)]
        if len(_seasons(init_time[picked])) > len(_seasons(init_time[best])):
            best = picked
    return sorted({*best, *([] if typical is None else [typical])})


def _seasons(times: np.ndarray) -> set[int]:
    if times.dtype.kind == "M":
        return set((times.astype("datetime64[M]").astype(int) % 12 // 3).tolist())
    if times.dtype == object:
        return {(t.month - 1) // 3 for t in times}
    return {0} if len(times) else set()


def _map_browser(
    fields: Sequence[Field], lines: list[np.ndarray] | None, method: str
) -> tuple[str, str]:
    """A remark and the browser of the fields, which share a grid."""
    first = fields[0]
    typical = typical_case(first)
    leads = lead_axis(first.forecast["lead_time"])
    if typical is None:
        text = "No forecast has its truth in the observed data at every lead, so no maps are drawn."
        return text, ""
    positions = truth_at(first.observed, first.forecast["init_time"], first.forecast["lead_time"])
    complete = np.flatnonzero((positions >= 0).all(axis=1))
    cases = pick_cases(first.forecast["init_time"].values, complete, typical=typical)
    shown = evenly_spread(len(leads.values), _MOST_LEADS)
    latitude, longitude = (
        first.forecast[d].values.astype(float) for d in ("latitude", "longitude")
    )
    pictures = 3 * len(fields) * len(cases) * len(shown)
    frame = map_frame(
        latitude, longitude, key="case-grid", lines=lines, most_cells=_MOST_PIXELS // pictures
    )
    frames: dict[tuple[int, ...], Frame] = {}
    bars = []
    for i, field in enumerate(fields):
        scales, found = _field_frames(field, i, cases=cases, shown=shown, frame=frame, leads=leads)
        tail = f" ({units})" if (units := pretty_units(field.units)) else ""
        both, difference = f"{field.name}, forecast and truth", f"{field.name}, forecast − truth"
        names = (both, both, difference)
        bars.append([color_bar(s, n + tail) for s, n in zip(scales, names, strict=True)])
        frames |= {(i, *position): one for position, one in found.items()}
    stamps = [stamp(t, leads.unit) for t in first.forecast["init_time"].values[cases]]
    choices = [
        Choice("Variable", [f.name for f in fields]),
        Choice("Initial time", stamps, start=cases.index(typical), buttons=True),
        Choice("Lead time", [leads.text([k]) for k in shown], buttons=True),
    ]
    label = "Forecast, truth and difference; the arrow keys left and right change the lead time"
    html = browser(
        "case-browser", label=label, maps=frame, choices=choices, frames=frames, bars=bars
    )
    whose = f"Forecasts of {method}" if method else "Forecasts"
    members = " (means over members)" if first.members else ""
    remark = (
        f"{whose}{members} from {len(cases)} initial times, evenly spread. The page opens with"
        f" {stamps[cases.index(typical)]}, the one whose error in {first.name} is nearest the"
        " median. Colours are the same for all times of a variable."
    )
    return remark, frame.definition() + html


def _field_frames(
    field: Field,
    number: int,
    *,
    cases: Sequence[int],
    shown: Sequence[int],
    frame: MapFrame,
    leads: Leads,
) -> tuple[list[Scale], dict[tuple[int, int], Frame]]:
    """Colour scales, and frames by initial time and lead, of one field."""
    units = pretty_units(field.units)
    cells, texts = [], []
    for case in cases:
        one = field.forecast.isel(init_time=[case], lead_time=list(shown))
        at = truth_at(field.observed, one["init_time"], one["lead_time"])[0]
        truth = field.observed.isel(time=at).transpose("time", "latitude", "longitude")
        forecast = one.isel(init_time=0).transpose("lead_time", "latitude", "longitude")
        f, o = forecast.values.astype(float), truth.values.astype(float)
        weight = np.where(np.isfinite(f - o), area(one).values[:, None], 0.0)
        square = np.nansum(weight * (f - o) ** 2, axis=(1, 2))
        rmse = np.sqrt(square / weight.sum(axis=(1, 2)).clip(1e-30))
        cells.append(frame.cells(np.stack([f, o, f - o]).astype("float32")))
        init = stamp(one["init_time"].values[0], leads.unit)
        valid = [stamp(t, leads.unit) for t in truth["time"].values]
        texts.append(
            [(init, v, f"{e:.3g} {units}".strip()) for v, e in zip(valid, rmse, strict=True)]
        )
    values = np.stack(cells)  # case, kind, lead, latitude, longitude
    scale, error = field_scale(values[:, :2]), diverging_scale(values[:, 2])
    frames = {}
    for c in range(len(cases)):
        for k, lead in enumerate(shown):
            init, valid_at, error_text = texts[c][k]
            when = leads.text([lead])
            panels = [
                Panel(scale.png(values[c, 0, k]), f"Forecast, {when}"),
                Panel(scale.png(values[c, 1, k]), f"Truth, {valid_at}"),
                Panel(error.png(values[c, 2, k]), f"Difference, RMSE {error_text}"),
            ]
            text = (
                f"{field.name} from {init}, {when} ahead, valid {valid_at}:"
                f" root-mean-square error {error_text}."
            )
            frames[c, k] = Frame(panels, text, number)
    return [scale, scale, error], frames
