"""How the scores of a table were computed, in sentences for a paper."""

import re
from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciwm.skill.labels import Leads, join_words, lead_axis, metric_name
from sciwm.skill.leads import channel_title

__all__ = ["describe_grid", "describe_scores", "variable_names"]

_BASELINES = {
    "climatology": "climatology",
    "persistence": "persistence",
    "damped_persistence": "damped persistence (climatology plus the initial anomaly times a regression slope for each cell and lead)",
    "lim": "a linear inverse model of all variables together in the space of their leading empirical orthogonal functions",
    "cslim": "a cyclostationary linear inverse model (a propagator for each calendar month, neighbouring months pooled)",
    "analogs": "the mean of what followed the most similar training days of the season",
    "random_encoder": "the same network untrained, with the same readouts",
}


def describe_scores(skill: xr.Dataset, *, truth: str = "", variables: Sequence[str] = ()) -> str:
    """One paragraph on the verification: sample, scores, baselines, intervals, tests.

    Parameters
    ----------
    skill : Dataset
        From `evaluate`; what its attributes do not say is left out.
    truth : str
        What the forecasts were compared with, e.g. ``"ERA5"``.
    variables : sequence of str
        The variables in words; the names of the channels by default.

    Examples
    --------
    >>> lead = np.array([1, 2], "m8[D]").astype("m8[ns]")
    >>> dims = ("method", "channel", "region", "lead_time", "metric")
    >>> coords = {"method": ["model", "climatology"], "channel": ["t850"], "region": ["all"], "lead_time": lead, "metric": ["rmse"]}
    >>> table = xr.Dataset({"value": (dims, np.ones((2, 1, 1, 2, 1)))}, coords, {"num_init": 90, "resamples": 0})
    >>> describe_scores(table, truth="ERA5").split(". ")[0]
    'Forecasts of t850 at lead times of 1 and 2 days were compared with ERA5 at 90 initial times, the same for every method'
    """
    attrs = skill.attrs
    leads = lead_axis(skill["lead_time"])
    names = list(variables) or [str(c) for c in skill["channel"].values]
    count = attrs.get("num_init", 0)
    first, last = (str(attrs.get(f"{end}_init", ""))[:16].replace("T", " ") for end in ("first", "last"))
    when = f" at {count:,} initial times" if count else ""
    when += f" from {first} to {last}" if count and first and last else ""
    base = f" were compared with {truth}" if truth else " were verified"
    parts = [f"Forecasts of {join_words(names)} at lead times of {_each(leads)}{base}{when}, the same for every method."]
    metrics = [re.sub(r"\b(crps|seeps|roc|rmse|brier)\b", _proper, metric_name(str(m)).lower()) for m in skill["metric"].values]
    parts.append(f"The scores are {join_words(metrics)}, of fields weighted by the cosine of latitude, averaged over initial times.")
    regions = [str(r).replace("_", " ") for r in skill["region"].values]
    if len(regions) > 1:
        parts.append(f"They were computed for the regions {join_words(regions)}.")
    held = [_BASELINES[str(m)] for m in skill["method"].values if str(m) in _BASELINES]
    if held:
        fitted = ", fitted on the training period alone" if held != ["persistence"] else ""
        parts.append(f"The forecasts are set beside {join_words(held)}{fitted}.")
    if attrs.get("lim"):
        parts.append(f"The linear inverse model was chosen on data not used for verification ({attrs['lim']}).")
    if attrs.get("resamples"):
        block = attrs.get("block_length", 1)
        parts.append(
            f"Intervals are 95 % percentile intervals of a circular moving-block bootstrap over initial times "
            f"({attrs['resamples']:,} resamples, blocks of {block})."
        )
    if "pair_q_value" in skill or np.isfinite(skill.get("q_value", xr.DataArray(np.nan))).any():
        parts.append(
            "Differences between methods were tested with a paired t test of the area-mean squared errors whose effective sample size is "
            "that of an AR(2) model of the differences, and controlled for a false discovery rate of 5 % (Benjamini and Hochberg 1995)."
        )
    if attrs.get("leakage"):
        parts.append(f"This was not a fair test: {attrs['leakage']}.")
    return " ".join(parts)


def _proper(name: re.Match[str]) -> str:
    """Write a name of a score as a name."""
    return "Brier" if name[0] == "brier" else name[0].upper()


def _each(leads: Leads) -> str:
    numbers = [f"{v:g}" for v in leads.values]
    if len(numbers) > 10:
        return f"{numbers[0]} to {numbers[-1]} {leads.unit} ({len(numbers)} of them)"
    return f"{join_words(numbers)} {leads.unit}" if len(numbers) > 1 else leads.text([0])


def variable_names(data: xr.Dataset) -> list[str]:
    """Variables of a canonical Dataset in words, levels included."""
    out = []
    for name, array in data.data_vars.items():
        if "time" not in array.dims:
            continue
        title = channel_title(str(name), str(array.attrs.get("units", "")))
        levels = [f"{v:g}" for v in array["level"].values] if "level" in array.dims else []
        title = title[0].lower() + title[1:] if len(title) > 1 and title[1].islower() and title != name else title
        out.append(f"{title} at levels {join_words(levels)}" if levels else title)
    return out


def describe_grid(data: xr.Dataset) -> str:
    """Words for the grid of a Dataset: size, spacing and extent; empty without one.

    Examples
    --------
    >>> describe_grid(xr.Dataset(coords={"latitude": [30.0, 31.5, 33.0], "longitude": [-3.0, -1.5, 0.0, 1.5]}))
    'a grid of 3 × 4 points (1.5° × 1.5°, 30°N to 33°N, 3°W to 1.5°E)'
    """
    if not {"latitude", "longitude"} <= set(data.coords):
        return ""
    latitude, longitude = (data[d].values.astype(float) for d in ("latitude", "longitude"))
    if data.attrs.get("coastlines") == "none":  # not the Earth: degrees are labels only
        return f"a grid of {len(latitude)} × {len(longitude)} points"
    steps = [float(np.median(np.diff(a))) if len(a) > 1 else 0.0 for a in (latitude, longitude)]
    around = len(longitude) > 1 and abs(steps[1] * len(longitude) - 360) < 0.01 * 360
    where = [f"{_degrees(v, 'N', 'S')}" for v in latitude[[0, -1]]]
    span = "all longitudes" if around else " to ".join(_degrees((v + 180) % 360 - 180, "E", "W") for v in longitude[[0, -1]])
    return f"a grid of {len(latitude)} × {len(longitude)} points ({steps[0]:.3g}° × {steps[1]:.3g}°, {where[0]} to {where[1]}, {span})"


def _degrees(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):.4g}°{positive if value > 0 else negative if value < 0 else ''}"
