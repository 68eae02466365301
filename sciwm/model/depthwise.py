"""Depth-wise convolution whose gradients are fast on a CPU."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["depthwise"]


def depthwise(
    x: Float[Tensor, "batch width row column"],
    weight: Float[Tensor, "width 1 side1 side2"],
    bias: Float[Tensor, " width"],
) -> Float[Tensor, "batch width row_inside column_inside"]:
    """Convolve every channel with a kernel of its own, without padding.

    The same numbers as `torch.nn.functional.conv2d` with as many groups as channels. On a CPU the
    gradient of the kernels is a convolution, too. That takes a ninth of the time in bfloat16.

    Parameters
    ----------
    x : Tensor
        Fastest with channels last in memory.
    weight, bias : Tensor
        Kernels and offsets. Under autocast all three are brought to its type.

    Returns
    -------
    Tensor
        Rows and columns are fewer by the side of a kernel less one.

    Examples
    --------
    >>> x, weight = torch.arange(6.0).view(1, 1, 1, 6), torch.ones(1, 1, 1, 3)
    >>> depthwise(x, weight, torch.zeros(1)).flatten().tolist()
    [3.0, 6.0, 9.0, 12.0]
    """
    if x.device.type != "cpu":
        return nn.functional.conv2d(x, weight, bias, groups=len(weight))
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(kind), weight.to(kind), bias.to(kind)
    out: Tensor = _Depthwise.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(x, weight)
        return nn.functional.conv2d(x, weight, bias, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Gradients of what came in, of kernels and offsets."""
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        batch, width, rows, columns = gradient.shape
        above, beside = (n - 1 for n in weight.shape[2:])
        of_x = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3)
            of_x = nn.functional.conv2d(gradient, turned, padding=(above, beside), groups=width)
        # Every channel of every sample is a channel, and its gradient the kernel it is seen by.
        wide = x.permute(2, 3, 0, 1).flatten(2)[None].permute(0, 3, 1, 2)
        kernels = gradient.reshape(batch * width, 1, rows, columns)
        each = nn.functional.conv2d(wide, kernels, groups=batch * width).view(batch, *weight.shape)
        fine = torch.promote_types(weight.dtype, torch.float32)
        of_weight, of_bias = each.sum(0, dtype=fine), gradient.sum((0, 2, 3), dtype=fine)
        return of_x, of_weight.to(weight.dtype), of_bias.to(weight.dtype)
