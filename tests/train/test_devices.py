"""Training on several devices: two processes of the terminal's own command."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import sciwm
from sciwm import testing
from sciwm.config import dump_config, load_config
from sciwm.readout.readout import KINDS
from sciwm.train.fit import build_world
from tests.worlds import config

BLOCKS = {"by": "step", "train": "[0,400]", "validation": "[400,560]", "test": "[560,730]"}

DIES_AFTER_SIX_STEPS = """
import os, sys
import sciwm.train.callbacks as callbacks
from sciwm.cli import main

end = callbacks.Checkpoints.on_train_batch_end

def stop(self, trainer, *rest):
    end(self, trainer, *rest)
    if trainer.global_step == 6:
        os._exit(9)

callbacks.Checkpoints.on_train_batch_end = stop
sys.exit(main(["train", sys.argv[1]]))
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A configuration file of two years of a small climate."""
    folder = tmp_path_factory.mktemp("devices")
    testing.small_climate(years=2).to_netcdf(folder / "climate.nc", engine="h5netcdf")
    steps = {"steps": 8, "validate_every": 4, "checkpoint_every": 4}
    small = config(model={"dropout": 0.0}, objective={"input_noise": 0.0}, train=steps)
    flags = [f"--data.store={folder / 'climate.nc'}", "--data.climatology=constant"]
    flags += [f"--data.split.{name}={block}" for name, block in BLOCKS.items()]
    made = load_config(dump_config(small), flags)
    (folder / "small.yaml").write_text(dump_config(made))
    return folder / "small.yaml"


def sciwm_run(*arguments):
    command = [sys.executable, "-m", "sciwm", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def prepared(settings):
    """A run on two devices, before its training."""
    run = settings.parent / "prepared"
    sciwm_run("prepare", settings, "--out", run, "--train.devices=2")
    return run


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """The same after it, and what the terminal said."""
    run = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(prepared, run)
    return run, sciwm_run("train", run)


def test_two_processes_train_one_model(settings, trained):
    run, text = trained
    # The second process is silent, and ends with the training.
    assert text.count("validation: latent error") == 1
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log if r["split"] == "validation"] == [0, 4, 8]
    before = build_world(load_config(settings), run / "train.zarr").network.state_dict()
    moved = [not torch.equal(v, before[k]) for k, v in sciwm.load(run).network.state_dict().items()]
    assert np.mean(moved) > 0.9
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8
    assert not (run / "checkpoints" / "last.tmp").exists()
    sciwm_run("probe", run)  # later stages are the work of one process
    assert set(sciwm.load(run).readouts) == {*KINDS, "state"}


def test_a_training_on_two_devices_goes_on_where_it_was(prepared, trained, tmp_path):
    """One of the processes dies after a checkpoint.

    The resumed training ends with the weights of an unbroken one.
    """
    whole, broken = trained[0], tmp_path / "broken"
    shutil.copytree(prepared, broken)
    script = tmp_path / "broken.py"
    script.write_text(DIES_AFTER_SIX_STEPS)
    command = [sys.executable, str(script), str(broken)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert torch.load(broken / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    sciwm_run("train", broken)
    one, two = (sciwm.load(run).network.state_dict() for run in (whole, broken))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)
