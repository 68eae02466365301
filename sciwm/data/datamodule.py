"""The streams of a training store as Lightning wants them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np

from sciwm.data.prepare import open_training_store
from sciwm.data.split import LABELS
from sciwm.data.stream import Stream, stream
from sciwm.sample import Batch

__all__ = ["DataModule"]


class DataModule(lightning.LightningDataModule):
    """Training and validation batches of a training store.

    A resumed run goes on with the very next batch: the position in the stream is the trainer's ``global_step`` times
    ``accumulate_grad_batches``, read whenever Lightning asks for an iterator. (This presumes one optimizer.)

    Parameters
    ----------
    store : path
        Training store as `sciwm.data.prepare` writes it.
    length : int
        States per window: history and rollout together.
    lead_steps : sequence of int
        Strides drawn for the windows.
    batch_size : int
        Windows per step and device.
    seed : int
        Seed of the order.
    memory_limit : int
        Bytes for states held ready, see `sciwm.data.stream`.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        length: int,
        lead_steps: Sequence[int] = (1,),
        batch_size: int,
        seed: int = 0,
        memory_limit: int = 2**30,
    ) -> None:
        super().__init__()
        self.store, self.length, self.lead_steps = Path(store), length, tuple(lead_steps)
        self.batch_size, self.seed, self.memory_limit = batch_size, seed, memory_limit

    def train_dataloader(self) -> "TrainBatches":
        """Batches without end, from the one that the trainer needs next; iterated in one process, read in threads."""
        return TrainBatches(self._stream("train"), self.trainer)

    def val_dataloader(self) -> Any:
        """All validation batches in a fixed shuffled order, so that the first few are representative; none without such a block."""
        label = open_training_store(self.store)["split"].values
        return self._stream("validation") if np.any(label == LABELS["validation"]) else []

    def _stream(self, which: Literal["train", "validation"]) -> Stream:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return stream(
            self.store,
            which=which,
            length=self.length,
            lead_steps=self.lead_steps,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            memory_limit=self.memory_limit,
            epochs=None if which == "train" else 1,
            drop_last=which == "train",
        )


@dataclass
class TrainBatches:
    """An iterable that starts where the trainer stands.

    It hides the stream's ``state_dict``, with which Lightning would otherwise restore the position of its prefetcher,
    one batch further.
    """

    source: Stream
    trainer: Any

    def __iter__(self) -> Iterator[Batch]:
        self.source.start_batch = self.trainer.global_step * self.trainer.accumulate_grad_batches if self.trainer else 0
        return iter(self.source)
