"""A run rolls its model forward for long, and sees whether it holds."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress

from sciwm.config import Config
from sciwm.run.directory import RunDir
from sciwm.run.inputs import context_steps, open_data, reference_of
from sciwm.run.stages import is_fresh, need, say, stage_inputs, use_threads
from sciwm.skill.alignment import evenly_spread
from sciwm.skill.diagnostics import write_diagnostics
from sciwm.skill.simulation import diagnose_simulations
from sciwm.store.prepare import open_training_store
from sciwm.store.split import LABELS
from sciwm.world.model import WorldModel, load_world
from sciwm.world.rollout import initial_positions
from sciwm.world.simulate import plan_course

__all__ = ["simulate", "started_from"]

_BATCH = 64  # simulations at once


def simulate(run: RunDir, config: Config) -> None:
    """Roll the model forward for as long as ``forecast.simulate`` says, and see whether it holds.

    The strides are those that forecasts of long leads take. With ``forecast.members``, there is an
    ensemble beside the single simulation of each initial time.

    Raises
    ------
    ValueError
        If no length is asked for.
    """
    if not config.forecast.simulate:
        raise ValueError(
            "got forecast.simulate = '', expected a length such as '365 days', for example"
            " --forecast.simulate='365 days'"
        )
    use_threads(config)
    need(run, config, "probe")
    inputs = stage_inputs(run, config, "simulate")
    if is_fresh(run, "simulate", inputs):
        return
    ds, world = open_data(config, run), load_world(run.path)
    index = started_from(run, config, ds)
    asked: dict[str, Any] = {"length": config.forecast.simulate, "every": max(world.strides)}
    course = plan_course(world, **asked)
    members = {world.method: 0}
    if config.forecast.members:
        members[f"{world.method}_ensemble"] = config.forecast.members
    with Progress(transient=True) as bar:
        found = diagnose_simulations(
            {
                method: _told(world, ds, index, count, asked, bar, course.count)
                for method, count in members.items()
            },
            ds,
            reference=reference_of(run),
            every=course.every,
        )
    write_diagnostics(found, run.simulation_file)
    run.record_stage("simulate", inputs, [run.simulation_file])
    lost = int((found["num_simulations"] - found["alive"].isel(lead_time=-1)).sum())
    total = int(found["num_simulations"].sum())
    say(
        run.simulation_file,
        f"{total} simulations of {config.forecast.simulate} from {len(index)} initial times,"
        f" {lost or 'none'} of them blown up",
    )


def _told(
    world: WorldModel,
    ds: xr.Dataset,
    index: np.ndarray,
    members: int,
    asked: dict[str, Any],
    bar: Progress,
    leads: int,
) -> Iterator[xr.Dataset]:
    """Parts of simulations, with a progress bar."""
    words = "simulation, members" if members else "simulation"
    task = bar.add_task(words, total=leads * len(index))
    parts = world.simulate_batches(ds, index, members=members, batch_size=_BATCH, **asked)
    for part in parts:
        yield part
        bar.advance(task, part.sizes["init_time"] * part.sizes["lead_time"])


def started_from(run: RunDir, config: Config, ds: xr.Dataset) -> np.ndarray:
    """Positions of initial times, spread evenly over the test block.

    If that holds too few, those of the validation block are taken, too. No lead has to lie in the
    record.

    Raises
    ------
    ValueError
        If neither block holds a context.
    """
    label = open_training_store(run.train_store)["split"].values
    able = np.empty(0, np.int64)
    for block in ("test", "validation"):
        more = initial_positions(
            ds["segment"].values,
            back=context_steps(config),
            label=label,
            which=LABELS[block],
        )
        able = np.union1d(able, more)
        if len(able) >= config.forecast.simulate_inits:
            break
    if not len(able):
        raise ValueError(
            "got no initial time in the test and the validation block, expected one that a context"
            " comes before"
        )
    return np.asarray(able[evenly_spread(len(able), config.forecast.simulate_inits)])
