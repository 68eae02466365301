"""Analog forecasts: what followed the training days most like today.

Days are compared by the coefficients of their leading EOFs, within the same season. The forecast
anomaly of a lead is the mean over the nearest analogs' anomalies that much later. How many, and how
many EOFs, is chosen for each lead on the validation block.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from sciwm.skill.alignment import training_pairs
from sciwm.skill.baselines.eofs import leading_eofs
from sciwm.skill.baselines.folds import split_off_validation, validation_pairs
from sciwm.skill.baselines.matrix import StateLayout, fit_layout
from sciwm.skill.baselines.simple import (
    Reference,
    add_climatology,
    axes,
    init_anomaly,
    lead_steps,
)
from sciwm.times import Step, calendar_fields

__all__ = ["Analogs", "analog_forecast", "fit_analogs"]

_SEASON = 45.5 / 365.25  # analogs are at most so far away in the phase of the year
_BLOCK = 20_000_000  # values of one in-memory block


@dataclass(frozen=True)
class Analogs:
    """A library of training days.

    Parameters
    ----------
    layout : StateLayout
        Between fields and rows.
    rows : ndarray, ``(time, cells)``
        Standardized, area-weighted anomalies of the training block.
    coefficients : ndarray, ``(time, eofs)``
        Of their leading EOFs.
    patterns : ndarray, ``(eofs, cells)``
    phase : ndarray, ``(time,)``, or None
        Phase of the year of every training time; None for data without seasons.
    later : ndarray of int, ``(lead, time)``
        Position of the time one lead later, −1 where there is none.
    lead_steps, eofs, neighbours : tuple of int
        What each lead uses.
    validation_nmse : tuple of float
        Error on the validation block that it was chosen by, over that of the climatology.
    step : Step
    """

    layout: StateLayout
    rows: np.ndarray
    coefficients: np.ndarray
    patterns: np.ndarray
    phase: np.ndarray | None
    later: np.ndarray
    lead_steps: tuple[int, ...]
    eofs: tuple[int, ...]
    neighbours: tuple[int, ...]
    validation_nmse: tuple[float, ...]
    step: Step


def fit_analogs(
    reference: Reference,
    lead_times: Any,
    *,
    eofs: Sequence[int] = (5, 10, 20),
    neighbours: Sequence[int] = (5, 10, 20, 40, 80, 160),
) -> Analogs:
    """Keep the training block as a library, and choose how it is used.

    The numbers of EOFs and of analogs are chosen for each lead on the validation block.

    Parameters
    ----------
    reference : Reference
        Training and validation anomalies; all its variables are compared. Without a validation
        block, choices are made on the last fifth of the training block, forecast from the rest.
    lead_times : array-like
        As `Step.lead_times` makes them.
    eofs, neighbours : sequence of int
        To choose from; what exceeds the training block is skipped.

    Returns
    -------
    Analogs

    Raises
    ------
    ValueError
        If no pair of training or of validation times is one lead apart.
    """
    steps = lead_steps(lead_times, reference.step)
    trial = split_off_validation(reference) if reference.validation is None else reference
    library = _library(trial, steps, max(eofs))
    assert trial.validation is not None
    held = library.layout.to_matrix(trial.validation, dim="time")
    phase = _phase(trial.validation["time"], trial.step)
    chosen = []
    for k, s in enumerate(steps):
        first, later = validation_pairs(trial, s)
        start, season = held[first], None if phase is None else phase[first]
        most = int((library.later[k] >= 0).sum())
        trials = []
        for e in sorted({min(e, len(library.patterns)) for e in eofs}):
            for n in sorted({min(n, most) for n in neighbours}):
                forecast = _forecast(library, k, e, n, start, season)
                trials.append((library.layout.nmse(forecast, held[later]), e, n))
        chosen.append(min(trials))
    final = library if reference.validation is not None else _library(reference, steps, max(eofs))
    errors, used, counts = zip(*chosen, strict=True)
    return replace(final, eofs=used, neighbours=counts, validation_nmse=errors)


def _library(reference: Reference, steps: Sequence[int], eofs: int) -> Analogs:
    layout, rows = fit_layout(reference.anomaly)
    patterns, _ = leading_eofs(rows, min(eofs, *rows.shape))
    time = reference.anomaly["time"]
    later = np.full((len(steps), time.size), -1)
    for k, s in enumerate(steps):
        first, then = training_pairs(time, s, reference.step)
        if not len(first):
            raise ValueError(
                f"got no training pairs {s} steps apart, expected a training block longer than the"
                " lead"
            )
        later[k, first] = then
    phase = _phase(time, reference.step)
    return Analogs(
        layout=layout,
        rows=rows,
        coefficients=rows @ patterns.T,
        patterns=patterns,
        phase=phase,
        later=later,
        lead_steps=tuple(steps),
        eofs=(),
        neighbours=(),
        validation_nmse=(),
        step=reference.step,
    )


def _phase(time: xr.DataArray, step: Step) -> np.ndarray | None:
    return None if step.unit == "ps" else calendar_fields(time.values)[0]


def _nearest(
    library: Analogs, lead: int, eofs: int, count: int, z: np.ndarray, phase: np.ndarray | None
) -> np.ndarray:
    """Positions of the nearest training times with a successor: ``(init, count)``, in no order."""
    known = np.flatnonzero(library.later[lead] >= 0)
    have, want = library.coefficients[known, :eofs], z @ library.patterns[:eofs].T
    distance = (want**2).sum(axis=1)[:, None] + (have**2).sum(axis=1) - 2 * want @ have.T
    if phase is not None and library.phase is not None:
        gap = np.abs(phase[:, None] - library.phase[known])
        outside = np.minimum(gap, 1 - gap) > _SEASON
        # Out of season only where there are too few in season, farthest last.
        distance = np.where(outside, distance + distance.max(axis=1, keepdims=True) + 1.0, distance)
    return np.asarray(known[np.argpartition(distance, count - 1, axis=1)[:, :count]])


def _forecast(
    library: Analogs, lead: int, eofs: int, count: int, z: np.ndarray, phase: np.ndarray | None
) -> np.ndarray:
    """Mean of what followed the analogs: ``(init, cells)``."""
    out = np.empty((len(z), library.rows.shape[1]))
    size = max(1, _BLOCK // (count * library.rows.shape[1] + len(library.rows)))
    for i in range(0, len(z), size):
        part = slice(i, i + size)
        season = None if phase is None else phase[part]
        found = _nearest(library, lead, eofs, count, z[part], season)
        out[part] = library.rows[library.later[lead][found]].mean(axis=1)
    return out


def analog_forecast(
    analogs: Analogs, reference: Reference, observed: xr.Dataset, init_times: Any
) -> xr.Dataset:
    """Forecast with analogs to the leads they were chosen for.

    Parameters
    ----------
    analogs : Analogs
    reference : Reference
        The one they come from.
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

    Warns
    -----
    UserWarning
        If initial times are in the library: their analog would be themselves.
    """
    init, lead = axes(init_times, analogs.step.lead_times(list(analogs.lead_steps)), analogs.step)
    if analogs.step.unit != "ps" and np.isin(init.values, reference.anomaly["time"].values).any():
        warnings.warn(
            "analogs: initial times are in the training block, where each is its own best analog",
            stacklevel=2,
        )
    z = analogs.layout.to_matrix(init_anomaly(reference, observed, init), dim="init_time")
    phase = _phase(init, analogs.step)
    others = [] if phase is None else [phase]
    anomaly = analogs.layout.forecast(
        partial(_all_leads, analogs=analogs), z, *others, init=init, lead=lead
    )
    return add_climatology(anomaly, reference, observed)


def _all_leads(z: np.ndarray, phase: np.ndarray | None = None, *, analogs: Analogs) -> np.ndarray:
    leads = enumerate(zip(analogs.eofs, analogs.neighbours, strict=True))
    return np.stack([_forecast(analogs, k, e, n, z, phase) for k, (e, n) in leads], axis=1)
