"""States into the training store: block by block, each piece of the source read once.

Writing can be gone on with after the last whole block.
"""

import errno
import json
import platform
import sys
import warnings
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciwm.atomic import write_atomically

__all__ = ["PROGRESS", "create_state", "read_progress", "record_progress", "write_state"]

PROGRESS = "progress.json"
_BLOCK_BYTES = 2**28
_CHUNKS_PER_THREAD = 4
_Found = tuple[int, tuple[int, ...]]  # how many values of a chunk, position of the first
_REMEDIES = {
    "infinite": "repair them in the source, or make them NaN",
    "missing": "write `missing: mask` under `data` to carry a mask",
}


def create_state(
    partial: Path, *, shape: tuple[int, ...], chunk_times: int, dims: Sequence[str]
) -> None:
    """Make the empty array ``state`` in the unfinished store; a chunk holds whole states."""
    import zarr
    from zarr.codecs import BloscCodec

    zarr.open_group(partial, mode="r+").create_array(
        "state",
        shape=shape,
        chunks=(chunk_times, *shape[1:]),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=list(dims),
        compressors=BloscCodec(typesize=4, cname="zstd", clevel=3, shuffle="bitshuffle"),
    )


def write_state(
    fields: xr.Dataset,
    standardize: Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray],
    design: np.ndarray,
    partial: Path,
    key: str,
    done: int,
    *,
    missing: str,
    progress: bool,
) -> None:
    """Write the states of all times, from time ``done`` on.

    A block is a number of whole chunks of the store. Its end may cut a chunk of the source. The
    rest of that chunk is kept for the next block, so that nothing is read twice.

    Parameters
    ----------
    fields : Dataset
        Dask-backed fields of all times, time first.
    standardize : callable
        From the arrays of all fields, and the rows of ``design`` of the same times, to their
        states.
    design : array, ``[time, ...]``
        What it needs to know of the times.
    partial : Path
        The unfinished store.
    key : str
        Stands for the arguments of the call that may go on with it.
    done : int
        Times that are there already.
    missing : {"error", "mask"}
        Whether missing values are refused.
    progress : bool
        Whether to draw a progress bar.

    Raises
    ------
    ValueError
        If there are infinite values, or missing ones that were not to be masked.
    OSError
        If a piece of the source cannot be read, or the store is not writable by a worker.
    """
    import dask.array as da
    import zarr
    from dask.base import compute, persist
    from dask.delayed import delayed
    from rich.progress import Progress

    array = zarr.open_array(partial, path="state", mode="r")
    chunk, total = array.chunks[0], array.shape[0]
    fitting = _BLOCK_BYTES // (4 * int(np.prod(array.chunks)))
    block = chunk * max(_CHUNKS_PER_THREAD * _count_threads(), fitting)
    write, keep = (delayed(f, pure=False) for f in (_write_chunk, np.ascontiguousarray))
    # Kept on a cluster, instead of sent with every block.
    kernel = delayed(standardize, pure=False, traverse=False).persist()
    path = str(partial.resolve())
    rests: dict[Hashable, Any] = {}
    with Progress(disable=not progress) as bar:
        task = bar.add_task("prepare", total=total, completed=done)
        for start in range(done, total, block):
            stop = min(start + block, total)
            part, beyond = _cut(fields, rests, start, stop)
            # Not optimized: that would give the rests, and variables that are levels of one array,
            # reading tasks of their own.
            pieces = [
                x.data.rechunk((chunk, *x.shape[1:])).to_delayed(optimize_graph=False).ravel()
                for x in part.data_vars.values()
            ]
            times = range(start, stop, chunk)
            # Fields one by one: Dask would merge and cull the graph of a list for every chunk.
            writes = [
                write(kernel, design[t : min(t + chunk, stop)], path, t, *x)
                for t, *x in zip(times, *pieces, strict=True)
            ]
            kept = {
                name: keep(x.rechunk(x.shape).to_delayed(optimize_graph=False).item())
                for name, x in beyond.items()
            }
            try:
                writes, kept = persist(writes, kept)  # type: ignore[no-untyped-call]
                found = compute(writes)[0]  # type: ignore[no-untyped-call]
            except Exception as error:
                raise _block_error(error, part, path) from error
            rests = {
                name: da.from_delayed(kept[name], x.shape, x.dtype)  # type: ignore[no-untyped-call]
                for name, x in beyond.items()
            }
            gone, infinite = zip(*found, strict=True)
            refused = {"infinite": infinite, "missing": gone if missing == "error" else ()}
            for what, where in refused.items():
                if any(count for count, _ in where):
                    raise ValueError(_place_message(what, where, partial, start, stop))
            record_progress(partial, key, stop)
            bar.update(task, completed=stop)


