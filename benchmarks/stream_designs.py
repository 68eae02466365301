"""The ways to get batches of windows that `benchmarks/stream.py` measures and checks."""

import importlib.util
import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import dask
import numcodecs
import numpy as np
import torch
import xarray as xr

import sciwm

__all__ = [
    "Design",
    "Measured",
    "insitubatch",
    "limit",
    "ours",
    "plain",
    "stack",
    "xbatcher_map",
    "xbatcher_rows",
]

_LOADERS = itertools.count()
Role = Literal["reference", "ours", "limit", "other"]


@dataclass(frozen=True)
class Measured:
    """One measurement; ``index [window, time]`` and ``values`` of its first windows are checked."""

    windows: int
    seconds: float
    cpu: float
    first: float | None = None
    index: np.ndarray | None = None
    values: np.ndarray | None = None


@dataclass
class Design:
    """A row of the table; ``measure(number of the round)`` is called once a round."""

    name: str
    role: Role
    measure: Callable[[int], Measured]
    bar: float | None = None
    limit_bar: float | None = None
    failed: str = ""
    seen: list[Measured] = field(default_factory=list)

    def rates(self) -> np.ndarray:
        return np.array([m.windows / m.seconds for m in self.seen])


def stack(ds: xr.Dataset) -> torch.Tensor:
    """A loaded window as ``[time, channel, ...]``, or ``[time, ...]`` of a single variable.

    The cheapest way there is.
    """
    arrays = [v.values for v in ds.data_vars.values()]
    return torch.from_numpy(arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1))


# ---- ours


def ours(
    make: Callable[[], "sciwm.streams.open.Stream"], *, most: int | None = None
) -> Callable[[int], Measured]:
    """Time the second epoch, from the last batch of the first to its own last.

    So it starts and ends in the same state. ``make`` opens the data, so that the time to the
    first batch is that of a user. At most ``most`` batches of each epoch are used.
    """

    def measure(number: int) -> Measured:
        began = time.perf_counter()
        stream = make()
        batches = iter(stream)
        batch = next(batches)
        first = time.perf_counter() - began
        index, values = batch.index[:4].numpy(), batch.values[:4].numpy()
        for _ in range(min(most or 2**62, stream.batches_per_epoch(0)) - 1):
            batch = next(batches)
        count = min(most or 2**62, stream.batches_per_epoch(1))
        cpu, start, windows = time.process_time(), time.perf_counter(), 0
        for _ in range(count):
            windows += len(next(batches))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        batches.close()
        return Measured(windows, seconds, cpu, first, index, values)

    return measure


# ---- xbatcher and plain xarray


class _Order(torch.utils.data.Sampler[int]):
    """Windows in an order set before each round; xbatcher's own generator has that of time."""

    def __init__(self) -> None:
        self.windows: list[int] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self.windows)

    def __len__(self) -> int:
        return len(self.windows)


class _WithIndex(torch.utils.data.Dataset):
    """Loaded windows one by one, for plain xarray in a DataLoader of torch."""

    def __init__(self, open_data: Callable[[], xr.Dataset], window: int, stride: int) -> None:
        self.ds, self.window, self.stride = open_data(), window, stride

    def __len__(self) -> int:
        return (self.ds.sizes["time"] - self.window) // self.stride + 1

    def __getitem__(self, i: int) -> torch.Tensor:
        start = i * self.stride
        return stack(self.ds.isel(time=slice(start, start + self.window)).load())


