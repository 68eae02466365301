"""Dynamics: a memory that is started and stepped, and what a step depends on."""

from dataclasses import replace

import pytest
import torch

from sciwm.model.convnet import ConvNet
from sciwm.model.dynamics import DYNAMICS, ContextOnly, Dynamics, History
from sciwm.tokens.record import Known
from tests.networks import globe, network, window

TOKENIZER = globe()
TOLD = {"times": {"calendar": 4}, "tokens": {"static": 1, "sun": 1}}


def known(batch, leads, *, seed=0, noise=0):
    """What is known of times that are so many steps after one another."""
    torch.manual_seed(seed)
    lead = torch.tensor([leads], dtype=torch.float32).expand(batch, -1)
    times = {name: torch.randn(*lead.shape, width) for name, width in TOLD["times"].items()}
    count = TOKENIZER.num_tokens
    tokens = {name: torch.randn(*lead.shape, count, w) for name, w in TOLD["tokens"].items()}
    made = Known(lead, times, tokens)
    return made.with_noise(torch.randn(*lead.shape, noise)) if noise else made


def dynamics(*, opened=True, **options):
    return network(TOKENIZER, opened=opened, **TOLD, **options).dynamics


def context(batch=3, history=2, dim=4):
    torch.manual_seed(5)
    return torch.randn(batch, history, TOKENIZER.num_tokens, dim)


EVERY = {
    "history": lambda: dynamics(),
    "long": lambda: dynamics(history=4),
    "noisy": lambda: dynamics(noise_dim=3),
    "convnet": lambda: dynamics(objective={"kind": "convnet"}),
    "none": lambda: ContextOnly(2, 4),
}


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_a_memory_is_started_and_stepped(name):
    """Latents of later times have the width that is promised, and the memory goes on from them."""
    made = EVERY[name]()
    assert isinstance(made, Dynamics)
    h = made.history
    told = known(3, [0, *[1.0] * (h + 2)], noise=made.noise_dim)
    memory = made.start(context(history=h), told[:h])
    seen = []
    for time in range(h, h + 3):
        latents, memory = made.step(memory, told.at(time))
        assert latents.shape == (3, TOKENIZER.num_tokens, made.out_dim)
        seen.append(latents)
    again, _ = made.step(made.start(context(history=h), told[:h]), told.at(h))
    assert torch.equal(again, seen[0])  # a step changes nothing but what it gives
    assert torch.equal(seen[1], seen[0]) == (name == "none")


def test_every_name_builds_dynamics():
    for name in DYNAMICS:
        made = dynamics(dynamics=name)
        assert isinstance(made, Dynamics)
        assert made.history == 2


@pytest.mark.parametrize("options", [{}, {"history": 3}, {"noise_dim": 4}, {"mixing": "both"}])
def test_untrained_dynamics_persist(options):
    made = dynamics(opened=False, **options)
    h = made.history
    for leads in ([0, *[1] * (h + 2)], [0, *[30] * (h + 2)]):
        told = known(3, leads, seed=leads[1], noise=made.noise_dim)
        memory = made.start(context(history=h), told[:h])
        for time in range(h, h + 3):
            latents, memory = made.step(memory, told.at(time))
            assert torch.equal(latents, context(history=h)[:, -1])


@torch.no_grad()
def test_the_history_slides_with_its_spacing():
    made = dynamics(history=3)
    told, start = known(3, [0, 2, 5, 1, 4, 7]), context(history=3)
    memory = made.start(start, told[:3])
    assert isinstance(memory, History)
    first, memory = made.step(memory, told.at(3))
    assert torch.equal(memory.latents, torch.cat([start[:, 1:], first[:, None]], dim=1))
    assert memory.apart.tolist() == [[2, 5, 1]] * 3
    second, memory = made.step(memory, told.at(4))
    assert torch.equal(memory.latents[:, 1:], torch.stack([first, second], dim=1))
    assert memory.apart.tolist() == [[5, 1, 4]] * 3


@torch.no_grad()
def test_a_step_depends_on_the_lead_the_spacing_and_all_that_is_known_and_seen():
    made, start, told = dynamics(history=3), context(history=3), known(3, [0, 1, 1, 1])

    def step(latents=start, told=told):
        return made.step(made.start(latents, told[:3]), told.at(3))[0]

    plain = step()
    leads = torch.tensor([[0.0, 1, 1, 2], [0, 1, 3, 1], [0, 4, 1, 1]])[:, None].expand(-1, 3, -1)
    changed = {f"lead {row[0].tolist()}": step(told=replace(told, lead=row)) for row in leads}
    for part in ("times", "tokens"):
        for name, values in getattr(told, part).items():
            other = values.clone()
            other[:, 3] += 1
            both = {**getattr(told, part), name: other}
            changed[name] = step(told=replace(told, **{part: both}))
    for age in range(3):
        older = start.clone()
        older[:, age] += 1
        changed[f"state {age}"] = step(older)
    for name, latents in changed.items():
        assert (latents - plain).abs().max() > 1e-4, name
    # What came before the oldest state does not count, nor what is known of the context.
    first = told.lead.clone()
    first[:, 0] = 9
    assert torch.equal(step(told=replace(told, lead=first)), plain)
    early = {name: x.clone() for name, x in told.times.items()}
    early["calendar"][:, :3] += 1
    assert torch.equal(step(told=replace(told, times=early)), plain)


@torch.no_grad()
def test_noise_chooses_a_future_and_none_of_it_is_the_middle():
    made, start = dynamics(noise_dim=3), context()
    bare, noisy = known(3, [0, 1, 1]), known(3, [0, 1, 1], noise=3)

    def step(told):
        return made.step(made.start(start, told[:2]), told.at(2))[0]

    one, other = step(noisy), step(replace(noisy, noise=noisy.noise + 1))
    assert (one - other).abs().max() > 1e-4
    torch.testing.assert_close(step(replace(noisy, noise=0 * noisy.noise)), step(bare))


def test_without_dynamics_the_context_is_given_side_by_side():
    still = ContextOnly(2, 4)
    start, told = context(), known(3, [0, 1, 1, 1])
    memory = still.start(start, told[:2])
    assert still.out_dim == 8
    for time in (2, 3):
        latents, memory = still.step(memory, told.at(time))
        assert torch.equal(latents, torch.cat([start[:, 0], start[:, 1]], dim=-1))


@pytest.mark.parametrize("kind", ["sigreg", "convnet"])
def test_a_rollout_is_stepping_by_hand(kind):
    made = network(TOKENIZER, objective={"kind": kind}, **TOLD)
    tokens = window(TOKENIZER, time=5, **TOLD)
    start = made.encode(tokens[:2].features)
    steps = made.rollout(start, tokens.known)
    assert iter(steps) is steps  # a generator: nothing is computed that is not asked for
    memory = made.dynamics.start(start, tokens.known[:2])
    seen = []
    for time, latents in enumerate(steps, start=2):
        by_hand, memory = made.dynamics.step(memory, tokens.known.at(time))
        assert torch.equal(latents, by_hand)
        seen.append(latents)
    assert len(seen) == 3
    assert torch.equal(made.predict(start, tokens.known), torch.stack(seen, dim=1))
    assert seen[-1].requires_grad  # the caller says where gradients are not wanted
    assert isinstance(made.dynamics, ConvNet) == (kind == "convnet")
