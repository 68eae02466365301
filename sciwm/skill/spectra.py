"""Zonal power spectra: how much variance a forecast has on which scale."""

import numpy as np
import xarray as xr

from sciwm.regions import region_weights

__all__ = ["goes_round", "zonal_power", "zonal_spectrum"]


def zonal_power(values: np.ndarray) -> np.ndarray:
    """Power of the waves along the last axis, as `zonal_spectrum` defines it.

    From ``(..., longitude)`` to ``(..., wavenumber)``.
    """
    count = values.shape[-1]
    amplitude = np.fft.rfft(np.asarray(values, dtype=float), axis=-1)
    power: np.ndarray = amplitude.real**2 + amplitude.imag**2
    power /= count**2
    power[..., 1:] *= 2.0
    if count % 2 == 0:
        power[..., -1] /= 2.0  # the shortest wave stands for itself alone
    return power


def goes_round(field: xr.DataArray) -> bool:
    """Whether the longitudes of a field go round the globe in equal steps.

    Only then have waves along them whole numbers.
    """
    longitude = field["longitude"].values.astype(float)
    step = np.diff(longitude)
    return len(step) > 0 and bool(np.allclose(step, 360.0 / len(longitude), atol=1e-3))


def zonal_spectrum(field: xr.DataArray, *, regions: tuple[str, ...] = ("all",)) -> xr.DataArray:
    r"""Power of the waves along circles of latitude, averaged by area over those of a region.

    .. math:: P_k = (2 - [k = 0]) \left| \frac1N \sum_j x_j e^{-2\pi i jk/N} \right|^2

    The shortest wave of an even number of longitudes counts once. The sum over k is the mean square
    of the field.

    Parameters
    ----------
    field : DataArray
        Dims with ``latitude`` and ``longitude``; may be lazy. Longitudes go round the globe in
        equal steps.
    regions : tuple of str
        As `region_weights` takes them; boxes must span all longitudes.

    Returns
    -------
    DataArray
        In squared units, lazy for lazy fields. Dims of the field, with ``region`` and
        ``zonal_wavenumber`` (0 … N/2) in place of latitude and longitude. NaN where a circle of the
        region has a missing value.

    Raises
    ------
    ValueError
        If longitudes do not go round the globe, or a region does not.

    Examples
    --------
    >>> longitude = np.arange(0, 360, 30.0)
    >>> wave = 3 * np.cos(2 * np.deg2rad(longitude))
    >>> circle = xr.DataArray(
    ...     [wave], {"latitude": [45.0], "longitude": longitude}, ("latitude", "longitude")
    ... )
    >>> zonal_spectrum(circle).isel(region=0).values.round(3)
    array([0. , 0. , 4.5, 0. , 0. , 0. , 0. ])
    """
    longitude = field["longitude"].values
    if not goes_round(field):
        raise ValueError(
            f"got {len(longitude)} longitudes from {longitude[0]:g} to {longitude[-1]:g}, expected"
            " equal steps round the globe: waves on part of a circle have no whole number"
        )
    area = region_weights(field, regions)
    share = area.isel(longitude=0, drop=True)
    if float(abs(area - share).max()) > 1e-9:
        raise ValueError(
            f"got regions {list(regions)}, expected all longitudes in each, because waves go round"
            " the globe"
        )
    power = xr.apply_ufunc(
        zonal_power,
        field.chunk(longitude=-1) if field.chunks is not None else field,
        input_core_dims=[["longitude"]],
        output_core_dims=[["zonal_wavenumber"]],
        dask="parallelized",
        output_dtypes=[float],
        dask_gufunc_kwargs={"output_sizes": {"zonal_wavenumber": len(longitude) // 2 + 1}},
    )
    used = power.where(share > 0, 0.0)  # a circle outside the region may be missing
    spectrum = xr.dot(used, share / share.sum("latitude"), dim="latitude")
    spectrum = spectrum.assign_coords(zonal_wavenumber=np.arange(len(longitude) // 2 + 1))
    rest = [d for d in field.dims if d not in ("latitude", "longitude")]
    out: xr.DataArray = spectrum.transpose(*rest, "region", "zonal_wavenumber")
    return out
