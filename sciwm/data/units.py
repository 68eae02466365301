"""Units: parsing what stores write, and converting arrays lazily.

Parsing and factors are those of pint, with the CF units of cf_xarray.
"""

import functools
import warnings
from typing import Any

import pint
import xarray as xr
from cf_xarray.units import units as registry

__all__ = ["convert", "linear", "same_dimension", "to_units"]

_SPELLINGS = {
    "gpdm": "dam",
    "geopotential meter": "m",
    "geopotential metre": "m",
    "m of water equivalent": "m",
    "mb": "hPa",
    "mbar": "hPa",
    "angstroms": "angstrom",
    "deg c": "degC",
    "degree c": "degC",
    "degrees c": "degC",
    "degree celsius": "degC",
    "degrees celsius": "degC",
    "degrees_celsius": "degC",
    "degrees k": "K",
    "degree_kelvin": "K",
    "~": "1",
    "(0 - 1)": "1",
    "0-1": "1",
    "0 - 1": "1",
    "fraction": "1",
    "percent": "%",
    "none": "1",
    "unitless": "1",
}


@functools.cache
def _parse(text: str) -> Any:
    text = _SPELLINGS.get(text.strip().lower(), text.strip())
    text = "angstrom" if text.lower() == "angstrom" else text
    try:
        return registry.Unit(text)
    except (pint.errors.PintError, ValueError, AssertionError, TypeError, SyntaxError):
        return None


def same_dimension(units: str, other: str) -> bool:
    """Whether two units measure the same thing; False if one is not understood.

    Examples
    --------
    >>> same_dimension("gpm", "m"), same_dimension("m**2 s**-2", "m")
    (True, False)
    """
    a, b = _parse(str(units)), _parse(str(other))
    return a is not None and b is not None and bool(a.dimensionality == b.dimensionality)


@functools.cache
def linear(source: str, target: str, *, difference: bool = False) -> tuple[float, float]:
    """Factor and offset that take numbers in ``source`` units to ``target`` units.

    Parameters
    ----------
    source, target : str
        Units with the same dimension.
    difference : bool
        Whether the numbers are differences, so that °C to K needs no offset.

    Examples
    --------
    >>> linear("degC", "K"), linear("hPa", "Pa"), linear("degC", "K", difference=True)
    ((1.0, 273.15), (100.0, 0.0), (1.0, 0.0))
    """
    if water := _water(source, target):
        return water
    if not same_dimension(source, target):
        raise ValueError(f"got units {source!r}, expected units that convert to {target!r}")
    numbers = (registry.Quantity(x, _parse(source)) for x in (0.0, 1.0))
    zero, one = (number.to(_parse(target)).magnitude for number in numbers)
    factor = float(f"{one - zero:.12g}")
    return factor, 0.0 if difference else float(f"{zero:.12g}")


def _water(source: str, target: str) -> tuple[float, float] | None:
    # A kilogram of water per square metre stands a millimetre high; stores use both for
    # precipitation.
    if same_dimension(source, "kg m-2") and same_dimension(target, "m"):
        return linear(source, "kg m-2")[0] * linear("mm", target)[0], 0.0
    if same_dimension(source, "m") and same_dimension(target, "kg m-2"):
        return linear(source, "mm")[0] * linear("kg m-2", target)[0], 0.0
    return None


def convert(
    array: xr.DataArray, source: str, target: str, *, difference: bool = False
) -> xr.DataArray:
    """Convert an array lazily, in its own floating-point type; its attributes are kept."""
    factor, offset = linear(source, target, difference=difference)
    if factor == 1.0 and offset == 0.0:
        return array
    converted = array * factor + offset if offset else array * factor
    return converted.assign_attrs(array.attrs)


def to_units(array: xr.DataArray, target: str, *, difference: bool = False) -> xr.DataArray:
    """Convert an array to its canonical units and set the ``units`` attribute.

    An array without units is taken to be in ``target`` units already, with a warning that names it.

    Raises
    ------
    ValueError
        If the units measure something else; the message names both.
    """
    units = array.attrs.get("units")
    if units is None or not str(units).strip():
        warnings.warn(
            f"variable {array.name!r} has no units: taken to be in {target!r}",
            UserWarning,
            stacklevel=2,
        )
    elif not (same_dimension(str(units), target) or _water(str(units), target)):
        raise ValueError(
            f"got variable {array.name!r} in {units!r}, expected units that convert to {target!r}"
        )
    else:
        array = convert(array, str(units), target, difference=difference)
    return array.assign_attrs(units=target)
