"""Simulations: the latents of forecasts, by one readout, however far and in whatever parts."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr

import sciwm
from sciwm import testing
from sciwm.config import Config, ModelConfig, ObjectiveConfig, ProbeConfig
from sciwm.model.jepa import without_dynamics
from sciwm.probe.fit import fit_probes
from sciwm.store.prepare import open_training_store
from sciwm.train.fit import build_world
from sciwm.world import model as world_model
from sciwm.world.core import Core
from sciwm.world.rollout import predicted_latents
from tests.worlds import open_gates, store

SIZES = {"patch_size": [4, 4], "width": 16, "encoder_width": 16, "predictor_blocks": 1, "reach": 1}


@pytest.fixture(scope="module")
def ds():
    return testing.small_climate(years=2)


@pytest.fixture(scope="module")
def world(ds, tmp_path_factory):
    """Untrained, with dynamics that move, two strides, and noise."""
    path = store(ds, tmp_path_factory.mktemp("climate"))
    settings = Config(
        model=ModelConfig(**SIZES, noise_dim=4),
        objective=ObjectiveConfig(lead_steps=[1, 3]),
        probe=ProbeConfig(strengths=[0.001, 1.0]),
    )
    made = build_world(settings, path)
    open_gates(made.network, std=0.03)
    return fit_probes(made, open_training_store(path), probe=settings.probe, lead_steps=(1, 6))


def read(world, latents, time):
    """Fields of latents ``[init, member, token, dim]`` at valid times, by the readout of states."""
    flat = latents.flatten(0, 1)
    cells = world.readouts["state"].read_fields(0, flat, flat[..., :0])
    states = world.tokenizer.fields(cells).unflatten(0, latents.shape[:2])
    dims = ("init_time", "number", "channel", "latitude", "longitude")
    at = xr.DataArray(time, dims="init_time")
    return world.statistics.restore(xr.DataArray(states.numpy(), dims=dims), at)


@pytest.mark.parametrize("members", [0, 3])
def test_latents_are_those_of_forecasts(world, ds, members):
    """Lead for lead, and member for member, whatever the parts they come in."""
    index, leads = np.array([300, 301, 420]), [3, 6, 12]
    made = world.simulate(ds, ds.time.values[index], length=12, members=members, batch_size=4)
    assert made.z500.dims[:2] == ("init_time", "lead_time")
    np.testing.assert_array_equal(made.lead_time, np.array([3, 6, 9, 12], "m8[D]"))
    (initial,) = predicted_latents(world, world.states(ds), index, leads, members=members)
    latents = initial.members if members else initial.latents[:, None]
    for k, lead in enumerate(leads):
        days = np.timedelta64(lead, "D")
        wanted = read(world, latents[:, :, k], ds.time.values[index] + days)
        got = made.sel(lead_time=days)
        got = got if members else got.expand_dims("number", 1)
        for name in ("z500", "t850"):
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5)
    if members:
        assert float(made.z500.std("number").mean()) > 1


def test_a_stride_can_be_chosen(world, ds):
    once = world.simulate(ds, ds.time.values[[300]], length="6 days", every="6 days")
    slow = world.simulate(ds, ds.time.values[[300]], length=6, every=6, stride=1)
    (initial,) = predicted_latents(world, world.states(ds), np.array([300]), [6])
    six = read(world, initial.latents, ds.time.values[[306]])
    np.testing.assert_allclose(once.t850[:, 0], six.t850[:, 0], rtol=1e-5)
    assert abs(slow.t850 - once.t850).max() > 0.01


def test_a_year_beyond_the_data_in_bounded_memory(world, ds, monkeypatch):
    """Few fields at once; the calendar of a time is worked out when it is reached."""
    asked = []

    def known(self, condition, lead):
        asked.append(condition.shape[:2])
        return Core.known(self, condition, lead)

    monkeypatch.setattr(world_model.WorldModel, "known", known)
    cells = ds.z500[0].size * 2
    monkeypatch.setattr(world_model, "_VALUES", 5 * 2 * cells)
    index = np.array([600, 700, 729])
    batches = list(world.simulate_batches(ds, index, length="365 days", every=3, batch_size=2))
    assert {(b.sizes["init_time"], b.sizes["lead_time"]) for b in batches} <= {
        *((2, n) for n in range(1, 6)),
        *((1, n) for n in range(1, 6)),
    }
    assert max(b.sizes["lead_time"] for b in batches) == 5
    assert {times for _, times in asked} == {world.network.history, 1}
    whole = world.simulate(ds, ds.time.values[index], length="365 days", every=3)
    assert whole.sizes["lead_time"] == 121
    assert whole.init_time[-1] + whole.lead_time[-1] > ds.time[-1] + np.timedelta64(360, "D")
    xr.testing.assert_allclose(
        whole.isel(init_time=[2]),
        xr.concat([b for b in batches if b.init_time[0] == ds.time[729]], "lead_time"),
        rtol=1e-4,
    )


def test_what_cannot_be_simulated_is_refused(world, ds):
    start = ds.time.values[[300]]
    with pytest.raises(ValueError, match=r"stride = 2 steps, expected one of the trained .*1, 3"):
        world.simulate(ds, start, length=4, stride=2)
    with pytest.raises(ValueError, match="every = 4 steps, expected a multiple of the stride, 3"):
        world.simulate(ds, start, length=12, every=4, stride=3)
    with pytest.raises(ValueError, match="length of 2 steps, expected at least 6"):
        world.simulate(ds, start, length=2, every=6)
    with pytest.raises(ValueError, match="multiple of the data's step"):
        world.simulate(ds, start, length="36 hours")
    still = dataclasses.replace(world, network=without_dynamics(world.network))
    with pytest.raises(ValueError, match="without dynamics"):
        still.simulate(ds, start, length=3)
    unread = {k: v for k, v in world.readouts.items() if k != "state"}
    with pytest.raises(ValueError, match=r"expected also 'state'.* run `sciwm probe` again"):
        dataclasses.replace(world, readouts=unread).simulate(ds, start, length=3)


def test_the_readout_of_states_is_kept_and_makes_no_forecast(world, ds, tmp_path):
    world.save(tmp_path)
    loaded = sciwm.load(tmp_path)
    assert loaded.readouts.keys() == world.readouts.keys()
    assert loaded.readouts["state"].lead_steps == (0,)
    assert set(world.kinds) == {"residual", "latent", "local_linear"}
    start = ds.time.values[[300]]
    xr.testing.assert_allclose(
        loaded.simulate(ds, start, length=6), world.simulate(ds, start, length=6)
    )
    with pytest.raises(ValueError, match="got readout 'state', expected one of"):
        world.forecast(ds, readout="state")


def test_a_state_is_read_from_its_own_latents(world, ds):
    """Nothing that a whitening keeps is lost."""
    z = torch.from_numpy(world.encode(ds.isel(time=slice(650, 660))).values)
    time = ds.time.values[650:660]
    again = read(world, z[:, None], time).isel(number=0)
    for name in ("z500", "t850"):
        spread = float(world.statistics.scale.sel(channel=name))
        error = again[name].values - ds[name][650:660].values
        assert np.sqrt((error**2).mean()) < 0.1 * spread
