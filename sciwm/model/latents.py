"""Objectives in latent space: predicted against encoded, and what keeps both from collapsing."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciwm.model.encoder import Encoder
from sciwm.model.jepa import JEPA
from sciwm.model.loss import energy_error, latent_error, pixel_error, sigreg, vicreg
from sciwm.model.ranks import total_over_ranks
from sciwm.model.settings import Inputs, ObjectiveSettings
from sciwm.model.teacher import moving_average, update_average
from sciwm.tokens.record import Tokens

__all__ = ["LatentPrediction"]


class LatentPrediction(nn.Module):
    """Squared error of predicted latents, and a penalty on their distribution.

    ``sigreg`` and ``vicreg`` are penalties; the encoder provides the targets and learns from both
    sides. With ``ema`` a moving average of the encoder provides them, without a penalty. With
    ``whitened`` the encoder is frozen, and there is nothing to keep from collapsing.

    Parameters
    ----------
    inputs : Inputs
        With the number of cells, for an anchor.
    encoder : Encoder
        Of which a teacher is the average.
    settings : ObjectiveSettings
        Kind and numbers.

    References
    ----------
    For the penalties see `sciwm.model.loss`; Assran et al. 2023, arXiv:2301.08243, for the teacher.
    """

    def __init__(self, inputs: Inputs, encoder: Encoder, settings: ObjectiveSettings) -> None:
        super().__init__()
        self.settings = settings
        self.teacher: nn.Module | None = None
        if settings.kind == "ema":
            assert isinstance(encoder, nn.Module)
            self.teacher = moving_average(encoder)
        dim = encoder.latent_dim
        self.anchor = nn.Linear(dim, inputs.num_cells) if settings.anchor else None
        self.head: nn.Linear | None = None

    def train(self, mode: bool = True) -> "LatentPrediction":
        """Set the mode; a teacher never drops anything."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def loss(
        self, network: JEPA, tokens: Tokens, hidden: Bool[Tensor, "batch time token"] | None
    ) -> dict[str, Tensor]:
        """``prediction``, ``regularizer`` and, with an anchor, ``anchor``, each at least 0."""
        h = network.history
        if hidden is None and self.teacher is None:
            latents = network.encode(tokens.features)
            context, target = latents[:, :h], latents[:, h:]
        else:
            shown = tokens if hidden is None else tokens.hide(hidden)
            context = network.encode(shown.features[:, :h])
            target = self._target(network, tokens.features[:, h:])
            latents = target if hidden is not None else torch.cat([context, target], dim=1)
        valid = None if tokens.valid is None else tokens.valid[:, h:]
        noise = self.settings.latent_noise
        if noise and network.training:
            context = context + noise * torch.randn_like(context)
        middle, members = _futures(network, context, tokens)
        error = latent_error(middle, target, valid, smooth=self.teacher is not None)
        if members is not None:
            error = error + energy_error(members, target, valid)
        kept = None if tokens.valid is None else tokens.valid[:, -latents.shape[1] :]
        penalty = self._penalty(latents, kept)
        losses = {
            "loss": error + penalty,
            "prediction": error.detach(),
            "regularizer": penalty.detach(),
        }
        if self.anchor is None:
            return losses
        cells, seen = tokens.cells[:, h:], tokens.seen_cells()[:, h:]
        pixels = self.settings.anchor * pixel_error(self.anchor(middle), cells, seen)
        return losses | {"loss": losses["loss"] + pixels, "anchor": pixels.detach()}

    def moved(self, network: JEPA) -> None:
        """Move the teacher towards the encoder."""
        if self.teacher is not None:
            assert isinstance(network.encoder, nn.Module)
            update_average(self.teacher, network.encoder, decay=self.settings.ema_decay)

    def _target(self, network: JEPA, features: Tensor) -> Tensor:
        if self.teacher is None:
            return network.encode(features)
        with torch.no_grad():
            latents: Tensor = self.teacher(features.flatten(0, 1))
            return latents.view(*features.shape[:2], *latents.shape[1:])

    def _penalty(
        self,
        latents: Float[Tensor, "batch time token latent"],
        valid: Bool[Tensor, "batch time token"] | None,
    ) -> Tensor:
        settings, values = self.settings, []
        if settings.kind in ("ema", "whitened"):
            return latents.new_zeros(())
        for t in range(latents.shape[1]):
            samples = latents[:, t].flatten(0, 1) if valid is None else latents[:, t][valid[:, t]]
            if settings.rows and len(samples) > settings.rows:
                # Some rows tell as much as all, and cost a tenth.
                drawn = torch.randint(len(samples), (settings.rows,), device=samples.device)
                samples = samples[drawn]
            count = int(total_over_ranks(len(samples), device=samples.device))
            if not count:  # nothing was observed at this time in the whole batch
                continue
            if settings.kind == "vicreg":
                values.append(vicreg(samples))
            else:
                # The strength is a weight times a sample count: dividing by the count takes the
                # statistic's own factor away.
                statistic = sigreg(samples, num_directions=settings.num_directions)
                values.append(statistic * (settings.strength / count))
        return torch.stack(values).mean() if values else latents.new_zeros(())


def _futures(network: JEPA, context: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
    """The future without noise, and two with, ``[2, batch, lead, token, latent]``, if any."""
    if not network.noise_dim:
        return network.predict(context, tokens.known), None
    # Three futures of every context, as one batch.
    known = tokens.known.repeat(3)
    noise = torch.randn(*known.lead.shape, network.noise_dim, device=context.device)
    noise[: len(context)] = 0
    made = network.predict(torch.cat([context] * 3), known.with_noise(noise))
    middle, members = made[: len(context)], made[len(context) :]
    return middle, members.view(2, *middle.shape)
