"""States read from xarray's arrays: Dask's with one small graph per block, others by slices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from sciwm.chunks.chunks import ChunkReader, Failure, Found, Piece, has_nan, placed, rows
from sciwm.chunks.guard import decode_directly, stored_array

__all__ = ["DaskReader", "JoinedReader", "Part", "Reader", "SliceReader"]

# Tasks up to which a graph is laid out once and cut per block; a task takes about 1 kB.
_WHOLE = 200_000


@runtime_checkable
class Reader(Protocol):
    """What a stream reads states with, from several threads at once."""

    chunk: int

    def read(self, start: int, stop: int, out: np.ndarray) -> Found:
        """Fill ``out`` (float32, ``[stop − start, *state]``); tell what misses or is damaged."""

    def close(self) -> None:
        """Let go of files and threads."""


@dataclass(frozen=True)
class Part:
    """A variable and the channels of the state that it fills; the whole state without ``place``."""

    variable: xr.Variable
    name: str
    place: slice | None


class SliceReader:
    """Reads slices of lazily opened variables, such as netCDF's, or of arrays in memory."""

    def __init__(self, parts: Sequence[Part], *, label: str) -> None:
        self._parts, self._label = tuple(parts), label
        self.chunk = max(_stored_chunk(p.variable) for p in parts)

    def read(self, start: int, stop: int, out: np.ndarray) -> Found:
        """Fill ``out`` with the states of the times from ``start`` to before ``stop``."""
        return _read_pieces(self._fill, start, stop, out, self.chunk, self._label)

    def _fill(self, start: int, stop: int, out: np.ndarray) -> None:
        for part in self._parts:
            values = np.asarray(part.variable[start:stop].values)
            placed(out, part.place, values.shape, name=part.name)[...] = values

    def close(self) -> None:
        """Nothing is held."""


class DaskReader:
    """Computes blocks of lazily derived variables in the calling thread.

    Each block takes the part of the graph that it needs. Variables that are the very arrays of a
    Zarr store, as from ``xr.open_zarr``, are decoded from it without Dask.
    """

    def __init__(self, parts: Sequence[Part], *, label: str) -> None:
        from dask.base import optimize

        self._parts, self._label = tuple(parts), label
        self.chunk = max(max(p.variable.chunksizes[p.variable.dims[0]]) for p in parts)
        arrays = [p.variable.data for p in parts]
        self._graph: dict[Any, Any] | None = None
        self._stored: ChunkReader | None = None
        if sum(len(layer) for a in arrays for layer in a.dask.layers.values()) <= _WHOLE:
            optimized = list(optimize(*arrays))  # type: ignore[no-untyped-call]
            self._graph = decode_directly({k: v for a in optimized for k, v in a.dask.items()})
            stored = [stored_array(a, self._graph) for a in arrays]
            if all(s is not None for s in stored):
                pieces = [Piece(s, p.place) for s, p in zip(stored, parts, strict=True)]
                self._stored = ChunkReader(pieces)
                self.chunk = self._stored.chunk
            arrays = optimized
        self._arrays = arrays
        self._edges = [np.concatenate([[0], np.cumsum(a.chunks[0])]) for a in arrays]

    def read(self, start: int, stop: int, out: np.ndarray) -> Found:
        """Fill ``out`` with the states of the times from ``start`` to before ``stop``."""
        if self._stored is not None and not (found := self._stored.read(start, stop, out)).failed:
            return found
        # A chunk that is absent means the fill value to xarray: it decides what is damage.
        return _read_pieces(self._fill, start, stop, out, self.chunk, self._label)

    def _fill(self, start: int, stop: int, out: np.ndarray) -> None:
        from dask.local import get_sync
        from dask.optimization import cull

        if self._graph is None:
            self._fill_from_slices(start, stop, out)
            return
        places = [list(self._places(i, start, stop)) for i in range(len(self._arrays))]
        needed = zip(self._arrays, places, strict=True)
        keys = [[(a.name, *index) for index, _ in found] for a, found in needed]
        graph, _ = cull(self._graph, [k for some in keys for k in some])  # type: ignore[no-untyped-call]
        results = get_sync(graph, keys)  # type: ignore[arg-type]
        for part, a, found, values in zip(self._parts, self._arrays, places, results, strict=True):
            whole = placed(out, part.place, (stop - start, *a.shape[1:]), name=part.name)
            for (_, (cut, where)), x in zip(found, values, strict=True):
                whole[where] = np.asarray(x)[cut]

    def _fill_from_slices(self, start: int, stop: int, out: np.ndarray) -> None:
        from dask.base import compute

        values = compute(*(a[start:stop] for a in self._arrays), scheduler="sync")  # type: ignore[no-untyped-call]
        for part, x in zip(self._parts, values, strict=True):
            placed(out, part.place, x.shape, name=part.name)[...] = x

    def _places(self, i: int, start: int, stop: int) -> Any:
        """Chunks of an array that overlap the block: index, what to take, and where it goes."""
        array, edges = self._arrays[i], self._edges[i]
        first = int(np.searchsorted(edges, start, side="right")) - 1
        last = int(np.searchsorted(edges, stop, side="left"))
        others = [
            [slice(a, b) for a, b in pairwise([0, *np.cumsum(c).tolist()])]
            for c in array.chunks[1:]
        ]
        for k in range(first, last):
            low, high = max(start, int(edges[k])), min(stop, int(edges[k + 1]))
            if high <= low:
                continue
            for index in product(*(range(len(o)) for o in others)):
                cut = slice(low - int(edges[k]), high - int(edges[k]))
                rest = tuple(o[j] for o, j in zip(others, index, strict=True))
                yield (k, *index), (cut, (slice(low - start, high - start), *rest))

    def close(self) -> None:
        """Close the store, if it is read without Dask."""
        if self._stored is not None:
            self._stored.close()


