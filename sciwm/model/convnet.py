"""A plain residual convolutional network on pixels: what a user would write instead."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciwm.model.dynamics import OCTAVES, History, octaves
from sciwm.model.settings import Inputs, Sizes
from sciwm.tokens.patches import cut, join
from sciwm.tokens.place import Lattice
from sciwm.tokens.record import Known

__all__ = ["ConvNet"]

_WIDTH, _BLOCKS = 48, 4


class ConvNet(nn.Module):
    """The next field from the last ones: a convolution, four residual blocks of 48, another one.

    It is `sciwm.model.dynamics.Dynamics` whose latents are the cells themselves. It sees position,
    lead, calendar, static fields and the sun as further channels. It gives the change of the last
    state.
    Edges close on themselves where the domain does, and repeat their last cells elsewhere.

    Parameters
    ----------
    inputs : Inputs
        What the tokens look like; their cells must lie on a lattice.
    sizes : Sizes
        History and dropout.

    Raises
    ------
    ValueError
        If the cells have no rows and columns.

    References
    ----------
    He et al. 2016, arXiv:1603.05027, for the blocks.
    """

    change: Tensor
    points: Tensor
    noise_dim = 0

    def __init__(self, inputs: Inputs, sizes: Sizes) -> None:
        super().__init__()
        place = inputs.place
        if place.cells is None:
            raise ValueError(
                "got objective.kind = 'convnet' for states without rows and columns, expected a"
                " grid: choose another method for a molecule"
            )
        self.history, self.out_dim, self.patch = sizes.history, inputs.num_cells, place.patch
        self.shape = (place.cells.rows, place.cells.columns)
        self.names = tuple(inputs.times), tuple(inputs.tokens)
        channels = inputs.num_cells // (place.patch[0] * place.patch[1])
        told = sum(inputs.times.values()) + sum(inputs.tokens.values()) + len(place.points)
        told += 2 * OCTAVES * sizes.history
        self.first = _Conv(place.cells, channels * sizes.history + told, _WIDTH, 5)
        self.blocks = nn.Sequential(
            *[_Residual(place.cells, _WIDTH, sizes.dropout) for _ in range(_BLOCKS)]
        )
        self.last = _Conv(place.cells, _WIDTH, channels, 3)
        self.register_buffer("points", place.points, persistent=False)
        self.register_buffer("change", torch.tensor(inputs.change))

    def start(self, context: Float[Tensor, "batch time token cell"], known: Known) -> History:
        """The context itself."""
        return History(context, known.lead)

    def step(
        self, memory: History, known: Known
    ) -> tuple[Float[Tensor, "batch token cell"], History]:
        """Cells of the next state, and the history with it."""
        times, tokens = self.names
        fields = join(memory.latents, self.patch, self.shape).flatten(1, 2)
        apart = torch.cat([memory.apart[:, 1:], known.lead[:, None]], dim=1)
        told = [octaves(apart).flatten(1), *(known.times[name] for name in times)]
        parts = [fields, self.points.expand(len(fields), -1, -1, -1)]
        parts += [each[:, :, None, None].expand(-1, -1, *self.shape) for each in told]
        for name in tokens:
            each = known.tokens[name]
            cells = self.patch[0] * self.patch[1]
            parts.append(join(each.repeat_interleave(cells, -1), self.patch, self.shape))
        x = torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)
        # In full precision: what changes is a small difference of two states.
        with torch.autocast(x.device.type, enabled=False):
            x = self.first(x)
        made = self.last(self.blocks(x))
        now = memory.latents[:, -1]
        later = now + self.change * cut(made, self.patch)
        after = torch.cat([memory.latents[:, 1:], later[:, None]], dim=1)
        return later, History(after, apart)


class _Conv(nn.Conv2d):
    around: Tensor

    def __init__(self, lattice: Lattice, inside: int, outside: int, side: int) -> None:
        super().__init__(inside, outside, side)
        flat = Lattice(lattice.rows, lattice.columns, lattice.periodic)  # no turn at the poles
        around = flat.around(side // 2)
        self.wide = tuple(around.shape)
        self.register_buffer("around", around.flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, self.around)
        return super().forward(rows.view(len(x), *self.wide, -1).permute(0, 3, 1, 2))


class _Residual(nn.Module):
    def __init__(self, lattice: Lattice, width: int, dropout: float) -> None:
        super().__init__()
        self.one, self.two = (_Conv(lattice, width, width, 3) for _ in range(2))
        self.dropout = nn.Dropout2d(dropout)
        nn.init.zeros_(self.two.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(nn.functional.gelu(x))
        out: Tensor = x + self.two(self.dropout(nn.functional.gelu(y)))
        return out
