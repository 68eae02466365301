"""Tiny worlds: a prepared store, a configuration, a world model probed on it, trained or not."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sciwm import testing
from sciwm.climatology import fit_climatology
from sciwm.config import (
    Config,
    DataConfig,
    ForecastConfig,
    ModelConfig,
    ObjectiveConfig,
    ProbeConfig,
    TrainConfig,
)
from sciwm.probe.fit import fit_probes
from sciwm.readout.targets import stored_series, target_series
from sciwm.store.prepare import Blocks, Fit, open_training_store, prepare
from sciwm.train.fit import build_world
from sciwm.world.model import WorldModel


def config(*, seed=0, model=None, objective=None, train=None, probe=None):
    """Smallest sizes that still learn; sections are updated from the mappings."""
    blocks = {"encoder_blocks": 1, "encoder_mixing": "local", "predictor_blocks": 1}
    widths = {"width": 16, "encoder_width": 16, "num_heads": 2, "reach": 1}
    sizes = {"patch_size": [4, 4], "dropout": 0.1} | widths | blocks
    steps = {"steps": 12, "batch_size": 16, "validate_every": 6, "checkpoint_every": 4}
    steps["precision"] = "32-true"  # on every processor
    return Config(
        seed=seed,
        data=DataConfig(missing="mask"),
        model=ModelConfig(**(sizes | (model or {}))),
        objective=ObjectiveConfig(**({"num_directions": 16, "rollout": 2} | (objective or {}))),
        train=TrainConfig(**(steps | (train or {}))),
        probe=ProbeConfig(**(probe or {})),
        forecast=ForecastConfig(lead_times=["1 day"]),
    )


def open_gates(network: nn.Module, *, std: float = 0.1, seed: int = 1) -> None:
    """Draw what is zero before training: the dynamics move, and blocks change what they see."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=std, generator=generator)


def split(num_times, *, gap_steps=6):
    """Three fifths for training, one for validation, one for the test."""
    first, second = num_times * 3 // 5, num_times * 4 // 5
    blocks = {"train": [0, first], "validation": [first, second], "test": [second, num_times]}
    return {"by": "step", "gap_steps": gap_steps, **blocks}


def store(ds, folder, **options):
    """Prepare a training store; the fields of `Blocks` and `Fit` lie flat among the options."""
    options = {**split(ds.sizes["time"]), "harmonics": 1, "progress": False} | options

    def record(kind):
        names = [f.name for f in dataclasses.fields(kind) if f.name in options]
        return kind(**{name: options.pop(name) for name in names})

    blocks, fit = record(Blocks), record(Fit)
    return prepare(ds, Path(folder) / "train.zarr", blocks=blocks, fit=fit, **options)


def series_climatology(path, *, kind="constant"):
    """Climatology of the scalar series of a store, over its training block."""
    ds = open_training_store(path)
    train = stored_series(ds).isel(time=np.flatnonzero(ds["split"].values == 0))
    return fit_climatology(train, kind=kind, harmonics=1)


def probed(world: WorldModel, path, leads, settings) -> WorldModel:
    """The same world with readouts of some leads."""
    return fit_probes(world, open_training_store(path), probe=settings.probe, lead_steps=leads)


def climate_world(
    ds, folder, *, leads=(1, 2, 5), series=False, settings=None, **options
) -> tuple[WorldModel, Path]:
    """An untrained, probed world model of a climate, and its store."""
    path = store(ds, folder, **options)
    settings = settings or config()
    normal = series_climatology(path) if series else None
    world = build_world(settings, path, series_climatology=normal)
    return probed(world, path, leads, settings), path


def molecule_world(folder, *, leads=(1, 5)) -> tuple[WorldModel, Path]:
    """An untrained, probed world model of the double well, and its store."""
    ds = testing.double_well(num_trajectories=5, num_frames=120)
    targets = ["phi", "psi"]
    blocks = {"by": "segment", "train": [0, 1, 2], "validation": [3], "test": [4]}
    path = store(ds, folder, targets=target_series(ds, targets), **blocks)
    settings = config(probe={"targets": targets})
    world = build_world(settings, path, series_climatology=series_climatology(path))
    return probed(world, path, leads, settings), path
