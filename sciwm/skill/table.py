"""The skill table: every method and lead on the same initial times, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sciwm.skill.baselines.by_name import BASELINES
from sciwm.skill.baselines.simple import Reference
from sciwm.skill.diagnostics import DiagnosticSums
from sciwm.skill.events import parse_events
from sciwm.skill.lineup import Lineup, as_channels, line_up
from sciwm.skill.metrics import find_metric, is_event_metric, with_event_metrics
from sciwm.skill.scores import area_means, mean_over_inits
from sciwm.skill.significance import (
    block_counts,
    block_length,
    bootstrap_interval,
    false_discovery,
    paired_difference,
)
from sciwm.skill.sums import TableSums, collect

__all__ = ["DEFAULT_METRICS", "assess", "evaluate", "score_lineup"]

DEFAULT_METRICS = ("rmse", "mae", "bias", "acc")

_JOIN: dict[str, Any] = {"coords": "minimal", "compat": "override", "join": "override"}
_ORDER = ("method", "channel", "region", "lead_time", "metric")


def evaluate(
    forecasts: Mapping[str, xr.Dataset] | xr.Dataset,
    observed: xr.Dataset,
    *,
    reference: Reference | None = None,
    baselines: Sequence[str] = BASELINES,
    metrics: Sequence[str] = DEFAULT_METRICS,
    regions: Sequence[str] = (),
    events: Sequence[str] = (),
    resamples: int = 1000,
) -> xr.Dataset:
    """Score forecasts, and baselines beside them, on the same initial times.

    This is `line_up` and `score_lineup` in one call; each of them has further options.

    Every method and lead is scored on the same initial times. All forecasts share them, and all
    their valid times are observed. With baselines that start from an observation, they are observed
    themselves.

    Parameters
    ----------
    forecasts : mapping of str to Dataset, or Dataset
        Dims ``(init_time, lead_time, [number], [level], *space)``, physical units, on the grid of
        ``observed``. A single Dataset is called ``forecast`` in the result.
    observed : Dataset
        Dims ``(time, [level], *space)``.
    reference : Reference, optional
        From `fit_reference`: climatology and training anomalies, for the baselines and the anomaly
        scores.
    baselines : sequence of str
        Some of ``climatology``, ``persistence``, ``damped_persistence``, ``lim``, ``analogs``, and
        ``cslim`` for monthly data.
    metrics : sequence of str
        Some of `sciwm.skill.METRICS`. ``rmse``, ``mae``, ``bias``, ``acc``, ``correlation``,
        ``index_rmse`` and ``nmse`` score the mean of an ensemble. ``crps``, ``energy_score``,
        ``spread`` and ``spread_skill`` score its members. ``brier`` and ``roc_area`` score events;
        with events and none of these, the two are added.
    regions : sequence of str
        As `region_weights` takes them; empty is the whole domain, ``all``.
    events : sequence of str
        Such as ``"t850>285"``: each is a further channel, on which the metrics of events are
        defined, and no others. The probability of a forecast is the share of its members for which
        the event happens.
    resamples : int
        Bootstrap resamples behind the 95 % intervals; 0 leaves them NaN.

    Returns
    -------
    Dataset
        - ``value`` and its interval, ``ci_low`` to ``ci_high``: ``(method, channel, region,
          lead_time, metric)``.
        - ``p_value``: ``(method, channel, region, lead_time)``, of a paired test of the squared
          errors against ``lim``. For events, the errors are those of the probabilities.
        - ``q_value``: the same for a scorecard of many tests (`false_discovery` over all channels,
          regions and leads of a method).
        - ``pair_p_value``, ``pair_q_value``: the same against every ``reference_method``.
        - ``num_init``: ``(channel, region, lead_time)``.

        Channels have the coordinates ``variable``, ``level``, ``units`` and, with events,
        ``event``. ``attrs`` count dropped initial times and missing valid times. They also hold the
        bootstrap's block length and what the LIM chose.

    Raises
    ------
    ValueError
        If grids differ, nothing is shared, a name is unknown, or training times would be scored.
        The message says which.
    """
    metrics = with_event_metrics(metrics, events)
    lineup = line_up(forecasts, observed, reference=reference, baselines=baselines, metrics=metrics)
    asked: dict[str, Any] = {"metrics": metrics, "regions": regions, "events": events}
    return score_lineup(lineup, **asked, resamples=resamples)


def score_lineup(
    lineup: Lineup,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    regions: Sequence[str] = (),
    events: Sequence[str] = (),
    against: str = "lim",
    resamples: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Score what `line_up` brought together.

    Parameters
    ----------
    lineup : Lineup
    metrics, regions, events, resamples
        As `evaluate` takes them.
    against : str
        Method that ``p_value`` compares with.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    Dataset
        As of `evaluate`.

    Examples
    --------
    >>> from sciwm.skill.lineup import line_up
    >>> days = np.arange("2000-01-01", "2000-01-31", dtype="M8[D]").astype("M8[ns]")
    >>> observed = xr.Dataset({"t": ("time", np.arange(30.0), {"units": "K"})}, {"time": days})
    >>> lead = np.array([1, 2], "m8[D]").astype("m8[ns]")
    >>> forecast = xr.Dataset(
    ...     {"t": (("init_time", "lead_time"), np.zeros((10, 2)))},
    ...     {"init_time": days[:10], "lead_time": lead},
    ... )
    >>> lineup = line_up(forecast, observed, baselines=["persistence"])
    >>> score_lineup(lineup, metrics=["rmse"], resamples=0)["value"].loc[
    ...     {"method": "persistence"}
    ... ].values.ravel()
    array([1., 2.])
    """
    sums, metrics = _table_sums(lineup, metrics, regions, events)
    collect(lineup, sums)
    return _table(sums, lineup, metrics, against=against, resamples=resamples, seed=seed)


