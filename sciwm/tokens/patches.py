"""Fields cut into patches, and patches put together again."""

import math

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["cut", "join"]


def cut(
    values: Float[Tensor, "*lead channel row column"], size: tuple[int, int]
) -> Float[Tensor, "*lead token cell"]:
    """Values of each patch, ordered channel, row, column; grids that do not divide are padded by 0.

    Parameters
    ----------
    values : Tensor
        Fields.
    size : tuple of int
        Rows and columns of a patch.
    """
    *lead, channels, height, width = values.shape
    (h, w), n = size, len(lead)
    rows, columns = math.ceil(height / h), math.ceil(width / w)
    padding = (0, columns * w - width, 0, rows * h - height)
    if any(padding):
        values = nn.functional.pad(values, padding)
    split = values.reshape(*lead, channels, rows, h, columns, w)
    order = (*range(n), *(n + i for i in (1, 3, 0, 2, 4)))
    return split.permute(order).reshape(*lead, rows * columns, channels * h * w)


def join(
    patches: Float[Tensor, "*lead token cell"], size: tuple[int, int], shape: tuple[int, int]
) -> Float[Tensor, "*lead channel row column"]:
    """Inverse of `cut`.

    Parameters
    ----------
    patches : Tensor
        From `cut`.
    size : tuple of int
        Rows and columns of a patch.
    shape : tuple of int
        Rows and columns of the fields.
    """
    *lead, _, cells = patches.shape
    (h, w), n = size, len(lead)
    rows, columns = math.ceil(shape[0] / h), math.ceil(shape[1] / w)
    split = patches.reshape(*lead, rows, columns, cells // (h * w), h, w)
    order = (*range(n), *(n + i for i in (2, 0, 3, 1, 4)))
    whole = split.permute(order).reshape(*lead, -1, rows * h, columns * w)
    return whole[..., : shape[0], : shape[1]]
