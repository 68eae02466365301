"""What a readout sees: predicted latents, and the states up to the initial one beside them."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sciwm.tokens.tokenizer import Tokenizer

__all__ = ["field_features", "recent_cells", "recent_series", "series_features"]


def recent_cells(
    tokenizer: Tokenizer,
    states: Float[Tensor, "init history *state"],
    halo: int,
) -> Float[Tensor, "init token recent"]:
    """What a readout sees of the states up to the initial one, the newest first.

    Parameters
    ----------
    tokenizer : Tokenizer
        Cuts states into tokens.
    states : Tensor
        Standardized states, newest first.
    halo : int
        Cells around each patch that are taken, too.
    """
    return tokenizer.surroundings(states, halo).transpose(1, 2).flatten(2)


def recent_series(
    values: Float[Tensor, "init history target"], condition: Float[Tensor, "init condition"]
) -> Float[Tensor, "init recent"]:
    """What a readout sees of scalar series: their values up to the initial time, and its season.

    The newest values stand there once more, times every condition of the calendar. So persistence
    may be damped more in one season than in another, as an index of El Niño needs it.

    Parameters
    ----------
    values : Tensor
        Anomalies, newest first.
    condition : Tensor
        Conditions of the calendar at the initial time.
    """
    seasonal = values[:, 0, :, None] * condition[:, None]
    return torch.cat([values.flatten(1), seasonal.flatten(1)], dim=1)


def field_features(
    latents: Float[Tensor, "sample token dim"],
    initial: Float[Tensor, "sample token recent"],
    *,
    scope: Literal["token", "shared"],
) -> Float[Tensor, "row group feature"]:
    """Features of the readout of fields, patch by patch.

    The latents come first, so that a latent-only readout is the same fit with fewer features. With
    the initial anomalies, persistence and damped persistence are special cases of the readout. With
    those before, so is the trend.

    Parameters
    ----------
    latents : Tensor
        Predicted latents of one lead.
    initial : Tensor
        Anomalies of the patch (and its surroundings) up to the initial time, from `recent_cells`.
    scope : {"token", "shared"}
        One group per token, or all tokens as samples of one group.
    """
    features = torch.cat([latents, initial], dim=-1)
    return features if scope == "token" else features.flatten(0, 1)[:, None]


def series_features(
    latents: Float[Tensor, "sample token dim"], initial: Float[Tensor, "sample recent"]
) -> Float[Tensor, "sample 1 feature"]:
    """Features of the readout of scalar series.

    Parameters
    ----------
    latents : Tensor
        Predicted latents of one lead; those of all tokens come first.
    initial : Tensor
        From `recent_series`.
    """
    return torch.cat([latents.flatten(1), initial], dim=-1)[:, None]
