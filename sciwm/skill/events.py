"""Threshold events: how well the probability of ``t850>285`` is forecast.

A probability is the share of members for which the event happens; 0 or 1 without members. There are
sums for each initial time, averaged and resampled as those of `sciwm.skill.scores`, and metrics
from them. For the area under the ROC curve, cells with and without the event are counted by weight.
That is done for every probability M members can give, so the curve is exact.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from sciwm.skill.alignment import over_space

__all__ = [
    "Event",
    "brier",
    "event_sums",
    "parse_event",
    "parse_events",
    "roc_area",
    "with_members",
]

_COMPARE: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
}
_EVENT = re.compile(
    r"\s*([A-Za-z_]\w*)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
)


@dataclass(frozen=True)
class Event:
    """A variable beyond a threshold.

    Parameters
    ----------
    channel : str
        A variable, on all its levels, or a variable with one of its levels: ``t_850`` or ``t850``.
    compare : {">", ">=", "<", "<="}
    threshold : float
        In the units of the data.
    """

    channel: str
    compare: str
    threshold: float

    @property
    def condition(self) -> str:
        """What is behind the channel: ``">285"``."""
        return f"{self.compare}{self.threshold:.12g}"

    def is_of(self, variable: str, level: float) -> bool:
        """Whether it is an event of this channel; ``level`` is NaN if the variable has none."""
        if self.channel == variable:
            return True
        names = (f"{variable}_{level:g}", f"{variable}{level:g}")
        return not math.isnan(level) and self.channel in names

    def happens(self, values: np.ndarray) -> np.ndarray:
        """Compare; False for NaN."""
        return np.asarray(_COMPARE[self.compare](values, self.threshold))


def parse_event(text: str) -> Event:
    """Read an event from text such as ``"t850>285"``.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> parse_event("tp >= 1e-3")
    Event(channel='tp', compare='>=', threshold=0.001)
    """
    match = _EVENT.fullmatch(text)
    if not match:
        raise ValueError(
            f"got event {text!r}, expected a variable, one of > >= < <=, and a number in its units,"
            " e.g. 't850>285'"
        )
    return Event(match[1], match[2], float(match[3]))


def parse_events(texts: Sequence[str], channels: Sequence[tuple[str, float]]) -> list[Event]:
    """Read events of these ``(variable, level)``, each once.

    Raises
    ------
    ValueError
        If an event is none, is of no channel, or is named twice.
    """
    events = [parse_event(text) for text in texts]
    taken: set[tuple[int, str]] = set()
    for text, event in zip(texts, events, strict=True):
        own = [k for k, channel in enumerate(channels) if event.is_of(*channel)]
        labels = {(k, event.condition) for k in own}
        if not labels:
            held = [name if math.isnan(level) else f"{name}_{level:g}" for name, level in channels]
            raise ValueError(
                f"got event {text!r}, expected one of a variable that is scored: {', '.join(held)}"
            )
        if labels & taken:
            raise ValueError(f"got events {list(texts)}, expected {text!r} once")
        taken |= labels
    return events


def _kernel(
    forecast: np.ndarray,
    observed: np.ndarray,
    climatology: np.ndarray,
    weights: np.ndarray,
    *,
    event: Event,
    bins: int,
) -> np.ndarray:
    """Sum over space; ``forecast`` ends with members; returns ``(..., region, statistic)``."""
    space = weights.ndim - 1
    lead = observed.shape[: observed.ndim - space]
    area = weights.reshape(len(weights), -1).T.astype(float)
    members = np.asarray(forecast).reshape(*lead, -1, forecast.shape[-1])
    o, c = (np.asarray(a).reshape(*lead, -1) for a in (observed, climatology))
    valid = np.isfinite(o) & np.isfinite(c)
    lost = valid & ~np.isfinite(members).all(axis=-1)
    happened = event.happens(o)
    count = event.happens(members).sum(axis=-1)
    error = count / members.shape[-1] - happened
    sums = np.zeros((*lead, area.shape[1], 2 + 2 * bins))
    sums[..., 0] = valid.astype(float) @ area
    sums[..., 1] = np.where(valid, error**2, 0.0) @ area
    for k in range(members.shape[-1] + 1):
        here = valid & (count == k)
        sums[..., 2 + k] = (here & happened).astype(float) @ area
        sums[..., 2 + bins + k] = (here & ~happened).astype(float) @ area
    if lost.any():
        spoilt = lost.astype(float) @ (area > 0) > 0
        sums[..., 1:] = np.where(spoilt[..., None], np.nan, sums[..., 1:])
    return sums


def with_members(forecast: xr.DataArray, observed: xr.DataArray) -> xr.DataArray:
    """The forecast with the dim ``number`` first, then the dims of ``observed`` in their order.

    It has one member if it had none.
    """
    many = forecast if "number" in forecast.dims else forecast.expand_dims("number")
    return many.transpose("number", *observed.dims)


def event_sums(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    climatology: xr.DataArray | None = None,
    *,
    event: Event,
    weights: xr.DataArray,
    bins: int | None = None,
) -> xr.DataArray:
    """Weighted sums of one event over each region, for every initial and lead time.

    Cells are left out, and missing forecasts punished, as `sciwm.skill.scores.score_sums` does it.

    Parameters
    ----------
    forecast : DataArray
        Dims ``(init_time, lead_time, [number], [level], *space)``, physical units; may be lazy.
    observed, climatology : DataArray
        The same dims without ``number``. The climatology only tells which cells count.
    event : Event
        Its threshold is compared with, its channel is not looked at.
    weights : DataArray
        Dims ``(region, *space)``, from `region_weights`.
    bins : int, optional
        Room for so many probabilities: members + 1, the default, or more.

    Returns
    -------
    DataArray
        Dims ``(init_time, lead_time, [level], region, statistic)``, lazy. The statistics are
        ``weight`` and ``squared_error`` of the probability. ``event_k`` and ``no_event_k`` are the
        weight of cells at which k members had the event, and it happened or not.
    """
    many = with_members(forecast, observed)
    reference = xr.zeros_like(observed) if climatology is None else climatology
    count = many.sizes["number"] + 1 if bins is None else bins
    labels = ["weight", "squared_error"]
    labels += [f"{name}_{k}" for name in ("event", "no_event") for k in range(count)]
    kernel = partial(_kernel, event=event, bins=count)
    return over_space(
        kernel, many, observed, reference, weights=weights, dim="statistic", labels=labels
    )


def brier(means: xr.DataArray) -> xr.DataArray:
    r"""Brier score of an event; unitless, range [0, 1], 0 is perfect, smaller is better.

    .. math:: \frac1N \sum_i \frac{\sum_x w (p - [o > \mathrm{threshold}])^2}{\sum_x w}

    with the share p of members that have the event. Not corrected for their number: fewer members
    have a larger score.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits` of `event_sums`, with the dim ``statistic``.
    """
    return means.sel(statistic="squared_error", drop=True)


def roc_area(means: xr.DataArray) -> xr.DataArray:
    r"""Area under the ROC curve of an event; unitless, range [0, 1], 1 is perfect.

    Larger is better; 0.5 is no discrimination. It is the chance that a cell with the event had a
    higher probability than one without, ties counted half. That is the trapezoidal area under hit
    rate against false-alarm rate, at every probability that members can give. Cells of all initial
    times are taken together, each time with the same weight. NaN if the event happened always or
    never.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits` of `event_sums`, with the dim ``statistic``.
    """
    names = [str(n) for n in means["statistic"].values]
    hit, false = (
        means.sel(statistic=[n for n in names if n.startswith(s)]).drop_vars("statistic")
        for s in ("event_", "no_event_")
    )
    below = false.cumsum("statistic", skipna=False) - false / 2
    hits, misses = hit.sum("statistic", skipna=False), false.sum("statistic", skipna=False)
    both = hits * misses
    return (hit * below).sum("statistic", skipna=False) / both.where(both > 0)
