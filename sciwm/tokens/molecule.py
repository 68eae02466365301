"""A molecular configuration becomes one token per heavy atom."""

import dask.array as da
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["MoleculeTokenizer", "fit_distances"]


def _pairwise(positions: Float[Tensor, "*lead atom 3"]) -> Float[Tensor, "*lead atom atom"]:
    difference = positions[..., :, None, :] - positions[..., None, :, :]
    return difference.square().sum(-1).clamp_min(1e-12).sqrt()


def fit_distances(
    positions: np.ndarray | da.Array, *, block: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of every interatomic distance over training frames.

    Parameters
    ----------
    positions : array, ``[time, atom, 3]``
        In nm; numpy or dask, read in blocks of ``block`` frames.

    Returns
    -------
    mean, spread : ndarray, ``[atom, atom]``
        In nm. The spread is at least 1e-3 nm. So rounding is not blown up into a signal where
        distances never change (bonds under constraint).

    Raises
    ------
    ValueError
        If a position is missing.
    """
    count, total, square = 0, 0.0, 0.0
    for start in range(0, positions.shape[0], block):
        frames = np.asarray(positions[start : start + block], dtype="float64")
        if not np.isfinite(frames).all():
            frame = start + int(np.argwhere(~np.isfinite(frames))[0, 0])
            raise ValueError(
                f"got a missing position in frame {frame}, expected none: drop or repair that frame"
            )
        distance = _pairwise(torch.from_numpy(frames)).numpy()
        count += len(frames)
        total = total + distance.sum(0)
        square = square + np.square(distance).sum(0)
    mean = np.asarray(total / count)
    return mean, np.maximum(np.sqrt(np.maximum(square / count - mean**2, 0.0)), 1e-3)


class MoleculeTokenizer(nn.Module):
    """Rows of the matrix of interatomic distances, standardized pair by pair.

    Distances ignore where the molecule is and how it is turned. Linear models on raw laboratory
    coordinates measure drift and tumbling instead. Distances also ignore mirror images, which is
    harmless for a molecule that keeps its chirality.

    Parameters
    ----------
    mean, spread : ndarray, ``[atom, atom]``
        From `fit_distances`, in nm.
    """

    position: Tensor
    area: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, *, mean: np.ndarray, spread: np.ndarray) -> None:
        super().__init__()
        self.num_tokens = self.feature_dim = self.cells = mean.shape[0]
        self.register_buffer("mean", torch.as_tensor(mean).float(), persistent=False)
        self.register_buffer("spread", torch.as_tensor(spread).float(), persistent=False)
        # Atoms are told apart by what they are, not where: one-hot "positions".
        self.register_buffer("position", torch.eye(self.num_tokens), persistent=False)
        area = torch.full((self.num_tokens,), 1 / self.num_tokens)
        self.register_buffer("area", area, persistent=False)

    def forward(
        self, values: Float[Tensor, "*lead atom 3"], valid: Bool[Tensor, "*lead atom 3"]
    ) -> tuple[Float[Tensor, "*lead token feature"], Bool[Tensor, "*lead token"]]:
        """Standardized distance rows; every atom is valid."""
        return self.patches(values), valid.all(-1)

    def patches(
        self, values: Float[Tensor, "*lead atom 3"]
    ) -> Float[Tensor, "*lead token feature"]:
        """Standardized distance rows."""
        return (_pairwise(values) - self.mean) / self.spread