def assess(
    lineup: Lineup,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    regions: Sequence[str] = (),
    events: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Score and diagnose what `line_up` brought together in one pass.

    Forecasts are read once, and every baseline is forecast once.

    Parameters
    ----------
    lineup : Lineup
    metrics, regions, events, resamples, seed
        As `score_lineup` takes them.

    Returns
    -------
    skill, diagnostics : Dataset
        As `score_lineup` and `sciwm.skill.diagnose` return them.
    """
    sums, metrics = _table_sums(lineup, metrics, regions, events)
    found = DiagnosticSums(lineup)
    collect(lineup, sums, found)
    skill = _table(sums, lineup, metrics, against="lim", resamples=resamples, seed=seed)
    return skill, found.diagnostics()


def _table_sums(
    lineup: Lineup, metrics: Sequence[str], regions: Sequence[str], events: Sequence[str]
) -> tuple[TableSums, list[str]]:
    """What collects the sums of a table, and the metrics in it."""
    named = with_event_metrics(metrics, events)
    parsed = parse_events(events, _channels(lineup))
    return TableSums(lineup, metrics=named, regions=regions, events=parsed), named


def _table(
    sums: TableSums,
    lineup: Lineup,
    metrics: Sequence[str],
    *,
    against: str,
    resamples: int,
    seed: int,
) -> xr.Dataset:
    values, of_events = sums.values, sums.of_events
    parts = [values]
    if of_events is not None:
        parts = [values.assign_coords(event=_no_event(values)), of_events]
    made = _summarise(parts, metrics, against=against, resamples=resamples, seed=seed)
    return _describe(made, lineup)


def _no_event(sums: xr.DataArray) -> xr.DataArray:
    return xr.DataArray([""] * sums.sizes["channel"], dims="channel")


def _channels(lineup: Lineup) -> list[tuple[str, float]]:
    """Variables and levels of the table; NaN for a variable without levels."""
    each = [as_channels(field, str(name)) for name, field in lineup.observed.data_vars.items()]
    return [
        (str(v), float(level))
        for c in each
        for v, level in zip(c["variable"].values, c["level"].values, strict=True)
    ]


def _summarise(
    parts: Sequence[xr.DataArray],
    metrics: Sequence[str],
    *,
    against: str,
    resamples: int,
    seed: int,
) -> xr.Dataset:
    """Table of sums: those of the variables, and those of the events if there are any."""
    sums = parts[0]
    squared = area_means(sums.sel(statistic=["weight", "squared_error"]))
    squared = squared.sel(statistic="squared_error", drop=True)
    block = block_length(squared.transpose("init_time", ...).values)
    counts = None
    if resamples > 0:
        counts = block_counts(sums.sizes["init_time"], block, resamples=resamples, seed=seed)
    tables = [_values(part, metrics, events=k > 0, counts=counts) for k, part in enumerate(parts)]
    names = sums["method"].values
    pair_p, pair_q = _pair_tests(parts)
    found = np.flatnonzero(names == against)
    p_value, q_value = (
        p.isel(reference_method=found[0]) if found.size else xr.full_like(p[0], np.nan)
        for p in (pair_p, pair_q)
    )
    seen = [
        (part.sel(statistic="weight", drop=True).isel(method=0, drop=True) > 0).sum("init_time")
        for part in parts
    ]
    num_init = xr.concat(seen, "channel", **_JOIN).transpose("channel", "region", "lead_time")
    result = xr.concat(tables, "channel", **_JOIN).assign(
        p_value=p_value,
        q_value=q_value,
        pair_p_value=pair_p,
        pair_q_value=pair_q,
        num_init=num_init.astype("int64"),
    )
    result = result.assign_coords(reference_method=names)
    return result.assign_attrs(
        block_length=block,
        num_init=int(sums.sizes["init_time"]),
        resamples=resamples,
        seed=seed,
        against=against,
    )


def _pair_tests(parts: Sequence[xr.DataArray]) -> tuple[xr.DataArray, xr.DataArray]:
    """Give p and q values of every method against every other."""
    methods = range(parts[0].sizes["method"])
    each = [
        [paired_difference(part, part.isel(method=k, drop=True)).p_value for k in methods]
        for part in parts
    ]
    pairs = [xr.concat(against_one, "reference_method", **_JOIN) for against_one in each]
    p_value = xr.concat(pairs, "channel", **_JOIN).transpose("reference_method", *_ORDER[:-1])
    tested = p_value.values.reshape(*p_value.shape[:2], -1)
    adjusted = [[false_discovery(one) for one in row] for row in tested]
    return p_value, p_value.copy(data=np.reshape(adjusted, p_value.shape))


def _values(
    sums: xr.DataArray, metrics: Sequence[str], *, events: bool, counts: np.ndarray | None
) -> xr.Dataset:
    """Metrics of the channels and their intervals; NaN where a metric is not defined on them."""
    means = area_means(sums)
    records = {m: find_metric(m) for m in metrics if is_event_metric(m) == events}
    functions = {m: record.compute for m, record in records.items() if record.compute is not None}
    undefined = xr.full_like(means.isel(init_time=0, statistic=0, drop=True), np.nan)
    value, low, high = (dict.fromkeys(metrics, undefined) for _ in range(3))
    average = mean_over_inits(means)
    value |= {m: f(average) for m, f in functions.items()}
    if counts is not None and functions:
        pieces = [
            bootstrap_interval(means.isel(method=[k]), functions, counts)
            for k in range(means.sizes["method"])
        ]
        for side, edges in ((low, [p[0] for p in pieces]), (high, [p[1] for p in pieces])):
            joined = xr.concat(edges, "method", **_JOIN)
            side |= {m: joined.sel(metric=m, drop=True) for m in functions}
    found = {
        n: xr.concat(list(v.values()), "metric", **_JOIN)
        for n, v in (("value", value), ("ci_low", low), ("ci_high", high))
    }
    return xr.Dataset(
        {n: a.assign_coords(metric=list(metrics)).transpose(*_ORDER) for n, a in found.items()}
    )


def _describe(result: xr.Dataset, lineup: Lineup) -> xr.Dataset:
    times, notices = lineup.times, list(lineup.notices)
    units = [str(lineup.observed[v].attrs.get("units", "")) for v in result["variable"].values]
    result = result.assign_coords(units=("channel", units), lead_time=times.lead)
    if times.dropped:
        dropped = (
            f"{times.dropped} initial times dropped: not in all forecasts, not observed, or with a"
            " valid time that is not observed"
        )
        notices = [dropped, *notices]
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
            chosen = [
                f"{p.lead_steps} steps: {p.eofs} EOFs, {getattr(p, 'kind', 'monthly')}"
                for p in baseline.lim.propagators
            ]
            result.attrs[name] = "; ".join(chosen)
    return result
