"""Opening stores: here foreign names, units, calendars and coordinate orders become canonical."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from sciwm.data.fingerprint import fingerprint
from sciwm.data.grid import canonical_grid
from sciwm.data.layout import dump, to_original
from sciwm.data.molecule import canonical_molecule
from sciwm.data.names import find_dimensions
from sciwm.data.read import Store, chunk_lazily, read_pieces
from sciwm.data.timeline import canonical_lead, check_times, join_pieces, stack_segments
from sciwm.data.variables import select_variables

__all__ = ["fingerprint", "open_dataset", "open_forecast", "open_static", "to_original"]


def open_dataset(
    store: Store,
    *,
    variables: Sequence[str] | None = None,
    static: Sequence[str] | None = None,
    segments: bool = False,
    chunks: str | Mapping[str, int] = "auto",
) -> xr.Dataset:
    """Open a gridded record or molecular trajectories, lazily, in canonical form.

    Grids come back with dims ``time, [level], latitude, longitude``. Latitudes ascend, longitudes
    are contiguous. Names are ECMWF short names (``z500``, ``t2m``, ``msl``…), units are SI (K, Pa,
    m s-1, m2 s-2). Molecules come as ``positions (time, atom, xyz)`` in nm, with ``time`` in ps and
    angles in rad. Names sciwm does not know are kept. Missing values are not looked for. Of
    a simulated plane whose ends meet, latitude, longitude or both may say so. Their attribute
    ``periodic`` is kept, as 1.

    Parameters
    ----------
    store : path, glob, URL, Dataset, or a list of these
        Zarr 2 or 3 (folder, ``.zip`` or URL), netCDF 3 or 4, or GRIB (with ``sciwm[grib]``).
        Several whose times follow one another are pieces of one record. Several that overlap are
        trajectories or members: each is its own segment.
    variables : list of str, optional
        Canonical names or aliases. ``z500`` is also taken out of a ``z`` with levels. Everything by
        default.
    static : list of str, optional
        Fields without time to keep. By default all, or none where ``variables`` are given.
    segments : bool
        Split the record at gaps in time, instead of refusing them.
    chunks : "auto" or mapping
        Dask chunk sizes by canonical dimension; ``"auto"`` follows the chunks of the store.

    Returns
    -------
    Dataset
        Dask-backed, with ``segment(time)``; `to_original` leads back to the store's own names,
        units and order.

    Raises
    ------
    FileNotFoundError
        If there is no such store; the message lists what is there.
    ValueError
        If a file is damaged, a variable is not there, or units measure something else. Also if
        coordinates are missing or two-dimensional, or times are repeated, unordered or have gaps.
        The message names what and says what to do.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> time = np.arange("2000-01-01", "2000-01-11", dtype="datetime64[D]").astype("datetime64[ns]")
    >>> field = xr.DataArray(
    ...     np.zeros((10, 2, 3)),
    ...     {"time": time, "lat": [30.0, 0.0], "lon": [340.0, 350.0, 0.0]},
    ...     ("time", "lat", "lon"),
    ... )
    >>> ds = open_dataset(field.assign_attrs(units="degC").to_dataset(name="tas"))
    >>> float(ds["t2m"][0, 0, 0]), ds["longitude"].values.tolist()
    (273.15, [-20.0, -10.0, 0.0])
    """
    variables = [variables] if isinstance(variables, str) else variables
    static = [static] if isinstance(static, str) else static
    wanted = None if variables is None else [*variables, *(static or ())]
    pieces, available = [], set()
    for label, opened in read_pieces(store):
        ds, names = _canonical(opened, label, wanted, chunks)
        pieces.append((label, ds))
        available.update(names)
    if not any("time" in ds.dims for _, ds in pieces):
        found = sorted({str(d) for _, ds in pieces for d in ds.dims})
        raise ValueError(
            f"got {pieces[0][0]} without a time dimension, expected one; its dimensions are {found}"
        )
    records = join_pieces([(label, ds) for label, ds in pieces if ds.data_vars] or pieces)
    label = records[0][0] if len(records) == 1 else f"{len(records)} stores"
    record = check_times(stack_segments(records), split=segments, label=label)
    return select_variables(record, variables, static, available)


def _canonical(
    ds: xr.Dataset, label: str, wanted: Sequence[str] | None, chunks: Any
) -> tuple[xr.Dataset, list[str]]:
    try:
        axes = find_dimensions(ds)
        if "lead_time" in axes:
            raise ValueError(
                f"got dimension {axes['lead_time'].dim!r}: this is a forecast store, expected a"
                " record; use open_forecast"
            )
        ds = chunk_lazily(ds, chunks, {role: axis.dim for role, axis in axes.items()}, label=label)
        return canonical_molecule(ds, axes) if "atom" in axes else canonical_grid(ds, axes, wanted)
    except ValueError as error:
        if label in str(error) or label == "the Dataset":
            raise
        raise ValueError(f"{error} [in {label}]") from error


def open_static(store: Store) -> xr.Dataset:
    """Open fields without time, such as a land–sea mask, in canonical form.

    Names, units and the order of coordinates are those of `open_dataset`.

    Parameters
    ----------
    store : path, URL or Dataset
        One store in any format `open_dataset` reads. Of fields with times, the first time is taken.

    Returns
    -------
    Dataset
        Lazy, dims ``latitude, longitude``.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> mask = xr.DataArray(
    ...     np.eye(2), {"lat": [30.0, 0.0], "lon": [350.0, 355.0]}, ("lat", "lon")
    ... ).assign_attrs(units="1")
    >>> dict(open_static(mask.to_dataset(name="land_sea_mask")).sizes)
    {'latitude': 2, 'longitude': 2}
    """
    (label, opened), *rest = read_pieces(store)
    if rest:
        count = 1 + len(rest)
        raise ValueError(
            f"got {count} stores, expected one, because fields without time are of one grid"
        )
    ds, _ = _canonical(opened, label, None, "auto")
    return ds.isel(time=0, drop=True) if "time" in ds.dims else ds


def open_forecast(store: Store, *, chunks: str | Mapping[str, int] = "auto") -> xr.Dataset:
    """Open a forecast store, ours or another's, in canonical form.

    The WeatherBench 2 layout (``time``, ``prediction_timedelta``, ``number``, …) and
    ``init_time``/``lead_time`` are both understood, dims in any order.

    Parameters
    ----------
    store : path, URL or Dataset
        One forecast store in any format `open_dataset` reads.
    chunks : "auto" or mapping
        Dask chunk sizes by canonical dimension.

    Returns
    -------
    Dataset
        Lazy, dims ``init_time, lead_time, [number], [level], latitude, longitude`` (``component``
        or nothing in place of a grid), canonical names and units. ``lead_time`` is
        ``timedelta64[ns]``, whole numbers with ``units="months"``, or picoseconds with
        ``units="ps"``.

    Raises
    ------
    ValueError
        If there is no initial or lead time, or lead times are plain numbers without units.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> lead = ("prediction_timedelta", [24, 48], {"units": "hours"})
    >>> time = np.array(["2000-01-01"], "datetime64[ns]")
    >>> index = (("prediction_timedelta", "time"), np.zeros((2, 1)))
    >>> ds = xr.Dataset({"nino34": index}, {"time": time, "prediction_timedelta": lead})
    >>> open_forecast(ds)["nino34"].dims, open_forecast(ds)["lead_time"].dtype
    (('init_time', 'lead_time'), dtype('<m8[ns]'))
    """
    pieces = read_pieces(store)
    if len(pieces) != 1:
        raise ValueError(
            f"got {len(pieces)} pieces, expected one forecast store; open them one by one and join"
            " them along init_time"
        )
    label, ds = pieces[0]
    axes = find_dimensions(ds)
    needed = {"time": "initial times", "lead_time": "lead times"}
    if missing := [words for role, words in needed.items() if role not in axes]:
        raise ValueError(
            f"got {label} with dimensions {sorted(map(str, ds.dims))}, expected also"
            f" {' and '.join(missing)} (time, prediction_timedelta)"
        )
    segment = ds.coords.get("segment")
    segment = segment if segment is not None and segment.dims == (axes["time"].dim,) else None
    in_forecasts = {"time": "init_time", "segment": "number"}
    axes = {in_forecasts.get(role, role): axis for role, axis in axes.items()}
    ds = chunk_lazily(ds, chunks, {role: axis.dim for role, axis in axes.items()}, label=label)
    lead, factor = canonical_lead(ds, axes["lead_time"])
    on_grid = "latitude" in axes
    ds, _ = canonical_grid(ds, axes, None) if on_grid else canonical_molecule(ds, axes)
    record = json.loads(ds.attrs["original_grid"])
    if factor != 1.0:
        record["lead_time"]["units_factor"] = factor
    ds = ds.assign_coords(lead_time=lead).assign_attrs(original_grid=dump(record))
    if segment is not None:
        # Trajectories may share their times: the order of the store tells them apart.
        return ds.assign_coords(segment=("init_time", segment.values))
    for role in ("init_time", "lead_time"):
        index = ds.get_index(role)
        if index.has_duplicates:
            twice = index[index.duplicated()][0]
            raise ValueError(f"got {role} {twice} more than once in {label}, expected each once")
        ds = ds if index.is_monotonic_increasing else ds.sortby(role)
    return ds
