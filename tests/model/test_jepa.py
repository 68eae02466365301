"""Encoder, predictor and their joint loss: what may influence what."""

import copy

import pytest
import torch

from sciwm.model.jepa import JEPA
from sciwm.model.settings import Inputs, Objective, Sizes

TOKENS, FEATURES = 6, 5
BLOCKS = {"encoder_blocks": 2, "predictor_blocks": 2}
SIZES = {"token_dim": 16, "num_heads": 2, "dropout": 0.0} | BLOCKS
NUMBERS = ("strength", "num_directions", "ema_decay", "latent_noise", "anchor")


def jepa(*, kind="sigreg", seed=0, opened=True, condition_dim=4, local_dim=0, cells=3, **options):
    """A JEPA of 6 tokens; ``opened`` replaces the zeros that an untrained one starts from."""
    torch.manual_seed(seed)
    inputs = Inputs(torch.randn(TOKENS, 3), FEATURES, condition_dim, local_dim, cells)
    numbers = {name: options.pop(name) for name in NUMBERS if name in options}
    network = JEPA(inputs, Sizes(**SIZES | options), Objective(kind, **numbers))
    if opened:
        for parameter in network.predictor.parameters():
            if parameter.requires_grad and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return network


def window(batch=8, time=4, *, condition=4, seed=1):
    """Features, conditions and strides of random windows."""
    torch.manual_seed(seed)
    return (
        torch.randn(batch, time, TOKENS, FEATURES),
        torch.randn(batch, time, condition),
        torch.ones(batch),
    )


def test_an_untrained_predictor_persists():
    network = jepa(opened=False, history=3, local_dim=2)
    history, lead = torch.randn(4, 3, TOKENS, 16), torch.full((4,), 7.0)
    for _ in range(3):
        known = {"conditions": 10 * torch.randn(4, 2, 4), "local": torch.randn(4, 2, TOKENS, 2)}
        for latent in network.rollout(history, None, lead_steps=lead, **known):
            assert torch.equal(latent, history[:, -1])


def test_visible_tokens_are_encoded_as_if_the_others_did_not_exist():
    network = jepa().eval()
    features, _, _ = window(batch=3, time=1)
    features = features[:, 0]
    visible = torch.stack([torch.randperm(TOKENS)[:4].sort().values for _ in range(3)])
    got = network.encoder(features, None, network.position, visible)
    assert got.shape == (3, 4, 16)
    for one, kept, latents in zip(features, visible, got, strict=True):
        alone = network.encoder(one[None, kept], None, network.position[kept])
        torch.testing.assert_close(latents[None], alone)
    other = features.clone()
    hidden = torch.ones(3, TOKENS, dtype=torch.bool).scatter(1, visible, value=False)
    other[hidden] = torch.nan  # no work is done on them at all
    assert torch.equal(network.encoder(other, None, network.position, visible), got)


def test_hidden_tokens_get_the_stand_in():
    network = jepa().eval()
    features, _, _ = window(batch=2, time=2)
    visible = torch.tensor([[0, 2, 5]]).expand(4, -1)
    latents = network.encode(features, None, visible)
    assert latents.shape == (2, 2, TOKENS, 16)
    assert torch.equal(latents[:, :, [1, 3, 4]], network.hidden.expand(2, 2, 3, 16))
    flat = network.encoder(features.flatten(0, 1), None, network.position, visible)
    assert torch.equal(latents[:, :, [0, 2, 5]].flatten(0, 1), flat)


def test_invalid_tokens_influence_nothing():
    network = jepa(history=2).eval()
    features, condition, lead = window(time=4)
    valid = torch.rand(8, 4, TOKENS) > 0.3
    valid[:, :, 0] = True
    perturbed = torch.where(valid[..., None], features, features + 100 * torch.randn_like(features))
    latents, other = network.encode(features, valid), network.encode(perturbed, valid)
    assert (latents[~valid] == 0).all()
    torch.testing.assert_close(other, latents)
    options = {"condition": condition, "lead_steps": lead}
    torch.manual_seed(0)
    first = network.loss(features, valid, **options)
    torch.manual_seed(0)
    second = network.loss(perturbed, valid, **options)
    torch.testing.assert_close(first, second)


