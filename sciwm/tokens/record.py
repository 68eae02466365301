"""What every state becomes: tokens, and what is known of their times."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool
from torch import Tensor

__all__ = ["Known", "Tokens"]


@dataclass(frozen=True)
class Known:
    """What is known of some times beforehand, by name.

    Parameters
    ----------
    times : dict of Tensor, ``[batch, time, width]``
        Of each time, such as ``calendar``.
    tokens : dict of Tensor, ``[batch, time, token, width]``
        Of each token at each time, such as ``sun`` and ``static``.
    lead : Tensor, float, ``[batch, time]``
        Time steps since the state before; 0 for the first one.
    noise : Tensor, ``[batch, time, noise]``, optional
        Standard normal numbers that choose one of the possible futures.

    Examples
    --------
    >>> known = Known(lead=torch.tensor([[0.0, 1.0, 4.0]]))
    >>> known.at(2).lead
    tensor([4.])
    """

    lead: Tensor
    times: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    noise: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.lead.shape)
        named = {**self.times, **self.tokens, "noise": self.noise}
        for name, values in named.items():
            if values is not None and tuple(values.shape[: len(shape)]) != shape:
                raise ValueError(
                    f"got {name!r} of shape {tuple(values.shape)}, expected {shape} first, the"
                    " shape of lead"
                )

    def __getitem__(self, times: slice) -> "Known":
        """Some of the times."""
        return self._each(lambda x: x[:, times])

    def flat(self) -> "Known":
        """Every time as a sample of its own, without a dimension of time."""
        return self._each(lambda x: x.flatten(0, 1))

    def alone(self) -> "Known":
        """Samples of one time get a dimension of time again."""
        return self._each(lambda x: x[:, None])

    def with_noise(self, noise: Tensor) -> "Known":
        """The same, and noise."""
        return replace(self, noise=noise)

    def at(self, time: int) -> "Known":
        """One time, whose dimension is dropped."""
        return self._each(lambda x: x[:, time])

    def repeat(self, count: int) -> "Known":
        """The whole batch ``count`` times, one copy after the other."""
        return self._each(lambda x: torch.cat([x] * count))

    def interleave(self, count: int) -> "Known":
        """Every sample ``count`` times in a row."""
        return self._each(lambda x: x.repeat_interleave(count, 0))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Known":
        return Known(
            lead=change(self.lead),
            times={name: change(x) for name, x in self.times.items()},
            tokens={name: change(x) for name, x in self.tokens.items()},
            noise=None if self.noise is None else change(self.noise),
        )


@dataclass(frozen=True)
class Tokens:
    """Windows of states as tokens, checked when built.

    Past this record nothing knows whether they were a grid or a molecule.

    Parameters
    ----------
    features : Tensor, ``[batch, time, token, feature]``
        What an encoder sees; 0 where missing.
    cells : Tensor, ``[batch, time, token, cell]``
        Standardized values of each token's cells, without noise or gaps added in training.
    known : Known
        Of every time of the window.
    valid : Tensor, bool, ``[batch, time, token]``, optional
        Tokens that hold data; None when all do.
    seen : Tensor, bool, ``[batch, time, token, cell]``, optional
        Cells that were observed; None when all were.

    Raises
    ------
    ValueError
        If shapes disagree; the message names the field.
    """

    features: Tensor
    cells: Tensor
    known: Known
    valid: Tensor | None = None
    seen: Tensor | None = None

    def __post_init__(self) -> None:
        batch, time, token = self.features.shape[:3]
        expected = {
            "cells": (batch, time, token, self.cells.shape[-1]),
            "valid": (batch, time, token),
            "seen": tuple(self.cells.shape),
        }
        for name, shape in expected.items():
            values = getattr(self, name)
            if values is not None and tuple(values.shape) != shape:
                raise ValueError(
                    f"got {name} of shape {tuple(values.shape)}, expected {shape}, because features"
                    f" has {tuple(self.features.shape)}"
                )
        if tuple(self.known.lead.shape) != (batch, time):
            raise ValueError(
                f"got known.lead of shape {tuple(self.known.lead.shape)}, expected {(batch, time)}"
            )

    def __len__(self) -> int:
        return int(self.features.shape[0])

    def __getitem__(self, times: slice) -> "Tokens":
        """Some of the times: views."""
        return Tokens(
            features=self.features[:, times],
            cells=self.cells[:, times],
            known=self.known[times],
            valid=None if self.valid is None else self.valid[:, times],
            seen=None if self.seen is None else self.seen[:, times],
        )

    def hide(self, hidden: Bool[Tensor, "batch time token"]) -> "Tokens":
        """Tokens as they are where some are missing: features 0, nothing of them observed.

        What was there stays in ``cells``, ``seen`` and ``valid``, to learn from.

        Parameters
        ----------
        hidden : Tensor
            Tokens that the encoder is not to see; the times given may be the first ones only.
        """
        times = hidden.shape[1]
        shown = self.features[:, :times].masked_fill(hidden[..., None], 0.0)
        return replace(self, features=torch.cat([shown, self.features[:, times:]], dim=1))

    def seen_cells(self) -> Bool[Tensor, "batch time token cell"]:
        """Cells that were observed, as a mask in any case."""
        if self.seen is not None:
            return self.seen
        return torch.ones((), dtype=torch.bool, device=self.cells.device).expand(self.cells.shape)
