"""The JEPA against its rivals: trained and scored alike over seeds, in one table."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from rich.console import Console

from sciwm import catalogue
from sciwm.atomic import replacing, write_atomically
from sciwm.config import Config
from sciwm.model.jepa import JEPA, without_dynamics
from sciwm.model.objectives import OBJECTIVES, TWINS
from sciwm.probe.fit import fit_probes
from sciwm.readout.readout import Readouts
from sciwm.run import verbs
from sciwm.run.directory import RunDir, hash_inputs, open_run
from sciwm.run.inputs import (
    lead_steps,
    observations,
    open_data,
    reference_of,
    scored_positions,
    series_climatology,
)
from sciwm.run.rivals import method_config, open_rival, share_store
from sciwm.run.tally import Scored, fit_name, tally, to_markdown
from sciwm.skill.lineup import Lineup, line_up_batches
from sciwm.skill.sums import TableSums, collect
from sciwm.store.prepare import open_training_store
from sciwm.times import infer_step
from sciwm.train.fit import build_world, measure_world
from sciwm.train.flops import train_flops
from sciwm.world.files import save_readouts
from sciwm.world.model import WorldModel, load_world

__all__ = ["FRACTIONS", "METHODS", "compare"]

_Block = Literal["test", "validation"]
METHODS = ("jepa", "whitened", *TWINS, "random")
FRACTIONS = (1.0, 0.1, 0.01)
_BATCH = 64
# To be raised when the same probe settings give other readouts: scores of both must not stand in
# one table.
_READOUTS = 5
_SUMS = 2  # the same for the sums of baselines
_console = Console()


def compare(
    config: Config,
    *,
    out: Path,
    seeds: Sequence[int] = (0, 1, 2),
    methods: Sequence[str] = METHODS,
    split: _Block = "test",
) -> pd.DataFrame:
    """Train and score methods over seeds on the same prepared data; what is finished is skipped.

    Parameters
    ----------
    config : Config
        Sizes, steps, data and probes of all of them.
    out : Path
        Folder: ``prepared/`` (training store, baselines), a run directory ``METHOD/seedN/`` for
        each, ``compare.csv`` and ``compare.md`` (``compare_validation.csv`` and ``.md``).
    seeds : sequence of int
        Of weights, batches and few-label stretches.
    methods : sequence of str
        Some of `METHODS`.
    split : {"test", "validation"}
        Block whose initial times are scored. Choices are made on the validation block. But
        it also chose the strengths of the readouts and the truncation of the LIM. So all of its
        scores are a little too good.

    Returns
    -------
    DataFrame
        As `sciwm.run.tally.tally`.

    Raises
    ------
    ValueError
        If a method is unknown, or nothing or something twice is asked for.
    KeyboardInterrupt
        After a checkpoint; the same call goes on.
    """
    for name, asked in (("methods", methods), ("seeds", seeds)):
        if not asked or len(set(asked)) < len(asked):
            raise ValueError(f"got {name} {list(asked)}, expected at least one, and each once")
    if unknown := [m for m in methods if m not in METHODS]:
        raise ValueError(f"got methods {unknown}, expected some of {', '.join(METHODS)}")
    config = _with_data(config, out)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    if config.model.noise_dim:
        notice = (
            f"model.noise_dim = {config.model.noise_dim} is left out: every method is trained"
            " without noise, and makes no ensembles"
        )
        _console.print(notice, style="yellow", highlight=False)
    shared = open_run(out / "prepared", config)
    verbs.prepare(shared, config)
    methods = _able(shared, methods)
    ds = open_data(config)
    members = [(method, seed) for seed in seeds for method in methods]
    scored = []
    for number, (method, seed) in enumerate(members, start=1):
        _console.print(
            f"[bold]{method}, seed {seed}[/bold] ({number} of {len(members)})", highlight=False
        )
        own = _paced(shared, config, method_config(config, method, seed), method)
        scored.append(_member(shared, own, ds, method, out, split))
    baselines = _baselines(shared, config, ds, split)
    step = infer_step(ds["time"])
    observed = observations(config, ds)
    frame = tally(
        scored,
        baselines,
        lead_column=step.column,
        leads=[step.value * n for n in lead_steps(config, step)],
        units={
            str(c): str(observed[v].attrs.get("units", ""))
            for c, v in _channel_variables(baselines)
        },
    )
    numbers, text = (out / _named("compare", split, suffix) for suffix in (".csv", ".md"))
    write_atomically(numbers, frame.to_csv(index=False))
    write_atomically(text, to_markdown(frame, split=split))
    _console.print(
        f"[bold]{numbers}[/bold]: all numbers; {text}: the same to read",
        highlight=False,
        soft_wrap=True,
    )
    return frame


def _with_data(config: Config, out: Path) -> Config:
    """The same with data that all seeds share, where they are simulated."""
    if config.data.store != "qg" or Path("qg").exists():
        return config
    path = out / "qg.zarr"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        catalogue.load("qg").make(path=path, seed=config.seed)
    return replace(config, data=replace(config.data, store=str(path)))


def _able(shared: RunDir, methods: Sequence[str]) -> list[str]:
    """Methods that the states allow: a molecule has no rows and columns."""
    if open_training_store(shared.train_store).attrs["kind"] == "grid":
        return list(methods)
    out = [m for m in methods if m in OBJECTIVES and OBJECTIVES[m].needs_grid]
    able = [m for m in methods if m not in out]
    if not able:
        raise ValueError(f"got methods {out} for a molecule, expected some that need no grid")
    if out:
        notice = f"{', '.join(out)} is left out: a molecule has no rows and columns"
        _console.print(notice, style="yellow", highlight=False)
    return able


def _paced(shared: RunDir, config: Config, asked: Config, method: str) -> Config:
    """The convolutional network gets the processor time of the JEPA, not as many steps."""
    if method != "convnet":
        return asked
    _, paced = open_rival(shared, method_config(config, "jepa", config.seed), method)
    return replace(asked, train=replace(asked.train, steps=paced.train.steps))


def _named(name: str, split: _Block, suffix: str = "") -> str:
    """Name of a file or stage: that of the test block is the bare one."""
    return f"{name}{'' if split == 'test' else f'_{split}'}{suffix}"


def _member(
    shared: RunDir, config: Config, ds: xr.Dataset, method: str, out: Path, split: _Block
) -> Scored:
    """Train and score one method and seed, or read what was made before."""
    run = open_run(out / method / f"seed{config.seed}", config)
    share_store(shared, run)
    if method != "random":
        verbs.train(run, config)
    before = run.stage_inputs("prepare" if method == "random" else "train")
    sections = (config.model, config.seed, config.probe, config.forecast, config.skill.regions)
    inputs = hash_inputs(before, *sections, FRACTIONS, _READOUTS)
    path, stage = run.path / _named("scores", split, ".nc"), _named("compare", split)
    if not run.is_fresh(stage, inputs):
        normal = series_climatology(run, config)
        drawn = method == "random"
        fresh = build_world(config, run.train_store, series_climatology=normal, random=drawn)
        measured = _facts if method != "random" else _untrained_facts
        facts = measured(fresh, run, config)
        world = fresh if method == "random" else load_world(run.path)
        _write(_score(world, run, config, ds, split, text=method), path, facts)
        run.record_stage(stage, inputs, [path])
    with xr.open_dataarray(path) as sums:
        facts = {str(name): float(value) for name, value in sums.attrs.items()}
        return Scored(method, config.seed, sums.load(), facts)


def _facts(fresh: WorldModel, run: RunDir, config: Config) -> dict[str, float]:
    log = run.read_log()
    last = [r for r in log if r["split"] == "validation"][-1]
    flops = float(train_flops(fresh, run.train_store, config))
    cost = {"train_flops": flops, "train_seconds": _seconds(log, "seconds")}
    if "processor_seconds" in log[0]:  # not in older logs
        cost["processor_seconds"] = _seconds(log, "processor_seconds")
    health = {name: last[name] for name in ("probe_r2", "effective_rank")}
    return {**_sizes(fresh.network), **cost, **health}


def _untrained_facts(fresh: WorldModel, run: RunDir, config: Config) -> dict[str, float]:
    found = measure_world(fresh, run.train_store, config)
    idle = {"train_flops": 0.0, "train_seconds": 0.0, "processor_seconds": 0.0}
    health = {name: found[name] for name in ("probe_r2", "effective_rank")}
    return {**_sizes(fresh.network), **idle, **health}


def _sizes(network: JEPA) -> dict[str, float]:
    """Trained numbers of all of the network, and of the parts that JEPA and twins share."""
    # A head, a decoder or an anchor is the objective's own.
    shared = (p for name, p in network.named_parameters() if not name.startswith("objective."))
    parts = (("parameters", network.parameters()), ("backbone_parameters", shared))
    return {name: float(sum(p.numel() for p in part if p.requires_grad)) for name, part in parts}


def _seconds(log: Sequence[dict[str, Any]], key: str) -> float:
    """Time of a training that may have been resumed: every start sets the log's clock to 0."""
    clock = np.array([0.0, *(float(r.get(key, 0.0)) for r in log)])
    step = np.diff(clock)
    return float(np.where(step < 0, clock[1:], step).sum())


