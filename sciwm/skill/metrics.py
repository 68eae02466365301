"""What each metric is called, in which units it is given, and which values of it are good."""

import re

import numpy as np

__all__ = [
    "DIMENSIONLESS",
    "HIGHER",
    "LOWER",
    "NEITHER",
    "ONE",
    "ZERO",
    "better",
    "cost",
    "is_dimensionless",
    "metric_name",
    "metric_units",
    "pretty_units",
    "short_name",
]

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
    *(
        "acc",
        "correlation",
        "nmse",
        "spread_skill",
        "seeps",
        "brier",
        "roc_area",
        "r2",
        "msess",
        "skill_score",
        "explained_variance",
    ),
}


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
        return _SHORT.get(
            metric, f"FSS, {metric.removeprefix('fss_')} × {metric.removeprefix('fss_')} cells"
        )
    return (
        metric.upper()
        if metric in ("rmse", "mae", "mse", "acc", "nmse", "crps", "seeps")
        else metric_name(metric).split(" (")[0]
    )


def metric_units(metric: str, units: str) -> str:
    """Units in which a metric of a variable in ``units`` is given; empty if it has none."""
    return "" if is_dimensionless(metric) else pretty_units(units)


def is_dimensionless(metric: str) -> bool:
    """Whether values of a metric have no units."""
    return metric in DIMENSIONLESS or metric.startswith("fss_")


def cost(value: np.ndarray, metric: str) -> np.ndarray:
    """Turn a metric into what is small when it is good; NaN where no value is good in itself."""
    with np.errstate(divide="ignore", invalid="ignore"):
        turned = {
            LOWER: value,
            HIGHER: -value,
            ZERO: np.abs(value),
            ONE: np.abs(np.log(value)),
            NEITHER: np.full_like(value, np.nan),
        }
    return np.asarray(turned[better(metric)])


def pretty_units(units: str) -> str:
    """Units with raised exponents.

    Examples
    --------
    >>> pretty_units("m2 s-2")
    'm² s⁻²'
    """
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    text = re.sub(
        r"(?<=[A-Za-z])(?:\*\*|\^)?(-?\d+)", lambda m: m[1].translate(raised), units.strip()
    )
    return "" if text in ("1", "dimensionless") else text
