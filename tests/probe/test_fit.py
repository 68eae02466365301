"""Readouts of a world model: on part of the labels, and the head of a twin as one."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr

import sciwm
from sciwm import testing
from sciwm.probe.fit import fit_probes
from sciwm.probe.samples import Part, readout_samples, stretch
from sciwm.readout.readout import KINDS
from sciwm.store.prepare import open_training_store
from sciwm.train.fit import build_world
from tests.worlds import config, store

LEADS = (1, 3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("climate")
    return store(testing.small_climate(years=1), folder, climatology="constant")


@pytest.mark.parametrize("scope", ["token", "shared"])
@pytest.mark.parametrize("kind", ["supervised", "autoencoder", "convnet"])
def test_the_decoder_is_the_head(path, tmp_path, kind, scope):
    settings = config(objective={"kind": kind}, probe={"scope": scope})
    world = build_world(settings, path)
    probed = fit_probes(world, open_training_store(path), probe=settings.probe, lead_steps=LEADS)
    sample = next(readout_samples(world, open_training_store(path), which="test", lead_steps=LEADS))
    probed.save(tmp_path)
    for model in (probed, sciwm.load(tmp_path)):
        for lead, latents in enumerate(sample.latents.unbind(1)):
            read = model.readouts["decoder"].read_fields(lead, latents, sample.initial)
            given = world.network.objective.head(latents).detach()
            torch.testing.assert_close(read, given, rtol=1e-4, atol=1e-5)


def test_a_masked_autoencoder_has_no_decoder_and_both_states(path, tmp_path):
    settings = config(objective={"kind": "masked_autoencoder", "mask_ratio": 0.5})
    world = build_world(settings, path)
    probed = fit_probes(world, open_training_store(path), probe=settings.probe, lead_steps=LEADS)
    assert set(probed.readouts) == {*KINDS, "state"}
    assert (
        probed.readouts["latent"].fields[0].weight.shape[1] == 2 * world.network.encoder.latent_dim
    )
    ds = testing.small_climate(years=1)
    probed.save(tmp_path)
    init = ds["time"].values[5:8]
    one, other = (w.forecast(ds, init_times=init) for w in (probed, sciwm.load(tmp_path)))
    assert one.identical(other)


def test_local_linear_knows_nothing_of_the_network(path, tmp_path):
    """Whatever the seed, the objective and the weights: the same readouts, the same forecasts."""
    ds, state = testing.small_climate(years=1), open_training_store(path)
    kinds = ({"kind": "sigreg"}, {"kind": "supervised"}, {"kind": "convnet"})
    forecasts, others = [], []
    for seed, objective in enumerate(kinds):
        settings = config(seed=seed, objective=objective)
        world = build_world(settings, path, random=seed == 0)
        probed = fit_probes(world, state, probe=settings.probe, lead_steps=LEADS)
        probed.save(tmp_path / str(seed))
        made = (sciwm.load(tmp_path / str(seed)), probed)
        for model in made:
            init = ds["time"].values[5:8]
            forecasts.append(model.forecast(ds, init_times=init, readout="local_linear"))
        others.append(probed.forecast(ds, init_times=init))
    for made in forecasts[1:]:
        xr.testing.assert_identical(made, forecasts[0])
    assert not others[0].identical(others[1])


def test_readouts_on_part_of_the_block_are_those_of_its_samples(path):
    world = build_world(config(seed=4), path)
    ds = open_training_store(path)
    asked = {"which": "train", "lead_steps": LEADS}
    whole, part = (
        torch.cat([s.initial for s in readout_samples(world, ds, part=Part(fraction), **asked)])
        for fraction in (1.0, 0.1)
    )
    count = round(0.1 * len(whole))
    places = stretch(np.arange(len(whole)), 0.1, seed=4)
    assert len(part) == count
    torch.testing.assert_close(part, whole[places])
    few = dataclasses.replace(config().probe, fraction=0.1)
    one, other = (
        fit_probes(world, ds, probe=probe, lead_steps=LEADS).readouts["residual"].fields[0]
        for probe in (few, config().probe)
    )
    assert not torch.equal(one.weight, other.weight)


def test_readouts_on_every_third_initial_time_are_those_of_its_samples(path):
    world = build_world(config(seed=4), path)
    ds = open_training_store(path)
    asked = {"which": "train", "lead_steps": LEADS}
    whole, part, ends = (
        torch.cat([s.initial for s in readout_samples(world, ds, part=Part(every=every), **asked)])
        for every in (1, 3, 10**6)
    )
    torch.testing.assert_close(part, whole[::3])
    assert len(ends) == 2  # a fit needs them
    few = dataclasses.replace(config().probe, init_every=3)
    one, other = (
        fit_probes(world, ds, probe=probe, lead_steps=LEADS).readouts["residual"].fields[0]
        for probe in (few, config().probe)
    )
    assert not torch.equal(one.weight, other.weight)


def test_stretches_are_placed_by_the_seed():
    index = np.arange(1000)
    starts = {int(stretch(index, 0.01, seed=s)[0]) for s in range(20)}
    assert len(starts) > 10
    assert len(stretch(index, 1e-6, seed=0)) == 2
    assert np.array_equal(stretch(index, 1.0, seed=3), index)
