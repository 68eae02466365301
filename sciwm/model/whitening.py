"""Features of tokens made uncorrelated and of unit variance, in closed form."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Whitening", "fit_whitening"]


@dataclass(frozen=True)
class Whitening:
    r"""Principal components of a token's features, each divided by its spread.

    .. math:: z = (x - m) W, \qquad W = V (\Lambda + f^2)^{-1/2}

    with eigenvectors V and eigenvalues Λ of the covariance, largest first. The floor f keeps
    components of hardly any variance from being blown up.

    Parameters
    ----------
    mean : Tensor, ``[group, feature]``
        Mean of the features.
    matrix : Tensor, ``[group, feature, component]``
        W. One group serves all tokens; otherwise there are as many as tokens.

    References
    ----------
    Kessy, Lewin & Strimmer 2018, doi:10.1080/00031305.2016.1277159.
    """

    mean: Float[Tensor, "group feature"] = field(repr=False)
    matrix: Float[Tensor, "group feature component"] = field(repr=False)

    def components(self, count: int) -> Float[Tensor, "group feature count"]:
        """Columns of W for the first ``count`` components; 0 beyond all there are."""
        kept = self.matrix[..., :count]
        out = kept.new_zeros(*kept.shape[:2], count)
        out[..., : kept.shape[-1]] = kept
        return out

    @classmethod
    def blank(cls, *, groups: int, features: int) -> "Whitening":
        """Zeros, to be filled from a file."""
        return cls(torch.zeros(groups, features), torch.zeros(groups, features, features))


def fit_whitening(
    parts: Iterable[Float[Tensor, "_ token feature"]],
    *,
    num_cells: int,
    floor: float,
    alike: bool = True,
) -> Whitening:
    """Whitening of the cells of tokens; what else there is among the features gets no component.

    Parameters
    ----------
    parts : iterable of Tensor
        Features of training states, some states at a time.
    num_cells : int
        Leading features that are whitened.
    floor : float
        f, in units of the features, at least 0.
    alike : bool
        One matrix for all tokens, or one for each.

    Raises
    ------
    ValueError
        If there are no states.

    Examples
    --------
    >>> x = torch.randn(500, 4, 2) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]])
    >>> whitening = fit_whitening([x], num_cells=2, floor=0.0)
    >>> z = ((x - whitening.mean) @ whitening.matrix).flatten(0, 1)
    >>> bool(torch.allclose(z.T @ z / len(z), torch.eye(2), atol=1e-3))
    True
    """
    count, total, square, width = 0, torch.zeros(()), torch.zeros(()), 0
    for part in parts:
        width = part.shape[-1]
        x = part[..., :num_cells].double()
        x = x.flatten(0, 1)[:, None] if alike else x
        count += len(x)
        total = total + x.sum(0)
        square = square + torch.einsum("sgf,sgh->gfh", x, x)
    if not count:
        raise ValueError("got no training states to whiten, expected some")
    mean = total / count
    covariance = square / count - mean[:, :, None] * mean[:, None, :]
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(-1).clamp_min(0), vectors.flip(-1)
    # A direction that never varies, such as padding, is no component.
    scale = torch.where(values > 1e-10, 1 / (values + floor**2).sqrt(), 0.0)
    groups = len(mean)
    out = Whitening.blank(groups=groups, features=width)
    out.mean[:, :num_cells] = mean.float()
    out.matrix[:, :num_cells, :num_cells] = (vectors * scale[:, None, :]).float()
    return out
