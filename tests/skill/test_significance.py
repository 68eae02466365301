from functools import partial

import numpy as np
import pytest
import scipy.stats
import scores.stats.statistical_tests
import xarray as xr
from scipy.signal import lfilter
from truths import DAY, autoregressive, days

from sciwm.skill.metrics import METRICS
from sciwm.skill.scores import area_means, mean_over_inits, score_sums
from sciwm.skill.significance import (
    block_counts,
    block_length,
    bootstrap_interval,
    decorrelation_time,
    diebold_mariano,
    false_discovery,
    paired_difference,
)

FUNCTIONS = {name: m.compute for name, m in METRICS.items() if m.of == "mean" and name != "seeps"}


def sums_of_errors(errors):
    """Sums of one-cell forecasts with these errors ``(init, lead)``; what is observed is noise."""
    errors = np.asarray(errors)
    random = np.random.default_rng(99)
    coords = {"init_time": days(len(errors)), "lead_time": np.arange(errors.shape[1])}
    truth = xr.DataArray(random.standard_normal(errors.shape), coords, tuple(coords))
    weights = xr.DataArray([1.0], {"region": ["all"]}, "region")
    return score_sums(truth + errors, truth, weights=weights).compute()


def sums_that_differ_by(differences):
    """Sums of two forecasts whose squared errors differ by these ``(init, lead)``."""
    shift = 20.0 * differences.std()
    constant = np.full_like(differences, np.sqrt(shift))
    return sums_of_errors(np.sqrt(shift + differences)), sums_of_errors(constant)


def noise(coefficients, *, count, series, seed=0):
    shocks = np.random.default_rng(seed).standard_normal((count + 200, series))
    return lfilter([1.0], [1.0, *(-np.array(coefficients))], shocks, axis=0)[200:]


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
    low, high = bootstrap_interval(means, {"rmse": FUNCTIONS["rmse"]}, counts)
    covered = ((low <= 1.0) & (high >= 1.0)).mean()
    assert 0.88 <= float(covered) <= 0.98


def test_intervals_hold_the_value_and_follow_undefined_metrics():
    errors = autoregressive(80, phi=0.3, cells=2)
    errors[:, 1] = np.nan
    means = area_means(sums_of_errors(errors))
    low, high = bootstrap_interval(means, FUNCTIONS, block_counts(80, 5, resamples=300, seed=0))
    average = mean_over_inits(means)
    values = [f(average).assign_coords(metric=m) for m, f in FUNCTIONS.items()]
    value = xr.concat(values, "metric")
    first = {"lead_time": 0, "region": "all"}
    assert (low.loc[first] <= value.loc[first]).all()
    assert (value.loc[first] <= high.loc[first]).all()
    assert np.isnan(low.loc[{"lead_time": 1}]).all()
    single = area_means(sums_of_errors(np.array([[0.5]])))
    counts = block_counts(1, 1, resamples=10, seed=0)
    low, high = bootstrap_interval(single, {"rmse": FUNCTIONS["rmse"]}, counts)
    assert low.item() == high.item() == pytest.approx(0.5)


@pytest.mark.parametrize("count", [180, 365])
@pytest.mark.parametrize(
    "coefficients", [(0.0, 0.0), (0.5, 0.0), (0.7, 0.0), (0.6, 0.2), (0.3, 0.3), (1.0, -0.5)]
)
def test_paired_test_keeps_its_level_on_autocorrelated_noise(coefficients, count):
    differences = noise(coefficients, count=count, series=4000)
    test = paired_difference(*sums_that_differ_by(differences))
    assert 0.03 <= float((test.p_value < 0.05).mean()) <= 0.07
    np.testing.assert_allclose(test.difference.isel(region=0), differences.mean(0), atol=1e-9)


@pytest.mark.parametrize(("coefficients", "most"), [((-0.4, 0.0), 0.05), ((0.9, 0.0), 0.12)])
def test_where_the_paired_test_does_not_keep_its_level(coefficients, most):
    differences = noise(coefficients, count=60, series=4000)
    test = paired_difference(*sums_that_differ_by(differences))
    naive = scipy.stats.ttest_1samp(differences, 0.0).pvalue
    assert float((test.p_value < 0.05).mean()) <= most
    assert most == 0.05 or (naive < 0.05).mean() > 0.6


