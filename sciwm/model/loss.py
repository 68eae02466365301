"""Distances in latent space, and what keeps latents from collapsing."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciwm.model.ranks import first_rank_of, num_ranks, sum_over_ranks, total_over_ranks

__all__ = ["energy_error", "latent_error", "pixel_error", "sigreg", "vicreg"]

_SAMPLES = 1024  # rows at once, so that the buffers of the recurrence fit the second-level cache


def latent_error(
    predicted: Float[Tensor, "*lead token dim"],
    target: Float[Tensor, "*lead token dim"],
    valid: Bool[Tensor, "*lead token"] | None,
    *,
    smooth: bool = False,
) -> Float[Tensor, ""]:
    """Mean squared difference of latents over valid tokens; 0 is perfect.

    Averaged over ranks, this equals the mean over all valid tokens.

    Parameters
    ----------
    predicted, target : Tensor
        Latents.
    valid : Tensor or None
        Tokens that count; None for all.
    smooth : bool
        Take the smooth absolute difference instead: quadratic below 1, linear above.
    """
    if smooth:
        error = nn.functional.smooth_l1_loss(predicted, target, reduction="none")
    else:
        error = (predicted - target).square()
    return _mean_of_tokens(error.mean(-1), valid)


def energy_error(
    members: Float[Tensor, "2 *lead token dim"],
    target: Float[Tensor, "*lead token dim"],
    valid: Bool[Tensor, "*lead token"] | None,
) -> Float[Tensor, ""]:
    r"""Fair energy score of two members against the target, token by token.

    .. math:: \frac{\lVert x_1 - y\rVert + \lVert x_2 - y\rVert - \lVert x_1 - x_2\rVert}{2\sqrt{d}}

    Its mean is smallest when the members are drawn from the distribution of the target. Two equal
    members score their distance from it. Valid tokens and ranks are averaged over as in
    `latent_error`.

    Parameters
    ----------
    members : Tensor
        Two predictions of the same latents.
    target : Tensor
        Latents.
    valid : Tensor or None
        Tokens that count; None for all.

    Returns
    -------
    Tensor
        At least 0, in latent units.

    References
    ----------
    Gneiting & Raftery 2007, doi:10.1198/016214506000001437; fair with respect to the number of
    members: Ferro 2014, doi:10.1002/qj.2270.
    """
    with torch.autocast(members.device.type, enabled=False):
        members, target = members.float(), target.float()
        one, two = _distance(members[0] - target), _distance(members[1] - target)
        apart = _distance(members[0] - members[1])
        return _mean_of_tokens((one + two - apart) / 2, valid)


def _distance(difference: Tensor) -> Tensor:
    # Members are equal before training, where the root alone has no gradient.
    return (difference.square().mean(-1) + 1e-8).sqrt()


def _mean_of_tokens(error: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return error.mean()
    weight = valid.to(error.dtype)
    total = torch.as_tensor(total_over_ranks(weight.sum())).clamp_min(1)
    return (error * weight).sum() / (total / num_ranks())


def pixel_error(
    predicted: Float[Tensor, "*lead token cell"],
    cells: Float[Tensor, "*lead token cell"],
    seen: Bool[Tensor, "*lead token cell"],
) -> Float[Tensor, ""]:
    """Mean squared error over the cells that were observed; 0 is perfect, and 0 without any.

    Ranks are averaged over as in `latent_error`.

    Parameters
    ----------
    predicted, cells : Tensor
        Standardized values of every token's cells.
    seen : Tensor
        Cells that were observed.
    """
    return _mean_of_tokens(torch.where(seen, predicted - cells, 0.0).square(), seen)


def sigreg(
    samples: Float[Tensor, "sample dim"],
    *,
    num_directions: int = 64,
    knots: int = 17,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    r"""Distance of latents from a standard normal: the Epps-Pulley statistic along directions.

    .. math:: n \int_{-3}^{3} \left|\hat\varphi(t) - e^{-t^2/2}\right|^2 e^{-t^2/2}\, dt

    with the empirical characteristic function :math:`\hat\varphi` of the projected samples,
    averaged over random directions. The factor n makes the value of a Gaussian independent of the
    sample size. The gradient vanishes at a collapse: the statistic prevents one and cannot repair
    one. On several ranks it is the statistic of all their samples, along the same directions.

    Parameters
    ----------
    samples : Tensor
        Latent vectors; computed in float32 whatever their type.
    num_directions, knots : int
        Random unit vectors, and trapezoid nodes on [0, 3] (the integrand is even).
    generator : torch.Generator, optional
        Source of the directions.

    Returns
    -------
    Tensor
        At least 0; about 1 for a Gaussian, 0.402 n after a collapse to the origin.

    References
    ----------
    Balestriero & LeCun 2025, LeJEPA, arXiv:2511.08544.
    """
    with torch.autocast(samples.device.type, enabled=False):
        samples = samples.float()
        shape, device = (samples.shape[1], num_directions), samples.device
        direction = torch.randn(shape, generator=generator, device=device)
        projected = samples @ nn.functional.normalize(first_rank_of(direction), dim=0)
        node = torch.linspace(0, 3, knots, device=device)
        gauss = (-node.square() / 2).exp()
        weight = torch.full_like(node, 6 / (knots - 1))
        weight[0] = weight[-1] = 3 / (knots - 1)
        real, imaginary = _characteristic(projected * node[1], knots)
        count = len(samples)
        if num_ranks() > 1:
            count = int(total_over_ranks(count, device=device))
            part = torch.stack([real, imaginary]) * (len(samples) / max(count, 1))
            real, imaginary = sum_over_ranks(part).unbind()
        distance = (real - gauss[:, None]).square() + imaginary.square()
        statistic = distance.mul((weight * gauss)[:, None]).sum(0)
        out: Tensor = statistic.mean() * count
        return out


def _characteristic(angle: Tensor, knots: int) -> tuple[Tensor, Tensor]:
    real, imaginary = _Characteristic.apply(angle, knots)  # type: ignore[no-untyped-call]
    return real, imaginary


class _Characteristic(torch.autograd.Function):
    """Means of cos(kx) and sin(kx) over samples for k = 0 … knots - 1.

    It takes two calls of sin and cos instead of 34. For the gradient only ``x`` is kept, and the
    recurrence is run again. A few buffers are reused and stay in the cache. Elementwise work on
    fresh memory would cost more than all matrix products of a step.
    """

    @staticmethod
    def forward(ctx: Any, angle: Tensor, knots: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(angle)
        ctx.knots = knots
        real, imaginary = angle.new_zeros(2, knots, angle.shape[1]).unbind()
        real[0] = len(angle)
        for part in torch.split(angle, _SAMPLES):
            for k, (cosine, sine) in enumerate(_multiples(part, knots), start=1):
                real[k] += cosine.sum(0)
                imaginary[k] += sine.sum(0)
        count = max(len(angle), 1)  # a rank without samples takes part in the sums of the others
        return real / count, imaginary / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (angle,) = ctx.saved_tensors
        grad_real, grad_imaginary = (g / max(len(angle), 1) for g in grads)
        gradient = torch.zeros_like(angle)
        parts = (torch.split(whole, _SAMPLES) for whole in (angle, gradient))
        for part, out in zip(*parts, strict=True):
            for k, (cosine, sine) in enumerate(_multiples(part, ctx.knots), start=1):
                out.addcmul_(sine, grad_real[k], value=-k)
                out.addcmul_(cosine, grad_imaginary[k], value=k)
        return gradient, None


def _multiples(angle: Tensor, knots: int) -> Iterator[tuple[Tensor, Tensor]]:
    """cos(kx), sin(kx) for k = 1 … knots - 1, by Chebyshev's recurrence.

    Each pair is overwritten two steps later.
    """
    cosine, sine = angle.cos(), angle.sin()
    twice = 2 * cosine
    before_cosine, before_sine = torch.ones_like(cosine), torch.zeros_like(sine)
    for k in range(1, knots):
        yield cosine, sine
        if k + 1 < knots:
            before_cosine, cosine = cosine, before_cosine.neg_().addcmul_(twice, cosine)
            before_sine, sine = sine, before_sine.neg_().addcmul_(twice, sine)


def vicreg(
    samples: Float[Tensor, "sample dim"], *, variance: float = 40.0, covariance: float = 2.0
) -> Float[Tensor, ""]:
    """Hinge on each dimension's standard deviation, and penalty on covariances; 0 is perfect.

    The hinge asks for a standard deviation of at least 1. The samples are those of all ranks.

    Parameters
    ----------
    samples : Tensor
        Latent vectors; computed in float32 whatever their type.
    variance, covariance : float
        Weights of the two parts.

    References
    ----------
    Bardes, Ponce & LeCun 2022, VICReg, arXiv:2105.04906.
    """
    with torch.autocast(samples.device.type, enabled=False):
        samples, count = samples.float(), int(total_over_ranks(len(samples), device=samples.device))
        centred = samples - sum_over_ranks(samples.sum(0)) / count
        square = sum_over_ranks(centred.T @ centred)
        spread = (square.diagonal() / count + 1e-4).sqrt()
        cov = square / max(count - 1, 1)
        off = cov.square().sum() - cov.diagonal().square().sum()
        return variance * nn.functional.relu(1 - spread).mean() + covariance * off / cov.shape[0]