def _score(
    world: WorldModel, run: RunDir, config: Config, ds: xr.Dataset, split: _Block, *, text: str
) -> xr.DataArray:
    """Sums of all readouts of a world model, from one rollout of its network over the block.

    Returns
    -------
    DataArray
        ``(fit, init_time, lead_time, channel, region, statistic)``.
    """
    store, leads = open_training_store(run.train_store), lead_steps(config, world.step)

    def probed(model: WorldModel, fraction: float, name: str) -> WorldModel:
        share = fraction * config.probe.fraction
        every = config.probe.init_every if fraction == 1 else 1  # few labels are all used
        probe = replace(config.probe, fraction=share, init_every=every)
        words = f"readouts, {text}, {name}"
        return fit_probes(model, store, probe=probe, lead_steps=leads, progress=words)

    fits: dict[str, Readouts] = {}
    for fraction in FRACTIONS:
        model = probed(world, fraction, f"{fraction * 100:g} % of the labels")
        if fraction == 1:
            _keep(model, run)
        kinds = model.kinds if fraction == 1 else ["residual"]
        if fraction == 1 and text != "jepa":  # the same for all methods
            kinds = [kind for kind in kinds if kind != "local_linear"]
        fits |= {fit_name(kind, fraction): model.readouts[kind] for kind in kinds}
    models = [replace(world, readouts=fits)]
    if not OBJECTIVES[config.objective.kind].hides_states:
        encoder = replace(world, network=without_dynamics(world.network))
        residual = probed(encoder, 1, "of the context").readouts["residual"]
        models.append(replace(encoder, readouts={fit_name("context", 1): residual}))
    index = scored_positions(run, config, ds, split=split)
    parts = (world.statistics.climatology if world.statistics else None, world.series_climatology)
    forecast = [name for part in parts if part is not None for name in part.coefficients.data_vars]
    observed = _only(observations(config, ds), forecast)
    found = []
    for model in models:
        names = list(model.readouts)
        batches = model.forecast_batches(ds, index, readouts=names, batch_size=_BATCH)
        init = ds["time"].isel(time=index).rename(time="init_time")
        lead_times = world.step.lead_times(np.array(leads))
        lineup = line_up_batches(names, batches, observed, init=init, lead_times=lead_times)
        sums = _sums(lineup, index, config, f"scores, {text}")
        found.append(sums.rename(method="fit"))
    return xr.concat(found, "fit", coords="minimal", compat="override", join="override")


