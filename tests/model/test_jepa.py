"""Objectives in latent space: what may influence what, and what the losses are."""

import copy
from dataclasses import replace

import pytest
import torch

from sciwm.model.jepa import Objective, without_dynamics
from sciwm.model.loss import energy_error, latent_error
from sciwm.model.objectives import OBJECTIVES
from tests.networks import globe, network, plane, rolled, states, window

GRID = globe(channels=2)
TOLD = {"times": {"calendar": 4}, "tokens": {"static": 1}}
LATENT = ("sigreg", "vicreg", "ema", "whitened")


def jepa(kind="sigreg", *, seed=0, opened=True, sizes=None, **objective):
    asked = {"kind": kind, "rows": 0} | objective
    return network(GRID, objective=asked, seed=seed, opened=opened, **TOLD, **(sizes or {}))


def windows(**options):
    return window(GRID, **{"times": TOLD["times"], "tokens": TOLD["tokens"]} | options)


def losses_of(made, tokens, hidden=None, *, seed=0):
    """Losses with the same random numbers every time."""
    torch.manual_seed(seed)
    return made.loss(tokens, hidden)


def some_hidden(batch=8, time=2, ratio=0.4):
    torch.manual_seed(3)
    return torch.rand(batch, time, GRID.num_tokens) < ratio


@pytest.mark.parametrize("kind", LATENT)
def test_hidden_tokens_of_the_context_do_not_reach_the_encoder(kind):
    made, tokens, hidden = jepa(kind), windows(), some_hidden()
    before = losses_of(made, tokens, hidden)
    other = tokens.features.clone()
    other[:, :2][hidden] = torch.nan
    after = losses_of(made, replace(tokens, features=other), hidden)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    # Others do, and so do hidden ones where nothing is hidden.
    other = torch.where(hidden[..., None], 1.0, 0.0)
    shifted = tokens.features.clone()
    shifted[:, :2] += other
    moved = losses_of(made, replace(tokens, features=shifted))
    assert not torch.equal(moved["prediction"], losses_of(made, tokens)["prediction"])


@pytest.mark.parametrize("kind", LATENT)
def test_missing_tokens_of_the_targets_count_for_nothing(kind):
    """Of an encoder that sees every token on its own."""
    made, tokens = jepa(kind, sizes={"encoder_blocks": 0}), windows(missing=0.6)
    assert tokens.valid is not None
    assert 0.3 < float(tokens.valid[:, 2:].float().mean()) < 0.95
    gone = ~tokens.valid
    gone[:, :2] = False
    other = torch.where(gone[..., None], 100.0, tokens.features)
    before = losses_of(made, tokens)
    after = losses_of(made, replace(tokens, features=other))
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-6)
    there = torch.where(tokens.valid[..., None] & gone.any(1, keepdim=True)[..., None], 5.0, 0.0)
    moved = losses_of(made, replace(tokens, features=tokens.features + there))
    assert not torch.allclose(moved["loss"], before["loss"])


@pytest.mark.parametrize("kind", LATENT)
def test_all_valid_is_the_same_as_no_mask(kind):
    made, tokens = jepa(kind), windows()
    assert tokens.valid is None
    everywhere = torch.ones(tokens.features.shape[:3], dtype=torch.bool)
    one, other = losses_of(made, tokens), losses_of(made, replace(tokens, valid=everywhere))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("noise_dim", [0, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.5])
@pytest.mark.parametrize("kind", LATENT)
def test_losses_are_finite_and_reach_all_that_can_be_learnt(kind, missing, masked, noise_dim):
    made = jepa(kind, sizes={"noise_dim": noise_dim, "dropout": 0.1}).train()
    assert isinstance(made.objective, Objective)
    tokens = windows(missing=missing)
    if missing:
        gone = tokens.valid.clone()
        gone[0] = False  # a window without any data
        tokens = replace(tokens, valid=gone)
    losses = made.loss(tokens, some_hidden() if masked else None)
    assert set(losses) == {"loss", "prediction", "regularizer"}
    assert all(torch.isfinite(v) for v in losses.values())
    parts = losses["prediction"] + losses["regularizer"]
    torch.testing.assert_close(losses["loss"].detach(), parts)
    assert (losses["regularizer"] == 0) == (kind in ("ema", "whitened"))
    losses["loss"].backward()
    for name, parameter in made.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None
            assert name.startswith("objective.teacher") or name == "encoder.matrix"
        else:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), name
    learns = [n for n, p in made.encoder.named_parameters() if p.requires_grad]
    assert bool(learns) == (kind != "whitened")


