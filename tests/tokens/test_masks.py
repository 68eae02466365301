"""Dropped tokens are as many as asked for: in blocks, or each on its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciwm.tokens.masks import block_mask, random_mask


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 5), st.floats(0, 0.999), st.integers(1, 4))
def test_as_many_are_hidden_as_asked_for(tokens, batch, ratio, num_blocks):
    place = torch.rand(tokens, 3)
    for hidden in (
        block_mask(place, batch=batch, ratio=ratio, num_blocks=num_blocks),
        random_mask(tokens, batch=batch, ratio=ratio),
    ):
        assert hidden.shape == (batch, tokens)
        assert hidden.dtype == torch.bool
        assert (hidden.sum(1) == min(tokens - 1, round(ratio * tokens))).all()


def test_blocks_are_compact():
    side = torch.arange(12.0)
    position = torch.stack(torch.meshgrid(side, side, indexing="ij"), dim=-1).reshape(-1, 2)
    dropped = block_mask(
        position, batch=200, ratio=0.4, num_blocks=1, generator=torch.Generator().manual_seed(0)
    )
    grid = dropped.reshape(200, 12, 12)
    together = (grid[:, 1:] & grid[:, :-1]).sum() + (grid[:, :, 1:] & grid[:, :, :-1]).sum()
    pairs = 2 * 11 * 12 * 200
    share = float(dropped.float().mean())
    # Dropped at random, two neighbours would both be gone in share² of all cases; in a block in
    # nearly share.
    assert float(together) / pairs > 0.8 * share > 1.5 * share**2
    # Every dropped set is a disc around its centre: everything nearer than the farthest dropped
    # token is gone.
    for mask in dropped[:20]:
        inside = [
            c
            for c in range(144)
            if (d := (position - position[c]).norm(dim=1))[mask].max() <= d[~mask].min() + 1e-6
        ]
        assert inside


def test_masks_differ_and_follow_the_generator():
    position = torch.rand(30, 2)
    first, again, other = (
        block_mask(position, batch=8, ratio=0.5, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique(dim=0)) > 1


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_ratio_out_of_range(ratio):
    with pytest.raises(ValueError, match="ratio"):
        block_mask(torch.rand(4, 2), batch=1, ratio=ratio)


def test_single_tokens_are_dropped_evenly():
    hidden = random_mask(12, batch=4000, ratio=0.75, generator=torch.Generator().manual_seed(0))
    assert bool(((hidden.float().mean(0) - 0.75).abs() < 0.03).all())
    # Two of them no more often together than by chance: 3/4 of 8/11.
    both = float((hidden[:, 0] & hidden[:, 1]).float().mean())
    assert both == pytest.approx(0.75 * 8 / 11, abs=0.03)
    with pytest.raises(ValueError, match="got ratio 1"):
        random_mask(12, batch=2, ratio=1.0)
