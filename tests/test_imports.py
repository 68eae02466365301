"""The import rules of docs/architecture.md, and what `import sciwm` brings in."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sciwm

PACKAGE = Path(sciwm.__file__).parent
# Modules that anything may import; they import only each other.
NEUTRAL = {
    *("times", "climatology", "moments", "batch", "regions", "atomic", "sections", "testing"),
}
# Every other part, and the parts it may import: nothing imports upward.
MAY_IMPORT = {
    "chunks": set(),
    "data": {"chunks"},
    "store": {"chunks", "data"},
    "streams": {"chunks", "data", "store"},
    "tokens": set(),
    "model": {"tokens"},  # the record between them
    "skill": set(),
    "report": {"skill"},
    "readout": {"tokens"},
    "world": {"tokens", "model", "store", "readout"},
    "probe": {"tokens", "model", "store", "readout", "world"},
    "train": {"tokens", "model", "data", "store", "streams", "readout", "world", "probe"},
    "catalogue": set(),
    "cluster": set(),
    "arguments": set(),
    "config": set(),
    "verify": {"data", "skill", "report"},
}
MAY_IMPORT["run"] = {*MAY_IMPORT}
MAY_IMPORT["cli"] = {*MAY_IMPORT}
WITHOUT_TORCH = {
    "skill",
    "report",
    "verify",
    "data",
    "chunks",
    "config",
    "cli",
    *NEUTRAL - {"batch"},
}
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
    """Imports that the rules forbid in ``module`` (dotted, e.g. ``sciwm.skill.table``)."""
    parts = module.split(".")
    part = parts[1] if len(parts) > 1 else ""
    known = {*MAY_IMPORT, *NEUTRAL}
    allowed = known if part not in known else {part, *NEUTRAL, *MAY_IMPORT.get(part, set())}
    wrong = []
    for name in sorted(imported(source, module)):
        top, *rest = name.split(".")
        inner = rest[0] if rest else ""
        if top == "sciwm" and inner in known - allowed:
            wrong.append(f"{module} imports {name}: {part} may import {sorted(allowed - {part})}")
        if top in {"torch", "lightning"} and part in WITHOUT_TORCH:
            wrong.append(f"{module} imports {name}: {part} is free of torch")
        if top in {"lightning", "pytorch_lightning"} and part != "train":
            wrong.append(f"{module} imports {name}: Lightning appears only in train/")
        if top in {"yaml", "jsonargparse"} and module not in {"sciwm.config", "sciwm.cli"}:
            wrong.append(f"{module} imports {name}: only config.py and cli.py touch YAML")
    return wrong


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty if there is none."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def edges() -> dict[str, set[str]]:
    """What every module of the package imports of it, wherever in the file; but ``__version__``."""
    names = {name.removesuffix(".__init__") for name, _ in sources()}

    def home(name: str) -> str:
        while name not in names:
            name = name.rpartition(".")[0]
        return name

    found = {}
    for module, path in sources():
        own = module.removesuffix(".__init__")
        inside = imported(path.read_text(encoding="utf-8"), module)
        inside = {name for name in inside if name.split(".")[0] == "sciwm"}
        # `from package import module` gives both names: the shorter one counts where it is all.
        whole = {n for n in inside if not any(other.startswith(f"{n}.") for other in inside)}
        found[own] = {home(n) for n in whole | (inside - names)} - {own, "sciwm"}
    return found


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


def test_every_part_has_a_rule():
    parts = {module.split(".")[1] for module, _ in sources() if module.count(".")}
    assert parts - {"__init__", "__main__"} == {*MAY_IMPORT, *NEUTRAL}


def test_the_rules_go_one_way():
    assert circle({part: below - {part} for part, below in MAY_IMPORT.items()}) == []


def test_nothing_imports_in_a_circle():
    assert circle(edges()) == []


def test_a_circle_is_seen():
    found = edges()
    assert "sciwm.world.core" in found["sciwm.world.model"]
    found["sciwm.world.core"].add("sciwm.world.model")
    assert {"sciwm.world.core", "sciwm.world.model"} <= set(circle(found))


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
        ("sciwm.store.write", "from sciwm.streams import windows"),
        ("sciwm.chunks.fetch", "from sciwm.data.read import read"),
        ("sciwm.skill.table", "from sciwm.report.page import write_report"),
        ("sciwm.report.page", "import torch"),
        ("sciwm.world.core", "from sciwm.probe.fit import fit_probes"),
        ("sciwm.world.core", "def f():\n    from sciwm.config import Config"),
        ("sciwm.readout.ridge", "from sciwm.world.model import WorldModel"),
        ("sciwm.probe.fit", "from sciwm.train.fit import build_world"),
        ("sciwm.verify", "import torch"),
        ("sciwm.train.fit", "from sciwm.run.directory import RunDir"),
        ("sciwm.model.jepa", "from sciwm.world.model import WorldModel"),
        ("sciwm.tokens.record", "from sciwm.model.jepa import JEPA"),
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
        ("sciwm.model.jepa", "from sciwm.tokens.record import Tokens"),
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
