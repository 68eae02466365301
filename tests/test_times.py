"""Steps, leads and calendars, against pandas and cftime."""

import datetime

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from type_checks import unchecked

from sciwm.times import Step, calendar_fields, infer_step, numeric_time, parse_lead

DAY, MONTH, FRAME = Step(24.0, "hours"), Step(1.0, "months"), Step(0.5, "ps")


def axis(values, *, segment=None, units=None):
    coords = {"time": ("time", values, {} if units is None else {"units": units})}
    if segment is not None:
        coords["segment"] = ("time", segment)
    return xr.Dataset(coords=coords)["time"]


def noleap(*args):
    return cftime.DatetimeNoLeap(*args)


STEPS = [DAY, Step(6.0, "hours"), Step(0.25, "hours"), MONTH, Step(3, "months"), FRAME]


@given(st.lists(st.integers(-500, 500), max_size=5), st.sampled_from(STEPS))
def test_steps_invert_lead_times(steps, step):
    lead = step.lead_times(steps)
    assert step.steps(lead).tolist() == steps
    np.testing.assert_allclose(step.amounts(lead), np.array(steps) * step.value)


def test_kinds_of_lead_times():
    assert DAY.lead_times([1, 5]).dtype == "timedelta64[ns]"
    assert DAY.lead_times([5])[0] == np.timedelta64(5, "D")
    assert MONTH.lead_times([2]).tolist() == [2]
    assert MONTH.lead_times([2]).dtype.kind == "i"
    assert FRAME.lead_times([3]).tolist() == [1.5]
    assert (DAY.column, MONTH.column, FRAME.column) == ("lead_hours", "lead_months", "lead_ps")
    assert (str(DAY), str(FRAME)) == ("24 hours", "0.5 ps")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 days", (120.0, "hours")),
        ("6h", (6.0, "hours")),
        (" 2 weeks ", (336.0, "hours")),
        ("1.5 d", (36.0, "hours")),
        ("3 months", (3.0, "months")),
        ("50ps", (50.0, "ps")),
        ("2 ns", (2000.0, "ps")),
        ("500 fs", (0.5, "ps")),
        ("12 Hours", (12.0, "hours")),
    ],
)
def test_lead_times_in_words(text, expected):
    assert parse_lead(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "days", "five days", "5 parsecs", "-1 day", "1 2 days", "5 days 3"]
)
def test_words_that_are_no_lead_time(text):
    with pytest.raises(ValueError, match="expected a number and one of"):
        parse_lead(text)


def test_steps_of_words():
    assert DAY.steps("5 days") == 5
    assert Step(6.0, "hours").steps("1 day") == 4
    assert MONTH.steps("9 months") == 9
    assert FRAME.steps("10 ps") == 20
    assert MONTH.lead_value("3 months") == 3
    with pytest.raises(ValueError, match="expected a multiple of the data's step, 24 hours"):
        DAY.steps("36 hours")
    in_months = "expected it in months, because the data's step is 1 months"
    with pytest.raises(ValueError, match=in_months):
        MONTH.steps("30 days")
    with pytest.raises(ValueError, match="expected plain months"):
        MONTH.steps(np.array([1], "timedelta64[D]"))
    with pytest.raises(ValueError, match="multiple"):
        FRAME.steps(np.array([1.0, 1.2]))


@pytest.mark.parametrize(
    ("value", "unit"), [(0, "hours"), (-1, "ps"), (float("nan"), "hours"), (1, "days")]
)
def test_impossible_steps(value, unit):
    with unchecked(), pytest.raises(ValueError, match="expected"):
        Step(value, unit)


@given(st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)), st.integers(-60, 60))
def test_adding_months_as_pandas_does(date, months):
    start, expected = np.array([date], "datetime64[ns]"), pd.Timestamp(date)
    expected += pd.DateOffset(months=months)
    assert MONTH.add(start, months)[0] == np.datetime64(expected)
    hours = np.timedelta64(7, "h")
    assert MONTH.add(start + hours, months)[0] == np.datetime64(expected) + hours


def test_adding_months_in_other_calendars():
    start = np.array([noleap(2001, 1, 31), noleap(2003, 12, 15)], dtype=object)
    got = MONTH.add(start[:, None], np.array([1, 12, -1]))
    assert got[0].tolist() == [noleap(2001, 2, 28), noleap(2002, 1, 31), noleap(2000, 12, 31)]
    assert got[1].tolist() == [noleap(2004, 1, 15), noleap(2004, 12, 15), noleap(2003, 11, 15)]
    thirty = np.array([cftime.Datetime360Day(2001, 1, 30)], dtype=object)
    assert MONTH.add(thirty, 1).tolist() == [cftime.Datetime360Day(2001, 2, 30)]


def test_adding_hours_and_picoseconds():
    start = np.array(["2004-02-28", "2005-02-28"], "datetime64[ns]")
    got = DAY.add(start[:, None], np.array([0, 1, 2]))
    assert got.astype("datetime64[D]").astype(str).tolist() == [
        ["2004-02-28", "2004-02-29", "2004-03-01"],
        ["2005-02-28", "2005-03-01", "2005-03-02"],
    ]
    start = np.array([noleap(2004, 2, 28)], dtype=object)
    assert DAY.add(start, 1).tolist() == [noleap(2004, 3, 1)]
    assert Step(6.0, "hours").add(start, 5).tolist() == [noleap(2004, 3, 1, 6)]
    frames = FRAME.add(np.array([1.0, 2.0])[:, None], [1, 4])
    np.testing.assert_allclose(frames, [[1.5, 3.0], [2.5, 4.0]])


