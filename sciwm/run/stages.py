"""Stages of a run: what each depends on, whether it is done, and what is said of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from sciwm.config import Config
from sciwm.run.directory import RunDir, hash_inputs
from sciwm.sections import ForecastConfig, TrainConfig
from sciwm.train.fit import is_first_process
from sciwm.world.files import FORMAT

__all__ = ["console", "is_fresh", "need", "say", "stage_inputs", "use_threads"]

console = Console(quiet=not is_first_process())


def is_fresh(run: RunDir, stage: str, inputs: str) -> bool:
    """Whether a stage is done with these inputs; says so if it is."""
    fresh = run.is_fresh(stage, inputs)
    if fresh:
        console.print(f"[dim]{stage}: up to date[/dim]", highlight=False)
    return fresh


def stage_inputs(run: RunDir, config: Config, stage: str) -> str:
    """Hash what a stage after ``prepare`` depends on.

    That is the stage before, and its own part of the configuration.
    """
    asked = config.forecast
    parts: dict[str, tuple[str, list[Any]]] = {
        "train": (
            "prepare",
            [config.model, config.objective, _alone(config), config.seed, FORMAT],
        ),
        "probe": ("train", [config.probe, config.forecast.lead_times, config.train.rivals]),
        "forecast": ("probe", [_without_simulation(config.forecast)]),
        "simulate": ("probe", [asked.simulate, asked.simulate_inits, asked.members]),
        "evaluate": ("forecast", [config.skill]),
        "report": ("evaluate", [run.stage_inputs("simulate")] if asked.simulate else []),
    }
    before, own = parts[stage]
    return hash_inputs(run.stage_inputs(before), *own)


def _alone(config: Config) -> TrainConfig:
    """What the weights depend on: not on what is trained beside."""
    return replace(config.train, rivals=[])


def _without_simulation(config: ForecastConfig) -> ForecastConfig:
    """What the forecasts depend on: not on how long the model is simulated."""
    return replace(config, simulate="", simulate_inits=ForecastConfig.simulate_inits)


def use_threads(config: Config) -> None:
    """Give torch the threads that are asked for."""
    if config.train.threads:
        torch.set_num_threads(config.train.threads)


def need(run: RunDir, config: Config, stage: str) -> None:
    """Refuse to go on where an earlier stage is not done with these settings."""
    if stage == "prepare":
        done = run.train_store.exists()
    else:
        done = run.is_fresh(stage, stage_inputs(run, config, stage))
    if not done:
        raise FileNotFoundError(
            f"got {run.path} where {stage!r} is not done, or not with these settings: run `sciwm"
            f" {stage} {run.path}` first"
        )


def say(path: Path, note: str) -> None:
    """Tell what was written."""
    console.print(f"[bold]{path}[/bold]: {note}", highlight=False, soft_wrap=True)
