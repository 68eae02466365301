"""Small synthetic stores, written the way the wild writes them."""

from typing import Any

import numpy as np
import xarray as xr


def field(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Reproducible numbers, every one different."""
    return np.random.default_rng(seed).normal(size=shape)


def days(count: int = 10, start: str = "2001-01-01") -> np.ndarray:
    """Daily dates."""
    return (np.datetime64(start, "D") + np.arange(count)).astype("datetime64[ns]")


def grid(
    variables: dict[str, str | None],
    *,
    latitude: Any = (60.0, 30.0, 0.0),
    longitude: Any = (0.0, 10.0, 20.0, 350.0),
    time: Any = None,
    names: tuple[str, str, str] = ("time", "lat", "lon"),
    seed: int = 0,
) -> xr.Dataset:
    """Fields with given units (None for no units attribute), dims as ``names``."""
    time = days() if time is None else time
    coords = dict(
        zip(names, (time, np.asarray(latitude, float), np.asarray(longitude, float)), strict=True)
    )
    shape = tuple(len(c) for c in coords.values())
    arrays = {
        name: (names, field(seed + i, shape), {} if units is None else {"units": units})
        for i, (name, units) in enumerate(variables.items())
    }
    return xr.Dataset(arrays, coords)


def levels(units: str = "hPa", values: Any = (500.0, 850.0), name: str = "level") -> xr.Dataset:
    """Geopotential and temperature on pressure levels, in the manner of WeatherBench 2."""
    flat = grid({"geopotential": "m**2 s**-2", "temperature": "K"})
    return (
        xr.concat([flat + i for i in range(len(values))], name)
        .assign_coords({name: (name, list(values), {"units": units})})
        .map(lambda a: a.assign_attrs(flat[a.name].attrs))
    )


def molecule(
    count: int = 20, *, start: float = 1.0, units: str = "nm", time_units: str = "ps", seed: int = 0
) -> xr.Dataset:
    """Trajectory of four atoms and one torsion in degrees."""
    return xr.Dataset(
        {
            "positions": (("time", "atom", "xyz"), field(seed, (count, 4, 3)), {"units": units}),
            "phi": ("time", field(seed + 1, (count,)) * 90.0, {"units": "degrees"}),
            "mass": ("atom", np.array([12.0, 16.0, 14.0, 12.0]), {"units": "Da"}),
        },
        {
            "time": ("time", start + np.arange(count, dtype=float), {"units": time_units}),
            "atom": ["A", "B", "C", "D"],
        },
    )
