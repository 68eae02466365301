"""The skill table against plain numpy, on the initial times that all methods share."""

import numpy as np
import pytest
import xarray as xr
from truths import DAY, forecast_of, weather
from truths import scored as evaluate

import sciwm.skill
from sciwm.skill.baselines.by_name import MORE_BASELINES
from sciwm.skill.baselines.simple import fit_reference, persistence_forecast

LEADS = np.array([1, 3])
YEARS = {"train": slice("2000", "2001"), "validation": slice("2002", "2002"), "harmonics": 1}


@pytest.fixture(scope="module")
def observed():
    return weather(1300)


@pytest.fixture(scope="module")
def reference(observed):
    return fit_reference(observed, **YEARS)


@pytest.fixture(scope="module")
def skill(observed, reference):
    forecasts = {
        "good": forecast_of(observed, range(1100, 1250), LEADS, noise=0.2),
        "bad": forecast_of(observed, range(1100, 1250), LEADS, noise=3.0),
    }
    return evaluate(
        forecasts,
        observed,
        reference=reference,
        regions=("all", "south:35,45,-5,20"),
        lim_eofs=(3, 6),
        resamples=200,
    )


def rmse_of(skill, method, **where):
    chosen = {"method": method, "channel": "t850", "region": "all", "metric": "rmse"}
    return skill.value.loc[chosen | where]


def test_the_table_has_the_agreed_layout(skill):
    assert skill.value.dims == ("method", "channel", "region", "lead_time", "metric")
    assert skill.ci_low.dims == skill.ci_high.dims == skill.value.dims
    baselines = ["climatology", "persistence", "damped_persistence", "lim"]
    assert skill.method.values.tolist() == ["good", "bad", *baselines]
    assert skill.metric.values.tolist() == ["rmse", "mae", "bias", "acc"]
    assert skill.region.values.tolist() == ["all", "south"]
    assert skill.variable.values.tolist() == ["t850"]
    assert np.isnan(skill.level.values).all()
    assert skill.units.values.tolist() == ["K"]
    np.testing.assert_array_equal(skill.lead_time, LEADS * DAY)
    assert (skill.num_init == 150).all()
    assert skill.attrs["dropped_init"] == 0
    assert "EOFs" in skill.attrs["lim"]


def test_values_are_those_of_plain_numpy(skill, observed, reference):
    truth = observed.t850.values
    area = np.cos(np.deg2rad(observed.latitude.values))[:, None] * np.ones(4)
    init = np.arange(1100, 1250)
    for k, lead in enumerate(LEADS):
        error = truth[init] - truth[init + lead]
        expected = np.sqrt((error**2 * area).sum((1, 2)).mean() / area.sum())
        assert rmse_of(skill, "persistence")[k].item() == pytest.approx(expected)
    normal = reference.climatology.at(observed.time).t850.values
    error = (normal - truth)[init + 3]
    expected = np.sqrt((error**2 * area).sum((1, 2)).mean() / area.sum())
    assert rmse_of(skill, "climatology")[1].item() == pytest.approx(expected)


def test_methods_are_ranked_as_they_must_be(skill):
    first = {m: float(rmse_of(skill, m)[0]) for m in skill.method.values}
    assert first["good"] == pytest.approx(0.2, rel=0.05)
    assert first["bad"] == pytest.approx(3.0, rel=0.05)
    assert first["damped_persistence"] < first["persistence"]
    assert first["damped_persistence"] < first["climatology"]
    assert first["good"] < first["lim"] < first["bad"]
    p_value = skill.p_value.loc[{"region": "all", "channel": "t850"}]
    assert (p_value.loc[{"method": ["good", "bad"]}] < 1e-6).all()
    assert np.isnan(p_value.loc[{"method": "lim"}]).all()


def test_intervals_hold_the_values(skill):
    value = skill.value.where(skill.value.notnull(), drop=False)
    assert ((skill.ci_low <= value) & (value <= skill.ci_high)).where(value.notnull(), True).all()
    assert skill.ci_low.notnull().sum() == value.notnull().sum()


