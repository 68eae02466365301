"""The skill table: every method, variable, region and lead on the same initial times, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import track

from sciwm.skill.alignment import at_positions, check_grid, locate, valid_positions
from sciwm.skill.baselines import Reference, axes, climatology_forecast, fit_reference
from sciwm.skill.ensemble import ENSEMBLE_METRICS, ensemble_sums, single_sums
from sciwm.skill.leakage import check_leakage
from sciwm.skill.lim import Lim
from sciwm.skill.methods import BASELINES, LIM_EOFS, MORE_BASELINES, Baseline, fit_baseline
from sciwm.skill.regions import region_weights
from sciwm.skill.scores import ALL_METRICS, ANOMALY_METRICS, area_means, check_metrics, mean_over_inits, score_sums
from sciwm.skill.significance import block_counts, block_length, bootstrap_interval, false_discovery, paired_difference
from sciwm.times import Step, infer_step

__all__ = ["evaluate"]

_BLOCK = 60_000_000  # values of forecasts that are scored together
_JOIN: dict[str, Any] = {"coords": "minimal", "compat": "override", "join": "override"}


@dataclass(frozen=True)
class _Times:
    """The initial and lead times all methods share."""

    init: xr.DataArray
    lead: xr.DataArray
    positions: np.ndarray  # (init, lead) on the observations' time axis
    dropped: int
    missing_valid: int


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
        Some of ``climatology``, ``persistence``, ``damped_persistence``, ``lim``, ``analogs``.
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
        (`false_discovery` over all channels, regions and leads of a method); ``num_init`` ``(channel, region, lead_time)``. Coordinates
        ``variable``, ``level``, ``units`` of each channel. ``attrs`` count dropped initial times and missing valid times, and hold the
        bootstrap's block length and what the LIM chose.

    Raises
    ------
    ValueError
        If grids differ, nothing is shared, something unknown is asked for, or training times would be scored; the message names it.
    """
    check_metrics(metrics)
    unknown = [b for b in baselines if b not in MORE_BASELINES]
    if unknown:
        raise ValueError(f"got baselines {unknown}, expected some of {', '.join(MORE_BASELINES)}")
    methods = _methods(forecasts)
    clash = sorted(set(methods) & set(baselines))
    if clash:
        raise ValueError(f"got forecasts named {clash}, expected other names, because baselines of these names are added")
    names, skipped = _shared_variables(methods, observed)
    reference = _need_reference(reference, train, observed[names], baselines, metrics)
    step = infer_step(observed["time"]) if reference is None else reference.step
    times = _shared_times(methods, observed, step, needs_init=bool(set(baselines) - {"climatology"}))
    leakage = ""
    if reference is not None:
        leakage = check_leakage(reference.anomaly["time"], times.init, observed["time"].values[times.positions], allow=allow_leakage)
    notices = [leakage] if leakage else []
    chosen = {name: _select(ds[names], observed[names], times, step, method=name) for name, ds in methods.items()}
    made = {name: fit_baseline(name, reference, observed, times.lead, variables=names, lim_eofs=lim_eofs) for name in baselines}
    notices += [text for baseline in made.values() for text in baseline.notices]
    lim = next((baseline.lim for baseline in made.values() if baseline.lim is not None), None)
    asked = frozenset(metrics) & set(ENSEMBLE_METRICS)
    sums = _all_sums(chosen, made, observed[names], reference, times, regions, ensemble=asked)
    result = _summarise(sums, metrics, against=against, resamples=resamples, seed=seed)
    result.attrs["leakage"] = leakage
    return _describe(result, observed, times, skipped, lim, notices, step)


def _methods(forecasts: Mapping[str, xr.Dataset] | xr.Dataset) -> dict[str, xr.Dataset]:
    methods = {"forecast": forecasts} if isinstance(forecasts, xr.Dataset) else dict(forecasts)
    for name, ds in methods.items():
        if not {"init_time", "lead_time"} <= set(ds.dims):
            hint = "; open files in the WeatherBench layout with open_forecast" if "prediction_timedelta" in ds.dims else ""
            raise ValueError(f"got forecast {name!r} with dims {tuple(ds.dims)}, expected init_time and lead_time among them{hint}")
    if not methods:
        raise ValueError("got no forecasts, expected at least one: initial and lead times are taken from them")
    return methods


