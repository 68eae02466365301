"""A field on a latitude-longitude grid becomes patch tokens."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciwm.tokens.patches import cut, join
from sciwm.tokens.place import Lattice, Place
from sciwm.tokens.positions import fourier_features, is_periodic, unit_sphere

__all__ = ["GridTokenizer"]


class GridTokenizer(nn.Module):
    """Cut states into patches of ``patch_size`` cells.

    Grids that do not divide are padded at the end (north, east) with missing cells. Where rows or
    columns close on themselves they must divide: a padded seam would part neighbours. Each token
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
    periodic : tuple of bool
        Whether latitudes, and longitudes, of a plane close on themselves. Longitudes that go round
        the globe need not say so.

    Raises
    ------
    ValueError
        If a patch is larger than the grid, or does not divide what closes on itself.

    Examples
    --------
    >>> tokenizer = GridTokenizer(
    ...     latitude=np.arange(30, 51.0),
    ...     longitude=np.arange(0, 24.0),
    ...     num_channels=2,
    ...     patch_size=(4, 4),
    ... )
    >>> tokenizer.num_tokens, tokenizer.num_features
    (36, 34)
    """

    kind, alike, noise_scale = "grid", True, 1.0
    position: Tensor
    area: Tensor
    channel: Tensor
    latitude: Tensor
    longitude: Tensor
    whole: Tensor

    def __init__(
        self,
        *,
        latitude: np.ndarray,
        longitude: np.ndarray,
        num_channels: int,
        patch_size: tuple[int, int],
        periodic: tuple[bool, bool] = (False, False),
    ) -> None:
        super().__init__()
        latitude, longitude = (np.array(x, float, order="C") for x in (latitude, longitude))
        self.shape = (len(latitude), len(longitude))
        self.patch_size = patch_size
        self.num_channels = num_channels
        if min(patch_size) < 1 or patch_size[0] > self.shape[0] or patch_size[1] > self.shape[1]:
            raise ValueError(
                f"got patch_size {patch_size}, expected between (1, 1) and the grid's {self.shape}"
            )
        self.declared, self.plane = periodic, any(periodic)
        self.periodic = (periodic[0], periodic[1] or is_periodic(longitude))
        for axis, name in enumerate(("latitudes", "longitudes")):
            if self.periodic[axis] and self.shape[axis] % patch_size[axis]:
                n = self.shape[axis]
                raise ValueError(
                    f"got patch_size {patch_size} for {n} periodic {name}, expected a divisor of"
                    f" {n}, because padding would part the two sides of the seam"
                )
        rows, columns = (math.ceil(n / p) for n, p in zip(self.shape, patch_size, strict=True))
        self.num_tokens = rows * columns
        self.num_cells = self.num_outputs = num_channels * patch_size[0] * patch_size[1]
        self.num_features = self.num_cells + num_channels
        weight = np.repeat(np.cos(np.deg2rad(latitude))[:, None], self.shape[1], axis=1)
        if self.plane:
            weight = np.ones_like(weight)
        point = unit_sphere(latitude[:, None], longitude[None, :])
        # In float32: a pole counts a little, lest a token there have no direction.
        area = torch.from_numpy(weight).float().clamp_min(1e-4)
        points = torch.from_numpy(point).float().permute(2, 0, 1)
        parts = cut(torch.cat([points * area, area[None]]), patch_size)
        sums = parts.reshape(self.num_tokens, 4, -1).sum(-1)
        position = nn.functional.normalize(sums[:, :3], dim=-1)
        numbers = {
            "position": position,
            "area": sums[:, 3] / sums[:, 3].sum(),
            "channel": torch.arange(num_channels).repeat_interleave(math.prod(patch_size)),
            "latitude": torch.tensor(latitude),
            "longitude": torch.tensor(longitude),
            "whole": cut(torch.ones(num_channels, *self.shape), patch_size),
        }
        for name, values in numbers.items():
            self.register_buffer(name, values, persistent=False)
        # Every place of a plane that closes on itself is like every other.
        features = torch.zeros(self.num_tokens, 1) if all(periodic) else fourier_features(position)
        poles = self._poles(latitude)
        self.place = Place(
            position=features,
            neighbours=Lattice(rows, columns, self.periodic, _divided(poles, patch_size, self)),
            cells=Lattice(*self.shape, self.periodic, poles),
            patch=patch_size,
            points=torch.zeros_like(points) if all(periodic) else points,
            area=area / area.mean(),
        )

    @classmethod
    def fit(cls, store: xr.Dataset, *, patch_size: tuple[int, int]) -> "GridTokenizer":
        """For the states of a training store, whose coordinates say whether they are periodic."""
        south, west = (
            str(store[dim].attrs.get("periodic", 0)).lower() in ("1", "true")
            for dim in ("latitude", "longitude")
        )
        return cls(
            latitude=store["latitude"].values,
            longitude=store["longitude"].values,
            num_channels=store.sizes["channel"],
            patch_size=patch_size,
            periodic=(south, west),
        )

    @classmethod
    def read(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "GridTokenizer":
        """Inverse of `settings` and `tensors`."""
        (height, width), (south, west) = settings["patch_size"], settings["periodic"]
        return cls(
            latitude=tensors["latitude"].numpy(),
            longitude=tensors["longitude"].numpy(),
            num_channels=settings["num_channels"],
            patch_size=(height, width),
            periodic=(south, west),
        )

    def settings(self) -> dict[str, Any]:
        """Channels, patches and, of a plane, what closes on itself."""
        return {
            "num_channels": self.num_channels,
            "patch_size": list(self.patch_size),
            "periodic": list(self.declared),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Latitudes and longitudes."""
        return {"latitude": self.latitude, "longitude": self.longitude}

    def _poles(self, latitude: np.ndarray) -> tuple[bool, bool]:
        """Whether the grid goes on across a pole beyond its first and its last row."""
        if self.plane or not self.periodic[1] or self.shape[1] % 2 or len(latitude) < 2:
            return (False, False)
        spacing = abs(float(latitude[1] - latitude[0]))
        first, last = (abs(abs(float(x)) + spacing / 2 - 90) for x in latitude[[0, -1]])
        return first < 0.3 * spacing, last < 0.3 * spacing

    def tokenize(
        self,
        values: Float[Tensor, "*lead channel latitude longitude"],
        valid: Bool[Tensor, "*lead channel latitude longitude"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Features, cells, tokens with data, and observed cells; None for a mask without gaps."""
        cells = self.outputs(values)
        if valid is None:
            seen = None if bool(self.whole.all()) else self.whole.bool().expand(cells.shape)
            share = self.whole.reshape(self.num_tokens, self.num_channels, -1).mean(-1)
            fraction = share.expand(*cells.shape[:-1], -1)
            return torch.cat([cells, fraction], dim=-1), cells, None, seen
        observed = cut(valid.to(values.dtype), self.patch_size)
        fraction = observed.reshape(*cells.shape[:-1], self.num_channels, -1).mean(-1)
        features, some = torch.cat([cells, fraction], dim=-1), fraction.amax(-1) > 0
        return features, cells, None if bool(some.all()) else some, observed > 0

    def outputs(
        self, values: Float[Tensor, "*lead channel latitude longitude"]
    ) -> Float[Tensor, "*lead token cell"]:
        """Values of each token's cells, ordered channel, latitude, longitude; padding is 0."""
        return cut(values, self.patch_size)

    def fields(
        self, outputs: Float[Tensor, "*lead token cell"]
    ) -> Float[Tensor, "*lead channel latitude longitude"]:
        """Inverse of `outputs`."""
        return join(outputs, self.patch_size, self.shape)

    def means(
        self, planes: Float[Tensor, "plane latitude longitude"]
    ) -> Float[Tensor, "token plane"]:
        """Means of constant fields over each token."""
        count = cut(torch.ones(1, *self.shape), self.patch_size).sum(-1)
        sums = cut(planes[:, None], self.patch_size).sum(-1)
        return (sums / count).T.contiguous()

    def coordinates(self, ds: xr.Dataset) -> dict[str, Any]:
        """Latitude and longitude of the tokens, in degrees."""
        x, y, z = self.position.T.numpy()
        return {
            "token_latitude": ("token", np.rad2deg(np.arcsin(np.clip(z, -1, 1)))),
            "token_longitude": ("token", np.rad2deg(np.arctan2(y, x))),
        }

    def surroundings(
        self, values: Float[Tensor, "*lead channel latitude longitude"], halo: int
    ) -> Float[Tensor, "*lead token feature"]:
        """Values of each token's cells and of ``halo`` cells around them.

        0 beyond the domain, wrapped where periodic.
        """
        if halo == 0:
            return self.outputs(values)
        lead, (height, width) = values.shape[:-3], self.patch_size
        flat = values.reshape(-1, *values.shape[-3:])
        for axis, n in enumerate(self.shape):
            side = (height, width)[axis]
            dim, fill = axis - 2, -n % side
            if self.periodic[axis]:
                around = torch.arange(-halo, n + halo, device=flat.device) % n
                flat = flat.index_select(dim, around)
            else:
                pad = (0, 0, halo, halo + fill) if axis == 0 else (halo, halo + fill)
                flat = nn.functional.pad(flat, pad)
        window = flat.unfold(2, height + 2 * halo, height).unfold(3, width + 2 * halo, width)
        return window.permute(0, 2, 3, 1, 4, 5).reshape(*lead, self.num_tokens, -1)


def _divided(
    poles: tuple[bool, bool], patch_size: tuple[int, int], grid: GridTokenizer
) -> tuple[bool, bool]:
    """Poles of the lattice of patches: none beyond rows that are padded, or an odd number."""
    even = (grid.shape[1] // patch_size[1]) % 2 == 0
    return poles[0] and even, poles[1] and even and grid.shape[0] % patch_size[0] == 0
