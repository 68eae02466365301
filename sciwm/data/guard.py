"""Reading errors that name the store, the variable and the chunk."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

__all__ = ["chunk_guarded"]


class _Guarded:
    """An array for Dask to slice: a variable of an opened store, whose reading errors say where they arose."""

    def __init__(self, variable: xr.Variable, name: str, label: str) -> None:
        self.variable, self.name, self.label = variable, name, label
        self.shape, self.dtype, self.ndim = variable.shape, variable.dtype, variable.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            return np.asarray(self.variable[key].values)
        except Exception as error:
            raise OSError(
                f"could not read {self.name!r} of {self.label}, {self._place(self._narrow(key))}: {error}; "
                "the store is damaged there: restore that piece from its origin and repeat"
            ) from error

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
