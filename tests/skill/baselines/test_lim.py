import warnings

import numpy as np
import pytest
import scipy.linalg
import xarray as xr
from truths import DAY, days, grid, weather

from sciwm.skill.baselines.eofs import leading_eofs
from sciwm.skill.baselines.folds import training_folds
from sciwm.skill.baselines.lim import fit_lim, lim_forecast
from sciwm.skill.baselines.matrix import fit_layout
from sciwm.skill.baselines.simple import fit_reference

PROPAGATOR = np.array(
    [[0.8, 0.3, 0.0, 0.0], [-0.3, 0.8, 0.0, 0.0], [0.0, 0.1, 0.6, 0.0], [0.0, 0.0, 0.2, 0.4]]
)


def linear_system(count=20000, *, seed=0, scale=(1.0, 5.0, 2.0, 0.5)):
    """x(t+1) = A x(t) + noise; four components of a molecule-like state."""
    random = np.random.default_rng(seed)
    x = np.zeros((count, 4))
    for i in range(1, count):
        x[i] = PROPAGATOR @ x[i - 1] + 0.3 * random.standard_normal(4)
    time = xr.DataArray(np.arange(float(count)), dims="time", attrs={"units": "ps"})
    names = ["phi_sin", "phi_cos", "psi_sin", "psi_cos"]
    return xr.Dataset(
        {"torsions": (("time", "component"), 3.0 + x * np.array(scale))},
        coords={"time": time, "component": names, "segment": ("time", np.zeros(count, "int32"))},
    )


def test_a_known_linear_system_is_recovered():
    observed = linear_system()
    time = np.arange(20000)
    reference = fit_reference(
        observed, train=time < 15000, validation=(time >= 15000) & (time < 18000)
    )
    lim = fit_lim(reference, [1.0, 4.0])
    assert [p.eofs for p in lim.propagators] == [4, 4]
    scale = lim.layout.factor
    for p, steps in zip(lim.propagators, (1, 4), strict=True):
        # rows: x_next = x (V^T G V) in weighted coordinates
        weighted = lim.patterns.T @ p.matrix @ lim.patterns
        physical = (np.diag(scale) @ weighted @ np.diag(1 / scale)).T
        stretch = np.array([1.0, 5.0, 2.0, 0.5])
        got = physical / stretch[:, None] * stretch[None, :]
        np.testing.assert_allclose(got, np.linalg.matrix_power(PROPAGATOR, steps), atol=0.05)
        if steps == 1:  # of a regression on 15000 pairs, in each of its 16 numbers
            stationary = scipy.linalg.solve_discrete_lyapunov(PROPAGATOR, 0.09 * np.eye(4))
            sampling_error = np.sqrt(0.09 * np.diag(np.linalg.inv(stationary)) / 15000)
            assert (np.abs(got - PROPAGATOR) < 4 * sampling_error).all()
            assert (sampling_error < 0.011).all()
    forecast = lim_forecast(lim, reference, observed, observed.time.values[18000:19990]).torsions
    truth = observed.torsions.values
    covariance = scipy.linalg.solve_discrete_lyapunov(PROPAGATOR, 0.09 * np.eye(4))
    for k, steps in enumerate((1, 4)):
        power = np.linalg.matrix_power(PROPAGATOR, steps)
        left = np.diag(covariance - power @ covariance @ power.T)
        unavoidable = left * np.array([1.0, 25.0, 4.0, 0.25])
        error = ((forecast.values[:, k] - truth[18000 + steps : 19990 + steps]) ** 2).mean(0)
        np.testing.assert_allclose(error, unavoidable, rtol=0.12)


def test_leading_eofs_agree_with_the_singular_value_decomposition():
    random = np.random.default_rng(0)
    for rows, cells in ((300, 40), (40, 300)):
        signal = random.standard_normal((rows, 8)) @ random.standard_normal((8, cells))
        matrix = 3 * signal + 0.1 * random.standard_normal((rows, cells))
        patterns, share = leading_eofs(matrix, 6)
        _, singular, right = np.linalg.svd(matrix, full_matrices=False)
        np.testing.assert_allclose(share, singular[:6] ** 2 / (singular**2).sum())
        np.testing.assert_allclose(np.abs((patterns * right[:6]).sum(1)), 1.0)


def test_large_states_use_a_randomized_decomposition_as_good_as_the_exact_one(monkeypatch):
    random = np.random.default_rng(0)
    matrix = random.standard_normal((200, 150)) * np.linspace(3, 0.1, 150) ** 2
    exact, share = leading_eofs(matrix, 5)
    monkeypatch.setattr("sciwm.skill.baselines.eofs._EXACT", 10)
    randomized, share_randomized = leading_eofs(matrix, 5)
    np.testing.assert_allclose(share_randomized, share, rtol=1e-3)
    np.testing.assert_allclose(np.linalg.svd(exact @ randomized.T)[1], 1.0, atol=1e-3)


