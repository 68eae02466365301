"""Ensemble scores against other implementations, plain numpy, and known reliable ensembles."""

import numpy as np
import pytest
import scores
import scoringrules
import xarray as xr
from truths import days

from sciwm.regions import region_weights
from sciwm.report.page import About, write_report
from sciwm.skill import evaluate, render
from sciwm.skill.ensemble import ensemble_sums, rank_histogram, single_sums
from sciwm.skill.metrics import METRICS
from sciwm.skill.scores import area_means, mean_over_inits, score_sums

FUNCTIONS = {name: m.compute for name, m in METRICS.items() if m.of != "event" and name != "seeps"}


def fields(*, inits=10, members=7, seed=0, spread=1.0, missing=0.0):
    """Members and truth in the forecast layout; with ``spread`` 1 of one distribution."""
    random = np.random.default_rng(seed)
    coords = {
        "init_time": days(inits),
        "lead_time": np.arange(1, 3),
        "latitude": np.linspace(-60, 60, 5),
        "longitude": np.arange(0, 360, 45.0),
    }
    shape = tuple(len(v) for v in coords.values())
    centre = random.normal(0, 3, shape)
    truth = xr.DataArray(centre + random.standard_normal(shape), coords, tuple(coords))
    values = centre[..., None] + spread * random.standard_normal((*shape, members))
    ensemble = xr.DataArray(values, coords, (*coords, "number"))
    ensemble = ensemble.transpose("init_time", "lead_time", "number", ...)
    return ensemble, truth.where(random.random(shape) >= missing)


