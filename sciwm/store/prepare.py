"""From a canonical Dataset to a training store: statistics first, then blocks of states.

A call that was interrupted can be made again; nothing unfinished lies under the store's name.
"""

import errno
import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciwm.store.forcing import conditions, small_arrays
from sciwm.store.split import Blocks, split_times
from sciwm.store.statistics import Fit, Statistics, fit_statistics, to_channels
from sciwm.store.write import PROGRESS, create_state, read_progress, record_progress, write_state
from sciwm.times import numeric_time

__all__ = [
    "Blocks",
    "Fit",
    "Origin",
    "conditions",
    "is_training_store",
    "load_statistics",
    "open_training_store",
    "prepare",
]


@dataclass(frozen=True)
class Origin:
    """Where the states of a store come from, kept as its attributes.

    Parameters
    ----------
    config : str
        The configuration, as JSON.
    fingerprint : str
        Stands for the content of the source.
    """

    config: str = ""
    fingerprint: str = ""


def prepare(
    ds: xr.Dataset,
    out: str | Path,
    *,
    blocks: Blocks,
    fit: Fit = Fit(),
    static: xr.Dataset | None = None,
    targets: xr.Dataset | None = None,
    origin: Origin = Origin(),
    progress: bool = True,
) -> Path:
    """Write the store that training reads.

    It holds standardized states in chunks of time, labels, conditions and statistics. Until it is
    complete it grows in a hidden folder beside its name. The same call made again goes on at the
    first unwritten block; a call with other arguments starts over. Work runs on Dask: threads, or
    the active ``distributed`` client.

    Parameters
    ----------
    ds : Dataset
        Canonical: fields ``(time, [level], latitude, longitude)``, or ``positions (time, atom,
        xyz)`` in nm.
    out : path
        Folder of the store, e.g. ``runs/era5/train.zarr``; an older training store there is
        replaced.
    blocks : Blocks
        The times that train, choose and score.
    fit : Fit
        Climatology, and what becomes of missing values; of these, molecules use only ``missing``.
    static : Dataset, optional
        Fields ``(latitude, longitude)`` given to the predictor; standardized over the domain, 0
        where missing.
    targets : Dataset, optional
        Scalar series ``(time,)`` for probes; angles (units of radians or degrees) are stored as
        sine and cosine.
    origin : Origin
        Configuration and fingerprint of the source.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        If the split or the statistics are refused, or values are infinite or missing, or targets
        have gaps. The message names times and variable.
    OSError
        If the disk is full or a piece of the source cannot be read; the message names its times.
    """
    path = Path(out)
    if path.exists() and not is_training_store(path):
        raise FileExistsError(
            f"got {path}, which is no training store, expected a free name, because the folder"
            " would be replaced"
        )
    molecule = "positions" in ds.data_vars
    fields = ds[["positions"]] if molecule else _grid_fields(ds)
    if not all(v.chunks for v in fields.data_vars.values()):
        fields = fields.chunk(time=_chunk_times(fields))
    one = np.zeros(ds.sizes["time"], np.int32)
    segment = ds["segment"].values if "segment" in ds.coords else one
    label = split_times(ds["time"], blocks, segment)
    small = small_arrays(ds, label, segment, static, targets)
    key = _key(asdict(fit) | asdict(origin), fields, small)
    partial = path.with_name(f".{path.name}.partial")
    with _clear_disk_errors(partial):
        done = read_progress(partial, key)
        if done is None:
            shutil.rmtree(partial, ignore_errors=True)
            if not molecule:
                statistics = fit_statistics(fields, label=label, fit=fit)
                _write_small(statistics.to_dataset(), partial, group="statistics")
            _write_skeleton(fields, small, partial, origin)
            done = record_progress(partial, key, 0)
        if molecule:
            standardize, design = _positions, np.empty((fields.sizes["time"], 0))
        else:
            statistics = load_statistics(partial)
            standardize = statistics.kernel()
            design = statistics.climatology.design(fields["time"]).values
        write_state(
            fields, standardize, design, partial, key, done, missing=fit.missing, progress=progress
        )
        _finish(partial, path)
    return path


