"""A moving average of a network."""

import copy
from typing import TypeVar

import torch
from torch import nn

__all__ = ["moving_average", "update_average"]

Network = TypeVar("Network", bound=nn.Module)


def moving_average(network: Network) -> Network:
    """A frozen copy of ``network``, to be moved towards it by `update_average`."""
    average = copy.deepcopy(network)
    return average.requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, *, decay: float) -> None:
    """Move every parameter of ``average`` towards ``network``'s by ``1 - decay``.

    Parameters
    ----------
    average, network : Module
        The same architecture twice; ``average`` is changed in place.
    decay : float
        In [0, 1]; 0 copies, 1 changes nothing.
    """
    old: list[torch.Tensor] = [p.detach() for p in average.parameters()]
    new: list[torch.Tensor] = [p.detach() for p in network.parameters()]
    torch._foreach_lerp_(old, new, 1 - decay)
