r"""Cyclostationary linear inverse model: a propagator for each calendar month.

Monthly anomalies grow in some seasons and decay in others. El Niño does not do in spring what it
does in autumn. So each start month ``j`` has a propagator over one month. It is regressed on the
pairs that begin in this month or its neighbours. A forecast is the product of propagators,

.. math:: \hat p(t+\tau) = G_{j+\tau-1} \cdots G_{j+1} G_j\, p(t), \qquad G_j = C_j(1) C_j(0)^{-1},

with the sums ``C`` over months ``j - 1, j, j + 1`` (Shin, Sardeshmukh, Newman, Penland and
Alexander 2021, doi:10.1175/JCLI-D-20-0291.1). The number of EOFs is chosen for each lead. What the
EOFs leave out is damped cell by cell, as in `sciwm.skill.baselines.lim`.
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
from sciwm.skill.baselines.folds import least_errors, training_folds, validation_pairs
from sciwm.skill.baselines.lim import truncations, warn_of_eigenvalues
from sciwm.skill.baselines.matrix import StateLayout, fit_layout
from sciwm.skill.baselines.simple import (
    Reference,
    add_climatology,
    axes,
    init_anomaly,
    lead_steps,
)
from sciwm.times import Step, calendar_fields

__all__ = ["CyclicLim", "CyclicPropagator", "cslim_forecast", "fit_cslim"]

_MONTHS = 12


@dataclass(frozen=True)
class CyclicPropagator:
    """Linear forecast to one lead from each calendar month.

    Parameters
    ----------
    lead_steps : int
        Months ahead.
    eofs : int
        Leading EOFs used.
    matrices : ndarray, ``(12, eofs, eofs)``
        For starts in January, February, …; applied from the right to rows of coefficients.
    damping : ndarray, ``(12, cells)``
        Slopes for what the EOFs leave out.
    validation_nmse : float
        Error that the truncation was chosen by, over that of the climatology, mean of all channels.
    """

    lead_steps: int
    eofs: int
    matrices: np.ndarray
    damping: np.ndarray
    validation_nmse: float


@dataclass(frozen=True)
class CyclicLim:
    """A fitted cyclostationary linear inverse model.

    Parameters
    ----------
    layout : StateLayout
        Between fields and rows.
    patterns : ndarray, ``(eofs, cells)``
        Orthonormal EOFs of standardized, area-weighted anomalies of all months, by falling
        variance.
    propagators : tuple of CyclicPropagator
        One for each lead.
    step : Step
        One month.
    """

    layout: StateLayout
    patterns: np.ndarray
    propagators: tuple[CyclicPropagator, ...]
    step: Step


@dataclass(frozen=True)
class _Sample:
    """Training rows, their months, and the pairs of each lead."""

    layout: StateLayout
    z: np.ndarray
    patterns: np.ndarray
    month: np.ndarray  # 0 to 11
    pairs: dict[int, tuple[np.ndarray, np.ndarray]]

    def around(self, steps: int, month: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs that begin in a month or its neighbours."""
        first, later = self.pairs[steps]
        near = np.isin((self.month[first] - month) % _MONTHS, (0, 1, _MONTHS - 1))
        return first[near], later[near]


def fit_cslim(
    reference: Reference, lead_times: Any, *, eofs: Sequence[int] = (4, 6, 8, 10, 15, 20, 30)
) -> CyclicLim:
    """Fit a propagator for each calendar month.

    The truncation is chosen for each lead on the validation block.

    Parameters
    ----------
    reference : Reference
        Monthly anomalies; all its variables enter one joint state. Without a validation block, the
        choice is made by blocked cross-validation within the training block.
    lead_times : array-like
        Months.
    eofs : sequence of int
        Truncations to choose from; a state of at most 50 cells keeps all of them.

    Returns
    -------
    CyclicLim

    Raises
    ------
    ValueError
        If the data are not monthly, or a calendar month has too few pairs of times.

    Warns
    -----
    UserWarning
        If truncations exceed the sample, or the product of the twelve propagators has a growing
        mode.
    """
    if (reference.step.unit, reference.step.value) != ("months", 1.0):
        raise ValueError(
            f"got data in steps of {reference.step} for cslim, expected 1 months, because it has a"
            " propagator for each month"
        )
    steps = lead_steps(lead_times, reference.step)
    chosen_here = reference.validation is not None
    trials = [reference] if chosen_here else training_folds(reference, max(steps))
    choice = least_errors([_errors(trial, steps, eofs) for trial in trials])
    used = sorted({k for k, _ in choice.values()})
    sample, _ = _sample(reference, steps, used)
    monthly = {k: _monthly(sample, k) for k in used}
    for k in used:
        values = np.linalg.eigvals(np.linalg.multi_dot(monthly[k]))
        what = "product of twelve monthly propagators"
        warn_of_eigenvalues(values, f"CSLIM with {k} EOFs", what, negative=False)
    propagators = tuple(
        _propagator(sample, monthly[k], s, k, error) for s, (k, error) in choice.items()
    )
    return CyclicLim(sample.layout, sample.patterns, propagators, reference.step)


