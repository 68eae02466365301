"""Maps and series of one typical forecast beside the truth, as inline SVG text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.ticker import MultipleLocator

from sciwm.skill.figures import Margins, blank_figure, in_report_style, inline_svg
from sciwm.skill.labels import INK, lead_axis, pretty_units
from sciwm.times import Step, numeric_time

__all__ = ["Field", "case_figures", "coastlines", "truth_at", "typical_case"]

_MOST_CASES = 60  # initial times looked at for a typical one
_MOST_FIELDS = 4
_MOST_POINTS = 120  # initial times in a series
_MOST_CELLS = 400  # per side of a map; finer grids are thinned for drawing


@dataclass(frozen=True)
class Field:
    """A forecast field and the observed one it is to be compared with; ``observed`` has dims ``(time, ...)``."""

    name: str
    units: str
    forecast: xr.DataArray
    observed: xr.DataArray


def case_figures(forecast: xr.Dataset, observed: xr.Dataset) -> tuple[list[str], list[str]]:
    """Figures of one typical forecast: maps for grids, series for components (molecules, indices).

    Parameters
    ----------
    forecast : Dataset
        Dims ``init_time, lead_time, [number], [level], latitude, longitude`` or ``init_time, lead_time, component``.
    observed : Dataset
        The same variables with ``time`` in place of ``init_time, lead_time``.

    Returns
    -------
    figures, remarks : list of str
        Inline SVG; sentences about what was chosen and what was left out.
    """
    fields, remarks = _fields(forecast, observed)
    maps = [f for f in fields if {"latitude", "longitude"} <= set(f.forecast.dims)]
    series = [f for f in fields if f.forecast.dims == ("init_time", "lead_time")]
    figures = []
    try:
        for field in fields[:1]:
            truth_at(field.observed, field.forecast["init_time"], field.forecast["lead_time"])
    except ValueError as error:  # a drawing that cannot be made is no reason to withhold the scores
        return [], [*remarks, f"No forecast is drawn: {error}."]
    if maps:
        case = typical_case(maps[0])
        if case is None:
            remarks.append("No forecast has its truth in the observed data at every lead, so no maps are drawn.")
        else:
            lines = coastlines() if observed.attrs.get("coastlines") != "none" else []
            figures += [_map_figure(f, case=case, lines=lines, key=f"map{i}") for i, f in enumerate(maps[:_MOST_FIELDS])]
            init = _stamp(maps[0].forecast["init_time"].values[case], lead_axis(forecast["lead_time"]).unit)
            remarks.append(f"Initial time {init}: the one whose error in {maps[0].name} is nearest the median over initial times.")
    for i, f in enumerate(series[:_MOST_FIELDS]):
        figures += [_series_figure(f, picked=_spread(f.forecast.sizes["lead_time"], 3), key=f"series{i}")]
    if series:
        remarks.append(
            f"Each forecast at its valid time, for the first {min(_MOST_POINTS, series[0].forecast.sizes['init_time'])} initial times."
        )
    left = max(0, len(maps) - _MOST_FIELDS) + max(0, len(series) - _MOST_FIELDS)
    if left:
        remarks.append(f"{left} further field(s) are in the forecast store but not drawn here.")
    return figures, remarks


def _spread(count: int, most: int) -> list[int]:
    return sorted(set(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()))


def _fields(forecast: xr.Dataset, observed: xr.Dataset) -> tuple[list[Field], list[str]]:
    """Fields present in both data sets, one per level and component, and remarks on those that are not."""
    out: list[Field] = []
    missing = []
    for name, array in forecast.data_vars.items():
        if not {"init_time", "lead_time"} <= set(array.dims):
            continue
        mean = array.mean("number", keep_attrs=True) if "number" in array.dims else array
        for label, part in _parts(str(name), mean):
            truth = _match(observed, str(name), label, part)
            units = str(part.attrs.get("units") or (truth.attrs.get("units", "") if truth is not None else ""))
            if truth is None:
                missing.append(label)
            else:
                out.append(Field(label, units, part, truth))
    return out, [f"Not drawn, because the observed data have no such field: {', '.join(missing)}."] if missing else []


def _parts(name: str, array: xr.DataArray) -> Iterator[tuple[str, xr.DataArray]]:
    rest = [d for d in array.dims if d in ("level", "component")]
    if not rest:
        yield name, array
        return
    for i, value in enumerate(array[rest[0]].values):
        label = f"{name}{value:g}" if rest[0] == "level" else str(value)
        yield label, array.isel({rest[0]: i})


def _match(observed: xr.Dataset, name: str, label: str, part: xr.DataArray) -> xr.DataArray | None:
    dims = {"time", *part.dims} - {"init_time", "lead_time"}
    for candidate in (label, name):
        if candidate not in observed:
            continue
        truth = observed[candidate]
        for dim in ("level", "component"):
            if dim in truth.dims and dim in part.coords and part[dim].values in truth[dim].values:
                truth = truth.isel({dim: int(np.flatnonzero(truth[dim].values == part[dim].values)[0])})
        if set(truth.dims) == dims:
            return truth
    return None


def truth_at(observed: xr.DataArray, init_time: xr.DataArray, lead_time: xr.DataArray) -> np.ndarray:
    """Positions on the observed time axis of ``init_time + lead_time``, −1 where there is none.

    Months match by year and month, whatever the day. Trajectories are told apart by ``segment`` where both carry it.

    Returns
    -------
    ndarray of int, shape (init_time, lead_time)
    """
    times = observed["time"]
    unit = lead_axis(lead_time).unit
    if unit == "months":
        keys = _months(times.values)[:, None]
        wanted = _months(init_time.values)[:, None] + lead_time.values.astype("int64")
    else:
        step = Step(1.0, "ps" if unit == "ps" else "hours")
        keys = _ticks(times.values)[:, None]
        wanted = _ticks(init_time.values)[:, None] + _ticks(step.amounts(lead_time.values))
    if "segment" in times.coords and "segment" in init_time.coords:
        far = np.int64(10**14)
        keys = keys + far * times["segment"].values.astype("int64")[:, None]
        wanted = wanted + far * init_time["segment"].values.astype("int64")[:, None]
    flat, first = np.unique(keys.ravel(), return_index=True)
    if len(flat) < len(keys):
        raise ValueError("got observed times that repeat, expected `segment` on time and init_time to tell trajectories apart")
    position = np.searchsorted(flat, wanted).clip(max=len(flat) - 1)
    return np.where(flat[position] == wanted, first[position], -1)


def _ticks(values: np.ndarray) -> np.ndarray:
    """Round times to whole thousandths of an hour or of a ps."""
    return np.round(numeric_time(values) * 1000).astype("int64")


def _months(values: np.ndarray) -> np.ndarray:
    if values.dtype == object:
        return np.array([t.year * 12 + t.month - 1 for t in values])
    return values.astype("datetime64[M]").astype("int64") + 1970 * 12


def typical_case(field: Field) -> int | None:
    """Position of the initial time whose error is nearest the median, over leads and cells relative to their mean.

    The first such one of at most 60 evenly spread initial times, among those with a truth at every lead; None without any.
    """
    positions = truth_at(field.observed, field.forecast["init_time"], field.forecast["lead_time"])
    complete = np.flatnonzero((positions >= 0).all(axis=1))
    if not len(complete):
        return None
    cases = complete[_spread(len(complete), _MOST_CASES)]
    dims = ("init_time", "lead_time")
    where = xr.DataArray(positions[cases], dims=dims)
    forecast = field.forecast.isel(init_time=cases).drop_vars(("init_time", "lead_time"))
    square = (forecast - field.observed.drop_vars("time").isel(time=where)) ** 2
    mean = square.weighted(_area(square)).mean([d for d in square.dims if d not in dims])
    error = np.sqrt(mean.transpose(*dims).values)
    relative = (error / np.maximum(np.nanmean(error, axis=0), 1e-30)).mean(axis=1)
    distance = np.round(np.abs(relative - np.nanmedian(relative)), 6)  # with an even count two are equally near: the first
    return int(cases[int(np.nanargmin(distance))]) if np.isfinite(distance).any() else None


def _area(field: xr.DataArray) -> xr.DataArray:
    latitude = field["latitude"]
    return latitude.copy(data=np.cos(np.deg2rad(latitude.values.astype(float))).clip(0.0))


def _limits(values: np.ndarray) -> tuple[float, float, str]:
    """Colour limits and map of a field: symmetric and diverging if it has both signs in earnest."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    if low < 0 < high and min(-low, high) > 0.25 * max(-low, high):
        high = max(-low, high)
        return -high, high, "RdBu_r"
    return float(low), float(high) if high > low else float(low) + 1.0, "viridis"


