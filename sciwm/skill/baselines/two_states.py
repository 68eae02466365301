r"""Linear regression on the last two states: how things are, and where they are going.

Anomalies of all variables are projected on their leading EOFs, ``p``. Every cell is regressed on
those of two states, at every lead anew:

.. math:: \hat z(t+\tau) = A_\tau\, p(t) + B_\tau\, p(t-1).

The number of EOFs has the smallest error on the validation block, for every lead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
import xarray as xr

from sciwm.skill.alignment import training_pairs
from sciwm.skill.baselines.eofs import leading_eofs
from sciwm.skill.baselines.folds import least_errors, training_folds
from sciwm.skill.baselines.lim import truncations
from sciwm.skill.baselines.matrix import StateLayout, fit_layout
from sciwm.skill.baselines.simple import (
    Reference,
    add_climatology,
    axes,
    init_anomaly,
    lead_steps,
)
from sciwm.times import Step

__all__ = ["Slopes", "TwoStates", "fit_two_states", "two_states_forecast"]


@dataclass(frozen=True)
class Slopes:
    """Linear forecast to one lead.

    Parameters
    ----------
    lead_steps : int
        Time steps ahead.
    eofs : int
        Leading EOFs of each of the two states.
    matrix : ndarray, ``(2 * eofs, cells)``
        Applied from the right to rows of coefficients, the later state first.
    validation_nmse : float
        Error on the validation block that it was chosen by, over that of the climatology: the mean
        of all channels.
    """

    lead_steps: int
    eofs: int
    matrix: np.ndarray
    validation_nmse: float

    @property
    def kind(self) -> str:
        """In words, beside the number of EOFs."""
        return "two states"


@dataclass(frozen=True)
class TwoStates:
    """A fitted regression on two states.

    Parameters
    ----------
    layout : StateLayout
        Between fields and rows.
    patterns : ndarray, ``(eofs, cells)``
        Orthonormal EOFs of standardized, area-weighted anomalies, by falling variance.
    propagators : tuple of Slopes
        One for each lead.
    step : Step
    """

    layout: StateLayout
    patterns: np.ndarray
    propagators: tuple[Slopes, ...]
    step: Step


def fit_two_states(
    reference: Reference, lead_times: Any, *, eofs: Sequence[int] = (10, 20, 30, 40, 60, 80)
) -> TwoStates:
    """Fit the regression; the number of EOFs is chosen for each lead on the validation block.

    Parameters
    ----------
    reference : Reference
        Training and validation anomalies; all its variables enter one joint state. Without a
        validation block, choices are made on fifths of the training block, as for the LIM.
    lead_times : array-like
        As `Step.lead_times` makes them.
    eofs : sequence of int
        Numbers to choose from. A state of at most 50 cells (torsions, indices) keeps all EOFs.

    Returns
    -------
    TwoStates

    Raises
    ------
    ValueError
        If there are hardly training times with one before and one a lead later.

    Warns
    -----
    UserWarning
        If more EOFs are asked for than the sample supports.
    """
    steps = lead_steps(lead_times, reference.step)
    if reference.validation is not None:
        fit = _Fit(reference, steps, eofs)
        choice = least_errors([_errors(fit, reference)])
    else:
        folds = training_folds(reference, max(steps))
        choice = least_errors([_errors(_Fit(fold, steps, eofs), fold) for fold in folds])
        fit = _Fit(reference, steps, sorted({k for k, _ in choice.values()}))
    slopes = (Slopes(s, k, fit.slopes(s, k), error) for s, (k, error) in choice.items())
    return TwoStates(fit.layout, fit.patterns, tuple(slopes), reference.step)


class _Fit:
    """EOFs of a training block, and for each lead what its triples of times sum to."""

    def __init__(self, reference: Reference, steps: Sequence[int], eofs: Sequence[int]) -> None:
        self.layout, z = fit_layout(reference.anomaly)
        time, step = reference.anomaly["time"], reference.step
        triples = {s: _triples(time, s, step) for s in steps}
        # Twice as many slopes as EOFs: half as many are supported as by the LIM.
        limit = min((min(len(t[0]) for t in triples.values()) - 1) // 2, z.shape[1])
        if limit < 1:
            raise ValueError(
                "got hardly any training times with one before and one a lead later, expected many,"
                " because every cell is regressed on two states"
            )
        self.candidates = truncations(eofs, limit, z.shape[1])
        self.patterns, _ = leading_eofs(z, max(self.candidates))
        self.sums = {}
        for s, (before, now, later) in triples.items():
            pair = _pair(self.patterns, z[now], z[before])
            self.sums[s] = pair.T @ pair, pair.T @ z[later]

    def slopes(self, steps: int, k: int) -> np.ndarray:
        """Coefficients of the regression on ``k`` EOFs of each state."""
        square, cross = self.sums[steps]
        used = _columns(len(self.patterns), k)
        return np.asarray(scipy.linalg.lstsq(square[np.ix_(used, used)], cross[used])[0])


def _pair(patterns: np.ndarray, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Coefficients of two states side by side, the later one first."""
    return np.concatenate([now @ patterns.T, before @ patterns.T], axis=1)


