"""Time steps, lead times and calendars: what every labelled array of the project agrees on.

Three kinds of time axis exist. Weather and simulations step by a fixed number of *hours*
(``datetime64`` or ``cftime``). Climate records step by calendar *months*, molecular trajectories by
*picoseconds* (plain numbers). `Step` hides the difference. Steps become lead times; initial times
and leads become valid times.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cftime
import numpy as np
import xarray as xr

__all__ = ["Step", "calendar_fields", "infer_step", "numeric_time", "parse_lead", "times_between"]

Unit = Literal["hours", "months", "ps"]

_TO_UNIT: dict[str, tuple[Unit, float]] = {
    "h": ("hours", 1.0),
    "hour": ("hours", 1.0),
    "hours": ("hours", 1.0),
    "d": ("hours", 24.0),
    "day": ("hours", 24.0),
    "days": ("hours", 24.0),
    "week": ("hours", 168.0),
    "weeks": ("hours", 168.0),
    "month": ("months", 1.0),
    "months": ("months", 1.0),
    "fs": ("ps", 1e-3),
    "ps": ("ps", 1.0),
    "ns": ("ps", 1e3),
}
_HOUR = np.timedelta64(3_600_000_000_000, "ns")


@dataclass(frozen=True)
class Step:
    """The distance between neighbouring times of a regular axis.

    Parameters
    ----------
    value : float
        Size of one step, in ``unit``.
    unit : {"hours", "months", "ps"}
        ``months`` are calendar months: their length in hours varies.

    Examples
    --------
    >>> Step(24.0, "hours").steps("5 days")
    5
    >>> str(Step(1, "months"))
    '1 months'
    """

    value: float
    unit: Unit

    def __post_init__(self) -> None:
        if self.unit not in ("hours", "months", "ps"):
            raise ValueError(f"got unit {self.unit!r}, expected 'hours', 'months' or 'ps'")
        if not self.value > 0:
            raise ValueError(f"got a step of {self.value} {self.unit}, expected a positive one")

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}"

    @property
    def column(self) -> str:
        """Lead-time column of tables: ``lead_hours``, ``lead_months`` or ``lead_ps``."""
        return f"lead_{self.unit}"

    def lead_times(self, steps: Sequence[int] | np.ndarray) -> np.ndarray:
        """Lead times of so many steps: ``timedelta64[ns]``, or months (int), or ps (float)."""
        amount = np.asarray(steps, dtype=float) * self.value
        if self.unit == "hours":
            nanoseconds = np.round(amount * 3600.0).astype("int64") * 1_000_000_000
            return nanoseconds.astype("timedelta64[ns]")
        return amount.astype("int64") if self.unit == "months" else amount

    def amounts(self, lead_times: Any) -> np.ndarray:
        """Lead times as plain numbers in ``unit`` (hours, months or ps)."""
        lead = np.asarray(lead_times)
        if np.issubdtype(lead.dtype, np.timedelta64):
            if self.unit != "hours":
                raise ValueError(
                    f"got lead times in {lead.dtype}, expected plain {self.unit}, the unit of the"
                    " data"
                )
            return np.asarray(lead.astype("timedelta64[ns]") / _HOUR)
        return lead.astype(float)

    def steps(self, lead_time: Any) -> Any:
        """Counts of steps for lead times.

        These are a text such as ``"5 days"``, or an array as `lead_times` returns.

        Raises
        ------
        ValueError
            If a lead time is not a whole number of steps, or is in another kind of unit.
        """
        if isinstance(lead_time, str):
            return int(self.steps(np.atleast_1d(self.lead_value(lead_time)))[0])
        amount = self.amounts(lead_time)
        steps = np.round(amount / self.value).astype("int64")
        wrong = np.abs(steps * self.value - amount) > 1e-6 * self.value
        if wrong.any():
            raise ValueError(
                f"got a lead time of {amount[wrong].flat[0]:g} {self.unit}, expected a multiple of"
                f" the data's step, {self}"
            )
        return steps

    def lead_value(self, text: str) -> Any:
        """One lead time from text, in the form `lead_times` uses."""
        amount, unit = parse_lead(text)
        if unit != self.unit:
            raise ValueError(
                f"got lead time {text!r}, expected it in {self.unit}, because the data's step is"
                f" {self}"
            )
        if self.unit != "hours":
            return amount
        return self.lead_times(np.array([amount / self.value]))[0]

    def add(self, time: Any, steps: Any) -> np.ndarray:
        """Valid times: ``time`` shifted by ``steps``, broadcast against each other (numpy rules).

        Months are calendar months; a day that does not exist in the target month becomes its last
        day.
        """
        time, steps = np.broadcast_arrays(np.asarray(time), np.asarray(steps))
        if self.unit == "ps":
            return np.asarray(time.astype(float) + steps * self.value)
        if self.unit == "hours" and np.issubdtype(time.dtype, np.datetime64):
            lead = self.lead_times(steps.ravel()).reshape(steps.shape)
            return np.asarray(time.astype("datetime64[ns]") + lead)
        if self.unit == "hours":
            import datetime

            return np.asarray(time + steps * datetime.timedelta(hours=self.value), dtype=object)
        months = np.round(steps * self.value).astype("int64")
        if np.issubdtype(time.dtype, np.datetime64):
            start = time.astype("datetime64[M]")
            day = time.astype("datetime64[ns]") - start.astype("datetime64[ns]")
            moved = start + months.astype("timedelta64[M]")
            month_later = (moved + np.timedelta64(1, "M")).astype("datetime64[ns]")
            last = month_later - np.timedelta64(1, "D")
            whole = day.astype("timedelta64[D]").astype("timedelta64[ns]")
            month_end = last + (day - whole)
            return np.asarray(np.minimum(moved.astype("datetime64[ns]") + day, month_end))
        out = [_shift_cftime(t, int(m)) for t, m in zip(time.ravel(), months.ravel(), strict=True)]
        return np.array(out, dtype=object).reshape(time.shape)


def _shift_cftime(time: Any, months: int) -> Any:
    total = time.year * 12 + time.month - 1 + months
    first = time.replace(year=total // 12, month=total % 12 + 1, day=1)
    return first.replace(day=min(time.day, first.daysinmonth))


def parse_lead(text: str) -> tuple[float, Unit]:
    """Amount and unit of a lead time written as text.

    Examples
    --------
    >>> parse_lead("5 days")
    (120.0, 'hours')
    >>> parse_lead("50ps")
    (50.0, 'ps')
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]+)\s*", text)
    unit = match and _TO_UNIT.get(match[2] if match[2] in _TO_UNIT else match[2].lower())
    if not match or not unit:
        raise ValueError(
            f"got lead time {text!r}, expected a number and one of {', '.join(sorted(_TO_UNIT))},"
            " e.g. '6 hours'"
        )
    return float(match[1]) * unit[1], unit[0]


