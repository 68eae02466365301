"""World models on disk: safetensors for numbers, JSON for everything else. Loading executes no code."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import sciwm
from sciwm.atomic import write_atomically
from sciwm.climatology import Climatology
from sciwm.config import dump_config, load_config
from sciwm.model.jepa import JEPA
from sciwm.readout.readout import Readouts
from sciwm.store.statistics import Statistics
from sciwm.times import Step
from sciwm.tokens.grid import GridTokenizer
from sciwm.tokens.molecule import MoleculeTokenizer
from sciwm.world.model import WorldModel, build_network

__all__ = ["FILES", "load", "load_world", "save_readouts", "save_world"]

_FORMAT = 1
FILES = _DESCRIPTION, _WEIGHTS, _PROBES = "model.json", "model.safetensors", "probes.safetensors"


def save_world(world: WorldModel, folder: Path) -> list[Path]:
    """Write a world model; each file is replaced whole or not at all.

    Parameters
    ----------
    world : WorldModel
        The teacher, if there is one, is left out: only training needs it.
    folder : Path
        Made if it does not exist.

    Returns
    -------
    list of Path
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"network.{k}": v.contiguous()
        for k, v in world.network.state_dict().items()
        if not k.startswith("teacher.")
    }
    tensors["static"] = world.static.contiguous()
    about: dict[str, Any] = {
        "format": _FORMAT,
        "sciwm": sciwm.__version__,
        "step": {"value": world.step.value, "unit": world.step.unit},
        "condition_dim": world.network.condition_dim,
        "local_dim": world.network.local_dim,
        "config": dump_config(world.config),
        "about": world.about,
    }
    if isinstance(world.tokenizer, MoleculeTokenizer):
        tensors |= {
            "tokenizer.mean": world.tokenizer.mean,
            "tokenizer.spread": world.tokenizer.spread,
        }
    for name, part in (("statistics", world.statistics), ("series", world.series_climatology)):
        if part is not None:
            numbers, about[name] = _pack(part.to_dataset())
            tensors |= {f"{name}.{k}": v for k, v in numbers.items()}
    weights, description = folder / _WEIGHTS, folder / _DESCRIPTION
    _save(tensors, weights, {})
    write_atomically(description, json.dumps(about, indent=1) + "\n")
    return [weights, description, *([save_readouts(world, folder)] if world.readouts else [])]


def save_readouts(world: WorldModel, folder: Path) -> Path:
    """Write ``probes.safetensors``."""
    tensors = {
        f"{kind}.{k}": v
        for kind, readouts in world.readouts.items()
        for k, v in readouts.tensors().items()
    }
    one = next(iter(world.readouts.values()))
    kinds = json.dumps(list(world.readouts))
    notes = {
        "format": str(_FORMAT),
        "lead_steps": json.dumps(one.lead_steps),
        "scope": one.scope,
        "kinds": kinds,
    }
    path = folder / _PROBES
    _save(tensors, path, notes)
    return path


def load_world(folder: Path) -> WorldModel:
    """Read what `save_world` wrote; see `sciwm.load`."""
    description, weights = folder / _DESCRIPTION, folder / _WEIGHTS
    for file in (description, weights):
        if not file.exists():
            raise FileNotFoundError(
                f"got {folder} without {file.name}, expected the folder of a trained model: run"
                " `sciwm train` first"
            )
    about = _read_description(description)
    tensors, _ = _read(weights)
    try:
        world = _build(about, tensors)
    except (KeyError, RuntimeError) as error:
        reason = (
            f"{error} is missing"
            if isinstance(error, KeyError)
            else str(error).splitlines()[-1].strip()
        )
        raise ValueError(
            f"got {weights} and {description} that do not belong together, expected a pair from one"
            f" run: {reason}"
        ) from None
    probes = folder / _PROBES
    return dataclasses.replace(world, readouts=_read_readouts(probes)) if probes.exists() else world


def load(path: str | Path, *, revision: str | None = None) -> WorldModel:
    """Load a world model from a run directory or from the Hugging Face Hub; no code from it is executed.

    Parameters
    ----------
    path : str or Path
        Folder with ``model.safetensors`` and ``model.json``, and ``probes.safetensors`` if it is to
        forecast; or the id of a model on the Hub: ``hf://owner/name``, or ``owner/name`` where
        there is no folder ``owner`` (needs ``pip install 'sciwm[hub]'``).
    revision : str, optional
        Branch, tag or commit on the Hub; name a commit to be sure of the same weights.

    Raises
    ------
    FileNotFoundError
        If a file is missing, and the message says which verb writes it; or if the Hub has no such
        model or cannot be reached.
    ValueError
        If the files are damaged, do not belong together, or were written by an incompatible
        version.
    ImportError
        For the Hub, without huggingface_hub.
    """
    from sciwm.world.hub import download, is_hub_id

    if isinstance(path, str) and is_hub_id(path):
        return load_world(download(path, revision=revision))
    if revision is not None:
        raise ValueError(
            f"got revision {revision!r} with the folder {path}, expected it for a model on the Hub"
            " only"
        )
    return load_world(Path(path))


