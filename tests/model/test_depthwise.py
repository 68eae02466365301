"""Depth-wise convolution: the numbers and gradients of the library's own."""

import pytest
import torch
from torch import nn

from sciwm.model.depthwise import depthwise


def made(seed: int, *, batch: int = 3, width: int = 5, side: int = 5) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(batch, 9, 11, width, dtype=torch.float64).permute(0, 3, 1, 2)
    parts = [
        x,
        torch.randn(width, 1, side, side, dtype=torch.float64),
        torch.randn(width, dtype=torch.float64),
    ]
    return [p.requires_grad_() for p in parts]


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("batch", [1, 3])
def test_same_numbers_and_gradients_as_the_library(side: int, batch: int) -> None:
    parts = made(0, batch=batch, side=side)
    mine, theirs = depthwise(*parts), nn.functional.conv2d(*parts, groups=5)
    assert torch.equal(mine, theirs)
    weights = torch.randn_like(mine)
    got = torch.autograd.grad((mine * weights).sum(), parts)
    wanted = torch.autograd.grad((theirs * weights).sum(), parts)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_no_gradient_for_what_needs_none() -> None:
    x, weight, bias = made(1)
    depthwise(x.detach(), weight, bias).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_autocast_gives_its_type_and_gradients_of_the_parameters() -> None:
    x, weight, bias = (p.detach().float().requires_grad_() for p in made(2))
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise(x, weight, bias)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    whole = nn.functional.conv2d(x, weight, bias, groups=5).square().sum()
    for part, wanted in zip(
        (x, weight, bias), torch.autograd.grad(whole, (x, weight, bias)), strict=True
    ):
        assert part.grad is not None
        assert part.grad.dtype == torch.float32
        assert (part.grad - wanted).norm() < 0.02 * wanted.norm()
