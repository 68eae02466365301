"""A run directory: its files, its log, which stages are up to date, and where it came from.

One configuration per folder. What is done after training may be asked for anew with other values.
Any other change of the configuration is refused once something was made from it.
"""

import datetime
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import sciwm
from sciwm.atomic import write_atomically
from sciwm.config import Config, ConfigError, dump_config, flatten_config, load_config
from sciwm.sections import ADDED_LATER

__all__ = ["RunDir", "hash_inputs", "open_run", "provenance", "resolve_run"]

# Sections that may change in a run; the hashes of the stages say what has to be made again. Two
# keys reach back to the training store, hence to the weights, and may not: `probe.targets` are kept
# in it, `forecast.lead_times` widen its gaps.
_LATER = ("probe.", "forecast.", "skill.", "train.rivals")
_EARLY = ("probe.targets", "forecast.lead_times")
_PACKAGES = (
    "torch",
    "lightning",
    "xarray",
    "zarr",
    "dask",
    "numpy",
    "scipy",
    "pandas",
    "scores",
    "netCDF4",
    "safetensors",
)


@dataclass(frozen=True)
class RunDir:
    """Paths and bookkeeping of one run; made by `open_run` and `resolve_run`.

    Parameters
    ----------
    path : Path
        The folder, ``runs/NAME``.

    Examples
    --------
    >>> RunDir(Path("runs/qg")).forecast_store.as_posix()
    'runs/qg/forecast.zarr'
    """

    path: Path

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.resolve().name

    @property
    def config_file(self) -> Path:
        """``config.yaml``: everything the run depends on."""
        return self.path / "config.yaml"

    @property
    def train_store(self) -> Path:
        """``train.zarr``: standardized anomalies laid out for training."""
        return self.path / "train.zarr"

    @property
    def weights_file(self) -> Path:
        """``model.safetensors``: weights, climatology and scale."""
        return self.path / "model.safetensors"

    @property
    def model_file(self) -> Path:
        """``model.json``: sizes, variables, grid, step, split dates, versions, seed."""
        return self.path / "model.json"

    @property
    def checkpoint_file(self) -> Path:
        """``checkpoints/last.ckpt``: for resuming this very run only."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def probes_file(self) -> Path:
        """``probes.safetensors``: the ridge readouts."""
        return self.path / "probes.safetensors"

    @property
    def log_file(self) -> Path:
        """``log.jsonl``: one record of training or validation per line."""
        return self.path / "log.jsonl"

    @property
    def forecast_store(self) -> Path:
        """``forecast.zarr``: the forecasts of the test block."""
        return self.path / "forecast.zarr"

    @property
    def forecasts_folder(self) -> Path:
        """``forecasts``: stores of the other methods, ``METHOD.zarr`` each."""
        return self.path / "forecasts"

    @property
    def skill_file(self) -> Path:
        """``skill.nc``: scores with intervals, as a Dataset."""
        return self.path / "skill.nc"

    @property
    def table_file(self) -> Path:
        """``skill.csv``: the same scores as a table."""
        return self.path / "skill.csv"

    @property
    def diagnostics_file(self) -> Path:
        """``diagnostics.nc``: maps of error, spectra and rank histograms, for the report."""
        return self.path / "diagnostics.nc"

    @property
    def simulation_file(self) -> Path:
        """``simulation.nc``: mean, spread and annual cycle of long roll-outs, for the report."""
        return self.path / "simulation.nc"

    @property
    def report_file(self) -> Path:
        """``report.html``: figures, curves and configuration in one file."""
        return self.path / "report.html"

    @property
    def stages_file(self) -> Path:
        """``stages.json``: what each finished stage was made from."""
        return self.path / "stages.json"

    def read_config(self, overrides: Sequence[str] = ()) -> Config:
        """Load ``config.yaml``, with flags applied to it as in `load_config`."""
        return load_config(self.config_file, overrides)

    def append_log(self, record: Mapping[str, Any]) -> None:
        """Add one record to ``log.jsonl``; a line torn by a crash is cut off first.

        Parameters
        ----------
        record : mapping
            At least ``step`` and ``split``; numbers may be numpy or torch scalars.
        """
        line = json.dumps(dict(record), default=float) + "\n"
        with self.log_file.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size and _byte_before(file, size) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line.encode())

    def read_log(self) -> list[dict[str, Any]]:
        """Records of ``log.jsonl`` in order.

        A step is logged twice where training resumed before it: the later record counts.
        """
        if not self.log_file.exists():
            return []
        records: dict[Any, dict[str, Any]] = {}
        lines = self.log_file.read_text(encoding="utf-8").splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            if number == len(lines) and not line.endswith("\n"):
                break
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"got {line[:40]!r} in line {number} of {self.log_file}, expected one JSON"
                    f" object ({error})"
                ) from None
            key = (record.get("split"), record["step"]) if "step" in record else number
            records.pop(key, None)
            records[key] = record
        return list(records.values())

    def record_stage(self, name: str, inputs_hash: str, outputs: Sequence[str | Path]) -> None:
        """Note that a stage is finished.

        Parameters
        ----------
        name : str
            ``prepare``, ``train``, …
        inputs_hash : str
            `hash_inputs` of all that the stage depends on, the hashes of earlier stages included.
        outputs : sequence of path
            What it wrote inside the run directory.

        Raises
        ------
        FileNotFoundError
            If an output is not there.
        """
        paths = [Path(output) for output in outputs]
        for path in paths:
            if not path.exists():
                raise FileNotFoundError(
                    f"got no {path} after stage {name!r}, expected it to be written"
                )
        entry = {
            "inputs": inputs_hash,
            "outputs": [os.path.relpath(path, self.path) for path in paths],
            "finished": _now(),
            "sciwm": sciwm.__version__,
        }
        text = json.dumps(self._stages() | {name: entry}, indent=1) + "\n"
        write_atomically(self.stages_file, text)

    def is_fresh(self, name: str, inputs_hash: str) -> bool:
        """Whether a stage was finished from these inputs and what it wrote is still there."""
        entry = self._stages().get(name)
        return (
            entry is not None
            and entry["inputs"] == inputs_hash
            and all((self.path / output).exists() for output in entry["outputs"])
        )

    def stage_inputs(self, name: str) -> str:
        """Hash of what a finished stage was made from; empty if it is not finished."""
        return str(self._stages().get(name, {}).get("inputs", ""))

    def _stages(self) -> dict[str, Any]:
        if not self.stages_file.exists():
            return {}
        stages: dict[str, Any] = json.loads(self.stages_file.read_text(encoding="utf-8"))
        return stages


def open_run(out: str | Path, config: Config) -> RunDir:
    """Open the run directory of a configuration, or make it.

    Parameters
    ----------
    out : str or Path
        One of

        - a new or empty folder;
        - a run of this configuration, or of one that differs only under ``probe``, ``forecast`` or
          ``skill``, or in ``train.rivals``;
        - a run in which nothing was made yet.
    config : Config
        Written to ``config.yaml`` unless it is there. A stage made from other values is made again
        when it is asked for.

    Raises
    ------
    ConfigError
        If something was made there from another configuration; the differing keys are listed.
    FileExistsError
        If there is a file or a folder of other things.
    """
    run = RunDir(Path(out))
    if run.config_file.exists():
        there, here = flatten_config(_read_there(run)), flatten_config(config)
        differing = [key for key in here if here[key] != there[key]]
        if not differing:
            return run
        later = all(key.startswith(_LATER) and key not in _EARLY for key in differing)
        if not later and _holds_results(run):
            listed = ", ".join(f"{k} = {here[k]!r} (there: {there[k]!r})" for k in differing)
            raise ConfigError(
                f"got another configuration than that of {run.path}: {listed}; expected the same"
                " one, because results of two would mix: give another folder with --out, or remove"
                f" {run.path}"
            )
    elif run.path.exists():
        _refuse_foreign(run.path)
    run.path.mkdir(parents=True, exist_ok=True)
    write_atomically(run.config_file, dump_config(config))
    return run


def _holds_results(run: RunDir) -> bool:
    return any(entry != run.config_file for entry in run.path.iterdir())


def _read_there(run: RunDir) -> Config:
    try:
        return run.read_config()
    except ConfigError as error:
        raise ConfigError(
            f"{error} (in {run.config_file}, perhaps of another version of sciwm; give another"
            " folder with --out)"
        ) from None


def _refuse_foreign(path: Path) -> None:
    if not path.is_dir():
        raise FileExistsError(f"got {path}, a file, expected a new or empty folder for the run")
    others = _names(path)
    if others:
        raise FileExistsError(
            f"got {path}, a folder with {others} but no config.yaml, expected a new or empty folder"
            " for the run"
        )


def resolve_run(path: str | Path) -> RunDir:
    """Open an existing run directory.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or it is not a run; what it holds is listed.
    """
    run = RunDir(Path(path))
    if not run.path.is_dir():
        raise FileNotFoundError(
            f"got {path}, expected the folder of a run, such as runs/NAME, made by `sciwm run` or"
            " `sciwm train`"
        )
    if not run.config_file.exists():
        raise FileNotFoundError(
            f"got {path}, a folder with {_names(run.path) or 'nothing'} in it, expected a run: a"
            " folder with config.yaml"
        )
    return run


def hash_inputs(*parts: Any) -> str:
    """Fingerprint what a stage depends on: equal values give the same, in any order of keys.

    Parameters
    ----------
    *parts
        Numbers, texts, paths, lists, mappings, dataclasses.

    Examples
    --------
    >>> hash_inputs({"a": 1, "b": 2}) == hash_inputs({"b": 2, "a": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def provenance() -> dict[str, Any]:
    """Where a result comes from: versions, platform, date and, in a clone, the commit.

    Returns
    -------
    dict
        ``date`` (UTC), ``python``, ``platform``, ``sciwm``, one version per package, ``commit``.
        The commit ends in ``-dirty`` with uncommitted changes; outside a clone it is None. No
        package is imported for it.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    where = {
        "date": _now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "sciwm": sciwm.__version__,
    }
    return where | versions | {"commit": _commit(Path(__file__).parents[2])}


def _commit(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    command = ["git", "-C", str(root), *describe]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        own = [(f, getattr(value, f.name)) for f in fields(value)]
        return {f.name: v for f, v in own if not (f.metadata == ADDED_LATER and v == f.default)}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(
        f"got {type(value).__name__} to hash, expected numbers, texts, paths, lists, mappings or"
        " dataclasses"
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _byte_before(file: Any, position: int) -> bytes:
    file.seek(position - 1)
    byte: bytes = file.read(1)
    return byte


def _names(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
