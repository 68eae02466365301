"""Lazily opened variables in Dask graphs.

Plain Zarr arrays are decoded directly. Errors say where they arose.
"""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from sciwm.chunks.chunks import ChunkReader, Piece, cf_packing

__all__ = ["chunk_guarded", "decode_directly", "stored_array"]

# What xarray puts around an array of Zarr that it did not decode further; all are passed through by
# their `array`.
_WRAPPERS = {
    "ImplicitToExplicitIndexingAdapter",
    "CopyOnWriteArray",
    "MemoryCachedArray",
    "LazilyIndexedArray",
}


class _Direct:
    """Decodes ranges of a Zarr array whose stored numbers are the values.

    This is several times faster than through xarray and zarr.
    """

    def __init__(self, array: Any) -> None:
        self._reader, self._others = ChunkReader([Piece(array, None)]), tuple(array.shape[1:])

    def read(self, ranges: Sequence[range]) -> np.ndarray | None:
        """The values of contiguous ranges along every dimension.

        None where only xarray knows what they are.
        """
        if not all(len(r) and r.step == 1 for r in ranges):
            return None
        times, *others = ranges
        out = np.empty((len(times), *self._others), np.float32)
        # A chunk that is absent means the fill value to xarray: it decides what is damage.
        if self._reader.read(times.start, times.stop, out).failed:
            return None
        return out[:, *(slice(r.start, r.stop) for r in others)]


def _ranges(key: Any, shape: Sequence[int]) -> list[range] | None:
    """What a key asks for along every dimension, if it is made of slices."""
    keys = key if isinstance(key, tuple) else (key,)
    if len(keys) != len(shape) or not all(isinstance(k, slice) for k in keys):
        return None
    return [range(n)[k] for k, n in zip(keys, shape, strict=True)]


class _Unwrapped:
    """An array of a Dask graph made by xarray, and the same array without xarray in between."""

    def __init__(self, wrapped: Any, array: Any) -> None:
        self.wrapped, self.array, self._direct = wrapped, array, _Direct(array)
        self.shape, self.dtype, self.ndim = tuple(array.shape), array.dtype, array.ndim

    def __getitem__(self, key: Any) -> Any:
        ranges = _ranges(key, self.shape)
        values = self._direct.read(ranges) if ranges else None
        return self.wrapped[key] if values is None else values


def decode_directly(graph: dict[Any, Any]) -> dict[Any, Any]:
    """Let tasks that slice plain Zarr arrays opened by xarray decode their chunks directly.

    Such an array stands in the graph of ``xr.open_zarr`` as a node without dependencies. It is
    replaced by a node that gives the same values. Nothing changes where xarray decodes further
    (packing, fill values) or arranges its arrays otherwise.
    """
    return {key: _unwrap(node) for key, node in graph.items()}


def stored_array(array: da.Array, graph: dict[Any, Any]) -> Any | None:
    """The Zarr array that a Dask array is, chunk by chunk; None if it is computed from one.

    ``graph`` went through `decode_directly`.
    """
    original = f"original-{array.name}"  # so `dask.array.from_array` calls what it slices
    source = getattr(graph.get(original), "value", None)
    if (
        isinstance(source, _Unwrapped)
        and set(array.dask.layers) == {array.name, original}
        and source.shape == array.shape
    ):
        return source.array
    return None


def _unwrap(node: Any) -> Any:
    if type(node).__name__ != "DataNode":
        return node
    inner, layers = node.value, 0
    while type(inner).__name__ in _WRAPPERS:
        keys = getattr(getattr(inner, "key", None), "tuple", ())
        if not all(isinstance(k, slice) and k == slice(None) for k in keys):
            return node
        inner, layers = inner.array, layers + 1
    if not layers or type(inner).__name__ != "ZarrArrayWrapper":
        return node
    array = inner.get_array()
    if not _holds_values(array.dtype, array.shape, array.chunks) or array.dtype != inner.dtype:
        return node
    return type(node)(node.key, _Unwrapped(node.value, array))


