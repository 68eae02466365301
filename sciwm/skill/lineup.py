"""What is scored: all forecasts and baselines on the same initial times, block by block."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress

from sciwm.regions import land_fraction
from sciwm.skill.alignment import at_positions, check_grid, locate, valid_positions
from sciwm.skill.baselines.by_name import (
    ALL_BASELINES,
    BASELINE_RECORDS,
    BASELINES,
    LIM_EOFS,
    Baseline,
    fit_baseline,
)
from sciwm.skill.baselines.simple import Reference, axes, climatology_forecast
from sciwm.skill.leakage import check_leakage, declared_periods, find_leaks
from sciwm.skill.metrics import find_metric
from sciwm.times import Step, infer_step, numeric_time

__all__ = ["Block", "Lineup", "Times", "as_channels", "line_up", "line_up_batches"]

_BLOCK = 60_000_000  # values of forecasts that are scored together


@dataclass(frozen=True)
class Times:
    """The initial and lead times all methods share.

    Parameters
    ----------
    init, lead : DataArray
        1-D, as `sciwm.skill.baselines.simple.axes` makes them.
    positions : ndarray of int, shape (init, lead)
        Of the valid times on the observations' time axis.
    dropped : int
        Initial times that were offered and are not among them.
    missing_valid : int
        Pairs of initial and lead time whose valid time is not observed.
    notices : tuple of str
        Which valid times are missing, in words.
    """

    init: xr.DataArray
    lead: xr.DataArray
    positions: np.ndarray
    dropped: int
    missing_valid: int
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """Some initial times of a `Lineup`: forecasts of all methods, lazy, and what was observed.

    Parameters
    ----------
    fields : mapping of str to Dataset
        Dims ``(init_time, lead_time, [number], [level], *space)``, stores first, then baselines.
    observed : Dataset
        The observations of the lineup.
    init, lead : DataArray
    positions : ndarray of int, shape (init, lead)
    normal : Dataset or None
        Climatology at the valid times.
    """

    fields: Mapping[str, xr.Dataset]
    observed: xr.Dataset
    init: xr.DataArray
    lead: xr.DataArray
    positions: np.ndarray
    normal: xr.Dataset | None

    def truth(self, name: str) -> xr.DataArray:
        """Take the observations of a variable at the valid times, in the forecast layout.

        The result is lazy for lazy observations.
        """
        return at_positions(self.observed[name], self.positions, self.init, self.lead)

    def at_leads(self, keep: Sequence[int]) -> "Block":
        """The same with some lead times only, by position."""
        leads = list(keep)
        return replace(
            self,
            fields={name: ds.isel(lead_time=leads) for name, ds in self.fields.items()},
            lead=self.lead[leads],
            positions=self.positions[:, leads],
            normal=None if self.normal is None else self.normal.isel(lead_time=leads),
        )


@dataclass(frozen=True)
class Lineup:
    """Forecasts and fitted baselines beside the observations, from `line_up`.

    Parameters
    ----------
    methods : mapping of str to Dataset
        Forecasts at the shared times, on the observations' coordinates, lazy for lazy stores.
    baselines : mapping of str to Baseline
    observed : Dataset
        Shared variables only.
    reference : Reference or None
    times : Times
    step : Step
        Of the observations.
    skipped : tuple of str
        Variables that not every forecast has, or that are not observed.
    leakage : str
        Training times among the scored ones, in words; empty without any.
    notices : tuple of str
        What else a reader of the scores should know.
    land : DataArray or None
        Share of land in each cell, for the regions ``land`` and ``ocean``.
    batches : iterable of mapping of str to Dataset, or None
        Forecasts that are made while they are scored; see `line_up_batches`.
    batched : tuple of str
        Names of these forecasts.
    """

    methods: Mapping[str, xr.Dataset]
    baselines: Mapping[str, Baseline]
    observed: xr.Dataset
    reference: Reference | None
    times: Times
    step: Step
    skipped: tuple[str, ...]
    leakage: str
    notices: tuple[str, ...]
    land: xr.DataArray | None = None
    batches: Iterable[Mapping[str, xr.Dataset]] | None = None
    batched: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Methods in the order of the table: forecasts, then baselines."""
        return [*self.methods, *self.batched, *self.baselines]

    def blocks(self, *, normal: bool = True, progress: str = "scores") -> Iterator[Block]:
        """Go through the initial times in blocks, so that memory is bounded.

        Blocks are whole chunks of stored forecasts, or the batches that forecasts come in. A
        baseline forecasts each initial time once.

        Parameters
        ----------
        normal : bool
            Give the climatology, too, if there is a reference.
        progress : str
            What to call the work on the terminal.
        """
        own = None if self.reference is None or not normal else self.reference
        names = list(self.observed.data_vars)
        scored = None if own is None else replace(own, anomaly=own.anomaly[names])
        count = self.times.init.size
        single = self.batches is None and _block_size(self) >= count
        with Progress(transient=True, disable=single) as bar:
            task = bar.add_task(progress, total=count)
            for part, fields in self._parts():
                init, lead = self.times.init[part], self.times.lead
                fields |= {name: made.forecast(init) for name, made in self.baselines.items()}
                mean = None
                if scored is not None:
                    mean = climatology_forecast(scored, self.observed, init, lead)
                positions = self.times.positions[part]
                yield Block(fields, self.observed, init, lead, positions, mean)
                bar.advance(task, init.size)

    def _parts(self) -> Iterator[tuple[slice, dict[str, xr.Dataset]]]:
        """Initial times of each block, and the forecasts of them."""
        if self.batches is None:
            size = _block_size(self)
            for start in range(0, self.times.init.size, size):
                part = slice(start, start + size)
                yield part, {n: ds.isel(init_time=part) for n, ds in self.methods.items()}
            return
        start, count = 0, self.times.init.size
        for batch in self.batches:
            if set(batch) != set(self.batched):
                raise ValueError(f"got a batch of {list(batch)}, expected {list(self.batched)}")
            part = slice(start, start + next(iter(batch.values())).sizes["init_time"])
            init = self.times.init[part]
            yield part, {name: _at_times(ds, self, init, name) for name, ds in batch.items()}
            start = part.stop
        if start < count:
            raise ValueError(f"got batches of {start} initial times, expected {count}")