def infer_step(time: xr.DataArray) -> Step:
    """Step of a regular time axis, from its first differences.

    Parameters
    ----------
    time : DataArray
        1-D ``datetime64``, ``cftime``, or plain numbers with ``units`` fs, ps or ns (molecular
        dynamics). Between pieces, marked by an optional integer coordinate ``segment``, the axis
        may jump.

    Raises
    ------
    ValueError
        If fewer than two times lie in one segment. Or if the axis is regular neither in hours nor
        in calendar months.
    """
    values, segment = time.values, np.zeros(time.size, int)
    if "segment" in time.coords:
        segment = time.coords["segment"].values
    same = segment[1:] == segment[:-1]
    if not same.any():
        raise ValueError(
            f"got {len(values)} time(s), expected at least two in one segment to know the time step"
        )
    if values.dtype.kind in "iuf":
        unit = _TO_UNIT.get(str(time.attrs.get("units", "")))
        if unit is None or unit[0] != "ps":
            raise ValueError(
                f"got time units {time.attrs.get('units')!r}, expected fs, ps, ns or calendar dates"
            )
        frames = np.diff(values.astype(float))[same] * unit[1]
        # Six digits: differences of large times carry rounding errors, and steps are compared.
        step = float(f"{np.median(frames):.6g}")
        return _regular(values, frames, same, step=step, unit="ps", tolerance=0.01)
    months = np.array([t.year * 12 + t.month for t in values]) if values.dtype.kind == "O" else None
    months = values.astype("datetime64[M]").astype("int64") if months is None else months
    hours = np.diff(numeric_time(values))[same]
    stride = np.diff(months)[same]
    if np.ptp(hours) > 1e-6 and np.all(stride == stride[0]) and stride[0] > 0:
        return Step(float(stride[0]), "months")
    if 27.9 * 24 < float(np.median(hours)) < 31.1 * 24 and np.all(stride == 1):
        return Step(1.0, "months")
    step = float(np.median(hours))
    tolerance = 1e-6 * max(1.0, 1 / step)
    return _regular(values, hours, same, step=step, unit="hours", tolerance=tolerance)


