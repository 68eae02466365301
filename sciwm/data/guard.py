"""Lazily opened variables for Dask: fast where they are plain Zarr arrays, with errors that name the store, variable and chunk."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from sciwm.data.chunks import ChunkReader, Piece, cf_packing

__all__ = ["chunk_guarded"]


class _Guarded:
    """An array for Dask to slice: a variable of an opened store, whose reading errors say where they arose."""

    def __init__(self, variable: xr.Variable, name: str, label: str) -> None:
        self.variable, self.name, self.label = variable, name, label
        self.shape, self.dtype, self.ndim = variable.shape, variable.dtype, variable.ndim
        self._reader: ChunkReader | None = None
        self._plain = _is_plain_zarr(variable)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}

    def __getitem__(self, key: Any) -> np.ndarray:
        if self._plain and (values := self._read_directly(key)) is not None:
            return values
        try:
            return np.asarray(self.variable[key].values)
        except Exception as error:
            raise OSError(
                f"could not read {self.name!r} of {self.label}, {self._place(self._narrow(key))}: {error}; "
                "the store is damaged there: restore that piece from its origin and repeat"
            ) from error

    def _read_directly(self, key: Any) -> np.ndarray | None:
        """Decode chunks in place, several times faster than through xarray and zarr; None where that is not possible."""
        keys = key if isinstance(key, tuple) else (key,)
        ranges = [range(n)[k] if isinstance(k, slice) else range(0) for k, n in zip(keys, self.shape, strict=True)]
        if not all(len(r) and r.step == 1 for r in ranges):
            return None
        if self._reader is None:
            import zarr

            try:
                self._reader = ChunkReader([Piece(zarr.open_array(self.label, path=self.name, mode="r"), None)])
            except Exception:  # xarray has opened it in another way, and will read it so
                self._plain = False
                return None
        times, *others = ranges
        out = np.empty((len(times), *self.shape[1:]), np.float32)
        # A chunk that is absent means the fill value to xarray: it decides what is damage.
        if self._reader.read(times.start, times.stop, out).failed:
            return None
        return out[:, *(slice(r.start, r.stop) for r in others)]

    def _narrow(self, key: Any) -> Any:
        """The first stored chunk along the first dimension, among those asked for, that cannot be read."""
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
        ranges = [range(n)[k] if isinstance(k, slice) else range(int(k), int(k) + 1) for k, n in zip(keys, self.shape, strict=False)]
        where = ", ".join(f"{d} {r.start}…{r.stop - 1}" for d, r in zip(self.variable.dims, ranges, strict=False) if len(r))
        stored = self.variable.encoding.get("preferred_chunks") or {}
        sizes = [int(stored.get(d, n)) or 1 for d, n in zip(self.variable.dims, self.shape, strict=True)]
        first = [str(r.start // s) for r, s in zip(ranges, sizes, strict=False)]
        last = [str(max(r.start, r.stop - 1) // s) for r, s in zip(ranges, sizes, strict=False)]
        chunks = "/".join(first) if first == last else f"{'/'.join(first)} … {'/'.join(last)}"
        return f"chunk {chunks} ({where})"


def _is_plain_zarr(variable: xr.Variable) -> bool:
    """Whether the stored numbers are the values: float32, not packed, and no fill value but NaN."""
    stored = variable.encoding
    whole = stored.get("chunks", (0,))[1:] == variable.shape[1:]  # else parts that nobody asked for would be decoded
    plain = variable.ndim > 0 and variable.dtype == np.float32 and cf_packing(stored) == (1.0, 0.0, None)
    return "compressors" in stored and plain and whole


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
        When computed, if a piece cannot be read or decoded: with store, variable, chunk and positions.
    """
    guarded = _Guarded(array.variable, str(array.name), label)
    meta = np.empty((0,) * array.ndim, array.dtype)
    chunks = tuple(sizes.get(d, n) for d, n in array.sizes.items())
    data = da.from_array(guarded, chunks=chunks, name=False, asarray=False, fancy=False, meta=meta)  # type: ignore[no-untyped-call]
    out: xr.DataArray = array.copy(data=data)
    return out
