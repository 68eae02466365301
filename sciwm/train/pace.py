"""How many steps of one training cost as much processor time as those of another."""

import time
from pathlib import Path

import torch

from sciwm.batch import Batch
from sciwm.model.teacher import update_average
from sciwm.sections import Config
from sciwm.train.fit import build_world
from sciwm.train.module import JEPAModule
from sciwm.train.precision import resolve_precision
from sciwm.train.windows import epoch_of

__all__ = ["equal_steps"]

_WARM, _STEPS = 1, 4


def equal_steps(config: Config, other: Config, store: str | Path) -> int:
    """Steps of ``other`` that take the processor time of all steps of ``config``.

    Some steps of both are timed in turn, so that a busy machine slows both alike.

    Parameters
    ----------
    config, other : Config
        Two trainings on the same store, with batches of the same size. The other predicts no more
        states in a row.
    store : path
        Training store.

    Returns
    -------
    int
        At least 1.
    """
    batch = next(iter(epoch_of(store, config, "train")))
    pair = [_Steps(each, store, batch) for each in (config, other)]
    seconds = [0.0, 0.0]
    for number in range(_WARM + _STEPS):
        for which, steps in enumerate(pair):
            took = steps.take()
            seconds[which] += took if number >= _WARM else 0.0
    return max(1, round(config.train.steps * seconds[0] / seconds[1]))


class _Steps:
    def __init__(self, config: Config, store: str | Path, batch: Batch) -> None:
        world = build_world(config, store)
        world.network.train()
        self.module = JEPAModule(world, config)
        self.batch = self.module.cut(batch, config.objective.rollout)
        self.optimizer = self.module.configure_optimizers()["optimizer"]

    def take(self) -> float:
        """Seconds of the processor that one step takes."""
        module, ratio = self.module, self.module.config.objective.mask_ratio
        precision = resolve_precision(module.config.train.precision, "cpu")
        cast = torch.autocast("cpu", torch.bfloat16, enabled=precision.startswith("bf16"))
        with torch.random.fork_rng(devices=[]):
            started = time.process_time()
            with cast:
                losses = module.losses(module.network, self.batch, mask_ratio=ratio)
            losses["loss"].backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()
            update_average(module.average, module.network, decay=0.9)
            return time.process_time() - started
