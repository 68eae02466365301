"""What the verbs of the terminal do: stages from data to report, each resumable.

Each tells what it wrote.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciwm import catalogue
from sciwm.cluster import dask_workers, describe
from sciwm.config import Config, dump_config, load_config
from sciwm.data.fingerprint import fingerprint
from sciwm.data.forecast_store import write_forecast, write_forecasts
from sciwm.data.open import open_forecast
from sciwm.model.objectives import OBJECTIVES
from sciwm.probe.fit import fit_probes
from sciwm.readout.targets import target_series
from sciwm.report.page import About, write_report
from sciwm.report.prose import (
    describe_data,
    describe_model,
    describe_rollout,
    describe_scores,
    variable_names,
)
from sciwm.run.directory import RunDir, hash_inputs, open_run, provenance
from sciwm.run.inputs import (
    blocks_of,
    config_problems,
    context_steps,
    gap_problem,
    gap_steps,
    lead_steps,
    observations,
    open_data,
    pool_advice,
    reference_of,
    scored_positions,
    seen_periods,
    series_climatology,
    with_store,
)
from sciwm.run.rivals import open_rival, rivals_of, train_apart, trained_beside
from sciwm.run.simulation import simulate
from sciwm.run.stages import console, is_fresh, need, say, stage_inputs, use_threads
from sciwm.skill.diagnostics import write_diagnostics
from sciwm.skill.frame import render, write_skill
from sciwm.skill.table import assess, score_lineup
from sciwm.store.prepare import Fit, Origin, load_statistics, open_training_store
from sciwm.store.prepare import prepare as write_training_store
from sciwm.store.split import LABELS, split_times
from sciwm.times import infer_step, times_between
from sciwm.train.fit import build_world, fit_world
from sciwm.train.profile import profile_training
from sciwm.verify import (
    Asked,
    check_table,
    line_up_stores,
    open_named,
    report_notes,
    write_table,
)
from sciwm.world.files import save_readouts
from sciwm.world.model import WorldModel, load_world
from sciwm.world.rollout import back_of, initial_positions

__all__ = [
    "check",
    "demo",
    "evaluate",
    "evaluate_store",
    "forecast",
    "forecast_store",
    "prepare",
    "probe",
    "profile",
    "report",
    "run_all",
    "simulate",
    "train",
]


_CHUNK = 64  # initial times in a chunk of a forecast store


def prepare(run: RunDir, config: Config, *, scheduler: str | None = None, workers: int = 0) -> None:
    """Write the training store.

    With threads, on the Dask cluster at an address, or in processes started for it.
    """
    ds = open_data(config, run)
    if problems := config_problems(config, ds):
        raise ValueError("; ".join(problems))
    step = infer_step(ds["time"])
    gap = gap_steps(config, step)
    mark = fingerprint(ds)
    inputs = hash_inputs(config.data, config.probe.targets, gap, mark)
    if is_fresh(run, "prepare", inputs):
        return
    with dask_workers(scheduler=scheduler, workers=workers) as client:
        if client is not None:
            console.print(describe(client), highlight=False, soft_wrap=True)
        data = config.data
        write_training_store(
            ds,
            run.train_store,
            blocks=blocks_of(config, gap),
            fit=Fit(data.climatology, data.harmonics, data.missing, data.climatology_pool),
            static=_static_fields(ds) if data.static else None,
            targets=target_series(ds, config.probe.targets) if config.probe.targets else None,
            origin=Origin(json.dumps(asdict(data)), mark),
        )
    run.record_stage("prepare", inputs, [run.train_store])
    counts = np.bincount(open_training_store(run.train_store)["split"].values + 1, minlength=4)
    say(
        run.train_store,
        f"{counts[1]} training, {counts[2]} validation and {counts[3]} test times, {counts[0]} in"
        " none of them",
    )


def train(run: RunDir, config: Config) -> None:
    """Train, or go on training."""
    use_threads(config)
    need(run, config, "prepare")
    inputs = stage_inputs(run, config, "train")
    if is_fresh(run, "train", inputs):
        return
    started = run.path / "checkpoints" / "inputs.txt"
    if not started.exists() or started.read_text() != inputs:
        # Checkpoints of other data or settings would be gone on with in silence.
        shutil.rmtree(started.parent, ignore_errors=True)
        run.log_file.unlink(missing_ok=True)
        shutil.rmtree(run.path / "logs", ignore_errors=True)
        started.parent.mkdir(parents=True)
        started.write_text(inputs)
    world = build_world(config, run.train_store, series_climatology=series_climatology(run, config))
    with trained_beside(run, config):
        if not fit_world(world, run.train_store, config, folder=run.path, record=run.append_log):
            raise KeyboardInterrupt
    run.probes_file.unlink(missing_ok=True)  # readouts of other weights
    about = world.about | {"provenance": provenance(), "config": dump_config(config)}
    outputs = replace(world, about=about).save(run.path)
    run.record_stage("train", inputs, outputs)
    last = [r for r in run.read_log() if r["split"] == "validation"][-1]
    kind = "pixel" if OBJECTIVES[config.objective.kind].reads_cells else "latent"
    health = f"effective rank {last['effective_rank']:.1f}, probe R² {last['probe_r2']:.2f}"
    say(run.weights_file, f"validation: {kind} error {last['prediction']:.3g}, {health}")


def profile(run: RunDir, config: Config) -> None:
    """Measure a training step on this machine; nothing is trained or written."""
    use_threads(config)
    need(run, config, "prepare")
    found = profile_training(build_world(config, run.train_store), run.train_store, config)
    console.print(
        f"one step of {config.train.batch_size} windows, {config.train.precision}: {found}",
        highlight=False,
        soft_wrap=True,
    )
    minutes = config.train.steps * (found.seconds + found.waiting) / 60
    console.print(
        f"{config.train.steps} steps take about {minutes:.1f} minutes, without validations",
        highlight=False,
    )


def probe(run: RunDir, config: Config) -> None:
    """Fit the readouts, of the trained model and of an untrained one."""
    use_threads(config)
    need(run, config, "train")
    inputs = stage_inputs(run, config, "probe")
    if is_fresh(run, "probe", inputs):
        return
    rivals = [open_rival(run, config, method) for method in rivals_of(run, config)]
    for rival, asked in rivals:
        if asked.train.devices > 1:  # the processes of another training of this one are taken
            train_apart(rival)
        else:
            train(rival, asked)
    run.probes_file.unlink(missing_ok=True)
    trained = _probed(run, config, load_world(run.path), "trained encoder")
    save_readouts(trained, run.path)
    normal = trained.series_climatology
    fresh = build_world(config, run.train_store, series_climatology=normal, random=True)
    random = _probed(run, config, fresh, "random encoder")
    outputs = [run.probes_file, *random.save(run.path / "random_encoder")]
    for rival, asked in rivals:
        save_readouts(_probed(rival, asked, load_world(rival.path), rival.name), rival.path)
        outputs += [rival.weights_file, rival.probes_file]
    run.record_stage("probe", inputs, outputs)
    readouts = trained.readouts["residual"]
    strengths = sorted({ridge.strength for ridge in (*readouts.fields, *readouts.series)})
    say(
        run.probes_file,
        f"ridge strengths chosen on the validation block: {', '.join(f'{s:g}' for s in strengths)}",
    )


def _probed(run: RunDir, config: Config, world: WorldModel, name: str) -> WorldModel:
    store = open_training_store(run.train_store)
    leads = lead_steps(config, world.step)
    return fit_probes(
        world, store, probe=config.probe, lead_steps=leads, progress=f"readouts, {name}"
    )


def forecast(run: RunDir, config: Config) -> None:
    """Forecast the test block with every method of the run."""
    use_threads(config)
    need(run, config, "probe")
    inputs = stage_inputs(run, config, "forecast")
    if is_fresh(run, "forecast", inputs):
        return
    ds = open_data(config, run)
    world = load_world(run.path)
    index, own = scored_positions(run, config, ds), world.method
    named = _forecast_names(world)
    named |= {"ensemble": f"{own}_ensemble"} if config.forecast.members else {}
    random = {"residual": "random_encoder"}
    models = [
        (world, named, config.forecast.members),
        (load_world(run.path / "random_encoder"), random, 0),
    ]
    for method in rivals_of(run, config):
        rival = load_world(run.path / "rivals" / method)
        names = _forecast_names(rival)
        del names["local_linear"], names["latent"]
        models.append((rival, names, 0))
    outputs: list[Path] = []
    for model, methods, members in models:
        used = [name for name in methods if name != "ensemble"]
        batches = model.forecast_batches(ds, index, readouts=used, members=members)
        seen = seen_periods(config, world.step, world.about["split"])
        stores = {}
        for name, method in methods.items():
            path = run.forecasts_folder / f"{method}.zarr"
            attrs = {"method": method, **seen}
            stores[name] = (run.forecast_store if method == own else path, attrs)
        progress = f"forecast, {methods['residual']}"
        outputs += write_forecasts(
            batches, stores, total=len(index), progress=progress, chunk=_CHUNK, overwrite=True
        )
    for stale in set(run.forecasts_folder.glob("*.zarr")) - set(outputs):
        shutil.rmtree(stale)  # of a method that is asked for no more
    run.record_stage("forecast", inputs, outputs)
    leads = len(world.readouts["residual"].lead_steps)
    say(
        run.forecast_store,
        f"{len(index)} initial times, {leads} leads, and {run.forecasts_folder}",
    )


def _forecast_names(world: WorldModel) -> dict[str, str]:
    """What the forecasts of each readout are called."""
    own = world.method
    fixed = {"residual": own, "local_linear": "local_linear"}
    return {kind: fixed.get(kind, f"{own}_{kind}") for kind in world.kinds}


def forecast_store(
    run: RunDir,
    *,
    store: str | list[str],
    init: tuple[str, str, str | None],
    out: Path,
    lead_times: Sequence[str] | None = None,
    members: int = 0,
) -> None:
    """Forecast from any store that has the variables."""
    world, config = load_world(run.path), run.read_config()
    variables = world.statistics.variables if world.statistics else []
    ds = open_data(with_store(config, store, variables=variables))
    start, end, every = init
    index = times_between(ds["time"], start, end)
    able = initial_positions(ds["segment"].values, back=back_of(world))
    chosen = index[:: int(world.step.steps(every)) if every else 1]
    started = chosen[np.isin(chosen, able)]
    if not len(started):
        first, last = ds["time"].values[[0, -1]]
        raise ValueError(
            f"got no initial time to start from between {start} and {end}, expected some within"
            f" {first} … {last}, after at least {back_of(world)}"
            " earlier step(s) of context"
        )
    batches = world.forecast_batches(ds, started, lead_times=lead_times, members=members)
    made = "ensemble" if members else "residual"
    method = f"{world.method}_ensemble" if members else world.method
    seen = seen_periods(config, world.step, world.about["split"])
    attrs = {"method": method, "run": run.name, **seen}
    write_forecast((batch[made] for batch in batches), out, total=len(started), attrs=attrs)
    skipped = (
        f", {len(chosen) - len(started)} skipped for want of context"
        if len(started) < len(chosen)
        else ""
    )
    say(out, f"{len(started)} initial times{skipped}")


def evaluate(run: RunDir, config: Config) -> None:
    """Score the forecasts of a run beside the baselines."""
    need(run, config, "forecast")
    inputs = stage_inputs(run, config, "evaluate")
    if not is_fresh(run, "evaluate", inputs):
        stores = [run.forecast_store, *sorted(run.forecasts_folder.glob("*.zarr"))]
        ds, asked = open_data(config, run), _asked(config)
        lineup = line_up_stores(
            open_named(stores),
            observations(config, ds),
            reference_of(run),
            asked,
            lim_eofs=config.skill.lim_eofs,
        )
        if near := gap_problem(config, ds).partition(", expected")[0].removeprefix("got "):
            leakage = "; ".join(filter(None, [lineup.leakage, near]))
            lineup = replace(lineup, leakage=leakage, notices=(near, *lineup.notices))
        skill, diagnostics = assess(lineup, **_wanted(config))
        write_skill(skill, run.table_file, run.skill_file)
        write_diagnostics(diagnostics, run.diagnostics_file)
        outputs = [run.table_file, run.skill_file, run.diagnostics_file]
        run.record_stage("evaluate", inputs, outputs)
        say(run.table_file, "with intervals; the same as a Dataset in skill.nc")
    with xr.open_dataset(run.skill_file) as found:
        render(found.load(), metric=config.skill.metrics[0], console=console)


def evaluate_store(
    forecasts: Sequence[str],
    *,
    truth: str | list[str],
    reference: RunDir,
    out: Path,
    asked: Asked | None = None,
) -> None:
    """Score any forecast stores against any truth, with baselines, metrics and regions of a run.

    Baselines are learnt in the training years of the run. What is ``asked`` for takes the place of
    what its configuration says.
    """
    config = reference.read_config()
    check_table(out)
    molecule = "channel" not in open_training_store(reference.train_store)["state"].dims
    variables = [] if molecule else load_statistics(reference.train_store).variables
    observed = observations(config, open_data(with_store(config, truth, variables=variables)))
    own = replace(_asked(config), allow_leakage=False)
    unasked = vars(Asked())
    given = {k: v for k, v in vars(asked or Asked()).items() if v != unasked[k]}
    merged = replace(own, **given)
    named = open_named(forecasts)
    lim_eofs = config.skill.lim_eofs
    lineup = line_up_stores(named, observed, reference_of(reference), merged, lim_eofs=lim_eofs)
    wanted = _wanted(config) | {k: list(getattr(merged, k)) for k in _SCORED}
    write_table(score_lineup(lineup, **wanted), out)


_SCORED = ("metrics", "regions", "events")


def _asked(config: Config) -> Asked:
    chosen = config.skill
    scored: dict[str, Any] = {n: tuple(getattr(chosen, n)) for n in (*_SCORED, "baselines")}
    return Asked(**scored, allow_leakage=chosen.allow_leakage)


def _wanted(config: Config) -> dict[str, Any]:
    scored = {name: getattr(config.skill, name) for name in _SCORED}
    return {**scored, "resamples": config.skill.resamples, "seed": config.seed}


def report(run: RunDir, config: Config) -> None:
    """Write report.html."""
    need(run, config, "evaluate")
    simulated = bool(config.forecast.simulate)
    if simulated:
        need(run, config, "simulate")
    inputs = stage_inputs(run, config, "report")
    if is_fresh(run, "report", inputs):
        return
    world = load_world(run.path)
    facts = {name: str(value) for name, value in world.about["provenance"].items()}
    for name, block in world.about["split"].items():
        facts[f"{name} block"] = " – ".join(t.removesuffix(".000000000") for t in block)
    facts |= {"seed": str(config.seed), "data": world.about["fingerprint"]}
    observed = observations(config, open_data(config, run))
    diagnostics = None  # an older version made none
    if run.diagnostics_file.exists():
        diagnostics = xr.load_dataset(run.diagnostics_file)
    with xr.open_dataset(run.skill_file) as skill:
        about = About(
            title=run.name,
            provenance=facts,
            notes=report_notes(skill),
            methods=_methods(config, world, observed, skill),
            config=dump_config(config),
            skill_csv=run.table_file.read_text(encoding="utf-8"),
        )
        write_report(
            run.report_file,
            about=about,
            skill=skill.load(),
            forecast=open_forecast(str(run.forecast_store)),
            observed=observed,
            log=run.read_log(),
            diagnostics=diagnostics,
            simulation=xr.load_dataset(run.simulation_file) if simulated else None,
        )
    run.record_stage("report", inputs, [run.report_file])
    say(run.report_file, "open it in a browser")


def _methods(
    config: Config, world: WorldModel, observed: xr.Dataset, skill: xr.Dataset
) -> list[str]:
    """Paragraphs for the methods section of a paper: data, model, verification."""
    atoms = 0 if world.statistics is not None else world.tokenizer.num_tokens
    record = OBJECTIVES[config.objective.kind]
    predictions = describe_rollout(config)
    return [
        describe_data(config, observed, world.about["split"], atoms=atoms),
        describe_model(
            config,
            sum(weight.numel() for weight in world.network.parameters()),
            noun=record.noun,
            minimised=record.describe(world.network.objective.settings, predictions=predictions),
            atoms=atoms,
        ),
        describe_scores(skill, truth="the data", variables=variable_names(observed)),
    ]


def run_all(run: RunDir, config: Config, *, scheduler: str | None = None, workers: int = 0) -> None:
    """All stages, skipping what is up to date; scheduler and workers as of `prepare`."""
    prepare(run, config, scheduler=scheduler, workers=workers)
    long = [simulate] if config.forecast.simulate else []
    for stage in (train, probe, forecast, evaluate, *long, report):
        stage(run, config)


def demo(out: Path, *, quick: bool) -> None:
    """Simulate turbulence, train, probe, forecast, score and report."""
    overrides = ["--train.steps=20", "--skill.resamples=100"] if quick else []
    config = load_config(catalogue.config_path("qg"), overrides)
    run_all(open_run(out, config), config)


def check(config: Config) -> list[str]:
    """Resolve everything a run would need; say what is wrong and what to write instead.

    Returns
    -------
    list of str
        Problems; empty when a run can start.
    """
    try:
        ds = open_data(config) if config.data.store != "qg" else None
        if ds is None:
            console.print("data: simulated turbulence, made when it is needed")
            return []
        step = infer_step(ds["time"])
        leads = lead_steps(config, step)
        blocks = blocks_of(config, gap_steps(config, step))
        label = split_times(ds["time"], blocks, ds["segment"].values)
        problems = config_problems(config, ds)
    except (ValueError, FileNotFoundError) as error:
        return [str(error)]
    if config.skill.allow_leakage and (near := gap_problem(config, ds)):
        console.print(
            f"not a fair test: {near.partition(', expected')[0].removeprefix('got ')}",
            style="yellow",
            highlight=False,
        )
    longest = max(max(leads), config.objective.rollout * max(config.objective.lead_steps))
    for name, number in LABELS.items():
        found = initial_positions(
            ds["segment"].values,
            back=context_steps(config),
            label=label,
            which=number,
            longest=longest,
        )
        console.print(
            f"{name}: {(label == number).sum()} times, {len(found)} of them can start a forecast of"
            f" {longest} steps"
        )
        if not len(found):
            problems.append(
                f"got no window in the {name} block, expected some: give data.split.{name} more"
                " times, or shorten the leads"
            )
    console.print(f"data: {', '.join(map(str, ds.data_vars))} in steps of {step}")
    if not problems and (advice := pool_advice(config, ds, label)):
        console.print(advice, style="yellow", highlight=False)
    return problems


def _static_fields(ds: xr.Dataset) -> xr.Dataset:
    return ds[[n for n, v in ds.data_vars.items() if v.dims == ("latitude", "longitude")]]
