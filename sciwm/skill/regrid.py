"""Forecasts brought onto the grid of the observations.

That is done only where it is asked for, and named wherever the scores are shown.
"""

from importlib import metadata
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

__all__ = ["REGRID_METHODS", "RegridMethod", "regrid_forecast"]

RegridMethod = Literal["linear", "conservative"]
REGRID_METHODS: tuple[str, ...] = get_args(RegridMethod)

_SPACE = ("latitude", "longitude")
_WORDS = {"linear": "bilinear interpolation", "conservative": "conservative remapping"}


def regrid_forecast(
    forecast: xr.Dataset, observed: xr.Dataset, *, method: RegridMethod = "linear"
) -> xr.Dataset:
    """Bring a forecast onto the latitudes and longitudes of the observations, lazily.

    Nothing is done where they agree. Bilinear interpolation takes the four points around. Towards a
    much coarser grid it aliases; there, ``conservative`` is the choice. That is the mean over each
    cell, weighted by area (first order; Jones 1999,
    doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2).

    Longitudes are periodic if the forecast goes round the globe. With ``linear``, missing values
    spread to all points that need them, with ``conservative`` to those that have no other. Levels
    and times are left alone.

    Parameters
    ----------
    forecast : Dataset
        Dims ``latitude`` and ``longitude`` among them.
    observed : Dataset
        Its coordinates ``latitude`` and ``longitude``; values are not read.
    method : {"linear", "conservative"}

    Returns
    -------
    Dataset
        On the grid of the observations, in the units of the forecast. Its attribute ``regridded``
        says how; `evaluate` repeats that in ``attrs["notices"]``.

    Raises
    ------
    ValueError
        If there is no such method or no grid, or the observations reach beyond the forecast.
        Nothing is extrapolated.
    ImportError
        If xarray-regrid is not installed.

    Examples
    --------
    >>> coarse = {"latitude": [40.0, 50.0], "longitude": [0.0, 10.0]}
    >>> forecast = xr.Dataset({"t": (("latitude", "longitude"), [[1.0, 3.0], [5.0, 7.0]])}, coarse)
    >>> fine = xr.Dataset(coords={"latitude": [40.0, 45.0, 50.0], "longitude": [0.0, 5.0, 10.0]})
    >>> regrid_forecast(forecast, fine)["t"].values
    array([[1., 2., 3.],
           [3., 4., 5.],
           [5., 6., 7.]])
    """
    if method not in REGRID_METHODS:
        raise ValueError(
            f"got regrid method {method!r}, expected one of {', '.join(REGRID_METHODS)}"
        )
    for name, ds in (("forecast", forecast), ("observations", observed)):
        if absent := [d for d in _SPACE if d not in ds.coords or d not in ds.dims]:
            raise ValueError(
                f"got {name} without {' and '.join(absent)} to regrid, expected a grid of latitude"
                " and longitude"
            )
    if all(_agree(forecast[d], observed[d]) for d in _SPACE):
        return forecast
    target = xr.Dataset(coords={d: observed[d].variable for d in _SPACE})
    _check_reach(forecast, target, method)
    names = [n for n, v in forecast.data_vars.items() if set(_SPACE) <= set(v.dims)]
    plain = forecast[names].drop_vars([c for c in forecast.coords if c not in forecast.dims])
    others = {n: v for n, v in forecast.data_vars.items() if not set(_SPACE) & set(v.dims)}
    moved = _regrid(plain, target, method).assign(others)
    sizes = [" × ".join(str(ds[d].size) for d in _SPACE) for ds in (forecast, observed)]
    how = (
        f"from {sizes[0]} points onto the {sizes[1]} of the truth by {_WORDS[method]}"
        f" (xarray-regrid {metadata.version('xarray-regrid')})"
    )
    segment = {"segment": forecast["segment"]} if "segment" in forecast.coords else {}
    return moved.assign_coords(segment).assign_attrs(forecast.attrs | {"regridded": how})


def _agree(a: xr.DataArray, b: xr.DataArray) -> bool:
    return a.size == b.size and bool(np.allclose(a, b, rtol=0.0, atol=1e-4))


def _regrid(ds: xr.Dataset, target: xr.Dataset, method: str) -> xr.Dataset:
    _need_library()
    whole = ds.chunk(dict.fromkeys(_SPACE, -1)) if ds.chunks else ds
    if method == "linear":
        moved: Any = whole.regrid.linear(target, time_dim=None)
    else:
        chunks = {d: target.sizes[d] for d in _SPACE}
        moved = whole.regrid.conservative(target, time_dim=None, output_chunks=chunks)
    out = moved.assign_coords({d: target[d].variable for d in _SPACE})
    return xr.Dataset(
        {
            n: v.transpose(*ds[n].dims).astype(ds[n].dtype).assign_attrs(ds[n].attrs)
            for n, v in out.data_vars.items()
        }
    )


def _need_library() -> None:
    try:
        import xarray_regrid  # noqa: F401, its accessor
    except ImportError:
        raise ImportError(
            "got forecasts to regrid without xarray-regrid, expected it to be installed: pip"
            " install 'sciwm[regrid]'"
        ) from None


def _check_reach(forecast: xr.Dataset, target: xr.Dataset, method: str) -> None:
    """Refuse points that would have to be extrapolated to."""
    axes = {d: forecast[d].variable for d in _SPACE}
    ones = xr.DataArray(np.ones([forecast[d].size for d in _SPACE]), axes, _SPACE)
    beyond = _regrid(ones.to_dataset(name="one"), target, method)["one"].isnull().values
    if beyond.any():
        row, column = (int(i[0]) for i in np.nonzero(beyond))
        ends = [f"{d} {forecast[d].values.min():g} to {forecast[d].values.max():g}" for d in _SPACE]
        raise ValueError(
            f"got forecasts of {' and '.join(ends)}, expected them to reach all {beyond.size}"
            f" points of the truth, {beyond.sum()} of which lie outside (the first at latitude"
            f" {target['latitude'].values[row]:g}, longitude"
            f" {target['longitude'].values[column]:g}): nothing is extrapolated; cut the truth to"
            " the area of the forecasts"
        )