def _shared_variables(methods: Mapping[str, xr.Dataset], observed: xr.Dataset) -> tuple[list[str], list[str]]:
    seen = [str(n) for n, v in observed.data_vars.items() if "time" in v.dims]
    names = [n for n in seen if all(n in ds.data_vars for ds in methods.values())]
    if not names:
        held = {name: list(ds.data_vars) for name, ds in methods.items()}
        raise ValueError(f"got no variable that every forecast and the observations share: observed {seen}, forecasts {held}")
    offered = sorted({str(n) for ds in methods.values() for n in ds.data_vars})
    return names, [n for n in offered if n not in names]


def _need_reference(
    reference: Reference | None, train: Any, observed: xr.Dataset, baselines: Sequence[str], metrics: Sequence[str]
) -> Reference | None:
    if reference is not None and train is not None:
        raise ValueError("got both reference and train, expected one of them")
    if train is not None:
        return fit_reference(observed, train=train)
    wanted = sorted(set(baselines) - {"persistence"}) + sorted(set(metrics) & ANOMALY_METRICS)
    absent = [] if reference is None else [str(n) for n in observed.data_vars if n not in reference.anomaly.data_vars]
    if absent:
        raise ValueError(f"got a reference without {absent}, expected one fitted on every variable that is scored")
    if reference is None and wanted:
        raise ValueError(
            f"got neither reference nor train, expected one for {', '.join(wanted)}, because they are fitted on training years; or pass "
            "baselines=() and metrics=('rmse', 'mae', 'bias')"
        )
    return reference


def _shared_times(methods: Mapping[str, xr.Dataset], observed: xr.Dataset, step: Step, *, needs_init: bool) -> _Times:
    counts = [set(np.atleast_1d(step.steps(ds["lead_time"].values)).tolist()) for ds in methods.values()]
    lead_steps = np.array(sorted(set.intersection(*counts)), int)
    if not lead_steps.size:
        raise ValueError(f"got forecasts without a common lead time: {[sorted(c) for c in counts]} steps of {step}")
    datasets = list(methods.values())
    first = datasets[0]["init_time"]
    offered = max(ds.sizes["init_time"] for ds in datasets)
    kept = np.ones(first.size, bool)
    for ds in datasets[1:]:
        kept &= _find_init(ds, first) >= 0
    if not kept.any():
        raise ValueError("got forecasts without a common initial time, expected some, because all methods are scored on the same ones")
    first = first[kept]
    positions = valid_positions(observed["time"], first, lead_steps, step)
    complete = (positions >= 0).all(axis=1)
    if needs_init:
        complete &= valid_positions(observed["time"], first, [0], step)[:, 0] >= 0
    if not complete.any():
        raise ValueError(
            f"got no initial time between {first.values[0]} and {first.values[-1]} whose valid times up to {lead_steps[-1]} steps are all "
            f"observed ({observed['time'].values[0]} to {observed['time'].values[-1]})"
        )
    init, lead = axes(first[complete], step.lead_times(lead_steps), step)
    return _Times(init, lead, positions[complete], offered - int(complete.sum()), int((positions < 0).sum()))


def _find_init(ds: xr.Dataset, init: xr.DataArray) -> np.ndarray:
    segment = init["segment"].values if "segment" in init.coords and "segment" in ds["init_time"].coords else None
    return locate(ds["init_time"], init.values, segment=segment)


def _select(ds: xr.Dataset, observed: xr.Dataset, times: _Times, step: Step, *, method: str) -> xr.Dataset:
    have = np.atleast_1d(step.steps(ds["lead_time"].values)).tolist()
    lead = [have.index(s) for s in step.steps(times.lead.values)]
    ds = ds.isel(init_time=_find_init(ds, times.init), lead_time=lead)
    ds = ds.drop_vars([c for c in ds.coords if c not in ds.dims]).assign_coords(init_time=times.init.values, lead_time=times.lead)
    return xr.Dataset({n: check_grid(ds[n], observed[n], method=method) for n in observed.data_vars})


