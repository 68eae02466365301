"""From initial states along one path, for as long as one likes and in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciwm.model.dynamics import ContextOnly
from sciwm.world.core import Core
from sciwm.world.rollout import Context, Noise, check_members, encoded_contexts, known_at

__all__ = ["Course", "Stretch", "plan_course", "simulated_latents"]


@dataclass(frozen=True)
class Course:
    """Which leads of a simulation are given back, and by which stride they are reached.

    Parameters
    ----------
    count : int
        Leads.
    every : int
        Time steps between them; the first is one such step after the initial time.
    stride : int
        Time steps of one prediction; divides ``every``.
    """

    count: int
    every: int
    stride: int


@dataclass(frozen=True)
class Stretch:
    """Consecutive leads of some simulations.

    Parameters
    ----------
    index : ndarray, int
        Positions of the initial times on the time axis.
    steps : ndarray, int
        Leads in time steps.
    latents : Tensor, ``[init, lead, member, token, dim]``
        A single member without noise, where none were asked for.
    """

    index: np.ndarray
    steps: np.ndarray
    latents: Tensor


def plan_course(
    world: Core, *, length: int | str, every: int | str | None = None, stride: int | None = None
) -> Course:
    """Which leads a simulation of some length has.

    Parameters
    ----------
    world : Core
        Gives the time step and the trained strides.
    length : int or str
        Time steps, or a text such as ``"365 days"``. The last lead is the last multiple of
        ``every`` in it.
    every : int or str, optional
        Time steps between leads, or a text such as ``"1 day"``; one stride by default.
    stride : int, optional
        One of the trained strides. By default the largest, or the largest that divides ``every``.

    Raises
    ------
    ValueError
        If the stride was not trained or does not divide ``every``, or ``length`` holds no lead.
    """
    steps = _steps(world, length)
    apart = None if every is None else _steps(world, every)
    known = list(world.strides)
    if stride is None:
        fitting = [s for s in known if apart is None or apart % s == 0]
        if not fitting:
            raise ValueError(
                f"got every = {apart} steps, expected a multiple of one of the trained strides"
                f" {known}"
            )
        stride = max(fitting)
    apart = stride if apart is None else apart
    if stride not in known:
        raise ValueError(f"got stride = {stride} steps, expected one of the trained ones {known}")
    if apart < 1 or apart % stride:
        raise ValueError(f"got every = {apart} steps, expected a multiple of the stride, {stride}")
    if steps < apart:
        raise ValueError(
            f"got a length of {steps} steps, expected at least {apart}, those between two states"
            " given back"
        )
    return Course(steps // apart, apart, stride)


def _steps(world: Core, given: int | str) -> int:
    return int(world.step.steps(given)) if isinstance(given, str) else given


def simulated_latents(
    world: Core,
    state: xr.DataArray,
    index: np.ndarray,
    course: Course,
    *,
    batch_size: int = 64,
    members: int = 0,
    piece: int = 16,
) -> Iterator[Stretch]:
    """Roll the world model forward along one stride, and yield its latents on the way.

    In memory are one batch of simulations, and so many of their leads. What is known of a time is
    worked out when it is reached. Where the stride is the same, latents are those of
    `sciwm.world.rollout.predicted_latents`, and so are members.

    Parameters
    ----------
    world, state, index
        As `sciwm.world.rollout.predicted_latents` takes them.
    course : Course
        From `plan_course`.
    batch_size : int
        Simulations at once; members count.
    members : int
        Members of an ensemble of each initial time; 0 makes one simulation without noise.
    piece : int
        Leads that are yielded together.

    Yields
    ------
    Stretch
        All leads of some initial times in their order, then those of the next ones.

    Raises
    ------
    ValueError
        If the model has no dynamics, or ``members`` are asked of one without noise. Also if values
        are missing that it cannot do without.
    """
    check_members(world, members)
    if isinstance(world.network.dynamics, ContextOnly):
        raise ValueError(
            "got a model without dynamics to simulate with, expected one that predicts latents from"
            " latents"
        )
    together = max(1, batch_size // max(1, members))
    for context in encoded_contexts(world, state, index, batch_size=together):
        noise = Noise(world, context.index, members, course.stride) if members else None
        memory = _start(world, context, noise)
        for first in range(0, course.count, piece):
            leads = np.arange(first, min(first + piece, course.count)) + 1
            latents, memory = _advance(world, memory, context, noise, leads, course)
            apart = latents.view(len(context.index), max(1, members), *latents.shape[1:])
            yield Stretch(context.index, leads * course.every, apart.transpose(1, 2))


def _start(world: Core, context: Context, noise: Noise | None) -> Any:
    """Memory of the contexts, one of each trajectory."""
    history = world.network.history
    steps = world.context_step * np.arange(1 - history, 1)
    known = known_at(world, context.time, steps, np.diff(steps, prepend=steps[0]))
    latents = context.latents
    if noise is not None:
        known = known.interleave(noise.members).with_noise(noise.draw(history))
        latents = latents.repeat_interleave(noise.members, 0)
    with torch.no_grad():
        return world.network.dynamics.start(latents, known)


@torch.no_grad()
def _advance(
    world: Core,
    memory: Any,
    context: Context,
    noise: Noise | None,
    leads: np.ndarray,
    course: Course,
) -> tuple[Tensor, Any]:
    """Latents at some leads, ``[trajectory, lead, token, dim]``, and the memory from there."""
    found = []
    for lead in leads:
        before = (int(lead) - 1) * course.every
        for step in range(before + course.stride, before + course.every + 1, course.stride):
            known = known_at(world, context.time, np.array([step]), np.array([course.stride]))
            if noise is not None:
                known = known.interleave(noise.members).with_noise(noise.draw(1))
            latents, memory = world.network.dynamics.step(memory, known.at(0))
        found.append(latents)
    return torch.stack(found, dim=1), memory