def other(calendar, **axis):
    return xr.date_range("2000-01-01", calendar=calendar, use_cftime=True, **axis).values


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.date_range("2000-01-01", periods=5, freq="6h").values, Step(6.0, "hours")),
        (pd.date_range("2000-01-01", periods=5, freq="D").values, DAY),
        (pd.date_range("2000-01-01", periods=5, freq="YS").values, Step(12.0, "months")),
        (pd.date_range("2000-01-01", periods=14, freq="MS").values, MONTH),
        (pd.date_range("2000-01-31", periods=14, freq="ME").values, MONTH),
        (pd.date_range("2000-01-15", periods=5, freq="QS").values, Step(3.0, "months")),
        (pd.date_range("2000-07-01", periods=2, freq="MS").values, MONTH),
        (pd.date_range("2001-02-01", periods=5, freq="28D").values, Step(672.0, "hours")),
        (other("noleap", periods=40, freq="D"), DAY),
        (other("noleap", periods=14, freq="MS"), MONTH),
        (other("360_day", periods=14, freq="MS"), MONTH),
        (other("360_day", periods=5, freq="12h"), Step(12.0, "hours")),
    ],
)
def test_steps_are_inferred(values, expected):
    assert infer_step(axis(values)) == expected


@pytest.mark.parametrize(("units", "value"), [("ps", 2.0), ("fs", 0.002), ("ns", 2000.0)])
def test_frames(units, value):
    assert infer_step(axis(np.arange(5) * 2.0, units=units)) == Step(value, "ps")
    # The same wherever the trajectory starts, in spite of rounding.
    for start in (0.3, 1e3, 1e5):
        assert infer_step(axis(start + np.arange(50) * 0.1, units="ps")) == Step(0.1, "ps")


def test_segments_may_jump():
    time = np.concatenate([pd.date_range(year, periods=3).values for year in ("2000", "2005")])
    assert infer_step(axis(time, segment=[0, 0, 0, 1, 1, 1])) == DAY
    frames = axis(np.tile([1.0, 3.0], 2), segment=[0, 0, 1, 1], units="ps")
    assert infer_step(frames) == Step(2.0, "ps")
    jump = r"2000-01-03.* is followed by 2005-01-01.*expected steps of 24 hours"
    with pytest.raises(ValueError, match=f"irregular time axis: {jump}"):
        infer_step(axis(time))


@pytest.mark.parametrize(
    ("time", "message"),
    [
        (axis(pd.date_range("2000", periods=1).values), r"got 1 time\(s\)"),
        (
            axis(pd.date_range("2000", periods=3).values, segment=[0, 1, 2]),
            "at least two in one segment",
        ),
        (axis(np.arange(4.0)), "got time units None, expected fs, ps, ns"),
        (axis(np.arange(4.0), units="days"), "got time units 'days'"),
        (
            axis(np.array([1.0, 2.0, 3.0, 5.0]), units="ps"),
            "irregular time axis: 3.0 is followed by 5.0, expected steps of 1 ps",
        ),
        (
            axis(np.array(["2000-01-01", "2000-01-02", "2000-01-04"], "datetime64[ns]")),
            "irregular time axis",
        ),
    ],
)
def test_axes_without_a_step(time, message):
    with pytest.raises(ValueError, match=message):
        infer_step(time)


def test_numeric_time():
    times = np.array(["1970-01-02T06", "1969-12-31"], "datetime64[h]")
    assert numeric_time(times).tolist() == [30.0, -24.0]
    assert numeric_time(np.array([noleap(1971, 1, 1)], dtype=object)).tolist() == [8760.0]
    assert numeric_time(np.array([[1.5], [2]])).tolist() == [[1.5], [2]]


@pytest.mark.parametrize(
    ("calendar", "length"), [("standard", 366), ("noleap", 365), ("360_day", 360)]
)
def test_phases(calendar, length):
    kind = {"calendar": calendar, "use_cftime": calendar != "standard"}
    time = xr.date_range("2004-01-01", periods=length * 4, freq="6h", **kind).values
    year, day, month = calendar_fields(time)
    np.testing.assert_allclose(year, np.arange(length * 4) / (length * 4), atol=1e-9)
    np.testing.assert_allclose(day, np.tile([0, 0.25, 0.5, 0.75], length), atol=1e-9)
    assert month[0] == 1
    assert month[-1] == 12
    expected = pd.DatetimeIndex(time).month if calendar == "standard" else [t.month for t in time]
    np.testing.assert_array_equal(month, expected)


def test_phases_keep_their_shape_and_years_their_length():
    time = np.array(
        [["2003-03-01", "2004-03-01"], ["2003-12-31T18", "2004-12-31T18"]], "datetime64[ns]"
    )
    year, day, month = calendar_fields(time)
    assert year.shape == day.shape == month.shape == (2, 2)
    assert abs(year[0, 0] - year[0, 1]) < 1 / 365
    np.testing.assert_allclose(year[1], [(364 + 0.75) / 365, (365 + 0.75) / 366])
    with pytest.raises(ValueError, match="because only they have seasons"):
        calendar_fields(np.arange(3.0))
