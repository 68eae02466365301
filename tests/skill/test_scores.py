import numpy as np
import pytest
import scores
import xarray as xr
from truths import days

from sciwm.regions import region_weights
from sciwm.skill.metrics import METRICS, check_metrics
from sciwm.skill.scores import (
    acc,
    area_means,
    bias,
    correlation,
    mae,
    mean_over_inits,
    nmse,
    rmse,
    score_sums,
)

FUNCTIONS = {name: m.compute for name, m in METRICS.items() if m.of == "mean" and name != "seeps"}


def fields(*, inits=12, leads=3, levels=None, seed=0, missing=0.0):
    random = np.random.default_rng(seed)
    latitude, longitude = np.linspace(-60, 60, 5), np.arange(0, 360, 45.0)
    dims = ["init_time", "lead_time", "latitude", "longitude"]
    shape = [inits, leads, 5, 8]
    coords = {
        "init_time": days(inits),
        "lead_time": np.arange(1, leads + 1),
        "latitude": latitude,
        "longitude": longitude,
    }
    if levels:
        dims.insert(2, "level")
        shape.insert(2, levels)
        coords["level"] = np.arange(levels) * 100.0
    truth, climatology = (
        xr.DataArray(random.standard_normal(shape), dims=dims, coords=coords) for _ in range(2)
    )
    forecast = truth + random.standard_normal(shape) + 0.3
    return forecast, truth.where(random.random(shape) >= missing), climatology


def weights_like(truth, regions=()):
    return region_weights(truth, regions)


def average_of(*arrays, weights):
    return mean_over_inits(area_means(score_sums(*arrays, weights=weights)))


def cut(arrays, **places):
    return [x.isel(places) for x in arrays]


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_area_means_agree_with_the_scores_library(missing):
    forecast, truth, climatology = fields(missing=missing)
    weights = weights_like(truth)
    means = area_means(score_sums(forecast, truth, climatology, weights=weights)).isel(region=0)
    area, keep = weights.isel(region=0, drop=True), ["init_time", "lead_time"]
    for name, score in (
        ("squared_error", scores.continuous.mse),
        ("absolute_error", scores.continuous.mae),
        ("error", scores.continuous.additive_bias),
    ):
        expected = score(forecast, truth, preserve_dims=keep, weights=area).transpose(*keep)
        np.testing.assert_allclose(means.sel(statistic=name), expected, rtol=1e-12, atol=1e-14)


