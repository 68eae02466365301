"""Regridding against scipy's interpolation, and areas on the sphere summed by hand."""

import sys

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import RegularGridInterpolator
from truths import DAY, days, forecast_of, grid, weather
from type_checks import unchecked

from sciwm.skill import evaluate, regrid_forecast


def globe(rows, columns, *, seed=0, lazy=False, half=True):
    """Forecasts on a global grid, with cell centres half a cell from the poles."""
    off = 90 / rows if half else 0.0  # of the poles
    latitude = np.linspace(-90 + off, 90 - off, rows)
    longitude = (np.arange(columns) + 0.5 * half) * 360 / columns
    values = np.random.default_rng(seed).normal(280, 10, (4, 2, rows, columns)).astype("f4")
    coords = {
        "init_time": days(4),
        "lead_time": np.array([1, 2]) * DAY,
        "latitude": latitude,
        "longitude": longitude,
    }
    ds = xr.Dataset({"t850": (tuple(coords), values, {"units": "K"})}, coords, {"method": "model"})
    return ds.chunk(init_time=1) if lazy else ds


def points(rows, columns, *, shift=0.0):
    step = 180 / rows
    latitude = np.linspace(-90 + step / 2, 90 - step / 2, rows)
    longitude = np.arange(columns) * 360 / columns - 180 + shift
    return xr.Dataset(coords={"latitude": latitude, "longitude": longitude})


def test_linear_equals_scipy_and_longitudes_wrap():
    forecast, target = globe(19, 36, half=False), points(24, 50)
    out = regrid_forecast(forecast, target)["t850"]
    longitude = np.concatenate([forecast["longitude"].values + turn for turn in (-360, 0, 360)])
    repeated = np.concatenate([forecast["t850"].values] * 3, axis=-1).astype(float)
    at = tuple(np.meshgrid(target["latitude"], target["longitude"], indexing="ij"))
    axes = (forecast["latitude"].values, longitude)
    for i, k in np.ndindex(4, 2):
        expected = RegularGridInterpolator(axes, repeated[i, k])(at)
        np.testing.assert_allclose(out[i, k], expected, rtol=1e-6)
    assert out.dims == forecast["t850"].dims
    assert out.dtype == np.float32
    assert out.attrs["units"] == "K"
    np.testing.assert_array_equal(out["longitude"], target["longitude"])


@pytest.mark.parametrize("method", ["linear", "conservative"])
def test_a_constant_stays_one_and_nothing_is_computed(method):
    forecast = globe(20, 40, lazy=True)
    out = regrid_forecast(forecast * 0 + 3, points(9, 16, shift=2.0), method=method)["t850"]
    assert out.chunksizes["init_time"] == (1, 1, 1, 1)
    assert [len(out.chunksizes[d]) for d in ("latitude", "longitude")] == [1, 1]
    np.testing.assert_allclose(out, 3.0, rtol=1e-6)


def test_conservative_takes_means_over_areas():
    """Blocks of 5 × 5 cells.

    The rows at the poles are compared to 0.1 % of the spread: the library adds a value at the pole.
    """
    forecast = globe(60, 120).astype(float)
    moved = regrid_forecast(forecast, points(12, 24, shift=7.5), method="conservative")
    out = moved["t850"]
    area = np.diff(np.sin(np.deg2rad(np.linspace(-90, 90, 61)))).reshape(12, 5)
    blocks = forecast["t850"].values.reshape(4, 2, 12, 5, 24, 5)
    expected = (blocks * area[:, :, None, None]).sum((3, 5)) / (5 * area.sum(1))[:, None]
    expected = np.roll(expected, 12, axis=-1)
    np.testing.assert_allclose(out[:, :, 1:-1], expected[:, :, 1:-1], rtol=1e-6)
    np.testing.assert_allclose(out, expected, atol=1.5)
    whole = (out.mean("longitude").values * area.sum(1)).sum(-1)
    rows = forecast["t850"].mean("longitude").values.reshape(4, 2, 12, 5)
    np.testing.assert_allclose(whole, (rows * area).sum((-1, -2)), rtol=2e-5)


def test_a_region_on_the_other_longitudes():
    forecast = globe(36, 72).isel(longitude=slice(60, 72), latitude=slice(20, 30))  # 302.5 to 357.5
    coords = {"latitude": np.arange(15.0, 55, 4), "longitude": np.arange(-55.0, -5, 5)}
    target = xr.Dataset(coords=coords)
    moved = regrid_forecast(forecast, target)["t850"]
    west = forecast["t850"].assign_coords(longitude=forecast["longitude"] - 360)
    plain = west.interp(target.coords)
    np.testing.assert_allclose(moved, plain, rtol=1e-6)


