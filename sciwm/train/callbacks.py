"""What watches a training: health, the log, checkpoints, Ctrl-C."""

import math
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from torch import Tensor

from sciwm.batch import Batch
from sciwm.model.health import check_health, latent_health
from sciwm.model.jepa import JEPA
from sciwm.readout.ridge import Moments, fit_ridge
from sciwm.train.module import JEPAModule

__all__ = ["Checkpoints", "Health", "StopOnSignal", "measure"]


class Health(L.Callback):
    """Measure the latents on validation data every so often, and stop what cannot go well.

    Parameters
    ----------
    batches : callable
        Gives the validation batches, the same each time.
    record : callable
        Takes one record of ``log.jsonl``.
    every : int
        Steps between measurements.

    Raises
    ------
    CollapseError
        In training, if the latents carry no information any more.
    FloatingPointError
        In training, if the loss is not a number.
    """

    def __init__(
        self,
        *,
        batches: Callable[[], Iterable[Batch]],
        record: Callable[[dict[str, Any]], None],
        every: int,
    ) -> None:
        self.batches, self.record, self.every = batches, record, every
        self.started = time.monotonic(), time.process_time()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and log the state before any training."""
        self.started = time.monotonic(), time.process_time()
        if trainer.global_step == 0:
            self._measure(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log the training losses and measure health when it is time."""
        step = trainer.global_step
        due = step % self.every == 0 or step == trainer.max_steps
        if not (due or step % 20 == 0):
            return
        losses = {
            k.removeprefix("train/"): float(v)
            for k, v in trainer.callback_metrics.items()
            if k.startswith("train/")
        }
        if not math.isfinite(losses["loss"]):
            raise FloatingPointError(
                f"got a loss of {losses['loss']} at step {step}, expected a finite one: lower"
                " train.learning_rate, or look for extreme values in the data with `sciwm check`;"
                " the last healthy weights are in checkpoints/"
            )
        record = {"step": step, "split": "train", **losses}
        self.record(record | self._clock())
        if due:
            self._measure(trainer, pl_module)

    def _clock(self) -> dict[str, float]:
        """Time since the start, on the wall and of all cores of the processor."""
        wall, processor = self.started
        return {
            "seconds": round(time.monotonic() - wall, 2),
            "processor_seconds": round(time.process_time() - processor, 2),
        }

    def _measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, JEPAModule)
        averaged = pl_module.config.train.average_decay and trainer.global_step
        network = pl_module.average if averaged else pl_module.network
        found = measure(pl_module, network, self.batches())
        record = {"step": trainer.global_step, "split": "validation", **found}
        self.record(record | self._clock())
        pl_module.log_dict({f"validation/{k}": v for k, v in found.items() if k != "probe_r2"})
        if trainer.global_step and trainer.global_step >= min(200, trainer.max_steps):
            check_health(found, step=trainer.global_step)


def measure(module: JEPAModule, network: JEPA, batches: Iterable[Batch]) -> dict[str, float]:
    """Losses of a network on validation batches, and the health of its latents.

    Parameters
    ----------
    module : JEPAModule
        Computes the losses.
    network : JEPA
        The module's own, or the average of its weights.
    batches : iterable of Batch
        Of the validation block.

    Returns
    -------
    dict
        Losses, what `latent_health` gives, and ``probe_r2``: the R² of a linear readout of a
        token's cells from its latent. It is measured on held-out states; 1 is perfect.
    """
    was_training = network.training
    network.eval()
    losses: list[dict[str, Tensor]] = []
    latents: list[Tensor] = []
    fields: list[Tensor] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for batch in batches:
            batch = batch.to(module.device)
            losses.append(module.losses(network, batch))
            first = module.tokens(batch.head(1))
            latents.append(network.encode(first.features)[:, 0].float().cpu())
            fields.append(first.cells[:, 0].float().cpu())
    network.train(was_training)
    states, cells = torch.cat(latents), torch.cat(fields)
    # Each token against its own mean: differences between places tell nothing about the state.
    health = latent_health((states - states.mean(0)).flatten(0, 1))
    means = {k: float(torch.stack([x[k].cpu() for x in losses]).mean()) for k in losses[0]}
    return {**means, **health, "probe_r2": _probe_r2(states, cells)}


def _probe_r2(latents: Tensor, cells: Tensor) -> float:
    """Share of the variance of a token's cells that a linear readout of its latent explains.

    It is fitted on one half of the states and scored on the other.
    """
    half = len(latents) // 2
    if half == 0:
        return math.nan
    sizes = {"groups": 1, "features": latents.shape[-1], "targets": cells.shape[-1]}
    fitting, scoring = Moments.zeros(**sizes), Moments.zeros(**sizes)
    anomalies = cells - cells.mean(0)
    for part, rows in ((fitting, slice(0, half)), (scoring, slice(half, None))):
        x, y = (values[rows].flatten(0, 1)[:, None] for values in (latents, anomalies))
        part.add(x, y)
    (ridge,) = fit_ridge(fitting, [1e-2])
    variance = (scoring.yy / scoring.count - (scoring.y / scoring.count).square()).sum()
    return float(1 - ridge.squared_error(scoring).sum() / variance)


class Checkpoints(L.Callback):
    """Write ``last.ckpt`` every so often, and whenever training ends early.

    A half-written checkpoint never replaces a whole one, nor does one after a loss that is not a
    number.

    Parameters
    ----------
    path : Path
        Of ``last.ckpt``; its folder is made if it does not exist.
    every : int
        Steps between checkpoints.
    """

    def __init__(self, *, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when it is time, or when this step is the last."""
        step = trainer.global_step
        due = step % self.every == 0 or step == trainer.max_steps or trainer.should_stop
        if not due:
            return
        healthy = math.isfinite(float(outputs["loss"])) and all(
            bool(p.isfinite().all()) for p in pl_module.parameters()
        )
        if trainer.world_size > 1:  # all of them save, or none
            healthy = trainer.strategy.reduce_boolean_decision(healthy)
        if healthy:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint beside the old one, then swap them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            temporary.replace(self.path)


class StopOnSignal(L.Callback):
    """Ctrl-C ends the training after the step under way, with a checkpoint.

    A second one ends it at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for the signal."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        try:
            self._previous = signal.signal(signal.SIGINT, stop)
        except ValueError:  # not in the main thread: whoever runs us there handles signals
            self._previous = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop if asked to; on several devices, all stop after the same step."""
        if trainer.world_size > 1:
            self.asked = trainer.strategy.reduce_boolean_decision(self.asked, all=False)
        trainer.should_stop = trainer.should_stop or self.asked

    def give_back(self) -> None:
        """Stop listening; also after an error, when Lightning calls no callback."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