def _all_sums(
    methods: Mapping[str, xr.Dataset],
    baselines: Mapping[str, Baseline],
    observed: xr.Dataset,
    reference: Reference | None,
    times: _Times,
    regions: Sequence[str],
    *,
    ensemble: frozenset[str],
) -> xr.DataArray:
    """Compute the sums ``(method, channel, region, init_time, lead_time, statistic)``, with those of members that ``ensemble`` needs.

    Block by block of initial times, so that memory is bounded whatever Dask loads first.
    """
    weights = {str(n): region_weights(observed[n], regions) for n in observed.data_vars}
    _check_regions(list(weights.values()))
    scored = None if reference is None else replace(reference, anomaly=reference.anomaly[list(weights)])
    size = _block_size(methods, len(baselines), times)
    starts = range(0, times.init.size, size)
    blocks = []
    for start in track(starts, description="scores", transient=True, disable=len(starts) == 1):
        part = slice(start, start + size)
        init, positions = times.init[part], times.positions[part]
        normal = None if scored is None else climatology_forecast(scored, observed, init, times.lead)
        fields = {name: ds.isel(init_time=part) for name, ds in methods.items()}
        fields |= {name: baseline.forecast(init) for name, baseline in baselines.items()}
        lazy: dict[str, list[xr.DataArray]] = {m: [] for m in fields}
        for name, weight in weights.items():
            truth = at_positions(observed[name], positions, init, times.lead)
            for method, ds in fields.items():
                sums = _sums(ds[name], truth, None if normal is None else normal[name], weight, ensemble)
                lazy[method].append(_as_channels(sums, name))
        joined = [xr.concat(parts, "channel", **_JOIN) for parts in lazy.values()]
        blocks.append(xr.concat(joined, "method", **_JOIN).assign_coords(method=list(lazy)).compute())
    return blocks[0] if len(blocks) == 1 else xr.concat(blocks, "init_time", **_JOIN)


def _block_size(methods: Mapping[str, xr.Dataset], baselines: int, times: _Times) -> int:
    """Initial times that are scored together: whole chunks of the forecasts."""
    values = sum(v.size // max(1, v.sizes["init_time"]) for ds in methods.values() for v in ds.data_vars.values())
    values += baselines * (values // len(methods))
    chunk = max((max(ds.chunksizes.get("init_time", (1,))) for ds in methods.values()), default=1)
    size = max(1, _BLOCK // max(1, values))
    return min(times.init.size, max(chunk, size // chunk * chunk))


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


def _as_channels(sums: xr.DataArray, name: str) -> xr.DataArray:
    levels = np.atleast_1d(sums["level"].values).astype(float) if "level" in sums.dims else np.array([np.nan])
    sums = sums.rename(level="channel") if "level" in sums.dims else sums.expand_dims("channel")
    labels = [name if np.isnan(v) else f"{name}_{v:g}" for v in levels]
    keep = [c for c in sums.coords if c in ("init_time", "lead_time", "region", "statistic")]
    sums = sums.drop_vars([c for c in sums.coords if c not in keep])
    return sums.assign_coords(channel=labels, variable=("channel", [name] * len(labels)), level=("channel", levels))


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
    p_value = xr.full_like(value.isel(metric=0, drop=True), np.nan)
    if against in sums["method"].values:
        p_value = paired_difference(sums, sums.loc[{"method": against}].drop_vars("method")).p_value
    order = ("method", "channel", "region", "lead_time", "metric")
    tests = [p_value.isel(method=[k]) for k in range(p_value.sizes["method"])]
    q_value = xr.concat([t.copy(data=false_discovery(t.values)) for t in tests], "method")
    seen = (sums.sel(statistic="weight", drop=True).isel(method=0, drop=True) > 0).sum("init_time")
    result = xr.Dataset(
        {
            "value": value.transpose(*order),
            "ci_low": low.transpose(*order),
            "ci_high": high.transpose(*order),
            "p_value": p_value.transpose(*order[:-1]),
            "q_value": q_value.transpose(*order[:-1]),
            "num_init": seen.transpose("channel", "region", "lead_time").astype("int64"),
        }
    )
    return result.assign_attrs(block_length=block, num_init=int(sums.sizes["init_time"]), resamples=resamples, seed=seed, against=against)


def _describe(
    result: xr.Dataset, observed: xr.Dataset, times: _Times, skipped: list[str], lim: Lim | None, notices: list[str], step: Step
) -> xr.Dataset:
    units = [str(observed[v].attrs.get("units", "")) for v in result["variable"].values]
    result = result.assign_coords(units=("channel", units), lead_time=times.lead)
    if times.dropped:
        notices = [
            f"{times.dropped} initial times dropped: not in all forecasts, not observed, or with a valid time that is not observed",
            *notices,
        ]
    result.attrs |= {
        "dropped_init": times.dropped,
        "missing_valid_times": times.missing_valid,
        "skipped_variables": ", ".join(skipped),
        "first_init": str(times.init.values[0]),
        "last_init": str(times.init.values[-1]),
        "lead_column": step.column,
        "notices": "; ".join(notices),
    }
    if lim is not None:
        result.attrs["lim"] = "; ".join(f"{p.lead_steps} steps: {p.eofs} EOFs, {p.kind}" for p in lim.propagators)
    return result