def _keep(world: WorldModel, run: RunDir) -> None:
    """Leave a world model that `sciwm.load` opens."""
    if run.weights_file.exists():
        save_readouts(world, run.path)
    else:
        world.save(run.path)


def _baselines(shared: RunDir, config: Config, ds: xr.Dataset, split: _Block) -> xr.DataArray:
    """Sums of the baselines, ``(method, init_time, lead_time, channel, region, statistic)``."""
    inputs = hash_inputs(shared.stage_inputs("prepare"), config.forecast, config.skill, _SUMS)
    path, stage = shared.path / _named("baselines", split, ".nc"), _named("baselines", split)
    if not shared.is_fresh(stage, inputs):
        reference, index = reference_of(shared), scored_positions(shared, config, ds, split=split)
        lineup = line_up_batches(
            (),
            None,
            _only(observations(config, ds), reference.anomaly.data_vars),
            init=ds["time"].isel(time=index).rename(time="init_time"),
            lead_times=reference.step.lead_times(np.array(lead_steps(config, reference.step))),
            reference=reference,
            baselines=config.skill.baselines,
            lim_eofs=config.skill.lim_eofs,
        )
        _write(_sums(lineup, index, config, "scores, baselines"), path, {})
        shared.record_stage(stage, inputs, [path])
    with xr.open_dataarray(path) as found:
        return found.load()


def _only(observed: xr.Dataset, names: Iterable[Any]) -> xr.Dataset:
    """Observations of what is forecast, and what has no time, such as a mask."""
    wanted = set(names)
    kept = [n for n, v in observed.data_vars.items() if n in wanted or "time" not in v.dims]
    return observed[kept]


def _sums(lineup: Lineup, index: np.ndarray, config: Config, progress: str) -> xr.DataArray:
    """Sums of squared errors; times are positions on the axis of the data, and leads numbers."""
    sums = TableSums(lineup, metrics=("rmse",), regions=config.skill.regions)
    collect(lineup, sums, normal=False, progress=progress)
    values = sums.values.sel(statistic=["weight", "squared_error"])
    bare = values.drop_vars([c for c in values.coords if c not in (*values.dims, "variable")])
    leads = np.asarray(lineup.step.steps(lineup.times.lead.values))
    return bare.assign_coords(init_time=index, lead_time=leads)


def _channel_variables(sums: xr.DataArray) -> Iterator[tuple[str, str]]:
    yield from zip(sums["channel"].values, sums["variable"].values, strict=True)


def _write(sums: xr.DataArray, path: Path, facts: dict[str, float]) -> None:
    with replacing(path) as temporary:
        named = sums.rename("sums").drop_attrs().assign_attrs(facts)
        named.to_netcdf(temporary, engine="h5netcdf")
