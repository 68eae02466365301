"""Methods that are trained beside a run, and have their rows in its table."""

import dataclasses
import subprocess

import pandas as pd
import pytest
import xarray as xr

import sciwm
from sciwm.config import ConfigError, load_config
from sciwm.run import rivals, verbs
from sciwm.run.compare import compare
from sciwm.run.directory import open_run, resolve_run
from sciwm.run.rivals import rivals_of
from tests.run.test_changed import climate, molecule

STEPS = 3


@pytest.fixture
def paced(monkeypatch):
    """Steps are not timed, but counted: how often were they asked for?"""
    asked = []

    def equal_steps(config, other, store):
        asked.append(other.objective.kind)
        return STEPS

    monkeypatch.setattr(rivals, "equal_steps", equal_steps)
    return asked


def with_rivals(folder, *more):
    few = ["--probe.fraction=0.1", "--forecast.init_every=20"]
    return load_config("", climate(folder, "--train.rivals=[convnet]", *few, *more))


def test_a_rival_is_trained_and_scored_with_the_data_of_the_run(tmp_path, paced):
    config = with_rivals(tmp_path)
    run = open_run(tmp_path / "run", config)
    verbs.run_all(run, config)
    assert paced == ["convnet"]
    rival = resolve_run(run.path / "rivals" / "convnet")
    own = rival.read_config()
    assert (own.objective.kind, own.train.optimizer) == ("convnet", "adamw")
    assert (own.train.steps, own.train.rivals) == (STEPS, [])
    assert dataclasses.replace(own.model) == config.model
    assert rival.train_store.resolve() == run.train_store.resolve()
    assert max(record["step"] for record in rival.read_log()) == STEPS
    table = pd.read_csv(run.table_file)
    rmse = table[table["metric"] == "rmse"].groupby("method").size()
    assert rmse["convnet"] == rmse["convnet_decoder"] == rmse["jepa"]
    assert not {"convnet_latent", "convnet_local_linear"} & {*table["method"]}
    ds = sciwm.open_dataset(config.data.store)
    with xr.open_zarr(run.forecasts_folder / "convnet_decoder.zarr") as made:
        assert made.attrs["method"] == "convnet_decoder"
        first = made["time"].values[0]
        made = made["z500"].isel(time=0).values
    given = sciwm.load(rival.path).forecast(ds, init_times=[first], readout="decoder")
    got = given["z500"].isel(init_time=0).transpose("lead_time", "latitude", "longitude")
    assert abs(got.values - made).max() < 1e-3 * abs(made).max()
    # Later settings make new readouts and rows, not new weights.
    before = rival.weights_file.stat().st_mtime_ns
    later = with_rivals(tmp_path, "--probe.halo=1")
    changed = open_run(run.path, later)
    verbs.run_all(changed, later)
    assert rival.weights_file.stat().st_mtime_ns == before
    assert sciwm.load(rival.path).readouts["residual"].halo == 1
    assert paced == ["convnet"]


def test_without_rivals_their_rows_go_and_the_weights_stay(tmp_path, paced):
    config = with_rivals(tmp_path)
    run = open_run(tmp_path / "run", config)
    for stage in (verbs.prepare, verbs.train, verbs.probe, verbs.forecast):
        stage(run, config)
    weights = run.weights_file.stat().st_mtime_ns
    assert (run.forecasts_folder / "convnet.zarr").exists()
    none = with_rivals(tmp_path, "--train.rivals=[]")
    again = open_run(run.path, none)
    for stage in (verbs.prepare, verbs.train, verbs.probe, verbs.forecast):
        stage(again, none)
    assert run.weights_file.stat().st_mtime_ns == weights
    assert not list(run.forecasts_folder.glob("convnet*"))


@pytest.mark.parametrize(
    ("cores", "threads", "beside"), [(2, 1, True), (1, 1, False), (2, 2, False)]
)
def test_a_rival_trains_in_a_process_of_its_own_where_it_is_not_in_the_way(
    tmp_path, paced, monkeypatch, cores, threads, beside
):
    started = []

    class Process(subprocess.Popen):
        def __init__(self, command, **options):
            trains = command[1:3] == ["-m", "sciwm"]
            started.extend([command[1:]] if trains else [])
            super().__init__(["true"] if trains else command, **options)

    monkeypatch.setattr(rivals.subprocess, "Popen", Process)
    monkeypatch.setattr(rivals, "_cores", lambda: cores)
    monkeypatch.setattr("sciwm.run.stages.torch.set_num_threads", lambda number: None)
    config = with_rivals(tmp_path, f"--train.threads={threads}")
    run = open_run(tmp_path / "run", config)
    verbs.prepare(run, config)
    verbs.train(run, config)
    path = str(run.path / "rivals" / "convnet")
    assert started == ([["-m", "sciwm", "train", path]] if beside else [])
    verbs.probe(run, config)  # what was not trained beside is trained now
    assert (run.path / "rivals" / "convnet" / "probes.safetensors").exists()


def test_a_molecule_has_no_convolutional_rival(tmp_path, paced, capsys):
    """Not in its run, which asks for one by default, nor in a comparison."""
    overrides = [o for o in molecule(tmp_path) if not o.startswith("--train.rivals")]
    config = load_config("", overrides)
    assert config.train.rivals == ["convnet"]
    run = open_run(tmp_path / "run", config)
    for stage in (verbs.prepare, verbs.train, verbs.probe):
        stage(run, config)
    assert rivals_of(run, config) == []
    assert not (run.path / "rivals").exists()
    with pytest.raises(ValueError, match=r"got methods \['convnet'\] for a molecule"):
        compare(config, out=tmp_path / "none", seeds=[0], methods=["convnet"])
    frame = compare(config, out=tmp_path / "out", seeds=[0], methods=["random", "convnet"])
    assert "convnet is left out" in capsys.readouterr().out
    assert "convnet" not in {*frame["method"]}


def test_a_method_is_no_rival_of_its_own(tmp_path, paced):
    config = with_rivals(tmp_path, "--objective.kind=convnet", "--train.rivals=[convnet,whitened]")
    run = open_run(tmp_path / "run", config)
    verbs.prepare(run, config)
    assert rivals_of(run, config) == ["whitened"]


def test_an_unknown_rival_is_refused():
    with pytest.raises(ConfigError, match=r"got train\.rivals = \['unet'\], expected some of sig"):
        load_config("", ["--train.rivals=[unet]"])