class _Guarded:
    """A variable of an opened store for Dask to slice, whose errors say where they arose."""

    def __init__(self, variable: xr.Variable, name: str, label: str) -> None:
        self.variable, self.name, self.label = variable, name, label
        self.shape, self.dtype, self.ndim = variable.shape, variable.dtype, variable.ndim
        self._direct: _Direct | None = None
        self._plain = _is_plain_zarr(variable)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_direct": None}

    def __getitem__(self, key: Any) -> np.ndarray:
        if self._plain and (values := self._read_directly(key)) is not None:
            return values
        try:
            return np.asarray(self.variable[key].values)
        except Exception as error:
            where = self._place(self._narrow(key))
            raise OSError(
                f"could not read {self.name!r} of {self.label}, {where}: {error}; the store is"
                " damaged there: restore that piece from its origin and repeat"
            ) from error

    def _read_directly(self, key: Any) -> np.ndarray | None:
        """Decode chunks in place; None where that is not possible."""
        if self._direct is None:
            import zarr

            try:
                self._direct = _Direct(zarr.open_array(self.label, path=self.name, mode="r"))
            except Exception:  # xarray has opened it in another way, and will read it so
                self._plain = False
                return None
        ranges = _ranges(key, self.shape)
        return self._direct.read(ranges) if ranges else None

    def _narrow(self, key: Any) -> Any:
        """The first stored chunk asked for, along the first dimension, that cannot be read."""
        stored = (self.variable.encoding.get("preferred_chunks") or {}).get(self.variable.dims[0])
        keys = key if isinstance(key, tuple) else (key,)
        if not stored or not isinstance(keys[0], slice) or keys[0].step not in (None, 1):
            return key
        asked = range(self.shape[0])[keys[0]]
        for start in range(asked.start // stored * stored, asked.stop, stored):
            part = (slice(max(start, asked.start), min(start + stored, asked.stop)), *keys[1:])
            try:
                self.variable[part].values  # noqa: B018
            except Exception:
                return part
        return key

    def _place(self, key: Any) -> str:
        """The stored chunks, and the positions, that were asked for."""
        keys = key if isinstance(key, tuple) else (key,)
        ranges = [
            range(n)[k] if isinstance(k, slice) else range(int(k), int(k) + 1)
            for k, n in zip(keys, self.shape, strict=False)
        ]
        dims = self.variable.dims
        spans = [(d, r) for d, r in zip(dims, ranges, strict=False) if len(r)]
        where = ", ".join(f"{d} {r.start}…{r.stop - 1}" for d, r in spans)
        stored = self.variable.encoding.get("preferred_chunks") or {}
        sizes = [int(stored.get(d, n)) or 1 for d, n in zip(dims, self.shape, strict=True)]
        first = [str(r.start // s) for r, s in zip(ranges, sizes, strict=False)]
        last = [str(max(r.start, r.stop - 1) // s) for r, s in zip(ranges, sizes, strict=False)]
        chunks = "/".join(first) if first == last else f"{'/'.join(first)} … {'/'.join(last)}"
        return f"chunk {chunks} ({where})"


def _is_plain_zarr(variable: xr.Variable) -> bool:
    """Whether xarray opened it from Zarr and the stored numbers are the values.

    So they are not packed, and have no fill value but NaN.
    """
    stored = variable.encoding
    plain = _holds_values(variable.dtype, variable.shape, stored.get("chunks", (0,)))
    return "compressors" in stored and plain and cf_packing(stored) == (1.0, 0.0, None)


def _holds_values(dtype: np.dtype, shape: Sequence[int], chunks: Sequence[int]) -> bool:
    # Chunks that span all but time: else parts that nobody asked for would be decoded.
    return bool(len(shape) and dtype == np.float32 and tuple(chunks[1:]) == tuple(shape[1:]))


def chunk_guarded(array: xr.DataArray, sizes: dict[Any, int], *, label: str) -> xr.DataArray:
    """Make a lazily opened variable dask-backed, so that an error of reading names where it arose.

    Parameters
    ----------
    array : DataArray
        As xarray opened it, without Dask.
    sizes : dict
        Chunk sizes by dimension.
    label : str
        Name of the store.

    Raises
    ------
    OSError
        When computed, if a piece cannot be read or decoded: with store, variable, chunk and
        positions.
    """
    guarded = _Guarded(array.variable, str(array.name), label)
    meta = np.empty((0,) * array.ndim, array.dtype)
    chunks = tuple(sizes.get(d, n) for d, n in array.sizes.items())
    data = da.from_array(guarded, chunks=chunks, name=False, asarray=False, fancy=False, meta=meta)  # type: ignore[no-untyped-call]
    out: xr.DataArray = array.copy(data=data)
    return out
