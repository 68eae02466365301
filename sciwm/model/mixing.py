"""How tokens hear of one another: from their neighbours, from all, or from both."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciwm.model.depthwise import depthwise
from sciwm.model.settings import Sizes
from sciwm.tokens.place import Distances, Lattice, Place

__all__ = ["MIXINGS", "Attention", "Block", "DistanceMixing", "LatticeMixing"]

_RINGS = 4  # distances that a token without rows and columns tells apart


class LatticeMixing(nn.Module):
    """Weighted sum over the tokens around each one, channel by channel.

    A depth-wise convolution that obeys the domain. It goes round where the domain closes on itself,
    and on across the poles of a globe.

    Parameters
    ----------
    lattice : Lattice
        Of the tokens.
    width : int
        Channels.
    reach : int
        Rows and columns on every side.
    """

    around: Tensor

    def __init__(self, lattice: Lattice, width: int, reach: int) -> None:
        super().__init__()
        around = lattice.around(reach)
        self.shape = tuple(around.shape)
        self.register_buffer("around", around.flatten(), persistent=False)
        side = 2 * reach + 1
        self.convolution = nn.Conv2d(width, width, side, groups=width)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Mix."""
        # A view with channels last: several times as fast on a CPU as with channels first.
        wide = x.index_select(1, self.around).view(len(x), *self.shape, -1)
        kernels, offsets = self.convolution.weight, self.convolution.bias
        assert offsets is not None
        mixed = depthwise(wide.permute(0, 3, 1, 2), kernels, offsets)
        return mixed.permute(0, 2, 3, 1).flatten(1, 2)


class DistanceMixing(nn.Module):
    """Weighted sum over all tokens, whose weights depend on the distance and the channel.

    Parameters
    ----------
    distances : Distances
        Between tokens. Their quantiles are the centres of as many bell curves.
    width : int
        Channels.
    """

    kernel: Tensor

    def __init__(self, distances: Distances, width: int) -> None:
        super().__init__()
        d, n = distances.mean, len(distances.mean)
        apart = d[~torch.eye(n, dtype=torch.bool)] if n > 1 else torch.ones(1)
        centre = torch.quantile(apart, torch.linspace(0, 1, _RINGS))
        wide = ((centre[-1] - centre[0]) / _RINGS).clamp_min(1e-6)
        bells = (-((d - centre[:, None, None]) / wide).square() / 2).exp()
        bells = bells * (1 - torch.eye(n))
        kernel = torch.cat(
            [torch.eye(n)[None], bells / bells.sum(-1, keepdim=True).clamp_min(1e-6)]
        )
        self.register_buffer("kernel", kernel, persistent=False)
        self.weight = nn.Parameter(torch.empty(len(kernel), width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.normal_(self.weight, std=len(self.weight) ** -0.5)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Mix."""
        rings = torch.einsum("kij,bjw->bikw", self.kernel, x)
        return (rings * self.weight).sum(2)


class Attention(nn.Module):
    """Every token attends to all, and keeps what it was.

    Parameters
    ----------
    width : int
        Channels.
    num_heads : int
        A divisor of ``width``.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Mix."""
        batch, count, width = x.shape
        projected = self.project(self.norm(x)).view(batch, count, 3, self.num_heads, -1)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        if x.device.type == "cpu":
            # The fused kernel is several times slower in bfloat16 than in float32 on a CPU.
            with torch.autocast("cpu", enabled=False):
                mixed = nn.functional.scaled_dot_product_attention(
                    query.float(), key.float(), value.float()
                )
        else:
            mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = x + self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        return out


class Both(nn.Module):
    """From the neighbours, then from all."""

    def __init__(self, near: nn.Module, far: nn.Module) -> None:
        super().__init__()
        self.near, self.far = near, far

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Mix."""
        out: Tensor = self.far(self.near(x))
        return out


def _none(place: Place, sizes: Sizes, width: int) -> nn.Module:
    return nn.Identity()


def _local(place: Place, sizes: Sizes, width: int) -> nn.Module:
    near = place.neighbours
    if isinstance(near, Lattice):
        return LatticeMixing(near, width, sizes.reach)
    if isinstance(near, Distances):
        return DistanceMixing(near, width)
    raise ValueError(
        "got model.mixing = 'local' for tokens without neighbours, expected 'global': attention"
        " needs none"
    )


def _global(place: Place, sizes: Sizes, width: int) -> nn.Module:
    return Attention(width, sizes.num_heads)


def _both(place: Place, sizes: Sizes, width: int) -> nn.Module:
    return Both(_local(place, sizes, width), _global(place, sizes, width))


MIXINGS: dict[str, Callable[[Place, Sizes, int], nn.Module]] = {
    "none": _none,
    "local": _local,
    "global": _global,
    "both": _both,
}


class Block(nn.Module):
    """Mix tokens, then transform each: a residual block that changes nothing before training.

    Parameters
    ----------
    place : Place
        Where the tokens are.
    sizes : Sizes
        Reach, heads, hidden width and dropout.
    width : int
        Channels.
    mixing : str
        One of `MIXINGS`.
    condition_dim : int
        Width of a condition that shifts and scales what was mixed; 0 for none.

    Raises
    ------
    ValueError
        If tokens without neighbours are to be mixed locally.
    """

    def __init__(
        self, place: Place, sizes: Sizes, width: int, mixing: str, condition_dim: int = 0
    ) -> None:
        super().__init__()
        self.mix = MIXINGS[mixing](place, sizes, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=not condition_dim)
        hidden = int(width * sizes.mlp_ratio)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.modulate = nn.Linear(condition_dim, 2 * width) if condition_dim else None
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        condition: Float[Tensor, "batch condition"] | None = None,
    ) -> Float[Tensor, "batch token width"]:
        """Mix and transform."""
        y = self.norm(self.mix(x))
        if self.modulate is not None and condition is not None:
            scale, shift = self.modulate(condition)[:, None].chunk(2, dim=-1)
            y = torch.addcmul(shift, y, 1 + scale)
        out: Tensor = x + self.down(self.dropout(nn.functional.gelu(self.up(y))))
        return out
