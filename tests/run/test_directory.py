"""Run directories: refusal of mixtures, the log, stages, provenance."""

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sciwm.config import (
    Config,
    ConfigError,
    DataConfig,
    ObjectiveConfig,
    TrainConfig,
    load_config,
)
from sciwm.run import directory as rundir
from sciwm.run.directory import RunDir, hash_inputs, open_run, provenance, resolve_run

SMALL = Config(seed=3, train=TrainConfig(steps=20))


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "runs" / "small", SMALL)


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_run_holds_its_configuration(run):
    assert run.read_config() == SMALL
    assert run.read_config(["--seed=9"]) == replace(SMALL, seed=9)
    assert resolve_run(run.path) == run == open_run(run.path, SMALL)
    assert run.name == "small"


def test_another_configuration_is_refused_and_nothing_is_written(run):
    run.append_log({"step": 1, "split": "train"})
    before = snapshot(run.path)
    other = replace(SMALL, seed=4, train=TrainConfig(steps=30))
    differing = r"seed = 4 \(there: 3\), train\.steps = 30 \(there: 20\);.*--out"
    with pytest.raises(ConfigError, match=differing) as caught:
        open_run(run.path, other)
    assert "clip" not in str(caught.value)
    assert snapshot(run.path) == before


@pytest.mark.parametrize(
    "made", ["train.zarr", ".train.zarr.partial", "checkpoints", "stages.json"]
)
def test_a_configuration_from_which_nothing_was_made_is_replaced(run, made):
    other = replace(SMALL, seed=4, train=TrainConfig(steps=30))
    assert open_run(run.path, other).read_config() == other
    (run.path / made).mkdir()
    with pytest.raises(ConfigError, match=r"seed = 3 \(there: 4\)"):
        open_run(run.path, SMALL)
    assert run.read_config() == other


def test_what_comes_after_training_may_change(run):
    run.train_store.mkdir()
    flags = ["--probe.strengths=[0.5]", "--forecast.init_every=3", "--skill.resamples=7"]
    flags += ["--train.rivals=[]"]
    later = load_config(run.config_file, flags)
    assert open_run(run.path, later).read_config() == later
    assert not list(run.path.glob(".*"))
    other = load_config(run.config_file, ["--skill.resamples=9", "--train.clip=3.0"])
    differing = r"train\.clip = 3\.0 .*skill\.resamples = 9 \(there: 7\)"
    with pytest.raises(ConfigError, match=differing):
        open_run(run.path, other)
    assert run.read_config() == later


def test_a_configuration_that_no_longer_loads_is_refused(run):
    run.config_file.write_text("train: {old_key: 3}\n")
    with pytest.raises(ConfigError, match=r"train\.old_key.*another version of sciwm.*--out"):
        open_run(run.path, SMALL)


def test_a_folder_of_other_things_is_refused(tmp_path):
    for number in range(10):
        (tmp_path / f"letter{number}.txt").write_text("dear")
    before = snapshot(tmp_path)
    with pytest.raises(FileExistsError, match=r"letter0\.txt, .* and 2 more but no config\.yaml"):
        open_run(tmp_path, SMALL)
    with pytest.raises(FileExistsError, match=r"letter1\.txt, a file"):
        open_run(tmp_path / "letter1.txt", SMALL)
    assert snapshot(tmp_path) == before


def test_an_empty_folder_becomes_a_run(tmp_path):
    assert open_run(tmp_path, SMALL).read_config() == SMALL


def test_what_is_not_a_run_is_described(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got .*nowhere, expected the folder of a run"):
        resolve_run(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"a folder with nothing in it"):
        resolve_run(tmp_path)
    (tmp_path / "zarr.json").touch()
    with pytest.raises(FileNotFoundError, match=r"a folder with zarr\.json in it, expected a run"):
        resolve_run(tmp_path)


def test_paths_are_those_of_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text(encoding="utf-8")
    listed = text.partition("## Run directory")[2].partition("`log.jsonl`")[0]
    listed = listed.replace("METHOD.zarr", "").split()
    names = [name.removeprefix("runs/NAME/").rstrip("/") for name in listed]
    attributes = [
        name
        for name, value in vars(RunDir).items()
        if isinstance(value, property) and name.endswith(("file", "store", "folder"))
    ]
    given = {getattr(RunDir(Path()), name).as_posix() for name in attributes}
    assert given == {*names, "stages.json"}


def test_the_log_reads_back(run):
    assert run.read_log() == []
    numbers = {"loss": torch.tensor(0.5), "seconds": np.float32(2)}
    run.append_log({"step": 1, "split": "train", **numbers})
    run.append_log({"step": 1, "split": "validation", "loss": 0.75})
    assert run.read_log() == [
        {"step": 1, "split": "train", "loss": 0.5, "seconds": 2.0},
        {"step": 1, "split": "validation", "loss": 0.75},
    ]


def test_a_torn_last_line_is_passed_over_then_cut_off(run):
    run.append_log({"step": 1, "split": "train"})
    with run.log_file.open("a") as file:
        file.write('{"step": 2, "spl')
    assert [record["step"] for record in run.read_log()] == [1]
    run.append_log({"step": 2, "split": "train"})
    assert [record["step"] for record in run.read_log()] == [1, 2]
    assert all(json.loads(line) for line in run.log_file.read_text().splitlines())


def test_a_log_of_one_torn_line_starts_anew(run):
    run.log_file.write_text('{"step": 1')
    run.append_log({"step": 2, "split": "train"})
    assert run.read_log() == [{"step": 2, "split": "train"}]


def test_a_broken_line_inside_is_named(run):
    run.log_file.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"got 'nonsense\\n' in line 2 of"):
        run.read_log()


