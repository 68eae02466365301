import cftime
import numpy as np
import pytest
import xarray as xr
from truths import DAY, autoregressive, days, grid, weather

from sciwm.skill.baselines.simple import (
    climatology_forecast,
    damped_persistence_forecast,
    fit_reference,
    fit_slopes,
    persistence_forecast,
)

LEADS = np.array([1, 2, 5]) * DAY


def test_damped_persistence_on_ar1_follows_the_known_curve():
    phi = 0.8
    observed = weather(6000, phi=phi, rows=2, columns=2)
    train = np.arange(6000) < 5000
    reference = fit_reference(observed, train=train, climatology="harmonic", harmonics=1)
    slope = fit_slopes(reference, LEADS).t850.isel(season=0).mean(("latitude", "longitude"))
    np.testing.assert_allclose(slope, phi ** np.array([1, 2, 5]), atol=0.03)
    start = np.arange(5000, 5990)
    init = observed.time.values[start]
    forecast = damped_persistence_forecast(reference, observed, init, LEADS).t850
    for k, lead in enumerate([1, 2, 5]):
        error = forecast.values[:, k] - observed.t850.values[start + lead]
        # variance 1, of which phi^(2 lead) is predictable
        assert np.mean(error**2) == pytest.approx(1 - phi ** (2 * lead), rel=0.1)


def test_slopes_equal_plain_regression_and_lazy_equals_eager():
    observed = weather(800)
    reference = fit_reference(observed, train=slice("2000", "2001"), harmonics=1)
    a = reference.anomaly.t850.values
    slopes = fit_slopes(reference, LEADS).t850.isel(season=0)
    for k, lead in enumerate([1, 2, 5]):
        expected = (a[:-lead] * a[lead:]).sum(0) / (a[:-lead] ** 2).sum(0)
        np.testing.assert_allclose(slopes[k], expected)
    lazy = fit_reference(observed.chunk(time=100), train=slice("2000", "2001"), harmonics=1)
    lazy_slopes = fit_slopes(lazy, LEADS).t850
    assert lazy_slopes.chunks is not None
    np.testing.assert_allclose(lazy_slopes.isel(season=0), slopes)


