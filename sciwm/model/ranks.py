"""Sums over the processes of a training: a batch cut among them has the loss of the whole.

Everything here is the identity without a `torch.distributed` group, or in a group of one.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["first_rank_of", "num_ranks", "sum_over_ranks", "total_over_ranks"]


def num_ranks() -> int:
    """Count the processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(part: Tensor) -> Tensor:
    """Sum what every rank has; each part gets the gradients of all ranks' losses.

    DistributedDataParallel takes the mean of the ranks' gradients. As they are summed here, that
    mean is the gradient of the whole batch's loss. A plain ``all_reduce`` would leave it too small
    by the number of ranks.
    """
    if num_ranks() == 1:
        return part
    total: Tensor = _Sum.apply(part)  # type: ignore[no-untyped-call]
    return total


def total_over_ranks(count: int | Tensor, *, device: torch.device | None = None) -> Tensor | int:
    """Sum of a count, or of a tensor that needs no gradient."""
    if num_ranks() == 1:
        return count
    total = torch.as_tensor(count, device=device).detach().clone()
    dist.all_reduce(total)
    return total if isinstance(count, Tensor) else int(total)


def first_rank_of(values: Tensor) -> Tensor:
    """The values of rank 0 on every rank, for what was drawn at random and must be the same."""
    if num_ranks() > 1:
        dist.broadcast(values, 0)
    return values


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.detach().clone().contiguous()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return (total,)