def test_metrics_agree_with_plain_numpy():
    forecast, truth, climatology = fields(missing=0.2)
    weights = weights_like(truth)
    sums = score_sums(forecast, truth, climatology, weights=weights)
    average = mean_over_inits(area_means(sums)).isel(region=0)
    f, o, c = forecast.values, truth.values, climatology.values
    w = np.broadcast_to(weights.values[0], f.shape) * np.isfinite(o)
    o = np.nan_to_num(o)
    f, c = np.where(w > 0, f, 0), np.where(w > 0, c, 0)

    def mean(x):
        return ((w * x).sum((2, 3)) / w.sum((2, 3))).mean(0)

    np.testing.assert_allclose(rmse(average), np.sqrt(mean((f - o) ** 2)))
    np.testing.assert_allclose(mae(average), mean(abs(f - o)))
    np.testing.assert_allclose(bias(average), mean(f - o))
    expected = mean((f - c) * (o - c)) / np.sqrt(mean((f - c) ** 2) * mean((o - c) ** 2))
    np.testing.assert_allclose(acc(average), expected)
    np.testing.assert_allclose(nmse(average), mean((f - o) ** 2) / mean((o - c) ** 2))
    fa, oa = ((w * x).sum((2, 3)) / w.sum((2, 3)) for x in (f - c, o - c))
    expected = [np.corrcoef(fa[:, k], oa[:, k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(correlation(average), expected)


def test_acc_agrees_with_xskillscore_for_one_initial_time():
    xskillscore = pytest.importorskip("xskillscore")
    forecast, truth, climatology = fields(inits=1)
    weights = weights_like(truth)
    plain = average_of(forecast, truth, climatology, weights=weights)
    assert (abs(acc(plain)) <= 1).all()
    area = weights.isel(region=0, drop=True)
    f, o = ((x - climatology).isel(init_time=0) for x in (forecast, truth))
    # xskillscore's is centred; ours is not, so it is compared on anomalies without an area mean
    f, o = (x - x.weighted(area).mean(("latitude", "longitude")) for x in (f, o))
    both = ((x + climatology).transpose(*truth.dims) for x in (f, o))
    centred = average_of(*both, climatology, weights=weights)
    expected = xskillscore.pearson_r(f, o, dim=["latitude", "longitude"], weights=area)
    np.testing.assert_allclose(acc(centred).isel(region=0), expected)


def test_levels_are_scored_apart():
    arrays = fields(levels=3)
    weights = weights_like(arrays[1])
    sums = score_sums(*arrays, weights=weights)
    assert sums.dims == ("init_time", "lead_time", "level", "region", "statistic")
    one = score_sums(*cut(arrays, level=1), weights=weights)
    np.testing.assert_allclose(sums.isel(level=1), one)


def test_chunks_do_not_matter_and_sums_add_over_cells():
    forecast, truth, climatology = fields(missing=0.2)
    weights = weights_like(truth, ["all", "tropics"])
    whole = score_sums(forecast, truth, climatology, weights=weights)
    chunked = score_sums(
        forecast.chunk(init_time=5, latitude=2),
        truth.chunk(init_time=3, lead_time=1),
        climatology.chunk(longitude=3),
        weights=weights,
    )
    assert chunked.chunks is not None
    np.testing.assert_allclose(chunked, whole, rtol=1e-13)
    both = 0.0
    for part in (slice(0, 3), slice(3, None)):
        arrays = cut((forecast, truth, climatology), longitude=part)
        both = both + score_sums(*arrays, weights=weights.isel(longitude=part)).values
    np.testing.assert_allclose(both, whole, rtol=1e-12, atol=1e-14)


def test_missing_observations_leave_with_their_weight():
    forecast, truth, climatology = fields()
    land = xr.zeros_like(truth.isel(init_time=0, lead_time=0, drop=True)).astype(bool)
    land[:, :3] = True
    weights = weights_like(truth)
    masked = score_sums(forecast.where(~land), truth.where(~land), climatology, weights=weights)
    sea = {"longitude": slice(3, None)}
    rest = score_sums(*cut((forecast, truth, climatology), **sea), weights=weights.isel(sea))
    np.testing.assert_allclose(masked, rest, rtol=1e-12)


def test_a_forecast_missing_where_observed_is_not_excused():
    forecast, truth, climatology = fields()
    forecast[2, 1, 0, 0] = np.nan  # latitude −60
    sums = score_sums(forecast, truth, climatology, weights=weights_like(truth, ["all", "tropics"]))
    bad = sums.sel(statistic="squared_error").isnull()
    assert bad.sum() == 1
    assert bool(bad.isel(init_time=2, lead_time=1).sel(region="all"))
    value = rmse(mean_over_inits(area_means(sums))).sel(region="all")
    assert np.isnan(value).values.tolist() == [False, True, False]


def test_initial_times_without_observations_do_not_count():
    forecast, truth, climatology = fields()
    truth[4] = np.nan
    weights = weights_like(truth)
    average = average_of(forecast, truth, climatology, weights=weights)
    rest = [i for i in range(12) if i != 4]
    fewer = average_of(*cut((forecast, truth, climatology), init_time=rest), weights=weights)
    for metric in FUNCTIONS.values():
        np.testing.assert_allclose(metric(average), metric(fewer))
    nothing = average_of(forecast, truth * np.nan, climatology, weights=weights)
    assert all(np.isnan(metric(nothing)).all() for metric in FUNCTIONS.values())


def test_zero_variance_gives_no_correlation():
    forecast, truth, climatology = fields()
    weights = weights_like(truth)
    flat = average_of(climatology, truth, climatology, weights=weights)
    assert np.isnan(acc(flat)).all()
    assert np.isnan(correlation(flat)).all()
    np.testing.assert_allclose(nmse(flat), 1.0)
    still = average_of(forecast, climatology, climatology, weights=weights)
    assert np.isnan(nmse(still)).all()
    single = average_of(*cut((forecast, truth, climatology), init_time=[0]), weights=weights)
    assert np.isnan(correlation(single)).all()
    assert np.isfinite(acc(single)).all()


def test_perfect_forecasts_get_perfect_values():
    _, truth, climatology = fields(missing=0.1)
    average = average_of(truth, truth, climatology, weights=weights_like(truth))
    perfect = {name: metric(average) for name, metric in FUNCTIONS.items()}
    for name in ("rmse", "mae", "bias", "index_rmse", "nmse"):
        np.testing.assert_allclose(perfect.pop(name), 0.0, atol=1e-12)
    for name in ("acc", "correlation"):
        np.testing.assert_allclose(perfect.pop(name), 1.0, atol=1e-12)
    assert not perfect


def test_without_a_climatology_errors_are_the_same():
    forecast, truth, climatology = fields()
    weights = weights_like(truth)
    names = ["weight", "squared_error", "absolute_error", "error"]
    without = score_sums(forecast, truth, weights=weights).sel(statistic=names)
    with_one = score_sums(forecast, truth, climatology, weights=weights).sel(statistic=names)
    np.testing.assert_allclose(without, with_one, rtol=1e-12, atol=1e-12)


def test_an_index_needs_no_space():
    random = np.random.default_rng(0)
    axes = {"init_time": days(50), "lead_time": [1, 2]}
    truth = xr.DataArray(random.standard_normal((50, 2)), axes, tuple(axes))
    forecast = truth + random.standard_normal((50, 2))
    average = average_of(forecast, truth, weights=region_weights(truth)).isel(region=0)
    np.testing.assert_allclose(rmse(average), np.sqrt(((forecast - truth) ** 2).mean("init_time")))
    np.testing.assert_allclose(correlation(average), xr.corr(forecast, truth, dim="init_time"))


def test_unknown_metrics_are_named():
    with pytest.raises(ValueError, match="got metric 'crpss', expected some of rmse"):
        check_metrics(["rmse", "crpss"])