def test_always_invalid_tokens_stay_zero_in_a_forecast_and_are_not_seen():
    network = jepa(history=2).eval()
    history, valid = torch.randn(3, 2, TOKENS, 16), torch.ones(3, TOKENS, dtype=torch.bool)
    valid[:, 4] = False
    history[:, :, 4] = 0
    other = history.clone()
    other[:, :, 4] = torch.randn(16)
    options = {"conditions": torch.randn(3, 3, 4), "lead_steps": torch.ones(3)}
    rollouts = (network.rollout(latents, valid, **options) for latents in (history, other))
    for a, b in zip(*rollouts, strict=True):
        assert (a[:, 4] == 0).all()
        torch.testing.assert_close(a[:, :4], b[:, :4])


def test_all_valid_is_the_same_as_no_mask():
    network = jepa(history=2).eval()
    features, condition, lead = window()
    everywhere = torch.ones(8, 4, TOKENS, dtype=torch.bool)
    one, other = network.encode(features, everywhere), network.encode(features, None)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    losses = []
    for valid in (None, everywhere):
        torch.manual_seed(0)
        losses.append(network.loss(features, valid, condition=condition, lead_steps=lead))
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-4)


def test_rollout_is_stepping_by_hand():
    network = jepa(history=3, local_dim=2).eval()
    history = torch.randn(4, 3, TOKENS, 16)
    conditions, local = torch.randn(4, 4, 4), torch.randn(4, 4, TOKENS, 2)
    lead = torch.tensor([1.0, 2.0, 3.0, 4.0])
    steps = network.rollout(history, None, conditions=conditions, lead_steps=lead, local=local)
    assert iter(steps) is steps  # a generator: nothing is computed that is not asked for
    states = list(history.unbind(1))
    for k, latent in enumerate(steps):
        context = torch.stack(states[-3:], dim=1)
        by_hand = network.predictor(
            context,
            None,
            position=network.position,
            condition=conditions[:, k],
            lead_steps=lead,
            local=local[:, k],
        )
        torch.testing.assert_close(latent, by_hand)
        states.append(latent)
    assert len(states) == 7


def test_forecasts_depend_on_lead_conditions_and_history():
    network = jepa(history=2, local_dim=1).eval()
    history = torch.randn(2, 2, TOKENS, 16)
    conditions, local = torch.randn(2, 1, 4), torch.randn(2, 1, TOKENS, 1)

    def step(history=history, conditions=conditions, lead=1.0, local=local):
        known = {"conditions": conditions, "lead_steps": torch.full((2,), lead), "local": local}
        return next(network.rollout(history, None, **known))

    plain = step()
    older = history.clone()
    older[:, 0] += 1
    others = step(older), step(conditions=conditions + 1), step(lead=2.0), step(local=local + 1)
    for other in others:
        assert (other - plain).abs().max() > 1e-4


def test_latent_noise_only_while_training():
    network = jepa(history=2, latent_noise=0.5)
    history, conditions = torch.randn(4, 2, TOKENS, 16), torch.randn(4, 2, 4)
    options = {"conditions": conditions, "lead_steps": torch.ones(4)}
    runs = [list(network.eval().rollout(history, None, **options)) for _ in range(2)]
    torch.testing.assert_close(runs[0], runs[1])
    noisy = list(network.train().rollout(history, None, **options))
    torch.testing.assert_close(noisy[0], runs[0][0])  # noise enters what is fed back
    assert (noisy[1] - runs[0][1]).abs().max() > 1e-3


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", ["sigreg", "vicreg", "ema"])
def test_loss_is_finite_and_reaches_encoder_and_predictor(kind, missing, masked):
    network = jepa(kind=kind, history=2, local_dim=1).train()
    features, condition, lead = window()
    valid = None
    if missing:
        valid = torch.rand(8, 4, TOKENS) > 0.2
        valid[0, :, :] = False  # a window without any data
    visible = torch.tensor([[0, 1, 4]]).expand(16, -1) if masked else None
    known = {"condition": condition, "lead_steps": lead, "local": torch.randn(8, 4, TOKENS, 1)}
    losses = network.loss(features, valid, visible=visible, **known)
    assert set(losses) == {"loss", "prediction", "regularizer"}
    assert all(torch.isfinite(v) for v in losses.values())
    parts = losses["prediction"] + losses["regularizer"]
    torch.testing.assert_close(losses["loss"].detach(), parts)
    assert (losses["regularizer"] == 0) == (kind == "ema")
    losses["loss"].backward()
    for name, parameter in network.named_parameters():
        if name.startswith("teacher"):
            assert parameter.grad is None
        elif name != "hidden" or masked:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    encoder, predictor = network.encoder, network.predictor
    for part in (encoder.embed, encoder.project, predictor.embed, predictor.change):
        assert part.weight.grad.abs().max() > 0


