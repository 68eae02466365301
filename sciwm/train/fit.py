"""Train a world model: build it from a training store, fit it, stop and go on."""

import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
import xarray as xr
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from sciwm.batch import Batch
from sciwm.climatology import Climatology
from sciwm.model.objectives import randomize
from sciwm.model.settings import ObjectiveSettings, Sizes
from sciwm.model.whitening import Whitening, fit_whitening
from sciwm.sections import Config
from sciwm.store.prepare import load_statistics, open_training_store
from sciwm.store.split import LABELS, Split
from sciwm.times import Step
from sciwm.tokens.tokenizer import Tokenizer, fit_tokenizer
from sciwm.train.callbacks import Checkpoints, Health, StopOnSignal, measure
from sciwm.train.datamodule import ValidationBatches
from sciwm.train.module import JEPAModule
from sciwm.train.precision import device_type, resolve_precision
from sciwm.train.quiet import quiet_lightning
from sciwm.train.windows import epoch_of, training_data
from sciwm.world.core import build_network, widths_of
from sciwm.world.model import WorldModel

__all__ = [
    "build_world",
    "fit_world",
    "is_first_process",
    "measure_world",
    "objective_of",
    "sizes_of",
]

_VALIDATION_WINDOWS = 256
# The whitening is fitted on as many training states as are in both limits.
_WHITENING_STATES, _WHITENING_BYTES, _WHITENING_PART = 1024, 2**28, 128
_WHITENING_CHUNKS = 32  # at least, so that all seasons are met


def build_world(
    config: Config,
    store: str | Path,
    *,
    series_climatology: Climatology | None = None,
    random: bool = False,
) -> WorldModel:
    """An untrained world model for the data of a training store.

    Its encoder is the whitening of patches, fitted on states spread evenly over the training block.
    That is not the business of `sciwm.store.prepare`: one store serves every patch size.

    Parameters
    ----------
    config : Config
        Sizes, objective, seed.
    store : path
        From `sciwm.store.prepare.prepare`.
    series_climatology : Climatology, optional
        Of the scalar series to be read out.
    random : bool
        Draw all weights at random, those of the encoder too.

    Returns
    -------
    WorldModel
        The same for the same seed.
    """
    ds = open_training_store(store)
    step = Step(float(ds.attrs["step_value"]), ds.attrs["step_unit"])
    split = ds["split"].values
    height, width = config.model.patch_size
    tokenizer = fit_tokenizer(ds, patch_size=(height, width))
    statistics = load_statistics(store) if "channel" in ds["state"].dims else None
    static = torch.zeros(tokenizer.num_tokens, 0)
    if "static" in ds:
        static = tokenizer.means(torch.from_numpy(ds["static"].values).float())
    whitening, change = (None, 1.0) if random else _whitening(ds, tokenizer, config)
    network = build_network(
        tokenizer,
        sizes_of(config),
        objective_of(config),
        known=widths_of(static, condition_dim=ds.sizes["condition"]),
        whitening=whitening,
        change=change,
        seed=config.seed,
    )
    if random:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            randomize(network)
    return WorldModel(
        step=step,
        network=network,
        tokenizer=tokenizer,
        statistics=statistics,
        series_climatology=series_climatology,
        static=static,
        strides=tuple(config.objective.lead_steps),
        condition_dim=ds.sizes["condition"],
        context_step=config.model.context_step,
        seed=config.seed,
        missing=config.data.missing,
        about={
            "split": Split(split).describe(ds["time"].values),
            "fingerprint": ds.attrs.get("fingerprint", ""),
        },
    )


