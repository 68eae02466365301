"""States in memory: blocks of times that threads read ahead, or a whole block of the split."""

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from sciwm.chunks.chunks import Found, rows
from sciwm.streams.source import Source
from sciwm.streams.windows import Windows

__all__ = ["Pool", "States", "load_states"]

_PIECE = 2**24  # bytes read by one call where a whole block of the split is loaded


@dataclass
class States:
    """Rows of states in slots of equal length; rows count on from slot to slot.

    Parameters
    ----------
    values : Tensor, ``[slot, part, row, ...]``
        A part is a channel where every channel is read by itself, else the whole state. Channels
        apart let chunks be decoded where they stay.
    missing : bool
        Whether any value may be NaN.
    bad : bool, ``[row]``, or None
        Rows that could not be read and are to be skipped; None: not one.
    """

    values: torch.Tensor
    missing: bool = False
    bad: np.ndarray | None = None

    @classmethod
    def empty(cls, source: Source, dtype: torch.dtype, *, slots: int, rows: int) -> "States":
        """Uninitialised slots for the states of a source."""
        state = source.shape[1:] if source.apart else (1, *source.shape[1:])
        return cls(torch.empty((slots, state[0], rows, *state[1:]), dtype=dtype))

    def __len__(self) -> int:
        return self.values.shape[0] * self.values.shape[2]

    def add_slot(self) -> None:
        """Make room for one more slot; everything moves."""
        self.values = torch.cat([self.values, torch.empty_like(self.values[:1])])
        if self.bad is not None:
            self.bad = np.append(self.bad, np.zeros(self.values.shape[2], bool))

    def slot(self, number: int, start: int, stop: int) -> torch.Tensor:
        """Rows of one slot as ``[row, part, ...]``: a view to write to."""
        return self.values[number, :, start:stop].transpose(0, 1)

    def mark_bad(self, rows: slice, *, bad: bool) -> None:
        """Say of rows whether they could be read."""
        if self.bad is None:
            self.bad = np.zeros(len(self), bool)
        self.bad[rows] = bad

    def take(self, rows: np.ndarray, out: torch.Tensor) -> None:
        """Copy rows, in any number and order, to contiguous memory of the same type."""
        count, parts = self.values.shape[2], self.values.shape[1]
        first = rows.ravel() + rows.ravel() // count * (count * (parts - 1))
        places = (first[:, None] + count * np.arange(parts)).ravel()
        # Numpy knows no bfloat16; torch.index_select would start a second set of OpenMP threads in
        # a background thread.
        source, target = (
            (t.view(torch.int16) if t.dtype == torch.bfloat16 else t)
            .view(-1, *self.values.shape[3:])
            .numpy()
            for t in (self.values, out)
        )
        np.take(source, places, axis=0, out=target, mode="clip")


class Filler:
    """Reads times into rows; decides what becomes of chunks that cannot be read."""

    def __init__(
        self, source: Source, dtype: torch.dtype, on_error: Literal["raise", "skip"]
    ) -> None:
        self._source, self._dtype, self._on_error = source, dtype, on_error
        self._scratch = threading.local()

    def fill(self, start: int, stop: int, out: torch.Tensor) -> Found:
        """Read the states from time ``start`` to before ``stop`` into ``[row, part, ...]``."""
        out = out.view(len(out), *self._source.shape[1:])
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
            raise OSError(
                f"could not read the states of times {names[first.start]} …"
                f" {names[first.stop - 1]}: {first.message}"
            )
        # A chunk may begin before these times and end after them.
        failed = (
            replace(f, start=max(f.start, start), stop=min(f.stop, stop)) for f in found.failed
        )
        return Found(found.missing, tuple(failed))


@dataclass
class _Slot:
    number: int
    start: int
    found: Future[Found] = field(repr=False)


class Pool:
    """Slots of one tensor that background threads fill with blocks of times."""

    def __init__(
        self,
        filler: Filler,
        source: Source,
        dtype: torch.dtype,
        *,
        slot_times: int,
        slots: int,
        threads: int,
    ) -> None:
        self._filler, self._times = filler, slot_times
        self.states = States.empty(source, dtype, slots=slots, rows=slot_times)
        self._free = list(range(slots))[::-1]
        self._held: dict[tuple[int, int], _Slot] = {}
        self._executor = ThreadPoolExecutor(
            threads, thread_name_prefix="sciwm-read", initializer=_step_back
        )

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._held

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    def submit(self, key: tuple[int, int], start: int, stop: int) -> None:
        """Have a block read; the pool grows if every slot is in use.

        This happens where windows are much sparser in some blocks.
        """
        if not self._free:
            for slot in self._held.values():
                slot.found.result()
            self._free.append(len(self.states) // self._times)
            self.states.add_slot()
        number = self._free.pop()
        out = self.states.slot(number, 0, stop - start)
        found = self._executor.submit(self._filler.fill, start, stop, out)
        self._held[key] = _Slot(number, start, found)

    def wait(self, key: tuple[int, int]) -> tuple[int, bool]:
        """Wait for a block; return what to add to a time to find its row, and if values miss."""
        slot = self._held[key]
        found = slot.found.result()
        first = slot.number * self._times
        if self.states.bad is not None:
            self.states.mark_bad(slice(first, first + self._times), bad=False)
        offset = first - slot.start
        for f in found.failed:
            self.states.mark_bad(slice(f.start + offset, f.stop + offset), bad=True)
        return offset, found.missing

    def release(self, keys: Sequence[tuple[int, int]]) -> None:
        """Free the slots of blocks that no batch needs any more."""
        for key in keys:
            self._free.append(self._held.pop(key).number)

    def close(self) -> None:
        """Stop the readers."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _step_back() -> None:
    """Let the thread that trains go first on a processor that both want.

    Readers are ahead of it, and have time until it waits for them.
    """
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        nicer = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nicer)


def load_states(
    filler: Filler, source: Source, windows: Windows, dtype: torch.dtype, *, threads: int
) -> tuple[States, np.ndarray]:
    """Read the states of all times in any window; return them and the row of every time."""
    needed = windows.touched(source.shape[0])
    place = np.cumsum(needed) - 1
    states = States.empty(source, dtype, slots=1, rows=int(needed.sum()))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], needed, [False]])))
    step = source.reader.chunk * max(1, _PIECE // (source.reader.chunk * source.state_bytes))
    with ThreadPoolExecutor(threads, thread_name_prefix="sciwm-read") as executor:
        tasks = []
        for start, stop in edges.reshape(-1, 2).tolist():
            for a, b in rows(start, stop, step):
                first = int(place[a])
                out = states.slot(0, first, first + b - a)
                tasks.append(executor.submit(filler.fill, a, b, out))
        try:
            for task in tasks:
                found = task.result()
                states.missing |= found.missing
                for f in found.failed:
                    states.mark_bad(slice(place[f.start], place[f.stop - 1] + 1), bad=True)
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    return states, place
