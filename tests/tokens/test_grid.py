"""Patches: nothing is lost, nothing moves, nothing leaks across the edge."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciwm.tokens.grid import GridTokenizer

SIZES = st.integers(1, 11)


def tokenizer_of(shape, patch, channels=2, *, globe=False):
    height, width = shape
    longitude = np.arange(width) * 360 / width if globe else -20 + 2.0 * np.arange(width)
    latitude = np.linspace(-80, 80, height) if globe else 30 + 2.0 * np.arange(height)
    return GridTokenizer(
        latitude=latitude, longitude=longitude, num_channels=channels, patch_size=patch
    )


def rows_and_columns(tokenizer):
    lattice = tokenizer.place.neighbours
    return lattice.rows, lattice.columns


@settings(max_examples=60)
@given(
    st.tuples(SIZES, SIZES),
    st.tuples(SIZES, SIZES),
    st.integers(1, 3),
    st.lists(st.integers(1, 3), max_size=2),
    st.booleans(),
)
def test_fields_invert_patches(shape, patch, channels, lead, globe):
    patch = (min(patch[0], shape[0]), min(patch[1], shape[1]))
    if globe and shape[1] >= 3:
        patch = (patch[0], math.gcd(patch[1], shape[1]))
    tokenizer = tokenizer_of(shape, patch, channels, globe=globe)
    values = torch.randn(*lead, channels, *shape)
    patches = tokenizer.outputs(values)
    assert patches.shape == (*lead, tokenizer.num_tokens, tokenizer.num_outputs)
    assert torch.equal(tokenizer.fields(patches), values)
    # Padding adds nothing.
    torch.testing.assert_close(patches.square().sum(), values.square().sum())
    features, cells, valid, seen = tokenizer.tokenize(values)
    assert features.shape[-1] == tokenizer.num_features
    assert torch.equal(cells, patches)
    assert valid is None
    assert (seen is None) == (shape[0] % patch[0] == 0 and shape[1] % patch[1] == 0)
    # A mask without gaps is as good as none.
    masked = tokenizer.tokenize(values, torch.ones_like(values, dtype=torch.bool))
    assert torch.equal(masked[0], features)
    assert masked[2] is None
    assert torch.equal(masked[3], torch.ones_like(masked[3]) if seen is None else seen)


def test_cells_are_ordered_channel_latitude_longitude():
    tokenizer = tokenizer_of((4, 6), (2, 3))
    values = torch.arange(48.0).reshape(2, 4, 6)
    patches = tokenizer.outputs(values)
    # Second token: first two rows, last three columns.
    assert torch.equal(patches[1], values[:, :2, 3:].flatten())
    assert torch.equal(patches[2], values[:, 2:, :3].flatten())


@settings(max_examples=20)
@given(st.integers(-5, 5), st.sampled_from([1, 2, 3, 4]))
def test_rolling_longitude_by_whole_patches_permutes_tokens(by, width):
    longitude = np.arange(12) * 30.0
    sizes = {"latitude": np.linspace(-75, 75, 6), "num_channels": 2, "patch_size": (2, width)}
    tokenizer = GridTokenizer(longitude=longitude, **sizes)
    rolled = GridTokenizer(longitude=longitude - 30.0 * by * width, **sizes)
    values = torch.randn(3, 2, 6, 12)
    valid = torch.rand(3, 2, 6, 12) > 0.3
    permutation = torch.arange(tokenizer.num_tokens).view(3, -1).roll(by, dims=1).flatten()
    before = tokenizer.tokenize(values, valid)
    after = rolled.tokenize(*(x.roll(by * width, dims=-1) for x in (values, valid)))
    for one, other in zip(before, after, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(other, one[:, permutation])
    torch.testing.assert_close(rolled.position, tokenizer.position[permutation], atol=1e-6, rtol=0)
    torch.testing.assert_close(rolled.area, tokenizer.area[permutation], atol=1e-6, rtol=0)


def test_missing_cells_lower_the_fraction_and_empty_tokens_are_invalid():
    tokenizer = tokenizer_of((4, 4), (2, 2))
    values, valid = torch.randn(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    valid[0, 0, 0] = False  # one cell of one channel
    valid[:, 2:, 2:] = False  # a whole token
    valid[1, :2, 2:] = False  # a whole token, of one channel only
    features, cells, some, seen = tokenizer.tokenize(values, valid)
    assert features[:, -2:].tolist() == [[0.75, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    assert some.tolist() == [True, True, True, False]
    assert torch.equal(seen, tokenizer.outputs(valid.float()).bool())
    assert torch.equal(cells, tokenizer.outputs(values))


def test_padded_cells_count_as_missing():
    tokenizer = tokenizer_of((3, 5), (2, 4), 1)
    for valid in (None, torch.ones(1, 3, 5, dtype=torch.bool)):
        features, _, some, seen = tokenizer.tokenize(torch.ones(1, 3, 5), valid)
        assert features[:, -1].tolist() == [1.0, 0.25, 0.5, 0.125]
        assert features[:, :-1].sum(-1).tolist() == [8, 2, 4, 1]
        assert seen.sum(-1).tolist() == [8, 2, 4, 1]
        assert some is None


def test_positions_lie_inside_their_patch_and_areas_are_those_of_the_sphere():
    tokenizer = tokenizer_of((9, 24), (3, 4), globe=True)
    position = tokenizer.position.reshape(3, 6, 3)
    torch.testing.assert_close(position.norm(dim=-1), torch.ones(3, 6))
    latitude = torch.rad2deg(position[..., 2].arcsin())
    edges = np.linspace(-80, 80, 9)
    for row in range(3):
        assert (latitude[row] > edges[3 * row]).all()
        assert (latitude[row] < edges[3 * row + 2]).all()
    longitude = torch.rad2deg(torch.atan2(position[..., 1], position[..., 0])) % 360
    torch.testing.assert_close(
        longitude, (22.5 + 60 * torch.arange(6.0)).expand(3, 6), atol=1e-3, rtol=0
    )
    cosine = np.cos(np.deg2rad(edges)).reshape(3, 3).sum(1)
    np.testing.assert_allclose(
        tokenizer.area.reshape(3, 6).sum(1), cosine / cosine.sum(), rtol=1e-5
    )
    assert float(tokenizer.area.sum()) == pytest.approx(1)


def test_padding_does_not_pull_positions():
    whole = tokenizer_of((4, 5), (1, 1))
    padded = tokenizer_of((4, 5), (4, 4))
    rows = whole.position.reshape(4, 5, 3)[:, 4]
    cosine = whole.area.reshape(4, 5)[:, 4:]
    torch.testing.assert_close(
        padded.position[1],
        torch.nn.functional.normalize((rows * cosine).sum(0), dim=0),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("patch", [(0, 1), (1, 0), (5, 1), (1, 7)])
def test_impossible_patch_sizes_are_refused(patch):
    with pytest.raises(ValueError, match="patch_size"):
        tokenizer_of((4, 6), patch)


def test_a_periodic_grid_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="divisor of 10, because padding would part"):
        tokenizer_of((4, 10), (2, 4), globe=True)
    # A region is padded; latitudes may be padded anywhere.
    assert rows_and_columns(tokenizer_of((4, 10), (2, 4))) == (2, 3)
    assert rows_and_columns(tokenizer_of((5, 10), (2, 5), globe=True)) == (3, 2)


@settings(max_examples=40)
@given(
    st.tuples(st.integers(3, 9), st.integers(3, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 3),
    st.booleans(),
)
def test_surroundings_are_the_cells_around_each_patch(shape, patch, halo, globe):
    patch = (min(patch[0], shape[0]), min(patch[1], shape[1]))
    patch = (patch[0], math.gcd(patch[1], shape[1])) if globe else patch
    tokenizer = tokenizer_of(shape, patch, 2, globe=globe)
    values = torch.randn(3, 2, *shape)
    got = tokenizer.surroundings(values, halo)
    rows, columns = rows_and_columns(tokenizer)
    for token in range(rows * columns):
        top, left = token // columns * patch[0], token % columns * patch[1]
        expected = np.zeros((3, 2, patch[0] + 2 * halo, patch[1] + 2 * halo), np.float32)
        for i in range(expected.shape[2]):
            for j in range(expected.shape[3]):
                y, x = top - halo + i, left - halo + j
                x = x % shape[1] if globe else x
                if 0 <= y < shape[0] and 0 <= x < shape[1]:
                    expected[:, :, i, j] = values[:, :, y, x]
        np.testing.assert_array_equal(got[:, token], expected.reshape(3, -1))
