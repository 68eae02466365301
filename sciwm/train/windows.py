"""The windows that a configuration trains on and is validated by."""

from pathlib import Path
from typing import Any, Literal

from sciwm.sections import Config
from sciwm.streams.open import Stream, stream
from sciwm.train.datamodule import DataModule

__all__ = ["epoch_of", "training_data"]


def training_data(store: str | Path, config: Config) -> DataModule:
    """Batches for a trainer."""
    return DataModule(store, **_settings(config))


def epoch_of(store: str | Path, config: Config, which: Literal["train", "validation"]) -> Stream:
    """One epoch of batches of a block, the short last one included."""
    return stream(store, which=which, **_settings(config), epochs=1, drop_last=False)


def _settings(config: Config) -> dict[str, Any]:
    return {
        "window": config.model.history + config.objective.rollout,
        "lead_steps": config.objective.lead_steps,
        "batch_size": config.train.batch_size,
        "seed": config.seed,
    }
