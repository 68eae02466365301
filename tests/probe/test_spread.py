"""Ensembles: as wide as their errors, sharper than a single forecast, the same every time."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr

import sciwm
from sciwm import testing
from sciwm.config import ConfigError, load_config
from sciwm.probe.fit import fit_probes
from sciwm.probe.samples import readout_samples, state_samples
from sciwm.probe.spread import _calibrated, _Found
from sciwm.readout.ridge import Ridge
from sciwm.store.prepare import open_training_store
from sciwm.train.fit import build_world, fit_world
from sciwm.world.rollout import predicted_latents
from tests.worlds import config, molecule_world, open_gates, series_climatology, store

LEADS, MEMBERS = (1, 3), 16


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return store(testing.small_climate(years=3), tmp_path_factory.mktemp("climate"))


@pytest.fixture(scope="module")
def world(path, tmp_path_factory):
    """A trained and probed world model with noise."""
    sizes = {"dropout": 0.0, "noise_dim": 8}
    steps = {"steps": 150, "batch_size": 32, "learning_rate": 3e-3, "validate_every": 150}
    settings = config(model=sizes, objective={"rollout": 3}, train=steps)
    made = build_world(settings, path)
    assert fit_world(made, path, settings, folder=tmp_path_factory.mktemp("run"), progress=False)
    return fit_probes(made, open_training_store(path), probe=settings.probe, lead_steps=LEADS)


@pytest.fixture(scope="module")
def ds():
    return testing.small_climate(years=3)


@pytest.fixture(scope="module")
def ensemble(world, ds):
    """Of the last fifth of the record, the test block."""
    return world.forecast(ds, init_times=ds.time.values[-200:-10], members=MEMBERS)


def test_members_are_as_far_apart_as_they_are_wrong(world, ensemble, ds):
    """On the test block: calibrated on another, fairer than one forecast, and around it."""
    single = world.forecast(ds, init_times=ensemble.init_time.values)
    assert ensemble.z500.dims == ("init_time", "lead_time", "number", "latitude", "longitude")
    np.testing.assert_array_equal(ensemble.number, np.arange(MEMBERS))
    truth = ds.sel(time=ensemble.init_time + ensemble.lead_time)
    for name in ("z500", "t850"):
        mean = ensemble[name].mean("number")
        over = ("init_time", "latitude", "longitude")
        error = ((mean - truth[name]) ** 2).mean(over) ** 0.5
        spread = (ensemble[name].var("number", ddof=1).mean(over) * (1 + 1 / MEMBERS)) ** 0.5
        assert ((spread / error > 0.8) & (spread / error < 1.2)).all(), name
        pairs = abs(ensemble[name] - ensemble[name].rename(number="other"))
        apart = pairs.sum(("number", "other")) / (2 * MEMBERS * (MEMBERS - 1))
        fair = (abs(ensemble[name] - truth[name]).mean("number") - apart).mean(over)
        assert (fair < 0.85 * abs(single[name] - truth[name]).mean(over)).all(), name
        assert (((mean - single[name]) ** 2).mean(over) ** 0.5 < 0.65 * spread).all(), name


def test_spread_grows_with_the_lead(ensemble):
    variance = ensemble.z500.var("number").mean(("init_time", "latitude", "longitude"))
    assert float(variance[1]) > 1.5 * float(variance[0])


def test_members_do_not_depend_on_the_batch_or_on_the_leads_asked_for(
    world, ensemble, ds, tmp_path
):
    some = ensemble.init_time.values[[3, 7]]
    world.save(tmp_path)
    for model in (world, sciwm.load(tmp_path)):
        again = model.forecast(ds, init_times=some, members=MEMBERS, batch_size=1)
        xr.testing.assert_allclose(again, ensemble.sel(init_time=some), rtol=1e-4)
    for k, lead in enumerate(["1 day", "3 days"]):
        few = world.forecast(ds, init_times=some, members=5, lead_times=lead)
        same = ensemble.sel(init_time=some).isel(lead_time=[k], number=slice(5))
        xr.testing.assert_allclose(few, same, rtol=1e-4)


def test_states_are_read_out_of_their_own_latents(world, path):
    """The decoder behind the spread is next to perfect.

    A latent has as many numbers as its patch.
    """
    sample = next(state_samples(world, open_training_store(path), which="test"))
    assert sample.latents.shape == (128, 1, 6, 32)
    ridge = world.readouts["spread"].fields[0]
    scaled = torch.einsum("std,tdc->stc", sample.latents[:, 0], ridge.weight)
    for cell in range(sample.later.shape[-1]):
        r = np.corrcoef(scaled[:, 2, cell], sample.later[:, 0, 2, cell])[0, 1]
        assert r > 0.95, cell


def test_calibration_by_hand(world, path):
    """On the validation block the members' variance equals the squared error of each channel."""
    found = {"error": torch.zeros(2, 2), "variance": torch.zeros(2, 2)}
    residual, spread = world.readouts["residual"], world.readouts["spread"]
    area, asked = world.tokenizer.area[:, None], {"which": "validation", "lead_steps": LEADS}
    for sample in readout_samples(world, open_training_store(path), members=16, **asked):
        for lead in range(2):
            middle = sample.latents[:, lead]
            away = (sample.members[:, :, lead] - middle[:, None]).flatten(0, 1)
            read = spread.read_fields(lead, away, away[..., :0]).unflatten(0, (-1, 16))
            forecast = residual.read_fields(lead, middle, sample.initial)
            error = forecast - sample.later[:, lead]
            for name, square in (("variance", read.var(1)), ("error", error.square())):
                found[name][lead] += (square * area).sum((0, 1)).unflatten(0, (2, 16)).sum(1)
    torch.testing.assert_close(found["variance"], found["error"], rtol=1e-3, atol=0)


