"""Where tokens are, and which of them are neighbours."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Distances", "Lattice", "Place"]


@dataclass(frozen=True)
class Lattice:
    """Tokens, or cells, in rows and columns.

    Parameters
    ----------
    rows, columns : int
        Along latitude and longitude.
    periodic : tuple of bool
        Whether rows, and columns, close on themselves.
    poles : tuple of bool
        Whether the lattice continues across a pole beyond the first row, and beyond the last. The
        next row is then the same one, half way round the globe.

    Examples
    --------
    >>> Lattice(2, 4, (False, True)).around(1)
    tensor([[3, 0, 1, 2, 3, 0],
            [3, 0, 1, 2, 3, 0],
            [7, 4, 5, 6, 7, 4],
            [7, 4, 5, 6, 7, 4]])
    """

    rows: int
    columns: int
    periodic: tuple[bool, bool] = (False, False)
    poles: tuple[bool, bool] = (False, False)

    def around(self, reach: int) -> Int[Tensor, "row column"]:
        """Number of the token at every place of the lattice and of ``reach`` places around it.

        Beyond an edge that neither closes nor crosses a pole, the last row or column is repeated.
        """
        row, column = (
            torch.arange(-reach, self.rows + reach),
            torch.arange(self.columns + 2 * reach),
        )
        column = (column - reach) % self.columns if self.periodic[1] else column - reach
        column = column.clamp(0, self.columns - 1)
        if self.periodic[0]:
            return (row % self.rows)[:, None] * self.columns + column
        turned = (column + self.columns // 2) % self.columns
        numbers = []
        for r in row.tolist():
            over = (r < 0 and self.poles[0]) or (r >= self.rows and self.poles[1])
            beyond = -1 - r if r < 0 else 2 * self.rows - 1 - r
            place = beyond if over else r
            place = min(max(place, 0), self.rows - 1)
            numbers.append(place * self.columns + (turned if over else column))
        return torch.stack(numbers)


@dataclass(frozen=True)
class Distances:
    """Tokens without rows and columns, told apart by how far they are from one another.

    Parameters
    ----------
    mean : Tensor, ``[token, token]``
        Mean distance, in any unit.
    """

    mean: Float[Tensor, "token token"] = field(repr=False)


@dataclass(frozen=True)
class Place:
    """Where the tokens of a state are.

    Parameters
    ----------
    position : Tensor, ``[token, axis]``
        Position features.
    neighbours : Lattice, Distances or None
        What lies next to a token.
    cells : Lattice or None
        Of the cells that tokens are patches of.
    patch : tuple of int
        Rows and columns of a patch.
    points : Tensor, ``[3, row, column]``
        Cells on the unit sphere; empty without a lattice of cells.
    area : Tensor, ``[row, column]``
        Area of the cells, of mean 1; empty without a lattice of cells.
    """

    position: Float[Tensor, "token axis"] = field(repr=False)
    neighbours: Lattice | Distances | None = None
    cells: Lattice | None = None
    patch: tuple[int, int] = (1, 1)
    points: Tensor = field(repr=False, default_factory=lambda: torch.zeros(3, 0, 0))
    area: Tensor = field(repr=False, default_factory=lambda: torch.zeros(0, 0))
