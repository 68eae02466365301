"""What lies around a token: across seams, across poles, and at edges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciwm.tokens.grid import GridTokenizer
from sciwm.tokens.place import Lattice
from tests.networks import globe, plane

SIDE = st.integers(1, 6)
EITHER = st.booleans()


def by_hand(lattice, row, column):
    """Number of the token at a place that may lie outside."""
    rows, columns = lattice.rows, lattice.columns
    column = column % columns if lattice.periodic[1] else min(max(column, 0), columns - 1)
    if lattice.periodic[0]:
        return row % rows * columns + column
    if (row < 0 and lattice.poles[0]) or (row >= rows and lattice.poles[1]):
        row = -1 - row if row < 0 else 2 * rows - 1 - row
        column = (column + columns // 2) % columns
    return min(max(row, 0), rows - 1) * columns + column


@settings(max_examples=100)
@given(SIDE, SIDE, st.tuples(EITHER, EITHER), st.tuples(EITHER, EITHER), st.integers(0, 7))
def test_around_is_what_one_finds_by_walking(rows, columns, periodic, poles, reach):
    if periodic[0] or not periodic[1]:
        poles = (False, False)
    lattice = Lattice(rows, columns, periodic, poles)
    around = lattice.around(reach)
    assert around.shape == (rows + 2 * reach, columns + 2 * reach)
    for i, j in np.ndindex(*around.shape):
        assert around[i, j] == by_hand(lattice, i - reach, j - reach)
    inside = slice(reach, reach + rows), slice(reach, reach + columns)
    assert torch.equal(around[inside].flatten(), torch.arange(rows * columns))


def test_both_directions_close_on_themselves():
    whole = torch.arange(12).view(3, 4)
    around = Lattice(3, 4, (True, True)).around(2)
    for down in range(-2, 3):
        for right in range(-2, 3):
            seen = around[2 + down : 5 + down, 2 + right : 6 + right]
            assert torch.equal(seen, whole.roll((-down, -right), (0, 1)))


def test_edges_repeat_the_last_row_and_column():
    around = Lattice(2, 3).around(2)
    assert around.tolist()[0] == around.tolist()[1] == around.tolist()[2] == [0, 0, 0, 1, 2, 2, 2]
    assert around.tolist()[3] == around.tolist()[4] == around.tolist()[5] == [3, 3, 3, 4, 5, 5, 5]


def test_the_row_beyond_a_pole_is_the_same_one_half_way_round():
    """As the crow flies: the way to the token beyond the pole leads through the pole."""
    tokenizer = globe((6, 8), (1, 1))
    lattice, points = tokenizer.place.cells, tokenizer.place.points
    assert lattice.poles == (True, True)
    flat = points.flatten(1)
    around = lattice.around(2)
    for reach in (1, 2):
        for inside, outside, pole in ((1 + reach, 2 - reach, -1), (8 - reach, 7 + reach, 1)):
            here, there = flat[:, around[inside, 2:-2]], flat[:, around[outside, 2:-2]]
            middle = torch.nn.functional.normalize(here + there, dim=0)
            expected = torch.tensor([0.0, 0.0, pole])[:, None].expand(3, 8)
            torch.testing.assert_close(middle, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("latitude", "columns", "patch", "cells", "tokens"),
    [
        (np.arange(-75, 90, 30.0), 8, (2, 2), (True, True), (True, True)),
        (np.arange(75, -90, -30.0), 8, (2, 2), (True, True), (True, True)),
        (np.arange(-75, 80, 30.0)[:5], 8, (1, 1), (True, False), (True, False)),
        (np.arange(-60, 90, 30.0), 8, (1, 1), (False, False), (False, False)),
        # Padding would lie between the last row and the pole.
        (np.arange(-75, 90, 30.0), 8, (4, 2), (True, True), (True, False)),
        # Three tokens round the globe: none lies opposite another.
        (np.arange(-75, 90, 30.0), 6, (2, 2), (True, True), (False, False)),
        (np.arange(-75, 90, 30.0), 7, (2, 1), (False, False), (False, False)),
    ],
)
def test_where_a_grid_goes_on_across_a_pole(latitude, columns, patch, cells, tokens):
    tokenizer = GridTokenizer(
        latitude=latitude,
        longitude=np.arange(columns) * 360 / columns,
        num_channels=1,
        patch_size=patch,
    )
    assert tokenizer.place.cells.poles == cells
    assert tokenizer.place.neighbours.poles == tokens
    assert tokenizer.place.neighbours.periodic == (False, True)


def test_every_place_of_a_plane_that_closes_on_itself_is_like_every_other():
    place = plane().place
    assert (place.position == place.position[0]).all()
    assert (place.points == place.points[:, :1, :1]).all()
    assert torch.equal(place.area, torch.ones(4, 6))
    half = plane(periodic=(False, True)).place
    assert len(half.position.unique(dim=0)) == 6
    assert half.neighbours.periodic == (False, True)
    assert half.neighbours.poles == (False, False)
