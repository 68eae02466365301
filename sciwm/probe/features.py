"""What a readout sees: predicted latents, and the initial state beside them."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["field_features", "series_features"]


def field_features(
    latents: Float[Tensor, "sample token dim"], initial: Float[Tensor, "sample token cell"], *, scope: Literal["token", "shared"]
) -> Float[Tensor, "row group feature"]:
    """Features of the readout of fields, patch by patch.

    The latents come first, so that a latent-only readout is the same fit with fewer features. Persistence and damped
    persistence are special cases of a readout that also sees the initial anomalies.

    Parameters
    ----------
    latents : Tensor
        Predicted latents of one lead.
    initial : Tensor
        Initial anomalies of the patch (and its surroundings).
    scope : {"token", "shared"}
        One group per token, or all tokens as samples of one group.
    """
    features = torch.cat([latents, initial], dim=-1)
    return features if scope == "token" else features.flatten(0, 1)[:, None]


def series_features(
    latents: Float[Tensor, "sample token dim"], initial: Float[Tensor, "sample target"]
) -> Float[Tensor, "sample 1 feature"]:
    """Features of the readout of scalar series: the latents of all tokens, then the initial values."""
    return torch.cat([latents.flatten(1), initial], dim=-1)[:, None]