def test_monthly_slopes_are_fitted_for_each_start_month():
    count = 12 * 150
    time = np.array([cftime.DatetimeNoLeap(1 + i // 12, 1 + i % 12, 15) for i in range(count)])
    random = np.random.default_rng(0)
    x = np.zeros(count)
    # persistence of the month it starts from
    strength = 0.5 + 0.4 * np.cos(2 * np.pi * np.arange(12) / 12)
    for i in range(1, count):
        x[i] = strength[(i - 1) % 12] * x[i - 1] + random.standard_normal()
    observed = xr.Dataset(
        {"nino34": ("time", x, {"units": "K"})},
        coords={"time": time, "segment": ("time", np.zeros(count, int))},
    )
    reference = fit_reference(observed, train=np.arange(count) < 12 * 140)
    assert reference.climatology.kind == "monthly"
    slopes = fit_slopes(reference, [1, 2]).nino34
    np.testing.assert_allclose(slopes.isel(lead_time=0), strength, atol=0.2)
    start = np.arange(12 * 140, count - 2)
    forecast = damped_persistence_forecast(reference, observed, time[start], [1, 2])
    assert forecast.nino34.dims == ("init_time", "lead_time")
    assert forecast.lead_time.attrs["units"] == "months"
    normal = reference.climatology.at(observed.time).nino34.values
    expected = normal[start + 1] + slopes.values[0, start % 12] * (x - normal)[start]
    np.testing.assert_allclose(forecast.nino34[:, 0], expected)


def test_persistence_repeats_the_whole_field():
    observed = weather(800)
    reference = fit_reference(observed, train=slice("2000", "2001"), harmonics=1)
    init = observed.time.values[[740, 750]]
    expected = np.repeat(observed.t850.values[[740, 750], None], 3, axis=1)
    for given in (None, reference):
        forecast = persistence_forecast(given, observed, init, LEADS).t850
        assert forecast.dims == ("init_time", "lead_time", "latitude", "longitude")
        assert forecast.attrs["units"] == "K"
        np.testing.assert_array_equal(forecast, expected)


def test_climatology_forecast_is_that_of_the_valid_time():
    observed = weather(800)
    reference = fit_reference(observed, train=slice("2000", "2001"), harmonics=1)
    init = observed.time.values[[740, 750]]
    forecast = climatology_forecast(reference, observed, init, LEADS).t850
    expected = reference.climatology.at(observed.time).t850.values
    np.testing.assert_allclose(forecast, expected[np.array([740, 750])[:, None] + [1, 2, 5]])
    assert not {"season", "valid_time"} & set(forecast.coords)


def test_cells_missing_at_the_start_begin_from_the_climatology():
    observed = weather(800).copy(deep=True)
    observed.t850[740, 1, 2] = np.nan
    reference = fit_reference(observed, train=slice("2000", "2001"), harmonics=1)
    init = observed.time.values[[740]]
    normal = reference.climatology.at(observed.time).t850.values
    persistence = persistence_forecast(reference, observed, init, LEADS).t850
    np.testing.assert_allclose(persistence[0, :, 1, 2], normal[740, 1, 2])
    damped = damped_persistence_forecast(reference, observed, init, LEADS).t850
    np.testing.assert_allclose(damped[0, :, 1, 2], normal[[741, 742, 745], 1, 2])
    assert np.isfinite(damped).all()


def test_missing_initial_times_are_listed():
    observed = weather(800)
    reference = fit_reference(observed, train=slice("2000", "2001"), harmonics=1)
    late = observed.time.values[-1] + np.arange(1, 9) * DAY
    with pytest.raises(ValueError, match=r"without an observation: 2002-03-11.* and 3 more"):
        persistence_forecast(reference, observed, late, LEADS)


def test_levels_keep_their_order():
    one = weather(800).t850
    level = xr.DataArray([500.0, 850.0], dims="level", name="level")
    both = xr.concat([one, one * 2], level).transpose("time", "level", ...)
    observed = both.to_dataset(name="t")
    reference = fit_reference(observed, train=slice("2000", "2001"), harmonics=1)
    for method in (climatology_forecast, persistence_forecast, damped_persistence_forecast):
        forecast = method(reference, observed, one.time.values[[700]], LEADS)
        assert forecast.t.dims == ("init_time", "lead_time", "level", "latitude", "longitude")
        np.testing.assert_allclose(forecast.t.isel(level=1), 2 * forecast.t.isel(level=0))


def test_blocks_must_be_apart_and_not_empty():
    observed = weather(800)
    with pytest.raises(ValueError, match="validation times that are training times"):
        fit_reference(observed, train=slice("2000", "2001"), validation=slice("2001", "2002"))
    with pytest.raises(ValueError, match="got no times in train"):
        fit_reference(observed, train=slice("1990", "1991"))
    with pytest.raises(ValueError, match="one bool for each"):
        fit_reference(observed, train=np.arange(5))
    with pytest.raises(ValueError, match="expected at least one numeric one"):
        fit_reference(observed.rename(time="t"), train=slice("2000", "2001"))
    reference = fit_reference(observed, train=slice("2000", "2001"), harmonics=1)
    with pytest.raises(ValueError, match=r"observations without \['t850'\]"):
        climatology_forecast(reference, observed.rename(t850="t"), observed.time.values[[5]], LEADS)


def test_leads_longer_than_the_training_block_are_refused():
    observed = weather(800)
    reference = fit_reference(observed, train=slice("2000", "2000"), harmonics=1)
    with pytest.raises(ValueError, match="no training pairs 400 steps apart"):
        fit_slopes(reference, [400 * DAY])


def test_no_pair_crosses_a_segment():
    values = autoregressive(400, phi=0.9, cells=1).reshape(400, 1, 1)
    values[1::2] *= 1e3  # neighbours in the array, but of different trajectories
    observed = grid(values, time=np.repeat(days(200), 2))
    segment = ("time", np.tile([0, 1], 200).astype("int32"))
    observed = observed.assign_coords(segment=segment).sortby("segment")
    reference = fit_reference(observed, train=np.ones(400, bool), climatology="constant")
    slope = fit_slopes(reference, [DAY]).t850.values.item()
    a = reference.anomaly.t850.values.ravel()
    product = (a[:199] * a[1:200]).sum() + (a[200:-1] * a[201:]).sum()
    square = (a[:199] ** 2).sum() + (a[200:-1] ** 2).sum()
    assert slope == pytest.approx(product / square)
