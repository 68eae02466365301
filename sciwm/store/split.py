"""Which times train, choose and score: labels of the time axis, with gaps that no window spans."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import xarray as xr

from sciwm.times import numeric_time

__all__ = ["LABELS", "Blocks", "Split", "crossing_steps", "split_times"]

LABELS: dict[str, int] = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Split:
    """Labels of a time axis, as stored in a training store.

    Parameters
    ----------
    label : int8, ``[time]``
        0 train, 1 validation, 2 test, −1 none.
    """

    label: np.ndarray

    def mask(self, which: str) -> np.ndarray:
        """Boolean ``[time]``: the times of one block."""
        return np.asarray(self.label == LABELS[which])

    def describe(self, time: Any) -> dict[str, list[str]]:
        """First and last time of every block that is not empty, as text."""
        values = np.asarray(time)
        found = {which: values[self.mask(which)] for which in ("train", "validation", "test")}
        return {which: [str(t[0]), str(t[-1])] for which, t in found.items() if t.size}


@dataclass(frozen=True)
class Blocks:
    """The times that train, choose and score.

    Parameters
    ----------
    by : {"time", "step", "segment"}
        What the blocks hold: ``[first, last]`` dates, both included (``"2006"`` is the whole year);
        ``[start, stop)`` positions; or segment numbers.
    train, validation, test : sequence
        The blocks; an empty validation or test block is left out.
    gap_steps : int
        Steps lost where blocks touch; a window's span, context plus longest lead. By segment
        nothing is lost, but every block needs a segment that holds a window.

    Raises
    ------
    ValueError
        If there is no training block, ``by`` is another word, or the gap is negative.
    """

    train: Sequence[Any]
    validation: Sequence[Any] = ()
    test: Sequence[Any] = ()
    by: Literal["time", "step", "segment"] = "time"
    gap_steps: int = 0

    def __post_init__(self) -> None:
        if self.by not in ("time", "step", "segment"):
            raise ValueError(f"got split by {self.by!r}, expected 'time', 'step' or 'segment'")
        if self.gap_steps < 0:
            raise ValueError(f"got gap_steps {self.gap_steps}, expected 0 or more")
        if not len(self.train):
            raise ValueError(
                "got an empty training block, expected data.split.train to name times to learn from"
            )


def split_times(time: Any, blocks: Blocks, segment: Any = None) -> np.ndarray:
    """Label every time as train (0), validation (1), test (2) or none (−1).

    Where two blocks follow one another within a segment, the later one loses its first steps. More
    than ``gap_steps`` steps then lie between the last time of the one and the first of the other.

    Parameters
    ----------
    time : DataArray or array, ``[time]``
        ``datetime64``, ``cftime`` or plain picoseconds, increasing inside each segment.
    blocks : Blocks
        The times of each block, and the gap between them.
    segment : array of int, ``[time]``, optional
        Trajectory or piece of the record; default one. Each is one contiguous run.

    Returns
    -------
    ndarray of int8, ``[time]``

    Raises
    ------
    ValueError
        If blocks overlap, hold no time, or are too short for one window after the gap.

    Examples
    --------
    >>> split_times(np.arange(9.0), Blocks([0, 4], test=[4, 9], by="step", gap_steps=2))
    array([ 0,  0,  0,  0, -1, -1,  2,  2,  2], dtype=int8)
    """
    values = np.asarray(time.values if isinstance(time, xr.DataArray) else time)
    pieces = np.zeros(len(values), dtype=np.int64) if segment is None else np.asarray(segment)
    chosen = {name: getattr(blocks, name) for name in LABELS}
    masks = {
        name: _mask(values, pieces, blocks.by, name, block)
        for name, block in chosen.items()
        if len(block)
    }
    label = np.full(len(values), -1, dtype=np.int8)
    for name, mask in masks.items():
        _check_overlap(values, label, mask, name)
        label[mask] = LABELS[name]
    if blocks.by != "segment":
        label = _open_gaps(values, pieces, label, blocks.gap_steps)
    _check_length(values, pieces, label, masks, blocks)
    return label


def crossing_steps(
    time: Any, segment: Any, label: np.ndarray, gap_steps: int
) -> dict[str, np.ndarray]:
    """Find the times of each block that another block precedes by at most ``gap_steps`` steps.

    Segments of one record count as neighbours, too.

    Parameters
    ----------
    time, segment : array, ``[time]``
    label : int8, ``[time]``
        As `split_times` returns; by segment it takes nothing from a block.
    gap_steps : int

    Returns
    -------
    dict
        Positions, for blocks with any. Trajectories whose times overlap are infinitely far apart.

    Examples
    --------
    >>> crossing_steps(
    ...     np.array([0.0, 1, 2, 4, 5, 6]),
    ...     np.array([0, 0, 0, 1, 1, 1]),
    ...     np.array([0, 0, 0, 2, 2, 2], "int8"),
    ...     2,
    ... )
    {'test': array([3])}
    """
    values = np.asarray(time.values if isinstance(time, xr.DataArray) else time)
    lost = (label >= 0) & (_open_gaps(values, np.asarray(segment), label, gap_steps) < 0)
    found = {name: np.flatnonzero(lost & (label == number)) for name, number in LABELS.items()}
    return {name: index for name, index in found.items() if index.size}


def _mask(
    values: np.ndarray, segment: np.ndarray, by: str, name: str, block: Sequence[Any]
) -> np.ndarray:
    if by == "segment":
        absent = sorted({int(s) for s in block} - set(np.unique(segment).tolist()))
        if absent:
            raise ValueError(
                f"got {name} segments {absent}, expected some of 0 … {int(segment.max())}, those of"
                " the data"
            )
        return np.isin(segment, np.asarray(block, dtype=np.int64))
    if len(block) != 2:
        two = "[first, last]" if by == "time" else "[start, stop)"
        raise ValueError(f"got {name} block {list(block)}, expected two entries, {two}")
    if by == "step":
        start, stop = (int(b) for b in block)
        if not 0 <= start < stop:
            raise ValueError(f"got {name} steps [{start}, {stop}), expected 0 ≤ start < stop")
        if stop > len(values):
            raise ValueError(
                f"got {name} steps [{start}, {stop}), but the data have {len(values)}:"
                f" {stop - len(values)} steps are missing"
            )
        index = np.arange(len(values))
        return np.asarray((index >= start) & (index < stop))
    if values.dtype.kind in "iuf":
        mask = (values >= float(block[0])) & (values <= float(block[1]))
    else:
        hours = numeric_time(values)
        first, end = _instant(str(block[0]), values), _instant(str(block[1]), values, after=True)
        mask = (hours >= first) & (hours < end)
    if not mask.any():
        raise ValueError(
            f"got {name} block {[str(b) for b in block]} without any time, expected times between"
            f" {values[0]} and {values[-1]}, those of the data"
        )
    return np.asarray(mask)


def _instant(text: str, values: np.ndarray, *, after: bool = False) -> float:
    """Hours of the first instant of a date such as ``2006-03-01T12``, or of the first after it."""
    match = re.fullmatch(
        r"(\d{1,4})(?:-(\d\d?)(?:-(\d\d?)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.0+)?)?)?)?)?)?Z?",
        text.strip(),
    )
    if not match:
        raise ValueError(
            f"got date {text!r}, expected ISO 8601 such as 2006, 2006-03, 2006-03-01 or"
            " 2006-03-01T12"
        )
    given = [int(g) for g in match.groups() if g is not None]
    year, month, day, hour, minute, second = given + [1, 1, 1, 0, 0, 0][len(given) :]
    if values.dtype.kind == "M":
        stamp = np.datetime64(f"{year:04d}-{month:02d}", "M")
        length = int(
            ((stamp + 1).astype("datetime64[D]") - stamp.astype("datetime64[D]")).astype(int)
        )
        ends = np.array([stamp, np.datetime64(f"{year + 1:04d}", "M")])
    else:
        kind = type(values[0])
        ends = np.array([kind(year, month, 1), kind(year + 1, 1, 1)], dtype=object)
        length = ends[0].daysinmonth
    start, year_end = (float(h) for h in numeric_time(ends))
    if after and len(given) == 1:
        return year_end
    day = min(day, length)  # the 31st of a 360-day calendar is its 30th
    unit = [0.0, length * 24.0, 24.0, 1.0, 1 / 60, 1 / 3600][len(given) - 1]
    instant = start + (day - 1) * 24.0 + hour + minute / 60 + second / 3600
    return instant + (unit - 1e-7 if after else -1e-7)


def _check_overlap(values: np.ndarray, label: np.ndarray, mask: np.ndarray, name: str) -> None:
    for other, number in LABELS.items():
        both = np.flatnonzero(mask & (label == number))
        if both.size:
            raise ValueError(
                f"got {other} and {name} blocks that overlap from {values[both[0]]} to"
                f" {values[both[-1]]} ({both.size} steps), expected disjoint ones, because scores"
                " on times seen in training mean nothing"
            )


def _open_gaps(
    values: np.ndarray, segment: np.ndarray, label: np.ndarray, gap_steps: int
) -> np.ndarray:
    hours = numeric_time(values)
    jump = np.diff(hours)
    same = segment[1:] == segment[:-1]
    step = np.median(jump[same]) if same.any() else 1.0
    # Segments of one record are as far apart as their times say; several trajectories infinitely.
    one_record = bool((jump > 0).all())
    apart = np.maximum(np.round(jump / step), 1.0) if one_record else gap_steps + 1.0
    position = np.concatenate([[0.0], np.cumsum(np.where(same, 1.0, apart))])
    index = np.arange(len(label))
    opened = label.copy()
    for number in LABELS.values():
        other = (label >= 0) & (label != number)
        last = np.maximum.accumulate(np.where(other, index, -1))
        near = (last >= 0) & (position - position[last] <= gap_steps)
        opened[(label == number) & near] = -1
    return opened


def _check_length(
    values: np.ndarray,
    segment: np.ndarray,
    label: np.ndarray,
    masks: Mapping[str, np.ndarray],
    blocks: Blocks,
) -> None:
    """Every block must hold one window: ``gap_steps`` steps, so one state more."""
    needed = blocks.gap_steps + 1
    for name, mask in masks.items():
        kept = label == LABELS[name]
        edges = np.flatnonzero(np.diff(np.concatenate([[-1], np.where(kept, segment, -1), [-1]])))
        runs = ((int(b - a), int(segment[a])) for a, b in pairwise(edges) if kept[a])
        longest, at = max(runs, default=(0, -1))
        if longest >= needed:
            continue
        if blocks.by == "segment":
            raise ValueError(
                f"got a {name} block whose longest segment, {at}, has {longest} steps, expected at"
                f" least {needed}, one window of context and longest lead: {needed - longest} steps"
                " are missing; name a longer segment or shorten the longest lead"
            )
        first, last = values[mask][0], values[mask][-1]
        raise ValueError(
            f"got a {name} block of {int(mask.sum())} steps ({first} … {last}) of which {longest}"
            f" in a row remain after a gap of {blocks.gap_steps}, expected at least {needed}:"
            f" {needed - longest} steps are missing; lengthen the block or shorten the longest lead"
        )