def _build(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> WorldModel:
    config = load_config(about["config"])
    tokenizer: GridTokenizer | MoleculeTokenizer
    statistics, series = None, None
    if "series" in about:
        series = Climatology.from_dataset(_unpack(_part(tensors, "series."), about["series"]))
    if "statistics" in about:
        statistics = Statistics.from_dataset(
            _unpack(_part(tensors, "statistics."), about["statistics"])
        )
        grid = statistics.valid_fraction
        tokenizer = GridTokenizer(
            latitude=grid["latitude"].values,
            longitude=grid["longitude"].values,
            num_channels=grid.sizes["channel"],
            patch_size=(config.model.patch_size[0], config.model.patch_size[1]),
        )
    else:
        tokenizer = MoleculeTokenizer(
            mean=tensors["tokenizer.mean"].numpy(), spread=tensors["tokenizer.spread"].numpy()
        )
    network = build_network(
        config,
        tokenizer=tokenizer,
        condition_dim=about["condition_dim"],
        local_dim=about["local_dim"],
    )
    if isinstance(network, JEPA):
        network.teacher = None
    network.load_state_dict(_part(tensors, "network."))
    return WorldModel(
        config=config,
        step=Step(about["step"]["value"], about["step"]["unit"]),
        network=network.eval(),
        tokenizer=tokenizer,
        statistics=statistics,
        series_climatology=series,
        static=tensors["static"],
        about=about["about"],
    )


def _read_readouts(path: Path) -> dict[str, Readouts]:
    numbers, notes = _read(path)
    if notes.get("format") != str(_FORMAT):
        raise ValueError(
            f"got {path} in format {notes.get('format')!r}, expected {_FORMAT}: run `sciwm probe`"
            " again"
        )
    leads, scope = json.loads(notes["lead_steps"]), _scope(notes["scope"])
    kinds = json.loads(notes["kinds"])
    return {
        kind: Readouts.from_tensors(_part(numbers, f"{kind}."), lead_steps=leads, scope=scope)
        for kind in kinds
    }


def _scope(text: str) -> Literal["token", "shared"]:
    return "shared" if text == "shared" else "token"


def _read_description(path: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"got {path}, which is not JSON ({error}), expected what `sciwm train` writes"
        ) from None
    if not isinstance(about, dict):
        raise ValueError(
            f"got {path}, which holds a {type(about).__name__}, expected what `sciwm train` writes"
        )
    if about.get("format") != _FORMAT:
        raise ValueError(
            f"got {path} in format {about.get('format')!r}, expected {_FORMAT}; it was written by"
            f" sciwm {about.get('sciwm', '?')}, this is {sciwm.__version__}"
        )
    return about


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"got {path}, which is damaged or not a safetensors file ({error}); copy it again"
        ) from None


def _save(tensors: Mapping[str, Tensor], path: Path, notes: dict[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(dict(tensors), temporary, metadata=notes)
    temporary.replace(path)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _pack(ds: xr.Dataset) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Numbers of a Dataset as tensors, and the rest as JSON."""
    tensors, variables = {}, {}
    for name, variable in ds.variables.items():
        entry: dict[str, Any] = {
            "dims": list(variable.dims),
            "attrs": _plain(variable.attrs),
            "coord": name in ds.coords,
        }
        if variable.dtype.kind in "iufb":
            tensors[str(name)] = torch.from_numpy(np.array(variable.values))
        else:
            entry["values"] = [str(v) for v in variable.values.ravel()]
        variables[str(name)] = entry
    return tensors, {"variables": variables, "attrs": _plain(ds.attrs)}


def _unpack(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> xr.Dataset:
    data: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for name, entry in about["variables"].items():
        values = (
            np.array(entry["values"], dtype=object) if "values" in entry else tensors[name].numpy()
        )
        (coords if entry["coord"] else data)[name] = (tuple(entry["dims"]), values, entry["attrs"])
    return xr.Dataset(data, coords, attrs=about["attrs"])


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(k): v.tolist() if isinstance(v, (np.ndarray, np.generic)) else v
        for k, v in attrs.items()
    }
