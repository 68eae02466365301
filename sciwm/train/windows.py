"""The windows that a configuration trains on and is validated by."""

from pathlib import Path
from typing import Any, Literal

from sciwm.sections import Config
from sciwm.streams.open import Order, Spacing, Stream, stream
from sciwm.train.datamodule import DataModule

__all__ = ["epoch_of", "training_data"]


def training_data(store: str | Path, config: Config) -> DataModule:
    """Batches of a training store for a trainer, as a configuration asks for them."""
    return DataModule(store, seed=config.seed, **_settings(config))


def epoch_of(store: str | Path, config: Config, which: Literal["train", "validation"]) -> Stream:
    """One epoch of batches of a block, the short last one included."""
    return stream(
        store, which=which, order=Order(seed=config.seed, drop_last=False), **_settings(config)
    )


def _settings(config: Config) -> dict[str, Any]:
    history = config.model.history
    return {
        "window": Spacing(history + config.objective.rollout, history, config.model.context_step),
        "lead_steps": config.objective.lead_steps,
        "batch_size": config.train.batch_size,
    }
