"""Layout of a grid: the canonical order of its axes, and the way back to the store's own."""

import json
from typing import Any

import numpy as np
import xarray as xr

from sciwm.data.names import Axis, pressure_factor
from sciwm.data.units import convert

__all__ = ["canonical_longitude", "dump", "order_grid", "rename_axes", "to_original"]

_ATTRS = {
    "latitude": {"units": "degrees_north", "standard_name": "latitude"},
    "longitude": {"units": "degrees_east", "standard_name": "longitude"},
    "level": {"units": "hPa", "standard_name": "air_pressure", "positive": "down"},
}
_LEADING = ("init_time", "lead_time", "number")


def dump(record: Any) -> str:
    """JSON of attributes, with numpy numbers and arrays as plain ones."""
    return json.dumps(record, default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x))


def rename_axes(ds: xr.Dataset, axes: dict[str, Axis]) -> tuple[xr.Dataset, dict[str, Any]]:
    """Give dimensions and their coordinates canonical names.

    Returns
    -------
    ds : Dataset
        Dimension coordinates are called by their role. Any other variable with such a name is
        dropped.
    record : dict
        Role to the dimension, coordinate, attributes and type it had.
    """
    record = {}
    for role, (dim, coordinate) in axes.items():
        values = ds[coordinate] if coordinate else None
        record[role] = {
            **({"values": values.values} if role == "segment" and values is not None else {}),
            "dim": dim,
            "coordinate": coordinate,
            "attrs": dict(values.attrs) if values is not None else {},
            "dtype": str(values.dtype) if values is not None else None,
        }
        ds = ds.drop_vars([n for n in (role, dim, coordinate) if n in ds.variables])
        ds = ds.rename_dims({dim: role}) if dim != role else ds
        if values is not None:
            ds = ds.assign_coords({role: (role, values.values, values.attrs)})
    return ds, record


def canonical_longitude(longitude: Any) -> tuple[np.ndarray, np.ndarray]:
    """Order and values of longitudes in canonical form.

    Parameters
    ----------
    longitude : array, degrees east
        In any convention and order; a repeated meridian (0 and 360) counts once.

    Returns
    -------
    order : array of int
        Positions to take.
    values : array
        Ascending and contiguous. A domain starts after the largest gap on the circle, in
        (−180, 180]. A periodic one starts at its smallest longitude in [0, 360).

    Examples
    --------
    >>> canonical_longitude([0.0, 5.0, 350.0, 355.0])[1]
    array([-10.,  -5.,   0.,   5.])
    >>> canonical_longitude([-180.0, -90.0, 0.0, 90.0])[1]
    array([  0.,  90., 180., 270.])
    """
    given = np.asarray(longitude, dtype="float64")
    turned = np.round(np.mod(given, 360.0), 10) % 360.0
    circle = np.where((given >= 0) & (given < 360), given, turned)
    _, first = np.unique(np.round(circle, 7) % 360.0, return_index=True)
    order = first[np.argsort(circle[first], kind="stable")]
    circle = circle[order]
    gaps = np.diff(np.append(circle, circle[0] + 360.0))
    if len(circle) > 1 and gaps.max() <= 1.5 * float(np.median(gaps)):
        return order, circle
    start = (int(gaps.argmax()) + 1) % len(circle)
    order, circle = np.roll(order, -start), np.roll(circle, -start)
    beyond = np.arange(len(circle)) >= len(circle) - start
    circle = np.where(beyond, _shift(circle, 360.0), circle)
    return order, _shift(circle, -360.0) if circle[0] > 180.0 else circle


def _shift(longitude: np.ndarray, by: float) -> np.ndarray:
    # Rounded so that the same meridian has the same number whichever convention it came in.
    return np.asarray(np.round(longitude + by, 10))


def _as_float64(values: np.ndarray) -> np.ndarray:
    # Through the shortest decimal, so that 0.1 stored in single precision equals 0.1 stored in
    # double precision.
    return np.array([float(str(v)) for v in values], dtype="float64")


def order_grid(ds: xr.Dataset, record: dict[str, Any]) -> xr.Dataset:
    """Put latitude, longitude and level in canonical order and units.

    ``record`` notes how they were. Of attributes, latitude and longitude keep a true ``periodic``,
    as 1: the ends of a simulated plane meet.

    Raises
    ------
    ValueError
        If a coordinate has no values, or latitudes are not monotonic or not within ±90°.
    """
    for role in ("latitude", "longitude", "level"):
        one_level = role == "level" and ds.sizes.get(role) == 1
        if role in ds.dims and role not in ds.coords and not one_level:
            raise ValueError(
                f"got dimension {record[role]['dim']!r} without values, expected a {role}"
                " coordinate along it"
            )
    latitude = _as_float64(ds["latitude"].values)
    steps = np.diff(latitude)
    if np.abs(latitude).max() > 90.0 + 1e-6 or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(
            f"got latitudes {latitude[:3]}…{latitude[-1:]}, expected them within ±90° and either"
            " all ascending or all descending"
        )
    descending = bool((steps < 0).any())
    record["latitude"]["descending"] = descending
    ds = ds.assign_coords(latitude=("latitude", latitude, _own_attrs(ds["latitude"])))
    ds = ds.isel(latitude=slice(None, None, -1)) if descending else ds
    ds = _order_longitude(ds, record)
    if "level" in ds.dims and "level" in ds.coords:
        ds = _order_level(ds, record)
    return ds


