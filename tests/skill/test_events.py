"""Threshold events in the table: channels, intervals, chunks, mistakes.

Their values are compared in test_independent.py.
"""

import re

import numpy as np
import pytest
import xarray as xr
from truths import forecast_of, weather
from truths import scored as evaluate

from sciwm.regions import region_weights
from sciwm.report.leads import lead_section
from sciwm.report.prose import describe_scores
from sciwm.skill import render, to_frame
from sciwm.skill.events import Event, event_sums, parse_event, parse_events, roc_area
from sciwm.skill.metrics import better, metric_name, metric_units, short_name
from sciwm.skill.scores import area_means, mean_over_inits

LEADS = np.array([1, 3])


@pytest.fixture(scope="module")
def observed():
    return weather(700)


def ensemble_of(observed, *, members=5, noise=1.0, inits=range(500, 600)):
    each = [forecast_of(observed, inits, LEADS, noise=noise, seed=s) for s in range(members)]
    return xr.concat(each, xr.DataArray(range(members), dims="number", name="number"))


@pytest.fixture(scope="module")
def skill(observed):
    forecasts = {
        "many": ensemble_of(observed),
        "few": ensemble_of(observed, members=2, noise=4.0),
        "one": ensemble_of(observed).isel(number=0),
    }
    options = {
        "events": ("t850>271", "t850<=270"),
        "metrics": ("rmse", "crps"),
        "regions": ("all", "south:35,45,-5,20"),
    }
    return evaluate(forecasts, observed, baselines=("persistence",), resamples=200, **options)


def test_an_event_is_a_channel_with_its_own_metrics(skill):
    assert skill.channel.values.tolist() == ["t850", "t850>271", "t850<=270"]
    assert skill.variable.values.tolist() == ["t850"] * 3
    assert skill.event.values.tolist() == ["", ">271", "<=270"]
    assert skill.metric.values.tolist() == ["rmse", "crps", "brier", "roc_area"]
    own = (
        {"channel": ["t850"], "metric": ["rmse", "crps"]},
        {"channel": ["t850>271", "t850<=270"], "metric": ["brier", "roc_area"]},
    )
    for part in own:
        assert all(skill[v].loc[part].notnull().all() for v in ("value", "ci_low", "ci_high"))
    assert np.isnan(skill["value"].loc[{"channel": "t850", "metric": ["brier", "roc_area"]}]).all()
    assert np.isnan(skill["value"].loc[{"channel": "t850>271", "metric": ["rmse", "crps"]}]).all()
    assert (skill.num_init == 100).all()


def test_a_better_forecast_of_the_event_scores_better(skill):
    brier = skill.value.loc[{"channel": "t850>271", "region": "all", "metric": "brier"}]
    area = skill.value.loc[{"channel": "t850>271", "region": "all", "metric": "roc_area"}]
    for worse in ("few", "one", "persistence"):
        assert (brier.loc[{"method": "many"}] < brier.loc[{"method": worse}]).all()
        assert (area.loc[{"method": "many"}] > area.loc[{"method": worse}]).all()
    held = (skill.ci_low <= skill.value) & (skill.value <= skill.ci_high)
    assert held.where(skill.value.notnull(), True).all()
    pairs = skill.pair_p_value.loc[
        {"reference_method": "many", "method": "few", "channel": "t850>271", "region": "all"}
    ]
    assert (pairs < 1e-3).all()


def test_the_table_as_rows_and_on_the_terminal(skill, capsys):
    frame = to_frame(skill)
    assert list(frame.columns[:3]) == ["variable", "level", "event"]
    assert frame.groupby("event")["metric"].unique().map(sorted).to_dict() == {
        "": ["crps", "rmse"],
        "<=270": ["brier", "roc_area"],
        ">271": ["brier", "roc_area"],
    }
    assert set(frame.loc[frame["metric"] == "brier", "units"]) == {"1"}
    render(skill, metric="brier")
    printed = capsys.readouterr().out
    assert "t850>271, brier" in printed
    assert "t850, brier" not in printed
    assert "event" not in to_frame(skill.isel(channel=[0]).drop_vars("event")).columns


def test_what_was_there_before_events_is_the_same(skill, observed):
    forecasts = {
        "many": ensemble_of(observed),
        "few": ensemble_of(observed, members=2, noise=4.0),
        "one": ensemble_of(observed).isel(number=0),
    }
    options = {"metrics": ("rmse", "crps"), "regions": ("all", "south:35,45,-5,20")}
    plain = evaluate(forecasts, observed, baselines=("persistence",), resamples=200, **options)
    for name in ("value", "ci_low", "ci_high", "p_value", "num_init"):
        part = skill[name].isel(channel=[0])
        part = part.sel(metric=["rmse", "crps"]) if "metric" in part.dims else part
        np.testing.assert_array_equal(plain[name], part)
    assert "event" not in plain.coords