def open_training_store(path: str | Path) -> xr.Dataset:
    """Open a training store lazily; statistics are read by `load_statistics`.

    Raises
    ------
    FileNotFoundError
        If there is none, or only one that was not finished.
    ValueError
        If the folder is not a training store.
    """
    path = Path(path)
    if not path.exists():
        hint = "write one with `sciwm prepare`"
        if path.with_name(f".{path.name}.partial").exists():
            hint = "an unfinished one lies beside it, `sciwm prepare` goes on with it"
        raise FileNotFoundError(f"got no training store at {path}; {hint}")
    if not is_training_store(path):
        raise ValueError(
            f"got {path}, expected a complete training store as `sciwm prepare` writes, because its"
            " attribute 'complete' is not set"
        )
    store: xr.Dataset = xr.open_zarr(path, chunks={}, consolidated=True)
    texts = {n: c.astype(object) for n, c in store.coords.items() if c.dtype.kind == "T"}
    return store.assign_coords(texts)


def load_statistics(path: str | Path) -> Statistics:
    """Climatology and scale kept in a training store of a grid."""
    with xr.open_zarr(path, group="statistics", chunks=None, consolidated=False) as ds:
        return Statistics.from_dataset(ds)


def _positions(fields: Sequence[np.ndarray], design: np.ndarray) -> np.ndarray:
    return fields[0].astype(np.float32)


def _grid_fields(ds: xr.Dataset) -> xr.Dataset:
    names = [n for n, v in ds.data_vars.items() if {"time", "latitude", "longitude"} <= set(v.dims)]
    if not names:
        raise ValueError(
            f"got variables {list(ds.data_vars)}, expected fields (time, latitude, longitude) or"
            " 'positions'"
        )
    return ds[names].transpose("time", ..., "latitude", "longitude", missing_dims="ignore")


def _chunk_times(fields: xr.Dataset) -> int:
    """32, fewer where a chunk would pass 4 MiB, more where it would be under 64 kiB."""
    state_bytes = sum(4 * v.isel(time=0).size for v in fields.data_vars.values())
    times = min(32, max(1, 2**22 // state_bytes))
    return int(min(max(times, -(-(2**16) // state_bytes)), fields.sizes["time"]))


def _key(arguments: dict[str, Any], fields: xr.Dataset, small: xr.Dataset) -> str:
    """Stands for all that the content of the store depends on."""
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode())
    for name, v in fields.variables.items():
        digest.update(f"{name} {v.dims} {v.shape} {v.dtype} {sorted(v.attrs)}".encode())
    for name, v in small.variables.items():
        values = numeric_time(v.values) if name == "time" else v.values
        digest.update(str(name).encode())
        if values.dtype == object:
            digest.update(repr(values.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _write_skeleton(fields: xr.Dataset, small: xr.Dataset, partial: Path, origin: Origin) -> None:
    molecule = "positions" in fields.data_vars
    if molecule:
        shape, dims = fields["positions"].shape, fields["positions"].dims
    else:
        template = to_channels(fields.isel(time=[0]))
        shape, dims = (fields.sizes["time"], *template.shape[1:]), template.dims
        labels = ("channel", "variable", "level")
        small = small.assign_coords({k: template.coords[k] for k in labels})
    attrs = small.attrs | {
        "kind": "molecule" if molecule else "grid",
        "fingerprint": origin.fingerprint,
        "config": origin.config,
        "sciwm_version": _version(),
        "complete": False,
    }
    _write_small(small.assign_attrs(attrs), partial)
    names = [str(d) for d in dims]
    create_state(partial, shape=shape, chunk_times=_chunk_times(fields), dims=names)


def _write_small(ds: xr.Dataset, path: Path, group: str | None = None) -> None:
    for v in ds.variables.values():
        v.encoding = {}
    ds.to_zarr(path, group=group, mode="a", zarr_format=3, consolidated=False)


@contextmanager
def _clear_disk_errors(partial: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        message = (
            f"the disk holding {partial.parent} is full; free some space and repeat, what was"
            f" written is kept in {partial.name}"
        )
        raise OSError(errno.ENOSPC, message) from error


def _finish(partial: Path, path: Path) -> None:
    import zarr

    (partial / PROGRESS).unlink()
    zarr.open_group(partial, mode="r+").attrs["complete"] = True
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(partial)
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def is_training_store(path: str | Path) -> bool:
    """Whether a folder is a complete training store."""
    try:
        attrs = json.loads((Path(path) / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(attrs.get("complete"))


def _version() -> str:
    try:
        return version("sciwm")
    except PackageNotFoundError:  # run from a source tree
        return "0+source"
