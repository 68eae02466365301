"""The JEPA's own backbone trained on pixels: what a JEPA has to be compared with."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sciwm.model.jepa import JEPA
from sciwm.model.loss import pixel_error
from sciwm.model.settings import Inputs, Objective, Sizes

__all__ = ["Network", "Twin", "without_dynamics"]

_KINDS = ("supervised", "masked_autoencoder", "autoencoder")


class Twin(nn.Module):
    """Encoder and predictor of a JEPA, and one linear head from the latent of a token to its cells.

    - ``supervised`` forecasts. It encodes the context and rolls the predictor out. Every predicted
      latent has to give the cells of its time.
    - ``autoencoder`` reconstructs the context and, through the same head, the next state. It takes
      one step without a rollout, as "autoencoder and latent dynamics" does.
    - ``masked_autoencoder`` sees some tokens of single states and fills in the others, with the
      predictor's blocks as decoder. It knows nothing of time: `rollout` gives the latents of its
      context as they are.

    Parameters
    ----------
    backbone : JEPA
        Its encoder, predictor and stand-in for hidden tokens are trained; its own loss is not used.
    objective : Objective
        ``supervised``, ``masked_autoencoder`` or ``autoencoder``: what is learnt.

    Raises
    ------
    ValueError
        If the objective is another one.

    References
    ----------
    He et al. 2022, arXiv:2111.06377, for the masked autoencoder.
    """

    noise_dim = 0  # a twin predicts a single future

    def __init__(self, backbone: JEPA, objective: Objective) -> None:
        super().__init__()
        if objective.kind not in _KINDS:
            known = ", ".join(_KINDS)
            raise ValueError(f"got objective {objective.kind!r}, expected one of {known}")
        self.objective, self.backbone = objective, backbone
        self.head = nn.Linear(backbone.sizes.token_dim, backbone.inputs.cells)

    @property
    def inputs(self) -> Inputs:
        """What the tokens look like."""
        return self.backbone.inputs

    @property
    def sizes(self) -> Sizes:
        """Of encoder and predictor."""
        return self.backbone.sizes

    @property
    def history(self) -> int:
        """States in a context."""
        return self.sizes.history

    @property
    def has_dynamics(self) -> bool:
        """Whether there is a predictor through time."""
        return self.objective.kind != "masked_autoencoder"

    @property
    def rollout_dim(self) -> int:
        """Width of the latents that `rollout` gives."""
        return self.head.in_features * (1 if self.has_dynamics else self.history)

    def encode(
        self,
        features: Float[Tensor, "batch time token feature"],
        valid: Bool[Tensor, "batch time token"] | None,
        visible: Int[Tensor, "state visible"] | None = None,
    ) -> Float[Tensor, "batch time token dim"]:
        """Latents of every state on its own, as `JEPA.encode`."""
        return self.backbone.encode(features, valid, visible)

    def rollout(
        self,
        history: Float[Tensor, "batch time token dim"],
        valid: Bool[Tensor, "batch token"] | None,
        *,
        conditions: Float[Tensor, "batch lead condition"],
        lead_steps: Float[Tensor, " batch"],
        local: Float[Tensor, "batch lead token local"] | None = None,
    ) -> Iterator[Float[Tensor, "batch token rollout"]]:
        """Latents one lead after another, as `JEPA.rollout`.

        Without dynamics, every lead has those of the context side by side.
        """
        if self.has_dynamics:
            yield from self.backbone.rollout(
                history, valid, conditions=conditions, lead_steps=lead_steps, local=local
            )
            return
        for _ in range(conditions.shape[1]):
            yield history.transpose(1, 2).flatten(2)

    def loss(
        self,
        features: Float[Tensor, "batch time token feature"],
        valid: Bool[Tensor, "batch time token"] | None,
        *,
        cells: Float[Tensor, "batch time token cell"],
        seen: Bool[Tensor, "batch time token cell"],
        condition: Float[Tensor, "batch time condition"],
        lead_steps: Float[Tensor, " batch"],
        local: Float[Tensor, "batch time token local"] | None = None,
        visible: Int[Tensor, "state visible"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Pixel error of what is predicted, and of what is reconstructed.

        Parameters
        ----------
        features, valid, condition, lead_steps, local
            As `JEPA.loss` takes them.
        cells, seen : Tensor
            Standardized values of every token's cells, and which of them were observed.
        visible : Tensor, optional
            Tokens that the encoder sees, of the states of the context. The masked autoencoder needs
            them, and of all states.

        Returns
        -------
        dict
            ``prediction`` and, for what is reconstructed, ``regularizer``, each at least 0;
            ``loss``, their sum, carries the gradient.

        Raises
        ------
        ValueError
            If a masked autoencoder is given no ``visible`` tokens.
        """
        if self.objective.kind == "masked_autoencoder":
            if visible is None:
                raise ValueError(
                    "got no visible tokens, expected some, because a masked autoencoder learns from"
                    " the hidden ones"
                )
            error = self._fill_in(features, valid, cells, seen, condition, local, visible)
            return {
                "loss": error,
                "prediction": error.detach(),
                "regularizer": torch.zeros_like(error),
            }
        h = self.history
        predicts = slice(h, None if self.objective.kind == "supervised" else h + 1)
        context = self.encode(features[:, :h], None if valid is None else valid[:, :h], visible)
        valid_context = None if valid is None else valid[:, :h].any(1)
        steps = self.rollout(
            context,
            valid_context,
            conditions=condition[:, predicts],
            lead_steps=lead_steps,
            local=None if local is None else local[:, predicts],
        )
        predicted = self.head(torch.stack(list(steps), dim=1))
        error = pixel_error(predicted, cells[:, predicts], seen[:, predicts])
        again = torch.zeros_like(error)
        if self.objective.kind == "autoencoder":
            asked = seen[:, :h]
            if visible is not None:
                asked = asked & _shown(visible, seen.shape[2]).view(*context.shape[:3], 1)
            again = pixel_error(self.head(context), cells[:, :h], asked)
        return {"loss": error + again, "prediction": error.detach(), "regularizer": again.detach()}

    def _fill_in(
        self,
        features: Tensor,
        valid: Tensor | None,
        cells: Tensor,
        seen: Tensor,
        condition: Tensor,
        local: Tensor | None,
        visible: Tensor,
    ) -> Tensor:
        """Error on the hidden tokens, every state of the window on its own, at a lead of 0."""
        latents = self.encode(features, valid, visible).flatten(0, 1)
        filled = self.backbone.predictor(
            latents[:, None],
            None if valid is None else valid.flatten(0, 1),
            position=self.backbone.position,
            condition=condition.flatten(0, 1),
            lead_steps=condition.new_zeros(len(latents)),
            local=None if local is None else local.flatten(0, 1),
        )
        asked = seen.flatten(0, 1) & ~_shown(visible, cells.shape[2])[..., None]
        return pixel_error(self.head(filled), cells.flatten(0, 1), asked)


Network = JEPA | Twin


def without_dynamics(network: Network) -> Twin:
    """The encoder alone: forecasts are read from the latents of the context.

    That is how a masked autoencoder is read; its head is not used here.
    """
    backbone = network.backbone if isinstance(network, Twin) else network
    return Twin(backbone, Objective(kind="masked_autoencoder"))


def _shown(visible: Int[Tensor, "state visible"], tokens: int) -> Bool[Tensor, "state token"]:
    none = torch.zeros(len(visible), tokens, dtype=torch.bool, device=visible.device)
    return none.scatter(1, visible, value=True)
