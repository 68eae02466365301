import cftime
import numpy as np
import pytest
import scores
import xarray as xr
from truths import DAY, days, forecast_of, weather

from sciwm.skill import evaluate, region_weights
from sciwm.skill.alignment import (
    at_positions,
    check_grid,
    locate,
    observed_at,
    training_pairs,
    valid_positions,
)
from sciwm.times import Step, infer_step


def test_times_are_found_by_value_not_by_position():
    time = xr.DataArray(days(10)[[3, 0, 7, 5]], dims="time")
    assert locate(time, days(10)[[5, 3, 4]]).tolist() == [3, 0, -1]
    assert locate(time, days(0)).size == 0


def test_calendars_are_not_mixed():
    time = xr.DataArray(days(3), dims="time")
    with pytest.raises(ValueError, match="same calendar"):
        locate(time, np.array([cftime.DatetimeNoLeap(2000, 1, 1)]))


def test_cftime_and_months_are_found():
    first_days = np.array([cftime.DatetimeNoLeap(2000, m, 1) for m in range(1, 13)])
    time = xr.DataArray(first_days, dims="time")
    init = xr.DataArray(time.values[[0, 10]], dims="init_time")
    assert valid_positions(time, init, [1, 3], infer_step(time)).tolist() == [[1, 3], [11, -1]]


def test_trajectories_with_the_same_times_need_their_segment():
    segment = np.repeat([0, 1], 5).astype("int32")
    time = xr.DataArray(
        np.tile(np.arange(5.0), 2),
        dims="time",
        coords={"segment": ("time", segment)},
        attrs={"units": "ps"},
    )
    init = xr.DataArray([1.0, 1.0, 3.0], dims="init_time")
    step = Step(1.0, "ps")
    with pytest.raises(ValueError, match=r"segment\(init_time\)"):
        valid_positions(time, init, [2], step)
    named = init.assign_coords(segment=("init_time", [0, 1, 1]))
    assert valid_positions(time, named, [2], step).tolist() == [[3], [8], [-1]]
    first, later = training_pairs(time, 3, step)
    assert first.tolist() == [0, 1, 5, 6]
    assert (later - first == 3).all()


def test_training_pairs_skip_gaps_and_stay_in_their_segment():
    segment = {"segment": ("time", [0, 0, 0, 1, 1, 1])}
    time = xr.DataArray(days(10)[[0, 1, 2, 5, 6, 7]], segment, "time")
    first, later = training_pairs(time, 1, Step(24.0, "hours"))
    pairs = zip(first.tolist(), later.tolist(), strict=True)
    assert list(pairs) == [(0, 1), (1, 2), (3, 4), (4, 5)]
    # days 2 → 5 are three steps apart, but on either side of a gap
    assert training_pairs(time, 3, Step(24.0, "hours"))[0].size == 0


def test_fields_are_gathered_in_the_forecast_layout():
    observed = weather(30)
    init = xr.DataArray(observed.time.values[[4, 9]], dims="init_time")
    lead = xr.DataArray(np.array([1, 3]) * DAY, dims="lead_time")
    positions = valid_positions(observed.time, init, [1, 3], Step(24.0, "hours"))
    for field in (observed.t850, observed.t850.chunk(time=7)):
        out = at_positions(field, positions, init, lead)
        assert out.dims == ("init_time", "lead_time", "latitude", "longitude")
        np.testing.assert_array_equal(out, observed.t850.values[[[5, 7], [10, 12]]])


def test_grids_must_match():
    observed = weather(20).t850
    forecast = forecast_of(weather(20), [0, 1], [1, 2]).t850
    np.testing.assert_array_equal(check_grid(forecast.transpose(), observed, method="m"), forecast)
    near = forecast.latitude.astype("float32") + np.float32(1e-6)
    rounded = forecast.assign_coords(latitude=near)
    xr.testing.assert_equal(check_grid(rounded, observed, method="m").latitude, observed.latitude)
    reverse = r"got latitude 60.0 at position 0 .* of 'm', expected 40.0 .* open_forecast"
    with pytest.raises(ValueError, match=reverse):
        check_grid(forecast.isel(latitude=slice(None, None, -1)), observed, method="m")
    with pytest.raises(ValueError, match=r"got longitude 6\.0 at position 1"):
        check_grid(forecast.assign_coords(longitude=forecast.longitude * 1.2), observed, method="m")
    with pytest.raises(ValueError, match=r"got 2 values of latitude .* expected 3"):
        check_grid(forecast.isel(latitude=slice(0, 2)), observed, method="m")
    with pytest.raises(ValueError, match="with dims"):
        check_grid(forecast.isel(latitude=0), observed, method="m")


def test_observations_arranged_like_a_forecast_serve_other_libraries():
    observed = weather(60).chunk(time=7)
    forecast = forecast_of(observed.load(), np.arange(0, 50, 4), [1, 3])
    at_valid = observed_at(observed, forecast)
    assert at_valid["t850"].dims == forecast["t850"].dims
    np.testing.assert_array_equal(at_valid["t850"][2, 1], observed["t850"][8 + 3])
    error = scores.continuous.rmse(forecast, at_valid, preserve_dims=["lead_time"])
    skill = evaluate({"f": forecast}, observed, baselines=(), metrics=["rmse"], resamples=0)
    assert error["t850"].dims == ("lead_time",)
    weights = region_weights(observed["t850"]).isel(region=0)
    weighted = scores.continuous.mse(
        forecast["t850"], at_valid["t850"], preserve_dims=["lead_time"], weights=weights
    )
    np.testing.assert_allclose(skill["value"].squeeze(), weighted**0.5, rtol=1e-6)
    late = observed_at(observed.isel(time=slice(0, 20)), forecast)
    assert np.isnan(late["t850"][-1]).all()
    assert np.isfinite(late["t850"][0]).all()
    with pytest.raises(ValueError, match="expected some of what is observed"):
        observed_at(observed.rename(t850="other"), forecast)
