"""What a training step costs on this machine, and how much of what the machine can do that is."""

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from sciwm.sections import Config
from sciwm.train.flops import step_flops
from sciwm.train.module import JEPAModule
from sciwm.train.precision import device_type, resolve_precision
from sciwm.train.quiet import quiet_lightning
from sciwm.train.windows import training_data
from sciwm.world.model import WorldModel

__all__ = ["Profile", "matmul_rate", "profile_training"]

_WARM, _STEPS = 3, 10
_TYPES = {"bf16": torch.bfloat16, "64": torch.float64}


@dataclass(frozen=True)
class Profile:
    """One optimiser step.

    Parameters
    ----------
    flops : int
        Of its matrix products, forward and backward, as `sciwm.train.flops.count_flops` counts
        them.
    seconds : float
        Median time of a step: forward, backward, clipping, optimiser, averages of the weights.
    waiting : float
        Median seconds between two steps, in which the next batch comes.
    peak : float
        Floating-point operations per second of one large matrix product in the same precision, on
        the same device.
    device : str
        Where.
    """

    flops: int
    seconds: float
    waiting: float
    peak: float
    device: str

    @property
    def utilization(self) -> float:
        """Model FLOP utilisation against one large matrix product of this machine; 1 is perfect."""
        return self.flops / self.seconds / self.peak

    def __str__(self) -> str:
        took = (
            f"{self.flops / 1e9:,.3g} GFLOP in {1e3 * self.seconds:,.0f} ms, and"
            f" {1e3 * self.waiting:.1f} ms for the next batch"
        )
        share = (
            f"{self.flops / self.seconds / 1e9:,.3g} GFLOP/s, {self.utilization:.0%} of the"
            f" {self.peak / 1e9:,.3g} GFLOP/s"
        )
        return f"{took}; {share} of one large matrix product on {self.device}"


class _Clock(L.Callback):
    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.starts.append(_now(pl_module.device))

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.ends.append(_now(pl_module.device))


def profile_training(world: WorldModel, store: str | Path, config: Config) -> Profile:
    """Take and time some steps of the training that a configuration asks for, on one device.

    Parameters
    ----------
    world : WorldModel
        From `sciwm.train.fit.build_world`; its weights are of no use afterwards.
    store : path
        Training store.
    config : Config
        What ``world`` was built with.
    """
    # Steps with the whole rollout, as those that are counted.
    config = replace(config, objective=replace(config.objective, curriculum=0.0))
    flops = step_flops(world, store, config)
    data = training_data(store, config)
    precision = resolve_precision(config.train.precision, device_type())
    clock, module = _Clock(), JEPAModule(world, config)
    world.network.train()
    with quiet_lightning():
        trainer = L.Trainer(
            max_steps=_WARM + _STEPS,
            precision=precision,  # type: ignore[arg-type]
            accelerator="auto",
            devices=1,
            logger=False,
            callbacks=[clock],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=data)
    device = trainer.strategy.root_device
    starts, ends = clock.starts[_WARM:], clock.ends[_WARM - 1 :]
    took = statistics.median(e - s for s, e in zip(starts, ends[1:], strict=True))
    waited = statistics.median(s - e for s, e in zip(starts, ends[:-1], strict=True))
    dtype = _TYPES.get(precision.partition("-")[0], torch.float32)
    name = f"{device.type}, {torch.get_num_threads()} thread(s)"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return Profile(flops, took, waited, matmul_rate(device, dtype), name)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of one large matrix product, the best of some."""
    n = 8192 if device.type == "cuda" else 1024
    one = torch.randn(n, n, device=device).to(dtype)
    torch.mm(one, one)
    times = []
    for _ in range(5):
        start = _now(device)
        for _ in range(3):
            torch.mm(one, one)
        times.append((_now(device) - start) / 3)
    return 2 * n**3 / min(times)


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