def from_loader(
    make: Callable[[], Any],
    *,
    window: int,
    stride: int,
    batch_size: int,
    workers: int,
    batches: int,
) -> Callable[[int], Measured]:
    """Time some batches of a map-style dataset in a shuffled DataLoader.

    Worker processes live through all rounds.
    """
    kept: list[Any] = []
    # Windows of its own: netCDF keeps the last chunks that anyone has read of a file.
    own = next(_LOADERS)

    def measure(number: int) -> Measured:
        began, first = time.perf_counter(), None
        if not kept:
            order, options = _Order(), {"batch_size": batch_size, "num_workers": workers}
            if workers:
                options |= {
                    "persistent_workers": True,
                    "multiprocessing_context": _forkserver(),
                    "worker_init_fn": _synchronous,
                }
            kept.extend([order, torch.utils.data.DataLoader(make(), sampler=order, **options)])
            order.windows = list(range(batch_size * max(1, workers)))
            loaded = iter(kept[1])
            next(loaded)
            first = time.perf_counter() - began
            list(loaded)
        order, loader = kept
        total = len(loader.dataset)
        size = min(total, batches * batch_size)
        chosen = np.random.default_rng([own, number]).choice(total, size=size, replace=False)
        order.windows = chosen.tolist()
        children = _children(loader)
        cpu, start = time.process_time() + _cpu_of(children), time.perf_counter()
        count, head = 0, None
        for batch in loader:
            head = batch[:4].numpy() if head is None else head
            count += len(batch)
        seconds, cpu = time.perf_counter() - start, time.process_time() + _cpu_of(children) - cpu
        assert head is not None
        index = chosen[: len(head), None] * stride + np.arange(window)
        return Measured(count, seconds, cpu, first, index, head)

    return measure


def _forkserver() -> Any:
    """Processes that fork from one that has imported what they need.

    The fastest start that is safe beside threads.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "xarray", "zarr", "dask", "netCDF4", "xbatcher"])
    return context


def _synchronous(worker: int) -> None:
    dask.config.set(scheduler="synchronous")


def _children(loader: Any) -> list[int]:
    return [w.pid for w in getattr(getattr(loader, "_iterator", None), "_workers", [])]


def _cpu_of(processes: list[int]) -> float:
    total = 0.0
    for pid in processes:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def plain(
    open_data: Callable[[], xr.Dataset], *, window: int, stride: int, batch_size: int, batches: int
) -> Callable[[int], Measured]:
    """Time a loop over ``isel(time=…).load()``, the windows of a batch stacked."""
    return from_loader(
        lambda: _WithIndex(open_data, window, stride),
        window=window,
        stride=stride,
        batch_size=batch_size,
        workers=0,
        batches=batches,
    )


def xbatcher_map(
    open_data: Callable[[], xr.Dataset],
    window: int,
    stride: int,
    transform: Callable[[xr.Dataset], torch.Tensor],
) -> Any:
    """xbatcher's map-style dataset of windows."""
    import xbatcher
    from xbatcher.loaders.torch import MapDataset

    ds = open_data()
    dims = {str(d): n for d, n in ds.sizes.items() if d != "time"}
    generator = xbatcher.BatchGenerator(
        ds, input_dims={"time": window, **dims}, input_overlap={"time": window - stride}
    )
    return MapDataset(generator, transform=transform)


def xbatcher_rows(
    opened: dict[str, tuple[Callable[[], xr.Dataset], int, int]],
    *,
    window: int,
    stride: int,
    batch_size: int,
    transform: Callable[[xr.Dataset], torch.Tensor] = stack,
) -> list[Design]:
    """xbatcher in a DataLoader; none if it is not installed.

    ``opened`` has what opens the data, workers and batches by name.

    The fastest set-up it has: ``chunks=None`` (no Dask), map-style, the whole of space in
    ``input_dims`` so that nothing is stacked, a transform that copies once, worker processes that
    persist. Where there is Dask, it computes windows in the calling thread, which is faster for so
    small tasks than its threads are.
    """
    if importlib.util.find_spec("xbatcher") is None:
        return []
    same = {"window": window, "stride": stride, "batch_size": batch_size}

    def row(name: str, source: Callable[[], xr.Dataset], workers: int, batches: int) -> Design:
        dataset = partial(xbatcher_map, source, window, stride, transform)
        measure = from_loader(dataset, **same, workers=workers, batches=batches)
        return Design(name, "reference", measure)

    return [row(name, *what) for name, what in opened.items()]


# ---- insitubatch


