"""The skill table: every method, variable, region and lead on the same initial times, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sciwm.skill.baselines import Reference
from sciwm.skill.ensemble import ENSEMBLE_METRICS, ensemble_sums, single_sums
from sciwm.skill.lineup import Lineup, as_channels, line_up
from sciwm.skill.methods import BASELINES, LIM_EOFS
from sciwm.skill.regions import region_weights
from sciwm.skill.scores import ALL_METRICS, area_means, check_metrics, mean_over_inits, score_sums
from sciwm.skill.significance import block_counts, block_length, bootstrap_interval, false_discovery, paired_difference

__all__ = ["evaluate", "score_lineup"]

_JOIN: dict[str, Any] = {"coords": "minimal", "compat": "override", "join": "override"}


def evaluate(
    forecasts: Mapping[str, xr.Dataset] | xr.Dataset,
    observed: xr.Dataset,
    *,
    reference: Reference | None = None,
    train: Any = None,
    baselines: Sequence[str] = BASELINES,
    metrics: Sequence[str] = ("rmse", "mae", "bias", "acc"),
    regions: Sequence[str] = (),
    lim_eofs: Sequence[int] = LIM_EOFS,
    against: str = "lim",
    resamples: int = 1000,
    seed: int = 0,
    allow_leakage: bool = False,
) -> xr.Dataset:
    """Score forecasts, and baselines beside them, on the same initial times.

    Every method and lead is scored on the initial times that all forecasts share, that are observed themselves (if there are
    baselines that start from them), and whose valid times are all observed.

    Parameters
    ----------
    forecasts : mapping of str to Dataset, or Dataset
        Dims ``(init_time, lead_time, [number], [level], *space)``, physical units, on the grid of ``observed``. A single
        Dataset is called ``forecast`` in the result.
    observed : Dataset
        Dims ``(time, [level], *space)``.
    reference : Reference, optional
        From `fit_reference`: climatology and training anomalies, for the baselines and the anomaly scores.
    train : slice or ndarray of bool, optional
        Instead of ``reference``: the training block of ``observed``.
    baselines : sequence of str
        Some of ``climatology``, ``persistence``, ``damped_persistence``, ``lim``, ``analogs``, and ``cslim`` for monthly data.
    metrics : sequence of str
        Some of ``rmse``, ``mae``, ``bias``, ``acc``, ``correlation``, ``nmse`` (`sciwm.skill.METRICS`), which score the mean of an
        ensemble, and ``crps``, ``energy_score``, ``spread``, ``spread_skill`` (`sciwm.skill.ENSEMBLE_METRICS`).
    regions : sequence of str
        As `region_weights` takes them; empty is the whole domain, ``all``.
    lim_eofs : sequence of int
        Truncations the linear inverse model chooses from.
    against : str
        Method that ``p_value`` compares with.
    resamples : int
        Bootstrap resamples behind the 95 % intervals; 0 leaves them NaN.
    seed : int
        Seed of the bootstrap.
    allow_leakage : bool
        Score initial and valid times that are in the training block, too, and say so in ``attrs["leakage"]``.

    Returns
    -------
    Dataset
        Dims ``method, channel, region, lead_time, metric``: ``value``, ``ci_low``, ``ci_high``; ``p_value`` ``(method, channel,
        region, lead_time)`` of a paired test of the squared errors, and ``q_value``, the same for a scorecard of many tests
        (`false_discovery` over all channels, regions and leads of a method); ``pair_p_value`` and ``pair_q_value``, the same against
        every ``reference_method``; ``num_init`` ``(channel, region, lead_time)``. Coordinates
        ``variable``, ``level``, ``units`` of each channel. ``attrs`` count dropped initial times and missing valid times, and hold the
        bootstrap's block length and what the LIM chose.

    Raises
    ------
    ValueError
        If grids differ, nothing is shared, something unknown is asked for, or training times would be scored; the message names it.
    """
    check_metrics(metrics)
    lineup = line_up(
        forecasts,
        observed,
        reference=reference,
        train=train,
        baselines=baselines,
        metrics=metrics,
        lim_eofs=lim_eofs,
        allow_leakage=allow_leakage,
    )
    return score_lineup(lineup, metrics=metrics, regions=regions, against=against, resamples=resamples, seed=seed)


def score_lineup(
    lineup: Lineup,
    *,
    metrics: Sequence[str] = ("rmse", "mae", "bias", "acc"),
    regions: Sequence[str] = (),
    against: str = "lim",
    resamples: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Score what `line_up` brought together; arguments and result as of `evaluate`.

    Examples
    --------
    >>> from sciwm.skill.lineup import line_up
    >>> days = np.arange("2000-01-01", "2000-01-31", dtype="M8[D]").astype("M8[ns]")
    >>> observed = xr.Dataset({"t": ("time", np.arange(30.0), {"units": "K"})}, {"time": days})
    >>> lead = np.array([1, 2], "m8[D]").astype("m8[ns]")
    >>> forecast = xr.Dataset({"t": (("init_time", "lead_time"), np.zeros((10, 2)))}, {"init_time": days[:10], "lead_time": lead})
    >>> lineup = line_up(forecast, observed, baselines=["persistence"])
    >>> score_lineup(lineup, metrics=["rmse"], resamples=0)["value"].loc[{"method": "persistence"}].values.ravel()
    array([1., 2.])
    """
    check_metrics(metrics)
    asked = frozenset(metrics) & set(ENSEMBLE_METRICS)
    result = _summarise(_all_sums(lineup, regions, ensemble=asked), metrics, against=against, resamples=resamples, seed=seed)
    return _describe(result, lineup)