def _regular(
    values: np.ndarray,
    amounts: np.ndarray,
    same: np.ndarray,
    *,
    step: float,
    unit: Unit,
    tolerance: float,
) -> Step:
    """The step, if all differences of a segment are within ``tolerance`` steps of it."""
    away = np.abs(amounts - step)
    if not away.max() <= tolerance * abs(step):
        bad = np.flatnonzero(same)[int(away.argmax())]
        raise ValueError(
            f"got an irregular time axis: {values[bad]} is followed by {values[bad + 1]}, expected"
            f" steps of {step:g} {unit}"
        )
    return Step(step, unit)


def numeric_time(time: Any) -> np.ndarray:
    """Times as float64: hours since 1970-01-01 in their own calendar, or picoseconds unchanged."""
    values = np.asarray(time)
    if values.dtype.kind in "iuf":
        return values.astype("float64")
    if np.issubdtype(values.dtype, np.datetime64):
        return (values.astype("datetime64[ns]") - np.datetime64("1970-01-01", "ns")) / _HOUR
    calendar = values.ravel()[0].calendar
    hours = cftime.date2num(values, "hours since 1970-01-01", calendar=calendar)
    return np.asarray(hours, dtype="float64")


def calendar_fields(time: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phase of the year and of the day, both in [0, 1), and month 1–12, of calendar times.

    Times are ``datetime64`` or ``cftime``. The year's phase divides by the length of that very year
    in its own calendar. So 1 March of a leap year and of a common year differ by less than a day.
    """
    values = np.asarray(time)
    flat = values.ravel()
    if np.issubdtype(values.dtype, np.datetime64):
        flat = flat.astype("datetime64[ns]")
        year = flat.astype("datetime64[Y]")
        start = year.astype("datetime64[ns]")
        length = ((year + 1).astype("datetime64[ns]") - start) / _HOUR
        hours = (flat - start) / _HOUR
        month = flat.astype("datetime64[M]").astype("int64") % 12 + 1
    elif flat.dtype == object:
        kind = type(flat[0])
        years = np.array([t.year for t in flat])
        bounds = {
            y: numeric_time(np.array([kind(y, 1, 1), kind(y + 1, 1, 1)], dtype=object))
            for y in np.unique(years)
        }
        start_hours = np.array([bounds[y][0] for y in years])
        length = np.array([bounds[y][1] - bounds[y][0] for y in years])
        hours = numeric_time(flat) - start_hours
        month = np.array([t.month for t in flat])
    else:
        raise ValueError(
            f"got times of type {flat.dtype}, expected datetime64 or cftime, because only they have"
            " seasons"
        )
    year_phase, day_phase = hours / length, hours / 24.0 % 1.0
    shape = values.shape
    return year_phase.reshape(shape), day_phase.reshape(shape), month.reshape(shape)


def times_between(time: xr.DataArray, start: str, end: str) -> np.ndarray:
    """Positions of the times from ``start`` to ``end``, both included.

    These are dates as text, or picoseconds.
    """
    if time.dtype.kind in "iuf":
        return np.flatnonzero((time.values >= float(start)) & (time.values <= float(end)))
    index = time.to_index()
    once = index.unique().sort_values()
    return np.flatnonzero(index.isin(once[once.slice_indexer(start, end)]))
