"""Opening stores: the only place where foreign names, units, calendars and coordinate orders become canonical ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sciwm.data.layout import dump, order_grid, rename_axes, to_original
from sciwm.data.molecule import canonical_molecule
from sciwm.data.names import Axis, find_dimensions, pressure_factor
from sciwm.data.read import Store, chunk_lazily, read_pieces
from sciwm.data.timeline import canonical_time, check_times, join_pieces, stack_segments
from sciwm.data.variables import canonical_variables, select_variables

__all__ = ["open_dataset", "to_original"]


def open_dataset(
    store: Store,
    *,
    variables: Sequence[str] | None = None,
    static: Sequence[str] | None = None,
    segments: bool = False,
    chunks: str | Mapping[str, int] = "auto",
) -> xr.Dataset:
    """Open a gridded record or molecular trajectories, lazily, in canonical form.

    Grids come back with dims ``time, [level], latitude, longitude``, latitudes ascending, longitudes contiguous, ECMWF short names
    (``z500``, ``t2m``, ``msl``…) and SI units (K, Pa, m s-1, m2 s-2); molecules as ``positions (time, atom, xyz)`` in nm with ``time`` in ps
    and series in rad. Names sciwm does not know are kept. Missing values are not looked for.

    Parameters
    ----------
    store : path, glob, URL, Dataset, or a list of these
        Zarr 2 or 3 (folder, ``.zip`` or URL), netCDF 3 or 4, or GRIB (with ``sciwm[grib]``). Several are pieces of one record when their times
        follow one another, trajectories or members when they overlap: each is then its own segment.
    variables : list of str, optional
        Canonical names or aliases; ``z500`` is also taken out of a ``z`` with levels. Everything by default.
    static : list of str, optional
        Fields without time to keep. By default all, or none where ``variables`` are given.
    segments : bool
        Split the record at gaps in time, instead of refusing them.
    chunks : "auto" or mapping
        Dask chunk sizes by canonical dimension; ``"auto"`` follows the chunks of the store.

    Returns
    -------
    Dataset
        Dask-backed, with ``segment(time)``; `to_original` leads back to the store's own names, units and order.

    Raises
    ------
    FileNotFoundError
        If there is no such store; the message lists what is there.
    ValueError
        If a file is damaged, coordinates are missing or two-dimensional, units measure something else, a variable is not there, or times are
        repeated, unordered or have gaps. The message names what and says what to do.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> time = np.arange("2000-01-01", "2000-01-11", dtype="datetime64[D]").astype("datetime64[ns]")
    >>> field = xr.DataArray(np.zeros((10, 2, 3)), {"time": time, "lat": [30.0, 0.0], "lon": [340.0, 350.0, 0.0]}, ("time", "lat", "lon"))
    >>> ds = open_dataset(field.assign_attrs(units="degC").to_dataset(name="tas"))
    >>> float(ds["t2m"][0, 0, 0]), ds["longitude"].values.tolist()
    (273.15, [-20.0, -10.0, 0.0])
    """
    variables = [variables] if isinstance(variables, str) else variables
    static = [static] if isinstance(static, str) else static
    wanted = None if variables is None else [*variables, *(static or ())]
    pieces = [(label, _canonical(ds, label, wanted, chunks)) for label, ds in read_pieces(store)]
    if not any("time" in ds.dims for _, ds in pieces):
        found = sorted({str(d) for _, ds in pieces for d in ds.dims})
        raise ValueError(f"got {pieces[0][0]} without a time dimension, expected one; its dimensions are {found}")
    records = join_pieces(pieces)
    record = stack_segments(records)
    label = records[0][0] if len(records) == 1 else f"{len(records)} stores"
    record = check_times(record, split=segments, label=label)
    return select_variables(record, variables, static)


def _canonical(ds: xr.Dataset, label: str, wanted: Sequence[str] | None, chunks: Any) -> xr.Dataset:
    try:
        axes = find_dimensions(ds)
        if "lead_time" in axes:
            raise ValueError(f"got a dimension {axes['lead_time'].dim!r}: this is a forecast store; use open_forecast")
        ds = chunk_lazily(ds, chunks, {role: axis.dim for role, axis in axes.items()})
        if "atom" in axes:
            return canonical_molecule(ds, axes)
        return _canonical_grid(ds, axes, wanted)
    except ValueError as error:
        if label in str(error) or label == "the Dataset":
            raise
        raise ValueError(f"{error} [in {label}]") from error


def _canonical_grid(ds: xr.Dataset, axes: dict[str, Axis], wanted: Sequence[str] | None, *, time: str = "time") -> xr.Dataset:
    scalar_level = _scalar_level(ds)
    ds, record = rename_axes(ds, axes)
    keep = set(axes)
    ds = ds.drop_vars([c for c in ds.coords if c not in keep]).drop_encoding()
    if "time" in ds.dims:
        ds = canonical_time(ds, record)
    if "latitude" in ds.dims and "longitude" in ds.dims:
        ds = order_grid(ds, record)
    elif spatial := {d for v in ds.data_vars.values() for d in v.dims} - {"time", "segment", "level"}:
        raise ValueError(
            f"got dimensions {sorted(map(str, spatial))}, expected latitude and longitude (or atom and xyz); name them or give them CF attributes"
        )
    ds = canonical_variables(ds, wanted=wanted, record=record, scalar_level=scalar_level)
    return ds.assign_attrs(original_grid=dump(record))


def _scalar_level(ds: xr.Dataset) -> float | None:
    for name in ds.coords:
        if str(name).lower() in ("level", "plev", "isobaricinhpa", "pressure_level", "pressure") and ds[name].ndim == 0:
            factor = pressure_factor(ds[name])
            return None if factor is None else float(np.round(float(ds[name]) * factor, 6))
    return None