@in_report_style
def _map_figure(field: Field, *, case: int, lines: list[np.ndarray], key: str) -> str:
    shape = _shape(field.forecast["latitude"].values.astype(float), field.forecast["longitude"].values.astype(float))
    picked = _spread(field.forecast.sizes["lead_time"], 3 if shape > 0.6 else 4)
    one = field.forecast.isel(init_time=[case], lead_time=picked)
    at = truth_at(field.observed, one["init_time"], one["lead_time"])[0]
    forecast = one.isel(init_time=0).transpose("lead_time", "latitude", "longitude")
    truth = field.observed.isel(time=at).transpose("time", "latitude", "longitude")
    latitude, longitude = forecast["latitude"].values.astype(float), forecast["longitude"].values.astype(float)
    f, o = forecast.values.astype(float), truth.values.astype(float)
    weight = np.where(np.isfinite(f - o), _area(forecast).values[:, None], 0.0)
    rmse = np.sqrt(np.nansum(weight * (f - o) ** 2, axis=(1, 2)) / weight.sum(axis=(1, 2)).clip(1e-30))
    low, high, colors = _limits(np.concatenate([f, o]))
    most = float(np.nanpercentile(np.abs(f - o), 99.5)) or 1.0
    panel = (1000 - 48 - 8 - 2 * 14) / 3
    width, height = 1000.0, len(picked) * panel * shape + (len(picked) - 1) * 30 + 28 + 92
    figure, axes = blank_figure(width, height, rows=len(picked), columns=3, margins=Margins(48, 8, 28, 92, across=14, down=30))
    leads = lead_axis(field.forecast["lead_time"])
    units = pretty_units(field.units)
    valid = [_stamp(t, leads.unit) for t in truth["time"].values]
    for row in range(len(picked)):
        panels = ((f[row], low, high, colors), (o[row], low, high, colors), (f[row] - o[row], -most, most, "PuOr_r"))
        for column, (values, least, top, scheme) in enumerate(panels):
            ax = axes[row, column]
            image = _paint(ax, longitude, latitude, values, limits=(least, top), colors=scheme)
            _decorate(ax, longitude, latitude, lines=lines, left=column == 0, bottom=row == len(picked) - 1)
            if row == len(picked) - 1 and column:
                what = "forecast − truth" if column == 2 else f"{field.name}, forecast and truth"
                left, wide = (48 + 2 * (panel + 14), panel) if column == 2 else (48, 2 * panel + 14)
                bar = figure.colorbar(
                    image,
                    cax=figure.add_axes((left / width, 48 / height, wide / width, 11 / height)),
                    orientation="horizontal",
                    extend="both",
                    extendfrac=0.015,
                )
                bar.set_label(f"{what} ({units})" if units else what)
        axes[row, 0].set_title(f"{field.name} forecast, {leads.text([picked[row]])}")
        axes[row, 1].set_title(f"Truth, {valid[row]}", fontweight="normal")
        axes[row, 2].set_title(f"Error, RMSE {rmse[row]:.3g} {units}", fontweight="normal")
    init = _stamp(one["init_time"].values[0], leads.unit)
    alt = f"Maps of {field.name} forecast from {init}, the truth and the error, at {leads.text(picked)}."
    return inline_svg(figure, key=key, alt=alt)


