"""Parts of the training block to choose with, where there is no validation block."""

import dataclasses
from itertools import pairwise

import numpy as np

from sciwm.skill.baselines.simple import Reference

__all__ = ["split_off_validation", "training_folds"]

_FOLDS = 5


def split_off_validation(reference: Reference) -> Reference:
    """Make the last fifth of the training block the validation block, to choose with; for a fit on all of it afterwards."""
    time = reference.anomaly.sizes["time"]
    cut = time - max(1, time // 5)
    return Reference(
        climatology=reference.climatology,
        anomaly=reference.anomaly.isel(time=slice(None, cut)),
        validation=reference.anomaly.isel(time=slice(cut, None)),
        step=reference.step,
    )


def training_folds(reference: Reference, longest: int) -> list[Reference]:
    """Cut the training block into five blocks of consecutive times; each in turn is the validation block of the rest.

    Parameters
    ----------
    reference : Reference
        Its validation block is not looked at.
    longest : int
        Time steps of the longest lead; as many training times are left out on both sides of a
        validation block.

    Returns
    -------
    list of Reference
        Fewer than five, at least one (the last fifth), where the others would leave nothing to
        learn from.
    """
    count = reference.anomaly.sizes["time"]
    index = np.arange(count)
    bounds = np.linspace(0, count, _FOLDS + 1).round().astype(int)
    folds = []
    for start, stop in pairwise(bounds):
        rest = index[(index < start - longest) | (index >= stop + longest)]
        if len(rest) > longest + 1 and stop - start > longest:
            held = reference.anomaly.isel(time=slice(int(start), int(stop)))
            folds.append(
                dataclasses.replace(
                    reference, anomaly=reference.anomaly.isel(time=rest), validation=held
                )
            )
    return folds or [split_off_validation(reference)]
