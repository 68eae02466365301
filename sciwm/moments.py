"""Sums over time that least-squares climatologies and variances are made of.

Sums of blocks of time merge into those of the record. Before anything is summed in float64, every
cell's shift, a value observed in it, is taken away. So a geopotential of 50,000 ± 1 loses no digit
to its offset. Cells with missing values get normal equations of their own. One set serves each
distinct pattern of missing times, so that a land mask costs next to nothing.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["Moments", "accumulate", "join", "merge", "moments"]

_BLOCK_BYTES = 2**25
# Of a product: in cache, and below what BLAS splits over threads, which changes last bits.
_PIECE_TIMES, _PIECE_SIZE = 64, 2**20


@dataclass(frozen=True)
class Moments:
    r"""Sums over the times at which a cell was observed, with the times' basis values d(t).

    Parameters
    ----------
    shift : float64, ``[cell]``
        What was taken away; 0 in a cell never observed.
    cross : float64, ``[coefficient, cell]``
        :math:`\sum_t d(t)\,(x(t) - \mathrm{shift})`
    sums, squares : float64, ``[cell]``
        Sum of deviations and of their squares.
    count, first_missing : int64, ``[cell]``
        Times observed, and position of the first that was not; a very large number if all were.
    pattern : int64, ``[cell]``
        Which entry of ``normal`` and ``total`` belongs to a cell.
    normal : float64, ``[pattern, coefficient, coefficient]``
        :math:`\sum_t d(t)\,d(t)^\top`
    total : float64, ``[pattern, coefficient]``
        :math:`\sum_t d(t)`
    shape : tuple of int
        The cells as they lie in a state.
    """

    shift: np.ndarray
    cross: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    count: np.ndarray
    first_missing: np.ndarray
    pattern: np.ndarray
    normal: np.ndarray
    total: np.ndarray
    shape: tuple[int, ...]

    def about(self, shift: np.ndarray) -> "Moments":
        """The same sums of deviations from another shift, exact but for rounding."""
        with np.errstate(invalid="ignore"):  # infinite values are told by what they leave: nan
            change = np.where(self.count > 0, self.shift - shift, 0.0)
            total = self.total if len(self.total) == 1 else self.total[self.pattern]
            cross = self.cross + total.T * change
            squares = self.squares + change * (2 * self.sums + self.count * change)
            sums = self.sums + self.count * change
        rest = (self.count, self.first_missing, self.pattern, self.normal, self.total, self.shape)
        return Moments(shift, cross, sums, squares, *rest)


def moments(block: np.ndarray, design: np.ndarray, start: int) -> Moments:
    """Sums of one block of times.

    Parameters
    ----------
    block : array, ``[time, ...]``
        NaN where missing.
    design : float64, ``[time, coefficient]``
        Basis values at its times.
    start : int
        Position of its first time in the record.
    """
    # An array that came from another process may lie unaligned, which keeps numpy from BLAS and
    # changes last bits.
    block, design = (np.require(a, requirements=("C", "A")) for a in (block, design))
    x = block.reshape(len(block), -1)
    num, width = x.shape[1], design.shape[1]
    missing = np.isnan(x)
    cells = np.flatnonzero(missing.any(axis=0))
    count, first = np.full(num, len(x), dtype=np.int64), np.full(num, np.iinfo(np.int64).max)
    pattern = np.zeros(num, dtype=np.int64)
    normal, total = (design.T @ design)[None], design.sum(axis=0)[None]
    shift = x[0].astype(np.float64)
    if cells.size:
        gone = missing[:, cells]
        count[cells] -= gone.sum(axis=0)
        first[cells] = start + gone.argmax(axis=0)
        shift[cells] = np.where(count[cells] > 0, x[(~gone).argmax(axis=0), cells], 0.0)
        packed = np.ascontiguousarray(np.packbits(gone, axis=0).T)
        names = packed.view(f"V{packed.shape[1]}").ravel()
        _, one, inverse = np.unique(names, return_index=True, return_inverse=True)
        pattern[cells] = inverse + 1
        outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
        lost = (gone[:, one].T @ outer).reshape(-1, width, width)
        normal = np.concatenate([normal, normal - lost])
        total = np.concatenate([total, total - gone[:, one].T @ design])
    products, squares = np.zeros((width + 1, num)), np.zeros(num)
    columns = np.ones((len(design), width + 1))
    columns[:, :-1] = design
    step = max(256, _PIECE_SIZE // (_PIECE_TIMES * (width + 1)))
    for left in range(0, num, step):
        own = slice(left, left + step)
        for early in range(0, len(x), _PIECE_TIMES):
            rows = slice(early, early + _PIECE_TIMES)
            piece = x[rows, own].astype(np.float64)
            with np.errstate(invalid="ignore"):
                piece -= shift[own]
            if cells.size:
                piece[missing[rows, own]] = 0.0
            products[:, own] += columns[rows].T @ piece
            squares[own] += np.einsum("tc,tc->c", piece, piece)
    cross, sums = products[:-1], products[-1]
    rest = (count, first, pattern, normal, total, block.shape[1:])
    return Moments(shift, cross, sums, squares, *rest)


def merge(*parts: Moments) -> Moments:
    """Sums over the times of all parts: the same cells, and no time in common."""
    whole = parts[0]
    for part in parts[1:]:
        shift = np.where(whole.count > 0, whole.shift, part.shift)
        whole, part = whole.about(shift), part.about(shift)
        num = len(part.normal)
        if num == 1:
            joint, pattern = np.arange(len(whole.normal)), whole.pattern
        else:
            joint, pattern = np.unique(whole.pattern * num + part.pattern, return_inverse=True)
        whole = Moments(
            shift=shift,
            cross=whole.cross + part.cross,
            sums=whole.sums + part.sums,
            squares=whole.squares + part.squares,
            count=whole.count + part.count,
            first_missing=np.minimum(whole.first_missing, part.first_missing),
            pattern=pattern,
            normal=whole.normal[joint // num] + part.normal[joint % num],
            total=whole.total[joint // num] + part.total[joint % num],
            shape=whole.shape,
        )
    return whole


def join(blocks: Any) -> Moments:
    """Moments of all cells of a state from those of its blocks, over the same times.

    Parameters
    ----------
    blocks : Moments, or nested lists of them
        The outermost list runs along the first dimension of the state.
    """
    if isinstance(blocks, Moments):
        return blocks
    parts = [join(block) for block in blocks]
    # Nesting depth tells the axis: the innermost lists run along the state's last dimension.
    depth, inner = 1, blocks[0]
    while isinstance(inner, list):
        depth, inner = depth + 1, inner[0]
    before = np.cumsum([0, *(len(part.normal) for part in parts)])

    def side_by_side(arrays: list[np.ndarray]) -> np.ndarray:
        states = [a.reshape(*a.shape[:-1], *p.shape) for a, p in zip(arrays, parts, strict=True)]
        return np.concatenate(states, axis=-depth)

    count = side_by_side([p.count for p in parts])
    return Moments(
        shift=side_by_side([p.shift for p in parts]).ravel(),
        cross=side_by_side([p.cross for p in parts]).reshape(-1, count.size),
        sums=side_by_side([p.sums for p in parts]).ravel(),
        squares=side_by_side([p.squares for p in parts]).ravel(),
        count=count.ravel(),
        first_missing=side_by_side([p.first_missing for p in parts]).ravel(),
        pattern=side_by_side(
            [p.pattern + b for p, b in zip(parts, before[:-1], strict=True)]
        ).ravel(),
        normal=np.concatenate([p.normal for p in parts]),
        total=np.concatenate([p.total for p in parts]),
        shape=count.shape,
    )


def accumulate(ds: xr.Dataset, design: np.ndarray) -> dict[Hashable, Moments]:
    """Moments of every variable, from one pass through Dask that reads each chunk once.

    Parameters
    ----------
    ds : Dataset
        Variables with a time dimension, lazy or not.
    design : float64, ``[time, coefficient]``
        Basis values at its times.
    """
    import dask.array as da
    from dask.base import compute
    from dask.delayed import delayed

    one, several = delayed(moments, pure=False), delayed(merge, pure=False)
    lazy: dict[Hashable, Any] = {}
    for name, variable in ds.data_vars.items():
        x = variable.transpose("time", ...).data
        if not isinstance(x, da.Array):
            x = da.from_array(x, chunks=x.shape, name=False)  # type: ignore[no-untyped-call]
        x = x.rechunk({0: _block_times(x)})
        spans = list(pairwise(np.cumsum([0, *x.chunks[0]]).tolist()))
        # Optimized, every variable would get its own reading tasks, and levels of one array read
        # each chunk once per level.
        blocks = x.to_delayed(optimize_graph=False)
        out = np.empty(blocks.shape[1:], dtype=object)
        for place in np.ndindex(*out.shape):
            parts = [one(blocks[i, *place], design[s:e], s) for i, (s, e) in enumerate(spans)]
            while len(parts) > 1:
                parts = [several(*parts[i : i + 8]) for i in range(0, len(parts), 8)]
            out[place] = parts[0]
        lazy[name] = out.tolist()
    found = dict(compute(lazy)[0])  # type: ignore[no-untyped-call]
    return {name: join(found.pop(name)) for name in list(found)}


def _block_times(x: Any) -> int:
    """Times per block of about 32 MiB in float64: some small chunks, or a piece of a large one."""
    cells = int(np.prod([max(c) for c in x.chunks[1:]], dtype=np.int64))
    times = max(1, min(x.shape[0], _BLOCK_BYTES // (8 * max(cells, 1))))
    chunk = max(x.chunks[0])
    return int(times // chunk * chunk) if times >= chunk else int(times)
