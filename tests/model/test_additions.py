"""What a newcomer adds: an objective, a mixing, dynamics. Each is a change of three files at most.

The patches beside this file are such changes. They are applied to a copy of the package, which then
trains with the new name.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sciwm
from sciwm import testing
from sciwm.config import ConfigError, dump_config, load_config
from tests.worlds import config, store

PATCHES = Path(__file__).parent / "additions"
# Patch, flag that names what it adds, and the class that then is in the network.
ADDED = {
    "objective": ("--objective.kind=barlow", "Barlow"),
    "mixing": ("--model.mixing=mean", "Mean"),
    "dynamics": ("--model.dynamics=linear", "LinearDynamics"),
}

TRAIN = """
import importlib, json, sys

path, file, *changes = sys.argv[1:]
for change in changes:  # torch is imported once, the package from every copy
    folder, flag = change.split(" ")
    for name in [m for m in sys.modules if m.partition(".")[0] == "sciwm"]:
        del sys.modules[name]
    sys.path[0] = folder
    fit, sections = (importlib.import_module(f"sciwm.{m}") for m in ("train.fit", "config"))
    assert fit.__file__.startswith(folder)
    config, log = sections.load_config(file, [flag]), []
    world = fit.build_world(config, path)
    before = {name: values.clone() for name, values in world.network.state_dict().items()}
    fit.fit_world(world, path, config, folder=folder, record=log.append, progress=False)
    moved = [n for n, v in world.network.state_dict().items() if not v.equal(before[n])]
    parts = sorted({type(m).__name__ for m in world.network.modules()})
    print(json.dumps({"moved": len(moved), "parts": parts, "loss": log[-1]["loss"]}))
"""


def touched(name):
    """Files that a patch changes or makes."""
    text = (PATCHES / f"{name}.patch").read_text(encoding="utf-8")
    return set(re.findall(r"^\+\+\+ b/(\S+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", ADDED)
def test_an_addition_touches_at_most_three_files(name):
    assert 1 <= len(touched(name)) <= 3


@pytest.mark.parametrize("name", ADDED)
def test_without_it_the_name_is_unknown(name):
    flag, _ = ADDED[name]
    with pytest.raises(ConfigError, match=rf"got {flag[2:].split('=')[0].replace('.', '[.]')} ="):
        load_config("", [flag])


def patched(name, folder):
    """A copy of the package with one addition."""
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(sciwm.__file__).parent, folder / "sciwm", ignore=leave)
    before = {p: p.read_bytes() for p in folder.rglob("*.py")}
    patch = str(PATCHES / f"{name}.patch")
    git = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    how = {"cwd": folder, "env": git, "capture_output": True, "text": True}
    done = subprocess.run(["git", "apply", "-C1", patch], check=False, **how)
    assert done.returncode == 0, f"{patch} does not fit the tree any more: {done.stderr}"
    after = {p: p.read_bytes() for p in folder.rglob("*.py")}
    changed = {p for p in after if before.get(p) != after[p]}
    assert {p.relative_to(folder).as_posix() for p in changed} == touched(name)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a training with each of the additions says, each in a copy of its own."""
    folder = tmp_path_factory.mktemp("additions")
    path = store(testing.small_climate(years=1), folder, climatology="constant")
    (folder / "tiny.yaml").write_text(dump_config(config(train={"steps": 2})))
    (folder / "train.py").write_text(TRAIN)
    flags = [f"{patched(name, folder / name)} {flag}" for name, (flag, _) in ADDED.items()]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "train.py", str(path), "tiny.yaml", *flags],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(ADDED, map(json.loads, lines), strict=True))


@pytest.mark.parametrize("name", ADDED)
def test_what_was_added_trains(trained, name):
    said = trained[name]
    assert ADDED[name][1] in said["parts"]
    assert said["moved"] > 3
    assert 0 < said["loss"] < 1e3
