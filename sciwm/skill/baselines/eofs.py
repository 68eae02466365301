"""Empirical orthogonal functions: the patterns that hold most of the variance."""

from typing import Any

import dask.array
import numpy as np
import scipy.linalg

__all__ = ["leading_eofs"]

_EXACT = 2000


def leading_eofs(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the leading right singular vectors of ``(time, cells)`` and their variances.

    Up to 2000 rows or columns they are exact, through the smaller Gram matrix. Beyond, a seeded
    randomized decomposition with four power iterations gives them.

    Returns
    -------
    patterns : ndarray, ``(count, cells)``
        Orthonormal, by falling variance; the largest entry of each is positive.
    variance_fraction : ndarray, ``(count,)``
        Share of each in the variance of the matrix.
    """
    rows, cells = matrix.shape
    total = float((matrix**2).sum())
    if min(rows, cells) > _EXACT:
        da: Any = dask.array  # untyped
        _, singular, right = da.linalg.svd_compressed(
            da.from_array(matrix, chunks=(-1, -1)), count, n_oversamples=20, n_power_iter=4, seed=0
        )
        singular, right = da.compute(singular, right)
    else:
        wide = rows < cells
        gram = matrix @ matrix.T if wide else matrix.T @ matrix
        size = len(gram)
        values, vectors = scipy.linalg.eigh(gram, subset_by_index=(size - count, size - 1))
        singular = np.sqrt(np.clip(values[::-1], 0.0, None))
        right = vectors[:, ::-1].T
        if wide:
            right = (matrix.T @ right.T / np.where(singular > 0, singular, 1.0)).T
    peak = right[np.arange(count), np.abs(right).argmax(axis=1)]
    return right * np.where(peak < 0, -1.0, 1.0)[:, None], singular**2 / total
