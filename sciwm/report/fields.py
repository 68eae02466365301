"""Which forecast field belongs to which observed one, and which time to which."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sciwm.report.labels import lead_axis
from sciwm.skill.alignment import evenly_spread
from sciwm.times import Step, numeric_time

__all__ = ["Field", "area", "match_fields", "stamp", "truth_at", "typical_case"]

_MOST_CASES = 60  # initial times looked at for a typical one


@dataclass(frozen=True)
class Field:
    """A forecast field and the observed one it is to be compared with.

    Parameters
    ----------
    name, units : str
    forecast : DataArray
        Dims ``(init_time, lead_time, ...)``.
    observed : DataArray
        Dims ``(time, ...)``.
    members : bool
        Whether the forecast is the mean of an ensemble.
    """

    name: str
    units: str
    forecast: xr.DataArray
    observed: xr.DataArray
    members: bool = False


def match_fields(forecast: xr.Dataset, observed: xr.Dataset) -> tuple[list[Field], list[str]]:
    """Fields that both data sets hold, and remarks on those that are only forecast.

    Each level and component is a field of its own. Of ensembles the mean is taken.
    """
    out: list[Field] = []
    missing = []
    for name, array in forecast.data_vars.items():
        if not {"init_time", "lead_time"} <= set(array.dims):
            continue
        mean = array.mean("number", keep_attrs=True) if "number" in array.dims else array
        for label, part in _parts(str(name), mean):
            truth = _match(observed, str(name), label, part)
            if truth is None:
                missing.append(label)
                continue
            units = str(part.attrs.get("units") or truth.attrs.get("units", ""))
            out.append(Field(label, units, part, truth, "number" in array.dims))
    if not missing:
        return out, []
    names = ", ".join(missing)
    return out, [f"Not drawn, because the observed data have no such field: {names}."]


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
                here = np.flatnonzero(truth[dim].values == part[dim].values)[0]
                truth = truth.isel({dim: int(here)})
        if set(truth.dims) == dims:
            return truth
    return None


def truth_at(
    observed: xr.DataArray, init_time: xr.DataArray, lead_time: xr.DataArray
) -> np.ndarray:
    """Positions on the observed time axis of ``init_time + lead_time``, −1 where there is none.

    Months match by year and month, whatever the day. Trajectories are told apart by ``segment``
    where both carry it.

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
        raise ValueError(
            "got observed times that repeat, expected `segment` on time and init_time to tell"
            " trajectories apart"
        )
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
    """Position of the initial time whose error is nearest the median; None if no truth is complete.

    The error is a mean over leads, each relative to its mean over initial times. At most 60 evenly
    spread initial times with a truth at every lead are looked at. Of equally near ones the first
    is taken.
    """
    positions = truth_at(field.observed, field.forecast["init_time"], field.forecast["lead_time"])
    complete = np.flatnonzero((positions >= 0).all(axis=1))
    if not len(complete):
        return None
    cases = complete[evenly_spread(len(complete), _MOST_CASES)]
    dims = ("init_time", "lead_time")
    where = xr.DataArray(positions[cases], dims=dims)
    forecast = field.forecast.isel(init_time=cases).drop_vars(("init_time", "lead_time"))
    square = (forecast - field.observed.drop_vars("time").isel(time=where)) ** 2
    mean = square.weighted(area(square)).mean([d for d in square.dims if d not in dims])
    error = np.sqrt(mean.transpose(*dims).values)
    relative = (error / np.maximum(np.nanmean(error, axis=0), 1e-30)).mean(axis=1)
    # Rounded, because with an even count two are equally near: the first is taken.
    distance = np.round(np.abs(relative - np.nanmedian(relative)), 6)
    return int(cases[int(np.nanargmin(distance))]) if np.isfinite(distance).any() else None


def area(field: xr.DataArray) -> xr.DataArray:
    """Weights of the latitudes of a field: their cosine."""
    latitude = field["latitude"]
    return latitude.copy(data=np.cos(np.deg2rad(latitude.values.astype(float))).clip(0.0))


def stamp(time: Any, unit: str) -> str:
    """Write a time as suits leads in ``unit``: date and hour, year and month, or picoseconds."""
    if isinstance(time, int | float | np.number) and not isinstance(time, np.datetime64):
        return f"{time:g} ps"
    if isinstance(time, np.datetime64):
        text = str(np.datetime_as_string(time, unit="m"))
    else:
        text = str(time.isoformat(timespec="minutes"))
    return text[:7] if unit == "months" else text.replace("T", " ")
