"""Small networks, and the tokens they take, without any data set."""

import math

import numpy as np
import torch
from torch import Tensor

from sciwm.model.jepa import JEPA
from sciwm.model.objectives import build_network
from sciwm.model.settings import Inputs, ObjectiveSettings, Sizes
from sciwm.model.whitening import Whitening, fit_whitening
from sciwm.tokens.grid import GridTokenizer
from sciwm.tokens.record import Known, Tokens
from tests.worlds import open_gates

SIZES = {"width": 16, "encoder_width": 12, "encoder_blocks": 1, "predictor_blocks": 1}
SIZES |= {"reach": 1, "num_heads": 2, "encoder_mixing": "local"}


def globe(shape=(4, 8), patch=(2, 2), *, channels=1, west=0.0) -> GridTokenizer:
    """All longitudes, from ``west`` on, and latitudes up to the poles."""
    rows, columns = shape
    return GridTokenizer(
        latitude=-90 + (np.arange(rows) + 0.5) * 180 / rows,
        longitude=west + np.arange(columns) * 360 / columns,
        num_channels=channels,
        patch_size=patch,
    )


def plane(shape=(4, 6), patch=(2, 2), *, channels=1, periodic=(True, True)) -> GridTokenizer:
    """A plane that closes on itself where it says so, of a few degrees."""
    rows, columns = shape
    return GridTokenizer(
        latitude=40 + np.arange(rows),
        longitude=10 + np.arange(columns),
        num_channels=channels,
        patch_size=patch,
        periodic=periodic,
    )


def states(tokenizer: GridTokenizer, batch: int, time: int, *, seed: int = 0) -> Tensor:
    """Fields that are smooth in space and in time, of variance 1, ``[batch, time, ...state]``."""
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, time + 4, tokenizer.num_channels, *tokenizer.shape)
    x = torch.randn(shape, generator=rng, dtype=torch.float64)
    x = x + x.roll(1, -1) + x.roll(1, -2) + x.roll((1, 1), (-1, -2))
    x = sum(0.7**k * x[:, 4 - k : 4 - k + time] for k in range(5))
    return (x / x.std()).float()


def window(
    tokenizer: GridTokenizer, batch=8, time=4, *, seed=1, missing=0.0, times=None, tokens=None
) -> Tokens:
    """Windows of `states`, of which a fraction is missing, with random numbers known."""
    values, rng = states(tokenizer, batch, time, seed=seed), torch.Generator().manual_seed(seed)
    valid = None
    if missing:
        valid = torch.rand(values.shape, generator=rng) > missing
        valid &= torch.rand(batch, time, 1, *tokenizer.shape, generator=rng) > missing
        values = values * valid
    lead = torch.ones(batch, time)
    lead[:, 0] = 0
    shapes = {name: (batch, time, width) for name, width in (times or {}).items()}
    known = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    count = tokenizer.num_tokens
    shapes = {name: (batch, time, count, width) for name, width in (tokens or {}).items()}
    local = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    features, cells, some, seen = tokenizer.tokenize(values, valid)
    return Tokens(features, cells, Known(lead, known, local), some, seen)


def whitening_of(tokenizer: GridTokenizer, *, floor: float = 0.0) -> Whitening:
    """Of many `states`."""
    features = tokenizer.tokenize(states(tokenizer, 200, 1, seed=9))[0][:, 0]
    return fit_whitening([features], num_cells=tokenizer.num_cells, floor=floor)


def network(
    tokenizer: GridTokenizer,
    *,
    objective=None,
    seed=0,
    opened=True,
    times=None,
    tokens=None,
    **sizes,
) -> JEPA:
    """An untrained network; ``opened`` draws what it starts with as zeros."""
    torch.manual_seed(seed)
    whitening = whitening_of(tokenizer)
    inputs = Inputs(tokenizer.place, whitening, tokenizer.num_cells, times or {}, tokens or {})
    kind = {"num_directions": 16, "ema_decay": 0.9} | (objective or {})
    made = build_network(inputs, Sizes(**SIZES | sizes), ObjectiveSettings(**kind))
    if opened:
        open_gates(made)
    return made.eval()


def rolled(tokenizer: GridTokenizer, by: tuple[int, int]) -> Tensor:
    """Which token comes where when fields are rolled by so many patches."""
    lattice = tokenizer.place.neighbours
    count = torch.arange(lattice.rows * lattice.columns)
    return count.view(lattice.rows, lattice.columns).roll(by, dims=(0, 1)).flatten()


def cells_of(tokenizer: GridTokenizer) -> int:
    """Cells of a patch, of one channel."""
    return math.prod(tokenizer.patch_size)
