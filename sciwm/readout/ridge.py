"""Ridge regression in closed form, from sums that stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Moments", "Ridge", "choose_strength", "fit_pooled", "fit_ridge"]


@dataclass
class Moments:
    """First and second moments of features and targets, group by group, in float64.

    They are sums: moments of two halves of the data add up to those of the whole. Squared errors of
    any linear readout follow from them without another pass over the data.

    Parameters
    ----------
    count : float
        Samples.
    x, y : Tensor
        Sums of features ``[group, feature]`` and targets ``[group, target]``.
    xx, xy, yy : Tensor
        Sums of products, ``[group, feature, feature]`` and ``[group, feature, target]``, and of the
        squared targets, ``[group, target]``.
    """

    count: float
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def zeros(cls, *, groups: int, features: int, targets: int) -> "Moments":
        """Moments of no samples."""
        shapes = [
            (groups, features),
            (groups, targets),
            (groups, features, features),
            (groups, features, targets),
            (groups, targets),
        ]
        return cls(0.0, *(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(
        self,
        features: Float[Tensor, "sample group feature"],
        targets: Float[Tensor, "sample group target"],
    ) -> None:
        """Take in a batch of samples."""
        x, y = features.double().transpose(0, 1), targets.double().transpose(0, 1)
        self.count += features.shape[0]
        self.x += x.sum(1)
        self.y += y.sum(1)
        self.xx.baddbmm_(x.transpose(1, 2), x)
        self.xy.baddbmm_(x.transpose(1, 2), y)
        self.yy += y.square().sum(1)

    def select(self, features: slice) -> "Moments":
        """Moments of some of the features."""
        return Moments(
            self.count,
            self.x[:, features],
            self.y,
            self.xx[:, features, features],
            self.xy[:, features],
            self.yy,
        )

    def pooled(self) -> "Moments":
        """Of all groups as one, every sample as a departure from the means of its group."""
        x, y, n = self.x, self.y, max(self.count, 1)
        products = (
            self.xx.sum(0) - x.T @ x / n,
            self.xy.sum(0) - x.T @ y / n,
            self.yy.sum(0) - y.square().sum(0) / n,
        )
        return Moments(
            self.count * len(x),
            torch.zeros_like(x[:1]),
            torch.zeros_like(y[:1]),
            *(part[None] for part in products),
        )

    def without(self, weight: Float[Tensor, "1 feature target"]) -> "Moments":
        """The same features, and of the targets what ``features @ weight`` leaves of them."""
        w = weight.double().expand(len(self.x), -1, -1)
        read = self.xx @ w
        y = self.y - torch.einsum("gf,gft->gt", self.x, w)
        yy = self.yy - 2 * (w * self.xy).sum(1) + (w * read).sum(1)
        return Moments(self.count, self.x, y, self.xx, self.xy - read, yy)


@dataclass(frozen=True)
class Ridge:
    """A linear readout per group: ``targets = features @ weight + offset``.

    Parameters
    ----------
    weight : Tensor, ``[group, feature, target]``
        Units of the target by those of the feature.
    offset : Tensor, ``[group, target]``
        In the units of the target.
    strength : float
        Ridge strength it was fitted with. Infinite where groups have nothing of their own but
        offsets (`fit_pooled`).
    """

    weight: Tensor
    offset: Tensor
    strength: float

    def __call__(
        self, features: Float[Tensor, "sample group feature"]
    ) -> Float[Tensor, "sample group target"]:
        """Read targets out of features."""
        x = features.transpose(0, 1).to(self.weight.dtype)
        return torch.baddbmm(self.offset[:, None], x, self.weight).transpose(0, 1)

    def squared_error(self, moments: Moments) -> Float[Tensor, "group target"]:
        """Mean squared error over the samples behind ``moments``, in squared target units."""
        w, b, n = self.weight.double(), self.offset.double(), moments.count
        fitted = torch.einsum("gft,gfk,gkt->gt", w, moments.xx, w)
        cross = (w * moments.xy).sum(1)
        mean = torch.einsum("gft,gf->gt", w, moments.x)
        return (moments.yy - 2 * cross + fitted + 2 * b * (mean - moments.y) + n * b.square()) / n


def fit_ridge(
    moments: Moments, strengths: Sequence[float], *, first: int | None = None
) -> list[Ridge]:
    r"""Readouts of all ``strengths`` from one eigendecomposition.

    .. math:: W = S^{-1} (C + \lambda I)^{-1} S^{-1} \operatorname{cov}(x, y)

    with S the features' standard deviations and C their correlation matrix. A strength means the
    same whatever the units and the number of samples. At 1 the penalty weighs as much as an average
    feature. The intercept is not penalised.

    Parameters
    ----------
    moments : Moments
        Of the training samples.
    strengths : sequence of float
        Non-negative.
    first : int, optional
        Number of features in a first group. The others, a second group, are penalised as if they
        were as many. So a few features, each worth more, are not drowned by the many. Their
        standard deviations in S are divided by the root of the ratio of numbers; C follows.

    Returns
    -------
    list of Ridge
        In the order of ``strengths``, float32.

    Raises
    ------
    ValueError
        If there are fewer than two samples.
    """
    n = moments.count
    if n < 2:
        raise ValueError(
            f"got {n:g} sample(s) to fit a ridge readout, expected at least two: the training block"
            " is too short for this lead"
        )
    mean_x, mean_y = moments.x / n, moments.y / n
    cov = moments.xx / n - mean_x[:, :, None] * mean_x[:, None, :]
    scale = cov.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    # A constant feature has not 0 spread but the rounding of its squares, about 1e-8 of its mean.
    floor = 1e-6 * (mean_x.abs() + scale.amax(1, keepdim=True)).clamp_min(1e-30)
    scale = torch.where(scale > floor, scale, torch.inf)
    if first and first < scale.shape[1]:
        scale[:, first:] /= (first / (scale.shape[1] - first)) ** 0.5
    correlation = cov / scale[:, :, None] / scale[:, None, :]
    cross = (moments.xy / n - mean_x[:, :, None] * mean_y[:, None, :]) / scale[:, :, None]
    values, vectors = torch.linalg.eigh(correlation)
    rotated = vectors.transpose(1, 2) @ cross
    ridges = []
    for strength in strengths:
        damped = rotated / (values.clamp_min(0) + strength + 1e-10)[..., None]
        weight = (vectors @ damped) / scale[:, :, None]
        offset = mean_y - torch.einsum("gft,gf->gt", weight, mean_x)
        ridges.append(Ridge(weight.float(), offset.float(), float(strength)))
    return ridges


def choose_strength(
    ridges: Sequence[Ridge],
    validation: Moments,
    *,
    weight: Float[Tensor, "group target"] | None = None,
) -> Ridge:
    """The readout with the smallest mean squared error on validation samples.

    Parameters
    ----------
    ridges : sequence of Ridge
        To choose from; of equals the first is taken.
    validation : Moments
        Of the validation samples.
    weight : Tensor, optional
        Weights of the errors in their mean.
    """
    errors = []
    for ridge in ridges:
        error = ridge.squared_error(validation)
        mean = error.mean() if weight is None else (error * weight).sum() / weight.sum()
        errors.append(float(mean))
    return ridges[min(range(len(ridges)), key=errors.__getitem__)]


def fit_pooled(
    train: Moments,
    validation: Moments,
    strengths: Sequence[float],
    *,
    weight: Float[Tensor, "group target"] | None = None,
) -> Ridge:
    """A readout per group that is drawn towards one that all groups share.

    What the samples of one group cannot tell, those of the others do. The shared weights are a
    ridge on the samples of all groups, as departures from the means of their group. A ridge per
    group then reads out what they leave of the targets, or none does: ``strength`` is then
    infinite. Both strengths have the smallest error on validation samples. Moments suffice: the
    data are not gone through again.

    Parameters
    ----------
    train, validation : Moments
        Of training and validation samples.
    strengths : sequence of float
        Ridge strengths to choose from.
    weight : Tensor, optional
        Weights of the errors in that choice.
    """
    candidates = []
    for common in fit_ridge(train.pooled(), strengths):
        weights = common.weight.expand(len(train.x), -1, -1)
        offset = train.without(common.weight).y / train.count
        candidates.append(Ridge(weights, offset.float(), torch.inf))
    alike = choose_strength(candidates, validation, weight=weight)
    base = alike.weight[:1]
    own = [
        Ridge(base + rest.weight, rest.offset, rest.strength)
        for rest in fit_ridge(train.without(base), strengths)
    ]
    return choose_strength([*own, alike], validation, weight=weight)