class JoinedReader:
    """Several readers one after the other along time."""

    def __init__(self, readers: Sequence[Reader], lengths: Sequence[int]) -> None:
        self._readers = tuple(readers)
        self._edges = np.concatenate([[0], np.cumsum(lengths)])
        self.chunk = max(r.chunk for r in readers)

    def read(self, start: int, stop: int, out: np.ndarray) -> Found:
        """Fill ``out`` with the states of the times from ``start`` to before ``stop``."""
        missing, failed = False, []
        for i, reader in enumerate(self._readers):
            first, last = int(self._edges[i]), int(self._edges[i + 1])
            low, high = max(start, first), min(stop, last)
            if low < high:
                found = reader.read(low - first, high - first, out[low - start : high - start])
                missing |= found.missing
                failed += [
                    replace(f, start=f.start + first, stop=f.stop + first) for f in found.failed
                ]
        return Found(missing, tuple(failed))

    def close(self) -> None:
        """Close all of them."""
        for reader in self._readers:
            reader.close()


def _read_pieces(
    fill: Callable[[int, int, np.ndarray], None],
    start: int,
    stop: int,
    out: np.ndarray,
    chunk: int,
    label: str,
) -> Found:
    try:
        fill(start, stop, out)
    except Exception as error:
        cuts = list(rows(start, stop, chunk))
        if len(cuts) > 1:  # find out which chunk it is
            found = [
                _read_pieces(fill, a, b, out[a - start : b - start], chunk, label) for a, b in cuts
            ]
            return Found(any(f.missing for f in found), tuple(x for f in found for x in f.failed))
        out[...] = np.nan
        what = f"could not read steps {start} to {stop - 1} of {label}"
        message = f"{what}: {type(error).__name__}: {error}"
        return Found(True, (Failure(start, stop, message),))
    size = max(1, 2**18 // max(1, out[0].nbytes))  # a piece that is in the processor's cache
    return Found(any(has_nan(out[i : i + size]) for i in range(0, len(out), size)), ())


def _stored_chunk(variable: xr.Variable) -> int:
    preferred = variable.encoding.get("preferred_chunks") or {}
    return int(min(preferred.get(variable.dims[0], 32), max(1, variable.shape[0])))
