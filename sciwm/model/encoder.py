"""One state becomes latents, token by token."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sciwm.model.layers import Block
from sciwm.model.settings import Inputs, Sizes

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """Vision transformer over the tokens of one state.

    Parameters
    ----------
    inputs : Inputs
        Widths of a token's features and of its position features.
    sizes : Sizes
        Width, blocks, heads and dropout.

    References
    ----------
    Dosovitskiy et al. 2021, arXiv:2010.11929.
    """

    def __init__(self, inputs: Inputs, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.token_dim
        self.embed = nn.Linear(inputs.feature_dim, dim)
        self.place = nn.Linear(inputs.position.shape[1], dim)
        self.blocks = nn.ModuleList([Block(sizes) for _ in range(sizes.encoder_blocks)])
        self.norm = nn.LayerNorm(dim)
        # A linear map after the norm: normalised vectors alone lie on a sphere, never Gaussian.
        self.project = nn.Linear(dim, dim)

    def forward(
        self,
        features: Float[Tensor, "batch token feature"],
        valid: Bool[Tensor, "batch token"] | None,
        position: Float[Tensor, "token axis"],
        visible: Int[Tensor, "batch visible"] | None = None,
    ) -> Float[Tensor, "batch kept dim"]:
        """Latents of all tokens, or of the ``visible`` ones.

        Parameters
        ----------
        features : Tensor
            Standardized values of each token.
        valid : Tensor or None
            Tokens that hold data; the latents of the others are 0. None when all do, which lets
            attention take its fast path.
        position : Tensor
            Position features of the tokens.
        visible : Tensor, optional
            Numbers of the tokens to encode. The others are dropped before any work is done on them.
        """
        place = self.place(position)
        if visible is None:
            tokens = self.embed(features) + place
        else:
            kept = features.gather(1, visible[..., None].expand(-1, -1, features.shape[-1]))
            tokens = self.embed(kept) + place[visible]
            valid = None if valid is None else valid.gather(1, visible)
        for block in self.blocks:
            tokens = block(tokens, valid)
        latents: Tensor = self.project(self.norm(tokens))
        return latents if valid is None else torch.where(valid[..., None], latents, 0.0)
