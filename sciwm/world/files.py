"""World models on disk: safetensors for numbers, JSON for the rest. Loading executes no code."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import sciwm
from sciwm.atomic import replacing, write_atomically
from sciwm.climatology import Climatology
from sciwm.model.settings import ObjectiveSettings, Sizes
from sciwm.readout.readout import Readouts
from sciwm.store.statistics import Statistics
from sciwm.times import Step
from sciwm.tokens.tokenizer import read_tokenizer
from sciwm.world.core import Core, build_network, widths_of

__all__ = ["FILES", "FORMAT", "read_world", "save_readouts", "save_world"]

FORMAT = 3
_TEACHER = "objective.teacher."
FILES = _DESCRIPTION, _WEIGHTS, _PROBES = "model.json", "model.safetensors", "probes.safetensors"


def save_world(world: Core, folder: Path) -> list[Path]:
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
        if not k.startswith(_TEACHER)
    }
    tensors["static"] = world.static.contiguous()
    about: dict[str, Any] = {
        "format": FORMAT,
        "sciwm": sciwm.__version__,
        "step": {"value": world.step.value, "unit": world.step.unit},
        "strides": list(world.strides),
        "context_step": world.context_step,
        "seed": world.seed,
        "missing": world.missing,
        "sizes": dataclasses.asdict(world.network.sizes),
        "objective": dataclasses.asdict(world.network.objective.settings),
        "condition_dim": world.condition_dim,
        "tokens": {"kind": world.tokenizer.kind, "settings": world.tokenizer.settings()},
        "about": world.about,
    }
    tensors |= {f"tokenizer.{k}": v.contiguous() for k, v in world.tokenizer.tensors().items()}
    for name, part in (("statistics", world.statistics), ("series", world.series_climatology)):
        if part is not None:
            numbers, about[name] = _pack(part.to_dataset())
            tensors |= {f"{name}.{k}": v for k, v in numbers.items()}
    weights, description = folder / _WEIGHTS, folder / _DESCRIPTION
    _save(tensors, weights, {})
    write_atomically(description, json.dumps(about, indent=1) + "\n")
    return [weights, description, *([save_readouts(world, folder)] if world.readouts else [])]


def save_readouts(world: Core, folder: Path) -> Path:
    """Write ``probes.safetensors``."""
    tensors = {
        f"{kind}.{k}": v
        for kind, readouts in world.readouts.items()
        for k, v in readouts.tensors().items()
    }
    one = next(iter(world.readouts.values()))
    common = {name: getattr(one, name) for name in ("lead_steps", "scope", "halo", "targets")}
    notes = {
        "format": str(FORMAT),
        "readouts": json.dumps(common),
        # That of states is known by its tensors: it has no lead, and reads latents alone.
        "kinds": json.dumps({k: read.reads for k, read in world.readouts.items() if k != "state"}),
    }
    path = folder / _PROBES
    _save(tensors, path, notes)
    return path


def read_world(folder: Path) -> dict[str, Any]:
    """Read what `save_world` wrote: the parts of a `sciwm.world.core.Core` by name.

    Raises
    ------
    FileNotFoundError
        If a file is missing. The message says which verb writes it.
    ValueError
        If the files are damaged, do not belong together, or are in another format.
    """
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
        parts = _build(about, tensors)
    except (KeyError, RuntimeError, TypeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"got {weights} and {description} that do not belong together, expected a pair from"
            f" one run: {reason.splitlines()[-1].strip()}"
        ) from None
    probes = folder / _PROBES
    return parts | ({"readouts": _read_readouts(probes)} if probes.exists() else {})


def _build(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    statistics, series = None, None
    if "series" in about:
        series = Climatology.from_dataset(_unpack(_part(tensors, "series."), about["series"]))
    if "statistics" in about:
        numbers = _part(tensors, "statistics.")
        statistics = Statistics.from_dataset(_unpack(numbers, about["statistics"]))
    described = about["tokens"]
    tokenizer = read_tokenizer(
        described["kind"], described["settings"], _part(tensors, "tokenizer.")
    )
    network = build_network(
        tokenizer,
        Sizes(**about["sizes"]),
        ObjectiveSettings(**about["objective"]),
        known=widths_of(tensors["static"], condition_dim=about["condition_dim"]),
        seed=about["seed"],
    )
    weights = _part(tensors, "network.")
    # The teacher was left out: it begins as the encoder, and nothing reads it.
    own = {k: v for k, v in network.state_dict().items() if k.startswith(_TEACHER)}
    network.load_state_dict(own | weights)
    return {
        "step": Step(about["step"]["value"], about["step"]["unit"]),
        "network": network.eval(),
        "tokenizer": tokenizer,
        "statistics": statistics,
        "series_climatology": series,
        "static": tensors["static"],
        "strides": tuple(about["strides"]),
        "condition_dim": about["condition_dim"],
        "context_step": about["context_step"],
        "seed": about["seed"],
        "missing": about["missing"],
        "about": about["about"],
    }


def _read_readouts(path: Path) -> dict[str, Readouts]:
    numbers, notes = _read(path)
    if notes.get("format") != str(FORMAT):
        raise ValueError(
            f"got {path} in format {notes.get('format')!r}, expected {FORMAT}: run `sciwm probe`"
            " again"
        )
    kinds, common = json.loads(notes["kinds"]), json.loads(notes["readouts"])
    found = {
        kind: Readouts.from_tensors(_part(numbers, f"{kind}."), **common, reads=reads)
        for kind, reads in kinds.items()
    }
    if state := _part(numbers, "state."):
        now = common | {"lead_steps": (0,)}
        found["state"] = Readouts.from_tensors(state, **now, reads="latents")
    return found


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
    if about.get("format") != FORMAT:
        raise ValueError(
            f"got {path} in format {about.get('format')!r}, expected {FORMAT}; it was written by"
            f" sciwm {about.get('sciwm', '?')}, this is {sciwm.__version__}: run `sciwm train`"
            " again"
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
    with replacing(path) as temporary:
        save_file(dict(tensors), temporary, metadata=notes)


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
        texts = entry.get("values")
        values = tensors[name].numpy() if texts is None else np.array(texts, dtype=object)
        (coords if entry["coord"] else data)[name] = (tuple(entry["dims"]), values, entry["attrs"])
    return xr.Dataset(data, coords, attrs=about["attrs"])


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(k): v.tolist() if isinstance(v, (np.ndarray, np.generic)) else v
        for k, v in attrs.items()
    }
