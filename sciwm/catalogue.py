"""What the package brings along: data sets of ``datasets/``, configurations of ``configs/``.

Both folders stand beside ``sciwm/`` in a checkout and inside it once installed. Data sets are plain
files with constants (``TITLE``, ``SIZE``, ``LICENCE``, ``ORIGIN``, ``SIMULATED``, ``HOW_TO_GET``)
and the functions ``open`` and/or ``make``. Listing them reads the constants without running the
files, so it needs neither torch nor a second.
"""

import ast
import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["config_path", "load", "locate", "names", "table"]

_COLUMNS = {
    "what": "TITLE",
    "size": "SIZE",
    "licence": "LICENCE",
    "origin": "ORIGIN",
    "simulated": "SIMULATED",
    "how_to_get": "HOW_TO_GET",
}


def _folder(name: str) -> Path:
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"got no folder {name!r} in or beside {package}, expected one; reinstall sciwm"
    )


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
    return f"got {kind} {name!r}, which does not exist; {hint}"


def names() -> list[str]:
    """Names of the data sets, sorted.

    Examples
    --------
    >>> "qg" in names()
    True
    """
    return sorted(path.stem for path in _folder("datasets").glob("[!_]*.py"))


def load(name: str) -> ModuleType:
    """Import the file of a data set.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    module
        With ``open(path, …)`` and/or ``make(…)``; the same object every time.

    Raises
    ------
    KeyError
        If there is none of that name; the message has the closest ones.
    """
    if name not in names():
        raise KeyError(_unknown("data set", name, names()))
    qualified = f"sciwm.datasets.{name}"
    if qualified not in sys.modules:
        spec = importlib.util.spec_from_file_location(qualified, _folder("datasets") / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[qualified] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[qualified]
            raise
    return sys.modules[qualified]


def table() -> list[dict[str, Any]]:
    """List the data sets without importing them.

    Returns
    -------
    list of dict
        Keys ``name, what, size, licence, origin, simulated, how_to_get, verbs``; ``verbs`` lists
        which of ``open`` and ``make`` the data set has.

    Examples
    --------
    >>> [row["verbs"] for row in table() if row["name"] == "qg"]
    [['make']]
    """
    rows: list[dict[str, Any]] = []
    for name in names():
        tree = ast.parse((_folder("datasets") / f"{name}.py").read_text(encoding="utf-8"))
        constants = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in _COLUMNS.values()
        }
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        said = {column: constants[constant] for column, constant in _COLUMNS.items()}
        verbs = [verb for verb in ("open", "make") if verb in functions]
        rows.append({"name": name, **said, "verbs": verbs})
    return rows


def config_path(name_or_path: str | Path) -> Path:
    """Resolve a configuration: a path that exists, or the name of one that came with the package.

    Parameters
    ----------
    name_or_path : str or path
        ``speedy_global``, ``speedy_global.yaml``, ``configs/speedy_global.yaml``, or any path of a
        file.

    Raises
    ------
    FileNotFoundError
        If it is neither; the message has the closest names.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    shipped = {file.stem: file for file in _folder("configs").glob("*.yaml")}
    bare = path.suffix in ("", ".yaml", ".yml") and path.parent.as_posix() in (".", "configs")
    if bare and path.stem in shipped:
        return shipped[path.stem]
    raise FileNotFoundError(
        _unknown("configuration", str(name_or_path), shipped) + "; or give the path of a YAML file"
    )


def locate(
    path: str | Path, files: Mapping[str, str], *, how_to_get: str, checksum: bool = False
) -> list[Path]:
    """Find the files of a data set and, if asked, check that they are unaltered.

    Parameters
    ----------
    path : path
        A folder that holds ``files``, or one file.
    files : mapping
        SHA-256 checksums by file name.
    how_to_get : str
        Said when a file is missing.
    checksum : bool
        Compare checksums.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message says where it comes from.
    ValueError
        If a checksum differs.
    """
    path = Path(path).expanduser()
    found = [path / name for name in files] if path.is_dir() else [path]
    missing = [str(file) for file in found if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"got no file {', '.join(missing)}, expected {', '.join(files)}. {how_to_get}"
        )
    for file in found if checksum else []:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest not in files.values():
            raise ValueError(
                f"got {file} with SHA-256 {digest}, expected one of {', '.join(files.values())},"
                " because it was altered or cut off"
            )
    return found
