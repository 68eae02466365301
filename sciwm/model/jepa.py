"""The joint-embedding predictive architecture: an encoder, dynamics, and what they minimise."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciwm.model.dynamics import ContextOnly, Dynamics
from sciwm.model.encoder import Encoder
from sciwm.model.settings import ObjectiveSettings, Sizes
from sciwm.tokens.record import Known, Tokens

__all__ = ["JEPA", "Objective", "without_dynamics"]


@runtime_checkable
class Objective(Protocol):
    """What a network minimises; its own parts, such as a head or a teacher, are its modules.

    Parameters
    ----------
    settings : ObjectiveSettings
        Its kind and numbers.
    """

    settings: ObjectiveSettings

    @property
    def head(self) -> nn.Linear | None:
        """From latents of a token to its cells, if pixels are forecast."""
        ...

    def loss(
        self, network: "JEPA", tokens: Tokens, hidden: Bool[Tensor, "batch time token"] | None
    ) -> dict[str, Tensor]:
        """Parts of the loss, and ``loss``, their sum, which carries the gradient.

        Parameters
        ----------
        network : JEPA
            Whose objective this is.
        tokens : Tokens
            Windows, the first ``network.history`` states of which are the context.
        hidden : Tensor, optional
            Tokens of the first states that the encoder is not to see.
        """
        ...

    def moved(self, network: "JEPA") -> None:
        """Take note of a step of the optimiser."""
        ...


class JEPA(nn.Module):
    """Encode the present, predict the representation of the future, and compare there.

    It only puts parts together. A twin is another objective on the same ones.

    Parameters
    ----------
    encoder : Encoder
        From tokens of a state to latents.
    dynamics : Dynamics
        From latents of a context to those of later times.
    objective : Objective
        What both minimise.
    sizes : Sizes
        What they were built with.

    References
    ----------
    Assran et al. 2023, I-JEPA, arXiv:2301.08243.
    """

    encoder: Encoder
    dynamics: Dynamics
    objective: Objective

    def __init__(
        self, encoder: Encoder, dynamics: Dynamics, objective: Objective, sizes: Sizes
    ) -> None:
        super().__init__()
        self.encoder, self.dynamics, self.objective = encoder, dynamics, objective
        self.sizes = sizes

    @property
    def history(self) -> int:
        """States in a context."""
        return self.dynamics.history

    @property
    def noise_dim(self) -> int:
        """Random numbers of which one future is made; 0 predicts a single one."""
        return self.dynamics.noise_dim

    @property
    def rollout_dim(self) -> int:
        """Width of the latents that `rollout` gives."""
        return self.dynamics.out_dim

    def encode(
        self, features: Float[Tensor, "batch time token feature"]
    ) -> Float[Tensor, "batch time token latent"]:
        """Latents of every state on its own."""
        batch, time = features.shape[:2]
        latents = self.encoder(features.flatten(0, 1))
        return latents.view(batch, time, *latents.shape[1:])

    def rollout(
        self, context: Float[Tensor, "batch time token latent"], known: Known
    ) -> Iterator[Float[Tensor, "batch token rollout"]]:
        """Latents one lead after another, each predicted from the ones before.

        Training, forecasts and planning use the same rollout; gradients are the caller's choice.

        Parameters
        ----------
        context : Tensor
            Latents of the context, oldest first.
        known : Known
            Of the times of the context, and of every later one that is asked for.
        """
        h = context.shape[1]
        memory = self.dynamics.start(context, known[:h])
        for time in range(h, known.lead.shape[1]):
            latents, memory = self.dynamics.step(memory, known.at(time))
            yield latents

    def loss(
        self, tokens: Tokens, hidden: Bool[Tensor, "batch time token"] | None = None
    ) -> dict[str, Tensor]:
        """Loss of its objective, see `Objective.loss`."""
        return self.objective.loss(self, tokens, hidden)

    def predict(
        self, context: Float[Tensor, "batch time token latent"], known: Known
    ) -> Float[Tensor, "batch lead token rollout"]:
        """All leads of a `rollout` together."""
        return torch.stack(list(self.rollout(context, known)), dim=1)


def without_dynamics(network: JEPA) -> JEPA:
    """The encoder alone: forecasts are read from the latents of the context."""
    still = ContextOnly(network.sizes.history, network.encoder.latent_dim)
    return JEPA(network.encoder, still, network.objective, network.sizes)
