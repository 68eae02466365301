"""Grids: from a store's dimensions, coordinates and variables to the canonical layout."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciwm.data.layout import dump, order_grid, rename_axes
from sciwm.data.names import Axis, pressure_factor
from sciwm.data.timeline import canonical_time, keep_coordinates
from sciwm.data.variables import canonical_variables

__all__ = ["canonical_grid"]

_LEVELS = ("level", "plev", "isobaricinhpa", "pressure_level", "pressure")


def canonical_grid(
    ds: xr.Dataset, axes: dict[str, Axis], wanted: Sequence[str] | None
) -> tuple[xr.Dataset, list[str]]:
    """Give a grid (or series along time) its canonical layout, names and units.

    Parameters
    ----------
    ds : Dataset
        As opened, chunked.
    axes : dict
        From `find_dimensions`; forecasts have ``init_time`` and ``number`` in place of ``time`` and
        ``segment``.
    wanted : sequence of str, optional
        Leave out what cannot serve one of these.

    Returns
    -------
    ds : Dataset
        Canonical, with what it was in its ``original`` attributes.
    available : list of str
        Canonical names of everything in the store.

    Raises
    ------
    ValueError
        If dimensions are neither those of a grid nor those of a molecule.
    """
    scalar_level = _scalar_level(ds)
    ds, record = rename_axes(ds, axes)
    ds = keep_coordinates(ds, set(axes)).drop_encoding()
    for role in ("time", "init_time"):
        if role in ds.dims:
            ds = canonical_time(ds, record, role=role)
    if "latitude" in ds.dims and "longitude" in ds.dims:
        ds = order_grid(ds, record)
    elif spatial := {str(d) for v in ds.data_vars.values() for d in v.dims} - {*axes, "component"}:
        raise ValueError(
            f"got dimensions {sorted(spatial)}, expected latitude and longitude (or atom and xyz);"
            ' name them so, or give their coordinates CF attributes (units "degrees_north" and'
            ' "degrees_east")'
        )
    ds, available = canonical_variables(ds, wanted=wanted, record=record, scalar_level=scalar_level)
    return ds.assign_attrs(original_grid=ds.attrs.get("original_grid", dump(record))), available


def _scalar_level(ds: xr.Dataset) -> float | None:
    for name in ds.coords:
        if str(name).lower() in _LEVELS and ds[name].ndim == 0:
            factor = pressure_factor(ds[name])
            return None if factor is None else float(np.round(float(ds[name]) * factor, 6))
    return None
