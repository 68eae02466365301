"""An iterable of batches, from memory or read ahead in blocks, resumable at the exact next batch.

Two ways to the same batches. *Resident*: all states are read once and every batch is one gather.
*Block*: every batch is one gather from a pool of bounded size. Background threads read into it the
blocks of times that the plan needs next. The plan (`sciwm.streams.windows`) fixes the order before
anything is read. Another thread assembles the next batches while the last one is used.
"""

import zlib
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from sciwm.batch import Batch
from sciwm.streams.ahead import ahead
from sciwm.streams.choices import Mode
from sciwm.streams.pool import Filler, Pool, States, load_states
from sciwm.streams.recycle import Recycled
from sciwm.streams.sizes import AHEAD, BlockSizes
from sciwm.streams.source import Source
from sciwm.streams.windows import (
    Ordering,
    Plan,
    Rules,
    Uses,
    Windows,
    block_uses,
    plan_epoch,
    plan_size,
)

__all__ = ["Stream"]


@dataclass(frozen=True)
class _Position:
    """Where the next batch lies; ``past``: what other numbers of ranks have served of its epoch."""

    epoch: int = 0
    batch: int = 0
    past: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class _Turn:
    epoch: int
    plan: Plan
    first_batch: int
    num_batches: int
    uses: Uses


