"""Baselines by name: fitted once, then forecasting any initial times."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import xarray as xr

from sciwm.skill.baselines.analogs import analog_forecast, fit_analogs
from sciwm.skill.baselines.cslim import CyclicLim, cslim_forecast, fit_cslim
from sciwm.skill.baselines.lim import Lim, fit_lim, lim_forecast
from sciwm.skill.baselines.simple import (
    Reference,
    climatology_forecast,
    damped_persistence_forecast,
    fit_slopes,
    persistence_forecast,
)
from sciwm.skill.baselines.two_states import TwoStates, fit_two_states, two_states_forecast

__all__ = [
    "ALL_BASELINES",
    "BASELINES",
    "BASELINE_RECORDS",
    "LIM_EOFS",
    "MORE_BASELINES",
    "Baseline",
    "BaselineRecord",
    "fit_baseline",
]

LIM_EOFS = (10, 20, 30, 40, 60, 80)


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Parameters
    ----------
    forecast : callable
        From initial times to a lazy Dataset in the forecast layout.
    lim : Lim, CyclicLim, TwoStates or None
        The linear model behind it.
    notices : tuple of str
        What was warned of while it was fitted.
    """

    forecast: Callable[[Any], xr.Dataset]
    lim: Lim | CyclicLim | TwoStates | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class BaselineRecord:
    """What a baseline is.

    Parameters
    ----------
    name, label, words : str
        In tables and settings, in figures, and in the methods section of a paper.
    fit : callable
        From ``(reference, observed, lead_times, variables, lim_eofs)`` to a `Baseline`.
    usual : bool
        Whether it is made unless others are asked for.
    needs_reference : bool
        Whether it takes what was learnt in the training years.
    monthly : bool
        Whether it is for monthly data only.
    """

    name: str
    label: str
    words: str
    fit: Callable[..., Baseline]
    usual: bool = True
    needs_reference: bool = True
    monthly: bool = False


def _climatology(
    reference: Reference, observed: xr.Dataset, lead_times: Any, variables: Any, lim_eofs: Any
) -> Baseline:
    scored = replace(reference, anomaly=reference.anomaly[list(variables)])
    return Baseline(lambda init: climatology_forecast(scored, observed, init, lead_times))


def _persistence(
    reference: Reference | None,
    observed: xr.Dataset,
    lead_times: Any,
    variables: Any,
    lim_eofs: Any,
) -> Baseline:
    names = list(variables)
    own = None if reference is None else replace(reference, anomaly=reference.anomaly[names])
    return Baseline(lambda init: persistence_forecast(own, observed[names], init, lead_times))


def _damped(
    reference: Reference, observed: xr.Dataset, lead_times: Any, variables: Any, lim_eofs: Any
) -> Baseline:
    scored = replace(reference, anomaly=reference.anomaly[list(variables)])
    slopes = fit_slopes(scored, lead_times).compute()
    damp = partial(damped_persistence_forecast, scored, observed, slopes=slopes)
    return Baseline(lambda init: damp(init, lead_times))


def _lim(
    reference: Reference, observed: xr.Dataset, lead_times: Any, variables: Any, lim_eofs: Any
) -> Baseline:
    lim = fit_lim(reference, lead_times, eofs=lim_eofs)
    return Baseline(partial(lim_forecast, lim, reference, observed), lim)


def _analogs(
    reference: Reference, observed: xr.Dataset, lead_times: Any, variables: Any, lim_eofs: Any
) -> Baseline:
    found = fit_analogs(reference, lead_times)
    return Baseline(partial(analog_forecast, found, reference, observed))


def _cslim(
    reference: Reference, observed: xr.Dataset, lead_times: Any, variables: Any, lim_eofs: Any
) -> Baseline:
    cyclic = fit_cslim(reference, lead_times, eofs=lim_eofs)
    return Baseline(partial(cslim_forecast, cyclic, reference, observed), cyclic)


def _two_states(
    reference: Reference, observed: xr.Dataset, lead_times: Any, variables: Any, lim_eofs: Any
) -> Baseline:
    fitted = fit_two_states(reference, lead_times, eofs=lim_eofs)
    return Baseline(partial(two_states_forecast, fitted, reference, observed), fitted)


BASELINE_RECORDS = {
    record.name: record
    for record in (
        BaselineRecord("climatology", "Climatology", "climatology", _climatology),
        BaselineRecord(
            "persistence", "Persistence", "persistence", _persistence, needs_reference=False
        ),
        BaselineRecord(
            "damped_persistence",
            "Damped persistence",
            "damped persistence (climatology plus the initial anomaly times a regression slope for"
            " each cell and lead)",
            _damped,
        ),
        BaselineRecord(
            "lim",
            "Linear inverse model",
            "a linear inverse model of all variables together in the space of their leading"
            " empirical orthogonal functions",
            _lim,
        ),
        BaselineRecord(
            "two_states",
            "Linear regression on two states",
            "a linear regression of every cell on the leading empirical orthogonal functions of"
            " the last two states",
            _two_states,
            usual=False,
        ),
        BaselineRecord(
            "analogs",
            "Analogs",
            "the mean of what followed the most similar training days of the season",
            _analogs,
            usual=False,
        ),
        BaselineRecord(
            "cslim",
            "Cyclostationary linear inverse model",
            "a cyclostationary linear inverse model (a propagator for each calendar month,"
            " neighbouring months pooled)",
            _cslim,
            usual=False,
            monthly=True,
        ),
    )
}
ALL_BASELINES = tuple(BASELINE_RECORDS)
BASELINES = tuple(name for name, record in BASELINE_RECORDS.items() if record.usual)
MORE_BASELINES = tuple(name for name, record in BASELINE_RECORDS.items() if not record.monthly)


def fit_baseline(
    name: str,
    reference: Reference | None,
    observed: xr.Dataset,
    lead_times: Any,
    *,
    variables: Sequence[str],
    lim_eofs: Sequence[int] = LIM_EOFS,
) -> Baseline:
    """Fit a baseline on the training years.

    Parameters
    ----------
    name : str
        One of `ALL_BASELINES`.
    reference : Reference or None
        None is enough for ``persistence``.
    observed : Dataset
        Where initial states are read.
    lead_times : array-like
        As `Step.lead_times` makes them.
    variables : sequence of str
        What is forecast; only linear models and analogs look at others, too.
    lim_eofs : sequence of int
        Truncations that the linear models choose from.
    """
    record = BASELINE_RECORDS[name]
    assert reference is not None or not record.needs_reference
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        made = record.fit(reference, observed, lead_times, variables, lim_eofs)
    told = []
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            told.append(str(warning.message))
        else:
            where = (warning.filename, warning.lineno)
            warnings.warn_explicit(warning.message, warning.category, *where)
    return replace(made, notices=tuple(dict.fromkeys(told)))
