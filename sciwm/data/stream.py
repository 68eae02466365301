"""Batches of windows from stores and Datasets, from memory or read ahead in blocks, resumable at the exact next batch.

Two ways to the same batches. *Resident*: all states are read once and every batch is one gather. *Block*: background
threads read the blocks of times that the plan needs next into a pool of bounded size, and every batch is one gather
from the pool. The plan (`sciwm.data.windows`) fixes the order before anything is read; another thread assembles the
next batches while the last one is used.
"""

import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch.utils.data import IterableDataset, get_worker_info

from sciwm.data.ahead import ahead
from sciwm.data.cache import Cache
from sciwm.data.pool import Filler, Pool, States, load_states
from sciwm.data.read import Store
from sciwm.data.sizes import BlockSizes, Mode, choose_sizes
from sciwm.data.source import Source, open_source
from sciwm.data.windows import Order, Plan, Windows, find_windows, plan_epoch, plan_size
from sciwm.sample import Batch

__all__ = ["Stream", "stream"]


@dataclass(frozen=True)
class _Position:
    """Where the next batch lies; ``past`` holds what other numbers of ranks have served of its epoch."""

    epoch: int = 0
    batch: int = 0
    past: tuple[tuple[int, int], ...] = ()


@dataclass(eq=False)
class Stream(IterableDataset[Batch]):
    """An iterable of batches; made by `stream`, which documents the choices.

    Every ``iter`` goes on with the next epoch, or, after `load_state_dict`, in the middle of the one it was in.

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
    order: Order
    sizes: BlockSizes
    stride: int
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

    def __reduce__(self) -> Any:
        raise RuntimeError("got a stream to be sent to another process, expected num_workers=0: its own threads read ahead")

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise RuntimeError("got a stream inside a DataLoader worker, expected num_workers=0: its own threads read ahead")
        self._origin = self._next_origin()
        self._begun, self._served = True, 0
        first = self._origin
        batches = self._resident_batches(first) if self.mode == "resident" else self._block_batches(first)
        with closing(ahead(batches, self.sizes.ahead)) as numbered:
            for number, batch in numbered:
                self._served = number  # before the batch is handed over: state_dict, called while it is used, counts it
                if batch is not None:
                    yield batch

    def _next_origin(self) -> _Position:
        """Where the next iteration starts: at the next epoch, or where a state that was loaded says."""
        if not self._begun:
            return self._origin
        now = self._position(self._served)
        return _Position(now.epoch + (now.batch > 0 or bool(now.past)))

    def __len__(self) -> int:
        """Batches of one whole iteration from where the next one starts."""
        if self.epochs is None:
            raise TypeError("got no number of epochs, expected one: a stream without end has no length")
        return sum(count - first for _, first, count, _ in self._epochs(self._next_origin(), plans=False))

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, in plain numbers: what it takes to serve exactly the batches that are left."""
        return self.state_after(self._served)

    def state_after(self, batches: int) -> dict[str, Any]:
        """The state when so many batches of the present iteration have been used (readers ahead of training count more)."""
        now = self._position(batches)
        return {
            "seed": self.seed,
            "windows": len(self.windows),
            "window": self.windows.length,
            "lead_steps": list(self.windows.lead_steps),
            "weights": None if self.weights is None else zlib.crc32(self.weights.tobytes()),
            "stride": self.stride,
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

        The remaining batches are the same bit for bit, with any number of threads, and any ``memory_limit`` in the same ``mode``; block
        and pool are those of the state. With another number of ranks or another batch size, what is left of the epoch is dealt anew: no
        window comes twice in it.

        Raises
        ------
        ValueError
            If the state belongs to another order of windows; the message names the difference.
        """
        mine = self.state_after(0)
        for name in ("seed", "windows", "window", "lead_steps", "weights", "order", "stride"):
            if state[name] != mine[name]:
                hint = "; pass the same mode, which memory_limit decides otherwise" if name in ("order", "stride") else ""
                raise ValueError(
                    f"got the state of a stream with {name} {state[name]}, expected {name} {mine[name]}, because the order differs{hint}"
                )
        if self.order == "block":
            self.sizes = self.sizes.with_order(int(state["block"]), int(state["pool"]))
        past = tuple((int(ranks), int(served)) for ranks, served in state["past"])
        batch = int(state["batch"])
        if (state["world_size"], state["batch_size"]) != (self.world_size, self.batch_size) and batch:
            past, batch = (*past, (int(state["world_size"]), batch * int(state["batch_size"]))), 0
        self._origin, self._served, self._begun = _Position(int(state["epoch"]), batch, past), 0, False

    def seek(self, batches: int) -> None:
        """Start the next iteration after so many batches from the very first."""
        self._origin, self._served, self._begun = _Position(), 0, False
        self._origin = self._position(batches)

    def batches_per_epoch(self, epoch: int = 0, past: tuple[tuple[int, int], ...] = ()) -> int:
        """Batches in an epoch on every rank; a lone batch may be smaller than ``batch_size``."""
        size = plan_size(
            self.windows,
            seed=self.seed,
            epoch=epoch,
            world_size=self.world_size,
            every=self.stride,
            weights=self.weights,
            past=past,
        )
        if size == 0 and not past:
            raise ValueError(f"got {len(self.windows)} windows for {self.world_size} ranks, expected at least one each; use fewer ranks")
        least = 0 if past else 1
        return max(least, size // self.batch_size if self.drop_last else -(-size // self.batch_size))

    def _position(self, served: int) -> _Position:
        epoch, past, batch = self._origin.epoch, self._origin.past, self._origin.batch + served
        while batch >= (count := self.batches_per_epoch(epoch, past)):
            epoch, past, batch = epoch + 1, (), batch - count
        return _Position(epoch, batch, past)

    def _plan(self, epoch: int, past: tuple[tuple[int, int], ...]) -> Plan:
        return plan_epoch(
            self.windows,
            seed=self.seed,
            epoch=epoch,
            rank=self.rank,
            world_size=self.world_size,
            order=self.order,
            block=self.sizes.block,
            pool=self.sizes.pool,
            every=self.stride,
            weights=self.weights,
            past=past,
        )

    def _epochs(self, origin: _Position, *, plans: bool = True) -> Iterator[tuple[Plan | None, int, int, int]]:
        """Plan, first batch, number of batches and number of every epoch of an iteration."""
        epoch, past, first = origin.epoch, origin.past, origin.batch
        end = None if self.epochs is None else (epoch // self.epochs + 1) * self.epochs
        while end is None or epoch < end:
            yield (self._plan(epoch, past) if plans else None), first, self.batches_per_epoch(epoch, past), epoch
            epoch, past, first = epoch + 1, (), 0

    def _index(self, plan: Plan, number: int) -> tuple[np.ndarray, np.ndarray, slice]:
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        strides = plan.strides[part]
        return plan.starts[part, None] + strides[:, None] * np.arange(self.windows.length), strides, part

    def _batch(self, states: States, rows: np.ndarray, index: np.ndarray, strides: np.ndarray, missing: bool) -> Batch | None:
        """Gather a batch; None if not one of its windows could be read."""
        if states.bad is not None and (lost := states.bad[rows].any(axis=1)).any():
            self.skipped += int(lost.sum())
            if lost.all():
                return None
            rows, index, strides = rows[~lost], index[~lost], strides[~lost]
        values = torch.empty((*rows.shape, *self.source.shape[1:]), dtype=self.dtype)
        source, out = (t.view(torch.int16) if self.dtype == torch.bfloat16 else t for t in (states.values, values))
        # Numpy's take, not torch.index_select: that would start a second set of OpenMP threads in this background thread.
        np.take(source.numpy(), rows.ravel(), axis=0, out=out.view(rows.size, *self.source.shape[1:]).numpy(), mode="clip")
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
            self._resident = load_states(self._filler(), self.source, self.windows, self.dtype, threads=self.sizes.threads)
        states, place = self._resident
        for plan, first, count, _ in self._epochs(origin):
            assert plan is not None
            for number in range(first, count):
                index, strides, _ = self._index(plan, number)
                yield self._batch(states, place[index], index, strides, states.missing)

    def _block_batches(self, origin: _Position) -> Generator[Batch | None, None, None]:
        turns: deque[_Turn] = deque()
        reads = self._reads(turns, origin)
        waiting = next(reads, None)
        if waiting is None:
            return
        # The first epoch tells how many blocks are in use at once; what the limit leaves is read ahead.
        slots = max(self.sizes.slots, turns[0].uses.most_live + 1)
        pool = Pool(
            self._filler(),
            self.source.shape[1:],
            self.dtype,
            slot_times=self.sizes.block + self.sizes.span,
            slots=slots,
            threads=self.sizes.threads,
        )
        try:
            while turns:
                turn = turns[0]
                for number in range(turn.first_batch, turn.num_batches):
                    index, strides, part = self._index(turn.plan, number)
                    needed, inverse = np.unique(turn.plan.blocks[part], return_inverse=True)
                    keys = [(turn.epoch, int(b)) for b in needed]
                    while waiting is not None and (pool.has_room() or not all(k in pool for k in keys)):
                        pool.submit(*waiting)
                        waiting = next(reads, None)
                    places = [pool.wait(k) for k in keys]
                    rows = index + np.array([p for p, _ in places])[inverse][:, None]
                    yield self._batch(pool.states, rows, index, strides, any(m for _, m in places))
                    pool.release([k for k in keys if turn.uses.last[k[1]] <= number])
                pool.release_epoch(turn.epoch)
                turns.popleft()
        finally:
            pool.close()

    def _reads(self, turns: "deque[_Turn]", origin: _Position) -> Iterator[tuple[tuple[int, int], int, int]]:
        """Blocks of all epochs in the order of their first use: key, first time, end of times; every epoch begun joins ``turns``."""
        for plan, first, count, epoch in self._epochs(origin):
            assert plan is not None
            uses = _uses(plan, self.batch_size, self.windows.length, first, count)
            turns.append(_Turn(epoch, plan, first, count, uses))
            for b in sorted(uses.first, key=lambda b: (uses.first[b], b)):
                yield (epoch, b), uses.start[b], uses.stop[b]


@dataclass(frozen=True)
class _Uses:
    """First and last batch that needs a block, and the times it must hold, by block number; most blocks in use at once."""

    first: dict[int, int]
    last: dict[int, int]
    start: dict[int, int]
    stop: dict[int, int]
    most_live: int


def _uses(plan: Plan, batch_size: int, length: int, first_batch: int, count: int) -> _Uses:
    part = slice(first_batch * batch_size, count * batch_size)
    starts, strides = plan.starts[part], plan.strides[part]
    blocks, inverse = np.unique(plan.blocks[part], return_inverse=True)
    batch = first_batch + np.arange(len(starts)) // batch_size
    ends = starts + strides * (length - 1) + 1
    first, start = (np.full(len(blocks), np.iinfo(np.int64).max) for _ in range(2))
    last, stop = (np.zeros(len(blocks), np.int64) for _ in range(2))
    np.minimum.at(first, inverse, batch)
    np.maximum.at(last, inverse, batch)
    np.minimum.at(start, inverse, starts)
    np.maximum.at(stop, inverse, ends)
    change = np.zeros(max(count, int(last.max(initial=0)) + 1) + 1, np.int64)
    np.add.at(change, first, 1)
    np.add.at(change, last + 1, -1)
    live = int(np.cumsum(change).max(initial=0))
    names = blocks.tolist()
    by_block = [dict(zip(names, v.tolist(), strict=True)) for v in (first, last, start, stop)]
    return _Uses(by_block[0], by_block[1], by_block[2], by_block[3], live)


@dataclass(frozen=True)
class _Turn:
    epoch: int
    plan: Plan
    first_batch: int
    num_batches: int
    uses: _Uses


def stream(
    data: Store,
    *,
    window: int,
    batch_size: int,
    variables: Sequence[str] | None = None,
    which: Literal["train", "validation", "test"] = "train",
    period: tuple[Any, Any] | None = None,
    lead_steps: Sequence[int] = (1,),
    stride: int | None = None,
    weights: np.ndarray | xr.DataArray | None = None,
    shuffle: bool = True,
    seed: int = 0,
    epochs: int | None = 1,
    drop_last: bool | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    mode: Mode | None = None,
    memory_limit: int = 2**30,
    threads: int | None = None,
    dtype: torch.dtype = torch.float32,
    pin_memory: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    cache: Cache | None = None,
) -> Stream:
    """Stream shuffled batches of windows of consecutive states.

    The order is a pure function of data, seed and the arguments, whatever the threads do: a stream resumed from
    `Stream.state_dict` serves exactly the batches that an unbroken one would. Reading happens in threads; do not put the
    stream into worker processes.

    Parameters
    ----------
    data : path, glob, URL, Dataset, or a list of these
        A training store as `sciwm.data.prepare` writes it, any Zarr store or netCDF file, a Dataset (Dask-backed, lazy or in
        memory), or several of them: pieces that follow one another in time make one record, others are segments, which no window
        crosses; neither does one cross a gap in time. A dim ``time`` is needed.
    window : int
        States per window.
    batch_size : int
        Windows per batch and rank.
    variables : sequence of str, optional
        Variables, stacked in this order along the dim ``channel`` of the values; default all numeric ones along time, of files in
        the order of their names. What only some of them have beside the dims that all share, such as levels, becomes channels.
        ``positions`` alone keeps its shape.
    which : {"train", "validation", "test"}
        Block of the split of a training store.
    period : (first, last), optional
        Times to use of other data, both included, e.g. ``("1979", "2015")``.
    lead_steps : sequence of int
        Time steps between the states of a window; each window draws one of those that fit.
    stride : int, optional
        An epoch takes each ``stride``-th window, from a phase that changes so that ``stride`` epochs see all of them. Default: 1 if all
        states are in memory, else ``window``, because windows that overlap come from the same few blocks and shuffle badly.
    weights : array or DataArray, ``[time]``, optional
        How often windows that start at a time are drawn, relative to each other.
    shuffle : bool
        Without it, windows come in the order of time.
    seed : int
        Seed of the order.
    epochs : int, optional
        Epochs in one iteration; None goes on without end. The next iteration goes on with the next epoch.
    drop_last : bool, optional
        Leave out an epoch's last short batch; default only when shuffling. A lone short batch is always served.
    rank, world_size : int, optional
        Ranks get disjoint windows, equally many each; default those of ``torch.distributed``, if that runs, else 0 of 1.
    mode : {"resident", "block"}, optional
        Hold all states, or read ahead; default by ``memory_limit``.
    memory_limit : int
        Bytes for states held ready: blocks, those being read, and batches. States that fit into half of it are held as a whole.
    threads : int, optional
        Reading threads; default 4, or as many as there are cores. The order does not depend on them.
    dtype : torch.float32 or torch.bfloat16
        Of the values, in the pool and in the batches.
    pin_memory : bool
        Put batches into page-locked memory, for ``batch.to(device, non_blocking=True)``.
    on_error : {"raise", "skip"}
        What becomes of a chunk that is damaged or not there: an error that names it, or its windows are left out of their batches and
        counted in ``skipped``.
    cache : Cache, optional
        Keeps compressed chunks of a remote Zarr store on local disk.

    Returns
    -------
    Stream
        Batches have ``values [batch, time, channel, ...]`` and their mask ``valid``, times, and conditions of the calendar.

    Raises
    ------
    ValueError
        If no window fits, variables are unknown, or the smallest pool exceeds ``memory_limit``.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> time = xr.date_range("2000-01-01", periods=100, freq="D")
    >>> ds = xr.Dataset({n: (("time", "x"), np.random.rand(100, 8)) for n in "uv"}, {"time": time})
    >>> batches = stream(ds, window=4, batch_size=16)
    >>> next(iter(batches)).values.shape
    torch.Size([16, 4, 2, 8])
    """
    rank, world_size = _ranks(rank, world_size)
    if window < 1 or batch_size < 1 or not 0 <= rank < world_size:
        raise ValueError(
            f"got window {window}, batch_size {batch_size} and rank {rank} of {world_size}, expected at least 1 and a rank below the "
            "world size"
        )
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"got dtype {dtype}, expected torch.float32 or torch.bfloat16")
    if pin_memory and not torch.cuda.is_available():
        raise ValueError("got pin_memory=True without a GPU, expected False, because only copies to a GPU gain from it")
    source = open_source(data, variables=variables, period=period, cache=cache)
    windows = find_windows(source.label, source.segment, which=which, length=window, lead_steps=lead_steps)
    mode, sizes = choose_sizes(
        source, windows, batch_size=batch_size, stride=stride, mode=mode, memory_limit=memory_limit, item=dtype.itemsize, threads=threads
    )
    return Stream(
        source=source,
        windows=windows,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        mode=mode,
        order=("global" if mode == "resident" else "block") if shuffle else "none",
        sizes=sizes,
        stride=stride or (window if mode == "block" and shuffle else 1),
        weights=None if weights is None else _window_weights(weights, source, windows),
        epochs=epochs,
        drop_last=shuffle if drop_last is None else drop_last,
        dtype=dtype,
        pin_memory=pin_memory,
        on_error=on_error,
    )


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise ValueError(f"got rank {rank} and world_size {world_size}, expected both or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if running else (0, 1)


def _window_weights(weights: np.ndarray | xr.DataArray, source: Source, windows: Windows) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (source.shape[0],):
        raise ValueError(f"got weights of shape {values.shape}, expected one for each of the {source.shape[0]} times")
    chosen: np.ndarray = values[windows.starts]
    if not (np.isfinite(chosen).all() and (chosen >= 0).all() and chosen.any()):
        raise ValueError("got weights that are negative, not finite, or zero at every window, expected at least one positive")
    return chosen