def test_every_channel_has_unit_variance_and_land_is_left_out():
    observed = weather(900)
    observed["z500"] = observed.t850 * 100.0
    observed["z500"][:, 0, 0] = np.nan
    reference = fit_reference(observed, train=slice("2000", "2001"), harmonics=1)
    layout, z = fit_layout(reference.anomaly)
    assert z.shape[1] == 23
    variance = np.bincount(layout.channel, (z**2).mean(0))
    np.testing.assert_allclose(variance, 1.0)
    back = layout.to_dataset(layout.scatter(z), dims=("time",))
    np.testing.assert_allclose(back.t850, reference.anomaly.t850)
    np.testing.assert_allclose(back.z500[:, 1], reference.anomaly.z500[:, 1])
    assert (back.z500[:, 0, 0] == 0).all()


def test_levels_are_channels_of_their_own():
    one = weather(900).t850
    level = xr.DataArray([500.0, 850.0], dims="level", name="level")
    both = xr.concat([one, one * 50], level).transpose("time", "level", ...)
    reference = fit_reference(both.to_dataset(name="t"), train=slice("2000", "2001"), harmonics=1)
    layout, z = fit_layout(reference.anomaly)
    np.testing.assert_allclose(np.bincount(layout.channel, (z**2).mean(0)), [1.0, 1.0])
    np.testing.assert_allclose(z[:, :12], z[:, 12:])


def waves(count=2500, *, rows=4, columns=16, seed=0):
    """A damped wave that travels east, with noise: persistence fails, a linear model does not."""
    random = np.random.default_rng(seed)
    longitude = np.arange(columns) * 360 / columns
    amplitude = np.zeros(count, complex)
    turn = 0.9 * np.exp(1j * 0.7)
    for i in range(1, count):
        shock = random.standard_normal() + 1j * random.standard_normal()
        amplitude[i] = turn * amplitude[i - 1] + shock
    wave = amplitude[:, None, None] * np.exp(1j * np.deg2rad(2 * longitude))[None, None]
    field = wave.real * np.array([1, 2, 2, 1.0])[None, :, None]
    noise = 0.2 * random.standard_normal((count, rows, columns))
    return grid(field + noise, time=days(count), longitude=longitude)


def test_a_travelling_wave_is_forecast_and_choices_are_made_on_the_validation_block():
    observed = waves()
    reference = fit_reference(
        observed,
        train=slice("2000", "2003"),
        validation=slice("2004", "2004"),
        climatology="constant",
    )
    lim = fit_lim(reference, np.array([1, 3]) * DAY, eofs=(1, 2, 30))
    assert [p.eofs for p in lim.propagators] == [2, 2]
    assert lim.variance_fraction[:2].sum() > 0.9
    start = np.arange(2200, 2400)
    forecast = lim_forecast(lim, reference, observed, observed.time.values[start]).t850
    truth = observed.t850.values
    for k, lead in enumerate((1, 3)):
        error = ((forecast.values[:, k] - truth[start + lead]) ** 2).mean()
        variance = (truth[start + lead] ** 2).mean()
        assert error / variance == pytest.approx(1 - 0.81**lead, abs=0.1)
        assert error / variance == pytest.approx(lim.propagators[k].validation_nmse, abs=0.12)


def test_what_the_eofs_leave_out_is_damped_by_its_own_slope():
    observed = weather(1500, phi=0.9, rows=8, columns=8)
    reference = fit_reference(
        observed, train=slice("2000", "2002"), validation=slice("2003", "2003"), harmonics=1
    )
    lim = fit_lim(reference, [2 * DAY], eofs=(5,))
    (p,) = lim.propagators
    layout, z = fit_layout(reference.anomaly)
    residual = z - z @ lim.patterns.T @ lim.patterns
    expected = (residual[:-2] * residual[2:]).sum(0) / (residual[:-2] ** 2).sum(0)
    np.testing.assert_allclose(p.damping, expected, rtol=1e-8)
    assert layout.keep.all()
    init = reference.validation.time.values[:50]
    whole = lim_forecast(lim, reference, observed, init).t850
    start = np.flatnonzero(observed.time.values == init[0])[0] + np.arange(50)
    error = ((whole.values[:, 0] - observed.t850.values[start + 2]) ** 2).mean()
    # 1 − 0.9⁴ = 0.34 at best; the textbook LIM with 5 of 64 equal EOFs stays near 0.95
    assert error < 0.6


def test_truncations_above_the_sample_are_skipped_with_a_notice():
    observed = weather(1200, rows=8, columns=8)
    reference = fit_reference(
        observed, train=slice("2000", "2001"), validation=slice("2002", "2002"), harmonics=1
    )
    with pytest.warns(UserWarning, match=r"truncations \[500\] skipped: .* at most 64"):
        lim = fit_lim(reference, [DAY], eofs=(10, 500))
    assert lim.patterns.shape[0] == 10
    with pytest.warns(UserWarning, match="skipped"):
        lim = fit_lim(reference, [DAY], eofs=(500,))
    assert lim.patterns.shape[0] == 64


