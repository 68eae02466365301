"""The one object that travels from the loader to the model."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """Windows of consecutive states, checked when built.

    Parameters
    ----------
    values : Tensor, float, ``[batch, time, ...state]``
        Standardized anomalies ``[channel, latitude, longitude]`` of a grid, or positions ``[atom,
        xyz]`` in nm. Missing values are 0 (the climatology, for a grid).
    valid : Tensor, bool, same shape as ``values``
        Where ``values`` were observed.
    time : Tensor, float64, ``[batch, time]``
        Hours since 1970-01-01 in the data's own calendar, or picoseconds.
    index : Tensor, int64, ``[batch, time]``
        Positions on the store's time axis. Consecutive ones differ by ``lead_steps``, within a
        context of several states by its own step.
    lead_steps : Tensor, int64, ``[batch]``
        Stride of each window after its context, in time steps of the store.
    condition : Tensor, float, ``[batch, time, condition]``
        What is known of every time beforehand (phase of the year and of the day, temperature, …);
        may be 0 wide.

    Raises
    ------
    ValueError
        If shapes disagree; the message names the field.
    """

    values: Tensor
    valid: Tensor
    time: Tensor
    index: Tensor
    lead_steps: Tensor
    condition: Tensor

    def __post_init__(self) -> None:
        if self.values.ndim < 3:
            raise ValueError(
                f"got values of shape {tuple(self.values.shape)}, expected [batch, time, ...state]"
            )
        batch, time = self.values.shape[:2]
        expected = {
            "valid": tuple(self.values.shape),
            "time": (batch, time),
            "index": (batch, time),
            "lead_steps": (batch,),
            "condition": (batch, time, self.condition.shape[-1]),
        }
        for name, shape in expected.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ValueError(
                    f"got {name} of shape {got}, expected {shape}, because values has"
                    f" {tuple(self.values.shape)}"
                )
        if self.valid.dtype != torch.bool:
            raise ValueError(f"got valid of type {self.valid.dtype}, expected torch.bool")

    @property
    def complete(self) -> bool:
        """Whether every value was observed."""
        valid = self.valid[(0,) * self.valid.ndim] if _constant(self.valid) else self.valid
        return bool(valid.all())

    @property
    def lead(self) -> Tensor:
        """Time steps since the state before, float, ``[batch, time]``; 0 for the first."""
        return torch.diff(self.index, dim=1, prepend=self.index[:, :1]).float()

    def head(self, times: int) -> "Batch":
        """The first ``times`` states of every window: views."""
        if times >= self.values.shape[1]:
            return self
        per_time = ("values", "valid", "time", "index", "condition")
        return replace(self, **{name: getattr(self, name)[:, :times] for name in per_time})

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        moved = {f.name: _moved(getattr(self, f.name), device, non_blocking) for f in fields(self)}
        return replace(self, **moved)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, for asynchronous copies to a GPU."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        pinned = {n: t if _constant(t) else t.pin_memory() for n, t in tensors.items()}
        return replace(self, **pinned)

    def __len__(self) -> int:
        return int(self.values.shape[0])


def _constant(tensor: Tensor) -> bool:
    """Whether one value stands for all, as in the mask of complete data: it then takes one byte."""
    return tensor.numel() > 1 and not any(tensor.stride())


def _moved(tensor: Tensor, device: torch.device | str, non_blocking: bool) -> Tensor:
    if _constant(tensor):
        return tensor.as_strided((), ()).to(device).expand(tensor.shape)
    return tensor.to(device, non_blocking=non_blocking)
