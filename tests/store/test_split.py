"""Labels against hand-made ones, and the property that no window leaks."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from type_checks import unchecked

from sciwm.store.split import Blocks, Split, split_times


def days(start="2000-01-01", periods=1096, calendar=None, freq="D"):
    if calendar is None:
        return xr.date_range(start, periods=periods, freq=freq).values
    return np.asarray(
        xr.date_range(start, periods=periods, freq=freq, calendar=calendar, use_cftime=True),
        dtype=object,
    )


@pytest.mark.parametrize("calendar", [None, "noleap", "proleptic_gregorian", "360_day"])
def test_dates_are_inclusive_whole_years_months_days(calendar):
    time = days(calendar=calendar, periods=1096)
    blocks = Blocks(["2000", "2000"], ["2001-01", "2001-06"], ["2001-07-01", "2001-12-31"])
    label = split_times(time, blocks)
    year = np.array([int(str(t)[:4]) for t in time])
    month = np.array([int(str(t)[5:7]) for t in time])
    expected = np.select([year == 2000, (year == 2001) & (month <= 6), year == 2001], [0, 1, 2], -1)
    np.testing.assert_array_equal(label, expected)
    assert label.dtype == np.int8
    assert Split(label).describe(time)["train"][0].startswith("2000-01-01")
    assert Split(label).mask("test").sum() == (expected == 2).sum()


def test_hours_and_integers_as_dates():
    time = days(freq="6h", periods=1464 + 8)
    blocks = Blocks([2000, "2000-12-31T06"], test=["2000-12-31T12:00", "2001"])
    label = split_times(time, blocks)
    assert (label == 0).sum() == 1462
    assert (label == 2).sum() == 10
    with pytest.raises(ValueError, match="ISO 8601"):
        split_times(time, Blocks(["spring", "2001"]))


def test_gaps_open_where_blocks_touch_in_either_order():
    time = np.arange(30.0)
    label = split_times(time, Blocks([10, 20], [20, 30], [0, 10], by="step", gap_steps=3))
    expected = np.full(30, -1)
    expected[0:10], expected[13:20], expected[23:30] = 2, 0, 1
    np.testing.assert_array_equal(label, expected)
    apart = split_times(time, Blocks([0, 10], test=[12, 30], by="step", gap_steps=3))
    # Two of the three steps of the gap were there already.
    assert np.flatnonzero(apart == 2)[0] == 13


def test_segments():
    time = np.tile(np.arange(10.0), 3)
    segment = np.repeat([0, 1, 2], 10)
    blocks = Blocks([0, 2], test=[1], by="segment", gap_steps=5)
    np.testing.assert_array_equal(split_times(time, blocks, segment), np.repeat([0, 2, 0], 10))
    assert len(split_times(time, replace(blocks, gap_steps=9), segment)) == 30
    longest = r"train block whose longest segment, 2, has 10 steps.* 11, .*: 1 steps are missing"
    with pytest.raises(ValueError, match=longest):
        split_times(time, replace(blocks, gap_steps=10), segment)
    short = np.repeat([0, 1, 2], [20, 4, 6])
    longest = r"test block whose longest segment, 1, has 4 steps, expected at least 6"
    with pytest.raises(ValueError, match=longest):
        split_times(time, replace(blocks, train=[0], validation=[2]), short)
    with pytest.raises(ValueError, match=r"segments \[7\]"):
        split_times(time, Blocks([7], by="segment"), segment)
    # by step across two trajectories: they are not neighbours in time
    label = split_times(time, Blocks([0, 10], test=[10, 30], by="step", gap_steps=4), segment)
    assert (label == 2).sum() == 20
    both = split_times(time, Blocks([0, 4], test=[5, 9], gap_steps=2), segment)
    np.testing.assert_array_equal(both[:10], [0] * 5 + [-1] * 2 + [2] * 3)


def test_a_gap_in_the_record_counts_as_time():
    # One day is missing.
    time = np.concatenate([days(periods=100), days("2000-04-11", periods=100)])
    segment = np.repeat([0, 1], 100)
    blocks = Blocks([0, 100], test=[100, 200], by="step", gap_steps=5)
    label = split_times(time, blocks, segment)
    assert np.flatnonzero(label == 2)[0] == 104


def test_errors():
    time = days()
    overlap = r"train and test blocks that overlap from 2001-06-01.*\(31 steps\)"
    with pytest.raises(ValueError, match=overlap):
        split_times(time, Blocks(["2000", "2001-07-01"], test=["2001-06-01", "2002"]))
    with pytest.raises(ValueError, match="without any time"):
        split_times(time, Blocks(["1990", "1991"]))
    with pytest.raises(ValueError, match="empty training block"):
        Blocks([])
    with pytest.raises(ValueError, match="two entries"):
        split_times(time, Blocks(["2000"]))
    with pytest.raises(ValueError, match="404 steps are missing"):
        split_times(time, Blocks([0, 1500], by="step"))
    with pytest.raises(ValueError, match="0 ≤ start < stop"):
        split_times(time, Blocks([10, 10], by="step"))
    with unchecked(), pytest.raises(ValueError, match="split by 'date'"):
        Blocks(["2000", "2001"], by="date")
    with pytest.raises(ValueError, match="gap_steps -1"):
        Blocks(["2000", "2001"], gap_steps=-1)
    short = r"test block of 31 steps.* 6 in a row remain.*at least 26: 20 steps are missing"
    blocks = Blocks(["2000-01", "2000-03"], test=["2000-04-01", "2000-05-01"], gap_steps=25)
    with pytest.raises(ValueError, match=short):
        split_times(time, blocks)


@given(st.data())
def test_no_window_of_the_gap_s_span_sees_two_blocks(data):
    n = data.draw(st.integers(30, 80))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), min_size=6, max_size=6, unique=True)))
    order = data.draw(st.permutations(["train", "validation", "test"]))
    gap = data.draw(st.integers(0, 6))
    blocks = {name: [cuts[2 * i], cuts[2 * i + 1]] for i, name in enumerate(order)}
    try:
        label = split_times(np.arange(float(n)), Blocks(**blocks, by="step", gap_steps=gap))
    except ValueError as error:
        assert "steps are missing" in str(error)  # noqa: PT017
        return
    for start in range(n - gap):
        assert len(set(label[start : start + gap + 1].tolist()) - {-1}) <= 1
    for number, name in enumerate(("train", "validation", "test")):
        start, stop = blocks[name]
        assert (label == number).sum() > gap  # room for one window
        kept = np.flatnonzero(label == number)
        assert kept[-1] == stop - 1
        assert start <= kept[0] <= start + gap
        assert (np.diff(kept) == 1).all()