def test_growing_modes_are_reported():
    random = np.random.default_rng(0)
    count = 300
    growth = 1.02 ** np.arange(count)[:, None, None]
    pattern, noise = random.standard_normal((1, 8, 8)), random.standard_normal((count, 8, 8))
    observed = grid(growth * pattern + 0.01 * noise, time=days(count))
    reference = fit_reference(
        observed,
        train=np.arange(count) < 220,
        validation=np.arange(count) >= 220,
        climatology="constant",
    )
    with pytest.warns(UserWarning, match=r"\|eigenvalue\| 1.0\d+ ≥ 1"):
        fit_lim(reference, [DAY], eofs=(1,))


def test_without_a_validation_block_the_choice_is_made_on_fifths_in_turn():
    observed = waves()
    reference = fit_reference(observed, train=slice("2000", "2004"), climatology="constant")
    lim = fit_lim(reference, [DAY, 3 * DAY], eofs=(1, 2, 30))
    assert [p.eofs for p in lim.propagators] == [2, 2]
    assert all(np.isfinite(p.validation_nmse) for p in lim.propagators)
    # refitted on all: the propagator is the regression over the whole block
    _, z = fit_layout(reference.anomaly)
    p = z @ lim.patterns.T
    expected = np.linalg.lstsq(p[:-1], p[1:], rcond=None)[0]
    np.testing.assert_allclose(lim.propagators[0].matrix, expected, rtol=1e-6, atol=1e-9)


def test_the_choice_without_a_validation_block_is_the_least_mean_error_of_the_folds():
    observed = weather(1500, rows=8, columns=8)
    reference = fit_reference(observed, train=slice("2000", "2003"), harmonics=1)
    folds = training_folds(reference, 2)
    assert len(folds) == 5
    held = np.concatenate([fold.validation.time.values for fold in folds])
    np.testing.assert_array_equal(held, reference.anomaly.time.values)
    for fold in folds:
        apart = np.abs(fold.anomaly.time.values[:, None] - fold.validation.time.values[None]).min()
        assert apart == 3 * DAY
    lead = [2 * DAY]

    def error(fold, k):
        return fit_lim(fold, lead, eofs=(k,)).propagators[0].validation_nmse

    mean = {k: np.mean([error(fold, k) for fold in folds]) for k in (5, 20, 60)}
    (p,) = fit_lim(reference, lead, eofs=(5, 20, 60)).propagators
    assert p.eofs == min(mean, key=mean.get)
    assert p.validation_nmse == pytest.approx(mean[p.eofs])
    short = fit_reference(weather(400), train=slice("2000", "2000"), climatology="constant")
    assert len(training_folds(short, 60)) == 5
    assert len(training_folds(short, 80)) == 1


def test_negative_eigenvalues_are_reported():
    """A component that flips from step to step has no continuous-time model.

    The forecast to whole steps is right all the same.
    """
    random = np.random.default_rng(0)
    flip, x = np.array([-0.7, 0.8]), np.zeros((4000, 2))
    for i in range(1, 4000):
        x[i] = flip * x[i - 1] + random.standard_normal(2)
    time = xr.DataArray(np.arange(4000.0), dims="time", attrs={"units": "ps"})
    coords = {"time": time, "component": ["a", "b"], "segment": ("time", np.zeros(4000, "int32"))}
    observed = xr.Dataset({"x": (("time", "component"), x)}, coords)
    index = np.arange(4000)
    reference = fit_reference(observed, train=index < 3000, validation=index >= 3000)
    one = r"LIM with 2 EOFs has 1 negative real eigenvalue \(down to -0\.[67]\d?\)"
    with pytest.warns(UserWarning, match=f"{one}: .* no real logarithm"):
        lim = fit_lim(reference, [1.0])
    values = sorted(np.linalg.eigvals(lim.propagators[0].matrix))
    np.testing.assert_allclose(values, [-0.7, 0.8], atol=0.05)


def test_blocks_too_short_are_refused():
    observed = weather(900, rows=8, columns=8)
    short = fit_reference(
        observed,
        train=slice("2000", "2001"),
        validation=slice("2002-01-01", "2002-01-04"),
        harmonics=1,
    )
    with pytest.raises(ValueError, match="validation block without times 10 steps apart"):
        fit_lim(short, [10 * DAY], eofs=(5,))
    with pytest.raises(ValueError, match="training pairs at the longest lead"):
        fit_lim(short, [900 * DAY], eofs=(5,))
    still = fit_reference(observed * 0.0, train=slice("2000", "2001"), harmonics=1)
    with pytest.raises(ValueError, match="any varying"):
        fit_layout(still.anomaly)


def test_forecasts_are_lazy_and_blocks_do_not_matter(monkeypatch):
    observed = waves(1500).chunk(time=200)
    reference = fit_reference(
        observed,
        train=slice("2000", "2002"),
        validation=slice("2003", "2003"),
        climatology="constant",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lim = fit_lim(reference, [DAY, 2 * DAY], eofs=(2, 8))
    init = observed.time.values[1470:1490]
    whole = lim_forecast(lim, reference, observed, init).t850
    assert whole.chunks is not None
    monkeypatch.setattr("sciwm.skill.baselines.matrix._BLOCK", 300)
    small = lim_forecast(lim, reference, observed, init).t850
    assert len(small.chunks[0]) > 1
    np.testing.assert_allclose(small, whole)
