"""The data of a run: where they are, their blocks and leads, and what baselines may learn."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from sciwm import catalogue
from sciwm.climatology import Climatology, fit_climatology
from sciwm.config import Config
from sciwm.data.open import open_dataset
from sciwm.readout.targets import as_components, stored_series, target_series
from sciwm.regions import land_fraction, parse_region, region_weights
from sciwm.run.directory import RunDir
from sciwm.skill.baselines.by_name import ALL_BASELINES, BASELINE_RECORDS
from sciwm.skill.baselines.simple import Reference
from sciwm.skill.events import parse_event
from sciwm.skill.metrics import with_event_metrics
from sciwm.skill.sums import check_regions
from sciwm.store.noise import mean_is_noise
from sciwm.store.prepare import load_statistics, open_training_store
from sciwm.store.split import LABELS, Blocks, crossing_steps, split_times
from sciwm.store.statistics import from_channels
from sciwm.times import Step, infer_step
from sciwm.tokens.tokenizer import fit_tokenizer
from sciwm.world.rollout import initial_positions, lead_paths

__all__ = [
    "blocks_of",
    "config_problems",
    "context_steps",
    "gap_problem",
    "gap_steps",
    "lead_steps",
    "observations",
    "open_data",
    "pool_advice",
    "reference_of",
    "scored_positions",
    "seen_periods",
    "series_climatology",
    "with_store",
]

_MOST_FEATURES = 4096


def open_data(config: Config, run: RunDir | None = None) -> xr.Dataset:
    """Open the data of a configuration; ``qg`` is simulated into the run directory first."""
    store = config.data.store
    if store == "qg" and not Path("qg").exists():
        path = (run.path if run else Path("runs")) / "qg.zarr"
        if not path.exists():
            catalogue.load("qg").make(path=path, seed=config.seed)
        store = str(path)
    series = [t for t in config.probe.targets if parse_region(t) is None]
    wanted = [*config.data.variables, *series] if config.data.variables else None
    return open_dataset(
        store, variables=wanted, static=config.data.static or None, segments=config.data.segments
    )


def lead_steps(config: Config, step: Step) -> list[int]:
    """Leads of the forecasts in time steps, in increasing order."""
    return sorted({int(step.steps(lead)) for lead in config.forecast.lead_times})


def context_steps(config: Config) -> int:
    """Time steps from the first state of a context to its last."""
    return (config.model.history - 1) * config.model.context_step


def gap_steps(config: Config, step: Step) -> int:
    """Steps between blocks of time, so that no window of one reaches into the other."""
    return context_steps(config) + max(
        *lead_steps(config, step), config.objective.rollout * max(config.objective.lead_steps)
    )


def blocks_of(config: Config, gap: int) -> Blocks:
    """Blocks of the split, so many steps apart where they touch."""
    split = config.data.split
    return Blocks(split.train, split.validation, split.test, by=split.by, gap_steps=gap)


def gap_problem(config: Config, ds: xr.Dataset) -> str:
    """What is too near to what, where pieces of one record train and are scored.

    Empty if nothing is.

    Blocks of dates or positions lose the steps that a window is long. Members and trajectories need
    no gap. Pieces of one record, split where times are missing, may be as near as one missing step.
    Nothing is taken from them.
    """
    split = config.data.split
    if split.by != "segment" or not config.data.segments:
        return ""
    step, segment = infer_step(ds["time"]), ds["segment"].values
    gap = gap_steps(config, step)
    lost = crossing_steps(
        ds["time"],
        segment,
        split_times(ds["time"], blocks_of(config, gap), segment),
        gap,
    )
    parts = [
        f"{len(index)} of the {name} block (the first at {ds['time'].values[index[0]]})"
        for name, index in lost.items()
    ]
    return (
        f"got pieces of one record of which {' and '.join(parts)} times lie within {gap} steps"
        f" after another block, expected a gap of context and longest lead, {gap} steps, because"
        " windows that nearly touch are alike: leave out a piece between the blocks, split by"
        " time, or say skill.allow_leakage=true (--allow-leakage) to have the scores all the same,"
        " marked as such"
        if parts
        else ""
    )


def seen_periods(config: Config, step: Step, split: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Attributes of a forecast store that say which times its model has seen.

    There are none where segments, not times, part the blocks.
    """
    if config.data.split.by == "segment" or step.unit == "ps":
        return {}
    names = {"training_period": "train", "validation_period": "validation"}
    return {
        name: "/".join(str(time)[:19] for time in split[block])
        for name, block in names.items()
        if block in split
    }


