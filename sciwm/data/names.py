"""Names: what stores call variables, coordinates and dimensions, and what sciwm calls them.

Variables get ECMWF short names (``z``, ``t2m``, ``msl``…), with the pressure appended when they
hold one level (``z500``). Only names in `VARIABLES` are translated; any other variable keeps its
own name.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import cf_xarray  # noqa: F401  (registers the ``.cf`` accessor)
import numpy as np
import xarray as xr

from sciwm.data.units import same_dimension

__all__ = [
    "VARIABLES",
    "Axis",
    "Variable",
    "canonical_name",
    "close_matches",
    "find_dimensions",
    "level_suffix",
    "pressure_factor",
    "split_name",
]


@dataclass(frozen=True)
class Variable:
    """What sciwm knows of a variable.

    Parameters
    ----------
    units : str
        Canonical units.
    standard_name : str
        CF standard name; empty where there is none.
    aliases : tuple of str
        Other names stores use, matched without regard to case.
    upper_air : bool
        Whether it lives on pressure levels, so that ``z500`` and ``geopotential_500`` mean one
        level of it.
    difference : bool
        Whether it is a difference, so that converting °C to K adds nothing.
    """

    units: str
    standard_name: str = ""
    aliases: tuple[str, ...] = ()
    upper_air: bool = False
    difference: bool = False


_WIND = ("m s-1", "eastward_wind"), ("m s-1", "northward_wind")
VARIABLES: dict[str, Variable] = {
    "z": Variable("m2 s-2", "geopotential", ("geopotential", "phi_geopotential"), upper_air=True),
    "gh": Variable(
        "m",
        "geopotential_height",
        ("geopotential_height", "zg", "hgt", "height_geopotential"),
        upper_air=True,
    ),
    "t": Variable("K", "air_temperature", ("temperature", "ta", "air_temperature"), upper_air=True),
    "u": Variable(
        *_WIND[0], ("u_component_of_wind", "ua", "uwnd", "eastward_wind"), upper_air=True
    ),
    "v": Variable(
        *_WIND[1], ("v_component_of_wind", "va", "vwnd", "northward_wind"), upper_air=True
    ),
    "q": Variable(
        "kg kg-1", "specific_humidity", ("specific_humidity", "hus", "shum"), upper_air=True
    ),
    "w": Variable(
        "Pa s-1",
        "lagrangian_tendency_of_air_pressure",
        ("vertical_velocity", "wap", "omega"),
        upper_air=True,
    ),
    "wz": Variable("m s-1", "upward_air_velocity", ("upward_air_velocity",), upper_air=True),
    "r": Variable("%", "relative_humidity", ("relative_humidity", "hur", "rhum"), upper_air=True),
    "vo": Variable(
        "s-1", "atmosphere_relative_vorticity", ("vorticity", "relative_vorticity"), upper_air=True
    ),
    "d": Variable("s-1", "divergence_of_wind", ("divergence",), upper_air=True),
    "t2m": Variable(
        "K", "air_temperature", ("2m_temperature", "2t", "tas", "t2", "temperature_2m")
    ),
    "d2m": Variable(
        "K", "dew_point_temperature", ("2m_dewpoint_temperature", "2d", "tdps", "td2m")
    ),
    "u10": Variable(*_WIND[0], ("10m_u_component_of_wind", "10u", "uas", "u10m")),
    "v10": Variable(*_WIND[1], ("10m_v_component_of_wind", "10v", "vas", "v10m")),
    "si10": Variable("m s-1", "wind_speed", ("10m_wind_speed", "10si", "sfcwind")),
    "msl": Variable(
        "Pa",
        "air_pressure_at_mean_sea_level",
        ("mean_sea_level_pressure", "psl", "prmsl", "slp", "mslp"),
    ),
    "sp": Variable("Pa", "surface_air_pressure", ("surface_pressure", "ps")),
    "sst": Variable(
        "K", "sea_surface_temperature", ("sea_surface_temperature", "tos", "analysed_sst")
    ),
    "ssta": Variable(
        "K",
        "",
        ("sst_anomaly", "ssta", "sea_surface_temperature_anomaly", "anom_sst"),
        difference=True,
    ),
    "skt": Variable("K", "surface_temperature", ("skin_temperature",)),
    "tp": Variable("m", "", ("total_precipitation",)),
    "tcc": Variable("1", "cloud_area_fraction", ("total_cloud_cover", "clt")),
    "tcwv": Variable(
        "kg m-2", "atmosphere_mass_content_of_water_vapor", ("total_column_water_vapour", "prw")
    ),
    "lsm": Variable("1", "land_binary_mask", ("land_sea_mask", "sftlf")),
    "siconc": Variable("1", "sea_ice_area_fraction", ("sea_ice_cover", "ci", "sic")),
}
_ALIASES = {alias: name for name, known in VARIABLES.items() for alias in (name, *known.aliases)}
_TWINS = {"z": "gh", "gh": "z", "w": "wz", "wz": "w"}
"""Pairs that share names in the wild and are told apart by their units."""

_DIMENSIONS = {
    role: tuple(names.split())
    for role, names in {
        "latitude": "latitude lat nav_lat y nlat rlat g0_lat_1",
        "longitude": "longitude lon nav_lon x long nlon rlon g0_lon_2",
        "time": "time valid_time t frame date datetime snapshot init_time"
        " forecast_reference_time initial_time",
        "level": "level plev pressure_level isobaricinhpa lev pressure isobaric air_pressure"
        " height depth",
        "segment": "segment trajectory trajectories member number realization ensemble ens"
        " replica run",
        "atom": "atom atoms particle particles n_atoms natoms bead site",
        "xyz": "xyz spatial space cartesian coordinate coord component dim direction",
        "lead_time": "lead_time prediction_timedelta step lead leadtime forecast_period lag_time",
    }.items()
}
_CF_KEYS = {
    "latitude": ("latitude", "Y"),
    "longitude": ("longitude", "X"),
    "time": ("time", "T"),
    "level": ("vertical", "Z"),
}


def close_matches(name: str, available: Iterable[str]) -> str:
    """Text for an error: the names closest to a wrong one, then all of them."""
    names = sorted(map(str, available))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"{hint} Available: {', '.join(names) or 'nothing'}"


def level_suffix(name: str, level: float) -> str:
    """Canonical name of one level: ``z`` and 500 give ``z500``.

    The wind at 10 hPa is ``u10hPa``, because ``u10`` is the wind ten metres above the ground.

    Examples
    --------
    >>> level_suffix("z", 500.0), level_suffix("u", 10.0)
    ('z500', 'u10hPa')
    """
    text = f"{name}{level:g}"
    return f"{text}hPa" if text in VARIABLES else text


def split_name(name: str) -> tuple[str | None, float | None]:
    """Canonical variable and pressure level that a name means.

    ``(None, None)`` for a name sciwm does not know.

    Examples
    --------
    >>> split_name("geopotential_500"), split_name("tas"), split_name("my_index")
    (('z', 500.0), ('t2m', None), (None, None))
    """
    lower = name.lower()
    if lower in _ALIASES:
        return _ALIASES[lower], None
    match = re.fullmatch(r"(.*?[a-z])_?(\d+(?:\.\d+)?)_?(?:hpa|mb)?", lower)
    base = _ALIASES.get(match[1].rstrip("_")) if match else None
    if match is None or base is None or not VARIABLES[base].upper_air:
        return None, None
    level = float(match[2])
    return (base, level) if 0 < level <= 1100 else (None, None)


def canonical_name(array: xr.DataArray, *, on_level: bool) -> tuple[str | None, float | None]:
    """Canonical name and level of a variable; ``(None, None)`` for a user's own variable.

    Units tell geopotential from its height, and pressure velocity from vertical velocity. A
    one-letter name without any level (``q``, ``u``) may be something else. It is the known variable
    only if its units agree.

    Parameters
    ----------
    array : DataArray
        The variable as it is in the store.
    on_level : bool
        Whether it has a pressure coordinate.
    """
    name = str(array.name)
    base, level = split_name(name)
    if base is None:
        return None, None
    words = " ".join(str(array.attrs.get(k, "")) for k in ("long_name", "standard_name")).lower()
    if "anomal" in words and not VARIABLES[base].difference:
        return ("ssta", None) if base == "sst" else (None, None)
    if re.fullmatch(r"[uv]100", name) and re.search(r"met(re|er)", words):
        return None, None
    units = str(array.attrs.get("units") or "")

    def measures(known: str) -> bool:
        return bool(units) and same_dimension(units, VARIABLES[known].units)

    twin = _TWINS.get(base)
    if twin and not measures(base) and measures(twin):
        base = twin
    alone = len(name) == 1 and level is None and not on_level
    return (None, None) if alone and not measures(base) else (base, level)


class Axis(NamedTuple):
    """A dimension of a store and the variable that holds its values (None if there is none)."""

    dim: str
    coordinate: str | None


def find_dimensions(ds: xr.Dataset) -> dict[str, Axis]:
    """Dimensions of a store by what they mean: CF attributes first, then known names.

    Returns
    -------
    dict
        ``latitude``, ``longitude``, ``time``, ``level``, ``segment``, ``atom``, ``xyz``,
        ``lead_time`` to an `Axis`, for those found.

    Raises
    ------
    ValueError
        If latitude and longitude are two-dimensional (curvilinear), share one dimension
        (unstructured), or are not in degrees.
    """
    found: dict[str, Axis] = {}
    known = {**ds.cf.axes, **ds.cf.coordinates}
    for role, aliases in _DIMENSIONS.items():
        names = [str(n) for key in _CF_KEYS.get(role, ()) for n in known.get(key, [])]
        if role in ("latitude", "longitude", "time"):
            names += [str(c) for a in aliases[:2] for c in ds.variables if str(c).lower() == a]
        names = sorted(names, key=lambda n: n not in ds.dims) if role == "time" else names
        names += [str(d) for a in aliases for d in ds.dims if str(d).lower() == a]
        for name in names:
            axis = _axis(ds, name)
            taken = axis is None or axis.dim in [a.dim for a in found.values()]
            if axis is not None and not taken and (role != "xyz" or ds.sizes[axis.dim] == 3):
                found[role] = axis
                break
    if "atom" not in found or "xyz" not in found:
        found = {role: axis for role, axis in found.items() if role not in ("atom", "xyz")}
        _check_grid(ds, found)
    return found


def _axis(ds: xr.Dataset, name: str) -> Axis | None:
    if name not in ds.variables:
        return Axis(name, None)
    return Axis(str(ds[name].dims[0]), name) if ds[name].ndim == 1 else None


def _check_grid(ds: xr.Dataset, found: dict[str, Axis]) -> None:
    for role in ("latitude", "longitude"):
        named = [str(c) for c in ds.variables if str(c).lower() in _DIMENSIONS[role][:3]]
        wide = [n for n in [*named, *map(str, ds.cf.coordinates.get(role, []))] if ds[n].ndim == 2]
        axis = found.get(role)
        if wide and (axis is None or axis.coordinate is None):
            raise ValueError(
                f"got a two-dimensional {role} {wide[0]!r} with dims {ds[wide[0]].dims}, expected"
                f" one {role} per row or column, because curvilinear grids are not supported;"
                " regrid to a regular latitude-longitude grid first (CDO remapbil, xESMF)"
            )
        units = str(ds[axis.coordinate].attrs.get("units", "")) if axis and axis.coordinate else ""
        if axis and units and not units.lower().startswith("deg") and units != "1":
            raise ValueError(
                f"got {axis.coordinate!r} in {units!r}, expected {role} in degrees; regrid"
                " projected data first"
            )
    if "latitude" in found and "longitude" not in found:
        named = [n for n in ("lon", "longitude") if n in ds.variables]
        for name in ds.cf.coordinates.get("longitude", []) or named:
            if ds[name].dims == (found["latitude"].dim,):
                raise ValueError(
                    f"got {name!r} along {found['latitude'].dim!r} (an unstructured grid), expected"
                    " longitude on its own dimension; regrid to a regular latitude-longitude grid"
                    " first"
                )


def pressure_factor(level: xr.DataArray) -> float | None:
    """Factor from a vertical coordinate to hPa; None if it is no pressure (model levels, depth)."""
    units = str(level.attrs.get("units", ""))
    if not units or units in ("1", "level"):
        if str(level.name).lower() in ("depth", "height") or "hybrid" in str(level.attrs):
            return None
        return 0.01 if float(np.max(level.values)) > 2000 else 1.0
    if not same_dimension(units, "Pa"):
        return None
    return 0.01 if units.lower().strip() in ("pa", "pascal", "pascals") else 1.0
