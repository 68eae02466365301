"""The joint-embedding predictive architecture: encode, predict in latent space, compare there."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sciwm.model.encoder import Encoder
from sciwm.model.loss import energy_error, latent_error, pixel_error, sigreg, vicreg
from sciwm.model.predictor import Predictor
from sciwm.model.ranks import total_over_ranks
from sciwm.model.settings import Inputs, Objective, Sizes
from sciwm.model.teacher import moving_average, update_average

__all__ = ["JEPA"]


class JEPA(nn.Module):
    """Encoder, predictor and, for the ``ema`` objective, a teacher.

    Parameters
    ----------
    inputs : Inputs
        What the tokens look like.
    sizes : Sizes
        Of encoder and predictor.
    objective : Objective
        ``sigreg``, ``ema`` or ``vicreg``, with its numbers. ``anchor`` adds a head of pixels.

    Raises
    ------
    ValueError
        If the objective is another one.

    References
    ----------
    Assran et al. 2023, I-JEPA, arXiv:2301.08243, for ``ema``. For the other objectives see
    `sciwm.model.loss`.
    """

    position: Tensor

    def __init__(self, inputs: Inputs, sizes: Sizes, objective: Objective) -> None:
        super().__init__()
        if objective.kind not in ("sigreg", "ema", "vicreg"):
            raise ValueError(
                f"got objective {objective.kind!r}, expected 'sigreg', 'ema' or 'vicreg'"
            )
        self.inputs, self.sizes, self.objective = inputs, sizes, objective
        self.register_buffer("position", inputs.position, persistent=False)
        self.encoder = Encoder(inputs, sizes)
        self.predictor = Predictor(inputs, sizes)
        self.hidden = nn.Parameter(torch.randn(sizes.token_dim) * 0.02)
        self.teacher = moving_average(self.encoder) if objective.kind == "ema" else None
        self.head = nn.Linear(sizes.token_dim, inputs.cells) if objective.anchor else None

    @property
    def history(self) -> int:
        """States in a context."""
        return self.sizes.history

    @property
    def noise_dim(self) -> int:
        """Random numbers of which one future is made; 0 predicts a single one."""
        return self.sizes.noise_dim

    @property
    def rollout_dim(self) -> int:
        """Width of the latents that `rollout` gives."""
        return self.sizes.token_dim

    def train(self, mode: bool = True) -> "JEPA":
        """Set the mode of encoder and predictor; the teacher never drops anything."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def encode(
        self,
        features: Float[Tensor, "batch time token feature"],
        valid: Bool[Tensor, "batch time token"] | None,
        visible: Int[Tensor, "state visible"] | None = None,
    ) -> Float[Tensor, "batch time token dim"]:
        """Latents of every state on its own.

        Parameters
        ----------
        features : Tensor
            Standardized values of each token.
        valid : Tensor or None
            Tokens that hold data; None when all do.
        visible : Tensor, optional
            Tokens that the encoder sees, state by state; the others get the learnt stand-in.
        """
        batch, time, count = features.shape[:3]
        flat = None if valid is None else valid.flatten(0, 1)
        latents: Tensor = self.encoder(features.flatten(0, 1), flat, self.position, visible)
        if visible is not None:
            whole = self.hidden.expand(batch * time, count, -1)
            places = visible[..., None].expand(-1, -1, latents.shape[-1])
            latents = whole.scatter(1, places, latents)
        return latents.view(batch, time, count, -1)

    def rollout(
        self,
        history: Float[Tensor, "batch time token dim"],
        valid: Bool[Tensor, "batch token"] | None,
        *,
        conditions: Float[Tensor, "batch lead condition"],
        lead_steps: Float[Tensor, " batch"],
        local: Float[Tensor, "batch lead token local"] | None = None,
        noise: Float[Tensor, "batch lead noise"] | None = None,
    ) -> Iterator[Float[Tensor, "batch token dim"]]:
        """Latents one lead after another, each predicted from the ones before.

        Training and forecasts use the same rollout.

        Parameters
        ----------
        history : Tensor
            Latents of the context, oldest first.
        valid : Tensor or None
            Tokens that hold data; None when all do.
        conditions, local : Tensor
            Conditions at each target time, and of every token at each of them.
        lead_steps : Tensor
            Stride of each sample, in time steps.
        noise : Tensor, optional
            Standard normal numbers that choose one of the possible futures.
        """
        for k in range(conditions.shape[1]):
            latent = self.predictor(
                history,
                valid,
                position=self.position,
                condition=conditions[:, k],
                lead_steps=lead_steps,
                local=None if local is None else local[:, k],
                noise=None if noise is None else noise[:, k],
            )
            yield latent
            if self.training and self.objective.latent_noise:
                latent = latent + self.objective.latent_noise * torch.randn_like(latent)
            history = torch.cat([history[:, 1:], latent[:, None]], dim=1)

    def loss(
        self,
        features: Float[Tensor, "batch time token feature"],
        valid: Bool[Tensor, "batch time token"] | None,
        *,
        condition: Float[Tensor, "batch time condition"],
        lead_steps: Float[Tensor, " batch"],
        local: Float[Tensor, "batch time token local"] | None = None,
        visible: Int[Tensor, "state visible"] | None = None,
        cells: Float[Tensor, "batch time token cell"] | None = None,
        seen: Bool[Tensor, "batch time token cell"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Prediction error in latent space, and the regulariser.

        Parameters
        ----------
        features : Tensor
            States of a window, the first ``history`` of which are the context.
        valid : Tensor or None
            Tokens that hold data; None when all do, which is faster.
        condition, local : Tensor
            Conditions of every time, and of every token at every time.
        lead_steps : Tensor
            Stride of each window, in time steps.
        visible : Tensor, optional
            Tokens of the context states that the encoder sees, ``[batch * history, visible]``.
        cells, seen : Tensor, optional
            Standardized values of every token's cells, and which of them were observed; for the
            anchor.

        Returns
        -------
        dict
            ``prediction``, ``regularizer`` and, with an anchor, ``anchor``, each at least 0;
            ``loss``, their sum, carries the gradient.
        """
        h = self.history
        if visible is None and self.teacher is None:
            latents = self.encode(features, valid)
            context, target = latents[:, :h], latents[:, h:]
        else:
            context = self.encode(features[:, :h], None if valid is None else valid[:, :h], visible)
            target = self._target(features[:, h:], None if valid is None else valid[:, h:])
            latents = target if visible is not None else torch.cat([context, target], dim=1)
        valid_context, valid_target = None, None
        if valid is not None:
            valid_context, valid_target = valid[:, :h].any(1), valid[:, h:]
        conditions, local = condition[:, h:], None if local is None else local[:, h:]
        noise = None
        if self.noise_dim:
            # Three futures of every context, as one batch: the one without noise, and two.
            context, conditions, lead_steps = (
                torch.cat([x, x, x]) for x in (context, conditions, lead_steps)
            )
            valid_context, local = (
                None if x is None else torch.cat([x, x, x]) for x in (valid_context, local)
            )
            noise = torch.randn(*conditions.shape[:2], self.noise_dim, device=context.device)
            noise[: len(features)] = 0
        steps = self.rollout(
            context,
            valid_context,
            conditions=conditions,
            lead_steps=lead_steps,
            local=local,
            noise=noise,
        )
        predicted = torch.stack(list(steps), dim=1)
        middle, members = predicted[: len(features)], predicted[len(features) :]
        error = latent_error(middle, target, valid_target, smooth=self.teacher is not None)
        if noise is not None:
            error = error + energy_error(members.view(2, *middle.shape), target, valid_target)
        penalty = self._penalty(latents, None if valid is None else valid[:, -latents.shape[1] :])
        losses = {
            "loss": error + penalty,
            "prediction": error.detach(),
            "regularizer": penalty.detach(),
        }
        if self.head is None or cells is None or seen is None:
            return losses
        pixels = self.objective.anchor * pixel_error(self.head(middle), cells[:, h:], seen[:, h:])
        return losses | {"loss": losses["loss"] + pixels, "anchor": pixels.detach()}

    def _target(self, features: Tensor, valid: Tensor | None) -> Tensor:
        if self.teacher is None:
            return self.encode(features, valid)
        with torch.no_grad():
            flat = None if valid is None else valid.flatten(0, 1)
            latents: Tensor = self.teacher(features.flatten(0, 1), flat, self.position)
            normalised = nn.functional.layer_norm(latents, latents.shape[-1:])
            return normalised.view(*features.shape[:3], -1)

    def _penalty(self, latents: Tensor, valid: Tensor | None) -> Tensor:
        if self.teacher is not None:
            return latents.new_zeros(())
        values = []
        for t in range(latents.shape[1]):
            samples = latents[:, t].flatten(0, 1) if valid is None else latents[:, t][valid[:, t]]
            count = int(total_over_ranks(len(samples), device=samples.device))
            if not count:  # nothing was observed at this time in the whole batch
                continue
            if self.objective.kind == "vicreg":
                values.append(vicreg(samples))
            else:
                # The strength is a weight times a sample count: dividing by the count takes the
                # statistic's own factor away.
                statistic = sigreg(samples, num_directions=self.objective.num_directions)
                values.append(statistic * (self.objective.strength / count))
        return torch.stack(values).mean() if values else latents.new_zeros(())

    def update_teacher(self) -> None:
        """Move the teacher towards the encoder; call after every optimiser step."""
        if self.teacher is not None:
            update_average(self.teacher, self.encoder, decay=self.objective.ema_decay)