@pytest.mark.parametrize("kind", ["sigreg", "vicreg", "whitened"])
def test_the_prediction_error_by_hand(kind):
    made, tokens = jepa(kind), windows()
    latents = made.encode(tokens.features)
    error = (made.predict(latents[:, :2], tokens.known) - latents[:, 2:]).square().mean()
    losses = losses_of(made, tokens)
    torch.testing.assert_close(losses["prediction"], error.detach())


def test_a_teacher_gives_the_targets():
    made, tokens = jepa("ema"), windows()
    with torch.no_grad():
        for parameter in made.objective.teacher.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    target = made.objective.teacher(tokens.features[:, 2:].flatten(0, 1)).unflatten(0, (8, 2))
    predicted = made.predict(made.encode(tokens[:2].features), tokens.known)
    error = latent_error(predicted, target, None, smooth=True)
    torch.testing.assert_close(losses_of(made, tokens)["prediction"], error.detach())


def test_members_are_scored_beside_the_middle():
    """The error of the future without noise, and the energy score of two with."""
    made, tokens = jepa("whitened", sizes={"noise_dim": 3}), windows()
    losses = losses_of(made, tokens, seed=4)
    latents = made.encode(tokens.features)
    start, target = latents[:, :2], latents[:, 2:]
    torch.manual_seed(4)
    noise = torch.randn(3, 8, 4, 3)[1:]
    middle = made.predict(start, tokens.known)
    members = torch.stack([made.predict(start, tokens.known.with_noise(n)) for n in noise])
    assert (members[0] - members[1]).abs().max() > 1e-3
    expected = latent_error(middle, target, None) + energy_error(members, target, None)
    torch.testing.assert_close(losses["prediction"], expected.detach(), rtol=1e-4, atol=1e-5)


def collapsed(**options):
    """A JEPA whose latents are all zero."""
    made = jepa("sigreg", opened=False, **options)
    torch.nn.init.zeros_(made.encoder.matrix)
    return made


@pytest.mark.parametrize("rows", [0, 20])
def test_sigreg_strength_is_the_product_with_the_sample_count(rows):
    penalties = [
        losses_of(collapsed(strength=10.0, rows=rows), windows(batch=batch))["regularizer"]
        for batch in (4, 20)
    ]
    assert [float(p) for p in penalties] == [pytest.approx(4.02, rel=5e-3)] * 2


def test_some_rows_tell_what_all_do():
    """On average, but for the sampling noise of a Gaussian, which is larger with fewer."""
    tokens = windows(batch=40)
    tokens = replace(tokens, features=3 * tokens.features)  # far from normal
    whole = losses_of(jepa(rows=0), tokens)["regularizer"]
    some = [losses_of(jepa(rows=100), tokens, seed=s)["regularizer"] for s in range(10)]
    assert float(torch.stack(some).mean()) == pytest.approx(float(whole), rel=0.15)
    assert len({float(s) for s in some}) == 10


def test_a_time_without_any_data_has_no_penalty():
    made, tokens = jepa(), windows(missing=0.3)
    valid = tokens.valid.clone()
    valid[:, 1:] = False
    alone = losses_of(made, replace(tokens, valid=valid))
    assert torch.isfinite(alone["loss"])
    assert alone["prediction"] == 0
    assert alone["regularizer"] > 0
    none = losses_of(made, replace(tokens, valid=torch.zeros_like(valid)))
    assert none["loss"] == 0


def test_latent_noise_only_while_training():
    made, tokens = jepa("whitened", latent_noise=0.5), windows()
    quiet = jepa("whitened")
    assert torch.equal(losses_of(made, tokens)["loss"], losses_of(quiet, tokens)["loss"])
    assert not torch.equal(
        losses_of(made.train(), tokens)["loss"], losses_of(quiet, tokens)["loss"]
    )


def test_the_teacher_moves_by_the_decay():
    made = jepa("ema", ema_decay=0.9)
    before = copy.deepcopy(made.objective.teacher.state_dict())
    with torch.no_grad():
        for parameter in made.encoder.parameters():
            parameter += 1
    made.objective.moved(made)
    towards = made.encoder.state_dict()
    for name, now in made.objective.teacher.state_dict().items():
        torch.testing.assert_close(now, before[name] + 0.1 * (towards[name] - before[name]))
    assert not any(p.requires_grad for p in made.objective.teacher.parameters())
    plain = jepa()
    plain.objective.moved(plain)
    assert plain.objective.teacher is None