@pytest.mark.parametrize("every", [2, 5])
def test_paired_tests_leave_out_initial_times_without_observations(every):
    a, b = (dated(autoregressive(120, phi=0.8, cells=3, seed=s)) for s in (0, 1))
    seen = xr.DataArray(np.arange(120) % every == 0, dims="init_time")
    # at the first lead
    gone = [sums.where(seen | (sums["lead_time"] != DAY), 0.0) for sums in (a, b)]
    for test in (paired_difference, partial(diebold_mariano, horizon=[2, 2, 2])):
        found, kept, whole = test(*gone), test(a[::every], b[::every]), test(a, b)
        for name in ("difference", "p_value", "effective_num_init"):
            one = getattr(found, name)
            np.testing.assert_allclose(one[0], getattr(kept, name)[0])
            np.testing.assert_allclose(one[1:], getattr(whole, name)[1:])
        nothing = test(0.0 * a, 0.0 * b)
        assert np.isnan(nothing.p_value).all()
        assert np.isnan(nothing.difference).all()


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


def dated(errors):
    """Sums of errors ``(init, lead)`` of leads of 1, 2, … days."""
    sums = sums_of_errors(errors)
    return sums.assign_coords(lead_time=(1 + np.arange(sums.sizes["lead_time"])) * DAY)


@pytest.mark.parametrize("every", [1, 2])
def test_diebold_mariano_agrees_with_scores(every):
    a, b = (dated(autoregressive(120, phi=0.5, cells=5, seed=s))[::every] for s in (0, 1))
    test = diebold_mariano(a, b)
    # leads in steps of the initial times, rounded up
    steps = [-(-k // every) for k in (1, 2, 3, 4, 5)]
    series = (a - b).sel(statistic="squared_error", region="all", drop=True)
    series = series.transpose("lead_time", "init_time").assign_coords(h=("lead_time", steps))
    options = {"method": "HLN", "statistic_distribution": "t"}
    library = scores.stats.statistical_tests.diebold_mariano(series, "lead_time", "h", **options)
    above = library["confidence_gt_0"].values
    expected = 2 * np.minimum(above, 1 - above)
    np.testing.assert_allclose(test.p_value.isel(region=0), expected, rtol=1e-10)
    np.testing.assert_allclose(test.difference.isel(region=0), library["mean"])
    xr.testing.assert_equal(diebold_mariano(a, b, horizon=steps).p_value, test.p_value)


def test_diebold_mariano_keeps_its_level_on_errors_of_its_horizon():
    random = np.random.default_rng(0)
    shocks = random.standard_normal((3000, 202))
    # MA(2): errors of forecasts three steps ahead
    differences = (shocks[:, 2:] + shocks[:, 1:-1] + shocks[:, :-2]).T
    sums = sums_that_differ_by(differences)
    test = diebold_mariano(*sums, horizon=[3] * 3000)
    assert 0.03 <= float((test.p_value < 0.05).mean()) <= 0.07
    naive = diebold_mariano(*sums, horizon=[1] * 3000)
    assert float((naive.p_value < 0.05).mean()) > 0.2


def test_diebold_mariano_where_it_is_undefined():
    a = dated(np.random.default_rng(0).standard_normal((6, 7)))
    assert np.isnan(diebold_mariano(a, a).p_value).all()
    later = diebold_mariano(a, 2 * a.roll(init_time=1)).p_value
    assert np.isnan(later[-2:]).all()  # six and seven steps ahead of six initial times
    alternating = dated(np.sqrt(2.0 + np.cos(np.pi * np.arange(40))[:, None] + np.zeros((1, 2))))
    # the sum of autocovariances is negative
    assert np.isnan(diebold_mariano(alternating, dated(np.ones((40, 2)))).p_value[1]).all()
    with pytest.raises(ValueError, match="paired"):
        diebold_mariano(a, a[1:])
    undated = sums_of_errors(np.ones((9, 2)))
    with pytest.raises(ValueError, match=r"expected horizon=…"):
        diebold_mariano(undated, undated)
    wrong = r"got horizon \[0\], expected a number of steps >= 1 for each of 7"
    with pytest.raises(ValueError, match=wrong):
        diebold_mariano(a, a, horizon=[0])
