"""Samples for readouts hold what was observed at the right times, of the right block."""

import numpy as np
import pytest
import torch

from sciwm import testing
from sciwm.probe.samples import readout_samples
from sciwm.readout.targets import target_series
from sciwm.store.prepare import open_training_store
from tests.worlds import climate_world, config, molecule_world

LEADS = (1, 2, 5)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    ds = testing.small_climate(years=1)
    targets = ["box:30,40,-20,-10"]
    settings = config(probe={"halo": 1, "targets": targets})
    options = {"targets": target_series(ds, targets), "climatology": "constant", "series": True}
    return climate_world(ds, tmp_path_factory.mktemp("grid"), settings=settings, **options)


@pytest.mark.parametrize("which", ["train", "validation", "test"])
def test_fields_and_series_of_the_block(grid, which):
    world, path = grid
    store = open_training_store(path)
    label = {"train": 0, "validation": 1, "test": 2}[which]
    # One step of context before, five steps of lead after, all in the block.
    expected = [i for i in range(1, 365 - 5) if (store.split.values[i - 1 : i + 6] == label).all()]
    state = torch.from_numpy(store.state.values)
    target = store.target.values
    mean = target[store.split.values == 0].mean(0)
    begin = 0
    for sample in readout_samples(world, store, which=which, lead_steps=LEADS, halo=1):
        index = np.array(expected[begin : begin + len(sample.latents)])
        begin += len(index)
        cells = [world.tokenizer.surroundings(state[index - back], 1) for back in (0, 1)]
        torch.testing.assert_close(sample.initial, torch.cat(cells, dim=-1))
        later = index[:, None] + np.array(LEADS)
        torch.testing.assert_close(sample.later, world.tokenizer.outputs(state[later]))
        now, before = target[index] - mean, target[index - 1] - mean
        season = (now[:, :, None] * store.condition.values[index][:, None]).reshape(len(index), -1)
        assert season.shape == (len(index), 4)
        values, close = np.concatenate([now, before, season], axis=1), {"rtol": 1e-3, "atol": 0.1}
        np.testing.assert_allclose(sample.initial_series, values, **close)
        np.testing.assert_allclose(sample.later_series, target[later] - mean, **close)
        assert sample.latents.shape == (len(index), 3, *world.latent_shape)
    assert begin == len(expected) > 50


def test_molecules_have_series_only(tmp_path):
    world, path = molecule_world(tmp_path)
    store = open_training_store(path)
    asked = {"which": "validation", "lead_steps": (1, 5), "progress": "probing"}
    samples = list(readout_samples(world, store, **asked))
    assert sum(len(s.latents) for s in samples) == 120 - 1 - 5
    assert samples[0].later.shape[-1] == samples[0].initial.shape[-1] == 0
    target = store.target.values
    later = target[360 + 1 + 5 :][: len(samples[0].latents)]
    anomaly = later - target[store.split.values == 0].mean(0)
    np.testing.assert_allclose(samples[0].later_series[:, 1], anomaly, atol=1e-5)
