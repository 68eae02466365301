import numpy as np
import pytest
import scipy.stats
import xarray as xr
from scipy.signal import lfilter
from truths import autoregressive, days

from sciwm.skill.scores import METRICS, area_means, mean_over_inits, score_sums
from sciwm.skill.significance import block_counts, block_length, bootstrap_interval, decorrelation_time, false_discovery, paired_difference


def sums_of_errors(errors):
    """Sums of one-cell forecasts with these errors ``(init, lead)``; what is observed is noise."""
    errors = np.asarray(errors)
    random = np.random.default_rng(99)
    coords = {"init_time": days(len(errors)), "lead_time": np.arange(errors.shape[1])}
    truth = xr.DataArray(random.standard_normal(errors.shape), dims=("init_time", "lead_time"), coords=coords)
    return score_sums(truth + errors, truth, weights=xr.DataArray([1.0], dims="region", coords={"region": ["all"]})).compute()


def noise(coefficients, *, count, series, seed=0):
    random = np.random.default_rng(seed)
    return lfilter([1.0], [1.0, *(-np.array(coefficients))], random.standard_normal((count + 200, series)), axis=0)[200:]


def test_decorrelation_time_of_ar1_noise_is_the_known_one():
    for phi in (0.0, 0.5, 0.8):
        estimate = decorrelation_time(autoregressive(20000, phi=phi, cells=4))
        np.testing.assert_allclose(estimate, (1 + phi) / (1 - phi), rtol=0.25)
    assert decorrelation_time(np.ones((50, 2))).tolist() == [1.0, 1.0]


def test_block_length_is_at_least_the_decorrelation_time_and_capped():
    slow = autoregressive(2000, phi=0.9, cells=1, seed=3)
    assert block_length(slow) >= decorrelation_time(slow)[0]
    assert block_length(np.arange(50.0)[:, None]) == 5
    assert block_length(np.random.default_rng(0).standard_normal((1000, 1))) == 10
    assert block_length(np.full((40, 1), np.nan)) == 4
    assert block_length(np.ones((1, 3))) == 1


def test_resamples_draw_whole_blocks_and_every_time_equally_often():
    counts = block_counts(100, 10, resamples=4000, seed=0)
    assert (counts.sum(1) == 100).all()
    np.testing.assert_allclose(counts.mean(0), 1.0, atol=0.08)
    # neighbours are drawn together: for blocks of ten, 9 in 10 of them
    together = ((counts - 1) * (np.roll(counts, 1, axis=1) - 1)).mean() / ((counts - 1) ** 2).mean()
    assert together == pytest.approx(0.9, abs=0.03)
    np.testing.assert_array_equal(counts, block_counts(100, 10, resamples=4000, seed=0))
    assert (counts != block_counts(100, 10, resamples=4000, seed=1)).any()
    assert (block_counts(1, 1, resamples=5, seed=0) == 1).all()


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_intervals_cover_the_true_score(phi):
    errors = autoregressive(250, phi=phi, cells=300)
    means = area_means(sums_of_errors(errors))
    squared = means.sel(statistic="squared_error").values.reshape(250, -1)
    counts = block_counts(250, max(block_length(squared[:, [0]]), 8), resamples=400, seed=1)
    low, high = bootstrap_interval(means, {"rmse": METRICS["rmse"]}, counts)
    covered = ((low <= 1.0) & (high >= 1.0)).mean()
    assert 0.88 <= float(covered) <= 0.98


def test_intervals_hold_the_value_and_follow_undefined_metrics():
    errors = autoregressive(80, phi=0.3, cells=2)
    errors[:, 1] = np.nan
    means = area_means(sums_of_errors(errors))
    low, high = bootstrap_interval(means, METRICS, block_counts(80, 5, resamples=300, seed=0))
    value = xr.concat([f(mean_over_inits(means)).assign_coords(metric=m) for m, f in METRICS.items()], "metric")
    first = {"lead_time": 0, "region": "all"}
    assert (low.loc[first] <= value.loc[first]).all()
    assert (value.loc[first] <= high.loc[first]).all()
    assert np.isnan(low.loc[{"lead_time": 1}]).all()
    single = area_means(sums_of_errors(np.array([[0.5]])))
    low, high = bootstrap_interval(single, {"rmse": METRICS["rmse"]}, block_counts(1, 1, resamples=10, seed=0))
    assert low.item() == high.item() == pytest.approx(0.5)


@pytest.mark.parametrize("coefficients", [(0.0, 0.0), (0.7, 0.0), (0.6, 0.2)])
def test_paired_test_keeps_its_level_on_autocorrelated_noise(coefficients):
    # squared errors 10 + noise and 10: their difference is the noise
    differences = noise(coefficients, count=180, series=3000)
    shift = 20.0 * differences.std()
    test = paired_difference(sums_of_errors(np.sqrt(shift + differences)), sums_of_errors(np.full_like(differences, np.sqrt(shift))))
    assert 0.03 <= float((test.p_value < 0.05).mean()) <= 0.07
    np.testing.assert_allclose(test.difference.isel(region=0), differences.mean(0), atol=1e-9)


def test_paired_test_finds_a_real_difference_and_its_sign():
    random = np.random.default_rng(0)
    good, bad = random.standard_normal((300, 3)), 1.5 * random.standard_normal((300, 3))
    test = paired_difference(sums_of_errors(good), sums_of_errors(bad))
    assert (test.p_value < 1e-3).all()
    assert (test.difference < 0).all()
    assert (test.effective_num_init > 150).all()


def test_paired_test_of_equal_or_too_few_forecasts_is_undefined():
    same = sums_of_errors(np.random.default_rng(0).standard_normal((50, 1)))
    assert np.isnan(paired_difference(same, same).p_value).all()
    few = sums_of_errors(np.random.default_rng(1).standard_normal((5, 1)))
    assert np.isnan(paired_difference(few, few * 2).p_value).all()
    with pytest.raises(ValueError, match="paired"):
        paired_difference(same, few)


def test_false_discoveries_are_few_among_many_tests():
    random = np.random.default_rng(0)
    shares, powers = [], []
    for _ in range(300):
        real = random.random(200) < 0.2
        p = scipy.stats.norm.sf(random.standard_normal(200) + 3.5 * real)
        found = false_discovery(p.reshape(20, 10)).ravel() <= 0.05
        shares.append((found & ~real).sum() / max(1, found.sum()))
        powers.append((found & real).sum() / real.sum())
    assert np.mean(shares) < 0.05
    assert np.mean(powers) > 0.7
    adjusted = false_discovery(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(adjusted, [0.03, np.nan, 0.04, 0.04])
    assert np.isnan(false_discovery(np.full(3, np.nan))).all()