@pytest.mark.parametrize(("count", "share"), [(30, 0.5), (270, 0.9)])
def test_a_cell_has_a_factor_of_its_own_the_more_of_it_was_observed(count, share):
    """Two patches of two cells of one channel, by hand.

    Error over variance is 4 and 1 in the first patch, 1 and 0 in the second.
    """
    found = _Found(
        count,
        mean=torch.full((2, 2), 0.5 * count),
        variance=count * torch.tensor([[1.0, 2.0], [4.0, 3.0]]),
        squared_error=count * torch.tensor([[4.0, 2.0], [4.0, 0.0]]),
    )
    ridge = Ridge(torch.ones(2, 3, 2), torch.zeros(2, 2), 0.0)
    alike = {"group": torch.tensor([0, 0]), "weight": torch.ones(2, 1)}
    made = _calibrated(ridge, found, **alike)
    square = share * torch.tensor([[4.0, 1.0], [1.0, 0.0]]) + (1 - share) * 1.0  # 10 over 10 in all
    torch.testing.assert_close(made.weight, square.sqrt()[:, None].expand(2, 3, 2))
    torch.testing.assert_close(made.offset, -0.5 * square.sqrt())
    assert float((square * found.variance).sum()) == pytest.approx(float(found.squared_error.sum()))
    one = Ridge(ridge.weight[:1], ridge.offset[:1], ridge.strength)
    shared = _calibrated(one, found, **alike)
    torch.testing.assert_close(shared.weight, torch.ones(1, 3, 2))


def test_series_have_members_too(tmp_path):
    _, path = molecule_world(tmp_path)
    settings = config(model={"noise_dim": 4}, probe={"targets": ["phi", "psi"]})
    world = build_world(settings, path, series_climatology=series_climatology(path))
    open_gates(world.network, std=0.2)
    world = fit_probes(world, open_training_store(path), probe=settings.probe, lead_steps=(1, 5))
    frames = testing.double_well(num_trajectories=5, num_frames=120)
    last = frames.isel(time=np.flatnonzero(frames["segment"].values == 4))
    made = world.forecast(last, members=8)
    assert made.torsions.dims == ("init_time", "lead_time", "number", "component")
    assert made.torsions.sizes["number"] == 8
    assert np.isfinite(made.torsions).all()
    assert float(made.torsions.var("number").min()) > 0


def test_what_cannot_be_an_ensemble_is_refused(world, path, ds):
    plain = build_world(config(), path)
    probed = fit_probes(plain, open_training_store(path), probe=config().probe, lead_steps=LEADS)
    assert "spread" not in probed.readouts
    with pytest.raises(ValueError, match=r"got members = 4, expected 0, .* model.noise_dim"):
        probed.forecast(ds, members=4)
    with pytest.raises(ValueError, match="got members = 4 with readout 'latent'"):
        world.forecast(ds, members=4, readout="latent")
    with pytest.raises(ValueError, match="expected at least 2"):
        world.forecast(ds, members=1)
    message = r"got readout 'spread', expected one of \['latent', 'local_linear', 'residual'\]"
    with pytest.raises(ValueError, match=message):
        world.forecast(ds, readout="spread")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{model: {noise_dim: 8}, objective: {kind: supervised}}",
            r"model.noise_dim = 8, expected 0 with objective.kind = 'supervised'",
        ),
        ("forecast: {members: 8}", r"forecast.members = 8, expected 0 with model.noise_dim = 0"),
        ("{model: {noise_dim: 8}, forecast: {members: 1}}", r"forecast.members = 1"),
    ],
)
def test_what_cannot_be_configured_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(text)


def test_without_members_noise_is_none(world, path):
    """The single forecast is that of no noise, whether members are made beside it or not."""
    state = open_training_store(path)["state"]
    index = np.arange(50, 60)
    (alone,) = predicted_latents(world, state, index, LEADS)
    (beside,) = predicted_latents(world, state, index, LEADS, members=3)
    assert alone.members.shape[1] == 0
    torch.testing.assert_close(alone.latents, beside.latents, rtol=1e-4, atol=1e-5)
    assert float((beside.members - beside.latents[:, None]).abs().mean()) > 0.01
    other = dataclasses.replace(world, seed=1)
    (changed,) = predicted_latents(other, state, index, LEADS, members=3)
    assert not torch.allclose(changed.members, beside.members)
