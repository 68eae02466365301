"""Which times make a sample, and in what order samples come: index arithmetic without any reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sciwm.data.split import LABELS

__all__ = ["Plan", "Windows", "find_windows", "plan_epoch", "plan_size", "window_starts"]

Order = Literal["global", "block", "none"]


@dataclass(frozen=True)
class Windows:
    """All windows of one block of the split, for several strides at once.

    A window that fits with a long stride fits with every shorter one, so a count per start says which strides do.

    Parameters
    ----------
    starts : int64, ``[window]``
        First time of every window, ascending.
    num_strides : int64, ``[window]``
        How many of ``lead_steps``, from the shortest, fit in the same run of times.
    lead_steps : tuple of int
        Strides in time steps, ascending.
    length : int
        States per window.
    """

    starts: np.ndarray
    num_strides: np.ndarray
    lead_steps: tuple[int, ...]
    length: int

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class Plan:
    """The samples of one epoch on one rank, in order.

    Parameters
    ----------
    starts, strides : int64, ``[sample]``
        First time and stride of every window.
    blocks : int64, ``[sample]``
        Block of times that is read for the sample.
    """

    starts: np.ndarray
    strides: np.ndarray
    blocks: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


def window_starts(label: np.ndarray, segment: np.ndarray, *, which: str | int, length: int, stride: int = 1) -> np.ndarray:
    """Starts of all windows ``start + stride · (0 … length − 1)`` inside one run of one block of the split and one segment.

    Parameters
    ----------
    label : int8, ``[time]``
        0 train, 1 validation, 2 test, −1 none.
    segment : int, ``[time]``
        Trajectory or piece of the record.
    which : {"train", "validation", "test"} or int
        Block of the split.
    length, stride : int
        States per window and time steps between them.

    Returns
    -------
    ndarray of int64
        Ascending; empty if no window fits.

    Examples
    --------
    >>> window_starts(np.array([0, 0, 0, 0, 1, 0, 0]), np.zeros(7), which="train", length=2, stride=2)
    array([0, 1])
    """
    if length < 1 or stride < 1:
        raise ValueError(f"got windows of length {length} and stride {stride}, expected both at least 1")
    wanted = np.asarray(label) == (LABELS[which] if isinstance(which, str) else which)
    broken = (wanted[1:] != wanted[:-1]) | (np.asarray(segment)[1:] != np.asarray(segment)[:-1])
    ends = np.append(np.flatnonzero(broken), len(wanted) - 1)
    index = np.flatnonzero(wanted)
    last = ends[np.searchsorted(ends, index)]
    return index[index + stride * (length - 1) <= last].astype(np.int64)


def find_windows(label: np.ndarray, segment: np.ndarray, *, which: str, length: int, lead_steps: Sequence[int] = (1,)) -> Windows:
    """All windows of a block for several strides; a start is kept if the shortest stride fits.

    Raises
    ------
    ValueError
        If no window fits, or not a single one with the longest stride; the message says how long the runs of times are.
    """
    strides = tuple(sorted({int(s) for s in lead_steps}))
    if not strides:
        raise ValueError("got no lead_steps, expected at least one stride")
    fits = [window_starts(label, segment, which=which, length=length, stride=s) for s in strides]
    if not len(fits[-1]):
        have = int((np.asarray(label) == LABELS[which]).sum())
        need = strides[-1] * (length - 1) + 1
        raise ValueError(
            f"got a {which} block of {have} times without {need} in a row, expected that many, because windows have {length} states "
            f"{strides[-1]} steps apart; lengthen the block or shorten lead_steps, history or rollout"
        )
    count = np.ones(len(fits[0]), np.int64)
    for starts in fits[1:]:
        count[np.searchsorted(fits[0], starts)] += 1
    return Windows(fits[0], count, strides, length)


def plan_epoch(
    windows: Windows,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    order: Order = "global",
    block: int = 256,
    pool: int = 16,
    every: int = 1,
) -> Plan:
    """Order the windows of one epoch: a pure function of its arguments, cheap enough for millions of windows.

    ``global`` permutes all windows, for data held in memory. ``block`` permutes blocks of times, deals them to the
    ranks and shuffles windows within about ``pool`` neighbouring blocks (the window of the block at place p gets the
    sort key p + pool · u, u uniform), so that a few blocks in memory suffice. ``none`` keeps the order of time.

    Parameters
    ----------
    windows : Windows
        What to order.
    seed, epoch, rank, world_size : int
        Ranks get disjoint windows, equally many each; the few left over differ from epoch to epoch.
    block, pool : int
        Times per block and blocks mixed.
    every : int
        An epoch takes each ``every``-th window, from a phase that changes so that ``every`` epochs see all of them.

    Returns
    -------
    Plan
    """
    chosen = _chosen(len(windows), seed, epoch, every)
    starts = windows.starts[chosen]
    number = starts // block
    size = _rank_size(starts, seed, epoch, world_size, order, block)
    own = np.random.default_rng([seed, epoch, rank, 2])
    if order == "global":
        mine = np.random.default_rng([seed, epoch, 1]).permutation(len(chosen))[rank::world_size]
    elif order == "block":
        place = _block_places(starts, seed, epoch, block)[number - number[0]]
        mine = np.flatnonzero(place % world_size == rank)
        mine = mine[np.argsort(place[mine] // world_size + pool * own.random(len(mine)), kind="stable")]
    else:
        mine = np.arange(rank * size, (rank + 1) * size)
    mine = mine[:size]
    strides = np.asarray(windows.lead_steps)[(own.random(size) * windows.num_strides[chosen][mine]).astype(np.int64)]
    return Plan(starts[mine], strides, number[mine])


def plan_size(
    windows: Windows, *, seed: int, epoch: int, world_size: int = 1, order: Order = "global", block: int = 256, every: int = 1
) -> int:
    """Samples per rank in an epoch, the same on every rank, without making the plan."""
    if order != "block":
        return len(range(_phase(len(windows), seed, epoch, every), len(windows), max(1, min(every, len(windows))))) // world_size
    return _rank_size(windows.starts[_chosen(len(windows), seed, epoch, every)], seed, epoch, world_size, order, block)


def _chosen(num: int, seed: int, epoch: int, every: int) -> np.ndarray:
    return np.arange(_phase(num, seed, epoch, every), num, max(1, min(every, num)))


def _phase(num: int, seed: int, epoch: int, every: int) -> int:
    every = max(1, min(every, num))
    return int(np.random.default_rng([seed, epoch // every, 0]).permutation(every)[epoch % every])


def _block_places(starts: np.ndarray, seed: int, epoch: int, block: int) -> np.ndarray:
    """Place in the epoch's permutation of every block from the first to the last that hold windows."""
    first, last = int(starts[0] // block), int(starts[-1] // block)
    present = np.bincount(starts // block - first, minlength=last - first + 1) > 0
    places = np.full(len(present), -1, np.int64)
    places[present] = np.random.default_rng([seed, epoch, 1]).permutation(int(present.sum()))
    return places


def _rank_size(starts: np.ndarray, seed: int, epoch: int, world_size: int, order: Order, block: int) -> int:
    if order != "block":
        return len(starts) // world_size
    place = _block_places(starts, seed, epoch, block)[starts // block - starts[0] // block]
    return int(np.bincount(place % world_size, minlength=world_size).min())