def _whitening(ds: xr.Dataset, tokenizer: Tokenizer, config: Config) -> tuple[Whitening, float]:
    """Whitening of training states, and what cells change by over the shortest lead."""
    train = np.flatnonzero(ds["split"].values == LABELS["train"])
    lead, segment = min(config.objective.lead_steps), ds["segment"].values
    size = 4 * int(np.prod(ds["state"].shape[1:]))
    count = int(np.clip(_WHITENING_BYTES // size, 2, _WHITENING_STATES))
    # States far apart would each decode a whole chunk: dear where there are many.
    small = len(train) * size <= _WHITENING_BYTES
    chunk = 1 if small else ds["state"].encoding.get("chunks", (1,))[0]
    chosen = _spread_out(train, count, chunk=chunk)
    later = np.clip(chosen + lead, 0, len(segment) - 1)
    paired = (segment[later] == segment[chosen]) & np.isin(later, train) & (later > chosen)
    squares, parts = [], []
    for start in range(0, len(chosen), _WHITENING_PART):
        rows = slice(start, start + _WHITENING_PART)
        features, cells, valid = _features(ds, tokenizer, chosen[rows])
        parts.append(features if valid is None else features[valid][:, None])
        if paired[rows].any():
            after = _features(ds, tokenizer, later[rows][paired[rows]])[1]
            squares.append((after - cells[torch.from_numpy(paired[rows])]).square().mean())
    whitening = fit_whitening(
        parts,
        num_cells=tokenizer.num_cells,
        floor=config.model.whitening_floor,
        alike=tokenizer.alike,
    )
    return whitening, float(torch.stack(squares).mean().sqrt()) if squares else 1.0


def _spread_out(times: np.ndarray, count: int, *, chunk: int) -> np.ndarray:
    """At most as many times as asked for, of chunks that are spread over all."""
    if len(times) <= count:
        return times
    chunks = np.unique(times // chunk)
    kept = max(_WHITENING_CHUNKS, count // chunk)
    kept = chunks[np.unique(np.linspace(0, len(chunks) - 1, kept).astype(int))]
    found = times[np.isin(times // chunk, kept)]
    return found[:: -(-len(found) // count)]


def _features(
    ds: xr.Dataset, tokenizer: Tokenizer, times: np.ndarray
) -> tuple[Tensor, Tensor, Tensor | None]:
    values = torch.from_numpy(np.asarray(ds["state"].isel(time=times).values, np.float32))
    finite = torch.isfinite(values)
    valid = None if bool(finite.all()) else finite
    return tokenizer.tokenize(torch.where(finite, values, 0.0), valid)[:3]


def sizes_of(config: Config) -> Sizes:
    """Sizes of the network that a configuration asks for."""
    return Sizes(**{f.name: getattr(config.model, f.name) for f in fields(Sizes)})


def objective_of(config: Config) -> ObjectiveSettings:
    """Objective that a configuration asks for."""
    names = [f.name for f in fields(ObjectiveSettings)]
    return ObjectiveSettings(**{name: getattr(config.objective, name) for name in names})


def fit_world(
    world: WorldModel,
    store: str | Path,
    config: Config,
    *,
    folder: str | Path,
    record: Callable[[dict[str, Any]], None] = lambda record: None,
    progress: bool = True,
) -> bool:
    """Train ``world.network`` in place, going on from ``checkpoints/last.ckpt`` if there is one.

    Ctrl-C finishes the step under way and writes a checkpoint. With the same number of threads, a
    resumed training ends with the weights of an unbroken one, bit for bit.

    With ``train.devices`` above 1, the calling program is started again for every further device.
    Those programs end here (`SystemExit`).

    Parameters
    ----------
    world : WorldModel
        From `build_world`; afterwards it holds the averaged weights, in evaluation mode.
    store : path
        Training store.
    config : Config
        What ``world`` was built with.
    folder : path
        Run directory, for checkpoints and logs.
    record : callable
        Takes the records of ``log.jsonl``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    bool
        False when the training was interrupted; the next call goes on with it.

    Raises
    ------
    CollapseError
        If the latents carry no information any more.
    FloatingPointError
        If the loss is not a number.
    KeyboardInterrupt
        On a second Ctrl-C, at once.
    ValueError
        If a block is too short for a single window.
    """
    folder = Path(folder)
    data = training_data(store, config)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    world.network.train()
    module = JEPAModule(world, config)
    watch = StopOnSignal()
    validation = _validation(store, config)
    own_record = record if is_first_process() else lambda record: None
    health = Health(
        batches=lambda: _first(validation, config),
        record=own_record,
        every=config.train.validate_every,
    )
    callbacks: list[L.Callback] = [
        watch,
        health,
        Checkpoints(path=checkpoint, every=config.train.checkpoint_every),
    ]
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    with quiet_lightning():
        trainer = _trainer(config, folder, callbacks, progress=progress)
        try:
            trainer.fit(
                module,
                datamodule=data,
                ckpt_path=checkpoint if checkpoint.exists() else None,
                weights_only=True,
            )
        except SystemExit:  # what Lightning makes of a KeyboardInterrupt
            raise KeyboardInterrupt from None
        finally:
            watch.give_back()
    if config.train.devices > 1:
        dist.destroy_process_group()  # what follows is the work of one process
        if not is_first_process():
            raise SystemExit(0)
    world.network.load_state_dict(module.final_network().state_dict())
    world.network.eval()
    return not watch.asked or trainer.global_step >= config.train.steps


def is_first_process() -> bool:
    """Whether the user started this program, not Lightning for another device."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def measure_world(world: WorldModel, store: str | Path, config: Config) -> dict[str, float]:
    """What ``log.jsonl`` says at a validation, of a world model as it is.

    Parameters
    ----------
    world : WorldModel
        Trained or untrained.
    store : path
        Training store.
    config : Config
        What ``world`` was built with.

    Returns
    -------
    dict
        Losses, health of the latents, ``probe_r2``.
    """
    batches = _first(_validation(store, config), config)
    return measure(JEPAModule(world, config), world.network, batches)


def _first(batches: Iterable[Batch], config: Config) -> Iterable[Batch]:
    return itertools.islice(batches, max(1, _VALIDATION_WINDOWS // config.train.batch_size))


def _validation(store: str | Path, config: Config) -> Iterable[Batch]:
    """The same batches at every validation, from states that are read once."""
    return ValidationBatches(epoch_of(store, config, "validation"))


def _trainer(
    config: Config, folder: Path, callbacks: list[L.Callback], *, progress: bool
) -> L.Trainer:
    # TensorBoard appends when a training is resumed; CSVLogger would delete what is there, so it
    # gets a new folder each time.
    loggers = [
        CSVLogger(folder, name="logs", flush_logs_every_n_steps=100),
        TensorBoardLogger(folder, name="logs", version=""),
    ]
    return L.Trainer(
        max_steps=config.train.steps,
        precision=resolve_precision(config.train.precision, device_type()),  # type: ignore[arg-type]
        accelerator="auto",
        devices=config.train.devices,
        # A masked autoencoder has parts that some steps do not use.
        strategy="ddp_find_unused_parameters_true" if config.train.devices > 1 else "auto",
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        log_every_n_steps=20,
        use_distributed_sampler=False,
    )
