"""A short hash of a Dataset, by which a run can tell that its data changed."""

import hashlib
from typing import Any

import numpy as np
import xarray as xr

from sciwm.times import numeric_time

__all__ = ["fingerprint"]

_POINTS = 16


def fingerprint(ds: xr.Dataset) -> str:
    """Hash names, dims, units, coordinates, and a thinned first and last field of every variable.

    Cheap: two fields are read per variable, whatever the length of the record. It is computed on
    the canonical Dataset. So latitude order, longitude convention and chunks of the store do not
    change it.

    Parameters
    ----------
    ds : Dataset
        As `sciwm.open_dataset` returns it.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(map(str, ds.coords)):
        digest.update(f"{name}{ds[name].dims}{ds[name].shape}".encode())
        digest.update(_bytes(ds[name].values))
    fields = _thin(ds.drop_vars(list(ds.coords))).compute()
    for name in sorted(map(str, ds.data_vars)):
        array = ds[name]
        digest.update(f"{name}{array.dims}{array.shape}{array.attrs.get('units')}".encode())
        digest.update(_bytes(fields[name].values))
    return digest.hexdigest()


def _thin(ds: xr.Dataset) -> xr.Dataset:
    ends = {d: sorted({0, ds.sizes[d] - 1}) for d in ("time", "init_time") if ds.sizes.get(d)}
    strides = {d: max(1, n // _POINTS) for d, n in ds.sizes.items() if d not in ends}
    return ds.isel({d: slice(None, None, n) for d, n in strides.items()}).isel(ends)


def _bytes(values: np.ndarray) -> bytes:
    cftime = values.dtype.kind == "O" and values.size and not isinstance(values.flat[0], str)
    if values.dtype.kind == "M" or cftime:
        kept: Any = np.round(numeric_time(values), 3)
    elif values.dtype.kind in "USO":
        return "\0".join(map(str, values.ravel())).encode()
    elif values.dtype.kind == "f":
        # Single precision forgives how a unit was converted; adding zero turns -0.0 into 0.0.
        kept = values.astype("float32") + np.float32(0.0)
    else:
        kept = values.astype("int64")
    return bytes(np.ascontiguousarray(kept).tobytes())
