"""What a training store knows beside its states: calendar, labels, static fields, targets."""

from typing import Any

import numpy as np
import xarray as xr

from sciwm.store.statistics import to_channels
from sciwm.times import Step, calendar_fields, infer_step

__all__ = ["conditions", "small_arrays"]

_PIECE = 2**14


def conditions(time: Any, step: Step) -> np.ndarray:
    """Calendar as known beforehand: sine and cosine of two annual harmonics.

    When steps are below a day, those of the hour, too.

    Parameters
    ----------
    time : array, any shape
        ``datetime64`` or ``cftime``; molecules have no calendar and get no columns.
    step : Step
        Step of the data.

    Returns
    -------
    ndarray of float32, ``[..., condition]``
        4 or 6 columns, or none for picoseconds.
    """
    values = np.asarray(time)
    if step.unit == "ps":
        return np.zeros((*values.shape, 0), np.float32)
    hourly = step.unit == "hours" and step.value < 24.0
    out = np.empty((values.size, 6 if hourly else 4), np.float32)
    flat = values.ravel()
    # Piece by piece: what is needed in between takes many times the memory of the result.
    for start in range(0, values.size, _PIECE):
        year, day, _ = calendar_fields(flat[start : start + _PIECE])
        angles = [2 * np.pi * year, 4 * np.pi * year, *([2 * np.pi * day] if hourly else [])]
        out[start : start + _PIECE] = np.stack(
            [f(a) for a in angles for f in (np.sin, np.cos)], axis=-1
        )
    return out.reshape(*values.shape, out.shape[1])


def small_arrays(
    ds: xr.Dataset,
    label: np.ndarray,
    segment: np.ndarray,
    static: xr.Dataset | None,
    targets: xr.Dataset | None,
) -> xr.Dataset:
    """Everything of a training store but its states and statistics.

    Its attributes describe the time axis.
    """
    step = infer_step(ds["time"])
    time = ds["time"].values
    fields: dict[str, Any] = {
        "condition": (("time", "condition"), conditions(time, step)),
        "split": ("time", label),
        "segment": ("time", np.asarray(segment, np.int32)),
    }
    coords: dict[str, Any] = {"time": ("time", time, ds["time"].attrs)}
    if targets is not None and targets.data_vars:
        names, values = _target_columns(targets, time, label)
        fields["target"] = (("time", "target"), values)
        coords["target_name"] = ("target", np.array(names, dtype=object))
    if static is not None and static.data_vars:
        names, planes = _static_planes(static)
        fields["static"] = (("static", "latitude", "longitude"), planes)
        coords["static_name"] = ("static", np.array(names, dtype=object))
    if "positions" in ds.data_vars:  # masses, bonds and names describe the molecule
        for name, constant in ds.variables.items():
            if "time" not in constant.dims and constant.ndim:
                fields[str(name)] = (constant.dims, _storable(constant.values), constant.attrs)
    for dim in ("latitude", "longitude"):
        if dim in ds.coords:
            coords[dim] = (dim, ds[dim].values, ds[dim].attrs)
    attrs = {
        "step_value": step.value,
        "step_unit": step.unit,
        "calendar": "none" if step.unit == "ps" else str(ds["time"].dt.calendar),
    }
    return xr.Dataset(fields, coords, attrs)


def _storable(values: np.ndarray) -> np.ndarray:
    return values.astype(object) if values.dtype.kind in "US" else values


def _target_columns(
    targets: xr.Dataset, time: np.ndarray, label: np.ndarray
) -> tuple[list[str], np.ndarray]:
    names, columns = [], []
    for name, series in targets.data_vars.items():
        if series.dims != ("time",) or series.size != len(time):
            raise ValueError(
                f"got target {name!r} of sizes {dict(series.sizes)}, expected time {len(time)}, one"
                " value per state"
            )
        values, units = np.asarray(series.values, np.float64), str(series.attrs.get("units", ""))
        gone = np.flatnonzero(~np.isfinite(values) & (label >= 0))
        if gone.size:
            raise ValueError(
                f"got target {name!r} with {gone.size} missing or infinite values in the blocks of"
                f" the split, the first at time {time[gone[0]]}, expected none: fill them, leave"
                " those times out of `data.split`, or take it out of `probe.targets`"
            )
        if units in ("rad", "radian", "radians", "degree", "degrees", "deg"):
            angle = values if units.startswith("rad") else np.deg2rad(values)
            names += [f"{name}_sin", f"{name}_cos"]
            columns += [np.sin(angle), np.cos(angle)]
        else:
            names.append(str(name))
            columns.append(values)
    return names, np.stack(columns, axis=-1).astype(np.float32)


def _static_planes(static: xr.Dataset) -> tuple[list[str], np.ndarray]:
    stacked = to_channels(static)
    area: xr.DataArray = np.cos(np.deg2rad(stacked["latitude"]))  # type: ignore[assignment]
    weighted = stacked.astype(np.float64).weighted(area)
    mean, spread = weighted.mean(("latitude", "longitude")), weighted.std(("latitude", "longitude"))
    names = [str(n) for n in stacked["channel"].values]
    flat = np.flatnonzero(~(spread.values > 1e-7 * np.abs(mean.values)))
    if flat.size:
        raise ValueError(
            f"got static field {names[flat[0]]!r}, which is constant or missing everywhere,"
            " expected one that varies; leave it out"
        )
    return names, ((stacked - mean) / spread).fillna(0.0).values.astype(np.float32)