def test_acc_of_the_climatology_is_undefined(skill):
    assert np.isnan(skill.value.loc[{"method": "climatology", "metric": "acc"}]).all()


def test_chunked_inputs_give_the_same_table(skill, observed):
    lazy = observed.chunk(time=500, longitude=3)
    good, bad = (
        forecast_of(observed, range(1100, 1250), LEADS, noise=noise) for noise in (0.2, 3.0)
    )
    again = evaluate(
        {"good": good.chunk(init_time=80), "bad": bad.chunk(lead_time=1, latitude=2)},
        lazy,
        reference=fit_reference(lazy, **YEARS),
        regions=("all", "south:35,45,-5,20"),
        lim_eofs=(3, 6),
        resamples=200,
    )
    for name in ("value", "ci_low", "ci_high"):
        np.testing.assert_allclose(again[name], skill[name], rtol=1e-7, atol=1e-9)


def test_every_method_is_scored_on_the_shared_initial_times(observed, reference):
    forecasts = {
        "a": forecast_of(observed, range(1100, 1150), [1, 2, 3]),
        "b": forecast_of(observed, range(1120, 1160), [3, 1]),
    }
    gap = observed.isel(time=np.flatnonzero(np.arange(1300) != 1130))
    skill = evaluate(forecasts, gap, reference=reference, baselines=("persistence",))
    assert (skill.lead_time.values / DAY).tolist() == [1, 3]
    # 1120…1149 without 1130 itself and those valid at it: 1129, 1127
    assert skill.num_init.values.ravel().tolist() == [27, 27]
    assert skill.attrs["dropped_init"] == 23
    assert skill.attrs["missing_valid_times"] == 2
    assert "23 initial times dropped" in skill.attrs["notices"]
    alone = evaluate({"b": forecasts["b"]}, gap, reference=reference, baselines=())
    assert alone.attrs["num_init"] == 38  # 1130 is scored, nothing starts from its observation
    assert np.isnan(alone.p_value).all()


def test_the_order_of_initial_times_does_not_matter(observed, reference):
    forecast = forecast_of(observed, range(1100, 1180), LEADS)
    mixed = forecast.isel(init_time=np.random.default_rng(0).permutation(80))
    options = {
        "reference": reference,
        "baselines": ("climatology",),
        "against": "climatology",
        "metrics": ("rmse",),
        "resamples": 50,
    }
    one, other = (evaluate(f, observed, **options) for f in (forecast, mixed))
    xr.testing.assert_allclose(one, other)
    assert one.attrs == other.attrs


def test_ensembles_are_scored_by_their_mean(observed, reference):
    init = range(1100, 1140)
    members = [forecast_of(observed, init, LEADS, noise=2.0, seed=s) for s in range(16)]
    ensemble = xr.concat(members, xr.DataArray(range(16), dims="number", name="number"))
    skill = evaluate(ensemble, observed, reference=reference, baselines=(), resamples=0)
    assert skill.method.values.tolist() == ["forecast"]
    np.testing.assert_allclose(rmse_of(skill, "forecast"), 0.5, rtol=0.1)
    assert np.isnan(skill.ci_low).all()


def test_what_a_reference_is_needed_for(observed):
    forecast = forecast_of(observed, range(1100, 1140), LEADS)
    train, damped = YEARS["train"], ("damped_persistence",)
    a = evaluate(forecast, observed, train=train, baselines=damped, resamples=0)
    assert a.value.notnull().all()
    b = evaluate(forecast, observed, baselines=("persistence",), metrics=("rmse",), resamples=0)
    assert b.method.values.tolist() == ["forecast", "persistence"]
    with pytest.raises(ValueError, match=r"got no reference, expected one for climatology, .*acc"):
        evaluate(forecast, observed)


