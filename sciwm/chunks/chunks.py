"""Blocks of times of Zarr arrays, their chunks decoded straight into one array of states."""

import contextlib
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sciwm.chunks.cache import Cache
from sciwm.chunks.decode import decoding
from sciwm.chunks.fetch import Raw, address, open_fetch

__all__ = ["ChunkReader", "Failure", "Found", "Piece", "cf_packing", "has_nan", "placed", "rows"]

_FLOAT32 = np.dtype(np.float32)
_ABSENT = (
    "the store has no such key. Zarr leaves out chunks that hold only the fill value; to accept"
    " them, open the store with xarray and stream the Dataset"
)


@dataclass(frozen=True)
class Piece:
    """One stored array and where it goes in the state.

    Attributes
    ----------
    array : zarr.Array
        Dims (time, …), in chunks of any shape.
    place : slice, optional
        Channels ``out[:, place]`` that it fills; an array with a level axis fills as many. None: it
        is the whole state.
    scale, offset, fill : float
        CF packing: values equal to ``fill`` are missing, the others are value · scale + offset,
        computed in float64 as xarray does.
    """

    array: Any
    place: slice | None
    scale: float = 1.0
    offset: float = 0.0
    fill: float | None = None


@dataclass(frozen=True)
class Failure:
    """Times [``start``, ``stop``) that cannot be read because of one chunk, and why."""

    start: int
    stop: int
    message: str


@dataclass(frozen=True)
class Found:
    """Whether any value that was read is NaN, and the chunks that could not be read."""

    missing: bool
    failed: tuple[Failure, ...]


