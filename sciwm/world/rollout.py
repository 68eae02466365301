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

__all__ = ["Initial", "back_of", "initial_positions", "lead_paths", "predicted_latents", "recent"]


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
    _check_members(world, members)
    paths = lead_paths(lead_steps, world.strides)
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
        context = block[torch.from_numpy(np.searchsorted(places, part[:, None] + before))]
        encoded = _encode(world, context.flip(1))
        shape = len(part), 1 + members
        latents = torch.empty(*shape, len(lead_steps), *world.latent_shape)
        for stride, wanted in paths.items():
            known = _known(world, time[part], stride, max(wanted))
            start = encoded
            if members:
                noise = _draw_noise(world, part, members, stride, known.lead.shape[1])
                known = known.interleave(1 + members).with_noise(noise.flatten(0, 1))
                start = encoded.repeat_interleave(1 + members, 0)
            with torch.no_grad():
                for count, latent in enumerate(world.network.rollout(start, known), start=1):
                    if count in wanted:
                        latents[:, :, wanted[count]] = latent.view(*shape, *latent.shape[1:])
        states = torch.nan_to_num(context)
        yield Initial(part, states, latents[:, 0], latents[:, 1:])


def back_of(world: Core) -> int:
    """Time steps from the first state of a context to its last."""
    return (world.network.history - 1) * world.context_step


def recent(index: np.ndarray, world: Core) -> np.ndarray:
    """Positions of the states that a readout sees beside latents, ``[init, history]``.

    They are those of the context, newest first.
    """
    return np.asarray(index)[:, None] - world.context_step * np.arange(world.network.history)


def _check_members(world: Core, members: int) -> None:
    if members and not world.noise_dim:
        raise ValueError(
            f"got members = {members}, expected 0, because the model predicts a single future: for"
            " ensembles, train one with model.noise_dim = 32"
        )


def _draw_noise(
    world: Core, index: np.ndarray, members: int, stride: int, times: int
) -> Float[Tensor, "init member time noise"]:
    """Noise of every initial time and member, whatever the others and the leads asked for.

    The first of each initial time is zero: the future without noise.
    """
    seed, shape = world.seed, (times, world.noise_dim)
    noise = torch.zeros(len(index), 1 + members, *shape)
    for row, member in np.ndindex(len(index), members):
        rng = np.random.default_rng([seed, stride, int(index[row]), member])
        noise[row, 1 + member] = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    return noise


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
    condition = torch.from_numpy(conditions(world.step.add(init[:, None], steps), world.step))
    lead = torch.from_numpy(np.diff(steps, prepend=steps[0])).float()
    return world.known(condition, lead.expand(len(init), -1))
