"""Latents of the past become latents of the future, one lead after another."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciwm.model.encoder import latent_dim
from sciwm.model.mixing import Block
from sciwm.model.settings import Inputs, Sizes
from sciwm.tokens.record import Known

__all__ = [
    "DYNAMICS",
    "OCTAVES",
    "ContextOnly",
    "Dynamics",
    "History",
    "SlidingHistory",
    "make_dynamics",
    "octaves",
]

_CONDITION = 64  # width of the embedded condition
OCTAVES = 8  # frequencies that a number of time steps is told by


@runtime_checkable
class Dynamics(Protocol):
    """A world that can be rolled forward: a memory, and a step.

    Parameters
    ----------
    history : int
        States of a context.
    out_dim : int
        Width of the latents that `step` gives.
    noise_dim : int
        Random numbers that choose one of the possible futures; 0 has a single one.
    """

    history: int
    out_dim: int
    noise_dim: int

    def start(self, context: Float[Tensor, "batch time token latent"], known: Known) -> Any:
        """Memory of a context, whose times are those of ``known``."""
        ...

    def step(self, memory: Any, known: Known) -> tuple[Float[Tensor, "batch token latent"], Any]:
        """Latents at one later time, and the memory from there."""
        ...


class History(NamedTuple):
    """The last states, and how far apart they are.

    Parameters
    ----------
    latents : Tensor, ``[batch, time, token, latent]``
        Oldest first.
    apart : Tensor, ``[batch, time]``
        Time steps since the state before; that of the oldest does not count.
    """

    latents: Tensor
    apart: Tensor


class SlidingHistory(nn.Module):
    """The last few states give the next one, as a change of the latest.

    The lead, the spacing of the history and what is known of the target time shift and scale every
    block. What is known of single tokens is added to them. The change is 0 before training: the
    untrained dynamics persist.

    Parameters
    ----------
    inputs : Inputs
        What the tokens look like.
    sizes : Sizes
        Width, blocks, mixing, history and noise.

    References
    ----------
    Perez et al. 2018, arXiv:1709.07871, for shifting and scaling. Alet et al. 2025,
    arXiv:2506.10772, for noise that is one draw for all tokens.
    """

    position: Tensor

    def __init__(self, inputs: Inputs, sizes: Sizes) -> None:
        super().__init__()
        dim, width, place = latent_dim(inputs, sizes), sizes.width, inputs.place
        self.history, self.out_dim, self.noise_dim = sizes.history, dim, sizes.noise_dim
        self.names = tuple(inputs.times), tuple(inputs.tokens)
        self.register_buffer("position", place.position, persistent=False)
        self.embed = nn.Linear(sizes.history * dim, width)
        self.place = nn.Linear(place.position.shape[1], width, bias=False)
        local = sum(inputs.tokens.values())
        self.local = nn.Linear(local, width, bias=False) if local else None
        told = sum(inputs.times.values()) + 2 * OCTAVES * sizes.history
        self.condition = nn.Linear(told, _CONDITION)
        self.noise = nn.Linear(sizes.noise_dim, _CONDITION, bias=False) if sizes.noise_dim else None
        self.blocks = nn.ModuleList(
            [
                Block(place, sizes, width, sizes.mixing, _CONDITION)
                for _ in range(sizes.predictor_blocks)
            ]
        )
        self.norm = nn.LayerNorm(width)
        self.change = nn.Linear(width, dim)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def start(self, context: Float[Tensor, "batch time token latent"], known: Known) -> History:
        """The context itself."""
        return History(context, known.lead)

    def step(
        self, memory: History, known: Known
    ) -> tuple[Float[Tensor, "batch token latent"], History]:
        """Latents ``known.lead`` time steps after the last ones, and the history with them."""
        times, tokens = self.names
        apart = torch.cat([memory.apart[:, 1:], known.lead[:, None]], dim=1)
        told = [octaves(apart).flatten(1), *(known.times[name] for name in times)]
        condition = self.condition(torch.cat(told, dim=-1))
        if self.noise is not None and known.noise is not None:
            condition = condition + self.noise(known.noise)
        condition = nn.functional.silu(condition)
        # In full precision: what changes is a small difference of two states.
        with torch.autocast(memory.latents.device.type, enabled=False):
            x = self.embed(memory.latents.transpose(1, 2).flatten(2)) + self.place(self.position)
        if self.local is not None:
            x = x + self.local(torch.cat([known.tokens[name] for name in tokens], dim=-1))
        for block in self.blocks:
            x = block(x, condition)
        latents = memory.latents[:, -1] + self.change(self.norm(x))
        after = torch.cat([memory.latents[:, 1:], latents[:, None]], dim=1)
        return latents, History(after, apart)


class ContextOnly:
    """No dynamics: every lead has the latents of the context side by side.

    Parameters
    ----------
    history : int
        States of a context.
    dim : int
        Latents of a token.
    """

    noise_dim = 0

    def __init__(self, history: int, dim: int) -> None:
        self.history, self.out_dim = history, history * dim

    def start(self, context: Float[Tensor, "batch time token latent"], known: Known) -> Tensor:
        """The context side by side."""
        return context.transpose(1, 2).flatten(2)

    def step(self, memory: Tensor, known: Known) -> tuple[Tensor, Tensor]:
        """The same again."""
        return memory, memory


DYNAMICS: dict[str, Callable[[Inputs, Sizes], Dynamics]] = {"history": SlidingHistory}


def make_dynamics(inputs: Inputs, sizes: Sizes) -> Dynamics:
    """The dynamics that ``sizes`` name."""
    return DYNAMICS[sizes.dynamics](inputs, sizes)


def octaves(steps: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time feature"]:
    """Sines and cosines of log(1 + steps) at doubling frequencies."""
    octave = torch.arange(-3, OCTAVES - 3, device=steps.device)
    angle = steps.float().log1p()[..., None] * 2.0**octave
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
