"""The pixel-trained twins: the JEPA's own backbone, and what may influence what."""

import pytest
import torch

from sciwm.model.loss import pixel_error
from sciwm.model.objectives import TWINS
from sciwm.model.settings import Objective
from sciwm.model.twins import Twin
from tests.model.test_jepa import FEATURES, TOKENS, jepa, window

CELLS = 3


def twin(kind, **options):
    return Twin(jepa(cells=CELLS, **options), Objective(kind))


def inputs(kind, *, features, condition, lead_steps, seed=2, time=4, keep=4):
    """Arguments of the loss of random windows.

    The masked autoencoder is given ``keep`` tokens of every state.
    """
    torch.manual_seed(seed)
    cells = torch.randn(len(features), time, TOKENS, CELLS)
    states = len(features) * time
    visible = torch.stack([torch.randperm(TOKENS)[:keep].sort().values for _ in range(states)])
    asked = {
        "cells": cells,
        "seen": torch.ones_like(cells, dtype=torch.bool),
        "condition": condition,
        "lead_steps": lead_steps,
    }
    return asked | ({"visible": visible} if kind == "masked_autoencoder" else {})


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"got objective 'ema', expected one of supervised"):
        twin("ema")


@pytest.mark.parametrize("kind", TWINS)
def test_the_backbone_is_that_of_the_jepa(kind):
    network, other = twin(kind, seed=3), jepa(seed=3)
    own, theirs = network.backbone.state_dict(), other.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[k], theirs[k]) for k in own)
    whole, backbone, head = (
        sum(p.numel() for p in part.parameters()) for part in (network, other, network.head)
    )
    assert whole == backbone + head
    features, _, _ = window()
    latents, theirs = (part.eval().encode(features, None) for part in (network, other))
    torch.testing.assert_close(latents, theirs)


def test_pixel_error_by_hand():
    cells, seen = torch.randn(2, 3, TOKENS, CELLS), torch.rand(2, 3, TOKENS, CELLS) > 0.4
    predicted = torch.randn_like(cells)
    places = zip(*torch.nonzero(seen, as_tuple=True), strict=True)
    hand = sum(float((predicted - cells)[i] ** 2) for i in places) / int(seen.sum())
    assert float(pixel_error(predicted, cells, seen)) == pytest.approx(hand, rel=1e-5)
    cells[~seen] = torch.nan
    assert torch.isfinite(pixel_error(predicted, cells, seen))
    assert float(pixel_error(predicted, cells, torch.zeros_like(seen))) == 0.0


def test_hidden_tokens_do_not_reach_the_encoder_of_the_masked_autoencoder():
    network = twin("masked_autoencoder").eval()
    features, condition, lead_steps = window()
    known = {"features": features, "condition": condition, "lead_steps": lead_steps}
    asked = inputs("masked_autoencoder", **known)
    before = network.loss(features, None, **asked)["loss"]
    none = torch.zeros(len(asked["visible"]), TOKENS, dtype=torch.bool)
    shown = none.scatter(1, asked["visible"], value=True)
    other = features.clone().flatten(0, 1)
    other[~shown] = torch.nan
    assert torch.equal(network.loss(other.view_as(features), None, **asked)["loss"], before)
    # Only the hidden ones are asked for.
    elsewhere = asked["cells"].clone().flatten(0, 1)
    elsewhere[shown] += 100
    changed = asked | {"cells": elsewhere.view_as(asked["cells"])}
    assert torch.equal(network.loss(features, None, **changed)["loss"], before)


def test_a_masked_autoencoder_needs_hidden_tokens():
    network = twin("masked_autoencoder")
    features, condition, lead_steps = window()
    asked = inputs("supervised", features=features, condition=condition, lead_steps=lead_steps)
    with pytest.raises(ValueError, match="got no visible tokens"):
        network.loss(features, None, **asked)


def test_without_dynamics_the_context_is_given_as_it_is():
    network = twin("masked_autoencoder", history=2).eval()
    latents = network.encode(window(time=2)[0], None)
    asked = {"conditions": torch.zeros(8, 3, 4), "lead_steps": torch.ones(8)}
    rolled = list(network.rollout(latents, None, **asked))
    assert len(rolled) == 3
    assert network.rollout_dim == 2 * latents.shape[-1] == rolled[0].shape[-1]
    for one in rolled:
        assert torch.equal(one, torch.cat([latents[:, 0], latents[:, 1]], dim=-1))
    forecaster = twin("supervised", history=2).eval()
    asked = {"conditions": torch.randn(8, 3, 4), "lead_steps": torch.ones(8)}
    rollouts = (n.rollout(latents, None, **asked) for n in (forecaster, forecaster.backbone))
    for one, other in zip(*rollouts, strict=True):
        assert torch.equal(one, other)


def test_what_each_kind_learns_from():
    """The forecaster from all later states, the autoencoder from the context and the next one."""
    features, condition, lead_steps = window(time=5)
    for kind, reached in (("supervised", [2, 3, 4]), ("autoencoder", [0, 1, 2])):
        network = twin(kind, history=2).eval()
        asked = inputs(kind, features=features, condition=condition, lead_steps=lead_steps, time=5)
        before = network.loss(features, None, **asked)
        for time in range(5):
            cells = asked["cells"].clone()
            cells[:, time] += 1
            after = network.loss(features, None, **(asked | {"cells": cells}))
            assert (not torch.equal(after["loss"], before["loss"])) == (time in reached)
        parts = before["prediction"] + before["regularizer"]
        assert before["loss"].item() == pytest.approx(parts.item())
        assert (float(before["regularizer"]) > 0) == (kind == "autoencoder")


def test_an_autoencoder_does_not_reconstruct_what_it_did_not_see():
    features, condition, lead_steps = window(time=3)
    network = twin("autoencoder", history=2).eval()
    known = {"features": features, "condition": condition, "lead_steps": lead_steps}
    asked = inputs("autoencoder", time=3, **known)
    asked["visible"] = torch.arange(1, TOKENS).expand(len(features) * 2, -1)
    before = network.loss(features, None, **asked)["loss"]
    asked["cells"][:, :2, 0] += 10
    assert torch.equal(network.loss(features, None, **asked)["loss"], before)


def test_the_forecaster_recovers_a_linear_map():
    """The next state is a linear map of the last one: the error falls to almost nothing."""
    torch.manual_seed(0)
    mix = torch.randn(FEATURES, CELLS) / FEATURES**0.5
    network = twin("supervised", history=1, encoder_blocks=1, predictor_blocks=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(400):
        states = torch.randn(32, 2, TOKENS, FEATURES)
        cells = torch.cat([torch.zeros(32, 1, TOKENS, CELLS), (states[:, :1] @ mix)], dim=1)
        seen = torch.ones_like(cells, dtype=torch.bool)
        known = {"condition": torch.zeros(32, 2, 4), "lead_steps": torch.ones(32)}
        losses = network.loss(states, None, cells=cells, seen=seen, **known)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert float(cells[:, 1].var()) > 0.5
    assert losses["loss"].item() < 0.05
