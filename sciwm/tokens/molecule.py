"""A molecular configuration becomes one token per heavy atom."""

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciwm.tokens.place import Distances, Place

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

    kind, alike, num_outputs = "molecule", False, 0
    position: Tensor
    area: Tensor
    channel: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, *, mean: np.ndarray, spread: np.ndarray) -> None:
        super().__init__()
        self.num_tokens = self.num_features = self.num_cells = mean.shape[0]
        # Atoms are told apart by what they are, not where: one-hot "positions".
        numbers = {
            "mean": torch.as_tensor(mean).float(),
            "spread": torch.as_tensor(spread).float(),
            "position": torch.eye(self.num_tokens),
            "area": torch.full((self.num_tokens,), 1 / self.num_tokens),
            "channel": torch.zeros(0, dtype=torch.int64),
        }
        for name, values in numbers.items():
            self.register_buffer(name, values, persistent=False)
        self.place = Place(position=self.position, neighbours=Distances(self.mean))
        self.noise_scale = float(self.spread.median())

    @classmethod
    def fit(cls, store: xr.Dataset, *, patch_size: tuple[int, int]) -> "MoleculeTokenizer":
        """For the positions of a training store; molecules have no patches."""
        train = store["state"].isel(time=store["split"].values == 0)
        mean, spread = fit_distances(train.data)
        return cls(mean=mean, spread=spread)

    @classmethod
    def read(
        cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "MoleculeTokenizer":
        """Inverse of `settings` and `tensors`."""
        return cls(mean=tensors["mean"].numpy(), spread=tensors["spread"].numpy())

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Mean and spread of the distances, in nm."""
        return {"mean": self.mean, "spread": self.spread}

    def tokenize(
        self, values: Float[Tensor, "*lead atom 3"], valid: Bool[Tensor, "*lead atom 3"] | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Standardized distance rows, twice; every atom is valid."""
        rows = (_pairwise(values) - self.mean) / self.spread
        some = None if valid is None or bool(valid.all()) else valid.all(-1)
        return rows, rows, some, None

    def outputs(self, values: Float[Tensor, "*lead atom 3"]) -> Float[Tensor, "*lead atom output"]:
        """Nothing: a molecule has no fields."""
        return values[..., :0]

    def surroundings(
        self, values: Float[Tensor, "*lead atom 3"], halo: int
    ) -> Float[Tensor, "*lead atom output"]:
        """Nothing, as `outputs`."""
        return self.outputs(values)

    def fields(self, outputs: Float[Tensor, "*lead atom output"]) -> Float[Tensor, "*lead atom 3"]:
        """Not there.

        Raises
        ------
        ValueError
            Always: distances to fields cannot be read out.
        """
        raise ValueError("got outputs of a molecule, expected a grid: a molecule has no fields")

    def means(self, planes: Float[Tensor, " plane *state"]) -> Float[Tensor, "atom plane"]:
        """Nothing: a molecule has no constant fields."""
        return torch.zeros(self.num_tokens, 0)

    def coordinates(self, ds: xr.Dataset) -> dict[str, Any]:
        """Names of the atoms."""
        return {"atom": ("token", ds["atom"].values)}
