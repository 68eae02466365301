"""Who is ahead of whom: one method against the best of the others, by lead, and in words."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from sciwm.report.labels import Leads, lead_axis, looks
from sciwm.skill.baselines.by_name import ALL_BASELINES
from sciwm.skill.metrics import HIGHER, better, cost, short_name

__all__ = [
    "Comparison",
    "channel_units",
    "compare",
    "main_method",
    "main_metric",
    "metric_order",
    "summarize",
]

_BASELINES = {*ALL_BASELINES, "random_encoder", "local_linear"}


@dataclass(frozen=True)
class Comparison:
    """One method of interest against the best of all others, for one channel, by lead.

    Parameters
    ----------
    channel, units : str
    gain : ndarray, shape (lead,)
        Advantage over the best other method, in percent of that method's value; positive is ahead.
        For metrics where higher is better, the plain difference × 100. NaN where either is missing.
    clear : ndarray of bool, shape (lead,)
        Whether the two 95 % intervals do not overlap.
    rival : list of str
        The best other method at each lead.
    """

    channel: str
    units: str
    gain: np.ndarray
    clear: np.ndarray
    rival: list[str]

    @property
    def wins(self) -> np.ndarray:
        """Leads at which the method of interest has the better value."""
        return np.asarray(self.gain > 0)


def compare(skill: xr.Dataset, method: str) -> list[Comparison]:
    """Compare ``method`` with the best of the methods that are no JEPA.

    The main metric is compared, in the first region.

    Returns
    -------
    list of Comparison
        One per channel; empty if there is no other method.
    """
    metric = main_metric(skill)
    table = skill.isel(region=0).sel(metric=metric).transpose("method", "channel", "lead_time", ...)
    names = [str(m) for m in table["method"].values]
    family = "jepa" if method.startswith("jepa") else method  # other readouts are no rivals
    rivals = [i for i, m in enumerate(names) if not m.startswith(family)]
    if not rivals:
        return []
    value, low, high = (table[v].values.astype(float) for v in ("value", "ci_low", "ci_high"))
    small = cost(value, metric)
    filled = np.where(np.isfinite(small[rivals]), small[rivals], np.inf)
    best = np.asarray(rivals)[filled.argmin(axis=0)]
    own = names.index(method)

    def at_best(array: np.ndarray) -> np.ndarray:
        return np.asarray(np.take_along_axis(array, best[None], axis=0)[0])

    scale = 1.0 if better(metric) == HIGHER else np.abs(at_best(value)).clip(1e-30)
    gain = 100 * (at_best(small) - small[own]) / scale
    clear = (high[own] < at_best(low)) | (low[own] > at_best(high))
    units = channel_units(table)
    channels = [str(c) for c in table["channel"].values]
    return [
        Comparison(c, units[i], gain[i], clear[i], [names[b] for b in best[i]])
        for i, c in enumerate(channels)
    ]


def summarize(skill: xr.Dataset) -> str:
    """One sentence on where the method of interest is ahead of the best other one."""
    method = main_method(skill)
    metric = main_metric(skill)
    what = short_name(metric)
    leads = lead_axis(skill["lead_time"])
    if method is None:
        scored = f"the {skill.sizes['method']} methods scored here"
        return f"Only baselines are among {scored}; the tables show their {what}."
    label = looks([method])[method].label
    comparisons = compare(skill, method)
    pairs = sum(int(np.isfinite(c.gain).sum()) for c in comparisons)
    if not pairs:
        return f"{label} was scored, but there is no other method to compare its {what} with."
    wins = [(c, np.flatnonzero(c.wins)) for c in comparisons]
    count = sum(len(w) for _, w in wins)
    clear = sum(int(c.clear[w].sum()) for c, w in wins)
    lost = sum(int((c.clear & (c.gain < 0)).sum()) for c in comparisons)
    cases = "variable–lead pairs" if len(comparisons) > 1 else "lead times"
    rest = f"; it is worse with non-overlapping 95 % intervals in {lost}" if lost else ""
    if not count:
        return (
            f"{label} is not ahead of the best other method in {what} at any of the {pairs}"
            f" {cases}{rest}."
        )
    places = "; ".join(f"{c.channel} at {_leads_text(leads, w)}" for c, w in wins if len(w))
    where = f" ({places})" if len(comparisons) <= 6 else ""
    share = f"in all {pairs}" if count == pairs else f"in {count} of {pairs}"
    apart = "but the 95 % intervals overlap in every one of them"
    if clear:
        apart = f"clearly so (95 % intervals apart) in {clear} of them"
    better_than = f"{label} has a better {what} than every other method"
    return f"{better_than} {share} {cases}{where}, {apart}{rest}."


def _leads_text(leads: Leads, positions: np.ndarray) -> str:
    if len(positions) == len(leads.values) > 1:
        return "every lead"
    return leads.text(positions.tolist())


def main_method(skill: xr.Dataset) -> str | None:
    """Name the method the report is about.

    It is ``jepa``, or the first whose name starts so, or the first that is no baseline.
    """
    names = [str(m) for m in skill["method"].values]
    ours = [m for m in names if m.startswith("jepa")] or [m for m in names if m not in _BASELINES]
    return "jepa" if "jepa" in names else next(iter(ours), None)


def main_metric(skill: xr.Dataset) -> str:
    """Name the metric that comparisons use: RMSE, or the first."""
    return metric_order(skill)[0]


def metric_order(skill: xr.Dataset) -> list[str]:
    """List the metrics, RMSE first."""
    return sorted((str(m) for m in skill["metric"].values), key=lambda m: m != "rmse")


def channel_units(skill: xr.Dataset) -> list[str]:
    """List the units of the channels, empty where unknown."""
    if "units" not in skill.coords:
        return [""] * skill.sizes["channel"]
    return [str(u) for u in skill["units"].values]
