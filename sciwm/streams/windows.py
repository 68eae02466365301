"""Which times make a sample, and in what order samples come: index arithmetic, no reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from sciwm.store.split import LABELS

__all__ = [
    "Ordering",
    "Plan",
    "Rules",
    "Spacing",
    "Uses",
    "Windows",
    "block_uses",
    "find_windows",
    "plan_epoch",
    "plan_size",
    "window_starts",
]

Ordering = Literal["global", "block", "none"]
Steps = TypeVar("Steps", int, np.ndarray)


@dataclass(frozen=True)
class Spacing:
    """How the states of a window lie in time.

    The first h = ``context`` states are c = ``context_step`` time steps apart. Every later state is
    one stride s after the one before. From the first state they are 0, c, …, (h−1)·c, (h−1)·c + s,
    (h−1)·c + 2·s, … steps away. A window draws s from ``lead_steps``. With a context of one, all
    states are one stride apart.

    Parameters
    ----------
    length : int
        States per window.
    context : int
        How many of them are context.
    context_step : int
        Time steps between the states of the context.

    Raises
    ------
    ValueError
        If a number is less than 1, or the context is longer than the window.

    Examples
    --------
    >>> Spacing(5, context=3, context_step=2).offsets(np.array([1, 10]))
    array([[ 0,  2,  4,  5,  6],
           [ 0,  2,  4, 14, 24]])
    """

    length: int
    context: int = 1
    context_step: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"got a window of {self.length} states, expected at least 1")
        if not 1 <= self.context <= self.length:
            raise ValueError(
                f"got context {self.context}, expected 1 to {self.length}, because the context is"
                f" part of a window of {self.length} states"
            )
        if self.context_step < 1:
            raise ValueError(f"got context_step {self.context_step}, expected at least 1")

    def span(self, stride: Steps) -> Steps:
        """Time steps from the first state to the last, of a stride or of each of several."""
        return (self.context - 1) * self.context_step + (self.length - self.context) * stride

    def offsets(self, strides: np.ndarray) -> np.ndarray:
        """Time steps from the first state to every state, ``[sample, length]``."""
        place = np.arange(self.length)
        before = np.minimum(place, self.context - 1) * self.context_step
        after = np.maximum(place - self.context + 1, 0)
        return np.asarray(before + strides[:, None] * after)


@dataclass(frozen=True)
class Windows:
    """All windows of one block of the split, for several strides at once.

    A window that fits with a long stride fits with every shorter one. So a count per start says
    which strides do.

    Parameters
    ----------
    starts : int64, ``[window]``
        First time of every window, ascending.
    num_strides : int64, ``[window]``
        How many of ``lead_steps``, from the shortest, fit in the same run of times.
    lead_steps : tuple of int
        Strides in time steps, ascending.
    spacing : Spacing
        How the states of every window lie in time.
    """

    starts: np.ndarray
    num_strides: np.ndarray
    lead_steps: tuple[int, ...]
    spacing: Spacing

    def __len__(self) -> int:
        return len(self.starts)

    def touched(self, num_times: int) -> np.ndarray:
        """Which of so many times lie in any window."""
        change = np.zeros(num_times + 1, np.int64)
        span = self.spacing.span(np.asarray(self.lead_steps)[self.num_strides - 1])
        np.add.at(change, self.starts, 1)
        np.add.at(change, self.starts + span + 1, -1)
        return np.asarray(np.cumsum(change[:-1]) > 0)


@dataclass(frozen=True, eq=False)
class Rules:
    """How the windows of an epoch are chosen and mixed.

    ``global`` permutes all windows, for data held in memory. ``block`` permutes blocks of times and
    cuts the row of blocks into equal parts for the ranks. Within ``pool`` neighbouring blocks of
    the row it shuffles windows, so that a few blocks in memory suffice. ``none`` keeps the order of
    time.

    Parameters
    ----------
    seed : int
        Seed of the order.
    order : {"global", "block", "none"}
        What is permuted.
    block, pool : int
        Times per block and blocks mixed.
    every : int
        An epoch takes each ``every``-th window. Its phase changes, so that ``every`` epochs see all
        of them.
    weights : float, ``[window]``, optional
        How often each window is drawn, relative to the mean. A window of weight w comes
        ⌊w / every⌋ or ⌈w / every⌉ times; an epoch is as long as without weights.
    """

    seed: int
    order: Ordering = "global"
    block: int = 256
    pool: int = 16
    every: int = 1
    weights: np.ndarray | None = None

    def period(self, num: int) -> int:
        """Epochs that see all of so many windows once: ``every``, if there are as many."""
        return max(1, min(self.every, num))


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


def window_starts(
    label: np.ndarray, segment: np.ndarray, *, which: str | int, span: int
) -> np.ndarray:
    """Starts of all windows ``start … start + span`` of one block of the split.

    A window lies in one run of times of the block, and in one segment.

    Parameters
    ----------
    label : int8, ``[time]``
        0 train, 1 validation, 2 test, −1 none.
    segment : int, ``[time]``
        Trajectory or piece of the record.
    which : {"train", "validation", "test"} or int
        Block of the split.
    span : int
        Time steps from the first state of a window to its last.

    Returns
    -------
    ndarray of int64
        Ascending; empty if no window fits.

    Examples
    --------
    >>> window_starts(np.array([0, 0, 0, 0, 1, 0, 0]), np.zeros(7), which="train", span=2)
    array([0, 1])
    """
    wanted = np.asarray(label) == (LABELS[which] if isinstance(which, str) else which)
    broken = (wanted[1:] != wanted[:-1]) | (np.asarray(segment)[1:] != np.asarray(segment)[:-1])
    ends = np.append(np.flatnonzero(broken), len(wanted) - 1)
    index = np.flatnonzero(wanted)
    last = ends[np.searchsorted(ends, index)]
    return index[index + span <= last].astype(np.int64)


def find_windows(
    label: np.ndarray,
    segment: np.ndarray,
    *,
    which: str,
    spacing: Spacing,
    lead_steps: Sequence[int] = (1,),
) -> Windows:
    """All windows of a block for several strides; a start is kept if the shortest stride fits.

    Raises
    ------
    ValueError
        If a stride is less than 1, or no window fits with the longest. The message says how many
        times in a row it needs.
    """
    strides = tuple(sorted({int(s) for s in lead_steps}))
    if not strides:
        raise ValueError("got no lead_steps, expected at least one stride")
    if strides[0] < 1:
        raise ValueError(f"got lead_steps {list(strides)}, expected each to be at least 1")
    spans = [spacing.span(s) for s in strides]
    fits = [window_starts(label, segment, which=which, span=span) for span in spans]
    if not len(fits[-1]):
        have = int((np.asarray(label) == LABELS[which]).sum())
        raise ValueError(
            f"got a {which} block of {have} times without {spans[-1] + 1} in a row, expected that"
            f" many, because windows have {_in_words(spacing, strides[-1])}; lengthen the block or"
            f" shorten lead_steps,{' context_step,' * (spacing.context > 1)} history or rollout"
        )
    count = np.ones(len(fits[0]), np.int64)
    for starts in fits[1:]:
        count[np.searchsorted(fits[0], starts)] += 1
    return Windows(fits[0], count, strides, spacing)


def _in_words(spacing: Spacing, stride: int) -> str:
    """What a window consists of, for a message."""
    if spacing.context == 1:
        return f"{spacing.length} states {stride} steps apart"
    return (
        f"{spacing.context} states of context {spacing.context_step} steps apart and"
        f" {spacing.length - spacing.context} after them {stride} steps apart"
    )


def plan_epoch(
    windows: Windows,
    rules: Rules,
    *,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    past: Sequence[tuple[int, int]] = (),
) -> Plan:
    """Order the windows of one epoch: a pure function of its arguments.

    It is cheap enough for millions of windows.

    Parameters
    ----------
    windows : Windows
        What to order.
    rules : Rules
        The same on every rank.
    epoch, rank, world_size : int
        Ranks get disjoint windows, equally many each. The few left over (fewer than ranks) differ
        from epoch to epoch.
    past : sequence of (world_size, windows per rank)
        What was served of this epoch under other numbers of ranks; the rest is dealt anew.

    Returns
    -------
    Plan
    """
    chosen, seeds = _remaining(windows, rules, epoch, past)
    mine, own = _deal(windows.starts[chosen], rules, seeds, rank, world_size)
    picked = chosen[mine]
    drawn = (own.random(len(mine)) * windows.num_strides[picked]).astype(np.int64)
    starts = windows.starts[picked]
    return Plan(starts, np.asarray(windows.lead_steps)[drawn], starts // rules.block)


def plan_size(
    windows: Windows,
    rules: Rules,
    *,
    epoch: int,
    world_size: int = 1,
    past: Sequence[tuple[int, int]] = (),
) -> int:
    """Samples per rank in (what is left of) an epoch, the same on every rank, without the plan."""
    num = len(windows)
    if rules.weights is None:
        num = len(range(_phase(num, rules, epoch), num, rules.period(num)))
    else:
        num = len(_chosen(num, rules, epoch))
    return (num - sum(ranks * served for ranks, served in past)) // world_size


@dataclass(frozen=True)
class Uses:
    """Which blocks the batches of (the rest of) an epoch need, in the order of first use.

    Parameters
    ----------
    first, last : int64, ``[block]``
        First (ascending) and last batch that needs the block.
    start, stop : int64, ``[block]``
        Times from ``start`` to before ``stop`` that it must hold.
    member : int64, ``[sample]``
        The block, by its place here, of every sample from the first batch on.
    most_live : int
        Most blocks in use at once.
    """

    first: np.ndarray
    last: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    member: np.ndarray
    most_live: int


def block_uses(plan: Plan, batch_size: int, spacing: Spacing, first_batch: int, count: int) -> Uses:
    """Which blocks the batches of an epoch need, from ``first_batch`` to before ``count``."""
    part = slice(first_batch * batch_size, count * batch_size)
    starts, strides = plan.starts[part], plan.strides[part]
    _, leader, member = np.unique(plan.blocks[part], return_index=True, return_inverse=True)
    place = np.empty(len(leader), np.int64)
    place[np.argsort(leader)] = np.arange(len(leader))
    member = place[member]
    batch = first_batch + np.arange(len(starts)) // batch_size
    first, start = (np.full(len(leader), np.iinfo(np.int64).max) for _ in range(2))
    last, stop = (np.zeros(len(leader), np.int64) for _ in range(2))
    np.minimum.at(first, member, batch)
    np.maximum.at(last, member, batch)
    np.minimum.at(start, member, starts)
    np.maximum.at(stop, member, starts + spacing.span(strides) + 1)
    change = np.zeros(max(count, int(last.max(initial=0)) + 1) + 1, np.int64)
    np.add.at(change, first, 1)
    np.add.at(change, last + 1, -1)
    return Uses(first, last, start, stop, member, int(np.cumsum(change).max(initial=0)))


def _remaining(
    windows: Windows, rules: Rules, epoch: int, past: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, list[int]]:
    """Windows of the epoch that were not served yet, and the seeds for dealing them."""
    chosen = _chosen(len(windows), rules, epoch)
    for number, (ranks, served) in enumerate(past):
        seeds = [rules.seed, epoch, *([number] if number else [])]
        starts = windows.starts[chosen]
        gone = [_deal(starts, rules, seeds, r, ranks)[0][:served] for r in range(ranks)]
        chosen = np.delete(chosen, np.concatenate(gone))
    return chosen, [rules.seed, epoch, *([len(past)] if past else [])]


def _deal(
    starts: np.ndarray, rules: Rules, seeds: list[int], rank: int, world_size: int
) -> tuple[np.ndarray, np.random.Generator]:
    """Positions in ``starts`` that a rank serves, in order, and the rank's own generator."""
    seed, epoch, *part = seeds
    size = len(starts) // world_size
    own = np.random.default_rng([seed, epoch, rank, 2, *part])
    if rules.order == "none":
        return np.arange(rank * size, (rank + 1) * size), own
    common = np.random.default_rng([seed, epoch, 1, *part])
    if rules.order == "global":
        return common.permutation(len(starts))[rank::world_size][:size], own
    blocks, inverse = np.unique(starts // rules.block, return_inverse=True)
    place = common.permutation(len(blocks))[inverse]
    row = np.argsort(place, kind="stable")[rank * size : (rank + 1) * size]
    if not len(row):
        return row, own
    # Place in the rank's own row p = 0 … P−1. The windows of the block at p get sort keys spread
    # evenly over an interval as long as the pool, so that each block is needed for one stretch
    # only. An epoch begins and ends with half of the pool: while its last half is used, the first
    # half of the next epoch is read into the slots that are free by then.
    p = np.unique(place[row], return_inverse=True)[1]
    count, pool, half = int(p[-1]) + 1, rules.pool, (rules.pool + 1) // 2
    low, high = np.maximum(p - half + 1, 0), np.minimum(p + 1 + pool - half, count)
    if count <= pool:
        low, high = np.zeros_like(p), np.ones_like(p)
    key = low + (high - low) * own.random(len(row))
    return row[np.argsort(key, kind="stable")], own


def _chosen(num: int, rules: Rules, epoch: int) -> np.ndarray:
    if rules.weights is None:
        return np.arange(_phase(num, rules, epoch), num, rules.period(num))
    # Systematic sampling: evenly spaced points on the cumulated weights, from a random first one.
    length = max(1, num // rules.every)
    total = np.cumsum(rules.weights, dtype=np.float64) * (
        length / np.sum(rules.weights, dtype=np.float64)
    )
    first = np.random.default_rng([rules.seed, epoch, 0]).random()
    points = np.floor(total + first).astype(np.int64)
    return np.repeat(np.arange(num), np.diff(points, prepend=0))


def _phase(num: int, rules: Rules, epoch: int) -> int:
    period = rules.period(num)
    phases = np.random.default_rng([rules.seed, epoch // period, 0]).permutation(period)
    return int(phases[epoch % period])
