"""Variables of a store: canonical names and units, one level or all, and the choice of those asked for."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from sciwm.data.layout import dump
from sciwm.data.names import VARIABLES, canonical_name, close_matches, level_suffix, split_name
from sciwm.data.units import same_dimension, to_units

__all__ = ["canonical_variables", "select_variables", "wanted_name"]

_GRID = ("init_time", "lead_time", "time", "number", "segment", "level", "latitude", "longitude")


def wanted_name(name: str) -> str:
    """Canonical name for what a user asks for: ``tas`` is ``t2m``, ``geopotential_500`` is ``z500``; unknown names stay."""
    base, level = split_name(name)
    if base is None:
        return name
    return base if level is None else level_suffix(base, level)


def canonical_variables(ds: xr.Dataset, *, wanted: Sequence[str] | None, record: dict[str, Any], scalar_level: float | None) -> xr.Dataset:
    """Rename and convert the variables of a grid whose dimensions are canonical already.

    Parameters
    ----------
    ds : Dataset
        Dims called by their roles.
    wanted : sequence of str, optional
        Convert only variables that can serve one of these; others are left out. All by default.
    record : dict
        What `rename_axes` noted: for the original dimension names.
    scalar_level : float, optional
        Pressure (hPa) of the whole store, where it is a scalar coordinate.
    """
    pressure = "level" in ds.coords and ds["level"].attrs.get("units") == "hPa"
    out: dict[str, xr.DataArray] = {}
    own = set(map(str, ds.data_vars))
    for name in map(str, ds.data_vars):
        array = ds[name]
        if array.dtype.kind not in "biuf" or name.endswith(("_bnds", "_bounds")) or {"bnds", "nv", "bound"} & set(array.dims):
            continue
        if extra := [d for d in array.dims if d not in _GRID]:
            if wanted is not None and name in wanted:
                raise ValueError(f"got variable {name!r} with dims {array.dims}, expected only {_GRID}; select along {extra} first")
            warnings.warn(f"variable {name!r} left out, because of its dimensions {extra}", UserWarning, stacklevel=2)
            continue
        in_level = pressure and "level" in array.dims
        base, level = canonical_name(array, on_level=in_level or scalar_level is not None)
        upper = base is not None and VARIABLES[base].upper_air
        squeezed = None
        if "level" in array.dims and ds.sizes["level"] == 1:
            squeezed = float(ds["level"][0]) if "level" in ds.coords else None
            array = array.isel(level=0, drop=True)
            level = squeezed if pressure and upper else level
        if upper and level is None and not in_level:
            level = scalar_level
        new = name if base is None else base if level is None else level_suffix(base, level)
        if new != name and (new in own or new in out):
            new, base = name, None
        if wanted is None or _serves(new, name, wanted, has_level="level" in array.dims):
            note = {"name": name, "attrs": ds[name].attrs, "dims": [record.get(str(d), {}).get("dim", d) for d in ds[name].dims]}
            note |= {"level": squeezed} if squeezed is not None else {}
            out[new] = _canonical_array(array.rename(new), name, base, note)
    return xr.Dataset(out, coords=ds.coords, attrs=ds.attrs)


def _serves(new: str, name: str, wanted: Sequence[str], *, has_level: bool) -> bool:
    return any(
        w in (name, new) or (has_level and re.fullmatch(re.escape(new) + r"_?\d+(\.\d+)?(hPa)?", w)) or _twin(w) == new for w in wanted
    )


def _twin(name: str) -> str:
    for a, b in (("z", "gh"), ("gh", "z"), ("wz", "w"), ("w", "wz")):
        if match := re.fullmatch(rf"{a}(\d+(?:\.\d+)?)?", name):
            return b + (match[1] or "")
    return ""


def _canonical_array(array: xr.DataArray, name: str, base: str | None, note: dict[str, Any]) -> xr.DataArray:
    if array.dtype not in (np.float32, np.float64):
        array = array.astype("float32" if array.dtype.itemsize <= 2 else "float64")
    if base is not None:
        known = VARIABLES[base]
        array = to_units(array.rename(name), known.units, difference=known.difference).rename(array.name)
        note["difference"] = known.difference
        if known.standard_name:
            array = array.assign_attrs(standard_name=known.standard_name)
    array = array.transpose(*(d for d in _GRID if d in array.dims))
    drop = ("bounds", "grid_mapping", "coordinates", "original", "cell_methods")
    array.attrs = {k: v for k, v in array.attrs.items() if k not in drop and not k.startswith("GRIB_")} | {"original": dump(note)}
    return array


def select_variables(ds: xr.Dataset, variables: Sequence[str] | None, static: Sequence[str] | None) -> xr.Dataset:
    """Take the variables asked for by canonical name, single levels (``z500``) out of those with levels.

    ``static`` fields lose a time dimension (their first time is taken).

    Raises
    ------
    ValueError
        If one is not there; the message lists close matches and everything available.
    """
    if variables is None and static is None:
        return ds
    timed = [str(n) for n in ds.data_vars if "time" in ds[n].dims or "init_time" in ds[n].dims]
    out = {}
    for name in variables if variables is not None else timed:
        new, array = _take(ds, name)
        out[new] = array
    for name in static or ():
        new, array = _take(ds, name)
        out[new] = array.isel(time=0, drop=True) if "time" in array.dims else array
    chosen = xr.Dataset(out, attrs=ds.attrs)
    return chosen.assign_coords({n: ds[n] for n in ds.coords if set(ds[n].dims) <= set(chosen.dims)})


def _take(ds: xr.Dataset, asked: str) -> tuple[str, xr.DataArray]:
    name = asked if asked in ds.data_vars else wanted_name(asked)
    if name in ds.data_vars:
        return name, ds[name]
    match = re.fullmatch(r"(.+?)_?(\d+(?:\.\d+)?)(?:hPa)?", name)
    twin = _twin(name)
    twin_base = re.sub(r"\d.*", "", twin)
    if match and match[1] in ds.data_vars and "level" in ds[match[1]].dims:
        base, level = match[1], float(match[2])
        found = np.flatnonzero(np.isclose(ds["level"].values, level))
        if not found.size:
            raise ValueError(
                f"got variable {asked!r}, but {base!r} has levels {ds['level'].values.tolist()} {ds['level'].attrs.get('units', '')}"
            )
        return name, _one_level(ds[base], int(found[0]), level_suffix(base, level))
    if twin in ds.data_vars or (twin_base in ds.data_vars and "level" in ds[twin_base].dims):
        there = ds[twin if twin in ds.data_vars else twin_base]
        expected = VARIABLES[re.sub(r"\d.*", "", name)].units
        raise ValueError(f"got {asked!r}, which is in {expected}, but the store has it in {there.attrs['units']}: ask for {twin!r} instead")
    raise ValueError(f"got unknown variable {asked!r}{close_matches(asked, ds.data_vars)}")


def _one_level(array: xr.DataArray, position: int, name: str) -> xr.DataArray:
    import json

    note = json.loads(array.attrs["original"]) | {"level": float(array["level"][position])}
    return array.isel(level=position, drop=True).rename(name).assign_attrs(original=dump(note))


def angles_to_radians(array: xr.DataArray) -> xr.DataArray:
    """A series in degrees becomes one in radians; anything else is unchanged."""
    units = str(array.attrs.get("units", ""))
    if units.lower() in ("deg", "degree", "degrees", "°") and same_dimension("degree", "rad"):
        with xr.set_options(keep_attrs=True):
            return (array * float(np.pi / 180.0)).assign_attrs(units="rad")
    return array