def _paint(ax: Any, longitude: np.ndarray, latitude: np.ndarray, values: np.ndarray, *, limits: tuple[float, float], colors: str) -> Any:
    """Draw a field as an image of its cells, which stays small in SVG; uneven or very fine grids take the nearest cell."""
    picks, edges = [], []
    for axis in (latitude, longitude):
        even = np.linspace(axis[0], axis[-1], min(len(axis), _MOST_CELLS))
        half = (even[-1] - even[0]) / max(len(even) - 1, 1) / 2 or 0.5
        picks.append(np.abs(axis[None, :] - even[:, None]).argmin(axis=1))
        edges.append((even[0] - half, even[-1] + half))
    extent = (*edges[1], *edges[0])
    cells = values[np.ix_(picks[0], picks[1])]
    scale = {"cmap": colors, "vmin": limits[0], "vmax": limits[1]}
    return ax.imshow(cells, origin="lower", extent=extent, aspect="auto", interpolation="none", **scale)


def _shape(latitude: np.ndarray, longitude: np.ndarray) -> float:
    """Height of a map over its width; regional maps keep distances at their middle latitude."""
    east = max(float(np.ptp(longitude)), 1e-9)
    east *= float(np.cos(np.deg2rad(latitude.mean()))) if east < 180 else 1.0
    return min(max(float(np.ptp(latitude)) / east, 0.3), 1.1)


