"""Methods trained beside a run for the same processor time, so that each table has their rows."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sciwm.config import Config
from sciwm.model.objectives import OBJECTIVES
from sciwm.run.directory import RunDir, hash_inputs, open_run
from sciwm.run.stages import console, stage_inputs
from sciwm.store.prepare import open_training_store
from sciwm.train.pace import equal_steps
from sciwm.train.precision import device_type

__all__ = [
    "method_config",
    "open_rival",
    "rivals_of",
    "share_store",
    "train_apart",
    "trained_beside",
]

# What the masked autoencoder hides where the configuration hides nothing (He et al. 2022,
# arXiv:2111.06377).
_HIDDEN = 0.75
_PATIENCE = 120  # seconds for a step and a checkpoint


def method_config(config: Config, method: str, seed: int) -> Config:
    """The configuration of one method and seed.

    Only the objective and the seed differ. None has noise or makes ensembles. The convolutional
    network has the optimiser that it is commonly trained with. It predicts two states in a row at
    most. Its steps are dear: in the same time, more of them do better than longer ones.

    Examples
    --------
    >>> made = method_config(Config(), "masked_autoencoder", 3)
    >>> made.objective.kind, made.objective.mask_ratio, made.seed
    ('masked_autoencoder', 0.75, 3)
    """
    objective, model = config.objective, replace(config.model, noise_dim=0)
    train = replace(config.train, rivals=[])
    if method in OBJECTIVES:
        hidden = objective.mask_ratio
        if OBJECTIVES[method].hides_states:
            hidden = hidden or _HIDDEN
        kind: Any = method
        objective = replace(objective, kind=kind, mask_ratio=hidden)
    elif OBJECTIVES[objective.kind].method != "jepa":
        objective = replace(objective, kind="sigreg")
    if method == "convnet":
        train = replace(train, optimizer="adamw")
        objective = replace(objective, rollout=min(2, objective.rollout))
    forecast = replace(config.forecast, members=0)
    return replace(
        config, seed=seed, model=model, objective=objective, train=train, forecast=forecast
    )


def rivals_of(run: RunDir, config: Config) -> list[str]:
    """Methods that are trained beside a run.

    Left out is what its states do not allow: a molecule has no rows and columns. And so is what it
    trains itself, since both forecasts would have one name.

    Parameters
    ----------
    run, config
        The run, with its training store.
    """
    grid = open_training_store(run.train_store).attrs["kind"] == "grid"
    own = OBJECTIVES[config.objective.kind].method
    records = [OBJECTIVES[method] for method in config.train.rivals]
    return [r.name for r in records if r.method != own and (grid or not r.needs_grid)]


def open_rival(run: RunDir, config: Config, method: str) -> tuple[RunDir, Config]:
    """The run of a rival, inside that of ``run``, and its configuration.

    It has the training store of the run, and as many steps as cost the same processor time. They
    are measured once and then kept.

    Parameters
    ----------
    run, config
        The run that it is a rival in, with its training store.
    method : str
        An objective.
    """
    path, asked = run.path / "rivals" / method, method_config(config, method, config.seed)
    inputs = hash_inputs(
        run.stage_inputs("prepare"), config.model, config.objective, asked.objective, asked.train
    )
    steps = None
    if (path / "config.yaml").exists():
        made = RunDir(path)
        if made.is_fresh("pace", inputs):
            steps = made.read_config().train.steps
    if steps is None:
        shutil.rmtree(path, ignore_errors=True)  # of other data, or settings
        console.print(f"[dim]{method}: timing a few steps[/dim]", highlight=False)
        steps = equal_steps(config, asked, run.train_store)
    asked = replace(asked, train=replace(asked.train, steps=steps))
    rival = open_run(path, asked)
    share_store(run, rival)
    rival.record_stage("pace", inputs, [rival.config_file])
    return rival, asked


def share_store(run: RunDir, other: RunDir) -> None:
    """Make the training store of one run that of another, by a link."""
    made = run.stage_inputs("prepare")
    if other.is_fresh("prepare", made):
        return
    other.train_store.unlink(missing_ok=True)
    other.train_store.symlink_to(os.path.relpath(run.train_store.resolve(), other.path.resolve()))
    other.record_stage("prepare", made, [other.train_store])


@contextlib.contextmanager
def trained_beside(run: RunDir, config: Config) -> Iterator[None]:
    """Train the rivals of a run in processes of their own while its own training goes on.

    They are left for later where that would be in the way. That is on one core, on a GPU, or with
    several threads or devices. What such a process says goes to ``train.txt`` of the rival. Ctrl-C
    reaches them, too, and they keep a checkpoint.
    """
    methods = rivals_of(run, config)
    alone = _cores() <= len(methods) or device_type() != "cpu"
    if alone or config.train.threads != 1 or config.train.devices > 1:
        yield
        return
    processes: list[tuple[RunDir, subprocess.Popen[bytes]]] = []
    try:
        for method in methods:
            rival, asked = open_rival(run, config, method)
            if not rival.is_fresh("train", stage_inputs(rival, asked, "train")):
                processes.append((rival, _start(rival)))
                words = f"[dim]{method} is trained beside, in {rival.path}[/dim]"
                console.print(words, highlight=False)
        yield
        for rival, process in processes:
            with console.status(f"{rival.name} finishes its training"):
                process.wait()
            if process.returncode:
                words = f"{rival.name} failed, see {_said(rival)}; `sciwm probe` tries again"
                console.print(words, style="yellow", highlight=False)
    except BaseException as error:
        # Ctrl-C in a terminal has reached them, too; a second signal would end them at once.
        terminal = sys.stdin is not None and sys.stdin.isatty()
        told = terminal and isinstance(error, KeyboardInterrupt)
        for _, process in processes:
            if process.poll() is None and not told:
                process.send_signal(signal.SIGINT)
        _finish([process for _, process in processes])
        raise


def train_apart(rival: RunDir) -> None:
    """Train a rival in a process of its own, which may start others for further devices.

    Raises
    ------
    RuntimeError
        If it failed; the message says where its output is.
    """
    process = _start(rival)
    try:
        process.wait()
    finally:
        _finish([process])
    if process.returncode:
        raise RuntimeError(f"the training of {rival.path} failed, see {_said(rival)}")


def _start(rival: RunDir) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sciwm", "train", str(rival.path)]
    gone = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    alone = {name: value for name, value in os.environ.items() if name not in gone}
    with open(_said(rival), "w", encoding="utf-8") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env=alone)


def _said(rival: RunDir) -> Path:
    return rival.path / "train.txt"


def _cores() -> int:
    """Cores that this process may use."""
    able = getattr(os, "sched_getaffinity", None)
    return len(able(0)) if able else os.cpu_count() or 1


def _finish(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for the step under way and its checkpoint, but not for ever."""
    for process in processes:
        try:
            process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
