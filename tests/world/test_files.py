"""World models on disk: what is loaded is what was saved, and runs no code."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

import sciwm
from sciwm import testing
from sciwm.readout.targets import target_series
from sciwm.train.fit import build_world
from sciwm.world.files import save_world
from sciwm.world.model import load_world
from tests.worlds import climate_world, config, molecule_world, open_gates

TARGETS = ["box:28.5,40.5,-21.5,-9.5"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A world with everything a grid can have.

    That is missing data, static fields, a series, teacher, anchor and sub-daily sun.
    """
    ds = testing.small_climate(years=1, missing=True, step_hours=12)
    land = np.random.default_rng(0).random((8, 12))
    static = xr.Dataset(
        {"lsm": (("latitude", "longitude"), land)},
        {"latitude": ds.latitude, "longitude": ds.longitude},
    )
    settings = config(
        objective={"kind": "ema", "anchor": 0.5},
        probe={"targets": TARGETS, "halo": 1, "scope": "shared"},
    )
    data = {"static": static, "targets": target_series(ds, TARGETS)}
    options = {"climatology": "constant", "missing": "mask", "series": True, "leads": (1, 4)}
    folder = tmp_path_factory.mktemp("grid")
    world, _ = climate_world(ds, folder, settings=settings, **options, **data)
    return told_apart(world), ds


@pytest.fixture(scope="module")
def molecule(tmp_path_factory):
    world, _ = molecule_world(tmp_path_factory.mktemp("molecule"))
    return told_apart(world), testing.double_well(num_trajectories=1, num_frames=30, seed=5)


def told_apart(world):
    """With something to predict, and with something to tell of."""
    open_gates(world.network)
    return dataclasses.replace(world, about={"split": {"train": ["2001", "2002"]}})


@pytest.mark.parametrize("name", ["grid", "molecule"])
def test_loaded_equals_saved(name, request, tmp_path, monkeypatch):
    world, ds = request.getfixturevalue(name)
    files = world.save(tmp_path)
    assert sorted(f.name for f in files) == sorted(f.name for f in tmp_path.iterdir())
    assert {f.name for f in files} == {"model.safetensors", "model.json", "probes.safetensors"}
    with monkeypatch.context() as patch:
        forbid_unpickling(patch)
        again = sciwm.load(tmp_path)
    part = ds.isel(time=slice(0, 30))
    xr.testing.assert_identical(again.encode(part), world.encode(part))
    for readout in ("residual", "latent", "local_linear"):
        one, other = (made.forecast(part, readout=readout) for made in (again, world))
        xr.testing.assert_identical(one, other)
    assert {again.strides, again.seed, again.missing} == {world.strides, world.seed, world.missing}
    assert again.network.sizes == world.network.sizes
    assert again.network.objective.settings == world.network.objective.settings
    assert again.tokenizer.settings() == world.tokenizer.settings()
    assert again.context_step == world.context_step
    assert again.readouts["residual"].halo == world.readouts["residual"].halo
    assert again.readouts["residual"].targets == world.readouts["residual"].targets
    assert again.step == world.step
    assert again.about == world.about
    assert not again.network.training
    # Only training needs a teacher.
    assert not any("teacher" in key for key in load_file(tmp_path / "model.safetensors"))


def forbid_unpickling(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


def test_saving_again_gives_the_same_files(grid, tmp_path):
    world, _ = grid
    save_world(world, tmp_path / "a")
    save_world(load_world(tmp_path / "a"), tmp_path / "b")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    # The notes in its header come in any order.
    first, second = (load_file(tmp_path / run / "probes.safetensors") for run in ("a", "b"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_a_world_without_readouts(grid, tmp_path):
    world, ds = grid
    bare = dataclasses.replace(world, readouts={})
    assert [f.name for f in bare.save(tmp_path)] == ["model.safetensors", "model.json"]
    message = r"got readout 'residual', expected one of none: run `sciwm probe` first"
    with pytest.raises(ValueError, match=message):
        load_world(tmp_path).forecast(ds)


@pytest.fixture
def saved(grid, tmp_path):
    save_world(grid[0], tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_missing_files(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"without {name}.*run `sciwm train` first"):
        sciwm.load(saved)
    with pytest.raises(FileNotFoundError, match=r"nowhere without model.json"):
        sciwm.load(saved / "nowhere")


@pytest.mark.parametrize("name", ["model.safetensors", "probes.safetensors"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"not this" + b, lambda b: b""]
)
def test_damaged_weights(saved, name, damage):
    (saved / name).write_bytes(damage((saved / name).read_bytes()))
    with pytest.raises(ValueError, match=rf"{name}, which is damaged or not a safetensors file"):
        sciwm.load(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "which is not JSON"),
        ("\udcff", "which is not JSON"),
        ("[1]", "which holds a list"),
        ('{"format": 99, "sciwm": "9.9"}', "in format 99, expected 3; it was written by sciwm 9.9"),
        ("{}", "in format None"),
        ('{"format": 3}', "do not belong together.*'tokens' is missing"),
        (
            '{"format": 2, "sciwm": "0.9", "tokens": "grid"}',
            r"in format 2, expected 3; it was written by sciwm 0.9, this is .*`sciwm train` again",
        ),
    ],
)
def test_damaged_description(saved, text, message):
    (saved / "model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message):
        sciwm.load(saved)


def test_files_of_two_runs_do_not_mix(saved, molecule, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    save_world(molecule[0], other)
    (saved / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="do not belong together"):
        sciwm.load(saved)


def test_weights_of_another_size(saved):
    about = json.loads((saved / "model.json").read_text())
    about["sizes"]["width"] = 8
    (saved / "model.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"do not belong together.*size mismatch"):
        sciwm.load(saved)


def test_readouts_of_another_format(saved):
    path = saved / "probes.safetensors"
    save_file(load_file(path), path, metadata={"format": "7"})
    message = r"probes.safetensors in format '7'.*run `sciwm probe` again"
    with pytest.raises(ValueError, match=message):
        sciwm.load(saved)


def test_an_interrupted_save_keeps_the_old_files(saved, grid, monkeypatch):
    before = {f.name: f.read_bytes() for f in saved.iterdir()}

    def fails(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("sciwm.world.files.save_file", fails)
    with pytest.raises(OSError, match="full"):
        save_world(grid[0], saved)
    assert {f.name: f.read_bytes() for f in saved.iterdir() if f.name in before} == before


def test_monthly_and_cftime_worlds_survive(tmp_path):
    months = testing.small_months(years=20)
    noleap = testing.small_climate(years=2, calendar="noleap")
    for ds, kind in ((months, "monthly"), (noleap, "harmonic")):
        folder = tmp_path / kind
        world, _ = climate_world(ds, folder, leads=(1, 3), climatology=kind, missing="mask")
        save_world(world, folder)
        again = load_world(folder)
        part = ds.isel(time=slice(-8, None))
        xr.testing.assert_identical(again.forecast(part), world.forecast(part))


def test_an_untrained_world_depends_on_the_seed_alone(tmp_path):
    _, path = climate_world(testing.small_climate(years=1), tmp_path, climatology="constant")
    a = build_world(config(), path).network.state_dict()
    torch.randn(100)  # what happened before does not matter
    b = build_world(config(), path).network.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
