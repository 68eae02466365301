"""From initial states to latents at any lead."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sciwm.store.forcing import conditions
from sciwm.tokens.record import Known
from sciwm.world.core import Core

__all__ = [
    "Context",
    "Initial",
    "Noise",
    "back_of",
    "check_members",
    "encoded_contexts",
    "initial_positions",
    "known_at",
    "lead_paths",
    "predicted_latents",
    "recent",
]


@dataclass(frozen=True)
class Context:
    """Some initial times, and the states that forecasts from them see.

    Parameters
    ----------
    index : ndarray, int
        Positions of the initial times on the time axis.
    time : ndarray
        The initial times.
    states : Tensor, ``[init, history, ...state]``
        Standardized states, newest first; 0 where missing.
    latents : Tensor, ``[init, history, token, latent]``
        Of these states, oldest first.
    """

    index: np.ndarray
    time: np.ndarray
    states: Tensor
    latents: Tensor


@dataclass(frozen=True)
class Initial:
    """Predicted latents of some initial times.

    Parameters
    ----------
    index : ndarray, int
        Positions of the initial times on the time axis.
    states : Tensor, ``[init, history, ...state]``
        Standardized states up to the initial one, newest first, as far apart as those of a context;
        0 where missing.
    latents : Tensor, ``[init, lead, token, dim]``
        Predicted latents, in the order of the leads asked for. A predictor with noise gives those
        without it.
    members : Tensor, ``[init, member, lead, token, dim]``
        Predicted latents of the members of an ensemble, if any were asked for.
    """

    index: np.ndarray
    states: Tensor
    latents: Tensor
    members: Tensor


def lead_paths(lead_steps: Sequence[int], strides: Sequence[int]) -> dict[int, dict[int, int]]:
    """How to reach each lead in as few predictions as possible.

    A lead takes the largest trained stride that divides it.

    Parameters
    ----------
    lead_steps, strides : sequence of int
        Leads, and trained strides, in time steps.

    Returns
    -------
    dict
        ``{stride: {number of predictions: position in lead_steps}}``.

    Raises
    ------
    ValueError
        If no stride divides a lead, or a lead is asked for twice.

    Examples
    --------
    >>> lead_paths([1, 4, 12], [1, 4])
    {1: {1: 0}, 4: {1: 1, 3: 2}}
    """
    paths: dict[int, dict[int, int]] = {}
    for position, lead in enumerate(lead_steps):
        fitting = [s for s in strides if lead % s == 0]
        if not fitting:
            raise ValueError(
                f"got a lead of {lead} steps, expected a multiple of one of the trained strides"
                f" {list(strides)}"
            )
        counts = paths.setdefault(max(fitting), {})
        if lead // max(fitting) in counts:
            raise ValueError(f"got a lead of {lead} steps twice, expected every lead once")
        counts[lead // max(fitting)] = position
    return dict(sorted(paths.items()))


def initial_positions(
    segment: np.ndarray,
    *,
    back: int,
    label: np.ndarray | None = None,
    which: int = -1,
    longest: int = 0,
) -> np.ndarray:
    """Positions from which a forecast can start: the whole context lies in one segment.

    Parameters
    ----------
    segment : ndarray, ``[time]``
        Segment numbers.
    back : int
        Time steps from the first state of a context to its last.
    label : ndarray of int, ``[time]``, optional
        Blocks of times. With these, contexts and all times up to the longest lead must lie in one.
    which : int
        Label of that block.
    longest : int
        Longest lead in time steps; it counts with ``label`` only.

    Returns
    -------
    ndarray of int
        In increasing order; empty if there are none.
    """
    reach = longest if label is not None else 0
    if len(segment) <= back + reach:
        return np.empty(0, dtype=np.int64)
    start = np.arange(back, len(segment) - reach)
    good = segment[start - back] == segment[start + reach]
    if label is not None:
        outside = np.concatenate([[0], np.cumsum(label != which)])
        good &= outside[start + reach + 1] == outside[start - back]
    return np.asarray(start[good])


def predicted_latents(
    world: Core,
    state: xr.DataArray,
    index: np.ndarray,
    lead_steps: Sequence[int],
    *,
    batch_size: int = 64,
    members: int = 0,
) -> Iterator[Initial]:
    """Roll the world model forward from given positions of a time axis, a batch at a time.

    Parameters
    ----------
    world : WorldModel
        Trained, or freshly built for the random-encoder row.
    state : DataArray, ``(time, ...state)``
        Standardized states, lazy or not; only the contexts asked for are read.
    index : ndarray
        Positions of the initial times, in increasing order.
    lead_steps : sequence of int
        Leads in time steps.
    batch_size : int
        Initial times in memory at once.
    members : int
        Members of an ensemble. Their noise depends on the seed of the model and the position of the
        initial time alone.

    Yields
    ------
    Initial
        Latents of a batch of initial times.

    Raises
    ------
    ValueError
        If no trained stride divides a lead, or a lead is asked for twice. Also if ``members`` are
        asked of a model without noise, or values are missing that the model cannot do without.
    """
    check_members(world, members)
    paths = lead_paths(lead_steps, world.strides)
    for context in encoded_contexts(world, state, index, batch_size=batch_size):
        part, start = context.index, context.latents
        shape = len(part), 1 + members
        latents = torch.empty(*shape, len(lead_steps), *world.latent_shape)
        for stride, wanted in paths.items():
            known = _known(world, context.time, stride, max(wanted))
            if members:
                times = known.lead.shape[1]
                noise = torch.zeros(*shape, times, world.noise_dim)
                drawn = Noise(world, part, members, stride).draw(times)
                noise[:, 1:] = drawn.view(len(part), members, *drawn.shape[1:])
                known = known.interleave(1 + members).with_noise(noise.flatten(0, 1))
                start = context.latents.repeat_interleave(1 + members, 0)
            with torch.no_grad():
                for count, latent in enumerate(world.network.rollout(start, known), start=1):
                    if count in wanted:
                        latents[:, :, wanted[count]] = latent.view(*shape, *latent.shape[1:])
        yield Initial(part, context.states, latents[:, 0], latents[:, 1:])


def encoded_contexts(
    world: Core, state: xr.DataArray, index: np.ndarray, *, batch_size: int
) -> Iterator[Context]:
    """Read and encode the contexts of initial times, a batch at a time.

    Parameters
    ----------
    world, state, index, batch_size
        As `predicted_latents` takes them.

    Raises
    ------
    ValueError
        If values are missing that the model cannot do without.
    """
    time = state["time"].values
    before = recent(np.zeros(1, np.int64), world)[0]
    world.network.eval()
    for part in np.array_split(index, max(1, -(-len(index) // batch_size))):
        if not len(part):
            continue
        places = np.unique(part[:, None] + before)
        whole = int(places[-1] - places[0]) + 1 == len(places)
        read = state.isel(time=slice(int(places[0]), int(places[-1]) + 1) if whole else places)
        block = torch.from_numpy(np.ascontiguousarray(read.values, dtype=np.float32))
        _check_finite(world, block, time[places])
        block = torch.where(block.isinf(), torch.nan, block)
        states = block[torch.from_numpy(np.searchsorted(places, part[:, None] + before))]
        latents = _encode(world, states.flip(1))
        yield Context(part, time[part], torch.nan_to_num(states), latents)


def back_of(world: Core) -> int:
    """Time steps from the first state of a context to its last."""
    return (world.network.history - 1) * world.context_step


def recent(index: np.ndarray, world: Core) -> np.ndarray:
    """Positions of the states that a readout sees beside latents, ``[init, history]``.

    They are those of the context, newest first.
    """
    return np.asarray(index)[:, None] - world.context_step * np.arange(world.network.history)


def check_members(world: Core, members: int) -> None:
    """Refuse members of a model without noise."""
    if members and not world.noise_dim:
        raise ValueError(
            f"got members = {members}, expected 0, because the model predicts a single future: for"
            " ensembles, train one with model.noise_dim = 32"
        )


class Noise:
    """Noise of every initial time and member, whatever the others and the leads asked for.

    What is drawn in parts is what would have been drawn at once.

    Parameters
    ----------
    world : Core
        Gives the seed and the width.
    index : ndarray of int
        Positions of the initial times.
    members : int
        Members of each.
    stride : int
        Time steps of one prediction.
    """

    def __init__(self, world: Core, index: np.ndarray, members: int, stride: int) -> None:
        self.width, self.members = world.noise_dim, members
        self.rngs = [
            np.random.default_rng([world.seed, stride, int(at), member])
            for at in index
            for member in range(members)
        ]

    def draw(self, times: int) -> Float[Tensor, "trajectory time noise"]:
        """The next times; members of an initial time follow one another."""
        shape = (times, self.width)
        drawn = [rng.standard_normal(shape, dtype=np.float32) for rng in self.rngs]
        return torch.from_numpy(np.stack(drawn))


def _check_finite(world: Core, block: Tensor, times: np.ndarray) -> None:
    if world.missing == "mask":
        return
    holes = ~block.isfinite().flatten(1).all(1)
    if holes.any():
        first = times[int(holes.int().argmax())]
        raise ValueError(
            f"got missing or infinite values at time {first} ({int(holes.sum())} of {len(block)}"
            " times read), expected none, because the model was trained without any: repair the"
            " data, start elsewhere, or train with `missing: mask` under `data`"
        )


@torch.no_grad()
def _encode(
    world: Core, context: Float[Tensor, "init history *state"]
) -> Float[Tensor, "init history token latent"]:
    """Latents of contexts, oldest state first."""
    finite = torch.isfinite(context)
    valid = None if bool(finite.all()) else finite
    return world.network.encode(world.tokenizer.tokenize(torch.nan_to_num(context), valid)[0])


def _known(world: Core, init: np.ndarray, stride: int, leads: int) -> Known:
    """What is known of the times of a context, and of every lead after it."""
    history, apart = world.network.history, world.context_step
    steps = np.concatenate([apart * np.arange(1 - history, 1), stride * np.arange(1, leads + 1)])
    return known_at(world, init, steps, np.diff(steps, prepend=steps[0]))


def known_at(world: Core, init: np.ndarray, steps: np.ndarray, lead: np.ndarray) -> Known:
    """What is known of some times.

    Parameters
    ----------
    world : Core
        Says what that is.
    init : ndarray, ``[init]``
        Initial times.
    steps, lead : ndarray of int, ``[time]``
        Time steps since the initial times, and since the state before.
    """
    condition = torch.from_numpy(conditions(world.step.add(init[:, None], steps), world.step))
    return world.known(condition, torch.from_numpy(lead).float().expand(len(init), -1))
