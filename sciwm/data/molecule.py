"""Molecular trajectories: positions in nm, times in ps, angles in rad."""

from typing import Any

import xarray as xr

from sciwm.data.layout import dump, rename_axes
from sciwm.data.names import Axis
from sciwm.data.timeline import canonical_time
from sciwm.data.units import convert, same_dimension
from sciwm.data.variables import angles_to_radians

__all__ = ["canonical_molecule"]

_POSITIONS = ("positions", "position", "coordinates", "coords", "xyz", "pos", "x", "r")


def canonical_molecule(ds: xr.Dataset, axes: dict[str, Axis]) -> xr.Dataset:
    """Give a trajectory its canonical names, dims and units: ``positions (time, atom, xyz)`` in nm, ``time`` in ps.

    Series along time in degrees become radians; constants such as masses and bonds are kept as they are.

    Raises
    ------
    ValueError
        If positions or times have no units, because Å and nm, fs and ps are easily mistaken for each other.
    """
    if "time" not in axes:
        raise ValueError(f"got dimensions {sorted(map(str, ds.dims))} without a time, expected (time, atom, xyz)")
    ds, record = rename_axes(ds, axes)
    ds = canonical_time(ds.drop_encoding(), record)
    name = _find_positions(ds)
    out: dict[str, Any] = {}
    for own in map(str, ds.data_vars):
        array = ds[own]
        note = dump({"name": own, "attrs": array.attrs, "dims": [record.get(str(d), {}).get("dim", d) for d in array.dims]})
        if own == name:
            out["positions"] = _positions(array).assign_attrs(original=note)
        elif "time" in array.dims and array.dtype.kind in "fiu":
            array = angles_to_radians(array)
            array = array if array.dtype.kind == "f" else array.astype("float64")
            out[own] = array.transpose("segment", "time", ..., missing_dims="ignore").assign_attrs(original=note)
        else:
            out[own] = array.assign_attrs(original=note)
    canonical = xr.Dataset(out, coords=ds.coords, attrs=ds.attrs)
    if "xyz" not in canonical.coords:
        canonical = canonical.assign_coords(xyz=["x", "y", "z"])
    return canonical.assign_attrs(original_grid=dump(record))


def _find_positions(ds: xr.Dataset) -> str:
    fits = [str(n) for n, v in ds.data_vars.items() if {"time", "atom", "xyz"} <= set(v.dims)]
    named = [n for a in _POSITIONS for n in fits if n.lower() == a]
    if not named and len(fits) != 1:
        raise ValueError(f"got variables {fits} with atoms and xyz, expected one called 'positions'")
    return named[0] if named else fits[0]


def _positions(array: xr.DataArray) -> xr.DataArray:
    units = str(array.attrs.get("units", "")).strip()
    units = "angstrom" if units in ("A", "a") else units
    if not units:
        raise ValueError(
            f"got {array.name!r} without units, expected nm or angstrom, because the two are easily mistaken; set them: "
            f'ds["{array.name}"].attrs["units"] = "nm" (mdtraj, OpenMM) or "angstrom" (MDAnalysis)'
        )
    if not same_dimension(units, "nm"):
        raise ValueError(f"got {array.name!r} in {units!r}, expected a length: nm or angstrom")
    array = convert(array.astype("float32"), units, "nm").assign_attrs(units="nm")
    return array.rename("positions").transpose("segment", "time", "atom", "xyz", missing_dims="ignore")