def line_up(
    forecasts: Mapping[str, xr.Dataset] | xr.Dataset,
    observed: xr.Dataset,
    *,
    reference: Reference | None = None,
    baselines: Sequence[str] = BASELINES,
    metrics: Sequence[str] = (),
    lim_eofs: Sequence[int] = LIM_EOFS,
    allow_leakage: bool = False,
    mask: xr.DataArray | None = None,
) -> Lineup:
    """Bring forecasts, baselines and observations together on the initial times that all share.

    Nothing is scored yet. Baselines are fitted here, once for all that is computed of them
    (`sciwm.skill.score_lineup`, `sciwm.skill.diagnose`).

    Parameters
    ----------
    forecasts, observed, reference, baselines, lim_eofs, allow_leakage, mask
        As `sciwm.skill.evaluate` takes them.
    metrics : sequence of str
        Only to say early which of them need a reference.

    Returns
    -------
    Lineup

    Raises
    ------
    ValueError
        If grids differ, nothing is shared, a name is unknown, or training times would be scored.
        The message says which.
    """
    unknown = [b for b in baselines if b not in ALL_BASELINES]
    if unknown:
        raise ValueError(f"got baselines {unknown}, expected some of {', '.join(ALL_BASELINES)}")
    methods = _methods(forecasts)
    clash = sorted(set(methods) & set(baselines))
    if clash:
        raise ValueError(
            f"got forecasts named {clash}, expected other names, because baselines of these names"
            " are added"
        )
    names, skipped = _shared_variables(methods, observed)
    _check_reference(reference, observed[names], baselines, metrics)
    step = infer_step(observed["time"]) if reference is None else reference.step
    needs_init = bool(set(baselines) - {"climatology"})
    times = _shared_times(methods, observed, step, needs_init=needs_init)
    leakage, unclear = _leakage(methods, observed, reference, times, allow=allow_leakage)
    chosen = {
        name: _select(ds[names], observed[names], times, step, method=name)
        for name, ds in methods.items()
    }
    fit = partial(fit_baseline, variables=names, lim_eofs=lim_eofs)
    made = {name: fit(name, reference, observed, times.lead) for name in baselines}
    notices = [*([leakage] if leakage else []), *_regridded(methods), *times.notices, *unclear]
    notices += [text for baseline in made.values() for text in baseline.notices]
    land = land_fraction(observed) if mask is None else land_fraction(mask.to_dataset(name="lsm"))
    return Lineup(
        methods=chosen,
        baselines=made,
        observed=observed[names],
        reference=reference,
        times=times,
        step=step,
        skipped=tuple(skipped),
        leakage=leakage,
        notices=tuple(notices),
        land=land,
    )