def means_of(ensemble, truth, *, energy=True, regions=()):
    weights = region_weights(truth, regions)
    single = score_sums(ensemble.mean("number", skipna=False), truth, weights=weights)
    more = ensemble_sums(ensemble, truth, weights=weights, energy=energy)
    return area_means(xr.concat([single, more.transpose(*single.dims)], "statistic").compute())


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_crps_and_spread_agree_with_other_libraries(missing):
    ensemble, truth = fields(missing=missing)
    means = means_of(ensemble, truth).isel(region=0)
    area, keep = region_weights(truth).isel(region=0, drop=True), ["init_time", "lead_time"]
    expected = scores.probability.crps_for_ensemble(
        ensemble, truth, "number", method="fair", preserve_dims=keep, weights=area
    )
    np.testing.assert_allclose(means.sel(statistic="crps"), expected.transpose(*keep), rtol=1e-12)
    cells = scoringrules.crps_ensemble(
        truth.values, ensemble.transpose(..., "number").values, estimator="fair"
    )
    w = np.broadcast_to(area.values, truth.shape) * np.isfinite(truth.values)
    by_hand = (w * np.where(w > 0, cells, 0)).sum((2, 3)) / w.sum((2, 3))
    np.testing.assert_allclose(means.sel(statistic="crps"), by_hand, rtol=1e-10)
    variance = (w * ensemble.var("number", ddof=1).values).sum((2, 3)) / w.sum((2, 3))
    np.testing.assert_allclose(means.sel(statistic="ensemble_variance"), variance, rtol=1e-12)
    np.testing.assert_allclose(means.sel(statistic="expected_square"), variance * 8 / 7, rtol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_energy_score_agrees_with_scoringrules(missing):
    ensemble, truth = fields(missing=missing)
    box = "box:-10,70,40,300"
    means = means_of(ensemble, truth, regions=["all", box])
    for region in ("all", "box"):
        area = region_weights(truth, ["all", box]).sel(region=region).values
        for i, k in ((0, 0), (3, 1)):
            seen = (np.isfinite(truth.values[i, k]) & (area > 0)).ravel()
            root = np.sqrt(area.ravel()[seen] / area.ravel()[seen].sum())
            members = ensemble.isel(init_time=i, lead_time=k).values.reshape(7, -1)[:, seen] * root
            observed = truth.values[i, k].ravel()[seen] * root
            expected = scoringrules.es_ensemble(observed, members, estimator="fair")
            ours = means.sel(statistic="energy_score", region=region).isel(init_time=i, lead_time=k)
            np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_a_reliable_ensemble_is_found_reliable_whatever_its_size():
    for members in (2, 5, 40):
        means = means_of(*fields(inits=400, members=members), energy=False)
        average = mean_over_inits(means).isel(region=0)
        np.testing.assert_allclose(FUNCTIONS["spread_skill"](average), 1.0, atol=0.03)
        of_standard_normal = 1 / np.sqrt(np.pi)
        np.testing.assert_allclose(FUNCTIONS["crps"](average), of_standard_normal, rtol=0.03)
        np.testing.assert_allclose(FUNCTIONS["spread"](average), 1.0, rtol=0.03)
    narrow = mean_over_inits(means_of(*fields(inits=200, spread=0.5), energy=False)).isel(region=0)
    assert (FUNCTIONS["spread_skill"](narrow) < 0.6).all()


def test_chunks_do_not_matter(monkeypatch):
    ensemble, truth = fields(missing=0.2)
    whole = means_of(ensemble, truth)
    monkeypatch.setattr("sciwm.skill.alignment._BLOCK", 300)
    cut = means_of(ensemble.chunk(init_time=3, number=2), truth.chunk(init_time=4, latitude=2))
    xr.testing.assert_allclose(whole, cut, rtol=1e-12)


def test_adversarial_ensembles():
    ensemble, truth = fields(inits=4)
    lost = ensemble.copy()
    lost[1, 0, 2, 3, 3] = np.nan
    names = ["crps", "ensemble_variance", "energy_score"]
    means = means_of(lost, truth)
    assert np.isnan(means.sel(statistic=names).isel(init_time=1, lead_time=0)).all()
    assert np.isfinite(means.isel(init_time=2)).all()
    unseen = truth.copy()
    unseen[1, 0, 3, 3] = np.nan
    assert np.isfinite(means_of(lost, unseen)).all()
    one = means_of(ensemble.isel(number=[0]), truth)
    np.testing.assert_allclose(one.sel(statistic="crps"), one.sel(statistic="absolute_error"))
    np.testing.assert_allclose(
        one.sel(statistic="energy_score"), one.sel(statistic="squared_error") ** 0.5
    )
    assert np.isnan(one.sel(statistic=["ensemble_variance", "expected_square"])).all()
    weights = region_weights(truth)
    plain = score_sums(ensemble.isel(number=0), truth, weights=weights)
    single = single_sums(plain, energy=True)
    again = ensemble_sums(ensemble.isel(number=[0]), truth, weights=weights, energy=True)
    xr.testing.assert_allclose(single.compute(), again.transpose(*single.dims).compute())
    same = means_of(xr.concat([truth] * 3, "number").transpose(*ensemble.dims), truth)
    np.testing.assert_allclose(same.sel(statistic=names), 0.0, atol=1e-12)
    alone = mean_over_inits(means_of(*fields(inits=1)))
    defined = {n: m for n, m in FUNCTIONS.items() if n != "correlation"}
    assert all(np.isfinite(metric(alone)).all() for metric in defined.values())


def test_rank_histograms():
    ensemble, truth = fields(inits=300, members=4)
    weights = region_weights(truth)
    flat = rank_histogram(ensemble.chunk(init_time=50), truth, weights=weights)
    assert flat.dims == ("lead_time", "region", "rank")
    np.testing.assert_allclose(flat, 1.0, atol=0.08)
    np.testing.assert_allclose(flat.mean("rank"), 1.0)
    area = np.broadcast_to(weights.values[0], truth.shape)
    below = (ensemble < truth).sum("number").transpose(*truth.dims).values
    by_hand = np.array([[area[:, k][below[:, k] == r].sum() for r in range(5)] for k in range(2)])
    np.testing.assert_allclose(flat.isel(region=0), by_hand / by_hand.mean(axis=1, keepdims=True))
    members, other = fields(inits=100, spread=0.3)[0], fields(inits=100)[1]
    narrow = rank_histogram(members, other, weights=weights).isel(region=0)
    assert (narrow.isel(rank=[0, -1]) > 2).all()
    dry = rank_histogram(xr.zeros_like(ensemble), xr.zeros_like(truth), weights=weights)
    np.testing.assert_allclose(dry, 1.0)
    nothing = rank_histogram(ensemble, truth.where(False), weights=weights)
    assert np.isnan(nothing).all()


def test_ensembles_and_single_forecasts_in_one_table(tmp_path):
    ensemble, truth = fields(inits=40, members=20)
    lead = ensemble["lead_time"].values * np.timedelta64(24, "h").astype("timedelta64[ns]")
    ensemble = ensemble.assign_coords(lead_time=lead)
    time = np.unique(truth["init_time"].values[:, None] + lead)
    random = np.random.default_rng(3)
    observed = xr.DataArray(
        random.standard_normal((len(time), 5, 8)),
        {"time": time, **{d: truth[d] for d in ("latitude", "longitude")}},
        ("time", "latitude", "longitude"),
    )
    many = xr.Dataset({"t": ensemble})
    one = xr.Dataset({"t": ensemble.isel(number=0)})
    metrics = ["rmse", "mae", "crps", "energy_score", "spread", "spread_skill"]
    skill = evaluate(
        {"many": many, "one": one},
        xr.Dataset({"t": observed}),
        baselines=(),
        metrics=metrics,
        resamples=50,
    )
    value = skill["value"].isel(channel=0, region=0)
    crps = value.loc[{"metric": "crps"}]
    mae = value.loc[{"metric": "mae"}]
    np.testing.assert_allclose(crps.loc[{"method": "one"}], mae.loc[{"method": "one"}])
    assert np.isnan(value.loc[{"method": "one", "metric": ["spread", "spread_skill"]}]).all()
    assert np.isfinite(value.loc[{"method": "many"}]).all()
    assert np.isfinite(skill["ci_low"].loc[{"method": "many"}]).all()
    assert (crps.loc[{"method": "many"}] < crps.loc[{"method": "one"}]).all()
    about = About(title="", provenance={})
    for name, table in (("both", skill), ("one", skill.sel({"method": ["one"]}))):
        page = write_report(tmp_path / f"{name}.html", about=about, skill=table).read_text()
        assert "Fair CRPS" in page
        assert "Configuration" not in page
    render(skill, metric="spread")
    render(skill, metric="spread_skill")
