"""Ridge from streamed moments: the textbook's, whatever the chunks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciwm.readout.ridge import Moments, choose_strength, fit_pooled, fit_ridge


def moments_of(x, y, chunks=1):
    moments = Moments.zeros(groups=x.shape[1], features=x.shape[2], targets=y.shape[2])
    parts = (torch.from_numpy(values).chunk(chunks) for values in (x, y))
    for a, b in zip(*parts, strict=True):
        moments.add(a, b)
    return moments


def data(samples=200, groups=3, features=5, targets=2, seed=0, noise=0.5):
    """Correlated features of very different units, and targets that depend on them."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(groups, features, features))
    x = np.einsum("sgf,gfh->sgh", rng.normal(size=(samples, groups, features)), mixing)
    x *= 10.0 ** rng.uniform(-2, 2, features)
    x += rng.normal(size=features)
    weight = rng.normal(size=(groups, features, targets))
    y = np.einsum("sgf,gft->sgt", (x - x.mean(0)) / x.std(0), weight)
    return x, y + noise * rng.normal(size=y.shape) + 3


@pytest.mark.parametrize("strength", [0.0, 1e-2, 1.0, 30.0])
def test_equals_the_normal_equations_on_standardized_features(strength):
    x, y = data()
    (ridge,) = fit_ridge(moments_of(x, y), [strength])
    for g in range(3):
        scale = x[:, g].std(0)
        z, target = (x[:, g] - x[:, g].mean(0)) / scale, y[:, g] - y[:, g].mean(0)
        # Mean squared error plus strength times the squared weights, as scikit-learn's
        # Ridge(alpha=n * strength).
        penalty = len(z) * strength * np.eye(5)
        weight = np.linalg.solve(z.T @ z + penalty, z.T @ target) / scale[:, None]
        atol = 1e-4 * np.abs(weight).max()
        np.testing.assert_allclose(ridge.weight[g], weight, rtol=1e-3, atol=atol)
        expected = (x[:, g] - x[:, g].mean(0)) @ weight + y[:, g].mean(0)
        np.testing.assert_allclose(ridge(torch.from_numpy(x))[:, g], expected, rtol=1e-3, atol=2e-3)


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(0, 100))
def test_chunked_equals_whole(chunks, seed):
    x, y = data(seed=seed, samples=90)
    whole, parts = moments_of(x, y), moments_of(x, y, chunks)
    assert whole.count == parts.count == 90
    for name in ("x", "y", "xx", "xy", "yy"):
        got, want = getattr(parts, name), getattr(whole, name)
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-8)
    a, b = (fit_ridge(m, [0.1])[0] for m in (whole, parts))
    torch.testing.assert_close(a.weight, b.weight, rtol=1e-4, atol=1e-6)


def test_squared_error_from_moments_equals_the_direct_one():
    x, y = data()
    fresh = data(seed=0, samples=400)
    x_held, y_held = fresh[0][200:], fresh[1][200:]
    for ridge in fit_ridge(moments_of(x, y), [1e-3, 1.0]):
        for a, b in ((x, y), (x_held, y_held)):
            direct = (ridge(torch.from_numpy(a)).double() - torch.from_numpy(b)).square().mean(0)
            got = ridge.squared_error(moments_of(a, b))
            torch.testing.assert_close(got, direct, rtol=1e-3, atol=1e-4)


def test_selecting_features_is_fitting_fewer():
    x, y = data()
    (direct,) = fit_ridge(moments_of(x[:, :, :3], y), [0.1])
    (ridge,) = fit_ridge(moments_of(x, y).select(slice(0, 3)), [0.1])
    torch.testing.assert_close(ridge.weight, direct.weight)
    torch.testing.assert_close(ridge.offset, direct.offset)


def test_constant_and_repeated_features_do_no_harm():
    x, y = data()
    (plain,) = fit_ridge(moments_of(x, y), [1e-2])
    with_constant = np.concatenate([x, np.full((200, 3, 1), 7.0), np.zeros((200, 3, 1))], axis=-1)
    (ridge,) = fit_ridge(moments_of(with_constant, y), [1e-2])
    assert (ridge.weight[:, -2:] == 0).all()
    got, want = ridge(torch.from_numpy(with_constant)), plain(torch.from_numpy(x))
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    (twice,) = fit_ridge(moments_of(np.concatenate([x, x], axis=-1), y), [0.0])
    assert torch.isfinite(twice.weight).all()
    only = np.zeros((200, 3, 1))
    (mean,) = fit_ridge(moments_of(only, y), [1e-2])
    np.testing.assert_allclose(mean(torch.from_numpy(only))[0], y.mean(0), rtol=1e-5)


@pytest.mark.parametrize("value", [1000.0, 1000.1, -3e5])
def test_a_constant_far_from_zero_gets_no_weight(value):
    x, y = data(samples=5000)
    constant = np.concatenate([x, np.full((5000, 3, 1), value)], axis=-1)
    (ridge,) = fit_ridge(moments_of(constant, y, 50), [1e-6])
    assert (ridge.weight[:, -1] == 0).all()


