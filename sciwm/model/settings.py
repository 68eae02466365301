"""What a network is built from: what it is given, how large it is, and what it minimises."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sciwm.model.whitening import Whitening
from sciwm.tokens.place import Place

__all__ = ["Inputs", "ObjectiveSettings", "Sizes"]


@dataclass(frozen=True)
class Inputs:
    """What the tokens of a data set look like.

    Parameters
    ----------
    place : Place
        Where the tokens are.
    whitening : Whitening
        Of their features.
    num_cells : int
        Values of a token's patch, which a head of pixels gives; the first of its features.
    times, tokens : dict of int
        Widths of what is known of a time, and of a token at a time, by name.
    change : float
        Root mean square of what cells change by over the shortest lead.
    """

    place: Place = field(repr=False)
    whitening: Whitening = field(repr=False)
    num_cells: int
    times: Mapping[str, int] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    change: float = 1.0


@dataclass(frozen=True)
class Sizes:
    """Sizes of encoder and dynamics, as in `sciwm.sections.ModelConfig`.

    ``latent_dim`` 0 stands for as many latents as a token has cells.
    """

    latent_dim: int = 0
    width: int = 96
    encoder_width: int = 32
    encoder_blocks: int = 0
    predictor_blocks: int = 4
    mixing: str = "local"
    encoder_mixing: str = "none"
    dynamics: str = "history"
    reach: int = 2
    num_heads: int = 4
    mlp_ratio: float = 2.0
    dropout: float = 0.0
    history: int = 2
    noise_dim: int = 0


@dataclass(frozen=True)
class ObjectiveSettings:
    """What is minimised, and its numbers, as in `sciwm.sections.ObjectiveConfig`."""

    kind: str = "sigreg"
    strength: float = 40.0
    num_directions: int = 64
    rows: int = 1024
    ema_decay: float = 0.996
    latent_noise: float = 0.0
    anchor: float = 0.0