def _all_sums(lineup: Lineup, regions: Sequence[str], *, ensemble: frozenset[str]) -> xr.DataArray:
    """Compute the sums ``(method, channel, region, init_time, lead_time, statistic)``, with those of members that ``ensemble`` needs."""
    weights = {str(n): region_weights(v, regions) for n, v in lineup.observed.data_vars.items()}
    _check_regions(list(weights.values()))
    blocks = []
    for block in lineup.blocks():
        lazy: dict[str, list[xr.DataArray]] = {m: [] for m in block.fields}
        for name, weight in weights.items():
            truth = block.truth(name)
            for method, ds in block.fields.items():
                sums = _sums(ds[name], truth, None if block.normal is None else block.normal[name], weight, ensemble)
                lazy[method].append(as_channels(sums, name))
        joined = [xr.concat(parts, "channel", **_JOIN) for parts in lazy.values()]
        blocks.append(xr.concat(joined, "method", **_JOIN).assign_coords(method=list(lazy)).compute())
    return blocks[0] if len(blocks) == 1 else xr.concat(blocks, "init_time", **_JOIN)


def _check_regions(weights: Sequence[xr.DataArray]) -> None:
    used = {str(r) for w in weights for r in w["region"].values[w.sum(w.dims[1:]).values > 0]}
    if empty := [str(r) for r in weights[0]["region"].values if r not in used]:
        raise ValueError(f"got regions {empty} without any cell of the domain, expected names, boxes or component prefixes that overlap it")


def _sums(
    forecast: xr.DataArray, truth: xr.DataArray, normal: xr.DataArray | None, weights: xr.DataArray, ensemble: frozenset[str]
) -> xr.DataArray:
    mean = forecast.mean("number", skipna=False) if "number" in forecast.dims else forecast
    sums = score_sums(mean, truth, normal, weights=weights)
    if not ensemble:
        return sums
    energy = "energy_score" in ensemble
    if "number" in forecast.dims:
        more = ensemble_sums(forecast, truth, normal, weights=weights, energy=energy)
    else:
        more = single_sums(sums, energy=energy)
    return xr.concat([sums, more.transpose(*sums.dims)], "statistic", coords="minimal", compat="override", join="override")


def _summarise(sums: xr.DataArray, metrics: Sequence[str], *, against: str, resamples: int, seed: int) -> xr.Dataset:
    means = area_means(sums)
    functions = {m: ALL_METRICS[m] for m in metrics}
    average = mean_over_inits(means)
    value = xr.concat([f(average).assign_coords(metric=m) for m, f in functions.items()], "metric")
    squared = means.sel(statistic="squared_error", drop=True).transpose("init_time", ...)
    block = block_length(squared.values)
    low, high = xr.full_like(value, np.nan), xr.full_like(value, np.nan)
    if resamples > 0:
        counts = block_counts(sums.sizes["init_time"], block, resamples=resamples, seed=seed)
        pieces = [bootstrap_interval(means.isel(method=[k]), functions, counts) for k in range(means.sizes["method"])]
        low, high = (xr.concat([p[i] for p in pieces], "method") for i in (0, 1))
    order = ("method", "channel", "region", "lead_time", "metric")
    pairs = [paired_difference(sums, sums.isel(method=k, drop=True)).p_value for k in range(sums.sizes["method"])]
    pair_p = xr.concat(pairs, "reference_method").transpose("reference_method", *order[:-1])
    tested = pair_p.values.reshape(*pair_p.shape[:2], -1)
    pair_q = pair_p.copy(data=np.reshape([[false_discovery(one) for one in row] for row in tested], pair_p.shape))
    found = np.flatnonzero(sums["method"].values == against)
    p_value, q_value = (p.isel(reference_method=found[0]) if found.size else xr.full_like(p[0], np.nan) for p in (pair_p, pair_q))
    seen = (sums.sel(statistic="weight", drop=True).isel(method=0, drop=True) > 0).sum("init_time")
    result = xr.Dataset(
        {
            "value": value.transpose(*order),
            "ci_low": low.transpose(*order),
            "ci_high": high.transpose(*order),
            "p_value": p_value,
            "q_value": q_value,
            "pair_p_value": pair_p,
            "pair_q_value": pair_q,
            "num_init": seen.transpose("channel", "region", "lead_time").astype("int64"),
        },
        coords={"reference_method": sums["method"].values},
    )
    return result.assign_attrs(block_length=block, num_init=int(sums.sizes["init_time"]), resamples=resamples, seed=seed, against=against)


def _describe(result: xr.Dataset, lineup: Lineup) -> xr.Dataset:
    times, notices = lineup.times, list(lineup.notices)
    units = [str(lineup.observed[v].attrs.get("units", "")) for v in result["variable"].values]
    result = result.assign_coords(units=("channel", units), lead_time=times.lead)
    if times.dropped:
        notices = [
            f"{times.dropped} initial times dropped: not in all forecasts, not observed, or with a valid time that is not observed",
            *notices,
        ]
    result.attrs |= {
        "dropped_init": times.dropped,
        "missing_valid_times": times.missing_valid,
        "skipped_variables": ", ".join(lineup.skipped),
        "first_init": str(times.init.values[0]),
        "last_init": str(times.init.values[-1]),
        "lead_column": lineup.step.column,
        "notices": "; ".join(notices),
        "leakage": lineup.leakage,
    }
    for name, baseline in lineup.baselines.items():
        if baseline.lim is not None:
            chosen = [f"{p.lead_steps} steps: {p.eofs} EOFs, {getattr(p, 'kind', 'monthly')}" for p in baseline.lim.propagators]
            result.attrs[name] = "; ".join(chosen)
    return result