def test_the_strength_with_the_smallest_validation_error_is_chosen():
    x, y = data(samples=60, features=20, noise=3.0)
    ridges = fit_ridge(moments_of(x[:30], y[:30]), [1e-4, 1e-2, 1.0, 100.0])
    held, (inputs, wanted) = moments_of(x[30:], y[30:]), map(torch.from_numpy, (x[30:], y[30:]))
    squared = [(ridge(inputs).double() - wanted).square() for ridge in ridges]
    errors = [float(error.mean()) for error in squared]
    assert choose_strength(ridges, held) is ridges[int(np.argmin(errors))]
    assert 0 < int(np.argmin(errors)) < 3  # neither the weakest nor the strongest
    # Weights can turn the choice to what one group prefers.
    alone = torch.zeros(3, 2, dtype=torch.float64)
    alone[1, 0] = 1
    own = [float(error[:, 1, 0].mean()) for error in squared]
    assert choose_strength(ridges, held, weight=alone) is ridges[int(np.argmin(own))]


def test_a_small_group_of_features_is_penalised_as_if_it_were_as_many():
    options = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
    x = torch.randn(400, 1, 9, **options) * torch.linspace(0.5, 3, 9)
    y = x[..., :2].sum(-1, keepdim=True) + x[..., 8:] + torch.randn(400, 1, 1, **options)
    moments = Moments.zeros(groups=1, features=9, targets=1)
    moments.add(x, y)
    (got,) = fit_ridge(moments, [0.7], first=8)
    centred, target = x[:, 0] - x[:, 0].mean(0), y[:, 0] - y[:, 0].mean(0)
    penalty = 0.7 * centred.var(0, correction=0)
    penalty[8] /= 8  # one feature stands for eight
    square, cross = centred.T @ centred / 400, centred.T @ target / 400
    expected = torch.linalg.solve(square + penalty.diag(), cross)
    torch.testing.assert_close(got.weight[0].double(), expected, rtol=1e-4, atol=1e-5)
    (plain,), (whole,) = fit_ridge(moments, [0.7]), fit_ridge(moments, [0.7], first=9)
    assert torch.equal(plain.weight, whole.weight)  # without a second group nothing changes


def test_too_few_samples():
    x, y = data()
    with pytest.raises(ValueError, match=r"got 1 sample\(s\)"):
        fit_ridge(moments_of(x[:1], y[:1]), [1.0])


def test_pooled_moments_are_those_of_departures_from_the_means_of_groups():
    x, y = data(samples=40)
    got = moments_of(x, y).pooled()
    apart = [np.concatenate((v - v.mean(0)).swapaxes(0, 1))[:, None] for v in (x, y)]
    want = moments_of(*apart)
    assert got.count == 120
    atol = 1e-8 * float(want.xx.abs().max())
    for name in ("x", "y", "xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), atol=atol, rtol=1e-9)


def test_moments_without_what_was_read_are_those_of_the_rest():
    x, y = data(samples=40)
    weight = np.random.default_rng(1).normal(size=(1, 5, 2)).astype(np.float32)
    got = moments_of(x, y).without(torch.from_numpy(weight))
    want = moments_of(x, y - np.einsum("sgf,ft->sgt", x, weight[0]))
    for name in ("x", "y", "xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-7, atol=1e-6)


def alike(samples, *, apart, seed=0):
    """Groups whose targets depend on features in the same way, but for ``apart``.

    Their means are their own.
    """
    weights = np.random.default_rng(5).normal(size=(20, 6, 2))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 20, 6))
    y = np.einsum("sgf,gft->sgt", x, weights[:1] + apart * weights) + np.arange(20)[:, None]
    return moments_of(x, y + rng.normal(size=y.shape))


@pytest.mark.parametrize(
    ("samples", "apart", "ratio"), [(10, 0.0, 0.6), (10, 0.3, 0.9), (5000, 1.0, 1.001)]
)
def test_groups_learn_from_each_other_where_they_are_alike_and_lose_nothing_where_not(
    samples, apart, ratio
):
    strengths = [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0]
    train, validation, test = (
        alike(n, apart=apart, seed=k) for k, n in enumerate((samples, 500, 2000))
    )
    alone = choose_strength(fit_ridge(train, strengths), validation)
    together = fit_pooled(train, validation, strengths)
    error, of_alone = (float(r.squared_error(test).mean()) for r in (together, alone))
    assert error < ratio * of_alone


def test_groups_that_are_alike_get_the_shared_weights_and_their_own_offsets():
    ridge = fit_pooled(alike(10, apart=0.0), alike(5000, apart=0.0, seed=1), [1e-3, 0.1])
    assert ridge.strength == np.inf
    assert (ridge.weight == ridge.weight[:1]).all()
    np.testing.assert_allclose(ridge.offset, np.arange(20)[:, None].repeat(2, 1), atol=1.5)


def test_errors_that_weigh_nothing_choose_nothing():
    train, validation = alike(12, apart=0.5), alike(400, apart=0.5, seed=1)
    strengths, errors = [1e-2, 1.0, 30.0], []
    for group in range(20):
        only = torch.zeros(20, 2, dtype=torch.float64)
        only[group] = 1
        ridges = (fit_pooled(train, validation, strengths, weight=w) for w in (only, 1 - only))
        errors.append([float(r.squared_error(validation)[group].mean()) for r in ridges])
    assert np.mean([a for a, _ in errors]) < np.mean([b for _, b in errors])
