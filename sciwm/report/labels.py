"""Names, units, colours and lead times as the report shows them. Draws nothing."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

__all__ = [
    "DIMENSIONLESS",
    "HIGHER",
    "INK",
    "LOWER",
    "NEITHER",
    "ONE",
    "ZERO",
    "Leads",
    "Look",
    "better",
    "is_dimensionless",
    "join_words",
    "lead_axis",
    "looks",
    "metric_name",
    "metric_units",
    "pretty_units",
    "short_name",
]

INK = "#010203"  # stands for the page's text colour; replaced by currentColor in the SVG
LOWER, HIGHER, ZERO, ONE, NEITHER = "lower", "higher", "zero", "one", "neither"

_BETTER = {"bias": ZERO, "spread_skill": ONE, "spread": NEITHER} | dict.fromkeys(
    ("acc", "correlation", "roc_area", "r2", "msess", "skill_score", "explained_variance"), HIGHER
)
_METRICS = {
    "rmse": "Root-mean-square error",
    "mae": "Mean absolute error",
    "bias": "Bias (forecast − truth)",
    "acc": "Anomaly correlation",
    "correlation": "Correlation",
    "index_rmse": "RMSE of the region's mean",
    "nmse": "Normalized mean-square error",
    "crps": "Fair CRPS",
    "energy_score": "Fair energy score",
    "spread": "Ensemble spread",
    "spread_skill": "Spread / error",
    "seeps": "SEEPS (error of precipitation categories)",
    "brier": "Brier score",
    "roc_area": "Area under the ROC curve",
    "r2": "Explained variance R²",
}
_SHORT = {"index_rmse": "Index RMSE", "roc_area": "ROC area"}
DIMENSIONLESS = {
    *("acc", "correlation", "nmse", "spread_skill", "seeps", "brier", "roc_area", "r2", "msess", "skill_score", "explained_variance"),
}


@dataclass(frozen=True)
class Look:
    """How one method is drawn and named, the same in every figure."""

    label: str
    color: str
    dash: str | tuple[float, ...]
    marker: str
    width: float = 1.6


_LOOKS = {
    "jepa": Look("JEPA (residual readout)", "#D55E00", "solid", "o", 2.6),
    "jepa_latent": Look("JEPA (latent readout)", "#E69F00", (6.0, 2.0), "s", 2.0),
    "random_encoder": Look("Random encoder", "#CC79A7", (1.5, 1.5), "D"),
    "climatology": Look("Climatology", "#808080", "solid", "", 2.0),
    "persistence": Look("Persistence", "#56B4E9", (6.0, 1.8, 1.5, 1.8), "^"),
    "damped_persistence": Look("Damped persistence", "#0072B2", (4.0, 2.0), "v"),
    "lim": Look("Linear inverse model", "#009E73", "solid", "P"),
    "cslim": Look("Cyclostationary linear inverse model", "#009E73", (3.0, 1.5), "h"),
    "analogs": Look("Analogs", "#8C510A", (2.0, 1.0), "<"),
    "supervised": Look("Supervised twin", INK, (3.0, 1.2), "X"),
}
_SPARE = (("#8C7A00", "*"), ("#7B3294", "h"), ("#4D4D4D", ">"), ("#01665E", "p"))


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Label, colour, dash and marker of each method: fixed for the known ones, spare ones for others in order.

    Examples
    --------
    >>> looks(["lim", "my_model"])["my_model"].label
    'My model'
    """
    names = [str(m) for m in methods]
    spare = [m for m in names if m not in _LOOKS]
    out = {m: _LOOKS[m] for m in names if m in _LOOKS}
    for i, m in enumerate(spare):
        color, marker = _SPARE[i % len(_SPARE)]
        text = m.replace("_", " ").strip()
        out[m] = Look(text[:1].upper() + text[1:], color, (7.0, 1.5, 1.5, 1.5), marker)
    return {m: out[m] for m in names}


@dataclass(frozen=True)
class Leads:
    """Lead times as plain numbers in the unit people would say them in."""

    values: tuple[float, ...]
    unit: str

    def text(self, positions: Sequence[int]) -> str:
        """Leads at ascending ``positions`` in words: ``"1–3 and 5 days"``."""
        runs: list[list[int]] = []
        for i in positions:
            if runs and i == runs[-1][-1] + 1:
                runs[-1].append(i)
            else:
                runs.append([i])
        numbers = []
        for run in runs:
            words = [f"{self.values[i]:g}" for i in run]
            numbers += [f"{words[0]}–{words[-1]}"] if len(run) > 2 else words
        unit = self.unit[:-1] if numbers == ["1"] and self.unit != "ps" else self.unit
        return f"{join_words(numbers)} {unit}"


def join_words(words: Sequence[str]) -> str:
    """Words with commas and a final "and"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def lead_axis(lead_time: xr.DataArray) -> Leads:
    """Read unit and values of a lead-time coordinate: hours, days, months or ps.

    Parameters
    ----------
    lead_time : DataArray
        1-D: ``timedelta64``, or numbers with ``units`` "months" or "ps".

    Examples
    --------
    >>> lead_axis(xr.DataArray(np.array([24, 48], "timedelta64[h]"), dims="lead_time"))
    Leads(values=(1.0, 2.0), unit='days')
    """
    values = np.atleast_1d(lead_time.values)
    if np.issubdtype(values.dtype, np.timedelta64):
        hours = values / np.timedelta64(3_600_000_000_000, "ns")
        days = bool(np.all(hours % 24 == 0)) or float(hours.max()) > 120
        return Leads(tuple(float(h) / (24 if days else 1) for h in hours), "days" if days else "hours")
    units = str(lead_time.attrs.get("units", ""))
    if units not in ("months", "ps"):
        raise ValueError(f"got lead_time of type {values.dtype} with units {units!r}, expected timedelta64, or numbers in months or ps")
    return Leads(tuple(float(v) for v in values), units)


def pretty_units(units: str) -> str:
    """Units with raised exponents.

    Examples
    --------
    >>> pretty_units("m2 s-2")
    'm² s⁻²'
    """
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    text = re.sub(r"(?<=[A-Za-z])(?:\*\*|\^)?(-?\d+)", lambda m: m[1].translate(raised), units.strip())
    return "" if text in ("1", "dimensionless") else text


def better(metric: str) -> str:
    """Which values of a metric are good: "lower", "higher", those near "zero" or "one", or "neither"."""
    return HIGHER if metric.startswith("fss_") else _BETTER.get(metric, LOWER)


def metric_name(metric: str) -> str:
    """Name of a metric in words."""
    if metric.startswith("fss_"):
        cells = metric.removeprefix("fss_")
        return f"Fractions skill score, {cells} × {cells} cells"
    return _METRICS.get(metric, metric.replace("_", " "))


def short_name(metric: str) -> str:
    """Abbreviation of a metric where it has one, else its name."""
    if metric in _SHORT or metric.startswith("fss_"):
        return _SHORT.get(metric, f"FSS, {metric.removeprefix('fss_')} × {metric.removeprefix('fss_')} cells")
    return metric.upper() if metric in ("rmse", "mae", "mse", "acc", "nmse", "crps", "seeps") else metric_name(metric).split(" (")[0]


def metric_units(metric: str, units: str) -> str:
    """Units in which a metric of a variable in ``units`` is given; empty if it has none."""
    return "" if is_dimensionless(metric) else pretty_units(units)


def is_dimensionless(metric: str) -> bool:
    """Whether values of a metric have no units."""
    return metric in DIMENSIONLESS or metric.startswith("fss_")