def with_store(config: Config, store: str | list[str], *, variables: Sequence[str] = ()) -> Config:
    """The same configuration with other data.

    The variables the model was trained on are asked for. Static fields it carries itself.
    """
    data = dataclasses.replace(
        config.data, store=store, variables=list(variables) or config.data.variables, static=[]
    )
    return dataclasses.replace(config, data=data)


def config_problems(config: Config, ds: xr.Dataset) -> list[str]:
    """What of a configuration cannot work with these data, found before any work is done."""
    tests = (
        _check_leads,
        _check_tokens,
        _check_targets,
        _check_scores,
        _check_regions,
        _check_gap,
        _check_simulation,
    )
    problems = []
    for test in tests:
        try:
            test(config, ds)
        except ValueError as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))  # one fault may fail several tests


def _check_leads(config: Config, ds: xr.Dataset) -> None:
    lead_paths(lead_steps(config, infer_step(ds["time"])), config.objective.lead_steps)


def _check_tokens(config: Config, ds: xr.Dataset) -> None:
    if "positions" not in ds:
        height, width = config.model.patch_size
        fit_tokenizer(
            ds[["latitude", "longitude"]]
            .assign(state=("channel", [0.0]))
            .assign_attrs(kind="grid"),
            patch_size=(height, width),
        )