def test_levels_and_indices_in_one_table(observed):
    level = xr.DataArray([500.0, 850.0], dims="level", name="level")
    both = xr.concat([observed.t850, observed.t850 * 2], level).transpose("time", "level", ...)
    both = both.to_dataset(name="t")
    both["index"] = observed.t850.mean(("latitude", "longitude"))
    forecast = forecast_of(both, range(1100, 1200), LEADS)
    skill = evaluate(
        forecast,
        both,
        train=slice("2000", "2001"),
        lim_eofs=(4,),
        regions=("all", "south:35,45,-5,20"),
        resamples=50,
        metrics=("rmse", "correlation"),
    )
    assert skill.channel.values.tolist() == ["t_500", "t_850", "index"]
    assert skill.level.values[:2].tolist() == [500.0, 850.0]
    scores = skill.value.loc[{"region": "all", "metric": "rmse"}]
    upper, lower = (scores.loc[{"method": "persistence", "channel": c}] for c in ("t_500", "t_850"))
    np.testing.assert_allclose(lower, 2 * upper)
    assert skill.num_init.loc[{"channel": "index"}].values.tolist() == [[100, 100], [0, 0]]
    assert np.isnan(skill.value.loc[{"channel": "index", "region": "south"}]).all()


def test_molecules_are_scored_by_trajectory(observed):
    random = np.random.default_rng(0)
    angle = np.cumsum(0.3 * random.standard_normal((2, 400)), axis=1)
    values = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(800, 2)
    truth = xr.Dataset(
        {"torsions": (("time", "component"), values)},
        coords={
            "time": ("time", np.tile(np.arange(400.0), 2), {"units": "ps"}),
            "segment": ("time", np.repeat([0, 1], 400).astype("int32")),
            "component": ["phi_sin", "phi_cos"],
        },
    )
    train = truth.segment.values == 0
    start = np.arange(400, 790)
    coords = {
        "init_time": truth.time.values[start],
        "lead_time": ("lead_time", [1.0, 5.0], {"units": "ps"}),
        "component": truth.component,
    }
    dims = ("init_time", "lead_time", "component")
    forecast = xr.Dataset({"torsions": (dims, values[start][:, None].repeat(2, 1))}, coords)
    with pytest.raises(ValueError, match=r"segment\(init_time\)"):
        evaluate(forecast, truth, train=train)
    forecast = forecast.assign_coords(segment=("init_time", np.ones(390, int)))
    skill = evaluate(
        forecast, truth, train=train, metrics=("nmse", "rmse"), regions=("all", "phi"), resamples=20
    )
    assert skill.lead_time.attrs["units"] == "ps"
    assert skill.attrs["num_init"] == 390
    assert "2 EOFs" in skill.attrs["lim"]
    value = skill.value.loc[{"region": "all"}]
    np.testing.assert_allclose(
        value.loc[{"method": "forecast"}], value.loc[{"method": "persistence"}]
    )
    np.testing.assert_allclose(value.loc[{"method": "climatology", "metric": "nmse"}], 1.0)
    np.testing.assert_allclose(skill.value.loc[{"region": "phi"}], value)


def test_mistakes_are_named(observed, reference):
    forecast = forecast_of(observed, range(1100, 1140), LEADS)
    with pytest.raises(ValueError, match="got metric 'crpss'"):
        evaluate(forecast, observed, reference=reference, metrics=("crpss",))
    with pytest.raises(ValueError, match=r"got baselines \['arima'\]"):
        evaluate(forecast, observed, reference=reference, baselines=("arima",))
    with pytest.raises(ValueError, match=r"forecasts named \['lim'\]"):
        evaluate({"lim": forecast}, observed, reference=reference)
    stored = forecast.rename(init_time="time", lead_time="prediction_timedelta")
    with pytest.raises(ValueError, match="open_forecast"):
        evaluate(stored, observed, reference=reference)
    with pytest.raises(ValueError, match="got no forecasts"):
        evaluate({}, observed, reference=reference)
    with pytest.raises(ValueError, match="no variable that every forecast"):
        evaluate(forecast.rename(t850="t2m"), observed, reference=reference)
    both = {"a": forecast, "b": forecast_of(observed, range(1100, 1140), [2])}
    with pytest.raises(ValueError, match="without a common lead time"):
        evaluate(both, observed, reference=reference)
    both = {"a": forecast, "b": forecast_of(observed, range(1000, 1040), LEADS)}
    with pytest.raises(ValueError, match="without a common initial time"):
        evaluate(both, observed, reference=reference)
    with pytest.raises(ValueError, match=r"no initial time between .* all observed"):
        evaluate(forecast, observed.isel(time=slice(0, 1101)), reference=reference)
    with pytest.raises(ValueError, match=r"regions \['nino34'\] without any cell"):
        evaluate(forecast, observed, reference=reference, regions=("nino34",), baselines=())
    moved = forecast.assign_coords(latitude=forecast.latitude + 1)
    with pytest.raises(ValueError, match=r"expected 40.0"):
        evaluate(moved, observed, reference=reference)
    with pytest.raises(AttributeError, match="no attribute 'crps'"):
        _ = sciwm.skill.crps


