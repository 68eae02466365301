"""Transformer blocks, plain and conditioned."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciwm.model.settings import Sizes

__all__ = ["Attention", "Block", "ConditionedBlock", "FeedForward", "TokenDropout"]


class TokenDropout(nn.Module):
    """Dropout whose mask is shared by all tokens of a sample.

    Neighbouring tokens hold much the same information: a single dropped number could be read off
    next door. One mask for all tokens prevents that, and needs fewer random numbers.

    Parameters
    ----------
    rate : float
        Fraction of the features that is dropped, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Zero a fraction of the features and scale up the rest, while training."""
        if not self.training or self.rate == 0:
            return tokens
        keep = tokens.new_empty(tokens.shape[0], 1, tokens.shape[2]).bernoulli_(1 - self.rate)
        return tokens * keep.div_(1 - self.rate)


class Attention(nn.Module):
    """Multi-head self-attention over tokens."""

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        tokens: Float[Tensor, "batch token dim"],
        valid: Bool[Tensor, "batch token"] | None,
        last: int | None = None,
    ) -> Float[Tensor, "batch kept dim"]:
        """Mix tokens.

        Parameters
        ----------
        tokens : Tensor
            All tokens of each sample.
        valid : Tensor or None
            Tokens that may be attended to; None for all.
        last : int, optional
            Return only that many of the last tokens.
        """
        batch, count, dim = tokens.shape
        projected = self.project(tokens).view(batch, count, 3, self.num_heads, -1)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        query = query if last is None else query[:, :, -last:]
        mask = None if valid is None else valid[:, None, None, :]
        if tokens.device.type == "cpu":
            # The fused kernel is several times slower in bfloat16 than in float32 on a CPU.
            with torch.autocast("cpu", enabled=False):
                mixed = nn.functional.scaled_dot_product_attention(
                    query.float(), key.float(), value.float(), attn_mask=mask
                )
        else:
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, -1, dim))
        return out


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between."""

    def __init__(self, *, dim: int, ratio: float) -> None:
        hidden = int(dim * ratio)
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.token_dim
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = Attention(dim=dim, num_heads=sizes.num_heads)
        self.norm_feed = nn.LayerNorm(dim)
        self.feed = FeedForward(dim=dim, ratio=sizes.mlp_ratio)
        self.dropout = TokenDropout(sizes.dropout)

    def forward(
        self, tokens: Float[Tensor, "batch token dim"], valid: Bool[Tensor, "batch token"] | None
    ) -> Float[Tensor, "batch token dim"]:
        """Attend, then transform each token."""
        tokens = tokens + self.dropout(self.attention(self.norm_attention(tokens), valid))
        out: Tensor = tokens + self.dropout(self.feed(self.norm_feed(tokens)))
        return out


class ConditionedBlock(nn.Module):
    """Transformer block that a condition shifts, scales and gates (AdaLN-zero).

    The gates start at zero: an untrained block is the identity.

    References
    ----------
    Peebles & Xie 2023, arXiv:2212.09748.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.token_dim
        self.norm_attention = nn.LayerNorm(dim, elementwise_affine=False)
        self.attention = Attention(dim=dim, num_heads=sizes.num_heads)
        self.norm_feed = nn.LayerNorm(dim, elementwise_affine=False)
        self.feed = FeedForward(dim=dim, ratio=sizes.mlp_ratio)
        self.dropout = TokenDropout(sizes.dropout)
        self.modulate = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(
        self,
        tokens: Float[Tensor, "batch token dim"],
        condition: Float[Tensor, "batch dim"],
        valid: Bool[Tensor, "batch token"] | None,
        last: int | None = None,
    ) -> Float[Tensor, "batch kept dim"]:
        """Attend, then transform each token, both as far as the condition opens the gates.

        Parameters
        ----------
        tokens, valid, last
            As `Attention` takes them.
        condition : Tensor
            Embedded condition of each sample.
        """
        modulation = self.modulate(nn.functional.silu(condition))[:, None]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.chunk(6, dim=-1)
        mixed = self.attention(self.norm_attention(tokens) * (1 + scale_a) + shift_a, valid, last)
        tokens = (tokens if last is None else tokens[:, -last:]) + gate_a * self.dropout(mixed)
        fed = self.feed(self.norm_feed(tokens) * (1 + scale_f) + shift_f)
        out: Tensor = tokens + gate_f * self.dropout(fed)
        return out
