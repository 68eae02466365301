"""Which context tokens the encoder gets to see."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["block_mask", "random_mask"]


def block_mask(
    position: Float[Tensor, "token axis"],
    *,
    batch: int,
    ratio: float,
    num_blocks: int = 2,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch visible"]:
    """Indices of the tokens that stay visible when compact blocks are dropped.

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
        Sorted indices, the same number for every member of the batch.

    Examples
    --------
    >>> block_mask(torch.linspace(0, 1, 10)[:, None], batch=4, ratio=0.4).shape
    torch.Size([4, 6])
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"got ratio {ratio}, expected 0 <= ratio < 1")
    tokens = position.shape[0]
    keep = max(1, tokens - round(ratio * tokens))
    centre = torch.randint(tokens, (batch, num_blocks), generator=generator)
    distance = torch.cdist(position, position)[centre].amin(1)
    return distance.topk(keep, dim=1).indices.sort(1).values


def random_mask(
    tokens: int, *, batch: int, ratio: float, generator: torch.Generator | None = None
) -> Int[Tensor, "batch visible"]:
    """Indices of the tokens that stay visible when single tokens are dropped at random.

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
        Sorted indices, the same number for every member of the batch.

    Examples
    --------
    >>> random_mask(12, batch=4, ratio=0.75).shape
    torch.Size([4, 3])
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"got ratio {ratio}, expected 0 <= ratio < 1")
    keep = max(1, tokens - round(ratio * tokens))
    return torch.rand(batch, tokens, generator=generator).topk(keep, dim=1).indices.sort(1).values
