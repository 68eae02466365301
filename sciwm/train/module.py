"""One optimiser step of the JEPA or of a twin, as a Lightning module."""

import math
from collections import deque
from dataclasses import replace
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from sciwm.batch import Batch
from sciwm.model.dynamics import SlidingHistory
from sciwm.model.jepa import JEPA
from sciwm.model.mixing import Block
from sciwm.model.objectives import OBJECTIVES
from sciwm.model.ranks import num_ranks, total_over_ranks
from sciwm.model.teacher import moving_average, update_average
from sciwm.sections import Config
from sciwm.tokens.masks import block_mask, random_mask
from sciwm.tokens.record import Tokens
from sciwm.train.optimizer import make_optimizer
from sciwm.train.precision import device_type, resolve_precision
from sciwm.world.model import WorldModel

__all__ = ["JEPAModule", "hidden_matrices", "rollout_at"]

# A step whose loss is that many standard deviations above the mean of the last ones is skipped
# (after V-JEPA 2.1): far beyond what batches scatter, but a single one can undo many steps.
_SPIKE, _RECENT, _FEWEST = 8.0, 300, 100
_LEAST = 1e-3  # scatter of a loss that hardly changes, as a part of it


def hidden_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Weights of the linear layers between hidden features: those that Muon is made for.

    They are the feed-forward and attention layers of the blocks, and what embeds a history.
    """
    found: list[nn.Parameter] = []
    for module in network.modules():
        if isinstance(module, Block):
            found += [p for n, p in module.named_parameters() if "modulate" not in n]
        elif isinstance(module, SlidingHistory):
            found += module.embed.parameters()
    return [p for p in found if p.ndim == 2 and p.requires_grad and min(p.shape) > 8]


def rollout_at(step: int, config: Config) -> int:
    """States predicted in sequence at a step of the training; see ``objective.curriculum``.

    Parameters
    ----------
    step : int
        Counted from 0.
    config : Config
        With the longest rollout and the number of steps.

    Examples
    --------
    >>> from sciwm.sections import ObjectiveConfig, TrainConfig
    >>> config = Config(
    ...     objective=ObjectiveConfig(rollout=4, curriculum=0.8), train=TrainConfig(steps=100)
    ... )
    >>> [rollout_at(step, config) for step in (0, 19, 20, 59, 60, 99)]
    [1, 1, 2, 3, 4, 4]
    """
    rollout = config.objective.rollout
    stage = config.objective.curriculum * config.train.steps / rollout
    return min(rollout, 1 + int(step / stage)) if stage else rollout


class JEPAModule(L.LightningModule):
    """Trains ``world.network`` and keeps a moving average of its weights.

    Every step draws noise, masks, dropout and directions from a seed of its own. That is made of
    ``config.seed`` and the step's number, so a resumed training goes on exactly as an unbroken one.

    Steps whose loss leaps up are skipped, as in V-JEPA 2.1; ``skipped`` counts them.

    Parameters
    ----------
    world : WorldModel
        Freshly built.
    config : Config
        What it was built with.

    Raises
    ------
    ValueError
        If the precision is float16, whose scaled gradients cannot be clipped here.
    """

    def __init__(self, world: WorldModel, config: Config) -> None:
        super().__init__()
        resolve_precision(config.train.precision, device_type())
        self.world = world
        self.config = config
        self.network: JEPA = world.network
        self.tokenizer = world.tokenizer
        self.average: JEPA = moving_average(world.network)
        self.skipped = 0
        self._loss = torch.zeros(())
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def tokens(self, batch: Batch, *, noise: float = 0.0) -> Tokens:
        """A batch as tokens; noise is added to what the encoder sees, not to the cells.

        Parameters
        ----------
        batch : Batch
            Windows of states: standardized, or positions of a molecule in nm.
        noise : float
            Standard deviation of the noise, in units of ``batch.values``.
        """
        known = self.world.known(batch.condition, batch.lead)
        valid = None if batch.complete else batch.valid
        tokens = self.world.tokens(batch.values, valid, known)
        if not noise:
            return tokens
        noisy = batch.values + noise * torch.randn_like(batch.values) * batch.valid
        return replace(tokens, features=self.tokenizer.tokenize(noisy, valid)[0])

    def losses(
        self, network: JEPA, batch: Batch, *, noise: float = 0.0, mask_ratio: float = 0.0
    ) -> dict[str, Tensor]:
        """Losses of a batch, as the network gives them.

        Parameters
        ----------
        network : JEPA
            The module's own, or the average of its weights.
        batch : Batch
            As `tokens` takes it.
        noise : float
            See `tokens`.
        mask_ratio : float
            Fraction of the context's tokens that is hidden from the encoder, in [0, 1).
        """
        tokens = self.tokens(batch, noise=noise)
        record, asked = OBJECTIVES[network.objective.settings.kind], self.config.objective
        windows, times, count = tokens.features.shape[:3]
        hidden = None
        if record.hides_states:
            # In validation, too: without hidden tokens there is nothing to fill in.
            hidden = random_mask(count, batch=windows * times, ratio=asked.mask_ratio)
        elif mask_ratio:
            times = network.history
            if asked.mask == "random":
                hidden = random_mask(count, batch=windows * times, ratio=mask_ratio)
            else:
                position = self.tokenizer.position.cpu()
                hidden = block_mask(position, batch=windows * times, ratio=mask_ratio)
        if hidden is not None:
            hidden = hidden.view(windows, times, count).to(tokens.features.device)
        return network.loss(tokens, hidden)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        # One seed for all ranks would give every part of the batch the same noise and dropout.
        rank = [self.global_rank] if self.global_rank else []
        torch.manual_seed(hash((self.config.seed, self.global_step, *rank)) % 2**63)
        objective = self.config.objective
        batch = self.cut(batch, rollout_at(self.global_step, self.config))
        noise, ratio = self.noise_of(batch), objective.mask_ratio
        losses = self.losses(self.network, batch, noise=noise, mask_ratio=ratio)
        logged = {f"train/{k}": v.detach() for k, v in losses.items()}
        self.log_dict(logged | {"train/skipped": float(self.skipped)}, prog_bar=False)
        self._loss = losses["loss"].detach()
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False)
        return losses["loss"]

    def cut(self, batch: Batch, rollout: int) -> Batch:
        """Windows that end with the last predicted state.

        The masked autoencoder predicts none and fills in all: its windows stay whole.

        Parameters
        ----------
        batch : Batch
            Windows for the longest rollout.
        rollout : int
            States predicted in sequence.
        """
        if OBJECTIVES[self.network.objective.settings.kind].hides_states:
            return batch
        return batch.head(self.network.history + rollout)

    def noise_of(self, batch: Batch) -> float:
        """Input noise in the units of ``batch.values``.

        For molecules, ``objective.input_noise`` counts in spreads of the distances between atoms.
        """
        return self.config.objective.input_noise * self.tokenizer.noise_scale

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Move the weights, then the teacher and the average of the weights.

        Not in ``on_train_batch_end``: callbacks get theirs first, and a checkpoint would lack the
        averages' last move.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.network.objective.moved(self.network)
        done = self.global_step + 1  # counted after this hook
        decay = min(self.config.train.average_decay, done / (done + 9))
        update_average(self.average, self.network, decay=decay)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Limit the norm of the gradient.

        Lightning refuses to for a fused optimiser in mixed precision, though bfloat16 has no
        scaling. After a leap of the loss there is no gradient at all. The optimiser then leaves
        weights and its own averages as they are.
        """
        if self._leaps(float(total_over_ranks(self._loss)) / num_ranks()):
            self.skipped += 1
            self.network.zero_grad(set_to_none=True)
        elif self.config.train.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.clip)

    def _leaps(self, loss: float) -> bool:
        """Whether a loss is far above the last ones.

        It counts as one of them from now on, so a new level is taken after five steps. One that is
        not finite is no leap: it stops the training, which is the business of `Health`.
        """
        if not math.isfinite(loss):
            return False
        recent = np.array(self._recent)
        self._recent.append(loss)
        if len(recent) < _FEWEST:
            return False
        mean = float(recent.mean())
        return loss > mean + _SPIKE * max(float(recent.std()), _LEAST * abs(mean))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the last losses, so that a resumed training skips the same steps."""
        checkpoint["recent_losses"], checkpoint["skipped"] = list(self._recent), self.skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the losses of a checkpoint; older ones have none."""
        self._recent.extend(checkpoint.get("recent_losses", []))
        self.skipped = checkpoint.get("skipped", 0)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser asked for, with linear warm-up and cosine decay of the learning rate."""
        settings = self.config.train
        trained = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        hidden = {id(p) for p in hidden_matrices(self.network)}
        optimizer = make_optimizer(
            [p for p in trained.values() if id(p) in hidden],
            [p for p in trained.values() if id(p) not in hidden and p.ndim > 1],
            [p for p in trained.values() if id(p) not in hidden and p.ndim <= 1],
            settings=settings,
        )
        warm = max(1, round(settings.warmup * settings.steps))

        def factor(step: int) -> float:
            done = min(1.0, max(0.0, (step - warm) / max(1, settings.steps - warm)))
            return min((step + 1) / warm, 1e-3 + 0.5 * (1 + math.cos(math.pi * done)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def final_network(self) -> nn.Module:
        """The weights used for everything after training."""
        return self.average if self.config.train.average_decay else self.network
