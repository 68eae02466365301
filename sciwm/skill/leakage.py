"""Whether what is scored was seen before.

It may have been seen in training, by the climatology, in choices, or by the model behind a
forecast.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from sciwm.skill.alignment import locate
from sciwm.times import numeric_time, times_between

__all__ = ["PERIOD_ATTRIBUTES", "Leak", "check_leakage", "declared_periods", "find_leaks"]

Period = tuple[str, str]

PERIOD_ATTRIBUTES = ("training_period", "validation_period", "climatology_period")
"""What a forecast store says of the times behind it."""
_MONTH = 32 * 24.0  # hours
_DATE = r"\d{4}(?:-\d\d(?!\d)(?:-\d\d(?:[T ]\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?)?)?)?"
_PERIOD = re.compile(rf"\s*({_DATE})(?:\s*(?:/|:|,|\.\.\.?|…|–|—|-|to)\s*({_DATE}))?\s*")


@dataclass(frozen=True)
class Leak:
    """One way in which scored times were seen before.

    Parameters
    ----------
    said : str
        What of the scored times, in words that stand beside the scores.
    way_out : str
        What to do about it.
    """

    said: str
    way_out: str


def declared_periods(
    forecasts: Mapping[str, xr.Dataset],
) -> tuple[dict[tuple[str, str], list[str]], list[str]]:
    """Collect what stores say of the times behind them, in their `PERIOD_ATTRIBUTES`.

    Parameters
    ----------
    forecasts : mapping of str to Dataset
        An attribute holds ``FIRST/LAST``, or a year or date, several separated by ``;``.

    Returns
    -------
    found : dict
        Names of the forecasts for each (attribute, text).
    notices : list of str
        Of texts that are no periods.

    Examples
    --------
    >>> stores = {
    ...     "a": xr.Dataset(attrs={"training_period": "1979/2017"}),
    ...     "b": xr.Dataset(attrs={"training_period": "long"}),
    ... }
    >>> found, notices = declared_periods(stores)
    >>> found
    {('training_period', '1979/2017'): ['a']}
    >>> notices
    ["training_period 'long' of b is not understood, expected dates such as 1979-01-01/2017-12-31"]
    """
    found: dict[tuple[str, str], list[str]] = {}
    notices = []
    for method, ds in forecasts.items():
        for name in PERIOD_ATTRIBUTES:
            held = ds.attrs.get(name, "")
            text = held if isinstance(held, str) else "/".join(map(str, np.atleast_1d(held)))
            if text and _periods(text):
                found.setdefault((name, text), []).append(method)
            elif text:
                notices.append(
                    f"{name} {text!r} of {method} is not understood, expected dates such as"
                    " 1979-01-01/2017-12-31"
                )
    return found, notices


def _periods(text: str) -> list[Period]:
    """Periods of a text; none if a part of it is no period."""
    matches = [_PERIOD.fullmatch(part) for part in text.split(";") if part.strip()]
    periods = [(m[1], m[2] or m[1]) for m in matches if m]
    some = xr.DataArray(np.array(["2000-01-01"], "M8[ns]"), dims="time")
    try:
        for first, last in periods:
            times_between(some, first, last)
    except (ValueError, TypeError):  # a month 13
        return []
    return periods if len(periods) == len(matches) else []


def find_leaks(
    init: xr.DataArray,
    valid: np.ndarray,
    *,
    training: xr.DataArray | None = None,
    validation: xr.DataArray | None = None,
    fitted: Sequence[Period] = (),
    declared: Mapping[tuple[str, str], Sequence[str]] | None = None,
) -> list[Leak]:
    """List the ways in which scored times were seen before.

    Simulation times are not looked at, nor records whose times occur more than once (members). Both
    are split by segment. Nor are forecasts whose segments are not those of a block.

    Parameters
    ----------
    init : DataArray, ``(init_time,)``
    valid : ndarray, ``(init_time, lead_time)``
        Valid times of what is scored.
    training, validation : DataArray, optional
        Times of the blocks behind the climatology, the baselines or the model, and behind choices.
    fitted : sequence of (first, last)
        What the climatology was fitted on (`sciwm.climatology.Climatology`).
    declared : mapping, optional
        What stores say of themselves, from `declared_periods`.

    Returns
    -------
    list of Leak
        A time is told of once, where it is seen first, in this order:

        - in the training block;
        - by the climatology;
        - too near to the training block, by less than the longest lead: training sees targets
          beyond the block;
        - in the validation block.

        It is told of once more for each period that stores declare.

    Examples
    --------
    >>> january = np.arange("2000-01-01", "2000-01-31", dtype="M8[D]").astype("M8[ns]")
    >>> days = xr.DataArray(january, dims="time")
    >>> init, valid = days[8:20], january[8:20, None] + np.timedelta64(2, "D")
    >>> [leak] = find_leaks(init, valid, training=days[:8])
    >>> print(leak.said)
    1 of 12 initial times begins less than the longest lead (2 days) after the training block
    (2000-01-01 to 2000-01-08)
    """
    times = np.concatenate([init.values[:, None], valid], axis=1)
    if times.dtype.kind in "iuf" or not times.size:
        return []
    leaks = []
    seen = _in_block(training, init, times)
    if seen.any():
        said = f"{_count(seen, 'training block')} ({_span(training)})"
        leaks.append(Leak(said, "end the training block earlier, or score later times"))
    normal = _within(times, fitted) & ~seen
    if normal.any():
        periods = "; ".join(f"{_short(a)} to {_short(b)}" for a, b in fitted[:3])
        said = f"{_count(normal, 'times that the climatology was fitted on')} ({periods})"
        leaks.append(Leak(said, "fit the climatology on the training block"))
    near, longest = _too_near(training, init, valid)
    near = near & ~seen & ~normal
    if near.any():
        begin = "begins" if near.sum() == 1 else "begin"
        said = (
            f"{near.sum()} of {near.size} initial times {begin} less than the longest lead"
            f" ({longest}) after the training block ({_span(training)})"
        )
        leaks.append(Leak(said, "leave a gap of the longest lead after the training block"))
    chosen = _in_block(validation, init, times) & ~seen & ~normal
    if chosen.any():
        where = _count(chosen, "validation block")
        said = f"{where}, on which choices were made ({_span(validation)})"
        leaks.append(Leak(said, "end the validation block earlier, or score later times"))
    for (name, text), methods in (declared or {}).items():
        inside = _within(times, _periods(text))
        if inside.any():
            declare = "declares" if len(methods) == 1 else "declare"
            said = f"{_count(inside, name)} that {_listed(methods)} {declare} ({text})"
            leaks.append(Leak(said, "score forecasts of other times"))
    return leaks


def check_leakage(leaks: Sequence[Leak], *, allow: bool = False) -> str:
    """Refuse scores of times that were seen before.

    Parameters
    ----------
    leaks : sequence of Leak
    allow : bool
        Go on all the same.

    Returns
    -------
    str
        What leaks, to stand beside the scores; empty if nothing does.

    Raises
    ------
    ValueError
        If something leaks and ``allow`` is false; all of it is named, with the ways out.

    Examples
    --------
    >>> check_leakage([])
    ''
    >>> check_leakage([Leak("2 of 9 initial times …", "score later times")], allow=True)
    '2 of 9 initial times …'
    """
    said = "; ".join(leak.said for leak in leaks)
    if leaks and not allow:
        ways = "; ".join(dict.fromkeys(leak.way_out for leak in leaks))
        raise ValueError(
            f"got forecasts to score of which {said}, expected none, because such scores are"
            f" optimistic: {ways}; to have them all the same, marked as such, pass"
            " allow_leakage=True or --allow-leakage"
        )
    return said


def _comparable(block: xr.DataArray | None, init: xr.DataArray) -> bool:
    if block is None or not block.size or block.dtype.kind in "iuf":
        return False
    if len(np.unique(numeric_time(block.values))) < block.size:
        return False
    segments = all("segment" in t.coords for t in (block, init))
    return not segments or bool(np.isin(init["segment"], block["segment"]).any())


def _in_block(block: xr.DataArray | None, init: xr.DataArray, times: np.ndarray) -> np.ndarray:
    """Which initial times have themselves or a valid time in a block.

    Between two times of the block that follow each other counts, too: other hours of the same days.
    """
    if block is None or not _comparable(block, init):
        return np.zeros(len(times), bool)
    at = locate(block.drop_vars("segment", errors="ignore"), times) >= 0
    held, asked = np.sort(numeric_time(block.values)), numeric_time(times)
    step = np.median(np.diff(held)) if held.size > 1 else np.inf
    if step <= _MONTH:  # a year between two years is another
        after = np.searchsorted(held, asked).clip(1, held.size - 1)
        low, high = held[after - 1], held[after]
        at |= (asked > low) & (asked < high) & (high - low <= 1.5 * step)
    return np.asarray(at.any(axis=1))


def _within(times: np.ndarray, periods: Sequence[Period]) -> np.ndarray:
    """The same for periods."""
    inside = np.zeros(times.size, bool)
    flat = xr.DataArray(times.ravel(), dims="time")
    for first, last in periods:
        inside[times_between(flat, first, last)] = True
    return np.asarray(inside.reshape(times.shape).any(axis=1))


def _too_near(
    block: xr.DataArray | None, init: xr.DataArray, valid: np.ndarray
) -> tuple[np.ndarray, str]:
    """Which initial times follow a block by less than the longest lead, and that lead in words."""
    if block is None or not valid.size or not _comparable(block, init):
        return np.zeros(init.size, bool), ""
    started, held = numeric_time(init.values), np.sort(numeric_time(block.values))
    lead = numeric_time(valid[:, -1]) - started
    last = np.searchsorted(held, started, side="right") - 1
    after = started - held[np.maximum(last, 0)]
    days = float(lead.max()) / 24
    near: np.ndarray = (last >= 0) & (after < lead - 1e-4)
    return near, f"{days:g} days" if days >= 1 else f"{24 * days:g} hours"


def _count(inside: np.ndarray, where: str) -> str:
    count = f"{inside.sum()} of {inside.size} initial times have themselves"
    if inside.size == 1:
        count = "the only initial time has itself"
    return f"{count} or a valid time in the {where}"


def _span(block: xr.DataArray | None) -> str:
    assert block is not None
    amounts = numeric_time(block.values)
    return " to ".join(_short(str(t)) for t in block.values[[amounts.argmin(), amounts.argmax()]])


def _short(time: str) -> str:
    return re.sub(r"[T ]00:00$", "", time[:16])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
