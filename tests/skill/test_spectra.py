import numpy as np
import pytest
import scipy.signal
import xarray as xr

from sciwm.regions import region_weights
from sciwm.skill.spectra import zonal_spectrum


def fields(longitudes=24, seed=0):
    random = np.random.default_rng(seed)
    coords = {
        "time": np.arange(3),
        "latitude": np.linspace(-80, 80, 9),
        "longitude": np.arange(longitudes) * 360 / longitudes,
    }
    return xr.DataArray(random.standard_normal((3, 9, longitudes)), coords, tuple(coords))


@pytest.mark.parametrize("longitudes", [24, 25])
def test_power_adds_up_to_the_mean_square_and_agrees_with_scipy(longitudes):
    field = fields(longitudes)
    spectrum = zonal_spectrum(field)
    assert spectrum.dims == ("time", "region", "zonal_wavenumber")
    weights = region_weights(field).isel(region=0, drop=True)
    total = (field**2).weighted(weights).mean(["latitude", "longitude"])
    np.testing.assert_allclose(spectrum.isel(region=0).sum("zonal_wavenumber"), total)
    # per unit wavenumber
    _, density = scipy.signal.periodogram(field.values, fs=longitudes, detrend=False, axis=-1)
    share = np.cos(np.deg2rad(field["latitude"].values))
    expected = (density * (share / share.sum())[:, None]).sum(axis=1)
    np.testing.assert_allclose(spectrum.isel(region=0), expected, rtol=1e-6)


def test_regions_chunks_and_missing_circles():
    field = fields()
    field[:, 0, 3] = np.nan
    north = "northern_extratropics"
    spectrum = zonal_spectrum(field.chunk(time=1, longitude=5), regions=("all", north))
    assert spectrum.chunks is not None
    assert np.isnan(spectrum.sel(region="all")).all()
    alone = zonal_spectrum(field, regions=(north,))[:, 0]
    np.testing.assert_allclose(spectrum.sel(region=north), alone)


def test_parts_of_the_globe_are_refused():
    with pytest.raises(ValueError, match="expected equal steps round the globe"):
        zonal_spectrum(fields().isel(longitude=slice(0, 12)))
    with pytest.raises(ValueError, match="expected all longitudes in each"):
        zonal_spectrum(fields(), regions=("box:-10,10,0,90",))