def _check_targets(config: Config, ds: xr.Dataset) -> None:
    if "positions" in ds and not config.probe.targets:
        series = [str(n) for n, v in ds.data_vars.items() if v.dims == ("time",)]
        raise ValueError(
            "got a molecule without probe.targets, expected some of its series to forecast:"
            f" {series}"
        )
    if not config.probe.targets:
        return
    target_series(ds, config.probe.targets)
    tokens = cells = ds.sizes.get("atom", 0)
    if not tokens:
        height, width = config.model.patch_size
        tokens = -(-ds.sizes["latitude"] // height) * -(-ds.sizes["longitude"] // width)
        fields = [
            v for v in ds.data_vars.values() if {"time", "latitude", "longitude"} <= set(v.dims)
        ]
        cells = height * width * sum(v.sizes.get("level", 1) for v in fields)
    each = config.model.latent_dim or cells
    if (features := tokens * each) > _MOST_FEATURES:
        raise ValueError(
            f"got probe.targets with {tokens} tokens of {each} latents, {features} features for one"
            f" readout, expected at most {_MOST_FEATURES}: take larger patches (model.patch_size)"
            " or a smaller model.latent_dim, or leave the targets out"
        )


def _check_scores(config: Config, ds: xr.Dataset) -> None:
    with_event_metrics(config.skill.metrics, config.skill.events)
    for text in config.skill.events:
        parse_event(text)
    unknown = [b for b in config.skill.baselines if b not in ALL_BASELINES]
    if unknown:
        raise ValueError(
            f"got skill.baselines {unknown}, expected some of {', '.join(ALL_BASELINES)}"
        )
    step = infer_step(ds["time"])
    monthly = [b for b in config.skill.baselines if BASELINE_RECORDS[b].monthly]
    if monthly and (step.unit, step.value) != ("months", 1.0):
        raise ValueError(
            f"got skill.baselines with cslim for data in steps of {step}, expected it for monthly"
            " data only"
        )


def _check_regions(config: Config, ds: xr.Dataset) -> None:
    observed = observations(config, ds)
    land = land_fraction(observed)
    fields = [v for v in observed.data_vars.values() if "time" in v.dims]
    check_regions([region_weights(v, config.skill.regions, land=land) for v in fields])


def _check_gap(config: Config, ds: xr.Dataset) -> None:
    if not config.skill.allow_leakage and (problem := gap_problem(config, ds)):
        raise ValueError(problem)


def _check_simulation(config: Config, ds: xr.Dataset) -> None:
    length, stride = config.forecast.simulate, max(config.objective.lead_steps)
    if not length:
        return
    if "positions" in ds:
        raise ValueError(
            f"got forecast.simulate = {length!r} for a molecule, expected '', because mean and"
            " spread are looked at on a grid: call WorldModel.simulate instead"
        )
    if config.objective.kind == "masked_autoencoder":
        raise ValueError(
            f"got forecast.simulate = {length!r} with objective.kind = 'masked_autoencoder',"
            " expected '', because it has no dynamics"
        )
    step = infer_step(ds["time"])
    if int(step.steps(length)) < stride:
        raise ValueError(
            f"got forecast.simulate = {length!r}, expected at least one prediction, {stride} steps"
            f" of {step}"
        )


def pool_advice(config: Config, ds: xr.Dataset, label: np.ndarray) -> str:
    """What to try where every cell has a mean of its own that is not known; empty otherwise.

    ``label`` is that of the times, from `split_times`. A sample of the training block is read.
    """
    own = config.data.climatology_pool == "none"
    return (
        "the mean per cell looks like sampling noise: try data.climatology_pool: domain"
        if own and mean_is_noise(ds, label=label)
        else ""
    )


def scored_positions(
    run: RunDir, config: Config, ds: xr.Dataset, *, split: Literal["validation", "test"] = "test"
) -> np.ndarray:
    """Positions of the initial times of a block that are forecast and scored.

    Raises
    ------
    ValueError
        If the block holds none.
    """
    index = initial_positions(
        ds["segment"].values,
        back=context_steps(config),
        label=open_training_store(run.train_store)["split"].values,
        which=LABELS[split],
        longest=max(lead_steps(config, infer_step(ds["time"]))),
    )[:: config.forecast.init_every]
    if not len(index):
        raise ValueError(
            f"got no initial time in the {split} block, expected some: the block must be longer"
            " than the context and the longest lead"
        )
    return index


def observations(config: Config, ds: xr.Dataset) -> xr.Dataset:
    """Fields and series to score against."""
    if not config.probe.targets:
        return ds
    series = as_components(target_series(ds, config.probe.targets))
    fields = ds.drop_vars(
        [n for n, v in ds.data_vars.items() if v.dims == ("time",) or "atom" in v.dims]
    )
    return fields.assign(series.data_vars)


def series_climatology(run: RunDir, config: Config) -> Climatology | None:
    """Climatology of the scalar series of a run, from its training block; None without series."""
    store = open_training_store(run.train_store)
    series = stored_series(store)
    if series is None:
        return None
    train = series.isel(time=np.flatnonzero(store["split"].values == 0))
    kind = (
        config.data.climatology
        if Step(store.attrs["step_value"], store.attrs["step_unit"]).unit != "ps"
        else "constant"
    )
    return fit_climatology(train, kind=kind, harmonics=config.data.harmonics)


def reference_of(run: RunDir) -> Reference:
    """Climatology and anomalies of the training block, from the training store of a run."""
    store = open_training_store(run.train_store)
    step = Step(float(store.attrs["step_value"]), store.attrs["step_unit"])
    anomalies: dict[str, xr.DataArray] = {}
    coefficients: dict[str, xr.DataArray] = {}
    one: Climatology | None = None
    if "channel" in store["state"].dims:
        statistics = load_statistics(run.train_store)
        one = statistics.climatology
        names = {k: statistics.scale.coords[k] for k in ("channel", "variable", "level")}
        bare = store["state"].drop_vars(list(names), errors="ignore").assign_coords(names)
        anomalies |= dict(from_channels(bare * statistics.scale).data_vars)  # type: ignore[arg-type]
        coefficients |= dict(one.coefficients.data_vars)  # type: ignore[arg-type]
    series = stored_series(store)
    if series is not None:
        own = series_climatology(run, run.read_config())
        assert own is not None
        one = one or own
        mean = own.at(series["time"])
        anomalies |= {str(n): v - mean[n] for n, v in series.data_vars.items()}
        coefficients |= dict(own.coefficients.data_vars)  # type: ignore[arg-type]
    assert one is not None
    whole = xr.Dataset(anomalies).assign_coords(segment=("time", store["segment"].values))
    climatology = dataclasses.replace(one, coefficients=xr.Dataset(coefficients))
    split = store["split"].values
    blocks = [whole.isel(time=np.flatnonzero(split == number)) for number in (0, 1)]
    return Reference(
        climatology=climatology,
        anomaly=blocks[0],
        validation=blocks[1] if blocks[1].sizes["time"] else None,
        step=step,
    )
