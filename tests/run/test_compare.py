"""The comparison from data to table: killed, gone on with, and skipped where it is finished."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import sciwm
from sciwm.cli import main
from sciwm.config import Config, dump_config, load_config
from sciwm.run import compare as module
from sciwm.run.compare import METHODS, compare
from sciwm.run.directory import resolve_run
from sciwm.run.rivals import method_config
from sciwm.store.prepare import open_training_store
from sciwm.testing import small_climate
from tests.run.test_tally import COLUMNS

SIZES = {"width": 8, "encoder_width": 8, "predictor_blocks": 1, "patch_size": "[4, 4]"}


def settings(folder, *, steps=6):
    """A configuration of a tiny climate, and its file."""
    path = folder / "climate.nc"
    if not path.exists():
        small_climate(years=3).to_netcdf(path)
    with xr.open_dataset(path) as ds:
        first = int(ds["time"].dt.year[0])
    overrides = [
        f"--data.store={path}",
        f'--data.split.train=["{first}-01-01", "{first}-12-31"]',
        f'--data.split.validation=["{first + 1}-01-01", "{first + 1}-12-31"]',
        f'--data.split.test=["{first + 2}-01-01", "{first + 2}-12-31"]',
        '--forecast.lead_times=["1 day", "3 days"]',
        "--forecast.init_every=6",
        "--data.harmonics=1",
        "--skill.baselines=[persistence,lim]",
        "--skill.lim_eofs=[5]",
        f"--train.steps={steps}",
        "--train.batch_size=8",
        "--objective.rollout=2",
        *(f"--model.{k}={v}" for k, v in SIZES.items()),
    ]
    config = load_config("", overrides)
    (folder / "tiny.yaml").write_text(dump_config(config))
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    config = settings(folder)
    return config, folder / "out", compare(config, out=folder / "out", seeds=[0])


def test_every_method_is_in_the_table(finished):
    _, out, frame = finished
    assert list(frame.columns) == COLUMNS
    pd.testing.assert_frame_equal(
        pd.read_csv(out / "compare.csv", keep_default_na=True).fillna({"readout": ""}),
        frame.fillna({"readout": ""}),
    )
    rmse = frame[frame["metric"] == "rmse"]
    assert set(rmse["method"]) == {*METHODS, "persistence", "lim"}
    assert sorted(rmse["lead_hours"].unique()) == [24, 72]
    residual = rmse[rmse["readout"] == "residual"]
    assert set(residual["labels"]) == {1.0, 0.1, 0.01}
    assert len(residual) == len(METHODS) * 3 * rmse["channel"].nunique() * 2
    decoded = {"supervised", "autoencoder", "convnet"}
    assert set(rmse[rmse["readout"] == "decoder"]["method"]) == decoded
    # Without a network there is one readout for all.
    assert set(rmse[rmse["readout"] == "local_linear"]["method"]) == {"jepa"}
    assert set(rmse[rmse["readout"] == "context"]["method"]) == {*METHODS} - {"masked_autoencoder"}
    for rival in ("supervised", "convnet", "whitened"):
        tested = frame[frame["metric"] == f"p_{rival}"]["method"]
        assert set(tested) == {*METHODS} - {rival}
    assert set(frame[frame["metric"] == "p_lim"]["method"]) == {*METHODS}
    facts = frame[frame["channel"].isna()].pivot(index="method", columns="metric", values="value")
    shared = facts["backbone_parameters"]
    assert shared[["jepa", "supervised", "autoencoder", "random"]].nunique() == 1
    assert shared["masked_autoencoder"] < shared["whitened"] < shared["jepa"]
    assert (facts["train_flops"] > 0).to_dict() == {m: m != "random" for m in METHODS}
    for clock in ("train_seconds", "processor_seconds"):
        assert (facts[clock] > 0).to_dict() == {m: m != "random" for m in METHODS}
    assert facts["effective_rank"].between(1, 32).all()  # as many latents as a patch has cells
    assert np.isfinite(facts["probe_r2"]).all()
    text = (out / "compare.md").read_text()
    assert "| supervised_decoder |" in text
    assert "| masked_autoencoder |" in text


def test_the_scores_are_those_of_the_verbs(finished):
    """The row of the JEPA and of the baselines, as `sciwm evaluate` has them for the same run."""
    _config, out, frame = finished
    run = out / "jepa" / "seed0"
    for verb in ("probe", "forecast", "evaluate"):
        assert main([verb, str(run)]) == 0
    theirs = pd.read_csv(run / "skill.csv")
    theirs = theirs[theirs["metric"] == "rmse"].set_index(["method", "variable", "lead_hours"])[
        "value"
    ]
    rmse = frame[(frame["metric"] == "rmse") & (frame["labels"].isna() | (frame["labels"] == 1))]
    rmse = rmse.set_index(["method", "readout", "channel", "lead_hours"])["value"]
    names = {
        ("jepa", "residual"): "jepa",
        ("jepa", "latent"): "jepa_latent",
        ("jepa", "local_linear"): "local_linear",
        ("random", "residual"): "random_encoder",
        ("lim", ""): "lim",
        ("persistence", ""): "persistence",
    }
    for (method, readout), name in names.items():
        for (variable, lead), value in theirs.loc[name].items():
            assert rmse.loc[(method, readout, variable, lead)] == pytest.approx(value, rel=1e-4)


def test_what_is_finished_is_skipped(finished, monkeypatch):
    config, out, frame = finished
    before = {
        p: p.stat().st_mtime_ns
        for p in out.rglob("*")
        if p.suffix in (".safetensors", ".ckpt") or p.name in ("scores.nc",)
    }
    assert len(before) > 10
    monkeypatch.setattr(module, "_score", lambda *a, **k: pytest.fail("scored again"))
    again = compare(config, out=out, seeds=[0], methods=["jepa", "masked_autoencoder"])
    both = frame[
        frame["method"].isin(["jepa", "masked_autoencoder", "lim"]) & (frame["metric"] == "rmse")
    ]
    got = again[again["method"].isin(both["method"]) & (again["metric"] == "rmse")]
    pd.testing.assert_frame_equal(got.reset_index(drop=True), both.reset_index(drop=True))
    assert before == {p: p.stat().st_mtime_ns for p in before}
    compare(config, out=out, seeds=[0])  # the table of all again


def test_the_validation_block_is_scored_apart(finished, tmp_path):
    """With the same networks, on other initial times; scores of the test block stay."""
    config, out, frame = finished
    files = (
        "compare.csv",
        "compare.md",
        "jepa/seed0/scores.nc",
        "jepa/seed0/model.safetensors",
        "prepared/baselines.nc",
    )
    before = {name: (out / name).stat().st_mtime_ns for name in files}
    (tmp_path / "tiny.yaml").write_text(dump_config(config))
    arguments = [
        "--seeds",
        "0",
        "--methods",
        "jepa,random",
        "--split",
        "validation",
        "--out",
        str(out),
    ]
    assert main(["compare", str(tmp_path / "tiny.yaml"), *arguments]) == 0
    assert before == {name: (out / name).stat().st_mtime_ns for name in files}
    found = pd.read_csv(out / "compare_validation.csv").fillna({"readout": ""})
    columns = ["method", "readout", "labels", "channel", "lead_hours"]
    both = found[found["metric"] == "rmse"].merge(
        frame[frame["metric"] == "rmse"], on=columns, suffixes=("", "_test")
    )
    assert set(both["method"]) == {"jepa", "random", "persistence", "lim"}
    assert (both["value"] != both["value_test"]).all()
    assert (
        (out / "compare_validation.md")
        .read_text()
        .startswith("# Comparison on the validation block\n")
    )
    split = open_training_store(out / "prepared" / "train.zarr")["split"].values
    for name in ("jepa/seed0/scores_validation.nc", "prepared/baselines_validation.nc"):
        with xr.open_dataarray(out / name) as sums:
            assert set(split[sums["init_time"].values]) == {1}
    with xr.open_dataarray(out / "jepa/seed0/scores.nc") as sums:
        assert set(split[sums["init_time"].values]) == {2}


def test_runs_share_one_store_and_can_be_loaded(finished):
    config, out, _ = finished
    stores = {(out / m / "seed0" / "train.zarr").resolve() for m in METHODS}
    assert stores == {(out / "prepared" / "train.zarr").resolve()}
    ds = sciwm.open_dataset(config.data.store)
    for method in METHODS:
        world = sciwm.load(out / method / "seed0")
        assert world.method == ("jepa" if method == "random" else method)
        fc = world.forecast(ds, init_times=ds["time"].values[5:8])
        assert all(bool(np.isfinite(v).all()) for v in fc.data_vars.values())
    decoder = sciwm.load(out / "supervised" / "seed0")
    with pytest.raises(ValueError, match="decoder"):
        sciwm.load(out / "jepa" / "seed0").forecast(ds, readout="decoder")
    # The decoder readout is the head itself.
    state = open_training_store(resolve_run(out / "supervised" / "seed0").train_store)["state"]
    assert (
        decoder.readouts["decoder"].fields[0].weight.shape[1:]
        == decoder.network.objective.head.weight.T.shape
    )
    assert state.sizes["channel"] * 16 == decoder.network.objective.head.out_features


def test_killed_and_gone_on_with(tmp_path):
    """A process is killed while training; the same command ends with the numbers of another."""
    config = settings(tmp_path, steps=60)
    command = [
        sys.executable,
        "-m",
        "sciwm",
        "compare",
        str(tmp_path / "tiny.yaml"),
        "--seeds",
        "1",
        "--methods",
        "supervised",
        "--out",
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }  # as here: sums in other orders end differently
    process = subprocess.Popen(
        [*command, str(tmp_path / "broken")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "broken" / "supervised" / "seed1" / "log.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (log.exists() and '"step": 20' in log.read_text()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "sciwm compare" in errors
    assert not (tmp_path / "broken" / "compare.csv").exists()
    resumed, whole = (
        compare(config, out=tmp_path / name, seeds=[1], methods=["supervised"])
        for name in ("broken", "whole")
    )
    clocks = ["train_seconds", "processor_seconds"]
    compared = [f[~f["metric"].isin(clocks)].reset_index(drop=True) for f in (resumed, whole)]
    pd.testing.assert_frame_equal(*compared, check_exact=True)


def test_methods_differ_in_the_objective_alone():
    config = load_config("objective: {kind: ema, mask_ratio: 0.3}")
    for method in METHODS:
        made = method_config(config, method, 2)
        kind = method if method not in ("jepa", "random") else "ema"
        train = dataclasses.replace(config.train, rivals=[])
        objective = dataclasses.replace(config.objective, kind=kind)
        if method == "convnet":
            train = dataclasses.replace(train, optimizer="adamw")
            assert config.objective.rollout == 4
            objective = dataclasses.replace(objective, rollout=2)
        assert made == dataclasses.replace(config, seed=2, objective=objective, train=train)
    for kind in ("supervised", "whitened"):
        other = load_config(f"objective: {{kind: {kind}}}")
        assert method_config(other, "jepa", 0).objective.kind == "sigreg"
    assert method_config(Config(), "masked_autoencoder", 0).objective.mask_ratio == 0.75


def test_noise_is_left_out_and_that_is_said(tmp_path, capsys):
    config = settings(tmp_path)
    noisy = dataclasses.replace(config, model=dataclasses.replace(config.model, noise_dim=4))
    assert method_config(noisy, "jepa", 0) == method_config(config, "jepa", 0)
    frame = compare(noisy, out=tmp_path / "out", seeds=[0], methods=["random"])
    assert "random" in set(frame["method"])
    assert "model.noise_dim = 4 is left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seeds", "methods", "message"),
    [
        ([0], ["jepa", "mae"], r"got methods \['mae'\]"),
        ([], ["jepa"], "got seeds"),
        ([0, 0], ["jepa"], "each once"),
        ([0], [], "got methods"),
    ],
)
def test_what_cannot_be_compared_is_refused(seeds, methods, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        compare(Config(), out=tmp_path / "out", seeds=seeds, methods=methods)
    assert not (tmp_path / "out").exists()


def test_time_of_a_resumed_training_is_counted_over_all_starts():
    log = [{"seconds": s} for s in (0.1, 2.0, 5.0, 0.5, 3.0)]
    assert module._seconds(log, "seconds") == pytest.approx(8.0)
