"""What a stream reads from: training stores, any Zarr store, netCDF files, Datasets, or several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from sciwm.chunks.cache import Cache
from sciwm.chunks.chunks import ChunkReader, Piece, cf_packing
from sciwm.data.names import close_matches
from sciwm.data.read import Store, read_pieces
from sciwm.data.timeline import check_times
from sciwm.store.forcing import conditions
from sciwm.store.split import LABELS
from sciwm.streams.readers import DaskReader, JoinedReader, Part, Reader, SliceReader
from sciwm.times import infer_step, numeric_time

__all__ = ["Source", "open_source"]

# Bytes of a channel from which on copying it by itself costs no more than copying whole states.
_APART = 4096


@dataclass(frozen=True)
class Source:
    """The states through ``reader``, everything else in memory.

    Parameters
    ----------
    reader : Reader
        Fills buffers with states.
    shape : tuple of int
        ``(time, *state)``.
    channels : tuple of str
        Names along the state's first dim; empty for molecules.
    label, segment : int, ``[time]``
        Block of the split (−1: in none) and piece of the record.
    time, condition : Tensor, ``[time]`` and ``[time, condition]``
        As in a `Batch`.
    names : array, ``[time]``
        Times as people read them.
    copies : float
        Blocks in memory, beside the pool, for each that is being read.
    apart : bool
        Whether every channel is read by itself and is large enough to be kept by itself.
    """

    reader: Reader
    shape: tuple[int, ...]
    channels: tuple[str, ...]
    label: np.ndarray
    segment: np.ndarray
    time: torch.Tensor
    condition: torch.Tensor
    names: np.ndarray
    copies: float
    apart: bool

    @property
    def state_bytes(self) -> int:
        """Bytes of one state in float32."""
        return 4 * math.prod(self.shape[1:])


def open_source(
    data: Store,
    *,
    variables: Sequence[str] | None = None,
    period: tuple[Any, Any] | None = None,
    cache: Cache | None = None,
) -> Source:
    """Open stores or Datasets for reading by a stream; no state is read.

    Parameters
    ----------
    data : path, glob, URL, Dataset, or a list of these
        Pieces that follow one another make one record; the others, and what lies between gaps in
        time, are segments.
    variables : sequence of str, optional
        Variables, in the order of the channels; default all with a dim ``time``.
    period : (first, last), optional
        Times to use, both included.
    cache : Cache, optional
        Where chunks of Zarr stores are kept on local disk.

    Raises
    ------
    ValueError
        If variables are unknown or share no shape, pieces differ, or times are repeated or out of
        order.
    """
    if (trained := _training_store(data)) is not None:
        if variables is not None or period is not None:
            raise ValueError(
                "got variables or which=(first, last) with a training store, expected neither: it"
                " holds prepared states and their split"
            )
        return _open_training(*trained, cache)
    pieces = read_pieces(data)
    opened = [_open_piece(label, ds, variables, cache) for label, ds in pieces]
    first = opened[0]
    for (label, _), piece in zip(pieces, opened, strict=True):
        if (piece.shape[1:], piece.channels) != (first.shape[1:], first.channels):
            raise ValueError(
                f"got states {piece.channels} {piece.shape[1:]} in {label} and {first.channels}"
                f" {first.shape[1:]} in {pieces[0][0]}, expected the same"
            )
    axis = _axis([(label, p.axis) for (label, _), p in zip(pieces, opened, strict=True)])
    values = axis["time"].values
    used = np.full(len(values), LABELS["train"], np.int8)
    if period is not None:
        inside = _inside(axis["time"], period)
        if not inside.any():
            raise ValueError(
                f"got which = {period[0]} … {period[1]}, expected times between {values.min()} and"
                f" {values.max()}"
            )
        used[~inside] = -1
    joined = JoinedReader([p.reader for p in opened], [p.shape[0] for p in opened])
    return Source(
        reader=first.reader if len(opened) == 1 else joined,
        shape=(len(values), *first.shape[1:]),
        channels=first.channels,
        label=used,
        segment=axis["segment"].values,
        time=torch.from_numpy(numeric_time(values)),
        condition=torch.from_numpy(_conditions(axis)),
        names=values,
        copies=max(p.copies for p in opened),
        apart=first.apart,
    )


def _training_store(data: Store) -> tuple[str | Path | None, xr.Dataset] | None:
    from sciwm.store.prepare import is_training_store, open_training_store

    if isinstance(data, xr.Dataset):
        complete = data.attrs.get("complete") and {"state", "split"} <= set(data.variables)
        return (None, data) if complete else None
    if isinstance(data, str | Path) and is_training_store(data):
        return data, open_training_store(data)
    return None


def _open_training(path: str | Path | None, ds: xr.Dataset, cache: Cache | None) -> Source:
    state = ds["state"]
    reader: Reader
    if path is not None:
        import zarr

        array = zarr.open_array(path, path="state", mode="r")
        reader = ChunkReader([Piece(array, None)], cache=cache)
    else:
        kind = DaskReader if state.chunks else SliceReader
        reader = kind([Part(state.variable, "state", None)], label="the training store")
    return Source(
        reader=reader,
        shape=tuple(state.shape),
        channels=tuple(str(c) for c in ds["channel"].values) if "channel" in ds.coords else (),
        label=ds["split"].values,
        segment=ds["segment"].values,
        time=torch.from_numpy(numeric_time(ds["time"].values)),
        condition=torch.from_numpy(np.ascontiguousarray(ds["condition"].values, dtype=np.float32)),
        names=ds["time"].values,
        copies=0.0 if path is not None else 1.0,
        apart=False,
    )


@dataclass(frozen=True)
class _Opened:
    """One store or Dataset; ``axis`` has its times and segments, the rest is as in `Source`."""

    reader: Reader
    shape: tuple[int, ...]
    channels: tuple[str, ...]
    axis: xr.Dataset
    copies: float
    apart: bool


def _open_piece(
    label: str, ds: xr.Dataset, variables: Sequence[str] | None, cache: Cache | None
) -> _Opened:
    if "time" not in ds.dims:
        raise ValueError(
            f"got {label} with dims {[str(d) for d in ds.dims]}, expected one called 'time'; rename"
            " it: ds.rename(valid_time='time')"
        )
    parts, shape, channels = _layout(ds, _names(label, ds, variables))
    time = ds["time"] if "time" in ds.coords else ("time", np.arange(float(ds.sizes["time"])))
    axis = xr.Dataset(coords={"time": time})
    if "segment" in ds.coords:
        axis = axis.assign_coords(segment=("time", ds["segment"].values))
    sizes = [math.prod(p.variable.shape[1:]) for p in parts]
    reader: Reader
    if any(p.variable.chunks is not None for p in parts):
        chunked = [
            p if p.variable.chunks is not None else replace(p, variable=p.variable.chunk(time=256))
            for p in parts
        ]
        reader, copies = DaskReader(chunked, label=label), 1.0
    elif pieces := _zarr_pieces(label, ds, parts):
        reader, copies = ChunkReader(pieces, cache=cache), 0.0
    else:
        reader, copies = SliceReader(parts, label=label), max(sizes) / sum(sizes)
    apart = len(parts) == len(channels) and 4 * sizes[0] >= _APART
    return _Opened(reader, shape, channels, axis, copies, apart)


def _names(label: str, ds: xr.Dataset, variables: Sequence[str] | None) -> list[str]:
    """The variables asked for, or all numeric ones along time."""
    if variables is None:
        names = [
            str(n) for n, v in ds.data_vars.items() if "time" in v.dims and v.dtype.kind in "fiu"
        ]
        # The order in a store is that of a folder's listing; in a Dataset it is its maker's.
        names = names if label.startswith(("the Dataset", "Dataset ")) else sorted(names)
    else:
        names = list(variables)
    available = sorted(str(n) for n in ds.variables)
    for name in names:
        if name not in ds.variables or "time" not in ds[name].dims:
            raise ValueError(
                f"got variable {name!r}, which {label} does not have along"
                f" time{close_matches(name, available)}"
            )
    if not names:
        raise ValueError(f"got {label} without a numeric variable along time; it has {available}")
    return names


def _layout(
    ds: xr.Dataset, names: Sequence[str]
) -> tuple[list[Part], tuple[int, ...], tuple[str, ...]]:
    """Where each variable goes: shared dims stay, what only some have (levels) becomes channels."""
    fields = {n: ds[n].variable for n in names}
    if names == ["positions"]:
        positions = fields["positions"].transpose("time", ...)
        return [Part(positions, "positions", None)], positions.shape, ()
    first = fields[names[0]]
    shared = [d for d in first.dims if d != "time" and all(d in v.dims for v in fields.values())]
    parts: list[Part] = []
    channels: list[str] = []
    for name, v in fields.items():
        own = [d for d in v.dims if d != "time" and d not in shared]
        v = v.transpose("time", *own, *shared)
        labels = [""]
        for d in own:
            ticks = ds[d].values if d in ds.coords else np.arange(v.sizes[d])
            endings = [f"_{x:g}" if isinstance(x, np.number) else f"_{x}" for x in ticks]
            labels = [a + b for a in labels for b in endings]
        parts.append(Part(v, name, slice(len(channels), len(channels) + len(labels))))
        channels += [name + x for x in labels]
    shape = (first.sizes["time"], len(channels), *(first.sizes[d] for d in shared))
    return parts, shape, tuple(channels)


def _zarr_pieces(label: str, ds: xr.Dataset, parts: Sequence[Part]) -> list[Piece]:
    """The arrays behind a Zarr store as xarray opened it; none if a variable is not one of them.

    They may be packed.
    """
    import zarr

    try:
        group = zarr.open_group(label, mode="r")
    except (FileNotFoundError, ValueError, OSError):
        return []
    pieces = []
    for part in parts:
        found: Any = group.get(part.name)
        original = ds[part.name].variable
        packing = cf_packing(original.encoding)
        if packing is None or found is None or found.dtype.kind not in "fiu":
            return []
        if found.shape != original.shape or part.variable.dims != original.dims:
            return []
        pieces.append(Piece(found, part.place, *packing))
    return pieces


def _axis(pieces: Sequence[tuple[str, xr.Dataset]]) -> xr.Dataset:
    """All times, one piece after the other; ``segment`` rises where windows must not cross."""
    times, segments, last, number = [], [], None, 0
    for _, axis in pieces:
        amount = numeric_time(axis["time"].values)
        own = axis["segment"].values if "segment" in axis.coords else np.zeros(len(amount), int)
        steps = np.concatenate([[0], np.cumsum(own[1:] != own[:-1])])[: len(own)]
        number += last is not None and not (len(amount) and amount[0] > last)
        segments.append(steps + number)
        number = int(segments[-1].max(initial=number))
        last = amount[-1] if len(amount) else last
        times.append(axis["time"].values)
    kinds = {_time_kind(t) for t in times}
    if len(kinds) > 1:
        raise ValueError(
            "got pieces with times in different calendars, expected one, because their differences"
            " have no meaning"
        )
    attrs = pieces[0][1]["time"].attrs
    if kinds == {"number"} and str(attrs.get("units", "")) not in ("fs", "ps", "ns"):
        # Only so that plain numbers are checked for regularity like simulation time.
        attrs = {**attrs, "units": "ps"}
    coords = {
        "time": ("time", np.concatenate(times), attrs),
        "segment": ("time", np.concatenate(segments).astype(np.int32)),
    }
    labels = pieces[0][0] if len(pieces) == 1 else f"{len(pieces)} stores"
    return check_times(xr.Dataset(coords=coords), split=True, label=labels)


def _time_kind(time: np.ndarray) -> str:
    if time.dtype.kind == "O" and time.size:
        return str(time.flat[0].calendar)
    return "number" if time.dtype.kind in "iuf" else time.dtype.kind


def _conditions(axis: xr.Dataset) -> np.ndarray:
    time = axis["time"]
    if time.dtype.kind in "iuf":
        return np.zeros((time.size, 0), np.float32)
    segment = axis["segment"].values
    # Regular throughout: a few times tell the step.
    longest = np.flatnonzero(segment == np.bincount(segment).argmax())[:100]
    return conditions(time.values, infer_step(time[longest] if len(longest) > 1 else time))


def _inside(time: xr.DataArray, period: tuple[Any, Any]) -> np.ndarray:
    if time.dtype.kind in "iuf":
        return np.asarray((time.values >= float(period[0])) & (time.values <= float(period[1])))
    order = np.argsort(time.values, kind="stable")
    inside = np.zeros(time.size, bool)
    # As .sel(time=slice(...)) does: "2007" is the whole year.
    inside[order[time[order].to_index().slice_indexer(*period)]] = True
    return inside
