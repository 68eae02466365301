"""What `benchmarks/stream.py` measures: data, designs, and the bars each has to clear."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import xarray as xr
from stream_designs import (
    Design,
    Measured,
    insitubatch,
    limit,
    ours,
    plain,
    stack,
    xbatcher_rows,
)
from stream_stores import Stores

import sciwm

__all__ = ["Section", "make_sections"]

WINDOW, FRAMES = 6, 64
STEP = 0.02
# Also of data that would fit into memory, as these small examples do.
BLOCKS = sciwm.Reading(mode="block")


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Windows per batch; most batches of a baseline, and of an epoch of a stream; whether there are
    rows with worker processes.
    """

    batch: int = 32
    baseline: int = 1000
    most: int | None = None
    workers: bool = True


QUICK = Effort(batch=8, baseline=1, most=4, workers=False)


@dataclass
class Section:
    """Designs that are compared; ``reuse`` is the number of windows that share a step of the data.

    Ratios are to the best design with the role "reference". ``truth`` maps times ``[window, time]``
    to the values that belong there; None: nothing is checked. ``steps``: what is timed are training
    steps, and the ratio is the time that is added.
    """

    title: str
    reuse: str
    designs: list[Design]
    truth: Callable[[np.ndarray], np.ndarray] | None = None
    steps: bool = False


def make_sections(stores: Stores, *, quick: bool) -> list[Section]:
    """All sections; ``quick`` uses a few small batches of each design."""
    effort = QUICK if quick else Effort()
    return [
        *(_fields(stores, stride, effort) for stride in (1, WINDOW)),
        _derived(stores, effort),
        *(_netcdf(stores, name, effort) for name in ("packed", "contiguous")),
        _far(stores, effort),
        *(_molecule(stores, stride, effort) for stride in (1, FRAMES)),
        *(_steps(stores, kind, effort) for kind in ("accelerator", "processor")),
    ]


def _stream(
    data: Callable[[], object],
    stride: int,
    effort: Effort,
    *,
    window: int = WINDOW,
    variables: list[str] | None = None,
    reading: sciwm.Reading = BLOCKS,
) -> Callable[[], "sciwm.streams.open.Stream"]:
    """A stream of every ``stride``-th window."""
    order = sciwm.Order(every=stride, epochs=None)
    windows = {"window": window, "batch_size": effort.batch, "variables": variables}
    return lambda: sciwm.stream(data(), **windows, order=order, reading=reading)


def _from_store(ds: xr.Dataset) -> Callable[[np.ndarray], np.ndarray]:
    """Values of windows, read one by one by xarray."""
    return lambda index: np.stack([stack(ds.isel(time=i).load()).numpy() for i in index])