@dataclass(eq=False)
class Stream(IterableDataset[Batch]):
    """An iterable of batches; made by `stream`, which documents the choices.

    Every ``iter`` goes on with the next epoch, or, after `load_state_dict`, in the middle of the
    one it was in.

    Parameters
    ----------
    skipped : int
        Windows left out so far because a chunk could not be read (``on_error="skip"``).
    """

    source: Source
    windows: Windows
    batch_size: int
    seed: int
    rank: int
    world_size: int
    mode: Mode
    order: Ordering
    sizes: BlockSizes
    every: int
    weights: np.ndarray | None
    epochs: int | None
    drop_last: bool
    dtype: torch.dtype
    pin_memory: bool
    on_error: Literal["raise", "skip"]
    skipped: int = 0
    _origin: _Position = field(default_factory=_Position, repr=False)
    _served: int = field(default=0, repr=False)
    _begun: bool = field(default=False, repr=False)
    _resident: tuple[States, np.ndarray] | None = field(default=None, repr=False)
    _memory: Recycled = field(default_factory=lambda: Recycled(most=AHEAD + 2), repr=False)

    def __reduce__(self) -> Any:
        raise RuntimeError(
            "got a stream to be sent to another process, expected num_workers=0: its own threads"
            " read ahead"
        )

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise RuntimeError(
                "got a stream inside a DataLoader worker, expected num_workers=0: its own threads"
                " read ahead"
            )
        self._origin = self._next_origin()
        self._begun, self._served = True, 0
        make = self._resident_batches if self.mode == "resident" else self._block_batches
        with closing(ahead(make(self._origin), AHEAD)) as numbered:
            for number, batch in numbered:
                # Before the batch is handed over: state_dict, called while it is used, counts it.
                self._served = number
                if batch is not None:
                    yield batch

    def _next_origin(self) -> _Position:
        """Where the next iteration starts: at the next epoch, or where a loaded state says."""
        if not self._begun:
            return self._origin
        now = self._position(self._served)
        return _Position(now.epoch + (now.batch > 0 or bool(now.past)))

    def __len__(self) -> int:
        """Batches of one whole iteration from where the next one starts."""
        if self.epochs is None:
            raise TypeError(
                "got no number of epochs, expected one: a stream without end has no length"
            )
        return sum(count - begin.batch for begin, count in self._epochs(self._next_origin()))

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: plain numbers, enough to serve exactly the batches left."""
        return self.state_after(self._served)

    def state_after(self, batches: int) -> dict[str, Any]:
        """The state when so many batches of the present iteration have been used.

        Loops that fetch batches before they train on them have taken more from the stream.
        """
        now = self._position(batches)
        return {
            "seed": self.seed,
            "windows": len(self.windows),
            "window": self.windows.spacing.length,
            "context": self.windows.spacing.context,
            "context_step": self.windows.spacing.context_step,
            "lead_steps": list(self.windows.lead_steps),
            "weights": None if self.weights is None else zlib.crc32(self.weights.tobytes()),
            "stride": self.every,
            "order": self.order,
            "block": self.sizes.block,
            "pool": self.sizes.pool,
            "world_size": self.world_size,
            "batch_size": self.batch_size,
            "epoch": now.epoch,
            "batch": now.batch,
            "past": [list(p) for p in now.past],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were served when `state_dict` was called.

        The remaining batches are the same bit for bit, with any number of threads. So they are with
        any ``memory_limit`` in the same ``mode``: block and pool are those of the state. With
        another number of ranks or another batch size, what is left of the epoch is dealt anew. No
        window comes twice in it.

        Raises
        ------
        ValueError
            If the state belongs to another order of windows; the message names the difference.
        """
        mine, state = self.state_after(0), {"context": 1, "context_step": 1, **state}
        spacing = ("context", "context_step", "windows", "window", "lead_steps")
        for key in ("seed", *spacing, "weights", "order", "stride"):
            if state[key] != mine[key]:
                name, hint = "every" if key == "stride" else key, ""
                if key in ("order", "stride"):
                    hint = "; pass the same mode, which memory_limit decides otherwise"
                raise ValueError(
                    f"got the state of a stream with {name} {state[key]}, expected {name}"
                    f" {mine[key]}, because the order differs{hint}"
                )
        if self.order == "block":
            self.sizes = self.sizes.with_order(int(state["block"]), int(state["pool"]))
        past = tuple((int(ranks), int(served)) for ranks, served in state["past"])
        batch, ranks, size = (int(state[k]) for k in ("batch", "world_size", "batch_size"))
        if batch and (ranks, size) != (self.world_size, self.batch_size):
            past, batch = (*past, (ranks, batch * size)), 0
        self._origin = _Position(int(state["epoch"]), batch, past)
        self._served, self._begun = 0, False

    def seek(self, batches: int) -> None:
        """Start the next iteration after so many batches from the very first."""
        self._origin, self._served, self._begun = _Position(), 0, False
        self._origin = self._position(batches)

    def batches_per_epoch(self, epoch: int = 0, past: tuple[tuple[int, int], ...] = ()) -> int:
        """Batches in an epoch on every rank; a lone batch may be smaller than ``batch_size``."""
        size = plan_size(
            self.windows, self._rules(), epoch=epoch, world_size=self.world_size, past=past
        )
        if size == 0 and not past:
            raise ValueError(
                f"got {len(self.windows)} windows for {self.world_size} ranks, expected at least"
                " one each; use fewer ranks"
            )
        count = size // self.batch_size if self.drop_last else -(-size // self.batch_size)
        return max(count, 0 if past else 1)

    def _position(self, served: int) -> _Position:
        epoch, past, batch = self._origin.epoch, self._origin.past, self._origin.batch + served
        while batch >= (count := self.batches_per_epoch(epoch, past)):
            epoch, past, batch = epoch + 1, (), batch - count
        return _Position(epoch, batch, past)

    def _rules(self) -> Rules:
        block, pool = self.sizes.block, self.sizes.pool
        return Rules(self.seed, self.order, block, pool, self.every, self.weights)

    def _plan(self, begin: _Position) -> Plan:
        return plan_epoch(
            self.windows,
            self._rules(),
            epoch=begin.epoch,
            rank=self.rank,
            world_size=self.world_size,
            past=begin.past,
        )

    def _epochs(self, origin: _Position) -> Iterator[tuple[_Position, int]]:
        """Where every epoch of an iteration begins, and its number of batches."""
        end = None if self.epochs is None else (origin.epoch // self.epochs + 1) * self.epochs
        while end is None or origin.epoch < end:
            yield origin, self.batches_per_epoch(origin.epoch, origin.past)
            origin = _Position(origin.epoch + 1)

    def _index(self, plan: Plan, number: int) -> tuple[np.ndarray, np.ndarray, slice]:
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        strides = plan.strides[part]
        index = plan.starts[part, None] + self.windows.spacing.offsets(strides)
        return index, strides, part

    def _batch(
        self,
        states: States,
        rows: np.ndarray,
        index: np.ndarray,
        strides: np.ndarray,
        missing: bool,
    ) -> Batch | None:
        """Gather a batch; None if not one of its windows could be read."""
        if states.bad is not None and (lost := states.bad[rows].any(axis=1)).any():
            self.skipped += int(lost.sum())
            if lost.all():
                return None
            rows, index, strides = rows[~lost], index[~lost], strides[~lost]
        values = self._memory.take((*rows.shape, *self.source.shape[1:]), self.dtype)
        states.take(rows, values)
        if missing:
            gone = torch.isnan(values)
            values.masked_fill_(gone, 0.0)
            valid = ~gone
        else:
            valid = torch.ones((), dtype=torch.bool).expand(values.shape)
        places = torch.from_numpy(index)
        batch = Batch(
            values=values,
            valid=valid,
            time=self.source.time[places],
            index=places,
            lead_steps=torch.from_numpy(strides),
            condition=self.source.condition[places],
        )
        return batch.pin_memory() if self.pin_memory else batch

    def _filler(self) -> Filler:
        return Filler(self.source, self.dtype, self.on_error)

    def _resident_batches(self, origin: _Position) -> Generator[Batch | None, None, None]:
        if self._resident is None:
            self._resident = load_states(
                self._filler(), self.source, self.windows, self.dtype, threads=self.sizes.threads
            )
        states, place = self._resident
        for begin, count in self._epochs(origin):
            plan = self._plan(begin)
            for number in range(begin.batch, count):
                index, strides, _ = self._index(plan, number)
                yield self._batch(states, place[index], index, strides, states.missing)

    def _block_batches(self, origin: _Position) -> Generator[Batch | None, None, None]:
        turns: deque[_Turn] = deque()
        reads = self._reads(turns, origin)
        waiting = next(reads, None)
        if waiting is None:
            return
        # The first epoch tells how many blocks are in use at once; what the limit leaves beyond
        # these is read ahead.
        slots = max(self.sizes.slots, turns[0].uses.most_live + 1)
        pool = Pool(
            self._filler(),
            self.source,
            self.dtype,
            slot_times=self.sizes.block + self.sizes.span,
            slots=slots,
            threads=self.sizes.threads,
        )
        try:
            while turns:
                turn, uses = turns[0], turns[0].uses
                batches = np.arange(turn.first_batch, turn.num_batches)
                entered = np.searchsorted(uses.first, batches, side="right").tolist()
                leaving = np.argsort(uses.last, kind="stable")
                left = np.searchsorted(uses.last[leaving], batches, side="right").tolist()
                row, missing = np.zeros(len(uses.first), np.int64), np.zeros(len(uses.first), bool)
                here = gone = 0
                for number, until, free in zip(batches.tolist(), entered, left, strict=True):
                    index, strides, part = self._index(turn.plan, number)
                    while waiting is not None and (
                        pool.has_room() or (until > here and (turn.epoch, until - 1) not in pool)
                    ):
                        pool.submit(*waiting)
                        waiting = next(reads, None)
                    for b in range(here, until):
                        row[b], missing[b] = pool.wait((turn.epoch, b))
                    begun = part.start - turn.first_batch * self.batch_size
                    member = uses.member[begun : begun + len(index)]
                    rows, gaps = index + row[member][:, None], bool(missing[member].any())
                    yield self._batch(pool.states, rows, index, strides, gaps)
                    pool.release([(turn.epoch, b) for b in leaving[gone:free].tolist()])
                    here, gone = until, free
                turns.popleft()
        finally:
            pool.close()

    def _reads(
        self, turns: "deque[_Turn]", origin: _Position
    ) -> Iterator[tuple[tuple[int, int], int, int]]:
        """Blocks of all epochs in the order of their first use: key, first time, end of times.

        Every epoch begun joins ``turns``.
        """
        for begin, count in self._epochs(origin):
            plan = self._plan(begin)
            uses = block_uses(plan, self.batch_size, self.windows.spacing, begin.batch, count)
            turns.append(_Turn(begin.epoch, plan, begin.batch, count, uses))
            spans = zip(uses.start.tolist(), uses.stop.tolist(), strict=True)
            for b, (start, stop) in enumerate(spans):
                yield (begin.epoch, b), start, stop
