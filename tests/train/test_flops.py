"""Arithmetic counted against counts by hand."""

import torch
from torch import nn

from sciwm import testing
from sciwm.model.mixing import Attention, LatticeMixing
from sciwm.tokens.place import Lattice
from sciwm.train.fit import build_world
from sciwm.train.flops import count_flops, step_flops, train_flops
from tests.worlds import config, store


def test_one_linear_layer():
    layer = nn.Linear(3, 5)
    fixed, learnt = torch.ones(7, 3), torch.ones(7, 3, requires_grad=True)
    forward = 2 * 7 * 3 * 5
    assert count_flops(lambda: layer(fixed).sum()) == 2 * forward  # the weights' gradient
    assert count_flops(lambda: layer(learnt).sum()) == 3 * forward  # and the input's


def test_attention():
    batch, tokens, dim = 2, 10, 32
    layer = Attention(dim, num_heads=4)
    linear = 2 * batch * tokens * dim * 3 * dim + 2 * batch * tokens * dim * dim
    products = 2 * 2 * batch * tokens * tokens * dim
    states = torch.ones(batch, tokens, dim, requires_grad=True)
    assert count_flops(lambda: layer(states).sum()) == 3 * (linear + products)


def test_a_sum_over_neighbours():
    batch, reach, width = 2, 1, 8
    layer = LatticeMixing(Lattice(3, 4), width, reach)
    states = torch.ones(batch, 12, width, requires_grad=True)
    forward = 2 * batch * 12 * width * (2 * reach + 1) ** 2
    assert count_flops(lambda: layer(states).sum()) == 3 * forward


def test_steps_of_the_twins(tmp_path):
    path = store(testing.small_climate(years=1), tmp_path, climatology="constant")
    flops = {}
    for kind in ("sigreg", "whitened", "supervised", "autoencoder", "masked_autoencoder"):
        mask_ratio = 0.75 if kind == "masked_autoencoder" else 0.0
        settings = config(objective={"kind": kind, "mask_ratio": mask_ratio})
        world = build_world(settings, path)
        before = {k: v.clone() for k, v in world.network.state_dict().items()}
        flops[kind] = step_flops(world, path, settings)
        assert flops[kind] == step_flops(world, path, settings)
        assert all(torch.equal(v, before[k]) for k, v in world.network.state_dict().items())
    # The JEPA encodes its targets, too; the autoencoder predicts one step of two; the masked one
    # fills in every state.
    assert flops["sigreg"] > flops["supervised"] > flops["autoencoder"]
    assert flops["masked_autoencoder"] > flops["sigreg"] > flops["whitened"]


def test_a_training_with_a_growing_rollout(tmp_path):
    path = store(testing.small_climate(years=1), tmp_path, climatology="constant")
    total, single = {}, {}
    for kind in ("sigreg", "autoencoder", "masked_autoencoder"):
        objective = {"kind": kind, "rollout": 2, "curriculum": 0.8}
        if kind == "masked_autoencoder":
            objective["mask_ratio"] = 0.75
        settings = config(objective=objective, train={"steps": 10})
        grown = build_world(settings, path)
        one, two = (step_flops(grown, path, settings, rollout=n) for n in (1, 2))
        assert two == step_flops(grown, path, settings)
        # The first 0.8 of ten steps are two stages.
        assert train_flops(grown, path, settings) == 4 * one + 6 * two
        total[kind], single[kind] = two, one
    assert single["sigreg"] < total["sigreg"]
    assert single["autoencoder"] == total["autoencoder"]  # it predicts one state in any case
    assert single["masked_autoencoder"] == total["masked_autoencoder"]
