"""Choices without the test block: on the validation block, or on parts of the training block."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from sciwm.skill.alignment import training_pairs
from sciwm.skill.baselines.simple import Reference

__all__ = ["least_errors", "split_off_validation", "training_folds", "validation_pairs"]

_FOLDS = 5
Choice = TypeVar("Choice")


def split_off_validation(reference: Reference) -> Reference:
    """Make the last fifth of the training block the validation block, to choose with.

    Afterwards, the fit is made on all of the training block.
    """
    time = reference.anomaly.sizes["time"]
    cut = time - max(1, time // 5)
    kept = reference.anomaly.isel(time=slice(None, cut))
    held = reference.anomaly.isel(time=slice(cut, None))
    return dataclasses.replace(reference, anomaly=kept, validation=held)


def training_folds(reference: Reference, longest: int) -> list[Reference]:
    """Cut the training block into five blocks of consecutive times.

    Each in turn is the validation block of the rest.

    Parameters
    ----------
    reference : Reference
        Its validation block is not looked at.
    longest : int
        Time steps of the longest lead. As many training times are left out on both sides of a
        validation block.

    Returns
    -------
    list of Reference
        Fewer than five where the others would leave nothing to learn from. At least one, the last
        fifth.
    """
    count = reference.anomaly.sizes["time"]
    index = np.arange(count)
    bounds = np.linspace(0, count, _FOLDS + 1).round().astype(int)
    folds = []
    for start, stop in pairwise(bounds):
        rest = index[(index < start - longest) | (index >= stop + longest)]
        if len(rest) > longest + 1 and stop - start > longest:
            held = reference.anomaly.isel(time=slice(int(start), int(stop)))
            kept = reference.anomaly.isel(time=rest)
            folds.append(dataclasses.replace(reference, anomaly=kept, validation=held))
    return folds or [split_off_validation(reference)]


def validation_pairs(reference: Reference, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs ``(t, t + lead)`` of the validation block.

    Raises
    ------
    ValueError
        If there are none.
    """
    assert reference.validation is not None
    first, later = training_pairs(reference.validation["time"], steps, reference.step)
    if not len(first):
        raise ValueError(
            f"got a validation block without times {steps} steps apart, expected one longer than"
            " the longest lead"
        )
    return first, later


def least_errors(
    errors: Sequence[Mapping[int, Mapping[Choice, float]]],
) -> dict[int, tuple[Choice, float]]:
    """For each lead, what has the least error in the mean over all folds, and that error.

    Parameters
    ----------
    errors : sequence of mapping
        For each fold, errors by lead and choice. A choice that a fold lacks is not taken.
    """
    found = {}
    for lead in errors[0]:
        shared = [c for c in errors[0][lead] if all(c in fold[lead] for fold in errors)]
        mean = {c: float(np.mean([fold[lead][c] for fold in errors])) for c in shared}
        best = min(mean, key=lambda c: mean[c])
        found[lead] = (best, mean[best])
    return found
