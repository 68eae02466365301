"""SEEPS: the climate of its categories, their months, the table.

Its values are compared with those of the library `scores` in test_independent.py.
"""

import numpy as np
import pytest
import scores
import xarray as xr
from truths import days, forecast_of, grid
from truths import scored as evaluate

from sciwm.regions import region_weights
from sciwm.skill import fit_reference
from sciwm.skill.seeps import fit_rain_climate, is_precipitation

LEADS = np.array([1, 5])
TRAIN = slice("2000", "2002")


def rain(count=1500, *, seed=0, units="mm"):
    """Gamma-distributed rain on some days, more in summer, with a desert and a rain forest."""
    random = np.random.default_rng(seed)
    season = np.cos(2 * np.pi * (np.arange(count) - 200) / 365.25)[:, None, None]
    often = np.clip(np.linspace(0.02, 0.98, 12).reshape(3, 4) + 0.1 * season, 0.0, 1.0)
    wet = random.random((count, 3, 4)) < often
    values = np.where(wet, random.gamma(0.7, 6.0, (count, 3, 4)), 0.0)
    return grid(values / {"mm": 1.0, "m": 1000.0}[units], time=days(count), name="tp", units=units)


@pytest.fixture(scope="module")
def observed():
    ds = rain()
    ds["tp"][10:20, 0, 1] = np.nan
    return ds


@pytest.fixture(scope="module")
def reference(observed):
    return fit_reference(observed, train=TRAIN)


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_categories_are_those_of_the_training_months(observed, reference):
    climate = fit_rain_climate(reference, "tp", units="mm")
    assert climate.dry == 0.25
    train = observed["tp"].sel(time=TRAIN)
    for month in (1, 7):
        part = train.isel(time=np.flatnonzero(train.time.dt.month == month))
        wet = part.where(part > 0.25)
        share = (part <= 0.25).sum("time") / part.notnull().sum("time")
        np.testing.assert_allclose(climate.dry_probability[month - 1], share)
        expected = wet.quantile(2 / 3, "time")
        np.testing.assert_allclose(climate.heavy[month - 1], expected, rtol=1e-10)
    later = observed.copy(deep=True)
    later["tp"][1100:] = 99.0
    again = fit_rain_climate(fit_reference(later, train=TRAIN), "tp", units="mm")
    xr.testing.assert_equal(again.heavy, climate.heavy)


def test_chunks_units_and_names_of_precipitation(observed, reference):
    def climate_of(ds, units="mm"):
        return fit_rain_climate(fit_reference(ds, train=TRAIN), "tp", units=units)

    climate = fit_rain_climate(reference, "tp", units="mm")
    lazy = climate_of(observed.chunk(time=100, longitude=3))
    xr.testing.assert_allclose(lazy.heavy, climate.heavy)
    xr.testing.assert_allclose(lazy.dry_probability, climate.dry_probability)
    metres = climate_of(rain(units="m"), "m")
    np.testing.assert_allclose(metres.heavy * 1000, climate_of(rain()).heavy)
    six_hours = fit_reference(observed.rename(tp="total_precipitation_6hr"), train=TRAIN)
    assert fit_rain_climate(six_hours, "total_precipitation_6hr", units="mm").dry == 0.1
    with pytest.raises(ValueError, match="got precipitation 'tp' in 'inch', expected one of m, mm"):
        fit_rain_climate(reference, "tp", units="inch")
    assert is_precipitation(observed["tp"])
    named = observed["tp"].rename("rr").assign_attrs(standard_name="precipitation_flux")
    assert is_precipitation(named)
    assert not is_precipitation(observed["tp"].rename("t850"))