def test_steps_done_again_after_resuming_count_once(run):
    for step, loss in [(10, 5.0), (20, 4.0), (30, 3.0), (20, 4.5), (30, 3.5), (40, 2.5)]:
        run.append_log({"step": step, "split": "train", "loss": loss})
    run.append_log({"event": "done"})
    steps = [(record.get("step"), record.get("loss")) for record in run.read_log()]
    assert steps == [(10, 5.0), (20, 4.5), (30, 3.5), (40, 2.5), (None, None)]


def test_a_stage_is_fresh_until_its_inputs_or_outputs_change(run):
    inputs = hash_inputs(SMALL.data, "source")
    assert not run.is_fresh("prepare", inputs)
    run.train_store.mkdir()
    run.record_stage("prepare", inputs, [run.train_store])
    run.weights_file.touch()
    run.record_stage("train", "abc", [run.weights_file])
    assert run.is_fresh("prepare", inputs)
    assert run.is_fresh("train", "abc")
    assert not run.is_fresh("prepare", hash_inputs(SMALL.data, "other source"))
    run.train_store.rmdir()
    assert not run.is_fresh("prepare", inputs)
    assert run.is_fresh("train", "abc")


def test_stages_survive_moving_the_run(run, tmp_path):
    run.train_store.mkdir()
    run.record_stage("prepare", "abc", [run.train_store])
    moved = RunDir(run.path.rename(tmp_path / "moved"))
    assert moved.is_fresh("prepare", "abc")


def test_a_stage_without_its_output_is_not_recorded(run):
    with pytest.raises(FileNotFoundError, match=r"report\.html after stage 'report'"):
        run.record_stage("report", "abc", [run.report_file])
    assert not run.stages_file.exists()


def test_hashes_tell_values_apart_and_ignore_order():
    assert hash_inputs({"a": 1, "b": [1, 2]}) == hash_inputs({"b": [1, 2], "a": 1})
    different = [(1,), ("1",), (1, 2), ([1, 2],), (SMALL,), (replace(SMALL, seed=4),)]
    different += [(Path("a"),), (None,), ()]
    assert len({hash_inputs(*parts) for parts in different}) == len(different)
    assert hash_inputs(Path("a")) == hash_inputs("a")
    later = ("anchor", "curriculum")  # keys that were added
    before = hash_inputs({k: v for k, v in asdict(ObjectiveConfig()).items() if k not in later})
    assert hash_inputs(ObjectiveConfig()) == before
    assert hash_inputs(ObjectiveConfig(anchor=0.5)) != before
    data = {k: v for k, v in asdict(DataConfig()).items() if k != "climatology_pool"}
    assert hash_inputs(DataConfig()) == hash_inputs(data)
    assert hash_inputs(DataConfig(climatology_pool="domain")) != hash_inputs(data)
    with pytest.raises(TypeError, match="got object to hash"):
        hash_inputs(object())


def test_provenance_names_versions_and_commit(tmp_path, monkeypatch):
    where = provenance()
    assert where["torch"] == torch.__version__
    assert where["numpy"] == np.__version__
    assert json.loads(json.dumps(where)) == where
    monkeypatch.setattr(rundir, "_PACKAGES", ("no-such-package",))
    assert "no-such-package" not in provenance()


def test_the_commit_is_that_of_the_clone(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert rundir._commit(tmp_path) is None
    git("init", "-q")
    assert rundir._commit(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "first")
    assert rundir._commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert rundir._commit(tmp_path) == git("rev-parse", "HEAD") + "-dirty"