def test_nothing_is_extrapolated_and_missing_values_stay_missing():
    forecast = globe(36, 72).isel(longitude=slice(10, 30), latitude=slice(20, 30))
    coords = {"latitude": np.arange(15.0, 75, 4), "longitude": np.arange(60.0, 120, 5)}
    wider = xr.Dataset(coords=coords)
    first = r"\(the first at latitude 59, longitude 60\)"
    with pytest.raises(ValueError, match=rf"got forecasts of latitude 12\.5 to 57\.5 .* {first}"):
        regrid_forecast(forecast, wider)
    inside = wider.isel(latitude=slice(0, 9))
    holed = forecast.copy(deep=True)
    holed["t850"][0, 0, 4, 4] = np.nan
    for method, most in (("linear", 4), ("conservative", 1)):
        absent = regrid_forecast(holed, inside, method=method)["t850"].isnull()
        assert 0 <= int(absent[0, 0].sum()) <= most
        assert not absent[1:].any()


def test_members_levels_segments_and_series_are_kept():
    forecast = globe(20, 40).expand_dims(number=3, level=[500.0, 850.0], axis=(2, 3))
    forecast = forecast.assign(index=("init_time", np.arange(4.0)))
    forecast = forecast.assign_coords(segment=("init_time", [0, 0, 1, 1]))
    out = regrid_forecast(forecast, points(9, 16, shift=2.0))
    assert out["t850"].dims == forecast["t850"].dims
    assert out["t850"].sizes["number"] == 3
    np.testing.assert_array_equal(out["index"], forecast["index"])
    np.testing.assert_array_equal(out["segment"], [0, 0, 1, 1])
    one = regrid_forecast(forecast.isel(number=1, level=0), points(9, 16, shift=2.0))
    np.testing.assert_array_equal(out["t850"].isel(number=1, level=0), one["t850"])


def test_scores_say_what_was_done():
    observed = weather(400, rows=6, columns=8)
    latitude, longitude = np.linspace(38.0, 62.0, 13), np.linspace(-2.0, 40.0, 22)
    inside = {"latitude": np.clip(latitude, 40, 60), "longitude": np.clip(longitude, 0, 35)}
    values = observed["t850"].interp(inside, kwargs={"fill_value": None}).values
    fine = grid(values, time=observed["time"].values, latitude=latitude, longitude=longitude)
    forecast = forecast_of(fine, np.arange(300, 330), (1, 2), noise=0.0)
    options = {"baselines": ("persistence",), "metrics": ("rmse",), "resamples": 0}
    way_out = "bring it onto the truth's grid with --regrid"
    with pytest.raises(
        ValueError, match=rf"got 13 values of latitude .* 38\.0, observed 40\.0: {way_out}"
    ):
        evaluate(forecast, observed, **options)
    moved = regrid_forecast(forecast, observed)
    skill = evaluate({"model": moved}, observed, **options)
    how = "from 13 × 22 points onto the 6 × 8 of the truth by bilinear interpolation"
    assert f"model was brought {how} (xarray-regrid" in skill.attrs["notices"]
    errors = moved["t850"].values - observed["t850"].values[np.arange(300, 330)[:, None] + [1, 2]]
    weight = np.cos(np.deg2rad(observed["latitude"].values))[:, None] * np.ones(8)
    expected = np.sqrt((errors**2 * weight).sum((2, 3)).mean(0) / weight.sum())
    found = skill["value"].loc[{"method": "model"}].values.ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    same = forecast_of(observed, np.arange(300, 330), (1, 2))
    assert regrid_forecast(same, observed) is same


def test_refusals(monkeypatch):
    forecast = globe(20, 40)
    message = "got regrid method 'cubic', expected one of linear, conservative"
    with unchecked(), pytest.raises(ValueError, match=message):
        regrid_forecast(forecast, points(9, 16), method="cubic")
    with pytest.raises(
        ValueError, match="got observations without latitude and longitude to regrid"
    ):
        regrid_forecast(forecast, xr.Dataset(coords={"component": ["a"]}))
    monkeypatch.setitem(sys.modules, "xarray_regrid", None)
    with pytest.raises(ImportError, match=r"pip install 'sciwm\[regrid\]'"):
        regrid_forecast(forecast, points(9, 16))
