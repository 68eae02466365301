"""Forecasts in batches are scored as stored ones; one pass gives table and diagnostics."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from truths import days, forecast_of, grid, weather

from sciwm.skill.baselines.simple import fit_reference
from sciwm.skill.diagnostics import diagnose
from sciwm.skill.lineup import line_up, line_up_batches
from sciwm.skill.sums import TableSums, collect
from sciwm.skill.table import assess, score_lineup

LEADS = np.array([1, 3])
SIZES = (7, 1, 20, 12)  # uneven; 40 initial times in all
BASELINES = ("climatology", "persistence", "damped_persistence")


def forecasts_of(observed, init):
    """Two forecasts, with the segments of their initial times."""
    segment = ("init_time", observed["segment"].values[init])
    stores = {"good": 0.3, "bad": 2.0}
    return {
        name: forecast_of(observed, init, LEADS, noise=noise).assign_coords(segment=segment)
        for name, noise in stores.items()
    }


@pytest.fixture(scope="module")
def plain():
    """Observations, reference, positions of initial times, and forecasts: one record."""
    observed = weather(700)
    init = np.arange(500, 660, 4)
    reference = fit_reference(observed, train=slice(None, observed["time"][400]))
    return observed, reference, init, forecasts_of(observed, init)


@pytest.fixture(scope="module")
def members():
    """The same of three members on the same days: the first is trained on, the others scored."""
    each = [weather(400, seed=seed) for seed in range(3)]
    observed = xr.concat(each, "time")
    observed["segment"] = ("time", np.repeat([0, 1, 2], 400).astype("int32"))
    init = np.concatenate([np.arange(400, 600, 10), np.arange(800, 1000, 10)])
    reference = fit_reference(observed, train=observed["segment"].values == 0)
    return observed, reference, init, forecasts_of(observed, init)


@pytest.fixture(params=["plain", "members"])
def made(request):
    return request.getfixturevalue(request.param)


def batches_of(forecasts, sizes=SIZES):
    for start, stop in pairwise(np.cumsum([0, *sizes])):
        part = slice(start, stop)
        yield {name: ds.isel(init_time=part) for name, ds in forecasts.items()}


def batched(made, batches, *, baselines=(), leads=LEADS):
    """A lineup of batches of the forecasts, or of baselines alone."""
    observed, reference, init, forecasts = made
    return line_up_batches(
        () if batches is None else tuple(forecasts),
        batches,
        observed,
        init=observed["time"].isel(time=init).rename(time="init_time"),
        lead_times=reference.step.lead_times(leads),
        reference=reference,
        baselines=baselines,
    )


def sums_of(lineup):
    sums = TableSums(lineup, metrics=("rmse", "acc", "crps"), regions=("all", "south:35,45,-5,20"))
    collect(lineup, sums)
    return sums.values


def test_batches_have_the_sums_of_stored_forecasts(made):
    observed, reference, _, forecasts = made
    # Damped persistence of a single initial time differs in the last digit.
    baselines = ("climatology", "persistence")
    stored = line_up(forecasts, observed, reference=reference, baselines=baselines)
    lineup = batched(made, batches_of(forecasts), baselines=baselines)
    assert lineup.names == stored.names == ["good", "bad", *baselines]
    sums = sums_of(lineup)
    xr.testing.assert_equal(sums, sums_of(stored))
    assert sums.sizes["init_time"] == sum(SIZES)


def test_members_on_the_same_days_are_told_apart(members):
    observed, reference, init, _ = members
    assert len(np.unique(observed["time"].values[init])) < len(init)
    perfect = {"good": forecast_of(observed, init, LEADS, noise=0.0)}
    sums = sums_of(batched((observed, reference, init, perfect), batches_of(perfect)))
    assert (sums.sel(statistic="squared_error") == 0).all()
    assert (sums.sel(statistic="weight", region="all") > 0).all()


def test_batches_out_of_order_are_refused(made):
    observed, _, init, forecasts = made
    batches = list(batches_of(forecasts))
    lineup = batched(made, [batches[0], batches[2], batches[1], batches[3]])
    first = str(observed["time"].values[init[8]])[:10]
    expected = str(observed["time"].values[init[7]])[:10]
    with pytest.raises(ValueError, match=f"got a batch of good from {first}.*one from {expected}"):
        sums_of(lineup)


def test_names_are_those_of_the_batches(made):
    forecasts = made[3]
    fewer = [{"good": b["good"]} for b in batches_of(forecasts)]
    with pytest.raises(ValueError, match=r"got a batch of \['good'\], expected \['good', 'bad'\]"):
        sums_of(batched(made, fewer))
    observed, reference, init, _ = made
    times = {"init": observed["time"].isel(time=init), "lead_times": []}
    with pytest.raises(ValueError, match="expected both or none"):
        line_up_batches(["good"], None, observed, reference=reference, **times)


def test_batches_of_other_leads_are_refused(made):
    forecasts = made[3]
    turned = [{n: ds.isel(lead_time=[1, 0]) for n, ds in b.items()} for b in batches_of(forecasts)]
    with pytest.raises(ValueError, match=r"a batch of good with leads of \[3, 1\] steps"):
        sums_of(batched(made, turned))


def test_batches_of_another_member_are_refused(members):
    first, second = batches_of(members[3], (20, 20))
    times = [batch["good"]["init_time"].values for batch in (first, second)]
    np.testing.assert_array_equal(*times)
    with pytest.raises(ValueError, match=r"got a batch of good from .* of segment 2, expected"):
        sums_of(batched(members, [second, first]))


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        ([0, 1, 2], "got batches of 28 initial times, expected 40"),
        ([0, 1, 2, 3, 3], "got a batch of good from .*, expected no more"),
    ],
)
def test_too_few_batches_and_too_many_are_refused(plain, taken, message):
    batches = list(batches_of(plain[3]))
    with pytest.raises(ValueError, match=message):
        sums_of(batched(plain, [batches[k] for k in taken]))


def test_valid_times_that_are_not_observed_are_refused(made):
    message = r"got initial times of which .* not observed .* nearest"
    with pytest.raises(ValueError, match=message):
        batched(made, None, leads=np.array([1, 300]))


def test_baselines_alone_are_those_beside_a_forecast(made):
    observed, reference, _, forecasts = made
    alone = batched(made, None, baselines=BASELINES)
    assert alone.names == list(BASELINES)
    beside = line_up(forecasts, observed, reference=reference, baselines=BASELINES)
    xr.testing.assert_equal(sums_of(alone), sums_of(beside).loc[{"method": list(BASELINES)}])


@pytest.fixture
def globe():
    """A forecast of a field round the globe and baselines, in several blocks of initial times."""
    values = np.random.default_rng(0).normal(280, 5, (300, 6, 8))
    axes = {"latitude": np.linspace(-75, 75, 6), "longitude": np.arange(8) * 45.0}
    observed = grid(values, time=days(300), **axes)
    forecast = forecast_of(observed, np.arange(200, 260, 2), LEADS).chunk(init_time=10)
    train = slice(None, observed["time"][150])
    reference = fit_reference(observed, train=train, climatology="constant")
    baselines = ("persistence", "damped_persistence")
    return line_up(forecast, observed, reference=reference, baselines=baselines)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("sciwm.skill.lineup._BLOCK", 1)


@pytest.mark.usefixtures("small_blocks")
def test_one_pass_gives_the_table_and_the_diagnostics(globe):
    options = {"metrics": ("rmse", "acc"), "regions": ("all", "tropics"), "events": ("t850>285",)}
    options |= {"resamples": 20, "seed": 3}
    skill, diagnostics = assess(globe, **options)
    xr.testing.assert_identical(skill, score_lineup(globe, **options))
    xr.testing.assert_identical(diagnostics, diagnose(globe))
    assert {"rmse", "bias", "spectrum", "observed_spectrum"} == set(diagnostics.data_vars)


@pytest.mark.usefixtures("small_blocks")
def test_one_pass_makes_every_baseline_once(globe):
    made = {name: [] for name in globe.baselines}

    def counted(name, baseline):
        def forecast(init):
            made[name].append(init.values)
            return baseline.forecast(init)

        return replace(baseline, forecast=forecast)

    baselines = {name: counted(name, baseline) for name, baseline in globe.baselines.items()}
    assess(replace(globe, baselines=baselines), metrics=("rmse",), resamples=0)
    init = globe.times.init.values
    blocks = [init[start : start + 10] for start in (0, 10, 20)]
    for calls in made.values():
        np.testing.assert_array_equal(calls, blocks)
