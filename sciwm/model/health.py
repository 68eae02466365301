"""Signs of life of a representation."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["CollapseError", "check_health", "latent_health"]


class CollapseError(RuntimeError):
    """The latents carry no information any more."""


def latent_health(samples: Float[Tensor, "sample dim"]) -> dict[str, float]:
    r"""Centred effective rank, smallest and mean standard deviation, share of one direction.

    .. math:: \mathrm{rank} = \exp\left(-\sum_i p_i \ln p_i\right), \quad
        p_i = \sigma_i / \sum_j \sigma_j

    with the singular values :math:`\sigma_i` of the centred samples. A low rank means collapsed
    latents *or* a system with few degrees of freedom: read it beside a probe's R².

    Parameters
    ----------
    samples : Tensor
        Latent vectors of different states.

    Returns
    -------
    dict
        ``effective_rank`` in [1, dim]. ``smallest_std`` and ``mean_std`` over the dimensions, in
        latent units. ``concentration`` in (0, 1], 1 when one direction holds all variance.

    References
    ----------
    Roy & Vetterli 2007, The effective rank, EUSIPCO.

    Examples
    --------
    >>> latent_health(torch.ones(100, 8))["effective_rank"]
    1.0
    """
    centred = samples.detach().double() - samples.detach().double().mean(0)
    spread = centred.square().mean(0).sqrt()
    values = torch.linalg.eigvalsh(centred.T @ centred / max(len(centred), 1)).clamp_min(0)
    total = float(values.sum())
    if total <= 1e-20:
        return {"effective_rank": 1.0, "smallest_std": 0.0, "mean_std": 0.0, "concentration": 1.0}
    share = values.sqrt() / values.sqrt().sum()
    entropy = -(share * share.clamp_min(1e-30).log()).sum()
    return {
        "effective_rank": float(entropy.exp()),
        "smallest_std": float(spread.min()),
        "mean_std": float(spread.mean()),
        "concentration": float(values[-1] / total),
    }


def check_health(health: dict[str, float], *, step: int) -> None:
    """Stop a training whose latents have collapsed.

    Parameters
    ----------
    health : dict
        From `latent_health`.
    step : int
        Step of the training, for the message.

    Raises
    ------
    CollapseError
        If the mean standard deviation is below 0.01 or the effective rank below 2. The message says
        what was measured and what to change.
    """
    if health["mean_std"] < 0.01 or health["effective_rank"] < 2.0:
        raise CollapseError(
            f"the latents have collapsed at step {step}: effective rank"
            f" {health['effective_rank']:.2f}, mean standard deviation {health['mean_std']:.2g}."
            " Raise objective.strength, lower train.learning_rate, or check that the states vary;"
            " the last healthy weights are in checkpoints/"
        )
