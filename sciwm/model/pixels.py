"""Objectives on pixels: twins of a JEPA, which a JEPA has to be compared with."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from sciwm.model.dynamics import SlidingHistory
from sciwm.model.encoder import Whitened
from sciwm.model.jepa import JEPA
from sciwm.model.loss import pixel_error
from sciwm.model.settings import Inputs, ObjectiveSettings
from sciwm.tokens.patches import cut
from sciwm.tokens.record import Known, Tokens

__all__ = ["Autoencoding", "MaskedAutoencoding", "PixelForecast"]


class PixelForecast(nn.Module):
    """Every predicted latent has to give the cells of its time, through one linear head.

    Cells count by their area, as in scores.

    Parameters
    ----------
    inputs : Inputs
        With the areas of the cells.
    head : Linear
        From latents of a token to its cells.
    settings : ObjectiveSettings
        With the kind.
    """

    weight: Tensor

    def __init__(self, inputs: Inputs, head: nn.Linear, settings: ObjectiveSettings) -> None:
        super().__init__()
        self.head, self.settings = head, settings
        place = inputs.place
        weight = torch.ones(1, 1)
        if place.cells is not None:
            channels = inputs.num_cells // (place.patch[0] * place.patch[1])
            weight = cut(place.area.expand(channels, -1, -1), place.patch)
        self.register_buffer("weight", weight.sqrt(), persistent=False)

    def loss(
        self, network: JEPA, tokens: Tokens, hidden: Bool[Tensor, "batch time token"] | None
    ) -> dict[str, Tensor]:
        """``prediction``, at least 0."""
        context = _context(network, tokens, hidden)
        h = network.history
        made = _cells(self.head, network.predict(context, tokens.known)) * self.weight
        error = pixel_error(made, tokens.cells[:, h:] * self.weight, tokens.seen_cells()[:, h:])
        return _losses(error, torch.zeros_like(error))

    def moved(self, network: JEPA) -> None:
        """Nothing."""


class Autoencoding(nn.Module):
    """Reconstruct the context and, through the same head, the next state.

    It takes one step without a rollout, as "autoencoder and latent dynamics" does.

    Parameters
    ----------
    head : Linear
        From latents of a token to its cells.
    settings : ObjectiveSettings
        With the kind.
    """

    def __init__(self, head: nn.Linear, settings: ObjectiveSettings) -> None:
        super().__init__()
        self.head, self.settings = head, settings

    def loss(
        self, network: JEPA, tokens: Tokens, hidden: Bool[Tensor, "batch time token"] | None
    ) -> dict[str, Tensor]:
        """``prediction`` and, for what is reconstructed, ``regularizer``, each at least 0."""
        h, seen = network.history, tokens.seen_cells()
        context = _context(network, tokens, hidden)
        made = _cells(self.head, network.predict(context, tokens.known[: h + 1]))
        error = pixel_error(made, tokens.cells[:, h : h + 1], seen[:, h : h + 1])
        asked = seen[:, :h] if hidden is None else seen[:, :h] & ~hidden[..., None]
        again = pixel_error(_cells(self.head, context), tokens.cells[:, :h], asked)
        return _losses(error, again)

    def moved(self, network: JEPA) -> None:
        """Nothing."""


class MaskedAutoencoding(nn.Module):
    """See some tokens of single states and fill in the others.

    It knows nothing of time: the dynamics of its network give the context as it is.

    Parameters
    ----------
    decoder : SlidingHistory
        Of a single state, at a lead of 0.
    head : Linear
        From latents of a token to its cells.
    settings : ObjectiveSettings
        With the kind.

    References
    ----------
    He et al. 2022, arXiv:2111.06377.
    """

    def __init__(
        self, decoder: SlidingHistory, head: nn.Linear, settings: ObjectiveSettings
    ) -> None:
        super().__init__()
        self.decoder, self.fill, self.settings = decoder, head, settings
        self.head: nn.Linear | None = None

    def loss(
        self, network: JEPA, tokens: Tokens, hidden: Bool[Tensor, "batch time token"] | None
    ) -> dict[str, Tensor]:
        """``prediction``, at least 0: the error on hidden tokens of every state on its own.

        Raises
        ------
        ValueError
            If nothing is hidden, or not of all states.
        """
        if hidden is None or hidden.shape[1] < tokens.features.shape[1]:
            raise ValueError(
                "got no hidden tokens of some states, expected some of each, because a masked"
                " autoencoder learns from them"
            )
        latents = network.encode(tokens.hide(hidden).features).flatten(0, 1)[:, None]
        now = tokens.known.flat()
        alone = Known(lead=torch.zeros_like(now.lead), times=now.times, tokens=now.tokens)
        filled, _ = self.decoder.step(self.decoder.start(latents, alone.alone()), alone)
        asked = tokens.seen_cells() & hidden[..., None]
        made = _cells(self.fill, filled).view_as(tokens.cells)
        error = pixel_error(made, tokens.cells, asked)
        return _losses(error, torch.zeros_like(error))

    def moved(self, network: JEPA) -> None:
        """Nothing."""


def linear_head(dim: int, inputs: Inputs) -> nn.Linear:
    """From latents to cells, to be learnt."""
    return nn.Linear(dim, inputs.num_cells)


def identity_head(inputs: Inputs) -> nn.Linear:
    """From cells to cells: nothing is learnt."""
    head = nn.Linear(inputs.num_cells, inputs.num_cells).requires_grad_(False)
    nn.init.eye_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _context(network: JEPA, tokens: Tokens, hidden: Tensor | None) -> Tensor:
    shown = tokens if hidden is None else tokens.hide(hidden)
    context = network.encode(shown.features[:, : network.history])
    noise = network.objective.settings.latent_noise
    learnt = isinstance(network.encoder, Whitened)  # cells are no latents
    if noise and learnt and network.training:
        context = context + noise * torch.randn_like(context)
    return context


def _cells(head: nn.Linear, latents: Tensor) -> Tensor:
    """Cells that a head gives, in full precision: they are compared with small differences."""
    with torch.autocast(latents.device.type, enabled=False):
        cells: Tensor = head(latents.float())
        return cells


def _losses(prediction: Tensor, again: Tensor) -> dict[str, Tensor]:
    return {
        "loss": prediction + again,
        "prediction": prediction.detach(),
        "regularizer": again.detach(),
    }
