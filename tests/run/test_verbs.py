"""The verbs, from data to report, on worlds small enough for a test."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from safetensors.torch import load_file

from sciwm.cli import main
from sciwm.config import ConfigError, load_config
from sciwm.data.layout import to_original
from sciwm.run import verbs
from sciwm.run.directory import open_run, resolve_run
from sciwm.testing import double_well, small_climate, small_months
from sciwm.verify import evaluate_forecasts

COLUMNS = [
    "variable",
    "level",
    "region",
    "lead_hours",
    "method",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "units",
    "num_init",
]
SMALL = [
    "--model.width=8",
    "--model.encoder_width=8",
    "--model.predictor_blocks=1",
    "--objective.rollout=2",
    "--train.rivals=[]",
    "--train.batch_size=8",
    "--skill.resamples=20",
    "--skill.lim_eofs=[5]",
]


def months_config(folder: Path, **changes: str) -> list[str]:
    small_months(years=40).to_netcdf(folder / "months.nc")
    settings = {
        "data.store": str(folder / "months.nc"),
        "data.variables": "[sst]",
        "data.climatology": "monthly",
        "data.missing": "mask",
        "data.split.train": '["1900-01-01", "1925-12-31"]',
        "data.split.validation": '["1926-01-01", "1931-12-31"]',
        "data.split.test": '["1932-01-01", "1939-12-31"]',
        "forecast.lead_times": '["1 month", "3 months"]',
        "train.steps": "4",
    }
    first = int(xr.open_dataset(folder / "months.nc")["time"].dt.year[0])
    shift = dict(settings)
    for key in ("train", "validation", "test"):
        text = shift[f"data.split.{key}"]
        for year in range(1900, 1940):
            text = text.replace(f"{year}-", f"{year - 1900 + first}-")
        shift[f"data.split.{key}"] = text
    return [f"--{k}={v}" for k, v in (shift | changes).items()]


def test_a_run_leaves_everything_it_promises(finished_run):
    names = {p.name for p in finished_run.iterdir()}
    assert {
        "config.yaml",
        "train.zarr",
        "model.safetensors",
        "model.json",
        "checkpoints",
        "probes.safetensors",
        "log.jsonl",
    } <= names
    assert {
        "forecast.zarr",
        "forecasts",
        "skill.nc",
        "skill.csv",
        "report.html",
        "stages.json",
    } <= names
    table = pd.read_csv(finished_run / "skill.csv")
    assert list(table.columns) == COLUMNS
    assert set(table["method"]) == {
        "jepa",
        "jepa_latent",
        "local_linear",
        "random_encoder",
        "climatology",
        "persistence",
        "damped_persistence",
        "lim",
    }
    assert sorted(table["lead_hours"].unique()) == [48, 96, 144, 192, 240]
    # The climatology has no anomaly to correlate with anything.
    assert (
        table["value"]
        .notna()
        .equals((table["method"] != "climatology") | (table["metric"] != "acc"))
    )
    rmse = table[(table["metric"] == "rmse")]
    assert ((rmse["ci_low"] <= rmse["value"]) & (rmse["value"] <= rmse["ci_high"])).mean() > 0.9


def test_the_forecast_store_needs_no_explanation(finished_run):
    with xr.open_zarr(finished_run / "forecast.zarr", decode_timedelta=True) as ds:
        assert {"time", "prediction_timedelta", "latitude", "longitude"} == set(ds["psi1"].dims)
        assert ds["prediction_timedelta"].dtype.kind == "m"
        assert ds["psi1"].attrs["units"]
        assert bool(np.isfinite(ds["psi1"]).all())


def test_a_second_run_does_nothing(finished_run, capsys):
    run = resolve_run(finished_run)
    before = {p: p.stat().st_mtime_ns for p in finished_run.rglob("*") if p.is_file()}
    verbs.run_all(run, run.read_config())
    assert capsys.readouterr().out.count("up to date") >= 5
    assert before == {p: p.stat().st_mtime_ns for p in finished_run.rglob("*") if p.is_file()}


def test_a_profile_writes_nothing(finished_run, capsys):
    run = resolve_run(finished_run)
    before = {p: p.stat().st_mtime_ns for p in finished_run.rglob("*") if p.is_file()}
    verbs.profile(run, run.read_config())
    told = capsys.readouterr().out
    assert "GFLOP in" in told
    assert "of one large matrix product on" in told
    assert before == {p: p.stat().st_mtime_ns for p in finished_run.rglob("*") if p.is_file()}


def test_another_configuration_is_refused(finished_run, capsys):
    before = (finished_run / "config.yaml").read_text()
    with pytest.raises(ConfigError, match=r"train\.steps"):
        open_run(finished_run, load_config(finished_run / "config.yaml", ["--train.steps=7"]))
    assert main(["train", str(finished_run), "--train.steps=7"]) == 2
    assert "train.steps" in capsys.readouterr().err
    assert (finished_run / "config.yaml").read_text() == before


def test_other_latitudes_and_longitudes_give_the_same_scores(tmp_path):
    """A store upside down, with longitudes on 0…360, is forecast and scored like the original."""
    ds = small_climate(years=4)
    first = int(ds["time"].dt.year[0])
    ds.to_netcdf(tmp_path / "a.nc")
    turned = ds.sortby("latitude", ascending=False)
    turned = (
        turned.assign_coords(longitude=turned["longitude"] % 360)
        .sortby("longitude")
        .drop_attrs(deep=False)
    )
    turned = turned.rename(latitude="lat", longitude="lon").transpose("time", "lon", "lat")
    for name in turned.data_vars:
        turned[name].attrs.pop("original", None)
    turned.drop_vars("segment").to_netcdf(tmp_path / "b.nc")
    overrides = [
        f"--data.store={tmp_path / 'a.nc'}",
        f'--data.split.train=["{first}-01-01", "{first + 1}-12-31"]',
        f'--data.split.validation=["{first + 2}-01-01", "{first + 2}-12-31"]',
        f'--data.split.test=["{first + 3}-01-01", "{first + 3}-12-31"]',
        '--forecast.lead_times=["1 day", "2 days"]',
        "--data.harmonics=1",
        "--train.steps=3",
        *SMALL,
    ]
    config = load_config("", overrides)
    run = open_run(tmp_path / "run", config)
    for stage in (verbs.prepare, verbs.train, verbs.probe):
        stage(run, config)
    tables = []
    for name in ("a", "b"):
        init = (f"{first + 3}-02-01", f"{first + 3}-06-30", "2 days")
        out, table = tmp_path / f"{name}.zarr", tmp_path / f"{name}.csv"
        verbs.forecast_store(run, store=str(tmp_path / f"{name}.nc"), init=init, out=out)
        verbs.evaluate_store(
            [str(out)], truth=str(tmp_path / f"{name}.nc"), reference=run, out=table
        )
        tables.append(pd.read_csv(table))
    assert len(tables[0]) > 20
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)
    with xr.open_zarr(tmp_path / "b.zarr") as ds:
        assert {"lat", "lon"} <= set(ds.dims)
        assert ds["lat"][0] > ds["lat"][-1]
        assert float(ds["lon"].min()) >= 0


def test_months_with_land_and_an_index(tmp_path):
    overrides = [
        *months_config(tmp_path),
        "--probe.targets=[box:-10,10,150,220]",
        "--skill.metrics=[rmse,correlation]",
        *SMALL,
    ]
    ds = xr.open_dataset(tmp_path / "months.nc")
    south, north = float(ds["latitude"].min()), float(ds["latitude"].max())
    west, east = float(ds["longitude"].min()), float(ds["longitude"].max())
    overrides = [
        (
            o
            if not o.startswith("--probe.targets")
            else f'--probe.targets=["box:{south},{north},{west},{east}"]'
        )
        for o in overrides
    ]
    config = load_config("", overrides)
    run = open_run(tmp_path / "run", config)
    verbs.run_all(run, config)
    table = pd.read_csv(run.table_file)
    assert sorted(table["lead_months"].unique()) == [1, 3]
    assert set(table["variable"]) == {"sst", "box"}
    with xr.open_zarr(run.forecast_store, decode_timedelta=False) as ds:
        land = np.isnan(ds["sst"]).all(["time", "prediction_timedelta"])
        assert 0 < int(land.sum()) < land.size
        assert bool((np.isnan(ds["sst"]).any(["time", "prediction_timedelta"]) == land).all())
        assert np.isfinite(ds["box"]).all()


def test_a_molecule(tmp_path):
    ds = double_well(num_trajectories=3, num_frames=300)
    paths = []
    for number in range(3):
        part = ds.isel(time=np.flatnonzero(ds["segment"].values == number)).drop_vars("segment")
        paths.append(tmp_path / f"t{number}.nc")
        to_original(part).to_netcdf(paths[-1])
    overrides = [
        f"--data.store={tmp_path / 't*.nc'}",
        "--data.climatology=constant",
        "--data.split.by=segment",
        "--data.split.train=[0]",
        "--data.split.validation=[1]",
        "--data.split.test=[2]",
        "--model.history=1",
        "--objective.rollout=1",
        "--objective.lead_steps=[1,5]",
        "--objective.input_noise=0.01",
        '--forecast.lead_times=["1 ps", "5 ps"]',
        "--probe.targets=[phi,psi]",
        "--skill.metrics=[nmse]",
        "--skill.regions=[all,phi,psi]",
        "--train.steps=3",
        *SMALL,
    ]
    config = load_config("", overrides)
    run = open_run(tmp_path / "run", config)
    verbs.run_all(run, config)
    table = pd.read_csv(run.table_file).set_index(["method", "region", "lead_ps"])
    assert table.loc[("climatology", "all", 1), "value"] == pytest.approx(1.0, abs=1e-6)
    assert table.loc[("jepa", "all", 1), "value"] < 1.0


def test_check_says_what_is_wrong(tmp_path, capsys):
    overrides = months_config(tmp_path)
    assert verbs.check(load_config("", overrides)) == []
    (problem,) = verbs.check(load_config("", [*overrides, "--data.variables=[sts]"]))
    assert "sts" in problem
    assert "sst" in problem.replace("sts", "")
    (problem,) = verbs.check(load_config("", [*overrides, "--data.store=nowhere.nc"]))
    assert "nowhere.nc" in problem


def gapped_config(folder: Path, *, missing: int, test: str = "[2]") -> list[str]:
    """Three pieces of one record, `missing` days apart, that train, choose and are scored."""
    ds = small_climate(years=4).drop_vars("segment")
    starts = [800, 1100]
    keep = np.ones(ds.sizes["time"], bool)
    for start in starts:
        keep[start : start + missing] = False
    ds.isel(time=np.flatnonzero(keep)).to_netcdf(folder / "gapped.nc")
    return [
        f"--data.store={folder / 'gapped.nc'}",
        "--data.segments=true",
        "--data.split.by=segment",
        "--data.split.train=[0]",
        "--data.split.validation=[1]",
        f"--data.split.test={test}",
        '--forecast.lead_times=["1 day", "2 days"]',
        "--data.harmonics=1",
        "--train.steps=3",
        *SMALL,
    ]


def test_pieces_of_one_record_need_a_gap(tmp_path, capsys):
    """The reason comes before any work; with --allow-leakage scores and report say so."""
    overrides = gapped_config(tmp_path, missing=2)
    (problem,) = verbs.check(load_config("", overrides))
    assert "of the validation block" in problem
    assert "of the test block" in problem
    assert "expected a gap of context and longest lead, 3 steps" in problem
    with pytest.raises(ValueError, match="windows that nearly touch are alike"):
        verbs.prepare(
            open_run(tmp_path / "no", load_config("", overrides)), load_config("", overrides)
        )
    config = load_config("", [*overrides, "--skill.allow_leakage=true"])
    capsys.readouterr()
    assert verbs.check(config) == []
    assert "not a fair test: pieces of one record" in " ".join(capsys.readouterr().out.split())
    run = open_run(tmp_path / "run", config)
    verbs.run_all(run, config)
    with xr.open_dataset(run.skill_file) as skill:
        assert "of the test block" in skill.attrs["leakage"]
    assert "Not a fair test: pieces of one record" in run.report_file.read_text()


def test_pieces_far_apart_and_members_need_none(tmp_path):
    overrides = gapped_config(tmp_path, missing=10)
    assert verbs.check(load_config("", overrides)) == []
    members = small_climate(years=2)
    for number in range(3):
        members.drop_vars("segment").to_netcdf(tmp_path / f"m{number}.nc")
    assert verbs.check(load_config("", [*overrides, f"--data.store={tmp_path / 'm*.nc'}"])) == []


def test_overlapping_blocks_are_named(tmp_path):
    first = int(small_months(years=40)["time"].dt.year[0])
    block = f'["{first + 20}-01-01", "{first + 31}-12-31"]'
    (problem,) = verbs.check(
        load_config("", [*months_config(tmp_path), f"--data.split.validation={block}"])
    )
    assert "got train and validation blocks that overlap" in problem


def test_forecasts_say_what_their_model_has_seen(tmp_path):
    """A forecast of training years is refused by its own attributes alone."""
    config = load_config("", [*months_config(tmp_path), *SMALL])
    run = open_run(tmp_path / "run", config)
    for stage in (verbs.prepare, verbs.train, verbs.probe):
        stage(run, config)
    first = int(xr.open_dataset(tmp_path / "months.nc")["time"].dt.year[0])
    out, store = tmp_path / "fc.zarr", str(tmp_path / "months.nc")
    verbs.forecast_store(
        run, store=store, init=(f"{first + 20}-01", f"{first + 20}-12", None), out=out
    )
    with xr.open_zarr(out, decode_timedelta=False) as ds:
        assert ds.attrs["training_period"].startswith(f"{first}-01")
        assert ds.attrs["validation_period"].startswith(f"{first + 26}-")
    with pytest.raises(ValueError, match=r"12 of 12 .* training_period that jepa declares"):
        evaluate_forecasts([str(out)], truth=store, out=tmp_path / "s.csv")


def test_stages_ask_for_the_one_before(tmp_path):
    config = load_config("", months_config(tmp_path))
    run = open_run(tmp_path / "run", config)
    for stage, needed in (
        (verbs.train, "prepare"),
        (verbs.probe, "train"),
        (verbs.forecast, "probe"),
        (verbs.evaluate, "forecast"),
    ):
        with pytest.raises(FileNotFoundError, match=f"sciwm {needed}"):
            stage(run, config)


def test_a_stage_whose_settings_changed_is_made_again_before_the_next(finished_run):
    run = resolve_run(finished_run)
    changed = load_config(finished_run / "config.yaml", ["--skill.resamples=21"])
    with pytest.raises(FileNotFoundError, match="sciwm evaluate"):
        verbs.report(run, changed)


def test_missing_values_need_a_policy(tmp_path):
    config = load_config("", [*months_config(tmp_path), "--data.missing=error"])
    run = open_run(tmp_path / "run", config)
    with pytest.raises(ValueError, match="missing: mask"):
        verbs.prepare(run, config)
    assert not run.train_store.exists()


def test_a_forecast_from_nowhere_is_refused(finished_run, tmp_path):
    run = resolve_run(finished_run)
    with pytest.raises(ValueError, match="no initial time"):
        verbs.forecast_store(
            run,
            store=str(finished_run / "qg.zarr"),
            init=("1800", "1801", None),
            out=tmp_path / "fc.zarr",
        )
    assert not (tmp_path / "fc.zarr").exists()


def test_ctrl_c_and_the_same_command_end_with_the_same_weights(tmp_path):
    """Interrupted by a signal and trained on: bit for bit the weights of an unbroken training."""
    steps = 60
    config = load_config(
        "",
        [
            *months_config(tmp_path, **{"train.steps": str(steps)}),
            "--train.validate_every=30",
            *SMALL,
        ],
    )
    whole, broken = open_run(tmp_path / "whole", config), open_run(tmp_path / "broken", config)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for run in (whole, broken):
        verbs.prepare(run, config)
    command = [sys.executable, "-m", "sciwm", "train"]
    subprocess.run([*command, str(whole.path)], env=environment, check=True, capture_output=True)
    command.append(str(broken.path))
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(r["step"] >= 20 for r in broken.read_log()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "sciwm train" in errors
    assert not broken.weights_file.exists()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    one, other = load_file(whole.weights_file), load_file(broken.weights_file)
    assert one.keys() == other.keys()
    assert all(
        one[k].numpy().tobytes() == other[k].numpy().tobytes() for k in one
    )  # NaN equals NaN


def test_settings_changed_by_hand_do_not_go_on_with_old_checkpoints(tmp_path):
    config = load_config("", [*months_config(tmp_path), *SMALL])
    run = open_run(tmp_path / "run", config)
    verbs.prepare(run, config)
    verbs.train(run, config)
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=6))
    verbs.train(run, changed)
    assert max(r["step"] for r in run.read_log()) == 6
    assert min(r["step"] for r in run.read_log()) == 0


def test_a_baseline_for_months_is_refused_for_days_before_any_work(tmp_path):
    overrides = [*gapped_config(tmp_path, missing=10), "--skill.baselines=[cslim]"]
    (problem,) = verbs.check(load_config("", overrides))
    assert "got skill.baselines with cslim for data in steps of 24 hours" in problem
    assert (
        verbs.check(load_config("", [*months_config(tmp_path), "--skill.baselines=[cslim]"])) == []
    )