def line_up_batches(
    names: Sequence[str],
    batches: Iterable[Mapping[str, xr.Dataset]] | None,
    observed: xr.Dataset,
    *,
    init: xr.DataArray,
    lead_times: Any,
    reference: Reference | None = None,
    baselines: Sequence[str] = (),
    lim_eofs: Sequence[int] = LIM_EOFS,
) -> Lineup:
    """Line up forecasts that are made while they are scored: nothing has to be stored.

    Baselines are fitted here, as `line_up` does.

    Parameters
    ----------
    names : sequence of str
        Of the forecasts; none for baselines alone.
    batches : iterable of mapping of str to Dataset, or None
        Each holds the forecasts of some initial times by name, in the order of ``init``. A lineup
        of a generator can be scored only once. None if there are no names.
    observed, reference, baselines, lim_eofs
        As `line_up` takes them. Every variable of ``observed`` with a time is scored.
    init : DataArray
        Initial times, with their ``segment`` where times repeat.
    lead_times : array-like
        As `Step.lead_times` makes them.

    Returns
    -------
    Lineup
        Its blocks are the batches.

    Raises
    ------
    ValueError
        If a valid time is not observed, or only one of names and batches is given. Batches of other
        names, or that are not the initial times in their order, are refused when they are scored.
    """
    if bool(names) != (batches is not None):
        raise ValueError(f"got names {list(names)} and batches {batches!r}, expected both or none")
    step = infer_step(observed["time"]) if reference is None else reference.step
    variables = [str(n) for n, v in observed.data_vars.items() if "time" in v.dims]
    scored = observed[variables]
    _check_reference(reference, scored, baselines, ())
    lead_steps = np.atleast_1d(step.steps(np.asarray(lead_times)))
    positions = valid_positions(observed["time"], init, lead_steps, step)
    if absent := _absent(observed["time"], init, lead_steps, positions, step):
        raise ValueError(f"got initial times of which {absent}, expected all of them")
    init, lead = axes(init, step.lead_times(lead_steps), step)
    fit = partial(fit_baseline, variables=variables, lim_eofs=lim_eofs)
    made = {name: fit(name, reference, observed, lead) for name in baselines}
    return Lineup(
        methods={},
        baselines=made,
        observed=scored,
        reference=reference,
        times=Times(init, lead, positions, dropped=0, missing_valid=0),
        step=step,
        skipped=(),
        leakage="",
        notices=(),
        land=land_fraction(observed),
        batches=batches,
        batched=tuple(names),
    )


def _regridded(methods: Mapping[str, xr.Dataset]) -> list[str]:
    return [
        f"{name} was brought {ds.attrs['regridded']}"
        for name, ds in methods.items()
        if "regridded" in ds.attrs
    ]


def _leakage(
    methods: Mapping[str, xr.Dataset],
    observed: xr.Dataset,
    reference: Reference | None,
    times: Times,
    *,
    allow: bool,
) -> tuple[str, list[str]]:
    """Say which scored times were seen in training, and which declarations are not understood."""
    declared, notices = declared_periods(methods)
    amounts = numeric_time(observed["time"].values)
    # Where members share times, a period says nothing of them.
    once = len(np.unique(amounts)) == len(amounts)
    held = None if reference is None else reference.validation
    leaks = find_leaks(
        times.init,
        observed["time"].values[times.positions],
        training=None if reference is None else reference.anomaly["time"],
        validation=None if held is None else held["time"],
        fitted=reference.climatology.fitted if reference is not None and once else (),
        declared=declared if once else {},
    )
    return check_leakage(leaks, allow=allow), notices


def _methods(forecasts: Mapping[str, xr.Dataset] | xr.Dataset) -> dict[str, xr.Dataset]:
    methods = {"forecast": forecasts} if isinstance(forecasts, xr.Dataset) else dict(forecasts)
    for name, ds in methods.items():
        if not {"init_time", "lead_time"} <= set(ds.dims):
            way_out = "; open files in the WeatherBench layout with open_forecast"
            hint = way_out if "prediction_timedelta" in ds.dims else ""
            raise ValueError(
                f"got forecast {name!r} with dims {tuple(ds.dims)}, expected init_time and"
                f" lead_time among them{hint}"
            )
    if not methods:
        raise ValueError(
            "got no forecasts, expected at least one: initial and lead times are taken from them"
        )
    return methods