def test_variables_that_are_not_shared_are_skipped_and_named(observed, reference):
    forecast = forecast_of(observed, range(1100, 1140), LEADS)
    forecast["t2m"] = forecast.t850
    skill = evaluate(
        forecast, observed, reference=reference, baselines=("climatology",), resamples=0
    )
    assert skill.attrs["skipped_variables"] == "t2m"


def test_a_lim_of_more_variables_than_are_forecast(observed):
    noise = np.random.default_rng(0).standard_normal(observed.t850.shape)
    more = observed.assign(z500=observed.t850 * 10 + noise)
    reference = fit_reference(more, **YEARS)
    forecast = forecast_of(observed, range(1100, 1140), LEADS)
    with pytest.raises(ValueError, match=r"reference without \['t2m'\]"):
        evaluate(forecast.rename(t850="t2m"), more.rename(t850="t2m"), reference=reference)
    skill = evaluate(forecast, more, reference=reference, lim_eofs=(5,), resamples=0)
    assert skill.channel.values.tolist() == ["t850"]
    assert skill.value.loc[{"method": "lim"}].notnull().all()


def test_notices_of_the_lim_end_in_the_attributes(observed, reference):
    forecast = forecast_of(observed, [1100], LEADS)
    one = evaluate(forecast, observed, reference=reference, baselines=("lim",), resamples=10)
    assert one.attrs["notices"] == ""  # a state of twelve cells keeps them all
    assert "12 EOFs" in one.attrs["lim"]
    assert one.attrs["block_length"] == 1
    np.testing.assert_allclose(one.ci_low, one.value)
    wide = weather(1100, rows=8, columns=8)
    skill = evaluate(
        forecast_of(wide, range(1000, 1020), LEADS),
        wide,
        train=slice("2000", "2001"),
        lim_eofs=(10, 500),
        resamples=0,
    )
    assert "truncations [500] skipped" in skill.attrs["notices"]


def test_persistence_of_a_forecast_store_equals_the_baseline(observed, reference):
    init = observed.time.values[1100:1140]
    own = persistence_forecast(None, observed, init, LEADS * DAY)
    skill = evaluate(
        {"mine": own},
        observed,
        reference=reference,
        baselines=("persistence",),
        resamples=0,
        against="persistence",
    )
    np.testing.assert_allclose(
        skill.value.loc[{"method": "mine"}], skill.value.loc[{"method": "persistence"}]
    )
    assert np.isnan(skill.p_value).all()


def test_exports_are_listed_and_found():
    assert set(dir(sciwm.skill)) == set(sciwm.skill.__all__)
    assert all(getattr(sciwm.skill, name) is not None for name in sciwm.skill.__all__)


def test_blocks_of_initial_times_do_not_matter(monkeypatch):
    observed = weather(600)
    forecast = forecast_of(observed, np.arange(400, 560, 3), [1, 4]).chunk(init_time=7)
    reference = fit_reference(observed, train=slice(None, observed.time[300]))
    options = {
        "reference": reference,
        "baselines": MORE_BASELINES,
        "resamples": 20,
        "lim_eofs": [3, 5],
        "metrics": ("rmse", "acc", "crps"),
    }
    whole = evaluate(forecast, observed, **options)
    monkeypatch.setattr("sciwm.skill.lineup._BLOCK", 2000)
    cut = evaluate(forecast, observed, **options)
    xr.testing.assert_allclose(whole, cut, rtol=1e-10)
    assert cut.attrs == whole.attrs