def _own_attrs(axis: xr.DataArray) -> dict[str, Any]:
    """Canonical attributes of a latitude or longitude."""
    given = axis.attrs.get("periodic", 0)
    meets = given.lower() == "true" if isinstance(given, str) else bool(np.all(given))
    return _ATTRS[str(axis.name)] | ({"periodic": 1} if meets else {})


def _descends(steps: np.ndarray) -> bool:
    # Longitudes that are not monotonic as numbers may be so on the circle: 340, 350, 0, 10.
    if (steps > 0).all() or (steps < 0).all():
        return bool((steps < 0).any())
    return bool(np.mean(np.mod(steps + 180.0, 360.0) < 180.0) > 0.5)


def _order_longitude(ds: xr.Dataset, record: dict[str, Any]) -> xr.Dataset:
    given, attrs = _as_float64(ds["longitude"].values), _own_attrs(ds["longitude"])
    order, values = canonical_longitude(given)
    record["longitude"] |= {
        "west": float(given.min()),
        "first": float(given[0]),
        "descending": _descends(np.diff(given)),
        "cyclic": len(order) < len(given),
    }
    runs = np.split(order, np.flatnonzero(np.diff(order) != 1) + 1)
    if len(runs) == 1:
        ds = ds.isel(longitude=slice(runs[0][0], runs[0][-1] + 1))
    elif len(runs) == 2:
        # Two slices joined, which dask does without touching anything else; one fancy index would
        # shuffle every chunk.
        with_longitude = [v for v in ds.data_vars if "longitude" in ds[v].dims]
        parts = [ds[with_longitude].isel(longitude=slice(r[0], r[-1] + 1)) for r in runs]
        joined = xr.concat(parts, "longitude", join="override", combine_attrs="override")
        ds = xr.merge(
            [ds.drop_vars([*with_longitude, "longitude"]), joined.chunk(longitude=-1)],
            compat="override",
            join="override",
        )
    else:
        ds = ds.isel(longitude=order)
    return ds.assign_coords(longitude=("longitude", values, attrs))


def _order_level(ds: xr.Dataset, record: dict[str, Any]) -> xr.Dataset:
    level, note = ds["level"], record["level"]
    factor = pressure_factor(level.rename(note["coordinate"]).assign_attrs(note["attrs"]))
    note |= {"factor": factor, "descending": bool(level.size > 1 and level[0] > level[-1])}
    if factor is not None:
        pressure = np.round(_as_float64(level.values) * factor, 6)
        ds = ds.assign_coords(level=("level", pressure, _ATTRS["level"]))
    if (np.diff(ds["level"].values) < 0).all():
        return ds.isel(level=slice(None, None, -1))
    return ds.sortby("level")


def to_original(ds: xr.Dataset) -> xr.Dataset:
    """Give a Dataset back the names, units, attributes and axes of the store it came from.

    Works on anything whose variables and Dataset still carry their ``original`` and
    ``original_grid`` attributes. That is the Dataset itself, part of its variables or domain, or a
    forecast with ``init_time``, ``lead_time`` and ``number``. These dimensions come first and keep
    their names.

    Levels of one variable of the store (``z500``, ``z850``) become levels of it again. Variables
    with different levels become ``geopotential_500`` and so on instead: levels nobody asked for
    cannot be made up.

    Parameters
    ----------
    ds : Dataset
        Canonical, as `sciwm.open_dataset` returns it.

    Returns
    -------
    Dataset
        As lazy as ``ds``. The coordinate ``segment`` stays if there is more than one.
    """
    grid = json.loads(ds.attrs.get("original_grid", "{}"))
    out = ds.assign_attrs()
    out.attrs = {k: v for k, v in ds.attrs.items() if k != "original_grid"}
    if "segment" in out.coords:
        out = _unstack(out, grid)
    out = _restore_variables(out, grid)
    for role, note in grid.items():
        if role in out.dims:
            out = _restore_axis(out, role, note)
    return out