def _shared_variables(
    methods: Mapping[str, xr.Dataset], observed: xr.Dataset
) -> tuple[list[str], list[str]]:
    seen = [str(n) for n, v in observed.data_vars.items() if "time" in v.dims]
    names = [n for n in seen if all(n in ds.data_vars for ds in methods.values())]
    if not names:
        held = {name: list(ds.data_vars) for name, ds in methods.items()}
        raise ValueError(
            f"got no variable that every forecast and the observations share: observed {seen},"
            f" forecasts {held}"
        )
    offered = sorted({str(n) for ds in methods.values() for n in ds.data_vars})
    return names, [n for n in offered if n not in names]


def _check_reference(
    reference: Reference | None,
    observed: xr.Dataset,
    baselines: Sequence[str],
    metrics: Sequence[str],
) -> None:
    wanted = [b for b in baselines if BASELINE_RECORDS[b].needs_reference]
    wanted = sorted(wanted) + sorted(m for m in metrics if find_metric(m).needs_reference)
    if reference is None and wanted:
        raise ValueError(
            f"got no reference, expected one for {', '.join(wanted)}, because they are fitted on"
            " training years: reference=fit_reference(observed, train=...); or pass baselines=()"
            " and metrics=('rmse', 'mae', 'bias')"
        )
    known = observed.data_vars if reference is None else reference.anomaly.data_vars
    if absent := [str(n) for n in observed.data_vars if n not in known]:
        raise ValueError(
            f"got a reference without {absent}, expected one fitted on every variable that is"
            " scored"
        )


def _shared_times(
    methods: Mapping[str, xr.Dataset], observed: xr.Dataset, step: Step, *, needs_init: bool
) -> Times:
    counts = [set(_lead_steps(ds, step)) for ds in methods.values()]
    lead_steps = np.array(sorted(set.intersection(*counts)), int)
    if not lead_steps.size:
        raise ValueError(
            f"got forecasts without a common lead time: {[sorted(c) for c in counts]} steps of"
            f" {step}"
        )
    datasets = list(methods.values())
    first = datasets[0]["init_time"]
    offered = max(ds.sizes["init_time"] for ds in datasets)
    kept = np.ones(first.size, bool)
    for ds in datasets[1:]:
        kept &= _find_init(ds, first) >= 0
    if not kept.any():
        first_of = {name: _stamp(ds["init_time"].values[0]) for name, ds in methods.items()}
        starts = ", ".join(f"{name} from {start}" for name, start in first_of.items())
        raise ValueError(
            f"got forecasts without a common initial time ({starts}), expected some, because all"
            " methods are scored on the same ones"
        )
    first = _in_order(first[kept])
    positions = valid_positions(observed["time"], first, lead_steps, step)
    complete = (positions >= 0).all(axis=1)
    if needs_init:
        complete &= valid_positions(observed["time"], first, [0], step)[:, 0] >= 0
    absent = _absent(observed["time"], first, lead_steps, positions, step)
    if not complete.any():
        started = "that are observed themselves and " if needs_init else ""
        time, why = observed["time"].values, f"; {absent}" if absent else ""
        raise ValueError(
            f"got no initial time between {first.values[0]} and {first.values[-1]} {started}whose"
            f" valid times up to {lead_steps[-1]} steps are all observed ({time[0]} to"
            f" {time[-1]}){why}"
        )
    init, lead = axes(first[complete], step.lead_times(lead_steps), step)
    return Times(
        init,
        lead,
        positions[complete],
        dropped=offered - int(complete.sum()),
        missing_valid=int((positions < 0).sum()),
        notices=(absent,) if absent else (),
    )


def _lead_steps(ds: xr.Dataset, step: Step) -> list[int]:
    steps: list[int] = np.atleast_1d(step.steps(ds["lead_time"].values)).tolist()
    return steps


def _in_order(init: xr.DataArray) -> xr.DataArray:
    """Sort initial times by segment and time: tests and intervals look at neighbours."""
    keys = [numeric_time(init.values)]
    if "segment" in init.coords:
        keys.append(init["segment"].values)
    return init[np.lexsort(keys)]