class ChunkReader:
    """Reads blocks of times from Zarr arrays into states; used by several threads at once.

    Chunks are requested together, over all arrays of a store, and decoded as they arrive. A chunk
    is decoded into its place if that is contiguous. If not, it is decoded into a buffer of the
    thread and copied from there.

    This covers Zarr 2 without filters, in C order, and Zarr 3 with the codec bytes. After bytes
    there may be one of Blosc, Zstd and GZip, and then crc32c, which is verified. zarr-python reads
    other arrays (shards, transposed, filtered), one row of chunks after the other. It fills absent
    chunks, so those are no failure there.

    Parameters
    ----------
    pieces : sequence of Piece
        Arrays of equal length in time that together fill the state.
    cache : Cache, optional
        Where the bytes of remote chunks are kept.

    Attributes
    ----------
    chunk : int
        Times per chunk, the largest over the pieces. Blocks that start at its multiples decode no
        chunk of such pieces twice. Other pieces may have chunks across the end of a block: these
        are decoded for both blocks.
    """

    def __init__(self, pieces: Sequence[Piece], *, cache: Cache | None = None) -> None:
        if not pieces:
            raise ValueError("got no pieces, expected at least one array")
        if len({p.array.shape[0] for p in pieces}) > 1:
            lengths = {p.array.path: p.array.shape[0] for p in pieces}
            raise ValueError(
                f"got arrays with different numbers of times ({lengths}), expected one time axis"
            )
        self._length = int(pieces[0].array.shape[0])
        self._plans = [_Plan(piece, i) for i, piece in enumerate(pieces)]
        self.chunk = max(int(p.array.chunks[0]) for p in pieces)
        groups: list[tuple[Any, list[_Plan]]] = []
        for plan in (p for p in self._plans if p.decode is not None):
            match = next(
                (plans for store, plans in groups if store is plan.store or store == plan.store),
                None,
            )
            if match is None:
                groups.append((plan.store, [plan]))
            else:
                match.append(plan)
        self._groups = [(open_fetch(store, cache=cache), plans) for store, plans in groups]
        self._local = threading.local()
        self._named = cache is not None

    def read(self, start: int, stop: int, out: np.ndarray) -> Found:
        """Fill ``out`` with the states of times [start, stop).

        Parameters
        ----------
        start, stop : int
        out : array [stop - start, …], float32
            Left at NaN where a chunk cannot be read.
        """
        if not 0 <= start < stop <= self._length:
            raise ValueError(
                f"got times {start} to {stop}, expected a range within the {self._length} times of"
                " the store"
            )
        if len(out) != stop - start or out.dtype != _FLOAT32:
            raise ValueError(
                f"got out {out.dtype} of {len(out)} times, expected float32 of {stop - start}"
            )
        missing, failed = False, list[Failure]()
        # Values beyond float32 become infinite in silence, as when xarray casts.
        with np.errstate(over="ignore", invalid="ignore"):
            for fetch, plans in self._groups:
                jobs = [job for plan in plans for job in plan.jobs(start, stop, out)]
                keys = [job.key for job in jobs]
                named = self._named and jobs[0].plan.name
                names = [job.plan.name + job.key for job in jobs] if named else None
                with contextlib.closing(fetch.many(keys, names=names)) as arrivals:
                    for position, raw in arrivals:
                        found = self._decode(jobs[position], raw)
                        if isinstance(found, Failure):
                            failed.append(found)
                        else:
                            missing |= found
            for plan in self._plans:
                if plan.decode is None:
                    more = plan.read_with_zarr(start, stop, out)
                    missing |= more.missing
                    failed += more.failed
        return Found(missing, tuple(sorted(failed, key=lambda f: (f.start, f.message))))

    def close(self) -> None:
        """Cancel requests and close sessions."""
        for fetch, _ in self._groups:
            fetch.close()

    def _decode(self, job: "_Job", raw: Raw | Exception | None) -> "bool | Failure":
        try:
            if raw is None:
                raise LookupError(_ABSENT)
            if isinstance(raw, Exception):
                raise raw
            return job.plan.decode_into(job, raw, self._scratch)
        except Exception as error:
            job.dest[...] = np.nan
            return job.plan.failure(job, error)

    def _scratch(self, plan: "_Plan") -> np.ndarray:
        """Memory for a chunk."""
        # One buffer for all arrays, so that it stays in the processor's cache.
        try:
            views: list[np.ndarray] = self._local.views
        except AttributeError:
            buffer = np.empty(max(p.nbytes for p in self._plans), np.uint8)
            views = self._local.views = [buffer[: p.nbytes] for p in self._plans]
        return views[plan.index]


@dataclass(frozen=True, slots=True)
class _Column:
    """One cell of the chunk grid over all dimensions but time.

    ``place`` and ``part`` are empty where it spans them all. The key of its chunk in a row is
    ``head``, the row, ``tail``. Asking zarr for every key would cost more than all else around
    decoding.
    """

    index: tuple[int, ...]
    head: str
    tail: str
    place: tuple[slice, ...]
    part: tuple[slice, ...]
    whole: bool


@dataclass(slots=True)
class _Job:
    """One chunk of a read: its times ``low`` to ``high``, counted within the chunk, go to ``dest``.

    ``here`` tells whether the chunk can be decoded into ``dest`` as it is.
    """

    plan: "_Plan"
    key: str
    row: int
    column: _Column
    low: int
    high: int
    dest: np.ndarray
    here: bool


