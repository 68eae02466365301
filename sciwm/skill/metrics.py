"""Every metric in one record: its name and words, what computes it, and which values are good."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import xarray as xr

from sciwm.skill import ensemble, events, fractions, scores, seeps

__all__ = [
    "HIGHER",
    "LOWER",
    "METRICS",
    "NEITHER",
    "ONE",
    "ZERO",
    "Metric",
    "better",
    "check_metrics",
    "cost",
    "find_metric",
    "is_dimensionless",
    "is_event_metric",
    "metric_name",
    "metric_units",
    "pretty_units",
    "short_name",
    "with_event_metrics",
]

LOWER, HIGHER, ZERO, ONE, NEITHER = "lower", "higher", "zero", "one", "neither"


@dataclass(frozen=True)
class Metric:
    """What a metric is.

    Parameters
    ----------
    name : str
        In tables and settings.
    words : str
        In a report.
    compute : callable
        From the means of `sciwm.skill.scores.mean_over_inits` to values. None for a metric that is
        only shown.
    of : {"mean", "members", "event"}
        What it scores: a forecast or the mean of its members, the members, or threshold events.
    good : {"lower", "higher", "zero", "one", "neither"}
        Which values are good: small or large ones, or those near zero or one.
    dimensionless : bool
        Whether its values have no units.
    needs_reference : bool
        Whether it takes what was learnt in the training years.
    short : str
        Abbreviation; by default the words.
    """

    name: str
    words: str
    compute: Callable[[xr.DataArray], xr.DataArray] | None
    of: Literal["mean", "members", "event"] = "mean"
    good: str = LOWER
    dimensionless: bool = False
    needs_reference: bool = False
    short: str = ""

    def __call__(self, means: xr.DataArray) -> xr.DataArray:
        """Values of the metric."""
        if self.compute is None:
            raise ValueError(f"got {self.name!r} to compute, which can only be shown")
        return self.compute(means)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("rmse", "Root-mean-square error", scores.rmse, short="RMSE"),
        Metric("mae", "Mean absolute error", scores.mae, short="MAE"),
        Metric("bias", "Bias (forecast − truth)", scores.bias, good=ZERO, short="Bias"),
        Metric(
            "acc",
            "Anomaly correlation",
            scores.acc,
            good=HIGHER,
            dimensionless=True,
            needs_reference=True,
            short="ACC",
        ),
        Metric(
            "correlation",
            "Correlation",
            scores.correlation,
            good=HIGHER,
            dimensionless=True,
            needs_reference=True,
        ),
        Metric("index_rmse", "RMSE of the region's mean", scores.index_rmse, short="Index RMSE"),
        Metric(
            "nmse",
            "Normalized mean-square error",
            scores.nmse,
            dimensionless=True,
            needs_reference=True,
            short="NMSE",
        ),
        Metric("crps", "Fair CRPS", ensemble.crps, "members", short="CRPS"),
        Metric("energy_score", "Fair energy score", ensemble.energy_score, "members"),
        Metric("spread", "Ensemble spread", ensemble.spread, "members", good=NEITHER),
        Metric(
            "spread_skill",
            "Spread / error",
            ensemble.spread_skill,
            "members",
            good=ONE,
            dimensionless=True,
        ),
        Metric(
            "seeps",
            "SEEPS (error of precipitation categories)",
            seeps.seeps,
            dimensionless=True,
            needs_reference=True,
            short="SEEPS",
        ),
        Metric("brier", "Brier score", events.brier, "event", dimensionless=True),
        Metric(
            "roc_area",
            "Area under the ROC curve",
            events.roc_area,
            "event",
            good=HIGHER,
            dimensionless=True,
            short="ROC area",
        ),
    )
}
"""All metrics by name but the fractions skill scores, ``fss_N`` for every odd N."""

# Of tables that others made: they are shown, not computed.
_FOREIGN = {
    name: Metric(name, words, None, good=HIGHER, dimensionless=True)
    for name, words in (
        ("r2", "Explained variance R²"),
        ("msess", "msess"),
        ("skill_score", "skill score"),
        ("explained_variance", "explained variance"),
    )
}


def find_metric(name: str) -> Metric:
    """Return the record of a metric.

    Raises
    ------
    ValueError
        If there is no metric of this name.

    Examples
    --------
    >>> find_metric("fss_5").words
    'Fractions skill score, 5 × 5 cells'
    """
    if name in METRICS:
        return METRICS[name]
    size = fractions.neighbourhood(name)
    if size is None:
        known = ", ".join(METRICS)
        raise ValueError(f"got metric {name!r}, expected some of {known}, fss_5 (of 5 × 5 cells)")
    return Metric(
        name,
        f"Fractions skill score, {size} × {size} cells",
        partial(fractions.fss, size=size),
        "event",
        good=HIGHER,
        dimensionless=True,
        short=f"FSS, {size} × {size} cells",
    )


def check_metrics(metrics: Sequence[str]) -> None:
    """Refuse unknown metric names."""
    for name in metrics:
        find_metric(name)


def is_event_metric(name: str) -> bool:
    """Whether a metric is defined on threshold events, and on nothing else."""
    return _shown(name).of == "event"


def with_event_metrics(metrics: Sequence[str], events: Sequence[str]) -> list[str]:
    """Add the metrics of events where there are events and none is among them.

    Raises
    ------
    ValueError
        If a metric is unknown, or there is one of events without events.
    """
    check_metrics(metrics)
    given = [m for m in metrics if is_event_metric(m)]
    if given and not events:
        raise ValueError(
            f"got metrics {given} without events, expected some, such as events=('t850>285',) or"
            " --events 't850>285'"
        )
    added = [m for m, metric in METRICS.items() if metric.of == "event"]
    return [*metrics, *(added if events and not given else ())]


def _shown(name: str) -> Metric:
    """The record of a metric in a table, ours or not."""
    known = METRICS.get(name) or _FOREIGN.get(name)
    if known is not None:
        return known
    if not name.startswith("fss_"):
        return Metric(name, name.replace("_", " "), None)
    try:
        return find_metric(name)
    except ValueError:  # of a table that others made
        cells = name.removeprefix("fss_")
        words = f"Fractions skill score, {cells}"
        return Metric(name, words, None, "event", good=HIGHER, dimensionless=True)


def better(metric: str) -> str:
    """Which values of a metric are good: "lower", "higher", near "zero" or "one", or "neither"."""
    return _shown(metric).good


def metric_name(metric: str) -> str:
    """Name of a metric in words."""
    return _shown(metric).words


def short_name(metric: str) -> str:
    """Abbreviation of a metric where it has one, else its name."""
    shown = _shown(metric)
    return shown.short or shown.words


def metric_units(metric: str, units: str) -> str:
    """Units in which a metric of a variable in ``units`` is given; empty if it has none."""
    return "" if is_dimensionless(metric) else pretty_units(units)


def is_dimensionless(metric: str) -> bool:
    """Whether values of a metric have no units."""
    return _shown(metric).dimensionless


def cost(value: np.ndarray, metric: str) -> np.ndarray:
    """Turn a metric into what is small when it is good; NaN where no value is good in itself."""
    with np.errstate(divide="ignore", invalid="ignore"):
        turned = {
            LOWER: value,
            HIGHER: -value,
            ZERO: np.abs(value),
            ONE: np.abs(np.log(value)),
            NEITHER: np.full_like(value, np.nan),
        }
    return np.asarray(turned[better(metric)])


def pretty_units(units: str) -> str:
    """Units with raised exponents.

    Examples
    --------
    >>> pretty_units("m2 s-2")
    'm² s⁻²'
    """
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    text = re.sub(
        r"(?<=[A-Za-z])(?:\*\*|\^)?(-?\d+)", lambda m: m[1].translate(raised), units.strip()
    )
    return "" if text in ("1", "dimensionless") else text
