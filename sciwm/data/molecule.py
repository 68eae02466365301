"""Molecular trajectories: positions in nm, times in ps, angles in rad."""

from typing import Any

import xarray as xr

from sciwm.data.layout import dump, rename_axes
from sciwm.data.names import Axis
from sciwm.data.timeline import canonical_time, keep_coordinates
from sciwm.data.units import convert, same_dimension
from sciwm.data.variables import angles_to_radians

__all__ = ["canonical_molecule"]

_POSITIONS = ("positions", "position", "coordinates", "coords", "xyz", "pos", "x", "r")
_LEADING = ("init_time", "lead_time", "number", "segment", "time")


def canonical_molecule(ds: xr.Dataset, axes: dict[str, Axis]) -> tuple[xr.Dataset, list[str]]:
    """Give a trajectory its canonical names, dims and units.

    That is ``positions (time, atom, xyz)`` in nm, with ``time`` in ps. Series along time in degrees
    become radians; constants such as masses and bonds are kept. Forecasts of series alone are
    served too.

    Parameters
    ----------
    ds : Dataset
        As opened, chunked.
    axes : dict
        From `find_dimensions`; forecasts have ``init_time`` and ``number`` in place of ``time`` and
        ``segment``.

    Returns
    -------
    ds : Dataset
    available : list of str
        Its variables.

    Raises
    ------
    ValueError
        If positions or times have no units: Å and nm, fs and ps are easily mistaken for each other.
    """
    time = "init_time" if "init_time" in axes else "time"
    if time not in axes:
        raise ValueError(
            f"got dimensions {sorted(map(str, ds.dims))} without a time, expected (time, atom, xyz)"
        )
    ds, record = rename_axes(ds, axes)
    ds = keep_coordinates(canonical_time(ds.drop_encoding(), record, role=time), set(axes))
    name = _find_positions(ds, time)
    out: dict[str, Any] = {}
    for own in map(str, ds.data_vars):
        array = ds[own]
        note: dict[str, Any] = {
            "name": own,
            "attrs": array.attrs,
            "dims": [record.get(str(d), {}).get("dim", d) for d in array.dims],
        }
        rest = [d for d in array.dims if d not in _LEADING]
        if own == name:
            note["units"] = _length(array)
            array = convert(array.astype("float32"), note["units"], "nm")
            array = array.assign_attrs(units="nm").rename("positions")
            rest = ["atom", "xyz"]
        elif time in array.dims and array.dtype.kind in "biuf":
            array = angles_to_radians(array if array.dtype.kind == "f" else array.astype("float64"))
        array = array.transpose(*(d for d in _LEADING if d in array.dims), *rest)
        out[str(array.name)] = array.assign_attrs(original=array.attrs.get("original", dump(note)))
    canonical = xr.Dataset(out, coords=ds.coords, attrs=ds.attrs)
    if "xyz" in canonical.dims and "xyz" not in canonical.coords:
        canonical = canonical.assign_coords(xyz=["x", "y", "z"])
    canonical = canonical.assign_attrs(original_grid=ds.attrs.get("original_grid", dump(record)))
    return canonical, [str(n) for n in canonical.data_vars]


def _find_positions(ds: xr.Dataset, time: str) -> str:
    fits = [str(n) for n, v in ds.data_vars.items() if {time, "atom", "xyz"} <= set(v.dims)]
    named = [n for a in _POSITIONS for n in fits if n.lower() == a]
    if "atom" in ds.dims and not named and len(fits) != 1:
        raise ValueError(
            f"got variables {fits} with time, atoms and xyz, expected one of them to be called"
            " 'positions'"
        )
    return (named or fits or [""])[0]


def _length(array: xr.DataArray) -> str:
    units = str(array.attrs.get("units", "")).strip()
    units = "angstrom" if units in ("A", "a") else units
    if not units:
        here = f'ds["{array.name}"].attrs["units"]'
        raise ValueError(
            f"got {array.name!r} without units, expected nm or angstrom, because the two are easily"
            f' mistaken; set them: {here} = "nm" (mdtraj, OpenMM) or "angstrom" (MDAnalysis)'
        )
    if not same_dimension(units, "nm"):
        raise ValueError(f"got {array.name!r} in {units!r}, expected a length: nm or angstrom")
    return units
