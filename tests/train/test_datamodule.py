"""A resumed Lightning run sees exactly the batches that an unbroken one does."""

import warnings
from dataclasses import replace
from itertools import islice

import lightning
import numpy as np
import pytest
import torch
import xarray as xr

from sciwm.store.prepare import Blocks, Fit, prepare
from sciwm.streams.open import Order, Spacing, stream
from sciwm.train.datamodule import DataModule


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    rng = np.random.default_rng(0)
    coords = {
        "time": xr.date_range("2000-01-01", periods=600, freq="D"),
        "latitude": np.arange(4.0),
        "longitude": np.arange(4.0),
    }
    values = 280 + rng.normal(size=(600, 4, 4))
    ds = xr.Dataset({"t2m": (("time", "latitude", "longitude"), values)}, coords)
    folder = tmp_path_factory.mktemp("stores")
    options = {"fit": Fit(harmonics=1), "progress": False}
    alone = Blocks(by="step", train=[0, 500], gap_steps=3)
    both = replace(alone, validation=[500, 600])
    return tuple(
        prepare(ds, folder / name, blocks=blocks, **options)
        for name, blocks in (("a.zarr", both), ("b.zarr", alone))
    )


class Recorder(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.indices, self.validated = torch.nn.Linear(1, 1), [], 0

    def training_step(self, batch, index):
        self.indices.append(batch.index[:, 0].tolist())
        return self.layer(batch.values.mean().reshape(1, 1)).sum()

    def validation_step(self, batch, index):
        self.validated += len(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def fit(path, folder, steps, *, resume=None, accumulate=1):
    module, data = Recorder(), DataModule(path, window=3, lead_steps=[1, 2], batch_size=32, seed=5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", module="torch")
        trainer = lightning.Trainer(
            max_steps=steps,
            accumulate_grad_batches=accumulate,
            val_check_interval=10 * accumulate,
            check_val_every_n_epoch=None,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        if resume:
            trainer.fit(module, data, ckpt_path=resume, weights_only=False)
        else:
            trainer.fit(module, data)
        trainer.save_checkpoint(folder / "last.ckpt")
    return module


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_goes_on_with_the_next_batch(paths, tmp_path, accumulate):
    path, order = paths[0], Order(seed=5, epochs=None)
    batches = stream(path, window=3, lead_steps=[1, 2], batch_size=32, order=order)
    expected = [b.index[:, 0].tolist() for b in islice(batches, 40 * accumulate)]
    unbroken = fit(path, tmp_path, 40, accumulate=accumulate)
    assert unbroken.indices == expected
    assert unbroken.validated >= 4 * 95
    first = fit(path, tmp_path, 23, accumulate=accumulate)
    second = fit(path, tmp_path, 40, resume=tmp_path / "last.ckpt", accumulate=accumulate)
    assert first.indices + second.indices == expected


def test_without_a_validation_block_or_a_trainer(paths):
    data = DataModule(paths[1], window=3, batch_size=8)
    assert data.val_dataloader() == []
    assert len(next(iter(data.train_dataloader()))) == 8
    shuffled = list(DataModule(paths[0], window=3, batch_size=8).val_dataloader())
    assert sum(len(b) for b in shuffled) == 100 - 3 - 2
    assert len(shuffled[0]) == 8


def test_a_context_with_a_step_of_its_own(paths):
    window = Spacing(5, context=3, context_step=4)
    data = DataModule(paths[0], window=window, lead_steps=[2], batch_size=8)
    batch = next(iter(data.train_dataloader()))
    assert batch.index.diff(dim=1).tolist() == [[4, 4, 2, 2]] * 8
    validated = torch.cat([b.index for b in data.val_dataloader()])
    assert validated.diff(dim=1).unique(dim=0).tolist() == [[4, 4, 2, 2]]
    assert sorted(validated[:, 0].tolist()) == list(range(503, 600 - 12))


class Steps:
    """As much of a trainer as the position in the batches depends on."""

    def __init__(self, world_size):
        self.global_step, self.accumulate_grad_batches = 0, 1
        self.global_rank, self.world_size = 0, world_size


def test_another_number_of_devices_goes_on_where_the_checkpoint_is(paths):
    data = DataModule(paths[0], window=3, batch_size=8, seed=5)
    data.trainer = Steps(1)
    batches = data.train_dataloader()
    used = [b.index[:, 0].tolist() for b in islice(batches, 10)]
    data.trainer.global_step = 10
    state = data.state_dict()
    again = DataModule(paths[0], window=3, batch_size=8, seed=5)
    again.trainer = Steps(2)
    again.trainer.global_step = 10
    again.load_state_dict(state)
    assert again.state_dict() == state  # also before anything asked for batches
    resumed = again.train_dataloader()
    assert again.state_dict()["stream"]["past"] == [[1, 80]]
    rest = [b.index[:, 0].tolist() for b in islice(resumed, 20)]
    again.trainer.global_step = 15  # Lightning asks for another iterator in the middle
    assert [b.index[:, 0].tolist() for b in islice(resumed, 5)] == rest[5:10]
    assert not {x for b in used for x in b} & {x for b in rest for x in b}
