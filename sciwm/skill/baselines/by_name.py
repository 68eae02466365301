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

__all__ = ["ALL_BASELINES", "BASELINES", "LIM_EOFS", "MORE_BASELINES", "Baseline", "fit_baseline"]

BASELINES = ("climatology", "persistence", "damped_persistence", "lim")
MORE_BASELINES = (*BASELINES, "analogs")
ALL_BASELINES = (*MORE_BASELINES, "cslim")  # the last for monthly data only
LIM_EOFS = (10, 20, 30, 40, 60, 80)


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Parameters
    ----------
    forecast : callable
        From initial times to a lazy Dataset in the forecast layout.
    lim : Lim, CyclicLim or None
        The linear inverse model behind it.
    notices : tuple of str
        What was warned of while it was fitted.
    """

    forecast: Callable[[Any], xr.Dataset]
    lim: Lim | CyclicLim | None = None
    notices: tuple[str, ...] = ()


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
        What is forecast; only the LIMs and the analogs look at others, too.
    lim_eofs : sequence of int
        Truncations that the LIMs choose from.
    """
    if name == "persistence":
        own = (
            None
            if reference is None
            else replace(reference, anomaly=reference.anomaly[list(variables)])
        )
        return Baseline(
            lambda init: persistence_forecast(own, observed[list(variables)], init, lead_times)
        )
    assert reference is not None
    scored = replace(reference, anomaly=reference.anomaly[list(variables)])
    if name == "climatology":
        return Baseline(lambda init: climatology_forecast(scored, observed, init, lead_times))
    if name == "damped_persistence":
        slopes = fit_slopes(scored, lead_times).compute()
        return Baseline(
            lambda init: damped_persistence_forecast(
                scored, observed, init, lead_times, slopes=slopes
            )
        )
    if name == "analogs":
        return Baseline(
            partial(analog_forecast, fit_analogs(reference, lead_times), reference, observed)
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if name == "cslim":
            cyclic = fit_cslim(reference, lead_times, eofs=lim_eofs)
            made = Baseline(partial(cslim_forecast, cyclic, reference, observed), cyclic)
        else:
            lim = fit_lim(reference, lead_times, eofs=lim_eofs)
            made = Baseline(partial(lim_forecast, lim, reference, observed), lim)
    return replace(
        made,
        notices=tuple(
            dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning))
        ),
    )
