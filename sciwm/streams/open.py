"""Batches of windows from stores and Datasets: what is read, and how; `Stream` then does it."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from sciwm.data.read import Store
from sciwm.store.split import LABELS
from sciwm.streams.batches import Stream
from sciwm.streams.choices import Order, Reading
from sciwm.streams.sizes import choose_sizes
from sciwm.streams.source import Source, open_source
from sciwm.streams.windows import Ordering, Spacing, Windows, find_windows

__all__ = ["Order", "Reading", "Spacing", "Stream", "stream"]

Which = Literal["train", "validation", "test"]


def stream(
    data: Store,
    *,
    window: int | Spacing,
    batch_size: int,
    variables: Sequence[str] | None = None,
    which: Which | tuple[Any, Any] = "train",
    lead_steps: Sequence[int] = (1,),
    order: Order = Order(),
    reading: Reading = Reading(),
) -> Stream:
    """Stream shuffled batches of windows of consecutive states.

    The order is a pure function of data, seed and the arguments, whatever the threads do. A stream
    resumed from `Stream.state_dict` serves exactly the batches that an unbroken one would. Reading
    happens in threads; do not put the stream into worker processes.

    Parameters
    ----------
    data : path, glob, URL, Dataset, or a list of these
        A training store as `sciwm.store.prepare` writes it, any Zarr store, a netCDF file, or a
        Dataset, lazy or not. Of several, pieces that follow one another in time make
        one record, others are segments. No window crosses from one segment into another, or a gap
        in time. A dim ``time`` is needed.
    window : int or Spacing
        States per window. A `Spacing` says, too, how many of them are context, with a step of its
        own between them: ``Spacing(5, context=3, context_step=2)``.
    batch_size : int
        Windows per batch and rank.
    variables : sequence of str, optional
        Variables, stacked in this order along the dim ``channel`` of the values. Default: all
        numeric ones along time, of files in the order of their names. Dims that only some of them
        have, such as levels, become channels. ``positions`` alone keeps its shape.
    which : {"train", "validation", "test"} or (first, last)
        Block of the split of a training store. Of other data, times to use, both included, e.g.
        ``("1979", "2015")``; default all.
    lead_steps : sequence of int
        Time steps between the states of a window, after its context. Each window draws one of those
        that fit.
    order : Order
        Seed, epochs, which windows an epoch has, and ranks; by default one shuffled epoch.
    reading : Reading
        Memory, threads, type of the values, damaged chunks, and a cache of remote ones.

    Returns
    -------
    Stream
        Batches have ``values [batch, time, channel, ...]`` and their mask ``valid``, times, and
        conditions of the calendar.

    Raises
    ------
    ValueError
        If no window fits, variables are unknown, or the smallest pool exceeds the memory limit.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> time = xr.date_range("2000-01-01", periods=100, freq="D")
    >>> ds = xr.Dataset({n: (("time", "x"), np.random.rand(100, 8)) for n in "uv"}, {"time": time})
    >>> batches = stream(ds, window=4, batch_size=16, order=Order(seed=1, epochs=2))
    >>> next(iter(batches)).values.shape
    torch.Size([16, 4, 2, 8])
    """
    if batch_size < 1:
        raise ValueError(f"got batch_size {batch_size}, expected at least 1")
    spacing = window if isinstance(window, Spacing) else Spacing(window)
    if isinstance(which, str) and which not in LABELS:
        raise ValueError(f"got which = {which!r}, expected {', '.join(LABELS)} or (first, last)")
    period = None if isinstance(which, str) else which
    block = which if isinstance(which, str) else "train"
    source = open_source(data, variables=variables, period=period, cache=reading.cache)
    windows = find_windows(
        source.label, source.segment, which=block, spacing=spacing, lead_steps=lead_steps
    )
    mode, sizes = choose_sizes(
        source, windows, batch_size=batch_size, every=order.every, reading=reading
    )
    shuffled: Ordering = "global" if mode == "resident" else "block"
    rank, world_size = order.place()
    return Stream(
        source=source,
        windows=windows,
        batch_size=batch_size,
        seed=order.seed,
        rank=rank,
        world_size=world_size,
        mode=mode,
        order=shuffled if order.shuffle else "none",
        sizes=sizes,
        every=order.every or (spacing.length if mode == "block" and order.shuffle else 1),
        weights=None if order.weights is None else _window_weights(order.weights, source, windows),
        epochs=order.epochs,
        drop_last=order.shuffle if order.drop_last is None else order.drop_last,
        dtype=reading.dtype,
        pin_memory=reading.pin_memory,
        on_error=reading.on_error,
    )


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
