"""Windows never cross a split or a segment; plans cover, never repeat, and never share between ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciwm.data.windows import Windows, find_windows, plan_epoch, plan_size, window_starts


@st.composite
def axes(draw):
    runs = draw(st.lists(st.tuples(st.integers(1, 12), st.integers(-1, 2), st.booleans()), min_size=1, max_size=8))
    label, segment, number = [], [], 0
    for size, which, new in runs:
        number += new
        label += [which] * size
        segment += [number] * size
    return np.array(label, np.int8), np.array(segment)


@given(axes(), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2))
def test_starts_are_exactly_those_whose_whole_span_is_in_one_block_and_segment(axis, length, stride, which):
    label, segment = axis
    expected = []
    for start in range(len(label) - stride * (length - 1)):
        span = slice(start, start + stride * (length - 1) + 1)
        if set(label[span]) == {which} and len(set(segment[span])) == 1:
            expected.append(start)
    assert window_starts(label, segment, which=which, length=length, stride=stride).tolist() == expected


@given(axes(), st.integers(1, 4), st.sets(st.integers(1, 4), min_size=1), st.integers(0, 99))
def test_drawn_strides_always_fit(axis, length, strides, seed):
    label, segment = axis
    try:
        windows = find_windows(label, segment, which="train", length=length, lead_steps=sorted(strides))
    except ValueError as error:
        assert "in a row" in str(error)  # noqa: PT017
        return
    for order in ("global", "block", "none"):
        plan = plan_epoch(windows, seed=seed, epoch=0, order=order, block=4, pool=2)
        for start, stride in zip(plan.starts, plan.strides, strict=True):
            assert stride in strides
            index = start + stride * np.arange(length)
            assert (label[index] == 0).all()
            assert len(set(segment[index])) == 1


@given(
    st.integers(8, 300),
    st.sampled_from(["global", "block", "none"]),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 5),
    st.integers(0, 9),
    st.integers(1, 40),
)
def test_every_window_once_and_ranks_disjoint(num, order, world_size, every, epoch, seed, block):
    windows = Windows(np.arange(num) * 2 + 5, np.ones(num, np.int64), (1,), 3)
    options = {"seed": seed, "epoch": epoch, "world_size": world_size, "order": order, "block": block, "every": every}
    plans = [plan_epoch(windows, rank=r, pool=3, **options) for r in range(world_size)]
    size = plan_size(windows, **options)
    assert [len(p) for p in plans] == [size] * world_size
    together = np.concatenate([p.starts for p in plans])
    assert len(set(together.tolist())) == len(together)
    assert set(together.tolist()) <= set(windows.starts.tolist())
    if world_size == 1:  # every epochs see all windows once
        period = min(every, num)
        first = epoch // period * period
        seen = np.concatenate([plan_epoch(windows, pool=3, **options | {"epoch": first + e}).starts for e in range(period)])
        assert sorted(seen.tolist()) == windows.starts.tolist()
    elif order != "block":
        assert len(together) > len(range(0, num, every)) - world_size - 1
    again = plan_epoch(windows, rank=world_size - 1, pool=3, **options)
    np.testing.assert_array_equal(again.starts, plans[-1].starts)
    np.testing.assert_array_equal(again.strides, plans[-1].strides)


def test_orders_differ_between_epochs_and_seeds_and_mix_blocks():
    windows = find_windows(np.zeros(4000, np.int8), np.zeros(4000), which="train", length=3)
    a = plan_epoch(windows, seed=0, epoch=0, order="block", block=100, pool=8)
    b = plan_epoch(windows, seed=0, epoch=1, order="block", block=100, pool=8)
    c = plan_epoch(windows, seed=1, epoch=0, order="block", block=100, pool=8)
    assert (a.starts != b.starts).any()
    assert (a.starts != c.starts).any()
    np.testing.assert_array_equal(a.blocks, a.starts // 100)
    inside = [len(np.unique(a.blocks[i : i + 32])) for i in range(500, 3000, 32)]
    assert min(inside) >= 5  # a batch draws from most of the pool
    live = [(np.flatnonzero(a.blocks == k)[[0, -1]]) for k in range(40)]
    most = max(sum(first <= i <= last for first, last in live) for i in range(0, len(a), 50))
    assert most <= 9  # and never from more than the pool and one


def test_strides_are_drawn_evenly():
    windows = find_windows(np.zeros(6000, np.int8), np.zeros(6000), which="train", length=3, lead_steps=[4, 1, 2])
    plan = plan_epoch(windows, seed=3, epoch=0)
    counts = np.bincount(plan.strides, minlength=5)[[1, 2, 4]]
    assert np.abs(counts / 6000 - 1 / 3).max() < 0.03


def test_errors():
    label, segment = np.zeros(10, np.int8), np.zeros(10)
    with pytest.raises(ValueError, match=r"10 times without 13 in a row.*4 states 4 steps apart"):
        find_windows(label, segment, which="train", length=4, lead_steps=[1, 4])
    with pytest.raises(ValueError, match="test block of 0 times"):
        find_windows(label, segment, which="test", length=1)
    with pytest.raises(ValueError, match="no lead_steps"):
        find_windows(label, segment, which="train", length=1, lead_steps=[])
    with pytest.raises(ValueError, match="length 0"):
        window_starts(label, segment, which=0, length=0)