def _cut(
    fields: xr.Dataset, rests: dict[Hashable, Any], start: int, stop: int
) -> tuple[xr.Dataset, dict[Hashable, Any]]:
    """Fields from time ``start`` to ``stop``, and what is left of their last chunks beyond it.

    ``rests``, those of the block before, begin at ``start``.
    """
    import dask.array as da

    part, beyond = fields.isel(time=slice(start, stop)), {}
    for name, field in fields.data_vars.items():
        rest = rests.get(name)
        begun = start if rest is None else start + len(rest)
        edges = np.cumsum(field.variable.chunksizes["time"])
        edge = max(begun, int(edges[np.searchsorted(edges, stop)]))
        pieces = [x for x in (rest, field.data[begun:edge]) if x is not None and len(x)]
        whole = da.concatenate(pieces) if len(pieces) > 1 else pieces[0]  # type: ignore[no-untyped-call]
        part[name] = part[name].copy(data=whole[: stop - start])
        if edge > stop:
            beyond[name] = whole[stop - start :]
    return part, beyond


def _count_threads() -> int:
    """Threads of the active cluster; 1 without one: a block of the usual size keeps all busy."""
    if "distributed" not in sys.modules:
        return 1
    from distributed import default_client

    try:
        return max(1, sum(default_client().nthreads().values()))  # type: ignore[no-untyped-call]
    except ValueError:
        return 1


def _write_chunk(
    standardize: Any, design: np.ndarray, path: str, start: int, *fields: np.ndarray
) -> tuple[_Found, _Found]:
    """Standardize and write one chunk; return what is missing and what is infinite."""
    import zarr

    if not Path(path).is_dir():
        raise FileNotFoundError(
            errno.ENOENT,
            f"got a worker on {platform.node()} without the folder, expected one file system that"
            " all workers share",
            path,
        )
    # Also a chunk of NaN alone: one that is not there counts as damage.
    array = zarr.open_array(path, path="state", mode="r+").with_config({"write_empty_chunks": True})
    values = standardize(fields, design)
    array[start : start + len(values)] = values
    if np.isfinite(values).all():
        return (0, ()), (0, ())
    return _find(np.isnan(values), start), _find(np.isinf(values), start)


def _find(odd: np.ndarray, start: int) -> _Found:
    count = int(np.count_nonzero(odd))
    first = np.unravel_index(int(odd.argmax()), odd.shape) if count else ()
    return count, tuple(int(i) + (start if axis == 0 else 0) for axis, i in enumerate(first))


def _block_error(error: Exception, part: xr.Dataset, path: str) -> Exception:
    if isinstance(error, OSError) and (error.errno == errno.ENOSPC or error.filename == path):
        return error
    times = part["time"].values
    if type(error).__module__.startswith("distributed"):
        return OSError(
            f"the cluster lost its work on times {times[0]} … {times[-1]}: {type(error).__name__}:"
            f" {error}; repeat when it runs again, what was written before is kept"
        )
    return OSError(
        f"could not read or convert times {times[0]} … {times[-1]} of the source:"
        f" {type(error).__name__}: {error}; repair that part of the source and repeat, what was"
        " written before it is kept"
    )


def _place_message(what: str, found: Sequence[_Found], partial: Path, start: int, stop: int) -> str:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f"Object at {PROGRESS} is not recognized")
        store = xr.open_zarr(partial, chunks=None, consolidated=False)
    part = store["state"].isel(time=slice(start, stop))
    count, first = sum(c for c, _ in found), min(f for c, f in found if c)
    channel = str(part["channel"].values[first[1]]) if "channel" in part.coords else "positions"
    place = ", ".join(
        f"{d} {part[d].values[i]}"
        for d, i in zip(part.dims[1:], first[1:], strict=True)
        if d != "channel" and d in part.coords
    )
    times = part["time"].values
    return (
        f"got {count} {what} values between {times[0]} and {times[-1]}, the first in {channel!r} at"
        f" time {times[first[0] - start]}{', ' + place if place else ''}; expected none:"
        f" {_REMEDIES[what]}"
    )


def read_progress(partial: Path, key: str) -> int | None:
    """Times that an interrupted call with the same arguments wrote; None if it left nothing."""
    try:
        record = json.loads((partial / PROGRESS).read_text())
    except (OSError, ValueError):
        return None
    return int(record["done"]) if record["key"] == key else None


def record_progress(partial: Path, key: str, done: int) -> int:
    """Note, atomically, how many times are written."""
    write_atomically(partial / PROGRESS, json.dumps({"key": key, "done": done}))
    return done
