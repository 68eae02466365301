"""What a network is built from: what it is given, how large it is, and what it minimises."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

__all__ = ["Inputs", "Objective", "Sizes"]


@dataclass(frozen=True)
class Inputs:
    """What the tokens of a data set look like.

    Parameters
    ----------
    position : Tensor, ``[token, axis]``
        Position features of the tokens.
    feature_dim, condition_dim, local_dim : int
        Widths of token features, of a time's conditions, and of a token's conditions at a time.
    cells : int
        Values of a token's patch, which a head of pixels gives.
    """

    position: Float[Tensor, "token axis"] = field(repr=False)
    feature_dim: int
    condition_dim: int
    local_dim: int
    cells: int


@dataclass(frozen=True)
class Sizes:
    """Sizes of encoder and predictor, as in `sciwm.sections.ModelConfig`."""

    token_dim: int = 96
    encoder_blocks: int = 2
    predictor_blocks: int = 2
    num_heads: int = 4
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    history: int = 2
    noise_dim: int = 0


@dataclass(frozen=True)
class Objective:
    """What is minimised, and its numbers, as in `sciwm.sections.ObjectiveConfig`."""

    kind: str = "sigreg"
    strength: float = 10.0
    num_directions: int = 64
    ema_decay: float = 0.996
    latent_noise: float = 0.0
    anchor: float = 0.0
