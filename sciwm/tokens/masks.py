"""Which tokens the encoder does not get to see."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["block_mask", "random_mask"]


def block_mask(
    position: Float[Tensor, "token axis"],
    *,
    batch: int,
    ratio: float,
    num_blocks: int = 2,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "batch token"]:
    """Tokens that are hidden when compact blocks are dropped.

    Blocks grow around random tokens until ``ratio`` of all tokens is gone. Nearness is measured
    between positions, so the same rule serves a grid, the globe and a molecule. Single dropped
    tokens could be filled in from their neighbours; blocks cannot.

    Parameters
    ----------
    position : Tensor
        Points whose Euclidean distance says which tokens are neighbours.
    batch : int
        Independent masks.
    ratio : float
        Fraction dropped, in [0, 1); at least one token stays.
    num_blocks : int
        Centres per mask.
    generator : torch.Generator, optional
        Source of randomness; the default one otherwise.

    Returns
    -------
    Tensor
        True where hidden; the same number for every member of the batch.

    Examples
    --------
    >>> block_mask(torch.linspace(0, 1, 10)[:, None], batch=4, ratio=0.4).sum(1)
    tensor([4, 4, 4, 4])
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"got ratio {ratio}, expected 0 <= ratio < 1")
    tokens = position.shape[0]
    keep = max(1, tokens - round(ratio * tokens))
    centre = torch.randint(tokens, (batch, num_blocks), generator=generator)
    distance = torch.cdist(position, position)[centre].amin(1)
    return _all_but(distance.topk(keep, dim=1).indices, tokens)


def random_mask(
    tokens: int, *, batch: int, ratio: float, generator: torch.Generator | None = None
) -> Bool[Tensor, "batch token"]:
    """Tokens that are hidden when single tokens are dropped at random.

    Parameters
    ----------
    tokens, batch : int
        Tokens of a state, and independent masks.
    ratio : float
        Fraction dropped, in [0, 1); at least one token stays.
    generator : torch.Generator, optional
        Source of randomness; the default one otherwise.

    Returns
    -------
    Tensor
        True where hidden; the same number for every member of the batch.

    Examples
    --------
    >>> random_mask(12, batch=4, ratio=0.75).sum(1)
    tensor([9, 9, 9, 9])
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"got ratio {ratio}, expected 0 <= ratio < 1")
    keep = max(1, tokens - round(ratio * tokens))
    return _all_but(
        torch.rand(batch, tokens, generator=generator).topk(keep, dim=1).indices, tokens
    )


def _all_but(kept: Tensor, tokens: int) -> Bool[Tensor, "batch token"]:
    return torch.ones(len(kept), tokens, dtype=torch.bool).scatter(1, kept, value=False)