def _decorate(ax: Any, longitude: np.ndarray, latitude: np.ndarray, *, lines: list[np.ndarray], left: bool, bottom: bool) -> None:
    """Axes in degrees, coastlines, and a quiet grey where data are missing."""
    ax.set_facecolor((0.5, 0.5, 0.5, 0.25))
    ax.patch.set_alpha(0.25)
    limits = (*ax.get_xlim(), *ax.get_ylim())
    shifted = [np.add(line, (shift, 0)) for line in lines for shift in (-360, 0, 360)]
    near = [line for line in shifted if (line.max(0) > limits[::2]).all() and (line.min(0) < limits[1::2]).all()]
    ax.add_collection(LineCollection(near, colors="#000000", linewidths=0.6, alpha=0.8), autolim=False)
    ax.set_xlim(limits[0], limits[1])
    ax.set_ylim(limits[2], limits[3])
    ax.xaxis.set_major_locator(_degrees(np.ptp(longitude), 5))
    ax.yaxis.set_major_locator(_degrees(np.ptp(latitude), 5))
    ax.xaxis.set_major_formatter(lambda v, _: _degree_text((v + 180) % 360 - 180 if abs(v) != 180 else 180, "E", "W"))
    ax.yaxis.set_major_formatter(lambda v, _: _degree_text(v, "N", "S"))
    ax.tick_params(labelleft=left, labelbottom=bottom, length=3)


def _degrees(span: float, count: int) -> Any:
    steps = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90)
    return MultipleLocator(next((s for s in steps if span / s <= count), 90))


def _degree_text(value: float, positive: str, negative: str) -> str:
    side = "" if value == 0 or abs(value) == 180 else positive if value > 0 else negative
    return f"{abs(value):g}°{side}"


def _stamp(time: Any, unit: str) -> str:
    """Write a time as date and hour, as year and month, or in picoseconds, as suits leads in ``unit``."""
    if isinstance(time, int | float | np.number) and not isinstance(time, np.datetime64):
        return f"{time:g} ps"
    text = np.datetime_as_string(time, unit="m") if isinstance(time, np.datetime64) else time.isoformat(timespec="minutes")
    return str(text)[:7] if unit == "months" else str(text).replace("T", " ")


def coastlines() -> list[np.ndarray]:
    """Coastlines as arrays ``(point, 2)`` of longitude and latitude; empty unless cartopy *and* its data are installed.

    cartopy would download missing data while drawing, so its file is looked for first.
    """
    try:
        import cartopy
        from cartopy.io import shapereader
    except ImportError:
        return []
    for root in (cartopy.config.get("pre_existing_data_dir"), cartopy.config.get("data_dir")):
        path = Path(str(root)) / "shapefiles/natural_earth/physical/ne_110m_coastline.shp"
        if root and path.is_file():
            return [np.asarray(shape.coords)[:, :2] for shape in shapereader.Reader(path).geometries()]
    return []


@in_report_style
def _series_figure(field: Field, *, picked: Sequence[int], key: str) -> str:
    """Forecasts of a scalar series at a few leads against the truth, by valid time, for the first 120 initial times."""
    leads = lead_axis(field.forecast["lead_time"])
    part = field.forecast.isel(init_time=slice(0, _MOST_POINTS))
    at = truth_at(field.observed, part["init_time"], part["lead_time"])
    around = field.observed["time"].values[np.unique(at[at >= 0])[[0, -1]]] if (at >= 0).any() else None
    truth, forecast = np.asarray(field.observed.values, float), part.transpose("init_time", "lead_time").values
    figure, axes = blank_figure(1000, 210 * len(picked) + 20, rows=len(picked), margins=Margins(down=60))
    units = pretty_units(field.units)
    for ax, lead in zip(axes[:, 0], picked, strict=True):
        there = np.flatnonzero(at[:, lead] >= 0)
        when = field.observed["time"].values[at[there, lead]]
        x = when if when.dtype.kind in "fiuM" else numeric_time(when)
        ax.plot(x, truth[at[there, lead]], color=INK, linewidth=1.0, alpha=0.7, label="truth")
        ax.plot(x, forecast[there, lead], color="#D55E00", linewidth=2.0, label="forecast")
        if around is not None:
            ax.set_xlim(*(around if around.dtype.kind in "fiuM" else numeric_time(around)))
        ax.set_title(f"{field.name}, lead {leads.text([lead])}", pad=8)
        ax.set_ylabel(f"{field.name} ({units})" if units and units != "1" else field.name)
        ax.grid(color=INK, alpha=0.12, linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, labelcolor=INK, borderaxespad=0.1)
    unit = " (ps)" if leads.unit == "ps" else " (hours since 1970)" if field.observed["time"].values.dtype == object else ""
    axes[-1, 0].set_xlabel(f"Valid time{unit}")
    alt = f"Series of {field.name}, forecast and truth by valid time, at lead {leads.text(picked)}."
    return inline_svg(figure, key=key, alt=alt)
