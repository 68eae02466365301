"""One state becomes latents, token by token."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sciwm.model.layers import Block

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """Vision transformer over the tokens of one state.

    Parameters
    ----------
    feature_dim, position_dim : int
        Widths of a token's features and of its position features.
    token_dim, num_blocks, num_heads, mlp_ratio, dropout
        Sizes of the network.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        position_dim: int,
        token_dim: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(feature_dim, token_dim)
        self.place = nn.Linear(position_dim, token_dim)
        self.blocks = nn.ModuleList(
            [
                Block(dim=token_dim, num_heads=num_heads, ratio=mlp_ratio, dropout=dropout)
                for _ in range(num_blocks)
            ]
        )
        self.norm = nn.LayerNorm(token_dim)
        # A linear map after the norm: normalised vectors alone lie on a sphere and could never be
        # Gaussian.
        self.project = nn.Linear(token_dim, token_dim)

    def forward(
        self,
        features: Float[Tensor, "batch token feature"],
        valid: Bool[Tensor, "batch token"] | None,
        position: Float[Tensor, "token axis"],
        visible: Int[Tensor, "batch visible"] | None = None,
    ) -> Float[Tensor, "batch kept dim"]:
        """Latents of all tokens, or of the ``visible`` ones: the others are dropped before any work is done on them.

        ``valid`` is None when every token holds data, which lets attention take its fast path.
        """
        place = self.place(position)
        if visible is None:
            tokens = self.embed(features) + place
        else:
            tokens = (
                self.embed(
                    features.gather(1, visible[..., None].expand(-1, -1, features.shape[-1]))
                )
                + place[visible]
            )
            valid = None if valid is None else valid.gather(1, visible)
        for block in self.blocks:
            tokens = block(tokens, valid)
        latents: Tensor = self.project(self.norm(tokens))
        return latents if valid is None else torch.where(valid[..., None], latents, 0.0)
