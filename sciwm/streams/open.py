"""Batches of windows from stores and Datasets: what is read, which windows, in how much memory (`Stream` then does it)."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from sciwm.chunks.cache import Cache
from sciwm.data.read import Store
from sciwm.streams.batches import Stream
from sciwm.streams.sizes import Mode, choose_sizes
from sciwm.streams.source import Source, open_source
from sciwm.streams.windows import Windows, find_windows

__all__ = ["Stream", "stream"]


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

    The order is a pure function of data, seed and the arguments, whatever the threads do: a stream
    resumed from `Stream.state_dict` serves exactly the batches that an unbroken one would. Reading
    happens in threads; do not put the stream into worker processes.

    Parameters
    ----------
    data : path, glob, URL, Dataset, or a list of these
        A training store as `sciwm.store.prepare` writes it, any Zarr store or netCDF file, a
        Dataset (Dask-backed, lazy or in memory), or several of them: pieces that follow one another
        in time make one record, others are segments, which no window crosses; neither does one
        cross a gap in time. A dim ``time`` is needed.
    window : int
        States per window.
    batch_size : int
        Windows per batch and rank.
    variables : sequence of str, optional
        Variables, stacked in this order along the dim ``channel`` of the values; default all
        numeric ones along time, of files in the order of their names. What only some of them have
        beside the dims that all share, such as levels, becomes channels. ``positions`` alone keeps
        its shape.
    which : {"train", "validation", "test"}
        Block of the split of a training store.
    period : (first, last), optional
        Times to use of other data, both included, e.g. ``("1979", "2015")``.
    lead_steps : sequence of int
        Time steps between the states of a window; each window draws one of those that fit.
    stride : int, optional
        An epoch takes each ``stride``-th window, from a phase that changes so that ``stride``
        epochs see all of them. Default: 1 if all states are in memory, else ``window``, because
        windows that overlap come from the same few blocks and shuffle badly.
    weights : array or DataArray, ``[time]``, optional
        How often windows that start at a time are drawn, relative to each other.
    shuffle : bool
        Without it, windows come in the order of time.
    seed : int
        Seed of the order.
    epochs : int, optional
        Epochs in one iteration; None goes on without end. The next iteration goes on with the next
        epoch.
    drop_last : bool, optional
        Leave out an epoch's last short batch; default only when shuffling. A lone short batch is
        always served.
    rank, world_size : int, optional
        Ranks get disjoint windows, equally many each; default those of ``torch.distributed``, if
        that runs, else 0 of 1.
    mode : {"resident", "block"}, optional
        Hold all states, or read ahead; default by ``memory_limit``.
    memory_limit : int
        Bytes for states held ready: blocks, those being read, and batches. States that fit into
        half of it are held as a whole.
    threads : int, optional
        Reading threads; default 4, or as many as there are cores. The order does not depend on
        them.
    dtype : torch.float32 or torch.bfloat16
        Of the values, in the pool and in the batches.
    pin_memory : bool
        Put batches into page-locked memory, for ``batch.to(device, non_blocking=True)``.
    on_error : {"raise", "skip"}
        What becomes of a chunk that is damaged or not there: an error that names it, or its windows
        are left out of their batches and counted in ``skipped``.
    cache : Cache, optional
        Keeps compressed chunks of a remote Zarr store on local disk.

    Returns
    -------
    Stream
        Batches have ``values [batch, time, channel, ...]`` and their mask ``valid``, times, and
        conditions of the calendar.

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
            f"got window {window}, batch_size {batch_size} and rank {rank} of {world_size},"
            " expected at least 1 and a rank below the world size"
        )
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"got dtype {dtype}, expected torch.float32 or torch.bfloat16")
    if pin_memory and not torch.cuda.is_available():
        raise ValueError(
            "got pin_memory=True without a GPU, expected False, because only copies to a GPU gain"
            " from it"
        )
    source = open_source(data, variables=variables, period=period, cache=cache)
    windows = find_windows(
        source.label, source.segment, which=which, length=window, lead_steps=lead_steps
    )
    mode, sizes = choose_sizes(
        source,
        windows,
        batch_size=batch_size,
        stride=stride,
        mode=mode,
        memory_limit=memory_limit,
        item=dtype.itemsize,
        threads=threads,
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


def _window_weights(
    weights: np.ndarray | xr.DataArray, source: Source, windows: Windows
) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (source.shape[0],):
        raise ValueError(
            f"got weights of shape {values.shape}, expected one for each of the {source.shape[0]}"
            " times"
        )
    chosen: np.ndarray = values[windows.starts]
    if not (np.isfinite(chosen).all() and (chosen >= 0).all() and chosen.any()):
        raise ValueError(
            "got weights that are negative, not finite, or zero at every window, expected at least"
            " one positive"
        )
    return chosen