def _fields(stores: Stores, stride: int, effort: Effort) -> Section:
    path, batches, most = stores.fields, min(6, effort.baseline), effort.most
    lazy, chunked = partial(xr.open_zarr, path, chunks=None), partial(xr.open_zarr, path)
    names = list(lazy().data_vars)
    same = {"window": WINDOW, "stride": stride, "batch_size": effort.batch}
    rows = xbatcher_rows(
        {
            "xbatcher, 0 workers": (lazy, 0, batches),
            **({"xbatcher, 2 workers": (lazy, 2, 2 * batches)} if effort.workers else {}),
            "xbatcher on Dask, 0 workers": (chunked, 0, max(1, batches // 3)),
        },
        **same,
    )
    reuse = WINDOW // stride
    dask, zarr = (50.0, 75.0) if reuse > 1 else (11.0, 18.0)
    loop = plain(lazy, **same, batches=batches)
    decoded = _stream(chunked, stride, effort)
    canonical = _stream(partial(sciwm.open_dataset, path), stride, effort)
    direct = ours(_stream(lambda: path, stride, effort, variables=names), most=most)
    rows += [
        Design("xarray, isel and load", "other" if rows else "reference", loop),
        Design(
            "stream(xr.open_zarr(path)), decoded without Dask",
            "ours",
            ours(decoded, most=most),
            dask,
        ),
        Design(
            "stream(sciwm.open_dataset(path)), through Dask",
            "ours",
            ours(canonical, most=most),
            dask,
        ),
        Design("stream(path)", "ours", direct, zarr, limit_bar=0.7),
        Design("limit: decode + gather, 2 threads", "limit", limit(path, names, **same)),
    ]
    if stride == 1:
        size = {"window": WINDOW, "batch_size": effort.batch, "most": most or 2**62}
        rows += [row for row in [insitubatch(path, names, **size)] if row]
    title = f"Zarr, windows of {WINDOW} at stride {stride}"
    return Section(title, str(reuse), rows, _from_store(lazy()))


def _derive(ds: xr.Dataset, phase: xr.DataArray, mean: xr.Dataset, wave: xr.Dataset) -> xr.Dataset:
    """Wind speeds, and anomalies from a mean and an annual wave."""
    out = ds[list(mean.data_vars)] - mean - wave * phase
    return out.assign(
        speed850=np.hypot(ds["u850"], ds["v850"]), speed10=np.hypot(ds["u10"], ds["v10"])
    )


def _derived(stores: Stores, effort: Effort) -> Section:
    path, batches, most = stores.fields, min(3, effort.baseline), effort.most
    some = ["z500", "t850", "q700", "msl", "t2m", "d2m"]
    sample = xr.open_zarr(path, chunks=None)[some].isel(time=slice(0, 640)).load()
    mean, wave = sample.mean("time"), sample.std("time")
    time_of_year = np.arange(stores.sizes.times) * (2 * np.pi / 1461)
    phase = xr.DataArray(np.cos(time_of_year).astype("f4"), dims="time")

    def lazily() -> xr.Dataset:
        return _derive(xr.open_zarr(path), phase.chunk(time=32), mean, wave)

    same = {"window": WINDOW, "stride": 1, "batch_size": effort.batch}
    two = {"xbatcher, 2 workers": (lazily, 2, 2 * batches)} if effort.workers else {}
    rows = xbatcher_rows({"xbatcher, 0 workers": (lazily, 0, batches)} | two, **same)
    loop = plain(lazily, **same, batches=batches)
    streamed = ours(_stream(lazily, 1, effort), most=most)
    rows += [
        Design("xarray, isel and load", "other" if rows else "reference", loop),
        Design("stream(derived Dataset), through Dask", "ours", streamed, 25.0),
    ]
    return Section("Zarr, derived lazily: speeds, anomalies", "6", rows, _from_store(lazily()))


def _netcdf(stores: Stores, name: str, effort: Effort) -> Section:
    path, batches, most = getattr(stores, name), min(4, effort.baseline), effort.most
    opened = partial(xr.open_dataset, path, chunks=None)
    same = {"window": WINDOW, "stride": 1, "batch_size": effort.batch}
    rows = xbatcher_rows({"xbatcher, 0 workers": (opened, 0, batches)}, **same)
    stream = _stream(lambda: path, 1, effort, variables=list(opened().data_vars))
    loop = plain(opened, **same, batches=batches)
    rows += [
        Design("xarray, isel and load", "other" if rows else "reference", loop),
        Design("stream(path)", "ours", ours(stream, most=most), 15.0 if name == "packed" else None),
    ]
    layout = "zlib 4, chunks of 32 times" if name == "packed" else "contiguous"
    return Section(f"netCDF, {layout}", "6", rows, _from_store(opened()))


def _far(stores: Stores, effort: Effort) -> Section:
    url, most = f"slow://{stores.fields.absolute()}", effort.most
    some = partial(xr.open_zarr, url)
    same = {"window": WINDOW, "stride": 1, "batch_size": 3, "batches": 1}
    first, names = {"time": slice(0, 8192)}, list(some().data_vars)
    waiting = sciwm.Reading(mode="block", threads=16)
    rows = [
        Design("xarray, isel and load", "reference", plain(partial(some, chunks=None), **same)),
        Design("xarray on Dask, isel and load", "other", plain(some, **same)),
        Design(
            "stream(url)",
            "ours",
            ours(_stream(lambda: url, 1, effort, variables=names), most=most),
            500.0,
        ),
        Design(
            "stream(Dataset, threads=16)",
            "ours",
            ours(_stream(lambda: some().isel(first), 1, effort, reading=waiting), most=most),
        ),
    ]
    truth = _from_store(xr.open_zarr(stores.fields, chunks=None))
    return Section("Zarr, 30 ms for every read", "6", rows, truth)


def _molecule(stores: Stores, stride: int, effort: Effort) -> Section:
    path, batches, most = stores.frames, min(10, effort.baseline), effort.most or 4000
    lazy, chunked = partial(xr.open_zarr, path, chunks=None), partial(xr.open_zarr, path)
    same = {"window": FRAMES, "stride": stride, "batch_size": effort.batch, "batches": batches}
    blocks = _stream(lambda: path, stride, effort, window=FRAMES)
    resident = sciwm.Reading(mode="resident")
    whole = _stream(lambda: path, stride, effort, window=FRAMES, reading=resident)
    rows = [
        Design("xarray on Dask, isel and load", "reference", plain(chunked, **same)),
        Design("xarray, isel and load", "other", plain(lazy, **same)),
        Design("stream(path), blocks", "ours", ours(blocks, most=most), 200.0),
        Design("stream(path), in memory", "ours", ours(whole, most=most), 200.0),
    ]
    title = f"Molecule, {FRAMES} frames × 10 atoms at stride {stride}"
    return Section(title, str(FRAMES // stride), rows, _from_store(lazy()))


def _steps(stores: Stores, kind: str, effort: Effort) -> Section:
    """Steps on batches of the stream, beside the same steps on one batch that lies in memory."""
    path, count, most = stores.fields, min(100, effort.baseline), effort.most
    channels = len(xr.open_zarr(path, chunks=None).data_vars)
    shape = (effort.batch, WINDOW, channels, *stores.sizes.grid)
    step = _step(kind, shape)

    def fixed(number: int) -> Measured:
        values = torch.rand(shape)
        start = time.perf_counter()
        for _ in range(count):
            step(values)
        return Measured(count, time.perf_counter() - start, float("nan"))

    def fed(stride: int) -> Callable[[int], Measured]:
        def measure(number: int) -> Measured:
            stream = _stream(lambda: path, stride, effort)()
            batches = iter(stream)
            for _ in range(min(most or 2**62, stream.batches_per_epoch(0))):
                next(batches)
            # At the pace of the training, so that readers are as far ahead as throughout one.
            for _ in range(count):
                step(next(batches).values)
            start = time.perf_counter()
            for _ in range(count):
                step(next(batches).values)
            seconds = time.perf_counter() - start
            batches.close()
            return Measured(count, seconds, float("nan"))

        return measure

    rows = [Design("one batch in memory", "reference", fixed)]
    rows += [Design(f"stream(path), reuse {WINDOW // s}", "ours", fed(s), 5.0) for s in (6, 1)]
    places = {
        "accelerator": "on an accelerator (the processor sleeps)",
        "processor": "on one thread of the processor",
    }
    return Section(f"Training steps of 20 ms {places[kind]}", "–", rows, steps=True)


def _step(kind: str, shape: tuple[int, ...]) -> Callable[[torch.Tensor], None]:
    """Copy the batch, as to a device, and wait for 20 ms, or multiply matrices for as long."""
    device = torch.empty(shape)
    a, b = torch.rand(2, 384, 384)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    repeats = max(1, round(STEP / float(np.median(times))))

    def accelerator(values: torch.Tensor) -> None:
        device.copy_(values)
        time.sleep(STEP)

    def processor(values: torch.Tensor) -> None:
        device.copy_(values)
        for _ in range(repeats):
            torch.mm(a, b)

    return accelerator if kind == "accelerator" else processor