@pytest.mark.filterwarnings("ignore:`prob_dry` contains values")
def test_the_table_equals_scores_on_the_months_of_the_valid_times(observed, reference):
    both = observed.assign(t2m=observed["tp"] * 2)
    members = [forecast_of(both, range(1150, 1300), LEADS, noise=3.0, seed=s) for s in range(3)]
    ensemble = xr.concat(members, xr.DataArray(range(3), dims="number", name="number"))
    options = {
        "reference": fit_reference(both, train=TRAIN),
        "baselines": ("climatology", "persistence"),
        "resamples": 50,
    }
    forecasts = {"many": ensemble, "one": members[0]}
    skill = evaluate(forecasts, both, metrics=("rmse", "seeps"), **options)
    assert np.isnan(skill.value.loc[{"channel": "t2m", "metric": "seeps"}]).all()
    assert skill[["value", "ci_low"]].loc[{"channel": "tp"}].notnull().to_array().all()
    climate = fit_rain_climate(reference, "tp", units="mm")
    area = region_weights(observed["tp"]).isel(region=0, drop=True)
    for k, lead in enumerate(LEADS):
        valid = observed["tp"].isel(time=np.arange(1150, 1300) + lead)
        month = valid.time.dt.month.values - 1
        climates = [
            a.drop_vars("time", errors="ignore").isel(time=month).assign_coords(time=valid.time)
            for a in (climate.dry_probability, climate.heavy)
        ]
        cells = []
        for member in members:
            field = member["tp"].isel(lead_time=k, drop=True).rename(init_time="time")
            field = field.assign_coords(time=valid.time)
            options = {"dry_light_threshold": 0.25, "preserve_dims": "all"}
            cells.append(scores.categorical.seeps(field, valid, *climates, **options))
        for method, score in (("one", cells[0]), ("many", sum(cells) / 3)):
            expected = float((area * score).sum() / (area * score.notnull()).sum())
            found = skill.value.loc[{"method": method, "channel": "tp", "metric": "seeps"}]
            assert found[0, k].item() == pytest.approx(expected)
    assert 0 < expected < 1


def test_forecasts_without_knowledge_score_one():
    """Of rain with p₃ = p₂ / 2 exactly, as the score supposes."""
    observed = rain(4000, seed=3)
    reference = fit_reference(observed, train=slice("2000", "2006"))
    init = np.arange(2600, 3900)
    truth = forecast_of(observed, init, [1], noise=0.0)
    dry, flood = truth * 0.0, truth * 0.0 + 1000.0
    options = {"reference": reference, "baselines": (), "metrics": ("seeps",), "resamples": 0}
    forecasts = {"truth": truth, "dry": dry, "flood": flood}
    skill = evaluate(forecasts, observed, **options).value.squeeze()
    assert float(skill.loc[{"method": "truth"}]) == 0
    np.testing.assert_allclose(skill.loc[{"method": ["dry", "flood"]}], 1.0, atol=0.1)


def test_chunks_and_blocks_do_not_matter(observed, reference, monkeypatch):
    forecast = forecast_of(observed, range(1150, 1200), LEADS, noise=3.0)
    options = {"baselines": (), "metrics": ("seeps", "fss_3"), "events": ("tp>5",), "resamples": 20}
    whole = evaluate(forecast, observed, reference=reference, **options)
    assert whole.value.loc[{"channel": "tp>5", "metric": "fss_3"}].notnull().all()
    monkeypatch.setattr("sciwm.skill.lineup._BLOCK", 300)
    lazy = observed.chunk(time=90, latitude=2)
    cut_forecast = forecast.chunk(init_time=7, longitude=3)
    cut = evaluate(cut_forecast, lazy, reference=fit_reference(lazy, train=TRAIN), **options)
    for name in ("value", "ci_low", "ci_high"):
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-9)


def test_mistakes_are_named(observed, reference):
    forecast = forecast_of(observed, range(1150, 1200), LEADS)
    with pytest.raises(ValueError, match="got no reference, expected one for seeps"):
        evaluate(forecast, observed, baselines=(), metrics=("seeps",))
    other = {"baselines": (), "metrics": ("seeps",), "train": TRAIN}
    dry = r"got metric 'seeps' for \['t850'\], expected precipitation among them"
    with pytest.raises(ValueError, match=dry):
        evaluate(forecast.rename(tp="t850"), observed.rename(tp="t850"), **other)
    with pytest.raises(ValueError, match="got metric 'fss_4', expected an odd number"):
        evaluate(forecast, observed, baselines=(), metrics=("fss_4",), events=("tp>5",))
    with pytest.raises(ValueError, match="got a neighbourhood of 5 × 5 cells"):
        evaluate(forecast, observed, baselines=(), metrics=("fss_5",), events=("tp>5",))
