"""One state becomes latents, token by token."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciwm.model.mixing import Block
from sciwm.model.settings import Inputs, Sizes

__all__ = ["Cells", "Encoder", "Whitened", "latent_dim"]


@runtime_checkable
class Encoder(Protocol):
    """From features of tokens to latents, every state on its own."""

    latent_dim: int

    def __call__(
        self, features: Float[Tensor, "state token feature"]
    ) -> Float[Tensor, "state token latent"]:
        """Latents of every token."""
        ...


def latent_dim(inputs: Inputs, sizes: Sizes) -> int:
    """Latents of a token; as many as cells where none are asked for."""
    return sizes.latent_dim or inputs.num_cells


class Whitened(nn.Module):
    """The whitening of a token, and what blocks over all tokens add to it.

    Before training it is the whitening alone: every latent has unit variance, and nothing that
    ``latent_dim`` components hold is lost. Latents beyond the number of cells begin as 0. Missing
    tokens begin as 0, too; the blocks can fill them in from what lies around them.

    The blocks see all components, not only the ``latent_dim`` of most variance. Otherwise noise of
    much variance would take the place of a signal, and training could hardly find the signal again.

    Parameters
    ----------
    inputs : Inputs
        With the whitening.
    sizes : Sizes
        Of the latents, and of the blocks.
    frozen : bool
        Stay the whitening, without blocks.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, inputs: Inputs, sizes: Sizes, *, frozen: bool = False) -> None:
        super().__init__()
        self.latent_dim, width = latent_dim(inputs, sizes), sizes.encoder_width
        place, whitening = inputs.place, inputs.whitening
        self.register_buffer("mean", whitening.mean.clone())
        self.register_buffer("position", place.position, persistent=False)
        matrix = whitening.components(self.latent_dim)
        self.matrix = nn.Parameter(matrix, requires_grad=not frozen)
        blocks = 0 if frozen else sizes.encoder_blocks
        if not blocks:
            self.blocks = nn.ModuleList()
            return
        extra = whitening.mean.shape[-1] - inputs.num_cells
        self.register_buffer("components", whitening.components(inputs.num_cells))
        self.embed = nn.Linear(inputs.num_cells + extra, width)
        self.place = nn.Linear(place.position.shape[1], width, bias=False)
        self.blocks = nn.ModuleList(
            [Block(place, sizes, width, sizes.encoder_mixing) for _ in range(blocks)]
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, self.latent_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, features: Float[Tensor, "state token feature"]
    ) -> Float[Tensor, "state token latent"]:
        """Latents of every token."""
        # In full precision: components of little variance are differences of large numbers.
        with torch.autocast(features.device.type, enabled=False):
            centred = features.float() - self.mean
            white = _project(centred, self.matrix)
            if not len(self.blocks):
                return white
            seen = _project(centred, self.components)
        tokens = self.embed(torch.cat([seen, features[..., seen.shape[-1] :]], dim=-1))
        tokens = tokens + self.place(self.position)
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = white + self.out(self.norm(tokens))
        return out


def _project(
    features: Float[Tensor, "state token feature"], matrix: Float[Tensor, "group feature out"]
) -> Float[Tensor, "state token out"]:
    """By one matrix for all tokens, or by one for each."""
    if len(matrix) == 1:
        return features @ matrix[0]
    return torch.einsum("stf,tfd->std", features, matrix)


class Cells(nn.Module):
    """No encoder: the latents of a token are its cells."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.latent_dim = inputs.num_cells

    def forward(
        self, features: Float[Tensor, "state token feature"]
    ) -> Float[Tensor, "state token latent"]:
        """The cells."""
        return features[..., : self.latent_dim]
