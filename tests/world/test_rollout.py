"""From which times forecasts start, along which strides they go, and what batches do not change."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciwm import testing
from sciwm.config import DataConfig
from sciwm.store.forcing import conditions
from sciwm.store.prepare import open_training_store
from sciwm.train.fit import build_world
from sciwm.train.module import JEPAModule
from sciwm.train.windows import epoch_of
from sciwm.world.rollout import initial_positions, lead_paths, predicted_latents
from tests.worlds import config, open_gates, store


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6, unique=True),
    st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True),
)
def test_every_lead_is_reached_in_as_few_predictions_as_possible(leads, strides):
    if any(all(lead % s for s in strides) for lead in leads):
        with pytest.raises(ValueError, match="trained strides"):
            lead_paths(leads, strides)
        return
    reached = {}
    for stride, counts in lead_paths(leads, strides).items():
        for count, position in counts.items():
            assert position not in reached
            reached[position] = (stride * count, count)
    assert sorted(reached) == list(range(len(leads)))
    for position, (lead, count) in reached.items():
        assert lead == leads[position]
        assert count == min(lead // s for s in strides if lead % s == 0)


def test_a_lead_asked_for_twice_is_refused():
    with pytest.raises(ValueError, match="lead of 4 steps twice"):
        lead_paths([4, 8, 4], [1, 4])


@settings(max_examples=100)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.integers(0, 5),
    st.integers(0, 4),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_initial_positions_by_brute_force(pieces, back, longest, labelled, random):
    segment = np.repeat(np.arange(len(pieces)), pieces)
    label = np.sort(np.array([random.randint(-1, 2) for _ in segment])) if labelled else None
    expected = []
    for i in range(len(segment)):
        last = i + (longest if labelled else 0)
        if i - back < 0 or last >= len(segment):
            continue
        window = slice(i - back, last + 1)
        if len(set(segment[window])) == 1 and (label is None or (label[window] == 1).all()):
            expected.append(i)
    got = initial_positions(segment, back=back, label=label, which=1, longest=longest)
    assert got.tolist() == expected


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Contexts of two states, two steps apart, and strides of one step and of three."""
    ds = testing.small_climate(years=1, missing=True)
    folder = tmp_path_factory.mktemp("grid")
    path = store(ds, folder, climatology="constant", missing="mask")
    sizes = {"history": 2, "context_step": 2}
    world = build_world(config(model=sizes, objective={"lead_steps": [1, 3]}), path)
    open_gates(world.network)
    return world, open_training_store(path)


def gathered(world, state, index, leads, **options):
    parts = list(predicted_latents(world, state, index, leads, **options))
    return (
        np.concatenate([p.index for p in parts]),
        torch.cat([p.states for p in parts]),
        torch.cat([p.latents for p in parts]),
    )


def test_batches_change_nothing(world):
    model, ds = world
    index = np.array([5, 6, 7, 20, 21, 90, 91, 300])
    leads = [3, 1, 6, 2]
    whole = gathered(model, ds.state, index, leads, batch_size=64)
    assert whole[2].shape == (8, 4, *model.latent_shape)
    np.testing.assert_array_equal(whole[0], index)
    recent = index[:, None] - 2 * np.arange(2)  # newest first
    torch.testing.assert_close(whole[1], torch.from_numpy(np.nan_to_num(ds.state.values[recent])))
    for batch_size in (1, 3, 8):
        parts = gathered(model, ds.state, index, leads, batch_size=batch_size)
        for a, b in zip(parts, whole, strict=True):
            torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-4, atol=1e-5)


def test_latents_by_hand(world):
    """Step by step through the dynamics, whose history ends up as far apart as the stride."""
    model, ds = world
    state = torch.from_numpy(ds.state.values)
    _, _, latents = gathered(model, ds.state, np.array([50]), [1, 2, 6])
    dynamics = model.network.dynamics
    for stride, counts in ((1, {1: 0, 2: 1}), (3, {2: 2})):
        context = state[[48, 50]][None]
        finite = torch.isfinite(context)
        features = model.tokenizer.tokenize(torch.nan_to_num(context), finite)[0]
        times = np.array([[48, 50, *(50 + stride * np.arange(1, 3))]])
        calendar = torch.from_numpy(conditions(ds.time.values[times], model.step))
        known = model.known(calendar, torch.tensor([[0.0, 2.0, stride, stride]]))
        with torch.no_grad():
            memory = dynamics.start(model.network.encode(features), known[:2])
            for count in range(1, 3):
                latent, memory = dynamics.step(memory, known.at(1 + count))
                if count in counts:
                    got = latents[0, counts[count]]
                    torch.testing.assert_close(got, latent[0], rtol=1e-4, atol=1e-5)
        assert memory.apart.tolist() == [[stride, stride]]


def test_a_forecast_is_the_rollout_of_training(world):
    """The windows of the loader, as tokens, give what positions on the time axis give."""
    model, ds = world
    settings = config(model={"history": 2, "context_step": 2}, objective={"lead_steps": [3]})
    module = JEPAModule(model, settings)
    batch = next(iter(epoch_of(Path(ds.encoding["source"]), settings, "validation")))
    tokens = module.tokens(batch)
    assert batch.lead[0].tolist() == [0.0, 2.0, 3.0, 3.0]
    with torch.no_grad():
        made = model.network.predict(model.network.encode(tokens[:2].features), tokens.known)
    index = batch.index[:, 1]
    order = index.argsort()
    _, _, latents = gathered(model, ds.state, index[order].numpy(), [3, 6])
    torch.testing.assert_close(made[order], latents, rtol=1e-4, atol=1e-5)
    assert (latents[:, 1] - latents[:, 0]).abs().max() > 0.01


def test_only_the_contexts_are_read(world):
    model, ds = world
    read = []

    def watch(block):
        read.append(len(block))
        return block

    meta = np.empty((0,) * 4, "float32")
    lazy = ds.state.chunk(time=1).data.map_blocks(watch, dtype="float32", meta=meta)
    state = ds.state.copy(data=lazy)
    gathered(model, state, np.array([10, 100, 200]), [1, 3], batch_size=3)
    # Of each: itself and the state two steps before, whatever the strides.
    assert sum(read) == 6


def test_no_initial_times(world):
    model, ds = world
    assert list(predicted_latents(model, ds.state, np.array([], dtype=int), [1])) == []


def test_missing_values_are_refused_by_a_model_that_never_saw_any(tmp_path):
    path = store(testing.small_climate(years=2), tmp_path)
    world = build_world(dataclasses.replace(config(), data=DataConfig(missing="error")), path)
    state = open_training_store(path)["state"].load()
    state[7, 0, 2, 3] = np.inf
    list(predicted_latents(world, state, np.array([3, 4]), [1]))
    with pytest.raises(ValueError, match=r"missing or infinite values at time .*missing: mask"):
        list(predicted_latents(world, state, np.array([7]), [1]))
