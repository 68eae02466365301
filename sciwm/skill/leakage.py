"""Whether what is scored was seen in training."""

import numpy as np
import xarray as xr

from sciwm.skill.alignment import locate
from sciwm.times import numeric_time

__all__ = ["check_leakage"]


def check_leakage(training: xr.DataArray, init: xr.DataArray, valid: np.ndarray, *, allow: bool = False) -> str:
    """Refuse scores at times that the training block holds.

    Simulation times, and records in which a time occurs more than once (members), are not looked at: they are split by segment. Nor
    are forecasts whose segments are not those of the training block.

    Parameters
    ----------
    training : DataArray
        Times behind the climatology, the baselines or the model.
    init : DataArray, ``(init_time,)``
    valid : ndarray, ``(init_time, lead_time)``
        Valid times of what is scored.
    allow : bool
        Go on all the same.

    Returns
    -------
    str
        One sentence on what leaks, to stand beside the scores; empty if nothing does.

    Raises
    ------
    ValueError
        If an initial or valid time is in the training block and ``allow`` is false.

    Examples
    --------
    >>> days = xr.DataArray(np.arange("2000-01-01", "2000-01-09", dtype="M8[D]").astype("M8[ns]"), dims="time")
    >>> check_leakage(days[:4], days[5:6], days.values[None, 6:8])
    ''
    >>> check_leakage(days[:4], days[2:6], days.values[2:6, None] + np.timedelta64(2, "D"), allow=True)
    '2 of 4 initial times have themselves or a valid time in the training block (2000-01-01 to 2000-01-04)'
    """
    amounts = numeric_time(training.values)
    if training.dtype.kind in "iuf" or not training.size or len(np.unique(amounts)) < training.size:
        return ""
    if all("segment" in t.coords for t in (training, init)) and not np.isin(init["segment"], training["segment"]).any():
        return ""
    times = np.concatenate([init.values[:, None], valid], axis=1)
    inside = (locate(training.drop_vars("segment", errors="ignore"), times) >= 0).any(axis=1)
    if not inside.any():
        return ""
    first, last = (str(t)[:16].removesuffix("T00:00") for t in training.values[[amounts.argmin(), amounts.argmax()]])
    count = "the only initial time has itself" if inside.size == 1 else f"{inside.sum()} of {inside.size} initial times have themselves"
    said = f"{count} or a valid time in the training block ({first} to {last})"
    if not allow:
        raise ValueError(
            f"got forecasts to score of which {said}, expected none, because such scores are optimistic; to have them all the "
            "same, marked as such, pass allow_leakage=True or --allow-leakage"
        )
    return said
