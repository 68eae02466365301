"""Windows never cross a split or a segment; plans cover all, repeat and share nothing."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciwm.streams.windows import (
    Rules,
    Spacing,
    Windows,
    block_uses,
    find_windows,
    plan_epoch,
    plan_size,
    window_starts,
)


@st.composite
def axes(draw):
    runs = draw(
        st.lists(
            st.tuples(st.integers(1, 12), st.integers(-1, 2), st.booleans()), min_size=1, max_size=8
        )
    )
    label, segment, number = [], [], 0
    for size, which, new in runs:
        number += new
        label += [which] * size
        segment += [number] * size
    return np.array(label, np.int8), np.array(segment)


@st.composite
def spacings(draw):
    context, after, step = draw(st.integers(1, 4)), draw(st.integers(0, 3)), draw(st.integers(1, 4))
    return Spacing(context + after, context, step)


STRIDES = st.sets(st.integers(1, 4), min_size=1).map(sorted)


def places(spacing, stride):
    """Offsets of a window, state by state."""
    found = [0]
    while len(found) < spacing.length:
        found.append(found[-1] + (spacing.context_step if len(found) < spacing.context else stride))
    return found


@given(spacings(), STRIDES)
def test_the_context_has_its_own_step_and_the_rest_the_stride(spacing, strides):
    expected = [places(spacing, s) for s in strides]
    assert spacing.offsets(np.array(strides)).tolist() == expected
    assert [spacing.span(s) for s in strides] == [e[-1] for e in expected]
    assert spacing.span(np.array(strides)).tolist() == [e[-1] for e in expected]


@given(st.integers(1, 6), STRIDES, st.integers(1, 9))
def test_with_a_context_of_one_all_states_are_one_stride_apart(length, strides, unused):
    expected = [[s * place for place in range(length)] for s in strides]
    for spacing in (Spacing(length), Spacing(length, context_step=unused)):
        assert spacing.offsets(np.array(strides)).tolist() == expected
        assert [spacing.span(s) for s in strides] == [s * (length - 1) for s in strides]


@given(axes(), st.integers(0, 16), st.integers(0, 2))
def test_starts_are_exactly_those_whose_whole_span_is_in_one_block_and_segment(axis, span, which):
    label, segment = axis
    expected = []
    for start in range(len(label) - span):
        whole = slice(start, start + span + 1)
        if set(label[whole]) == {which} and len(set(segment[whole])) == 1:
            expected.append(start)
    assert window_starts(label, segment, which=which, span=span).tolist() == expected


@given(axes(), spacings(), STRIDES, st.integers(0, 99))
def test_no_window_crosses_a_split_a_gap_or_a_trajectory(axis, spacing, strides, seed):
    label, segment = axis
    try:
        windows = find_windows(label, segment, which="train", spacing=spacing, lead_steps=strides)
    except ValueError as error:
        assert f"without {places(spacing, strides[-1])[-1] + 1} in a row" in str(error)  # noqa: PT017
        return
    touched = np.zeros(len(label), bool)
    for start, num in zip(windows.starts.tolist(), windows.num_strides.tolist(), strict=True):
        touched[start : start + places(spacing, strides[num - 1])[-1] + 1] = True
    np.testing.assert_array_equal(windows.touched(len(label)), touched)
    for order in ("global", "block", "none"):
        plan = plan_epoch(windows, Rules(seed, order, block=4, pool=2), epoch=0)
        uses = block_uses(plan, 3, spacing, 0, -(-len(plan) // 3))
        index = plan.starts[:, None] + spacing.offsets(plan.strides)
        for sample, (stride, times) in enumerate(zip(plan.strides, index, strict=True)):
            assert stride in strides
            assert times.tolist() == [plan.starts[sample] + p for p in places(spacing, stride)]
            between = slice(times[0], times[-1] + 1)
            assert set(label[between]) == {0}
            assert len(set(segment[between])) == 1
            assert touched[between].all()
            block = uses.member[sample]
            assert uses.start[block] <= times[0] <= times[-1] < uses.stop[block]
        # A slot of the pool holds a block and the longest span.
        assert (uses.stop - uses.start <= 4 + spacing.span(strides[-1])).all()


@given(
    st.integers(8, 300),
    st.sampled_from(["global", "block", "none"]),
    st.integers(1, 8),
    st.integers(1, 6),
    st.integers(0, 5),
    st.integers(0, 9),
    st.integers(1, 40),
    st.integers(1, 5),
)
def test_every_window_once_and_ranks_disjoint(
    num, order, world_size, every, epoch, seed, block, pool
):
    windows = Windows(np.arange(num) * 2 + 5, np.ones(num, np.int64), (1,), Spacing(3))
    rules = Rules(seed, order, block, pool, every)
    deal = {"epoch": epoch, "world_size": world_size}
    plans = [plan_epoch(windows, rules, rank=r, **deal) for r in range(world_size)]
    assert {len(p) for p in plans} == {plan_size(windows, rules, **deal)}
    together = np.concatenate([p.starts for p in plans])
    assert len(set(together.tolist())) == len(together)
    whole = plan_epoch(windows, replace(rules, order="none"), epoch=epoch).starts.tolist()
    assert set(together.tolist()) <= set(whole)
    assert len(whole) - world_size < len(together) <= len(whole)
    period = min(every, num)  # so many epochs see all windows once
    first = epoch // period * period
    seen = np.concatenate(
        [plan_epoch(windows, rules, epoch=first + e).starts for e in range(period)]
    )
    assert sorted(seen.tolist()) == windows.starts.tolist()
    again = plan_epoch(windows, rules, rank=world_size - 1, **deal)
    np.testing.assert_array_equal(again.starts, plans[-1].starts)
    np.testing.assert_array_equal(again.strides, plans[-1].strides)


@given(
    st.integers(30, 200),
    st.sampled_from(["global", "block", "none"]),
    st.lists(st.tuples(st.integers(1, 8), st.integers(0, 4)), min_size=1, max_size=3),
    st.integers(1, 8),
    st.integers(0, 9),
    st.booleans(),
)
def test_a_changed_number_of_ranks_shows_nothing_twice(num, order, parts, last, seed, weighted):
    windows = Windows(np.arange(num) * 3, np.full(num, 2, np.int64), (1, 2), Spacing(2))
    weights = 1 + np.arange(num) % 3.0 if weighted else None
    rules = Rules(seed, order, block=20, pool=3, weights=weights)
    every = plan_epoch(windows, rules, epoch=1).starts.tolist()
    past, served = [], []
    for ranks, batches in parts:
        deal = {"epoch": 1, "world_size": ranks, "past": tuple(past)}
        part = min(plan_size(windows, rules, **deal), 5 * batches)
        for rank in range(ranks):
            served += plan_epoch(windows, rules, rank=rank, **deal).starts[:part].tolist()
        past.append((ranks, part))
    deal = {"epoch": 1, "world_size": last, "past": past}
    size = plan_size(windows, rules, **deal)
    rest = [plan_epoch(windows, rules, rank=r, **deal) for r in range(last)]
    assert [len(r) for r in rest] == [size] * last
    served += np.concatenate([r.starts for r in rest]).tolist()
    left = Counter(every)
    left.subtract(served)
    assert min(left.values()) >= 0
    assert sum(left.values()) < last


def test_weights_say_how_often_a_window_comes():
    windows = Windows(np.arange(1000), np.ones(1000, np.int64), (1,), Spacing(1))
    weights = np.where(np.arange(1000) < 100, 5.0, 1.0)
    counts = np.zeros(1000)
    rules = Rules(seed=2, order="block", block=50, pool=4, every=2, weights=weights)
    for epoch in range(40):
        plan = plan_epoch(windows, rules, epoch=epoch)
        assert len(plan) in (499, 500)
        assert len(plan) == plan_size(windows, rules, epoch=epoch)
        drawn = np.bincount(plan.starts, minlength=1000)
        np.testing.assert_allclose(drawn, weights * 500 / 1400, atol=1)
        counts += drawn
    np.testing.assert_allclose(counts[:100].mean() / counts[100:].mean(), 5, rtol=0.02)
    assert counts.min() > 0


def test_orders_differ_between_epochs_and_seeds_and_mix_blocks():
    windows = find_windows(
        np.zeros(4000, np.int8), np.zeros(4000), which="train", spacing=Spacing(3)
    )
    rules = Rules(seed=0, order="block", block=100, pool=8)
    a, b = (plan_epoch(windows, rules, epoch=e) for e in (0, 1))
    c = plan_epoch(windows, replace(rules, seed=1), epoch=0)
    assert (a.starts != b.starts).any()
    assert (a.starts != c.starts).any()
    np.testing.assert_array_equal(a.blocks, a.starts // 100)
    inside = [len(np.unique(a.blocks[i : i + 32])) for i in range(0, 3968, 32)]
    assert min(inside[10:-10]) >= 5  # a batch draws from most of the pool
    assert min(inside) >= 3  # from half of it at both ends
    live = np.array([np.flatnonzero(a.blocks == k)[[0, -1]] for k in range(40)])
    at = np.arange(0, len(a), 50)[:, None]
    most = ((live[:, 0] <= at) & (at <= live[:, 1])).sum(1)
    assert most.max() <= 9  # never from more than the pool and one
    assert most[-1] <= 5
    together = plan_epoch(windows, replace(rules, pool=50), epoch=0)
    assert len(np.unique(together.blocks[:40])) > 20  # a pool that holds all is a global shuffle


def test_strides_are_drawn_evenly():
    windows = find_windows(
        np.zeros(6000, np.int8),
        np.zeros(6000),
        which="train",
        spacing=Spacing(3),
        lead_steps=[4, 1, 2],
    )
    plan = plan_epoch(windows, Rules(seed=3), epoch=0)
    counts = np.bincount(plan.strides, minlength=5)[[1, 2, 4]]
    assert np.abs(counts / 6000 - 1 / 3).max() < 0.03


def test_errors():
    axis = {"label": np.zeros(10, np.int8), "segment": np.zeros(10)}
    with pytest.raises(ValueError, match=r"10 times without 13 in a row.*4 states 4 steps apart;"):
        find_windows(**axis, which="train", spacing=Spacing(4), lead_steps=[1, 4])
    apart = (
        r"10 times without 11 in a row.* 3 states of context 2 steps apart and 2 after them 3 steps"
        r" apart; .* shorten lead_steps, context_step, history"
    )
    with pytest.raises(ValueError, match=apart):
        find_windows(**axis, which="train", spacing=Spacing(5, 3, 2), lead_steps=[1, 3])
    with pytest.raises(ValueError, match="test block of 0 times"):
        find_windows(**axis, which="test", spacing=Spacing(1))
    with pytest.raises(ValueError, match="no lead_steps"):
        find_windows(**axis, which="train", spacing=Spacing(1), lead_steps=[])
    with pytest.raises(ValueError, match=r"got lead_steps \[0, 2\], expected each"):
        find_windows(**axis, which="train", spacing=Spacing(2), lead_steps=[2, 0])
    with pytest.raises(ValueError, match="got a window of 0 states, expected at least 1"):
        Spacing(0)
    for context in (0, 4):
        with pytest.raises(ValueError, match=f"got context {context}, expected 1 to 3, because"):
            Spacing(3, context=context)
    with pytest.raises(ValueError, match="got context_step 0, expected at least 1"):
        Spacing(3, context=2, context_step=0)
