"""States in memory: blocks of times read ahead by threads into slots of one tensor, or a whole block of the split."""

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from sciwm.data.chunks import Found, rows
from sciwm.data.source import Source
from sciwm.data.windows import Windows

__all__ = ["Pool", "States", "load_states"]

_PIECE = 2**24  # bytes read by one call where a whole block of the split is loaded


@dataclass
class States:
    """Rows of states, and what is known of them.

    Parameters
    ----------
    values : Tensor, ``[row, ...state]``
    missing : bool
        Whether any value may be NaN.
    bad : bool, ``[row]``, or None
        Rows that could not be read and are to be skipped; None: not one.
    """

    values: torch.Tensor
    missing: bool = False
    bad: np.ndarray | None = None


class Filler:
    """Reads times into rows; decides what becomes of chunks that cannot be read."""

    def __init__(self, source: Source, dtype: torch.dtype, on_error: Literal["raise", "skip"]) -> None:
        self._source, self._dtype, self._on_error = source, dtype, on_error
        self._scratch = threading.local()

    def fill(self, start: int, stop: int, out: torch.Tensor) -> Found:
        """Read the states of the times from ``start`` to before ``stop``."""
        if self._dtype == torch.float32:
            found = self._source.reader.read(start, stop, out.numpy())
        else:
            buffer = getattr(self._scratch, "buffer", None)
            if buffer is None or len(buffer) < stop - start:
                buffer = self._scratch.buffer = torch.empty((stop - start, *out.shape[1:]))
            found = self._source.reader.read(start, stop, buffer[: stop - start].numpy())
            out.copy_(buffer[: stop - start])
        if found.failed and self._on_error == "raise":
            first, names = found.failed[0], self._source.names
            raise OSError(f"could not read the states of times {names[first.start]} … {names[first.stop - 1]}: {first.message}")
        # A chunk may begin before these times and end after them.
        failed = [replace(f, start=max(f.start, start), stop=min(f.stop, stop)) for f in found.failed]
        return Found(found.missing, tuple(failed))


@dataclass
class _Slot:
    number: int
    start: int
    found: Future[Found] = field(repr=False)


class Pool:
    """Slots of one tensor that background threads fill with blocks of times."""

    def __init__(self, filler: Filler, state: Sequence[int], dtype: torch.dtype, *, slot_times: int, slots: int, threads: int) -> None:
        self._filler, self._times = filler, slot_times
        self.states = States(torch.empty((slots * slot_times, *state), dtype=dtype))
        self._free = list(range(slots))[::-1]
        self._held: dict[tuple[int, int], _Slot] = {}
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="sciwm-read", initializer=_step_back)

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._held

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    def submit(self, key: tuple[int, int], start: int, stop: int) -> None:
        """Have a block read; the pool grows if every slot is in use, which happens where windows are much sparser in some blocks."""
        if not self._free:
            for slot in self._held.values():
                slot.found.result()
            more = torch.empty((self._times, *self.states.values.shape[1:]), dtype=self.states.values.dtype)
            self._free.append(len(self.states.values) // self._times)
            self.states.values = torch.cat([self.states.values, more])
            if self.states.bad is not None:
                self.states.bad = np.append(self.states.bad, np.zeros(self._times, bool))
        number = self._free.pop()
        out = self.states.values[number * self._times :][: stop - start]
        self._held[key] = _Slot(number, start, self._executor.submit(self._filler.fill, start, stop, out))

    def wait(self, key: tuple[int, int]) -> tuple[int, bool]:
        """Return what must be added to a time to find its row, once the block is there, and whether it misses values."""
        slot = self._held[key]
        found = slot.found.result()
        first = slot.number * self._times
        if found.failed and self.states.bad is None:
            self.states.bad = np.zeros(len(self.states.values), bool)
        if self.states.bad is not None:
            self.states.bad[first : first + self._times] = False
            for f in found.failed:
                self.states.bad[first + f.start - slot.start : first + f.stop - slot.start] = True
        return first - slot.start, found.missing

    def release(self, keys: Sequence[tuple[int, int]]) -> None:
        """Free the slots of blocks that no batch needs any more."""
        for key in keys:
            self._free.append(self._held.pop(key).number)

    def close(self) -> None:
        """Stop the readers."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _step_back() -> None:
    """Let the thread that trains go first on a processor that both want: readers are ahead of it, and have time until it waits for them."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10))


def load_states(filler: Filler, source: Source, windows: Windows, dtype: torch.dtype, *, threads: int) -> tuple[States, np.ndarray]:
    """Read the states of all times that any window touches; return them and the row of every time."""
    needed = windows.touched(source.shape[0])
    place = np.cumsum(needed) - 1
    states = States(torch.empty((int(needed.sum()), *source.shape[1:]), dtype=dtype))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], needed, [False]])))
    step = source.reader.chunk * max(1, _PIECE // (source.reader.chunk * source.state_bytes))
    with ThreadPoolExecutor(threads, thread_name_prefix="sciwm-read") as executor:
        tasks = []
        for start, stop in edges.reshape(-1, 2).tolist():
            for a, b in rows(start, stop, step):
                tasks.append(executor.submit(filler.fill, a, b, states.values[place[a] : place[a] + b - a]))
        try:
            for task in tasks:
                found = task.result()
                states.missing |= found.missing
                for f in found.failed:
                    states.bad = np.zeros(len(states.values), bool) if states.bad is None else states.bad
                    states.bad[place[f.start] : place[f.stop - 1] + 1] = True
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    return states, place