def _columns(total: int, k: int) -> np.ndarray:
    """Those of the leading ``k`` EOFs of both states."""
    return np.concatenate([np.arange(k), total + np.arange(k)])


def _triples(time: xr.DataArray, steps: int, step: Step) -> tuple[np.ndarray, ...]:
    """Positions of all times ``t - 1, t, t + steps`` of one segment."""
    earlier, after = training_pairs(time, 1, step)
    before = np.full(time.size, -1)
    before[after] = earlier
    now, later = training_pairs(time, steps, step)
    whole = before[now] >= 0
    return before[now[whole]], now[whole], later[whole]


def _errors(fit: _Fit, reference: Reference) -> dict[int, dict[int, float]]:
    """Errors on the validation block with each number of EOFs, for each lead."""
    assert reference.validation is not None
    z = fit.layout.to_matrix(reference.validation, dim="time")
    out: dict[int, dict[int, float]] = {}
    for s in fit.sums:
        before, now, later = _triples(reference.validation["time"], s, reference.step)
        if not len(now):
            raise ValueError(
                f"got a validation block without times {s} steps apart, expected one longer than"
                " the longest lead"
            )
        pair = _pair(fit.patterns, z[now], z[before])
        out[s] = {}
        for k in fit.candidates:
            forecast = pair[:, _columns(len(fit.patterns), k)] @ fit.slopes(s, k)
            out[s][k] = fit.layout.nmse(forecast, z[later])
    return out


def two_states_forecast(
    fitted: TwoStates, reference: Reference, observed: xr.Dataset, init_times: Any
) -> xr.Dataset:
    """Forecast with a regression on two states, to the leads it was fitted for.

    Parameters
    ----------
    fitted : TwoStates
    reference : Reference
        The one it was fitted on.
    observed : Dataset
        Dims ``(time, [level], *space)``; read at the initial times and one step before.
    init_times : array-like

    Returns
    -------
    Dataset
        Forecast layout, physical units. Cells left out of the EOFs get the climatology.

    Raises
    ------
    ValueError
        If an initial time, or the time before, is not in ``observed``; the message lists them.
    """
    lead_times = fitted.step.lead_times([p.lead_steps for p in fitted.propagators])
    init, lead = axes(init_times, lead_times, fitted.step)
    earlier = init.copy(data=fitted.step.add(init.values, -1))
    now, before = (
        fitted.layout.to_matrix(init_anomaly(reference, observed, each), dim="init_time")
        for each in (init, earlier)
    )
    pair = _pair(fitted.patterns, now, before)
    anomaly = fitted.layout.forecast(partial(_all_leads, fitted=fitted), pair, init=init, lead=lead)
    return add_climatology(anomaly, reference, observed)


def _all_leads(pair: np.ndarray, fitted: TwoStates) -> np.ndarray:
    total = len(fitted.patterns)
    rows = [pair[:, _columns(total, p.eofs)] @ p.matrix for p in fitted.propagators]
    return np.stack(rows, axis=1)
