"""A field on a latitude-longitude grid becomes patch tokens."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciwm.tokens.positions import is_periodic, unit_sphere

__all__ = ["GridTokenizer"]


class GridTokenizer(nn.Module):
    """Cut states into patches of ``patch_size`` cells.

    Grids that do not divide are padded at the end (north, east) with missing cells. Where
    longitudes close on themselves they must divide: a padded seam would part neighbours. Each token
    carries the values of its cells, 0 where missing, and per channel the fraction that was
    observed.

    Parameters
    ----------
    latitude, longitude : ndarray
        Cell centres in degrees, 1-D.
    num_channels : int
        Variables times levels.
    patch_size : tuple of int
        Cells per token, ``(latitude, longitude)``.

    Examples
    --------
    >>> tokenizer = GridTokenizer(
    ...     latitude=np.arange(30, 51.0),
    ...     longitude=np.arange(0, 24.0),
    ...     num_channels=2,
    ...     patch_size=(4, 4),
    ... )
    >>> tokenizer.num_tokens, tokenizer.feature_dim
    (36, 34)
    """

    position: Tensor
    area: Tensor

    def __init__(
        self,
        *,
        latitude: np.ndarray,
        longitude: np.ndarray,
        num_channels: int,
        patch_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.shape = (len(latitude), len(longitude))
        self.patch_size = patch_size
        self.num_channels = num_channels
        if min(patch_size) < 1 or patch_size[0] > self.shape[0] or patch_size[1] > self.shape[1]:
            raise ValueError(
                f"got patch_size {patch_size}, expected between (1, 1) and the grid's {self.shape}"
            )
        self.periodic = is_periodic(np.asarray(longitude))
        if self.periodic and self.shape[1] % patch_size[1]:
            raise ValueError(
                f"got patch_size {patch_size} for {self.shape[1]} periodic longitudes, expected a"
                f" divisor of {self.shape[1]}, because padding would part the two sides of the seam"
            )
        rows, columns = (math.ceil(n / p) for n, p in zip(self.shape, patch_size, strict=True))
        self.grid = (rows, columns)
        self.num_tokens = rows * columns
        self.cells = num_channels * patch_size[0] * patch_size[1]
        self.feature_dim = self.cells + num_channels
        cosine = np.cos(np.deg2rad(np.asarray(latitude, float)))
        point = unit_sphere(np.asarray(latitude)[:, None], np.asarray(longitude)[None, :])
        weight = np.repeat(cosine[:, None], self.shape[1], axis=1)
        # In float32: a pole counts a little, lest a token there have no direction.
        area = torch.from_numpy(weight).float().clamp_min(1e-4)
        moment = torch.from_numpy(point).float().permute(2, 0, 1) * area
        parts = self._split(torch.cat([moment, area[None]]), 4)
        sums = parts.reshape(self.num_tokens, 4, -1).sum(-1)
        position = nn.functional.normalize(sums[:, :3], dim=-1)
        self.register_buffer("position", position, persistent=False)
        self.register_buffer("area", sums[:, 3] / sums[:, 3].sum(), persistent=False)

    def _split(
        self, values: Float[Tensor, "*lead channel latitude longitude"], channels: int
    ) -> Float[Tensor, "*lead token feature"]:
        (rows, columns), (height, width) = self.grid, self.patch_size
        padding = (0, columns * width - self.shape[1], 0, rows * height - self.shape[0])
        lead = values.shape[:-3]
        if any(padding):
            values = nn.functional.pad(values, padding)
        split = values.reshape(*lead, channels, rows, height, columns, width)
        order = (*range(len(lead)), *(len(lead) + i for i in (1, 3, 0, 2, 4)))
        return split.permute(order).reshape(*lead, rows * columns, channels * height * width)

    def forward(
        self,
        values: Float[Tensor, "*lead channel latitude longitude"],
        valid: Bool[Tensor, "*lead channel latitude longitude"],
    ) -> tuple[Float[Tensor, "*lead token feature"], Bool[Tensor, "*lead token"]]:
        """Token features, and which tokens hold at least one observed cell."""
        cells, valid_cells = self.patches(values), self.patches(valid.to(values.dtype))
        fraction = valid_cells.reshape(*cells.shape[:-1], self.num_channels, -1).mean(-1)
        return torch.cat([cells, fraction], dim=-1), fraction.amax(-1) > 0

    def patches(
        self, values: Float[Tensor, "*lead channel latitude longitude"]
    ) -> Float[Tensor, "*lead token cell"]:
        """Values of each token's cells, ordered channel, latitude, longitude; padding is 0."""
        return self._split(values, self.num_channels)

    def fields(
        self, patches: Float[Tensor, "*lead token cell"]
    ) -> Float[Tensor, "*lead channel latitude longitude"]:
        """Inverse of `patches`."""
        (rows, columns), (height, width) = self.grid, self.patch_size
        lead = patches.shape[:-2]
        split = patches.reshape(*lead, rows, columns, self.num_channels, height, width)
        order = (*range(len(lead)), *(len(lead) + i for i in (2, 0, 3, 1, 4)))
        shape = (*lead, self.num_channels, rows * height, columns * width)
        whole = split.permute(order).reshape(shape)
        return whole[..., : self.shape[0], : self.shape[1]]

    def surroundings(
        self, values: Float[Tensor, "*lead channel latitude longitude"], halo: int
    ) -> Float[Tensor, "*lead token feature"]:
        """Values of each token's cells and of ``halo`` cells around them.

        0 beyond the domain, wrapped where periodic.
        """
        if halo == 0:
            return self.patches(values)
        (rows, columns), (height, width) = self.grid, self.patch_size
        lead = values.shape[:-3]
        flat = values.reshape(-1, *values.shape[-3:])
        right = columns * width - self.shape[1]
        around = torch.arange(-halo, self.shape[1] + halo, device=flat.device) % self.shape[1]
        wide = flat[..., around] if self.periodic else nn.functional.pad(flat, (halo, halo + right))
        wide = nn.functional.pad(wide, (0, 0, halo, halo + rows * height - self.shape[0]))
        window = wide.unfold(2, height + 2 * halo, height).unfold(3, width + 2 * halo, width)
        return window.permute(0, 2, 3, 1, 4, 5).reshape(*lead, self.num_tokens, -1)