class _Plan:
    """How the chunks of one piece are found, decoded and unpacked."""

    def __init__(self, piece: Piece, index: int) -> None:
        array = piece.array
        if np.dtype(array.dtype).kind not in "fiub":
            raise ValueError(f"got array {array.path!r} of type {array.dtype}, expected numbers")
        self.index, self.array, self.place = index, array, piece.place
        self.store = array.store
        self.prefix = f"{array.path}/" if array.path else ""
        self.scale, self.offset = piece.scale, piece.offset
        self.packed = piece.scale != 1 or piece.offset != 0
        self.decode, self.dtype = decoding(array.metadata)
        self.fill = _typed_fill(piece.fill, self.dtype)
        self.straight = self.dtype == _FLOAT32 and not self.packed and self.fill is None
        self.chunks = tuple(int(n) for n in array.chunks)
        decoded_here = self.decode is not None
        self.nbytes = int(np.prod(self.chunks)) * self.dtype.itemsize if decoded_here else 0
        key_parts = partial(self._key_parts, array.metadata)
        self.columns = _columns(array.shape[1:], self.chunks[1:], key_parts)
        where = address(self.store)
        described = json.dumps(array.metadata.to_dict(), sort_keys=True, default=str)
        self.name = f"{where} {hashlib.blake2b(described.encode()).hexdigest()} " if where else ""

    def _key_parts(self, metadata: Any, index: tuple[int, ...]) -> tuple[str, str]:
        """What stands before and after the row in the keys of a column's chunks."""
        row = 10**12  # not to be mistaken for another number of the key
        head, _, tail = metadata.encode_chunk_key((row, *index)).partition(str(row))
        return self.prefix + head, tail

    def view(self, out: np.ndarray) -> np.ndarray:
        """The part of ``out`` that this array fills, in the array's shape."""
        return placed(out, self.place, (len(out), *self.array.shape[1:]), name=self.array.path)

    def jobs(self, start: int, stop: int, out: np.ndarray) -> Iterator[_Job]:
        """Every chunk that holds times of [start, stop)."""
        view, step = self.view(out), self.chunks[0]
        for row in range(start // step, -(-stop // step)):
            first = row * step
            low, high = max(start, first), min(stop, first + step)
            times = slice(low - start, high - start)
            whole = self.straight and high - low == step
            for column in self.columns:
                # ``place`` may be empty.
                key, dest = f"{column.head}{row}{column.tail}", view[(times, *column.place)]
                here = whole and column.whole and dest.flags.c_contiguous
                yield _Job(self, key, row, column, low - first, high - first, dest, here)

    def decode_into(self, job: _Job, raw: Raw, scratch: "Callable[[_Plan], np.ndarray]") -> bool:
        """Decode one chunk into its place; return whether a value is missing."""
        assert self.decode is not None
        dest = job.dest
        if job.here:
            decoded = self.decode(raw, dest)
            if decoded is dest:
                return has_nan(dest)
        else:
            decoded = self.decode(raw, scratch(self))
        values = decoded.view(self.dtype).reshape(self.chunks)
        return self.unpack(values[(slice(job.low, job.high), *job.column.part)], dest)

    def unpack(self, values: np.ndarray, dest: np.ndarray) -> bool:
        """Turn stored values into float32; return whether one is missing."""
        # Looked for before they are copied, while they are in the processor's cache.
        missing = self.dtype == _FLOAT32 and has_nan(values)
        if self.packed:
            numbers = values.astype(np.float64)
            numbers *= self.scale
            numbers += self.offset
            dest[...] = numbers
        else:
            dest[...] = values
        if self.fill is not None and (absent := values == self.fill).any():
            dest[absent] = np.nan
            return True
        return missing or (self.dtype.kind == "f" and self.dtype != _FLOAT32 and has_nan(dest))

    def read_with_zarr(self, start: int, stop: int, out: np.ndarray) -> Found:
        """Read by zarr's own pipeline, in rows of shards.

        Where a row fails, its rows of chunks are tried, to lose no more than needed.
        """
        view, missing, failed = self.view(out), False, list[Failure]()
        shard = int((self.array.shards or self.chunks)[0])
        pending = [(a, b) for a, b in rows(start, stop, shard)][::-1]
        while pending:
            a, b = pending.pop()
            try:
                missing |= self.unpack(np.asarray(self.array[a:b]), view[a - start : b - start])
            except Exception as error:
                if len(parts := list(rows(a, b, self.chunks[0]))) > 1:
                    pending += parts[::-1]
                    continue
                view[a - start : b - start] = np.nan
                message = (
                    f"times {a} to {b - 1} of array {self.array.path!r} in {self.store} cannot be"
                    f" read: {_cause(error)}"
                )
                failed.append(Failure(a, b, message))
        return Found(missing, tuple(failed))

    def failure(self, job: _Job, error: Exception) -> Failure:
        """Say which times are lost, and why."""
        start = job.row * self.chunks[0]
        stop = min(start + self.chunks[0], self.array.shape[0])
        cells = zip(job.column.index, self.chunks[1:], self.array.shape[1:], strict=True)
        corners = [(i * n, min((i + 1) * n, size)) for i, n, size in cells]
        positions = ", ".join(f"{a}:{b}" for a, b in [(start, stop), *corners])
        message = (
            f"chunk {job.key!r} of array {self.array.path!r} in {self.store}, positions"
            f" [{positions}], cannot be read: {_cause(error)}"
        )
        return Failure(start, stop, message)


def cf_packing(encoding: dict[Any, Any]) -> tuple[float, float, float | None] | None:
    """Scale, offset and fill value of a variable as xarray opened it.

    None where only xarray can unpack it: unsigned numbers kept as signed ones, or several values
    that mean missing. A fill value of NaN needs no unpacking.
    """
    fills = [encoding[k] for k in ("_FillValue", "missing_value") if k in encoding]
    differ = len(fills) == 2 and not np.array_equal(fills[0], fills[1], equal_nan=True)
    if differ or any(np.ndim(f) for f in fills) or "_Unsigned" in encoding:
        return None
    fill = float(fills[0]) if fills and not np.isnan(fills[0]) else None
    return float(encoding.get("scale_factor", 1.0)), float(encoding.get("add_offset", 0.0)), fill


def placed(
    out: np.ndarray, place: slice | None, shape: tuple[int, ...], *, name: str
) -> np.ndarray:
    """The channels of ``out`` that an array of this shape fills, as a view in its shape."""
    part = out if place is None else out[:, place]
    if part.size == np.prod(shape) and np.may_share_memory(view := part.reshape(shape), out):
        return view
    raise ValueError(
        f"got states of shape {out.shape[1:]}, in which {name!r} of shape {shape[1:]} cannot be"
        f" placed at {place}"
    )


def has_nan(values: np.ndarray) -> bool:
    """Whether any value is NaN: then the largest is, too, which is faster to find."""
    largest = np.maximum.reduce(values, axis=None)
    return bool(largest != largest)


def _cause(error: Exception) -> str:
    if isinstance(error, LookupError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def rows(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut [``start``, ``stop``) at the multiples of ``step``."""
    for first in range(start // step * step, stop, step):
        yield max(start, first), min(stop, first + step)


def _columns(
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    key_parts: Callable[[tuple[int, ...]], tuple[str, str]],
) -> list[_Column]:
    found = []
    counts = (range(-(-size // n)) for size, n in zip(shape, chunks, strict=True))
    for index in itertools.product(*counts):
        place = tuple(
            slice(i * n, min((i + 1) * n, size))
            for i, n, size in zip(index, chunks, shape, strict=True)
        )
        part = tuple(slice(0, s.stop - s.start) for s in place)
        whole = all(s.stop - s.start == n for s, n in zip(place, chunks, strict=True))
        if whole and tuple(chunks) == tuple(shape):
            place = part = ()
        found.append(_Column(index, *key_parts(index), place, part, whole))
    return found


def _typed_fill(fill: float | None, dtype: np.dtype) -> Any:
    """The fill value in the array's type, so that comparing casts nothing.

    None if no stored value can equal it.
    """
    if fill is None or np.isnan(fill):
        return None
    if dtype.kind == "f":
        return dtype.type(fill)
    with contextlib.suppress(OverflowError):
        if fill == int(fill) and int(dtype.type(int(fill))) == int(fill):
            return dtype.type(int(fill))
    return None
