"""Batches of windows from a training store, from memory or read ahead in blocks, resumable at the exact next batch.

Two ways to the same batches. *Resident*: the block of the split is read once and every batch is one gather.
*Block*: background threads read the blocks of times that the plan will need next into a pool of bounded size, and
every batch is one gather from the pool. The plan (`sciwm.data.windows`) fixes the order before anything is read.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr

from sciwm.data.source import Pool, Source, load_states, open_source
from sciwm.data.windows import Order, Plan, Windows, find_windows, plan_epoch, plan_size
from sciwm.sample import Batch

__all__ = ["Stream", "stream"]

Mode = Literal["resident", "block"]
_AHEAD = 2  # blocks read beyond those in use


@dataclass
class Stream:
    """Iterate over batches; made by `stream`, which documents the choices.

    Each `iter` starts at batch ``start_batch``. `state_dict` tells how many batches the latest iteration has served.
    """

    source: Source
    windows: Windows
    batch_size: int
    seed: int
    rank: int
    world_size: int
    mode: Mode
    order: Order
    block: int
    pool: int
    every: int
    epochs: int | None
    drop_last: bool
    start_batch: int = 0
    served: int = 0
    _resident: tuple[torch.Tensor, np.ndarray] | None = field(default=None, repr=False)

    def __iter__(self) -> Iterator[Batch]:
        self.served = self.start_batch
        batches = self._resident_batches() if self.mode == "resident" else self._block_batches()
        try:
            for batch in batches:
                self.served += 1
                yield batch
        finally:
            batches.close()

    def state_dict(self) -> dict[str, int]:
        """Seed and number of batches served so far."""
        return {"seed": self.seed, "batches": self.served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that were served when `state_dict` was called."""
        if state["seed"] != self.seed:
            raise ValueError(f"got the state of a stream with seed {state['seed']}, expected seed {self.seed}, because the order differs")
        self.start_batch = self.served = int(state["batches"])

    def batches_per_epoch(self, epoch: int = 0) -> int:
        """Batches in an epoch on every rank; a lone batch may be smaller than ``batch_size``."""
        size = plan_size(
            self.windows,
            seed=self.seed,
            epoch=epoch,
            world_size=self.world_size,
            every=self.every,
        )
        if size == 0:
            raise ValueError(f"got {len(self.windows)} windows for {self.world_size} ranks, expected at least one each; use fewer ranks")
        return max(1, size // self.batch_size if self.drop_last else -(-size // self.batch_size))

    def _plan(self, epoch: int) -> Plan:
        return plan_epoch(
            self.windows,
            seed=self.seed,
            epoch=epoch,
            rank=self.rank,
            world_size=self.world_size,
            order=self.order,
            block=self.block,
            pool=self.pool,
            every=self.every,
        )

    def _epochs(self) -> Iterator[tuple[Plan, int, int, int]]:
        """Plan, first batch and number of batches of every epoch from ``start_batch`` on, and its number."""
        epoch, skip = 0, self.start_batch
        while self.epochs is None or epoch < self.epochs:
            count = self.batches_per_epoch(epoch)
            if skip < count:
                yield self._plan(epoch), skip, count, epoch
            skip = max(0, skip - count)
            epoch += 1

    def _index(self, plan: Plan, number: int) -> tuple[np.ndarray, np.ndarray, slice]:
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        strides = plan.strides[part]
        return plan.starts[part, None] + strides[:, None] * np.arange(self.windows.length), strides, part

    def _batch(self, values: torch.Tensor, index: np.ndarray, strides: np.ndarray) -> Batch:
        values = values.reshape(*index.shape, *self.source.shape[1:])
        missing = torch.isnan(values)
        places = torch.from_numpy(index)
        return Batch(
            values=values.masked_fill_(missing, 0.0),
            valid=~missing,
            time=self.source.time[places],
            index=places,
            lead_steps=torch.from_numpy(strides),
            condition=self.source.condition[places],
        )

    def _resident_batches(self) -> Generator[Batch, None, None]:
        states, place = self._resident = self._resident or load_states(self.source, self.windows)
        for plan, first, count, _ in self._epochs():
            for number in range(first, count):
                index, strides, _ = self._index(plan, number)
                rows = torch.from_numpy(place[index.ravel()])
                yield self._batch(torch.index_select(states, 0, rows), index, strides)

    def _block_batches(self) -> Generator[Batch, None, None]:
        span = self.windows.lead_steps[-1] * (self.windows.length - 1)
        pool = Pool(self.source, self.block + span, self.pool + 2 + _AHEAD)
        try:
            yield from self._from_pool(pool)
        finally:
            pool.close()

    def _from_pool(self, pool: Pool) -> Iterator[Batch]:
        turns: deque[_Turn] = deque()
        reads = self._reads(turns)
        waiting = next(reads, None)
        while turns:
            turn = turns[0]
            for number in range(turn.first_batch, turn.num_batches):
                index, strides, part = self._index(turn.plan, number)
                needed, inverse = np.unique(turn.plan.blocks[part], return_inverse=True)
                keys = [(turn.epoch, int(b)) for b in needed]
                while waiting is not None and (pool.has_room() or not all(k in pool for k in keys)):
                    pool.submit(*waiting)
                    waiting = next(reads, None)
                offset = np.array([pool.wait(k) for k in keys])[inverse]
                values = torch.index_select(pool.states, 0, torch.from_numpy((index + offset[:, None]).ravel()))
                pool.release([k for k in keys if turn.uses.last[k[1]] <= number])
                yield self._batch(values, index, strides)
            pool.release_epoch(turn.epoch)
            if len(turns) == 1 and waiting is None:
                waiting = next(reads, None)
            turns.popleft()

    def _reads(self, turns: "deque[_Turn]") -> Iterator[tuple[tuple[int, int], int, int]]:
        """Blocks of all epochs in the order of their first use: key, first time, end of times; every epoch begun joins ``turns``."""
        for plan, first, count, epoch in self._epochs():
            uses = _uses(plan, self.batch_size, self.windows.length)
            turns.append(_Turn(epoch, plan, first, count, uses))
            for b in sorted(uses.first, key=lambda b: (uses.first[b], b)):
                if uses.last[b] >= first and uses.first[b] < count:
                    yield (epoch, b), uses.start[b], uses.stop[b]


@dataclass(frozen=True)
class _Uses:
    """First and last batch that needs a block, and the times it must hold, by block number."""

    first: dict[int, int]
    last: dict[int, int]
    start: dict[int, int]
    stop: dict[int, int]


def _uses(plan: Plan, batch_size: int, length: int) -> _Uses:
    blocks, inverse = np.unique(plan.blocks, return_inverse=True)
    batch = np.arange(len(plan)) // batch_size
    ends = plan.starts + plan.strides * (length - 1) + 1
    first, start = (np.full(len(blocks), np.iinfo(np.int64).max) for _ in range(2))
    last, stop = (np.zeros(len(blocks), np.int64) for _ in range(2))
    np.minimum.at(first, inverse, batch)
    np.maximum.at(last, inverse, batch)
    np.minimum.at(start, inverse, plan.starts)
    np.maximum.at(stop, inverse, ends)
    return _Uses(*(dict(zip(blocks.tolist(), v.tolist(), strict=True)) for v in (first, last, start, stop)))


@dataclass(frozen=True)
class _Turn:
    epoch: int
    plan: Plan
    first_batch: int
    num_batches: int
    uses: _Uses


def stream(
    store: str | Path | xr.Dataset,
    *,
    which: Literal["train", "validation", "test"] = "train",
    length: int,
    lead_steps: Sequence[int] = (1,),
    batch_size: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    memory_limit: int = 2**30,
    epochs: int | None = None,
    start_batch: int = 0,
    shuffle: bool = True,
    drop_last: bool | None = None,
    mode: Mode | None = None,
    order: Order | None = None,
) -> Stream:
    """Stream batches of windows from a training store.

    The order is a pure function of the arguments: a stream made with ``start_batch=k`` serves exactly the batches
    k, k + 1, … that an unbroken one would, across epochs too.

    Parameters
    ----------
    store : path or Dataset
        Training store as `sciwm.data.prepare` writes it, or one opened (its ``state`` may be any lazy array).
    which : {"train", "validation", "test"}
        Block of the split.
    length : int
        States per window.
    lead_steps : sequence of int
        Strides; each window draws one of those that fit.
    batch_size : int
        Windows per batch and rank.
    seed, rank, world_size : int
        Ranks get disjoint windows, equally many each.
    memory_limit : int
        Bytes for states held ready. A block of the split that fits into half of it is held whole.
    epochs : int, optional
        Passes; default without end.
    start_batch : int
        Batches to leave out, as if they had been served.
    shuffle : bool
        Without it, windows come in the order of time.
    drop_last : bool, optional
        Leave out an epoch's last short batch; default only when shuffling. A lone short batch is always served.
    mode : {"resident", "block"}, optional
        Hold all states or read ahead; default by ``memory_limit``.
    order : {"global", "block", "none"}, optional
        See `sciwm.data.windows.plan_epoch`; default by ``mode`` and ``shuffle``.

    Returns
    -------
    Stream

    Raises
    ------
    ValueError
        If no window fits in the block of the split, or a few blocks of states exceed ``memory_limit``.
    """
    if batch_size < 1 or not 0 <= rank < world_size:
        raise ValueError(
            f"got batch_size {batch_size} and rank {rank} of {world_size}, expected at least 1 and a rank below the world size"
        )
    source = open_source(store)
    windows = find_windows(source.label, source.segment, which=which, length=length, lead_steps=lead_steps)
    held = int((source.label == {"train": 0, "validation": 1, "test": 2}[which]).sum()) * source.state_bytes
    mode = mode or ("resident" if held <= memory_limit // 2 else "block")
    order = order or (("global" if mode == "resident" else "block") if shuffle else "none")
    if mode == "block" and order == "global":
        raise ValueError("got order 'global' while reading in blocks, expected 'block' or 'none', because it needs all states at once")
    block, pool = _block_sizes(source, windows, world_size, memory_limit if mode == "block" else 2**62)
    return Stream(
        source=source,
        windows=windows,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        mode=mode,
        order=order,
        block=block,
        pool=pool,
        every=length if order == "block" else 1,
        epochs=epochs,
        drop_last=shuffle if drop_last is None else drop_last,
        start_batch=start_batch,
        served=start_batch,
    )


def _block_sizes(source: Source, windows: Windows, world_size: int, memory_limit: int) -> tuple[int, int]:
    """Times per block, a multiple of the store's chunks, and blocks mixed: 256 and 16, fewer where memory or ranks ask for it."""
    span = windows.lead_steps[-1] * (windows.length - 1)
    chunk = source.chunk
    largest = max(chunk, (len(windows) // (4 * world_size)) // chunk * chunk)
    block, pool = min(max(256 // chunk, 1) * chunk, largest), 16
    slots = memory_limit // source.state_bytes
    while (pool + 2 + _AHEAD) * (block + span) > slots and (block > chunk or pool > 1):
        if pool > 4 or block == chunk:
            pool -= 1
        else:
            block = max(chunk, block // 2 // chunk * chunk)
    needed = (pool + 2 + _AHEAD) * (block + span) * source.state_bytes
    if needed > memory_limit:
        raise ValueError(
            f"got a memory limit of {memory_limit / 2**20:.0f} MiB, expected at least {needed / 2**20:.0f} MiB, because "
            f"{pool + 2 + _AHEAD} blocks of {block + span} states of {source.state_bytes / 2**20:.3g} MiB are held"
        )
    return block, pool
