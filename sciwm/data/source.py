"""States read from a training store by threads: all of a block of the split at once, or ahead of their use into a pool."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from sciwm.data.prepare import open_training_store
from sciwm.data.windows import Windows
from sciwm.times import numeric_time

__all__ = ["Pool", "Source", "load_states", "open_source"]

_THREADS = 4


@dataclass(frozen=True)
class Source:
    """What a stream reads: the states through ``read(start, stop)``, everything else in memory."""

    read: Callable[[int, int], np.ndarray]
    shape: tuple[int, ...]
    chunk: int
    label: np.ndarray
    segment: np.ndarray
    time: torch.Tensor
    condition: torch.Tensor
    names: np.ndarray

    @property
    def state_bytes(self) -> int:
        """Bytes of one state."""
        return 4 * int(np.prod(self.shape[1:]))


class Pool:
    """Slots of one array that background threads fill with blocks of times."""

    def __init__(self, source: Source, slot_times: int, slots: int) -> None:
        self._source, self._times = source, slot_times
        self.states = torch.empty((slots * slot_times, *source.shape[1:]))
        self._free = list(range(slots))
        self._held: dict[tuple[int, int], tuple[int, int, Future[None]]] = {}
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="sciwm-read")

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._held

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    def submit(self, key: tuple[int, int], start: int, stop: int) -> None:
        """Have a block read; the pool grows if every slot is in use, which the plan makes rare."""
        if not self._free:
            for _, _, future in self._held.values():
                future.result()
            self._free.append(len(self.states) // self._times)
            self.states = torch.cat([self.states, torch.empty((self._times, *self.states.shape[1:]))])
        slot = self._free.pop()
        out = self.states[slot * self._times :][: stop - start].numpy()
        self._held[key] = (slot, start, self._executor.submit(_read_into, self._source, start, stop, out))

    def wait(self, key: tuple[int, int]) -> int:
        """Return what must be added to a time to find it in `states`, once the block is there."""
        slot, start, future = self._held[key]
        future.result()
        return slot * self._times - start

    def release(self, keys: Sequence[tuple[int, int]]) -> None:
        """Free the slots of blocks that no batch needs any more."""
        for key in keys:
            self._free.append(self._held.pop(key)[0])

    def release_epoch(self, epoch: int) -> None:
        """Free what is left of an epoch."""
        self.release([k for k in self._held if k[0] == epoch])

    def close(self) -> None:
        """Stop the readers."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def load_states(source: Source, windows: Windows) -> tuple[torch.Tensor, np.ndarray]:
    """Read the states of all times that any window touches; return them and the row of every time."""
    used = np.zeros(source.shape[0] + 1, np.int64)
    span = (windows.length - 1) * np.asarray(windows.lead_steps)[windows.num_strides - 1]
    np.add.at(used, windows.starts, 1)
    np.add.at(used, windows.starts + span + 1, -1)
    needed = np.cumsum(used[:-1]) > 0
    place = np.cumsum(needed) - 1
    states = torch.empty((int(needed.sum()), *source.shape[1:]))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], needed, [False]])))
    step = source.chunk * max(1, 2**24 // (source.chunk * source.state_bytes))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sciwm-read") as executor:
        tasks = []
        for start, stop in edges.reshape(-1, 2).tolist():
            cuts = [start, *range((start // step + 1) * step, stop, step), stop]
            for a, b in pairwise(cuts):
                tasks.append(executor.submit(_read_into, source, a, b, states[place[a] : place[a] + b - a].numpy()))
        try:
            for task in tasks:
                task.result()
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    return states, place


def open_source(store: str | Path | xr.Dataset) -> Source:
    """Open a training store, or take one opened, for reading from several threads."""
    if isinstance(store, xr.Dataset):
        ds = store
        state = ds["state"]
        chunk = max(state.chunksizes["time"]) if state.chunks else 32

        def read(start: int, stop: int) -> np.ndarray:
            part = state[start:stop].data
            return np.asarray(part.compute(scheduler="threads") if hasattr(part, "compute") else part)
    else:
        import zarr

        ds = open_training_store(store)
        array: Any = zarr.open_array(store, path="state", mode="r")
        chunk = array.chunks[0]

        def read(start: int, stop: int) -> np.ndarray:
            return np.asarray(array[start:stop])

    return Source(
        read=read,
        shape=tuple(ds["state"].shape),
        chunk=int(chunk),
        label=ds["split"].values,
        segment=ds["segment"].values,
        time=torch.from_numpy(numeric_time(ds["time"].values)),
        condition=torch.from_numpy(np.ascontiguousarray(ds["condition"].values, dtype=np.float32)),
        names=ds["time"].values,
    )


def _read_into(source: Source, start: int, stop: int, out: np.ndarray) -> None:
    try:
        out[...] = source.read(start, stop)
    except Exception as error:
        names = source.names
        raise OSError(
            f"could not read the states of times {names[start]} … {names[stop - 1]} (steps {start} to {stop - 1}) of the training store: "
            f"{type(error).__name__}: {error}"
        ) from error
