"""Latents of the past become latents of the future."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciwm.model.layers import ConditionedBlock
from sciwm.model.settings import Inputs, Sizes

__all__ = ["Predictor"]

_LEAD_FREQUENCIES = 8


class Predictor(nn.Module):
    """Transformer over the tokens of a short history, asked for the state one lead later.

    The lead, the calendar of the target time and other conditions enter through AdaLN-zero. What is
    known of single tokens (static fields, the sun's elevation) is added to them. The output is a
    *change* of the latest latents and is zero before training: the untrained predictor persists.

    With ``noise_dim``, noise enters like a condition, the same for all tokens.

    Parameters
    ----------
    inputs : Inputs
        Widths of position features and of conditions.
    sizes : Sizes
        Without ``noise_dim``, the prediction is a function of the context.

    References
    ----------
    Alet et al. 2025, arXiv:2506.10772, for the noise.
    """

    def __init__(self, inputs: Inputs, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.token_dim
        self.history = sizes.history
        self.embed = nn.Linear(dim, dim)
        self.place = nn.Linear(inputs.position.shape[1], dim)
        self.local = nn.Linear(inputs.local_dim, dim, bias=False) if inputs.local_dim else None
        self.age = nn.Parameter(torch.randn(sizes.history, 1, dim) * 0.02)
        self.condition = nn.Sequential(
            nn.Linear(inputs.condition_dim + 2 * _LEAD_FREQUENCIES, dim),
            nn.SiLU(),
            nn.Linear(dim, dim),
        )
        self.blocks = nn.ModuleList(
            [ConditionedBlock(sizes) for _ in range(sizes.predictor_blocks)]
        )
        self.norm = nn.LayerNorm(dim)
        self.change = nn.Linear(dim, dim)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)
        self.noise = nn.Linear(sizes.noise_dim, dim, bias=False) if sizes.noise_dim else None

    def forward(
        self,
        history: Float[Tensor, "batch time token dim"],
        valid: Bool[Tensor, "batch token"] | None,
        *,
        position: Float[Tensor, "token axis"],
        condition: Float[Tensor, "batch condition"],
        lead_steps: Float[Tensor, " batch"],
        local: Float[Tensor, "batch token local"] | None = None,
        noise: Float[Tensor, "batch noise"] | None = None,
    ) -> Float[Tensor, "batch token dim"]:
        """Latents ``lead_steps`` after the last state of ``history``.

        Parameters
        ----------
        history : Tensor
            Latents of consecutive states, ``lead_steps`` apart, oldest first; at most as many as
            the predictor was made for.
        valid : Tensor or None
            Tokens that hold data; None when all do.
        position : Tensor
            Position features of the tokens.
        condition : Tensor
            Conditions at the target time.
        lead_steps : Tensor
            Lead in time steps, at least 1.
        local : Tensor, optional
            Conditions of each token at the target time.
        noise : Tensor, optional
            Standard normal numbers, one draw for all tokens. They choose one of the possible
            futures; without, it is the one for zeros.
        """
        batch, time, count, dim = history.shape
        tokens = self.embed(history) + self.place(position) + self.age[-time:]
        if self.local is not None and local is not None:
            tokens = tokens + self.local(local)[:, None]
        tokens = tokens.reshape(batch, time * count, dim)
        at_all_times = None if valid is None else valid.repeat(1, time)
        embedded = self.condition(torch.cat([condition, _lead_features(lead_steps)], dim=-1))
        if self.noise is not None and noise is not None:
            embedded = embedded + self.noise(noise)
        for number, block in enumerate(self.blocks, start=1):
            # Only the latest state is asked for, so the last block works on its tokens alone.
            last = count if number == len(self.blocks) else None
            tokens = block(tokens, embedded, at_all_times, last)
        change: Tensor = self.change(self.norm(tokens))
        if valid is not None:
            change = torch.where(valid[..., None], change, 0.0)
        return history[:, -1] + change


def _lead_features(lead_steps: Float[Tensor, " batch"]) -> Float[Tensor, "batch feature"]:
    octaves = torch.arange(-3, _LEAD_FREQUENCIES - 3, device=lead_steps.device)
    angle = lead_steps.float().log1p()[:, None] * 2.0**octaves
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