def _unstack(ds: xr.Dataset, grid: dict[str, Any]) -> xr.Dataset:
    numbers = ds["segment"].values
    if "segment" not in grid:
        return ds if np.any(numbers) else ds.drop_vars("segment")
    plain = ds.drop_vars("segment")
    members = [plain.isel(time=np.flatnonzero(numbers == n)) for n in np.unique(numbers)]
    times = members[0]["time"].values
    if not all(np.array_equal(times, m["time"].values) for m in members):
        return ds
    timed = [n for n in ds.data_vars if "time" in ds[n].dims]
    parts = [m[timed] for m in members]
    joined = xr.concat(
        parts,
        "segment",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    return members[0].assign(joined.data_vars)


def _restore_variables(ds: xr.Dataset, grid: dict[str, Any]) -> xr.Dataset:
    marked = {str(n): v for n, v in ds.data_vars.items() if "original" in v.attrs}
    records = {n: json.loads(v.attrs["original"]) for n, v in marked.items()}
    levels: dict[str, list[tuple[float, str]]] = {}
    for name, record in records.items():
        if record.get("level") is not None:
            levels.setdefault(record["name"], []).append((record["level"], name))
    stacks = {tuple(sorted(level for level, _ in members)) for members in levels.values()}
    whole = {record["name"] for record in records.values() if record.get("level") is None}
    on_level = len(stacks) == 1 and not whole & set(levels) and "level" not in ds.dims
    restored = {
        name: _restore_units(ds[name], records[name], grid) if name in records else ds[name]
        for name in map(str, ds.data_vars)
    }
    out: dict[str, xr.DataArray] = {n: a for n, a in restored.items() if n not in records}
    for name, record in records.items():
        if record.get("level") is None:
            out[record["name"]] = restored[name]
        elif not on_level:
            out[f"{record['name']}_{record['level']:g}"] = restored[name]
    for name, members in levels.items() if on_level else []:
        members = sorted(members)
        array = xr.concat(
            [restored[n] for _, n in members],
            "level",
            coords="minimal",
            compat="override",
            combine_attrs="override",
        )
        pressures = [level for level, _ in members]
        array = array.assign_coords(level=("level", pressures, _ATTRS["level"]))
        lead = [d for d in array.dims if d in (*_LEADING, "time")]
        out[name] = array.transpose(*lead, "level", ...)
    result = xr.Dataset(out, attrs=ds.attrs)
    return result.assign_coords({n: c for n, c in ds.coords.items() if n not in result.coords})


def _restore_units(
    array: xr.DataArray, record: dict[str, Any], grid: dict[str, Any]
) -> xr.DataArray:
    here, there = array.attrs.get("units"), record.get("units") or record["attrs"].get("units")
    if here and there and here != there:
        array = convert(array, str(here), str(there), difference=bool(record.get("difference")))
    roles = {note["dim"]: role for role, note in grid.items()}
    known = [roles.get(d, d) for d in record["dims"]]
    lead = [d for d in _LEADING if d in array.dims]
    lead += ["time"] if "time" in array.dims and "time" not in known else []
    rest = [d for d in known if d in array.dims and d not in lead]
    array = array.transpose(*lead, *rest, ...)
    array.attrs = dict(record["attrs"])
    return array


def _restore_axis(ds: xr.Dataset, role: str, note: dict[str, Any]) -> xr.Dataset:
    members = note.get("values")
    if role in ds.coords:
        ds = _restore_values(ds, role, note)
    elif role == "segment" and members is not None and len(members) == ds.sizes[role]:
        ds = ds.assign_coords({role: (role, members, note["attrs"])})
    coordinate, dim = note["coordinate"], note["dim"]
    if role not in ds.coords or coordinate in (None, dim):
        return ds.rename({role: dim}) if dim != role else ds
    ds = ds.rename({role: coordinate}) if coordinate != role else ds
    return ds.reset_index(coordinate).rename_dims({coordinate: dim})


def _restore_values(ds: xr.Dataset, role: str, note: dict[str, Any]) -> xr.Dataset:
    if role == "longitude" and "west" in note:
        ds = _restore_longitude(ds, note)
    if role == "latitude" and note.get("descending"):
        ds = ds.isel(latitude=slice(None, None, -1))
    if role == "level" and note.get("descending"):
        ds = ds.sortby("level", ascending=False)
    values = ds[role].values
    if note.get("factor"):
        values = np.round(values / note["factor"], 6)
    if note["dtype"] and values.dtype.kind in "iuf":
        if note.get("units_factor"):
            values = values / note["units_factor"]
        values = values.astype(note["dtype"])
    skip = ("units", "dtype") if values.dtype.kind == "m" else ()
    attrs = {k: v for k, v in note["attrs"].items() if k not in skip}
    return ds.assign_coords({role: (role, values, attrs)})


def _restore_longitude(ds: xr.Dataset, note: dict[str, Any]) -> xr.Dataset:
    values = ds["longitude"].values
    turns = np.floor((values - note["west"] + 1e-7) / 360.0)
    values = np.where(turns == 0, values, np.round(values - 360.0 * turns, 10))
    from_first = note["first"] - values if note["descending"] else values - note["first"]
    order = np.argsort(np.mod(from_first + 1e-7, 360.0), kind="stable")
    ds = ds.assign_coords(longitude=("longitude", values)).isel(longitude=order)
    if note["cyclic"]:
        turn = -360.0 if note["descending"] else 360.0
        again = ds.isel(longitude=[0])
        again = again.assign_coords(longitude=again["longitude"] + turn)
        ds = xr.concat(
            [ds, again],
            "longitude",
            data_vars="minimal",
            coords="minimal",
            compat="override",
            combine_attrs="override",
        )
    return ds