def test_loss_by_hand():
    network = jepa(kind="vicreg", history=2, strength=3.0).eval()
    features, condition, lead = window()
    losses = network.loss(features, None, condition=condition, lead_steps=lead)
    latents = network.encode(features, None)
    steps = network.rollout(latents[:, :2], None, conditions=condition[:, 2:], lead_steps=lead)
    error = (torch.stack(list(steps), 1) - latents[:, 2:]).square().mean()
    torch.testing.assert_close(losses["prediction"], error.detach())


def test_sigreg_strength_is_the_product_with_the_sample_count():
    features, condition, lead = window(batch=4)
    collapsed = jepa(history=2, strength=10.0)
    torch.nn.init.zeros_(collapsed.encoder.project.weight)
    torch.nn.init.zeros_(collapsed.encoder.project.bias)
    many = features.repeat(5, 1, 1, 1)
    penalties = []
    for x, c in ((features, condition), (many, condition.repeat(5, 1, 1))):
        losses = collapsed.loss(x, None, condition=c, lead_steps=lead[:1].expand(len(x)))
        penalties.append(losses["regularizer"])
    assert [float(p) for p in penalties] == [pytest.approx(4.02, rel=5e-3)] * 2


def test_teacher_moves_by_the_decay():
    network = jepa(kind="ema", ema_decay=0.9)
    before = copy.deepcopy(network.teacher.state_dict())
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter += 1
    network.update_teacher()
    towards = network.encoder.state_dict()
    for name, now in network.teacher.state_dict().items():
        torch.testing.assert_close(now, before[name] + 0.1 * (towards[name] - before[name]))
    assert not any(p.requires_grad for p in network.teacher.parameters())
    assert not network.teacher.training
    plain = jepa()
    plain.update_teacher()
    assert plain.teacher is None


def test_the_teacher_never_drops_anything():
    network = jepa(kind="ema", dropout=0.5)
    for mode in (True, False, True):
        assert network.train(mode) is network
        assert network.encoder.training is mode
        assert not any(m.training for m in network.teacher.modules())


def test_unknown_objective():
    with pytest.raises(ValueError, match="objective 'byol'"):
        jepa(kind="byol")


def test_an_anchor_adds_the_pixel_error_of_its_head_and_leaves_the_rest():
    features, condition, lead = window()
    cells, seen = torch.randn(8, 4, TOKENS, 3), torch.rand(8, 4, TOKENS, 3) > 0.2
    known = {"condition": condition, "lead_steps": lead}
    plain, anchored = jepa(opened=False), jepa(opened=False, anchor=0.5)
    for name, value in plain.state_dict().items():
        assert torch.equal(anchored.state_dict()[name], value), name
    torch.nn.init.normal_(plain.predictor.change.weight, std=0.1)
    anchored.predictor.load_state_dict(plain.predictor.state_dict())
    torch.manual_seed(3)
    without = plain.loss(features, None, **known)
    torch.manual_seed(3)
    losses = anchored.loss(features, None, cells=cells, seen=seen, **known)
    history = anchored.encode(features, None)[:, :2]
    steps = anchored.rollout(history, None, conditions=condition[:, 2:], lead_steps=lead)
    difference = (anchored.head(torch.stack(list(steps), 1)) - cells[:, 2:])[seen[:, 2:]]
    torch.testing.assert_close(losses["anchor"], 0.5 * difference.square().mean())
    torch.testing.assert_close(losses["prediction"], without["prediction"])
    torch.testing.assert_close(losses["loss"], without["loss"] + losses["anchor"])
    losses["loss"].backward()
    assert anchored.head.weight.grad.any()
    assert "anchor" not in plain.loss(features, None, cells=cells, seen=seen, **known)