def insitubatch(
    path: Path, names: list[str], *, window: int, batch_size: int, most: int
) -> Design | None:
    """insitubatch with its defaults and windows as shifted views; stride 1 only.

    None where it is not installed (Python ≥ 3.12). It yields one array for each variable and time
    of the window; these are not put together here, which favours it.
    """
    if importlib.util.find_spec("insitubatch") is None:
        return None
    from insitubatch import InSituDataset, obstore_store, open_geometries, split_by_chunk

    def measure(number: int) -> Measured:
        began = time.perf_counter()
        store = obstore_store(f"file://{path.absolute()}")
        fields = open_geometries(store, variables=names)
        views = {f"{name}@{k}": g.shift(k) for name, g in fields.items() for k in range(window)}
        manifest = split_by_chunk(fields[names[0]], fractions=(1.0, 0.0, 0.0))
        dataset = InSituDataset(store, manifest, geometries=views, batch_size=batch_size)
        batches = iter(dataset.train)
        batch = next(batches)
        first = time.perf_counter() - began
        index = np.asarray(batch.sample_indices)[:4, None] + np.arange(window)
        head = [[batch.arrays[f"{n}@{k}"][:4] for n in names] for k in range(window)]
        values = np.stack(head).transpose(2, 0, 1, 3, 4).copy()
        for _ in batches:
            pass
        dataset.set_epoch(1)
        cpu, start, windows = time.process_time(), time.perf_counter(), 0
        for used, batch in enumerate(dataset.train):
            windows += len(batch.sample_indices)
            if used + 1 == most:
                break
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return Measured(windows, seconds, cpu, first, index, values)

    return Design("insitubatch", "other", measure)


# ---- the limit


def limit(
    path: Path,
    names: list[str],
    *,
    window: int,
    stride: int,
    batch_size: int,
    threads: int = 2,
) -> Callable[[int], Measured]:
    """Time what no design can do without, on ``threads`` threads at once and on nothing else.

    A window takes window / reuse new steps, reuse = window / stride being the windows that share a
    step. So the seconds per window are stride · D + G, with D the wall time for decoding one step
    of all variables (by numcodecs, from bytes held in memory into a buffer that stays in the
    cache, disjoint parts in each thread) and G that for gathering one window (``numpy.take`` of a
    batch from 320 MB of states into memory of four batches in turn, disjoint batches in each
    thread). Divided among threads by measuring wall time with all of them at work, so what the
    cores can really do at once counts.
    """
    import zarr

    raw: list[list[bytes]] = []
    arrays = [zarr.open_array(path, path=name, mode="r") for name in names]
    chunk, state = arrays[0].chunks, int(np.prod(arrays[0].shape[1:])) * len(names)
    rows = min(64, arrays[0].shape[0] // chunk[0])
    pool = np.empty(0, np.float32)
    batches = np.empty(0, np.float32)

    def decode(part: int) -> None:
        out = np.empty(chunk, np.float32)
        for row in raw[part::threads]:
            for data in row:
                numcodecs.blosc.decompress(data, out)

    def gather(part: int) -> None:
        order = np.random.default_rng(part)
        for turn in range(12):
            starts = order.integers(0, len(pool) - window, size=batch_size)
            index = (starts[:, None] + np.arange(window)).ravel()
            np.take(pool, index, axis=0, out=batches[part, turn % 4], mode="clip")

    def measure(number: int) -> Measured:
        nonlocal pool, batches
        if not raw:
            key = "/".join(["{}", "c", "{}", *["0"] * (len(chunk) - 1)])
            for row in range(rows):
                raw.append([(path / key.format(name, row)).read_bytes() for name in names])
            pool = np.random.default_rng(0).random((4096, state), np.float32)
            batches = np.ones((threads, 4, batch_size * window, state), np.float32)
        each = np.median([_together(decode, threads) for _ in range(5)], axis=0)
        both = stride * each / (rows * chunk[0])
        each = np.median([_together(gather, threads) for _ in range(5)], axis=0)
        seconds, cpu = both + each / (12 * threads * batch_size)
        return Measured(1000, 1000 * seconds, 1000 * cpu)

    return measure


def _together(work: Callable[[int], None], threads: int) -> tuple[float, float]:
    """Wall and processor seconds of all threads at once.

    Never the main one, where numcodecs starts threads of Blosc's own.
    """
    running = [threading.Thread(target=work, args=(part,)) for part in range(threads)]
    cpu, start = time.process_time(), time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return time.perf_counter() - start, time.process_time() - cpu
