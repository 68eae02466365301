"""Cutting and joining are inverse to each other."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciwm.tokens.patches import cut, join

SIDE = st.integers(1, 7)


@settings(max_examples=80)
@given(
    st.tuples(SIDE, SIDE),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
    st.lists(st.integers(1, 3), max_size=2),
)
def test_joined_patches_are_the_fields(shape, size, channels, lead):
    values = torch.randn(*lead, channels, *shape)
    patches = cut(values, size)
    rows, columns = (-(-n // p) for n, p in zip(shape, size, strict=True))
    assert patches.shape == (*lead, rows * columns, channels * size[0] * size[1])
    assert torch.equal(join(patches, size, shape), values)
    # What is beyond the fields is 0, and nothing else is.
    whole = cut(torch.ones(1, *shape), size)
    assert whole.sum() == shape[0] * shape[1]
    assert (patches.view(*lead, rows * columns, channels, -1) * (1 - whole)[:, None] == 0).all()


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 2),
)
def test_cut_fields_are_the_patches(count, size, channels):
    patches = torch.randn(2, count[0] * count[1], channels * size[0] * size[1])
    shape = count[0] * size[0], count[1] * size[1]
    assert torch.equal(cut(join(patches, size, shape), size), patches)


def test_every_patch_is_where_it_was():
    values = torch.arange(2 * 4 * 6.0).view(2, 4, 6)
    patches = cut(values, (2, 3))
    for token in range(4):
        top, left = token // 2 * 2, token % 2 * 3
        part = values[:, top : top + 2, left : left + 3]
        assert torch.equal(patches[token], part.flatten())
