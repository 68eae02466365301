"""The streams of a training store as Lightning wants them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np

from sciwm.batch import Batch
from sciwm.data.read import Store
from sciwm.store.prepare import is_training_store, open_training_store
from sciwm.store.split import LABELS
from sciwm.streams.open import Order, Reading, Spacing, Stream, stream

__all__ = ["DataModule", "ValidationBatches"]


class DataModule(lightning.LightningDataModule):
    """Training and validation batches of a training store, or of what `sciwm.streams.open` reads.

    A resumed run goes on with the very next batch, also on another number of devices. The
    checkpoint holds the stream's state after the batches used by the trainer, not after those read
    ahead. With one optimizer, ``global_step`` times ``accumulate_grad_batches`` are used.

    Parameters
    ----------
    data : path, Dataset or list
        See `sciwm.streams.open`.
    window : int or Spacing
        States per window: history and rollout together. A `Spacing` says, too, how far apart the
        states of the history are.
    lead_steps : sequence of int
        Strides drawn for the windows, in time steps.
    batch_size : int
        Windows per step and device.
    seed : int
        Seed of the order.
    memory_limit : int
        Bytes for states held ready, of training and of validation each, see `sciwm.streams.open`.
    """

    def __init__(
        self,
        data: Store,
        *,
        window: int | Spacing,
        lead_steps: Sequence[int] = (1,),
        batch_size: int,
        seed: int = 0,
        memory_limit: int = 2**30,
    ) -> None:
        super().__init__()
        self.data, self.window, self.lead_steps = data, window, tuple(lead_steps)
        self.batch_size, self.seed, self.memory_limit = batch_size, seed, memory_limit
        self._train: TrainBatches | None = None
        self._state: dict[str, Any] | None = None

    def train_dataloader(self) -> "TrainBatches":
        """Batches without end, from the one that the trainer needs next.

        They are iterated in one process and read in threads.
        """
        self._train = TrainBatches(self._stream("train"), self.trainer, self._state)
        return self._train

    def val_dataloader(self) -> Any:
        """All validation batches; none without such a block.

        Their order is shuffled and fixed, so that the first few are representative.
        """
        data = self.data
        if isinstance(data, str | Path) and is_training_store(data):
            if not np.any(open_training_store(data)["split"].values == LABELS["validation"]):
                return []
            return ValidationBatches(self._stream("validation"))
        return []

    def state_dict(self) -> dict[str, Any]:
        """Position in the training batches, for the checkpoint."""
        return self._train.state_dict() if self._train is not None else self._state or {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._state = state or None

    def _stream(self, which: Literal["train", "validation"]) -> Stream:
        train, trainer = which == "train", self.trainer
        order = Order(
            seed=self.seed,
            epochs=None if train else 1,
            every=None if train else 1,
            drop_last=train,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        return stream(
            self.data,
            which=which,
            window=self.window,
            lead_steps=self.lead_steps,
            batch_size=self.batch_size,
            order=order,
            reading=Reading(memory_limit=self.memory_limit),
        )


class TrainBatches:
    """An iterable that starts where the trainer stands.

    It keeps the stream's ``state_dict`` from Lightning's loops, which would restore the position of
    their prefetcher, one batch further.
    """

    def __init__(self, source: Stream, trainer: Any, state: dict[str, Any] | None) -> None:
        self._source, self._trainer, self._step_then = source, trainer, 0
        if state is not None:
            self._step_then = int(state["step"])
            source.load_state_dict(state["stream"])

    def __iter__(self) -> Iterator[Batch]:
        state = self.state_dict()
        self._source.load_state_dict(state["stream"])
        self._step_then = state["step"]
        return iter(self._source)

    def state_dict(self) -> dict[str, Any]:
        """The stream's state after the batches that the trainer has used."""
        trainer, step = self._trainer, 0
        if trainer:
            step = int(trainer.global_step * trainer.accumulate_grad_batches)
        return {"step": step, "stream": self._source.state_after(max(0, step - self._step_then))}


class ValidationBatches:
    """An iterable with the same batches every time."""

    def __init__(self, source: Stream) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Batch]:
        self._source.seek(0)
        return iter(self._source)