def _absent(
    time: xr.DataArray,
    init: xr.DataArray,
    lead_steps: np.ndarray,
    positions: np.ndarray,
    step: Step,
) -> str:
    """Say how many valid times are not observed, the first, and the observed time nearest to it.

    Empty if all are observed.
    """
    missing = positions < 0
    if not missing.any():
        return ""
    valid = step.add(init.values[:, None], lead_steps[None, :])[missing]
    amounts = numeric_time(valid)
    first = valid[amounts.argmin()]
    nearest = time.values[np.abs(numeric_time(time.values) - amounts.min()).argmin()]
    count = len(np.unique(amounts))
    return (
        f"{count} valid time{'s are' if count > 1 else ' is'} not observed ({int(missing.sum())} of"
        f" {missing.size} pairs of initial and lead time), the first {_stamp(first)}; the nearest"
        f" that is observed is {_stamp(nearest)}"
    )


def _stamp(time: Any) -> str:
    return str(time)[:16] if not isinstance(time, float | np.floating) else f"{time:g} ps"


def _start(init: xr.DataArray) -> str:
    first = _stamp(init.values[0])
    return f"{first} of segment {init['segment'].values[0]}" if "segment" in init.coords else first


def _find_init(ds: xr.Dataset, init: xr.DataArray) -> np.ndarray:
    known = "segment" in init.coords and "segment" in ds["init_time"].coords
    segment = init["segment"].values if known else None
    return locate(ds["init_time"], init.values, segment=segment)


def _select(
    ds: xr.Dataset, observed: xr.Dataset, times: Times, step: Step, *, method: str
) -> xr.Dataset:
    have = _lead_steps(ds, step)
    lead = [have.index(s) for s in step.steps(times.lead.values)]
    ds = ds.isel(init_time=_find_init(ds, times.init), lead_time=lead)
    return _labelled(ds, observed, times.init, times.lead, method=method)


def _at_times(ds: xr.Dataset, lineup: Lineup, init: xr.DataArray, method: str) -> xr.Dataset:
    """A batch of forecasts on the coordinates of the lineup."""
    given = ds["init_time"]
    same = np.array_equal(given.values, init.values)
    if "segment" in given.coords and "segment" in init.coords:
        same = same and np.array_equal(given["segment"].values, init["segment"].values)
    if not same:
        expected = f"one from {_start(init)}" if init.size else "no more"
        raise ValueError(
            f"got a batch of {method} from {_start(given)}, expected {expected}, in the order of"
            " the initial times"
        )
    wanted, leads = (
        lineup.step.steps(x.values).tolist() for x in (lineup.times.lead, ds["lead_time"])
    )
    if leads != wanted:
        raise ValueError(
            f"got a batch of {method} with leads of {leads} steps, expected those of {wanted}"
        )
    return _labelled(ds, lineup.observed, init, lineup.times.lead, method=method)


def _labelled(
    ds: xr.Dataset, observed: xr.Dataset, init: xr.DataArray, lead: xr.DataArray, *, method: str
) -> xr.Dataset:
    """The observed variables of a forecast on the very coordinates of the lineup."""
    ds = ds.drop_vars([c for c in ds.coords if c not in ds.dims])
    ds = ds.assign_coords(init_time=init.values, lead_time=lead)
    names = observed.data_vars
    return xr.Dataset({n: check_grid(ds[n], observed[n], method=method) for n in names})


def _block_size(lineup: Lineup) -> int:
    """Count the initial times that are scored together: whole chunks of the forecasts."""
    methods, times = lineup.methods, lineup.times
    observed = sum(v.size // max(1, v.sizes["time"]) for v in lineup.observed.data_vars.values())
    fields = [v for ds in methods.values() for v in ds.data_vars.values()]
    values = sum(v.size // max(1, v.sizes["init_time"]) for v in fields)
    of_one = values // len(methods) if methods else observed * times.lead.size
    values += len(lineup.baselines) * of_one
    chunk = max((max(ds.chunksizes.get("init_time", (1,))) for ds in methods.values()), default=1)
    size = max(1, _BLOCK // max(1, values))
    return min(times.init.size, max(chunk, size // chunk * chunk))


def as_channels(sums: xr.DataArray, name: str) -> xr.DataArray:
    """Give sums of one variable the dim ``channel``, with its ``variable`` and ``level``.

    There is one channel for each level, or a single one.
    """
    if "level" in sums.dims:
        levels = np.atleast_1d(sums["level"].values).astype(float)
        sums = sums.rename(level="channel")
    else:
        levels = np.array([np.nan])
        sums = sums.expand_dims("channel")
    labels = [name if np.isnan(v) else f"{name}_{v:g}" for v in levels]
    sums = sums.drop_vars([c for c in sums.coords if c == "channel" or c not in sums.dims])
    return sums.assign_coords(
        channel=labels, variable=("channel", [name] * len(labels)), level=("channel", levels)
    )
