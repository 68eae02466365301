"""Checked signatures, and one small finished run for the tests that need one."""

import os
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

# Before anything imports the package: every call of its functions is checked against the signature.
# Of all modules, because that costs no more than two seconds a process and a few per cent after.
install_import_hook("sciwm", "type_checks.check")

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


def tiny_run(folder: Path) -> Path:
    """Short members of turbulence taken through every stage, with three training steps."""
    from sciwm import catalogue
    from sciwm.config import load_config
    from sciwm.run import verbs
    from sciwm.run.directory import open_run

    catalogue.load("qg").make(
        path=folder.parent / "world.zarr",
        num_members=5,
        num_times=40,
        spinup_days=40,
        progress=False,
    )
    overrides = [
        f"--data.store={folder.parent / 'world.zarr'}",
        "--data.split.train=[0,1]",
        "--data.split.validation=[2]",
        "--data.split.test=[3,4]",
        "--model.width=16",
        "--model.encoder_width=16",
        "--model.predictor_blocks=1",
        "--train.steps=3",
        "--train.batch_size=4",
        "--train.rivals=[]",
        "--skill.resamples=20",
        "--skill.lim_eofs=[5,10]",
        "--forecast.init_every=4",
    ]
    config = load_config(catalogue.config_path("qg"), overrides)
    verbs.run_all(open_run(folder, config), config)
    # As `sciwm demo` leaves it: the simulated world lies in the run.
    os.rename(folder.parent / "world.zarr", folder / "qg.zarr")
    os.symlink(folder / "qg.zarr", folder.parent / "world.zarr")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with every stage finished; do not change it."""
    return tiny_run(tmp_path_factory.mktemp("tiny") / "demo")
