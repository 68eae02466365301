"""The command line: what reaches the verbs, how errors and Ctrl-C are told.

The verbs themselves are replaced.
"""

import importlib
import inspect
import runpy
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import sciwm
from sciwm import run
from sciwm.arguments import build_parser, parse_init, split_overrides
from sciwm.cli import main
from sciwm.config import load_config
from sciwm.run.directory import RunDir, open_run
from sciwm.verify import Asked

VERBS = ["demo", "check", "prepare", "train", "probe", "forecast", "evaluate", "baselines"]
VERBS += ["simulate", "report", "run", "compare", "data"]


def called(line):
    """The command line of a command as one writes it."""
    return main(shlex.split(line))


class Recorder(ModuleType):
    """A module whose every function notes its arguments; ``answers`` are returned or raised."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []
        self.answers = {}

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            answer = self.answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            if callable(answer):
                return answer()
            return answer

        return call


@pytest.fixture
def verbs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recorder = Recorder("sciwm.run.verbs")
    monkeypatch.setitem(sys.modules, "sciwm.run.verbs", recorder)
    monkeypatch.setattr(run, "verbs", recorder, raising=False)
    return recorder


@pytest.fixture
def catalogue(monkeypatch, tmp_path):
    module = ModuleType("sciwm.catalogue")
    shipped = tmp_path / "shipped" / "tiny.yaml"
    shipped.parent.mkdir()
    shipped.write_text("train: {steps: 5}\n")
    columns = ("name", "what", "size", "licence", "origin", "how_to_get", "verbs")
    era = ("era", "reanalysis", "8 MB", "ECMWF", "ECMWF", "from ECMWF", ["open"])
    qg = ("qg", "turbulence", "41 MB", "free", "here", "make it", ["make"])
    module.table = lambda: [dict(zip(columns, row, strict=True)) for row in (era, qg)]

    def config_path(name):
        if name != "tiny":
            raise FileNotFoundError(2, "expected a file or one of tiny", name)
        return shipped

    module.config_path = config_path
    monkeypatch.setitem(sys.modules, "sciwm.catalogue", module)
    monkeypatch.setattr(sciwm, "catalogue", module, raising=False)
    return module


@pytest.fixture
def era(verbs, catalogue, tmp_path):
    """A run of ``train.steps = 20`` in ``runs/era``."""
    run = open_run(Path("runs/era"), load_config("train: {steps: 20}\n"))
    run.train_store.mkdir()
    return run


def test_the_overview_lists_every_verb(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.partition("VERB\n")[2].splitlines()
    assert [line.split()[0] for line in lines if line.startswith("    ")] == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    text = capsys.readouterr().out
    assert f"example:\n  sciwm {verb}" in text
    example = shlex.split(text.partition("example:\n  sciwm ")[2].splitlines()[0])
    arguments, overrides = split_overrides(example)
    assert build_parser().parse_args(arguments).verb == verb
    load_config("", overrides)


@pytest.mark.parametrize(
    "verb", ["prepare", "train", "probe", "forecast", "evaluate", "simulate", "report", "run"]
)
def test_a_stage_gets_the_run_and_its_configuration(verb, verbs, catalogue, tmp_path):
    Path("mine.yaml").write_text("train: {clip: 2.0}\n")
    assert main([verb, "--train.steps", "7", "mine.yaml", "--seed=3"]) == 0
    ((name, (run, config), _),) = verbs.calls
    assert (name, run) == ("run_all" if verb == "run" else verb, RunDir(Path("runs/mine")))
    assert (config.train.steps, config.train.clip, config.seed) == (7, 2.0, 3)
    assert run.read_config() == config


def test_a_profile_instead_of_a_training(era, verbs):
    before = (era.path / "config.yaml").read_text()
    assert main(["train", "runs/era", "--profile", "--train.batch_size=128"]) == 0
    ((name, (run, config), _),) = verbs.calls
    # Other settings than the run's.
    assert (name, run, config.train.batch_size) == ("profile", era, 128)
    assert (era.path / "config.yaml").read_text() == before


@pytest.mark.parametrize("verb", ["prepare", "run"])
def test_where_dask_works_reaches_the_verb(verb, era, verbs, capsys):
    for flags, expected in [
        ([], {"scheduler": None, "workers": 0}),
        (["--workers", "3"], {"scheduler": None, "workers": 3}),
        (["--scheduler=tcp://h:8786"], {"scheduler": "tcp://h:8786", "workers": 0}),
    ]:
        assert main([verb, "runs/era", *flags]) == 0
        assert verbs.calls[-1][2] == expected
    for flags, message in [
        (["--workers", "0"], "at least 1"),
        (["--workers=2", "--scheduler=tcp://h:1"], "not allowed with"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            main([verb, "runs/era", *flags])
        assert message in capsys.readouterr().err


def test_a_run_directory_brings_its_own_configuration(era, verbs):
    assert main(["train", "runs/era"]) == 0
    assert verbs.calls == [("train", (era, load_config("train: {steps: 20}\n")), {})]


def test_a_named_configuration_and_another_folder(verbs, catalogue):
    assert main(["run", "tiny", "--out", "elsewhere"]) == 0
    _, (run, config), _ = verbs.calls[0]
    assert run.path == Path("elsewhere")
    assert config.train.steps == 5


def test_a_run_of_another_configuration_is_refused(era, verbs, capsys):
    assert main(["train", "runs/era", "--train.steps=30"]) == 2
    message = capsys.readouterr().err
    assert "train.steps = 30 (there: 20)" in message
    assert "Traceback" not in message
    assert verbs.calls == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run tiny --train.step=3", "did you mean 'train.steps'?"),
        ("run tiny --steps=3", "did you mean 'train.steps'?"),
        ("run tiny --train.steps --out x", "got --train.steps without a value"),
        ("run nowhere", "expected a file or one of tiny: 'nowhere'"),
        ("train shipped", "a folder with tiny.yaml in it, expected a run"),
        ("forecast runs/era --init 2008:2009", "without --store"),
        (
            "forecast runs/era --members 16",
            "members of a run's own forecasts are --forecast.members",
        ),
        ("forecast runs/era --store a.nc", "got --store without --init or --out"),
        ("forecast runs/era --store a.nc --init soon --out fc.zarr", "got --init 'soon'"),
        ("forecast runs/era --store a.nc --init 2008:2009 --out fc.zarr --seed=2", "expected none"),
        (
            "evaluate runs/era --out skill.csv",
            "the table is runs/era/skill.csv, and --out belongs with --truth",
        ),
        ("forecast runs/era --out fc.zarr", "--out belongs with --store"),
        ("train runs/era --out x", "of the same configuration, give runs/era/config.yaml"),
        ("evaluate fc.zarr", "without --truth"),
        ("evaluate runs/era more", "without --truth"),
        ("evaluate runs/era --regrid", "got --regrid without --truth"),
        ("train runs/era --allow-leakage", "got key 'allow-leakage'"),
        (
            "evaluate fc.zarr --truth a.nc --reference runs/era --train 2000:2001",
            "expected one of them",
        ),
        ("evaluate fc.zarr --truth a.nc --skill.resamples=1", "say --metrics"),
        (
            "evaluate fc.zarr --truth a.nc --reference runs/era --report r.html",
            "got --report with --reference",
        ),
        ("evaluate fc.zarr --truth a.nc --train '2000:2001:1 day'", "with a step"),
        ("evaluate fc.zarr --truth a.nc --train summer", "got --train 'summer'"),
        ("baselines a.nc --train 2000:2001", "got no --init and no --lead-times and no --out"),
        ("data get", "got data set None to get, expected one of era, qg"),
        ("data make qq", "got data set 'qq' to make, expected one of era, qg"),
        ("data make era", "not simulated here: from ECMWF"),
    ],
)
def test_wrong_requests_are_one_message_and_exit_2(line, message, era, verbs, capsys):
    assert called(line) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert verbs.calls == []


def test_abbreviated_options_are_refused(era, verbs, capsys):
    assert main(["train", "runs/era", "--ou", "x"]) == 2
    assert "got key 'ou'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--qui"])
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--train.steps=3"])
    assert "sciwm demo` takes no configuration" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["trian", "runs/era"])


def test_forecasting_another_store(era, verbs):
    line = "forecast runs/era --store a.nc --init '2008-01-01:2008-02-01:5 days' --out fc.zarr"
    assert called(line) == 0
    expected = {
        "store": "a.nc",
        "init": ("2008-01-01", "2008-02-01", "5 days"),
        "out": Path("fc.zarr"),
        "lead_times": None,
        "members": 0,
    }
    assert verbs.calls.pop() == ("forecast_store", (era,), expected)
    more = "--lead-times '1 day, 5 days' --store a.nc b.nc --members 16"
    assert called(f"{line} {more}") == 0
    assert verbs.calls.pop()[2] == expected | {
        "store": ["a.nc", "b.nc"],
        "lead_times": ["1 day", "5 days"],
        "members": 16,
    }


def test_evaluating_stores(era, verbs, monkeypatch):
    assert called("evaluate a.zarr b.zarr --truth t.nc --reference runs/era") == 0
    common = {
        "truth": "t.nc",
        "out": Path("skill.csv"),
        "asked": Asked(),
    }
    stores = ["a.zarr", "b.zarr"]
    assert verbs.calls.pop() == ("evaluate_store", (stores,), common | {"reference": era})
    monkeypatch.setattr(
        "sciwm.verify.evaluate_forecasts",
        lambda *a, **k: verbs.calls.append(("evaluate_forecasts", a, k)),
    )
    assert called("evaluate a.zarr --truth t.nc") == 0
    assert verbs.calls.pop() == ("evaluate_forecasts", (["a.zarr"],), common | {"report": None})
    for flags, method in (("--regrid", "linear"), ("--regrid conservative", "conservative")):
        for more, rest in (("", {"report": None}), ("--reference runs/era", {"reference": era})):
            assert called(f"evaluate a.zarr --truth t.nc {flags} {more}") == 0
            assert verbs.calls.pop()[2] == common | {"asked": Asked(regrid=method)} | rest
    options = "--train 2000:2006 --validation 2007:2007 --metrics 'rmse, acc' --baselines lim"
    options += " --regions 'tropics; n:20,90,0,360' --events 't850>285; tp>0.001' --mask m.nc"
    options += " --allow-leakage --out s.csv --report r.html"
    assert called(f"evaluate a.zarr --truth t.nc {options}") == 0
    assert verbs.calls.pop()[2] == {
        "truth": "t.nc",
        "out": Path("s.csv"),
        "train": ("2000", "2006"),
        "validation": ("2007", "2007"),
        "asked": Asked(
            metrics=("rmse", "acc"),
            regions=("tropics", "n:20,90,0,360"),
            events=("t850>285", "tp>0.001"),
            mask="m.nc",
            baselines=("lim",),
            allow_leakage=True,
        ),
        "report": Path("r.html"),
    }


def test_baselines(monkeypatch):
    calls = []
    monkeypatch.setattr("sciwm.verify.write_baselines", lambda *a, **k: calls.append((a, k)))
    times = "--train 2000:2006 --init '2008-01-01:2008-12-31:5 days' --lead-times '1 day, 3 days'"
    assert called(f"baselines t.nc {times} --out b --methods lim") == 0
    expected = {
        "train": ("2000", "2006"),
        "init": ("2008-01-01", "2008-12-31", "5 days"),
        "lead_times": ["1 day", "3 days"],
        "out": Path("b"),
        "methods": ["lim"],
    }
    assert calls == [(("t.nc",), expected)]


def test_demo_and_check(era, verbs, capsys):
    assert main(["demo"]) == 0
    assert main(["demo", "--quick", "--out", "d"]) == 0
    assert main(["demo", "--quick"]) == 0
    asked = [("runs/demo", False), ("d", True), ("runs/demo_quick", True)]
    assert verbs.calls == [("demo", (Path(out),), {"quick": quick}) for out, quick in asked]
    verbs.answers["check"] = []
    assert main(["check", "tiny"]) == 0
    verbs.answers["check"] = ["got variable 'z50', expected one of z500"]
    assert main(["check", "tiny", "--seed=2"]) == 2
    assert "got variable 'z50'" in capsys.readouterr().err
    assert verbs.calls[-1] == ("check", (load_config("train: {steps: 5}\n", ["--seed=2"]),), {})
    assert not Path("runs/tiny").exists()


def test_leakage_that_is_allowed_is_kept_in_the_configuration_of_a_run(era, verbs):
    assert main(["evaluate", "runs/era", "--allow-leakage"]) == 0
    config = load_config("train: {steps: 20}\nskill: {allow_leakage: true}\n")
    assert verbs.calls[-1] == ("evaluate", (era, config), {})
    for verb in ("check", "run"):
        verbs.answers["check"] = []
        assert main([verb, "tiny", "--allow-leakage"]) == 0
        assert next(c for c in verbs.calls[-1][1] if hasattr(c, "skill")).skill.allow_leakage
        assert main([verb, "tiny"] + ["--out", "elsewhere"] * (verb == "run")) == 0
        assert not next(c for c in verbs.calls[-1][1] if hasattr(c, "skill")).skill.allow_leakage


def test_comparing(era, verbs, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr("sciwm.run.compare.compare", lambda *a, **k: calls.append((a, k)))
    everyone = ["jepa", "supervised", "masked_autoencoder", "autoencoder", "random"]
    asked = {
        "out": Path("runs/tiny_compare"),
        "seeds": [0, 1, 2],
        "methods": everyone,
        "split": "test",
    }
    assert main(["compare", "tiny", "--train.steps=3"]) == 0
    assert calls.pop() == ((load_config("train: {steps: 3}\n"),), asked)
    options = "--seeds '4, 2' --methods jepa,random --split validation --out c"
    assert called(f"compare tiny {options}") == 0
    assert calls.pop()[1] == {
        "out": Path("c"),
        "seeds": [4, 2],
        "methods": ["jepa", "random"],
        "split": "validation",
    }
    assert main(["compare", "tiny", "--seeds", "one"]) == 2
    assert "got --seeds 'one'" in capsys.readouterr().err


def test_data_lists_makes_and_says_where_from(verbs, catalogue, capsys):
    made = []
    catalogue.load = lambda name: SimpleNamespace(make=lambda *, path: made.append((name, path)))
    assert main(["data", "list"]) == 0
    assert {"era", "qg", "reanalysis", "turbulence"} <= set(capsys.readouterr().out.split())
    assert main(["data", "get", "era"]) == 0
    assert "from ECMWF" in capsys.readouterr().out
    assert main(["data", "make", "qg"]) == 0
    assert capsys.readouterr().out == "wrote qg.nc\n"
    assert main(["data", "make", "qg", "--out", "there.zarr"]) == 0
    assert made == [("qg", Path("qg.nc")), ("qg", Path("there.zarr"))]
    Path("qg.nc").touch()
    assert main(["data", "make", "qg"]) == 2
    assert "qg.nc, which exists already" in capsys.readouterr().err
    assert len(made) == 2


def test_ctrl_c_says_how_to_go_on(era, verbs, capsys):
    verbs.answers["train"] = KeyboardInterrupt()
    assert main(["train", "runs/era"]) == 130
    assert "continue with: sciwm train runs/era" in capsys.readouterr().err


def test_ctrl_c_that_lightning_turned_into_an_exit(era, verbs, capsys):
    stop = SystemExit(1)
    stop.__context__ = KeyboardInterrupt()
    verbs.answers["train"] = stop
    assert main(["train", "runs/era"]) == 130
    verbs.answers["train"] = SystemExit(1)
    with pytest.raises(SystemExit):
        main(["train", "runs/era"])


def test_errors_of_others_keep_their_traceback(era, verbs):
    verbs.answers["train"] = ValueError("deep inside a library")
    with pytest.raises(ValueError, match="deep inside"):
        main(["train", "runs/era"])


def test_a_flow_that_blows_up_is_told_plainly(verbs, capsys):
    qg = importlib.import_module("sciwm.catalogue").load("qg")
    fast = qg.Flow(time_step=86400.0)
    short = {"num_members": 1, "num_times": 60, "spinup_days": 0, "progress": False}
    verbs.answers["demo"] = lambda: qg.make(flow=fast, **short)
    assert main(["demo"]) == 2
    error = capsys.readouterr().err
    assert "expected a shorter `time_step`" in error
    assert "Traceback" not in error


def test_file_errors_of_libraries_are_told_plainly(era, verbs, capsys):
    verbs.answers["train"] = PermissionError(13, "Permission denied", "runs/era/train.zarr")
    assert main(["train", "runs/era"]) == 2
    assert "Permission denied: 'runs/era/train.zarr'" in capsys.readouterr().err


def test_traceback_on_request(era, verbs):
    for line in ("train runs/era --seed=9 --traceback", "--traceback train runs/era --seed=9"):
        with pytest.raises(ValueError, match="seed = 9"):
            called(line)


def test_messages_keep_brackets_and_length(era, verbs, capsys):
    assert main(["train", "runs/era", "--objective.lead_steps=[0]"]) == 2
    message = "got objective.lead_steps = [0], expected a list of positive counts of time steps\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2008-01-01:2008-12-31", ("2008-01-01", "2008-12-31", None)),
        ("2008-01-01:2008-12-31:5 days", ("2008-01-01", "2008-12-31", "5 days")),
        (
            "2008-01-01T12:00:2008-02-01T12:00:5 days",
            ("2008-01-01T12:00", "2008-02-01T12:00", "5 days"),
        ),
        (
            "2008-01-01T12:00:2008-02-01T12:00:10 days",
            ("2008-01-01T12:00", "2008-02-01T12:00", "10 days"),
        ),
        (
            "2008-01-01T12:00:30:2008-02-01T12:00:30",
            ("2008-01-01T12:00:30", "2008-02-01T12:00:30", None),
        ),
        ("2008-01-01 12:00:2008-02-01 06:00:6h", ("2008-01-01 12:00", "2008-02-01 06:00", "6h")),
        ("2008-01-01T12/2008-02-01T12/1 day", ("2008-01-01T12", "2008-02-01T12", "1 day")),
        ("2008-01/2009-12", ("2008-01", "2009-12", None)),
        ("0:1000:10 ps", ("0", "1000", "10 ps")),
        ("0.5/99.5/0.5ps", ("0.5", "99.5", "0.5ps")),
        ("1850-01:1950-12:3 months", ("1850-01", "1950-12", "3 months")),
    ],
)
def test_initial_times(text, expected):
    assert parse_init(text) == expected


@pytest.mark.parametrize(
    "text", ["", "2008-01-01", "2008-01-01:", "a:b", "a/b", "2008:2009:5", "2008/2009/1 d/3"]
)
def test_initial_times_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=r"expected START:END or START:END:STEP"):
        parse_init(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2009-13-01:2010-01-01", "'2009-13-01' in --init .* no date of any calendar"),
        ("2009-01-01/2009-02-31/1 day", "'2009-02-31'"),
        ("2009-00:2009-05", "'2009-00'"),
        ("2009-01-01T25:2009-02-01", "'2009-01-01T25'"),
        ("2009-01-01T12:61/2009-02-01", "'2009-01-01T12:61'"),
        ("2009-01-01:2009-02-01:0 days", "with a step of 0 days, expected a positive one"),
        ("2009-01-01:2009-02-01:0.0h", "with a step of 0.0h"),
        ("2009-01-01:2009-02-01:2 fortnights", "got lead time '2 fortnights'.*the step of --init"),
        ("2009-01-01:2009-02-01:1.2.3 days", "expected START:END or START:END:STEP"),
    ],
)
def test_initial_times_that_cannot_be(text, message):
    with pytest.raises(ValueError, match=message):
        parse_init(text)
    assert parse_init("2000-02-30:-2000-12-01:0.5 days")[2] == "0.5 days"


def test_python_dash_m(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sciwm", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("sciwm", run_name="__main__")
    assert capsys.readouterr().out == f"sciwm {sciwm.__version__}\n"


def test_the_verbs_take_what_the_command_line_gives():
    module = pytest.importorskip("sciwm.run.verbs")

    def takes(name, *args, **kwargs):
        inspect.signature(getattr(module, name)).bind(*args, **kwargs)

    for name in ("prepare", "run_all"):
        takes(name, "run", "config", scheduler="tcp://h:1", workers=0)
    stages = ("prepare", "train", "probe", "forecast", "evaluate", "simulate", "report", "run_all")
    for name in stages:
        takes(name, "run", "config")
    takes("check", "config")
    takes("demo", "out", quick=True)
    data = {"store": "s", "init": ("a", "b", None), "out": "o"}
    takes("forecast_store", "run", **data, lead_times=None, members=0)
    takes("evaluate_store", ["fc"], truth="t", reference="r", out="o")
