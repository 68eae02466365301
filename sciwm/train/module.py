"""One optimiser step of the JEPA or of a twin, as a Lightning module."""

import math
from collections import deque
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from sciwm.batch import Batch
from sciwm.model.jepa import JEPA
from sciwm.model.objectives import OBJECTIVES
from sciwm.model.ranks import num_ranks, total_over_ranks
from sciwm.model.teacher import moving_average, update_average
from sciwm.model.twins import Network
from sciwm.sections import Config
from sciwm.tokens.masks import block_mask, random_mask
from sciwm.tokens.molecule import MoleculeTokenizer
from sciwm.world.model import WorldModel

__all__ = ["JEPAModule", "rollout_at"]

# A step whose loss is that many standard deviations above the mean of the last ones is skipped
# (after V-JEPA 2.1): far beyond what batches scatter, but a single one can undo many steps.
_SPIKE, _RECENT, _FEWEST = 8.0, 300, 100
_LEAST = 1e-3  # scatter of a loss that hardly changes, as a part of it


def rollout_at(step: int, config: Config) -> int:
    """States predicted in sequence at a step of the training, counted from 0; see ``objective.curriculum``.

    Examples
    --------
    >>> from sciwm.sections import ObjectiveConfig, TrainConfig
    >>> config = Config(
    ...     objective=ObjectiveConfig(rollout=4, curriculum=0.8), train=TrainConfig(steps=100)
    ... )
    >>> [rollout_at(step, config) for step in (0, 19, 20, 59, 60, 99)]
    [1, 1, 2, 3, 4, 4]
    """
    stage = config.objective.curriculum * config.train.steps / config.objective.rollout
    return (
        config.objective.rollout
        if not stage
        else min(config.objective.rollout, 1 + int(step / stage))
    )


class JEPAModule(L.LightningModule):
    """Trains ``world.network`` and keeps a moving average of its weights.

    Every step draws its randomness (noise, masks, dropout, directions) from a seed made of
    ``config.seed`` and the step's number, so that a resumed training goes on exactly as an unbroken
    one would, wherever it was stopped. Steps whose loss leaps up are skipped; ``skipped`` counts
    them.

    Parameters
    ----------
    world : WorldModel
        Freshly built.
    config : Config
        What it was built with.
    """

    def __init__(self, world: WorldModel, config: Config) -> None:
        super().__init__()
        if config.train.precision.startswith("16"):
            raise ValueError(
                f"got train.precision = {config.train.precision!r}, expected bf16-mixed or"
                " 32-true: the scaled gradients of float16 would be clipped as if they were not"
                " scaled"
            )
        self.world = world
        self.config = config
        self.network: Network = world.network
        self.tokenizer = world.tokenizer
        self.average: Network = moving_average(world.network)
        self.skipped = 0
        self._loss = torch.zeros(())
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def losses(
        self, network: Network, batch: Batch, *, noise: float = 0.0, mask_ratio: float = 0.0
    ) -> dict[str, Tensor]:
        """Prediction error and regulariser (or reconstruction error) of a batch."""
        values = (
            batch.values + noise * torch.randn_like(batch.values) * batch.valid
            if noise
            else batch.values
        )
        features, valid = self.world.tokenize(values, batch.valid)
        visible, record = None, OBJECTIVES[network.objective.kind]
        if record.hides_states:
            # In validation, too: without hidden tokens there is nothing to fill in.
            states, tokens = features.shape[0] * features.shape[1], features.shape[2]
            ratio = self.config.objective.mask_ratio
            visible = random_mask(tokens, batch=states, ratio=ratio).to(features.device)
        elif mask_ratio:
            states = len(batch) * network.history
            visible = block_mask(self.tokenizer.position.cpu(), batch=states, ratio=mask_ratio).to(
                features.device
            )
        known: dict[str, Any] = {
            "condition": batch.condition,
            "lead_steps": batch.lead_steps.float(),
            "local": self.world.local_conditions(batch.condition),
            "visible": visible,
        }
        if record.reads_cells or network.objective.anchor:
            # Those without the noise.
            known["cells"], known["seen"] = self.world.cells(batch.values, batch.valid)
        return network.loss(features, valid, **known)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        # The same on every rank would be the same noise, masks and dropout on every part of the
        # batch.
        torch.manual_seed(
            hash(
                (
                    self.config.seed,
                    self.global_step,
                    *([self.global_rank] if self.global_rank else []),
                )
            )
            % 2**63
        )
        objective = self.config.objective
        batch = self.cut(batch, rollout_at(self.global_step, self.config))
        losses = self.losses(
            self.network, batch, noise=self.noise_of(batch), mask_ratio=objective.mask_ratio
        )
        self.log_dict(
            {f"train/{k}": v.detach() for k, v in losses.items()}
            | {"train/skipped": float(self.skipped)},
            prog_bar=False,
        )
        self._loss = losses["loss"].detach()
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False)
        return losses["loss"]

    def cut(self, batch: Batch, rollout: int) -> Batch:
        """Windows that end with the last predicted state; whole for the masked autoencoder, which predicts none and fills in all."""
        predicts = isinstance(self.network, JEPA) or self.network.has_dynamics
        return batch.head(self.network.history + rollout) if predicts else batch

    def noise_of(self, batch: Batch) -> float:
        """Input noise in the units of ``batch.values``: of a molecule, in units of the spread of its distances."""
        noise = self.config.objective.input_noise
        return (
            noise * float(self.tokenizer.spread.median())
            if isinstance(self.tokenizer, MoleculeTokenizer)
            else noise
        )

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Move the weights, then the teacher and the average of the weights.

        Not in ``on_train_batch_end``: callbacks get theirs first, and a checkpoint would lack the
        averages' last move.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if isinstance(self.network, JEPA):
            self.network.update_teacher()
        done = self.global_step + 1  # counted after this hook
        decay = min(self.config.train.average_decay, done / (done + 9))
        update_average(self.average, self.network, decay=decay)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Limit the gradient's norm here: Lightning refuses to for a fused optimiser in mixed precision, though bfloat16 has no scaling.

        After a leap of the loss there is no gradient at all: the optimiser then leaves weights and
        its own averages as they are.
        """
        if self._leaps(float(total_over_ranks(self._loss)) / num_ranks()):
            self.skipped += 1
            self.network.zero_grad(set_to_none=True)
        elif self.config.train.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.clip)

    def _leaps(self, loss: float) -> bool:
        """Whether a loss is far above the last ones. It counts as one of them from now on, so a new level is taken after five steps.

        One that is not finite is no leap: it stops the training, which is the business of `Health`.
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
        """AdamW with linear warm-up and cosine decay; no decay of weights on biases, norms and embeddings."""
        settings = self.config.train
        trained = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True
        )
        warm = max(1, round(settings.warmup * settings.steps))

        def rate(step: int) -> float:
            done = min(1.0, max(0.0, (step - warm) / max(1, settings.steps - warm)))
            return min((step + 1) / warm, 1e-3 + 0.5 * (1 + math.cos(math.pi * done)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def final_network(self) -> nn.Module:
        """The weights used for everything after training."""
        return self.average if self.config.train.average_decay else self.network