def test_chunks_and_blocks_do_not_matter(skill, observed, monkeypatch):
    monkeypatch.setattr("sciwm.skill.lineup._BLOCK", 3000)
    forecasts = {
        "many": ensemble_of(observed),
        "few": ensemble_of(observed, members=2, noise=4.0),
        "one": ensemble_of(observed).isel(number=0),
    }
    cut = {name: ds.chunk(init_time=13, latitude=2) for name, ds in forecasts.items()}
    options = {
        "events": ("t850>271", "t850<=270"),
        "metrics": ("rmse", "crps"),
        "regions": ("all", "south:35,45,-5,20"),
    }
    again = evaluate(
        cut, observed.chunk(time=100), baselines=("persistence",), resamples=200, **options
    )
    for name in ("value", "ci_low", "ci_high", "p_value"):
        np.testing.assert_allclose(again[name], skill[name], rtol=1e-9, atol=1e-12)


def test_events_of_levels(observed):
    level = xr.DataArray([500.0, 850.0], dims="level", name="level")
    both = xr.concat([observed.t850, observed.t850 + 5], level)
    both = both.transpose("time", "level", ...).to_dataset(name="t")
    both["t2m"] = observed.t850
    forecast = forecast_of(both, range(500, 540), LEADS)
    options = {"baselines": (), "metrics": ("brier",), "resamples": 0}
    skill = evaluate(forecast, both, events=("t850>275", "t>271", "t2m>271"), **options)
    events = ["t_850>275", "t_500>271", "t_850>271", "t2m>271"]
    assert skill.channel.values.tolist() == ["t_500", "t_850", "t2m", *events]
    assert skill.level.values[3:6].tolist() == [850.0, 500.0, 850.0]
    truth = both.t.sel(level=500).isel(time=np.arange(501, 541))
    missed = (forecast.t.sel(level=500).isel(lead_time=0).values > 271) != (truth.values > 271)
    area = region_weights(observed.t850).isel(region=0).values
    expected = (missed * area).sum() / area.sum() / 40
    brier = skill.value.loc[{"channel": "t_500>271", "metric": "brier"}]
    assert brier.isel(lead_time=0).item() == pytest.approx(expected)


def test_sums_add_over_cells_and_over_initial_times(observed):
    forecast = ensemble_of(observed)["t850"]
    truth = forecast.isel(number=0) + 1.0
    weights = region_weights(truth)
    event = Event("t850", ">", 271.0)
    whole = event_sums(forecast, truth, event=event, weights=weights)
    for dim, at in (("longitude", 2), ("init_time", 30)):
        parts = []
        for cut in ({dim: slice(0, at)}, {dim: slice(at, None)}):
            w = weights.isel(cut, missing_dims="ignore")
            sums = event_sums(forecast.isel(cut), truth.isel(cut), event=event, weights=w)
            parts.append(sums.values)
        joined = parts[0] + parts[1] if dim == "longitude" else np.concatenate(parts)
        np.testing.assert_allclose(joined, whole, rtol=1e-12)
    room = event_sums(forecast, truth, event=event, weights=weights, bins=20)
    np.testing.assert_allclose(*(roc_area(mean_over_inits(area_means(s))) for s in (whole, room)))


def test_mistakes_are_named(observed):
    forecast = forecast_of(observed, range(500, 540), LEADS)
    for event, expected in (
        ("t850 285", "expected a variable, one of > >= < <="),
        ("z500>5", "expected one of a variable that is scored: t850"),
    ):
        with pytest.raises(ValueError, match=f"got event '{event}', {expected}"):
            evaluate(forecast, observed, baselines=(), metrics=("rmse",), events=(event,))
    with pytest.raises(ValueError, match=r"got metrics \['brier'\] without events, expected some"):
        evaluate(forecast, observed, baselines=(), metrics=("rmse", "brier"))
    with pytest.raises(ValueError, match=r"expected 't>1.0' once"):
        parse_events(["t>1", "t>1.0"], [("t", np.nan)])
    assert parse_event("tp>1e-3").condition == ">0.001"


def test_thresholds_are_named_in_full_and_events_are_told_apart():
    channels = [("t", 500.0), ("t", 850.0), ("msl", float("nan"))]
    both = parse_events(["msl>101325.25", "msl>101325.75", "msl<1234567"], channels)
    assert [e.condition for e in both] == [">101325.25", ">101325.75", "<1234567"]
    assert len(parse_events(["t_500>280", "t_850>280"], channels)) == 2
    for same in (["t_850>280", "t850>280"], ["t>280", "t_500>280"], ["msl>1e5", "msl>100000"]):
        with pytest.raises(ValueError, match=f"expected '{same[1]}' once"):
            parse_events(same, channels)


def test_the_report_names_the_scores_of_events(skill):
    assert "Brier score and area under the ROC curve" in describe_scores(skill)
    sides = {m: better(m) for m in ("brier", "roc_area", "fss_5", "seeps")}
    assert sides == {"brier": "lower", "roc_area": "higher", "fss_5": "higher", "seeps": "lower"}
    assert metric_name("fss_5") == "Fractions skill score, 5 × 5 cells"
    assert short_name("seeps") == "SEEPS"
    page = lead_section(skill)
    assert ">Event t850&gt;271 K</h3>" in page
    assert re.search(r">[^<>]*t850[^<>]*, K</h3>", page)
    assert metric_units("rmse", "K") == "K"
    assert {metric_units(m, "K") for m in sides} == {""}
