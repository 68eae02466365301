"""Variables of a store: canonical names and units, and the choice of those asked for."""

import json
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sciwm.data.layout import dump
from sciwm.data.names import VARIABLES, canonical_name, close_matches, level_suffix, split_name
from sciwm.data.units import convert, to_units

__all__ = ["canonical_variables", "select_variables", "wanted_name"]

_GRID = (
    "init_time",
    "lead_time",
    "time",
    "number",
    "segment",
    "level",
    "latitude",
    "longitude",
    "component",
)
_BOUNDS = {"bnds", "nv", "bound", "bounds"}


def wanted_name(name: str) -> str:
    """Canonical name for what a user asks for; unknown names stay.

    ``tas`` is ``t2m``, ``geopotential_500`` is ``z500``.
    """
    base, level = split_name(name)
    if base is None:
        return name
    return base if level is None else level_suffix(base, level)


def canonical_variables(
    ds: xr.Dataset,
    *,
    wanted: Sequence[str] | None,
    record: dict[str, Any],
    scalar_level: float | None,
) -> tuple[xr.Dataset, list[str]]:
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

    Returns
    -------
    ds : Dataset
    available : list of str
        Canonical names of all variables, wanted or not.
    """
    out: dict[str, xr.DataArray] = {}
    named = {name: _canonical_name(ds, ds[name], scalar_level) for name in _fields(ds, wanted)}
    taken = {new: name for name, (new, _) in reversed(named.items())}
    taken |= {new: name for name, (new, _) in named.items() if new == name}
    # Of two variables that mean the same, one gets the canonical name and the other keeps its own.
    named |= {name: (name, None) for name, (new, _) in named.items() if taken[new] != name}
    for name, (new, base) in named.items():
        array = ds[name]
        on_levels = "level" in array.dims and ds.sizes["level"] > 1
        if wanted is not None and not _serves(new, name, wanted, has_level=on_levels):
            continue
        note: dict[str, Any] = {
            "name": name,
            "attrs": array.attrs,
            "dims": [record.get(str(d), {}).get("dim", d) for d in array.dims],
        }
        if "level" in array.dims and not on_levels:
            note["level"] = float(ds["level"][0]) if "level" in ds.coords else None
            array = array.isel(level=0, drop=True)
        out[new] = _canonical_array(array.rename(new), name, base, note)
    coords = {n: c for n, c in ds.coords.items() if n != "level" or ds.sizes["level"] > 1}
    return xr.Dataset(out, coords=coords, attrs=ds.attrs), [new for new, _ in named.values()]


def _fields(ds: xr.Dataset, wanted: Sequence[str] | None) -> list[str]:
    names = []
    for name in map(str, ds.data_vars):
        dims = ds[name].dims
        bounds = name.endswith(("_bnds", "_bounds")) or _BOUNDS & set(dims)
        if ds[name].dtype.kind not in "biuf" or bounds or not dims:
            continue
        if extra := [str(d) for d in dims if d not in _GRID]:
            if wanted is not None and name in wanted:
                raise ValueError(
                    f"got variable {name!r} with dims {dims}, expected only {_GRID}; select along"
                    f" {extra} first"
                )
            warnings.warn(
                f"variable {name!r} left out, because of its dimensions {extra}",
                UserWarning,
                stacklevel=2,
            )
            continue
        names.append(name)
    return names


def _canonical_name(
    ds: xr.Dataset, array: xr.DataArray, scalar_level: float | None
) -> tuple[str, str | None]:
    on_level = "level" in array.dims and "level" in ds.coords
    in_level = on_level and ds["level"].attrs.get("units") == "hPa"
    base, level = canonical_name(array, on_level=in_level or scalar_level is not None)
    if base is None:
        return str(array.name), None
    if VARIABLES[base].upper_air and in_level and ds.sizes["level"] == 1:
        level = float(ds["level"][0])
    elif VARIABLES[base].upper_air and level is None and not in_level:
        level = scalar_level
    return (base if level is None else level_suffix(base, level)), base


def _serves(new: str, name: str, wanted: Sequence[str], *, has_level: bool) -> bool:
    one_level = re.compile(re.escape(new) + r"_?\d+(\.\d+)?(hPa)?")
    asked = {w for given in wanted for w in (given, wanted_name(given))}
    asked |= {_twin(w) for w in asked}
    return bool(asked & {name, new}) or (has_level and any(one_level.fullmatch(w) for w in asked))


def _twin(name: str) -> str:
    for a, b in (("z", "gh"), ("gh", "z"), ("wz", "w"), ("w", "wz")):
        if match := re.fullmatch(rf"{a}(\d+(?:\.\d+)?)?", name):
            return b + (match[1] or "")
    return ""


def _canonical_array(
    array: xr.DataArray, name: str, base: str | None, note: dict[str, Any]
) -> xr.DataArray:
    if array.dtype not in (np.float32, np.float64):
        array = array.astype("float32" if array.dtype.itemsize <= 2 else "float64")
    if base is not None:
        known, new = VARIABLES[base], array.name
        # A warning about its units names it as the store does.
        array = to_units(array.rename(name), known.units, difference=known.difference).rename(new)
        note["difference"] = known.difference
        if known.standard_name:
            array = array.assign_attrs(standard_name=known.standard_name)
    array = array.transpose(*(d for d in _GRID if d in array.dims))
    drop = ("bounds", "grid_mapping", "coordinates", "cell_methods")
    kept = [k for k in array.attrs if k not in drop and not k.startswith("GRIB_")]
    array.attrs = {k: array.attrs[k] for k in kept}
    array.attrs.setdefault("original", dump(note))
    return array


def select_variables(
    ds: xr.Dataset,
    variables: Sequence[str] | None,
    static: Sequence[str] | None,
    available: Iterable[str],
) -> xr.Dataset:
    """Take the variables asked for by canonical name.

    Single levels (``z500``) are taken out of variables with levels. ``static`` fields lose a time
    dimension (their first time is taken).

    Raises
    ------
    ValueError
        If one is not there; the message lists close matches and everything available.
    """
    if variables is None and static is None:
        return ds
    timed = [str(n) for n in ds.data_vars if "time" in ds[n].dims]
    out = {}
    for name in variables if variables is not None else timed:
        new, array = _take(ds, name, available)
        out[new] = array
    for name in static or ():
        new, array = _take(ds, name, available)
        out[new] = array.isel(time=0, drop=True) if "time" in array.dims else array
    chosen = xr.Dataset(out, attrs=ds.attrs)
    fitting = [n for n in ds.coords if set(ds[n].dims) <= set(chosen.dims)]
    return chosen.assign_coords({n: ds[n] for n in fitting})


def _take(ds: xr.Dataset, asked: str, available: Iterable[str]) -> tuple[str, xr.DataArray]:
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
                f"got variable {asked!r}, but {base!r} has levels {ds['level'].values.tolist()}"
                f" {ds['level'].attrs.get('units', '')}"
            )
        return name, _one_level(ds[base], int(found[0]), level_suffix(base, level))
    if twin in ds.data_vars or (twin_base in ds.data_vars and "level" in ds[twin_base].dims):
        there = ds[twin if twin in ds.data_vars else twin_base]
        expected = VARIABLES[re.sub(r"\d.*", "", name)].units
        raise ValueError(
            f"got {asked!r}, which is in {expected}, but the store has it in"
            f" {there.attrs['units']}: ask for {twin!r} instead"
        )
    raise ValueError(f"got unknown variable {asked!r}{close_matches(asked, available)}")


def _one_level(array: xr.DataArray, position: int, name: str) -> xr.DataArray:
    note = json.loads(array.attrs["original"]) | {"level": float(array["level"][position])}
    return array.isel(level=position, drop=True).rename(name).assign_attrs(original=dump(note))


def angles_to_radians(array: xr.DataArray) -> xr.DataArray:
    """Turn a series in degrees into radians; anything else is unchanged."""
    if str(array.attrs.get("units", "")).lower() not in ("deg", "degree", "degrees", "°"):
        return array
    return convert(array, "degree", "rad").assign_attrs(units="rad")