def test_the_teacher_never_drops_anything():
    made = jepa("ema", sizes={"dropout": 0.5})
    for mode in (True, False, True):
        assert made.train(mode) is made
        assert made.encoder.training is mode
        assert not any(m.training for m in made.objective.teacher.modules())


def test_an_anchor_adds_the_pixel_error_of_its_head_and_leaves_the_rest():
    tokens, plain, anchored = windows(missing=0.4), jepa(), jepa(anchor=0.5)
    for name, value in plain.state_dict().items():
        assert torch.equal(anchored.state_dict()[name], value), name
    without, losses = losses_of(plain, tokens), losses_of(anchored, tokens)
    predicted = anchored.predict(anchored.encode(tokens[:2].features), tokens.known)
    difference = anchored.objective.anchor(predicted) - tokens.cells[:, 2:]
    seen = tokens.seen_cells()[:, 2:]
    torch.testing.assert_close(losses["anchor"], 0.5 * difference[seen].square().mean().detach())
    torch.testing.assert_close(losses["prediction"], without["prediction"])
    torch.testing.assert_close(losses["loss"], without["loss"] + losses["anchor"])
    losses["loss"].backward()
    assert anchored.objective.anchor.weight.grad.any()
    assert "anchor" not in without


@torch.no_grad()
def test_without_dynamics_forecasts_are_the_context():
    made, tokens = jepa(), windows()
    still = without_dynamics(made)
    start = made.encode(tokens[:2].features)
    assert still.encoder is made.encoder
    assert still.rollout_dim == 2 * made.rollout_dim
    expected = torch.cat([start[:, 0], start[:, 1]], dim=-1)
    assert all(torch.equal(latents, expected) for latents in still.rollout(start, tokens.known))


def forecasts(made, tokenizer, values, known):
    """Latents of a context and of two later times."""
    features = tokenizer.tokenize(values)[0]
    latents = made.encode(features[:, :2])
    return torch.cat([latents, made.predict(latents, known)], dim=1)


@pytest.mark.parametrize("mixing", ["local", "both"])
@pytest.mark.parametrize("kind", ["sigreg", "convnet"])
@pytest.mark.parametrize(
    ("periodic", "by"),
    [
        ((True, True), (1, 0)),
        ((True, True), (0, 2)),
        ((True, True), (-2, 1)),
        ((False, True), (0, 1)),
    ],
)
@torch.no_grad()
def test_rolling_a_plane_that_closes_on_itself_rolls_latents_and_forecasts(
    periodic, by, kind, mixing
):
    tokenizer = plane((6, 8), periodic=periodic)
    mixings = {"mixing": mixing, "encoder_mixing": mixing}
    made = network(tokenizer, objective={"kind": kind}, times={"calendar": 4}, **mixings)
    if not all(periodic):  # where it does not close, places differ
        for part in made.modules():
            if hasattr(part, "position"):
                part.position = torch.zeros_like(part.position)
            if hasattr(part, "points"):
                part.points = torch.zeros_like(part.points)
    values, known = states(tokenizer, 3, 4), window(tokenizer, 3, times={"calendar": 4}).known
    shift = by[0] * 2, by[1] * 2
    before = forecasts(made, tokenizer, values, known)
    after = forecasts(made, tokenizer, values.roll(shift, (-2, -1)), known)
    expected = before[:, :, rolled(tokenizer, by)]
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)
    assert (after - before).abs().max() > 0.1


@pytest.mark.parametrize("by", [1, 3])
@pytest.mark.parametrize("kind", ["sigreg", "supervised"])
@torch.no_grad()
def test_where_longitudes_begin_changes_nothing(kind, by):
    """On the globe, the same fields from another meridian on: the same latents, place by place."""
    one, other = globe((4, 12)), globe((4, 12), west=-by * 2 * 30.0)
    mixings = {"mixing": "both", "encoder_mixing": "both"}
    made = network(one, objective={"kind": kind}, **mixings)
    again = network(other, objective={"kind": kind}, **mixings)
    again.load_state_dict(made.state_dict())
    values, known = states(one, 3, 4), window(one, 3).known
    before = forecasts(made, one, values, known)
    after = forecasts(again, other, values.roll(2 * by, -1), known)
    order = rolled(one, (0, by))
    torch.testing.assert_close(other.position, one.position[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(after, before[:, :, order], rtol=1e-4, atol=1e-4)
    # A network that took the places to be those from before would give something else.
    assert (forecasts(made, one, values.roll(2 * by, -1), known) - after).abs().max() > 1e-3


def test_each_kind_is_tested_here_or_among_the_pixels():
    assert {*LATENT} == {name for name, record in OBJECTIVES.items() if not record.reads_cells}