def _sample(
    reference: Reference, steps: Sequence[int], eofs: Sequence[int]
) -> tuple[_Sample, list[int]]:
    layout, z = fit_layout(reference.anomaly)
    time = reference.anomaly["time"]
    pairs = {s: training_pairs(time, s, reference.step) for s in {1, *steps}}
    month = calendar_fields(time.values)[2] - 1
    sample = _Sample(layout, z, np.empty((0, z.shape[1])), month, pairs)
    fewest = min(len(sample.around(s, m)[0]) for s in pairs for m in range(_MONTHS))
    if fewest < 3:
        raise ValueError(
            f"got {fewest} training pairs about some calendar month, expected many more, because"
            " cslim regresses on each"
        )
    candidates = truncations(eofs, min(fewest - 1, z.shape[1]), z.shape[1])
    patterns, _ = leading_eofs(z, max(candidates))
    return _Sample(layout, z, patterns, month, pairs), candidates


def _monthly(sample: _Sample, k: int) -> list[np.ndarray]:
    """Propagators over one month, by start month."""
    p = sample.z @ sample.patterns[:k].T
    pairs = (sample.around(1, m) for m in range(_MONTHS))
    return [np.asarray(scipy.linalg.lstsq(p[first], p[later])[0]) for first, later in pairs]


def _propagator(
    sample: _Sample, monthly: Sequence[np.ndarray], steps: int, k: int, error: float
) -> CyclicPropagator:
    matrices, damping = [], []
    rest = sample.z - sample.z @ sample.patterns[:k].T @ sample.patterns[:k]
    for month in range(_MONTHS):
        product = np.eye(k)
        for step in range(steps):
            product = product @ monthly[(month + step) % _MONTHS]
        matrices.append(product)
        first, later = sample.around(steps, month)
        square = (rest[first] ** 2).sum(axis=0)
        alive = square > 1e-9 * (sample.z[first] ** 2).sum(axis=0)
        product_rest = (rest[first] * rest[later]).sum(axis=0)
        damping.append(np.where(alive, product_rest / np.where(alive, square, 1.0), 0.0))
    return CyclicPropagator(steps, k, np.stack(matrices), np.stack(damping), error)


def _errors(
    reference: Reference, steps: Sequence[int], eofs: Sequence[int]
) -> dict[int, dict[int, float]]:
    """Errors on the validation block by lead and truncation."""
    sample, candidates = _sample(reference, steps, eofs)
    assert reference.validation is not None
    held = sample.layout.to_matrix(reference.validation, dim="time")
    month = calendar_fields(reference.validation["time"].values)[2] - 1
    pairs = {s: validation_pairs(reference, s) for s in steps}
    out: dict[int, dict[int, float]] = {s: {} for s in steps}
    for k in candidates:
        monthly = _monthly(sample, k)
        for s in steps:
            first, later = pairs[s]
            trial = _propagator(sample, monthly, s, k, np.nan)
            forecast = _forward(held[first], month[first], sample.patterns, trial)
            out[s][k] = sample.layout.nmse(forecast, held[later])
    return out


def _forward(
    z: np.ndarray, month: np.ndarray, patterns: np.ndarray, propagator: CyclicPropagator
) -> np.ndarray:
    v = patterns[: propagator.eofs]
    p = z @ v.T
    later = np.einsum("ti,tij->tj", p, propagator.matrices[month])
    return np.asarray(later @ v + (z - p @ v) * propagator.damping[month])


def cslim_forecast(
    lim: CyclicLim, reference: Reference, observed: xr.Dataset, init_times: Any
) -> xr.Dataset:
    """Forecast with a cyclostationary linear inverse model to the leads it was fitted for.

    Parameters
    ----------
    lim : CyclicLim
    reference : Reference
        The one it was fitted on.
    observed : Dataset
        Dims ``(time, [level], *space)``; read at the initial times.
    init_times : array-like

    Returns
    -------
    Dataset
        Forecast layout, physical units. Cells left out of the EOFs get the climatology.

    Raises
    ------
    ValueError
        If an initial time is not in ``observed``; the message lists them.
    """
    lead_times = lim.step.lead_times([p.lead_steps for p in lim.propagators])
    init, lead = axes(init_times, lead_times, lim.step)
    z = lim.layout.to_matrix(init_anomaly(reference, observed, init), dim="init_time")
    month = calendar_fields(init.values)[2] - 1
    anomaly = lim.layout.forecast(partial(_all_leads, lim=lim), z, month, init=init, lead=lead)
    return add_climatology(anomaly, reference, observed)


def _all_leads(z: np.ndarray, month: np.ndarray, lim: CyclicLim) -> np.ndarray:
    return np.stack([_forward(z, month, lim.patterns, p) for p in lim.propagators], axis=1)
