"""The import rule of docs/architecture.md, read from the sources, and what `import sciwm` brings in."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sciwm

PACKAGE = Path(sciwm.__file__).parent
CHAIN = ["chunks", "data", "store", "streams"]  # each may import those before it
APART = {*CHAIN, "tokens", "model", "skill"}
NEUTRAL = {"batch", "times", "climatology", "moments", "testing", "atomic", "regions"}
HEAVY = {"torch", "lightning", "xarray", "dask", "numpy", "pandas", "matplotlib"}


def imported(source: str, module: str) -> set[str]:
    """Absolute names of all modules a source imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def violations(source: str, module: str) -> list[str]:
    """Imports that the rule forbids in ``module`` (dotted, e.g. ``sciwm.skill.table``)."""
    parts = module.split(".")
    part = parts[1] if len(parts) > 1 else ""
    wrong = []
    for name in sorted(imported(source, module)):
        top, *rest = name.split(".")
        inner = rest[0] if rest else ""
        below = set(CHAIN[: CHAIN.index(part)]) if part in CHAIN else set()
        if part in APART and top == "sciwm" and inner in APART - {part} - below:
            wrong.append(
                f"{module} imports {name}: chunks, data, store, streams go one way; tokens, model"
                " and skill never import each other"
            )
        if part in NEUTRAL and top == "sciwm" and inner and inner not in NEUTRAL:
            wrong.append(f"{module} imports {name}: neutral modules import only each other")
        if part == "skill" and top in {"torch", "lightning"}:
            wrong.append(f"{module} imports {name}: skill knows nothing of torch")
        if part in {"times", "climatology", "moments", "testing"} and top in {"torch", "lightning"}:
            wrong.append(f"{module} imports {name}: it is free of torch")
        if top in {"lightning", "pytorch_lightning"} and part != "train":
            wrong.append(f"{module} imports {name}: Lightning appears only in train/")
        if top in {"yaml", "jsonargparse"} and module not in {"sciwm.config", "sciwm.cli"}:
            wrong.append(f"{module} imports {name}: only config.py and cli.py touch YAML")
        if (
            part in APART | NEUTRAL
            and top == "sciwm"
            and inner in {"world", "verbs", "cli", "rundir"}
        ):
            wrong.append(f"{module} imports {name}: parts never import what puts them together")
    return wrong


def sources() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        # An __init__ keeps its name here, so that its relative imports resolve like those of its
        # neighbours.
        found.append((".".join(parts), path))
    return found


def test_the_package_keeps_the_import_rule():
    wrong = [
        line
        for module, path in sources()
        for line in violations(path.read_text(encoding="utf-8"), module)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sciwm.streams.windows", "from sciwm.model.jepa import JEPA"),
        ("sciwm.streams.windows", "from sciwm import tokens"),
        ("sciwm.streams.windows", "def f():\n    import sciwm.skill.table"),
        ("sciwm.tokens.grid", "from ..data import windows"),
        ("sciwm.tokens.__init__", "from ..data import windows"),
        ("sciwm.skill.table", "import torch"),
        ("sciwm.skill.table", "from torch import nn"),
        ("sciwm.times", "from sciwm.data import split"),
        ("sciwm.testing", "import torch"),
        ("sciwm.readout.ridge", "import lightning.pytorch as pl"),
        ("sciwm.streams.open", "import lightning"),
        ("sciwm.run.directory", "import yaml"),
        ("sciwm.model.jepa", "from sciwm.world.model import WorldModel"),
    ],
)
def test_a_breach_is_seen(module, source):
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "sciwm.streams.open",
            (
                "from sciwm.batch import Batch\nfrom sciwm.streams.windows import Windows\nimport"
                " torch"
            ),
        ),
        ("sciwm.train.datamodule", "import lightning"),
        ("sciwm.train.module", "import lightning.pytorch as pl"),
        ("sciwm.skill.table", "from . import scores\nfrom sciwm.climatology import Climatology"),
        (
            "sciwm.run.verbs",
            "from sciwm.data import open\nfrom sciwm.skill import table\nimport torch",
        ),
        ("sciwm.config", "import yaml"),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert violations(source, module) == []


DISTRIBUTIONS = {"yaml": "pyyaml", "MDAnalysis": "mdanalysis"}


def test_every_library_imported_is_declared():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    extras = [
        project["optional-dependencies"][name]
        for name in ("grib", "cloud", "md", "regrid", "hub", "maps")
    ]
    declared = {
        re.match(r"[\w-]+", line)[0].lower().replace("_", "-")
        for group in [project["dependencies"], *extras]
        for line in group
    }
    files = [
        *sources(),
        *((f"datasets.{path.stem}", path) for path in (PACKAGE.parent / "datasets").glob("*.py")),
    ]
    missing = set()
    for module, path in files:
        tops = {
            name.partition(".")[0] for name in imported(path.read_text(encoding="utf-8"), module)
        }
        outside = tops - set(sys.stdlib_module_names) - {"sciwm", "datasets"}
        names = {DISTRIBUTIONS.get(top, top).lower().replace("_", "-") for top in outside}
        missing |= {f"{module} imports {name}" for name in names - declared}
    assert not missing, "\n".join(sorted(missing))


def modules_after(*arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter has imported, from its import log."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "sciwm" in names
    return names


def test_import_sciwm_is_light():
    assert not modules_after("-c", "import sciwm; sciwm.__version__; dir(sciwm)") & (
        HEAVY | {"yaml", "jsonargparse", "rich"}
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], []])
def test_the_command_line_answers_without_heavy_imports(arguments):
    assert not modules_after("-m", "sciwm", *arguments) & (HEAVY | {"yaml", "jsonargparse", "rich"})


def test_skill_works_without_torch():
    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['lightning'] = None; import sciwm;"
        " sciwm.skill"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=PACKAGE.parent, check=True)


@pytest.mark.parametrize("name", sciwm.__all__)
def test_every_public_name_is_there(name):
    assert getattr(sciwm, name) is not None
    assert name in dir(sciwm)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        AttributeError, match=r"no attribute 'open_datset', expected one of .*open_dataset"
    ):
        _ = sciwm.open_datset


def test_the_version_is_that_of_the_metadata():
    metadata = pytest.importorskip("importlib.metadata")
    try:
        installed = metadata.version("sciwm")
    except metadata.PackageNotFoundError:
        pytest.skip("run from a source folder that is not installed")
    assert installed == sciwm.__version__
