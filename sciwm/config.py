"""One frozen dataclass tree (`sciwm.sections`), one YAML file: everything a run depends on.

Only this module (and `sciwm.cli`) reads YAML. It refuses unknown keys and names the nearest known
one. It refuses values of a wrong type or out of range and says what was expected.
"""

import difflib
import functools
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_origin

import yaml
from jsonargparse import ArgumentParser

from sciwm.sections import (
    Config,
    ConfigError,
    DataConfig,
    ForecastConfig,
    ModelConfig,
    ObjectiveConfig,
    ProbeConfig,
    SkillConfig,
    SplitConfig,
    TrainConfig,
)

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "ForecastConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "ProbeConfig",
    "SkillConfig",
    "SplitConfig",
    "TrainConfig",
    "dump_config",
    "flatten_config",
    "load_config",
]


class _Loader(yaml.SafeLoader):
    """YAML whose dates stay text and whose keys may not repeat."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            names = [key.value for key, _ in node.value]
            again = next(key for n, (key, _) in enumerate(node.value) if key.value in names[:n])
            raise ConfigError(
                f"got key {again.value!r} a second time in line {again.start_mark.line + 1},"
                " expected every key once"
            )
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration from YAML, then apply flags to it.

    Parameters
    ----------
    source : str or Path
        A YAML file, or YAML text: anything with a line break or ``key: value`` in it. The empty
        text means all defaults.
    overrides : sequence of str
        Flags with dotted keys: ``--train.steps=200``, ``--train.steps 200`` as two items,
        ``--objective.lead_steps=[1,4]``.

    Raises
    ------
    ConfigError
        If a key is unknown or repeated, a value of the wrong type or out of range.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> load_config("train: {steps: 100}", ["--train.batch_size=8"]).train.batch_size
    8
    >>> load_config("train: {step: 100}")
    Traceback (most recent call last):
    sciwm.sections.ConfigError: got key 'train.step', expected one of steps, ...; did you mean ...
    """
    values = _parse_yaml(source)
    _refuse_unknown(values, Config, "")
    given = flatten_config(values)
    flags = _parse_flags(overrides)
    parser = _parser()
    try:
        parsed = parser.parse_object(values)
        arguments = [f"--{key}={value}" for key, value in flags.items()]
        parsed = parser.parse_args(arguments, namespace=parsed)
    except ArgumentError as error:
        found = re.search(r'key "([\w.]+)"', str(error))
        if not found:
            raise ConfigError(str(error)) from None
        key = found[1]
        value = flags.get(key, given.get(key))
        raise ConfigError(f"got {key} = {value!r}, expected {_describe(_leaves()[key])}") from None
    config: Config = _build(Config, parsed.as_dict())
    return config


def dump_config(config: Config) -> str:
    """Write a configuration as YAML that `load_config` reads back to an equal one.

    Examples
    --------
    >>> load_config(dump_config(Config(seed=3))) == Config(seed=3)
    True
    """
    text = yaml.safe_dump(
        asdict(config), sort_keys=False, default_flow_style=None, allow_unicode=True, width=120
    )
    return str(text)


def flatten_config(config: Config | Mapping[str, Any]) -> dict[str, Any]:
    """Values of a configuration under their dotted keys.

    Examples
    --------
    >>> flatten_config(Config())["train.steps"]
    500
    """
    values = config if isinstance(config, Mapping) else asdict(config)
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{name}": leaf for name, leaf in flatten_config(value).items()})
        else:
            flat[key] = value
    return flat


@functools.cache
def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, default_env=False)
    parser.add_class_arguments(Config)
    return parser


def _parse_yaml(source: str | Path) -> dict[Any, Any]:
    is_text = isinstance(source, str) and (
        not source.strip() or "\n" in source or ": " in source or source.startswith("{")
    )
    text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
    where = "the configuration" if is_text else str(source)
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"got invalid YAML in {where}: {error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(
            f"got {type(values).__name__} in {where}, expected sections such as 'train:' with keys"
            " below them"
        )
    sections = {entry.name for entry in fields(Config) if is_dataclass(entry.type)}
    empty = {key for key, value in values.items() if value is None and key in sections}
    return {key: {} if key in empty else value for key, value in values.items()}


def _leaves(section: Any = Config, prefix: str = "") -> dict[str, Any]:
    """Types of all values, by dotted key."""
    leaves: dict[str, Any] = {}
    for entry in fields(section):
        key = prefix + entry.name
        leaves |= _leaves(entry.type, f"{key}.") if is_dataclass(entry.type) else {key: entry.type}
    return leaves


def _refuse_unknown(values: Mapping[Any, Any], section: Any, prefix: str) -> None:
    known: dict[str, Any] = {entry.name: entry.type for entry in fields(section)}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if key not in known:
            raise ConfigError(_unknown(dotted, list(known)))
        if is_dataclass(known[key]):
            if not isinstance(value, Mapping):
                inner = ", ".join(entry.name for entry in fields(known[key]))
                raise ConfigError(
                    f"got {dotted} = {value!r}, expected a section with keys out of {inner}"
                )
            _refuse_unknown(value, known[key], f"{dotted}.")
        elif value is None:
            raise ConfigError(f"got {dotted} without a value, expected {_describe(known[key])}")


def _unknown(dotted: str, expected: Sequence[str]) -> str:
    leaves = list(_leaves())
    last = dotted.rpartition(".")[2]
    same = [leaf for leaf in leaves if leaf.rpartition(".")[2] == last]
    near = same or difflib.get_close_matches(dotted, leaves, n=1)
    if not near:
        by_last = {leaf.rpartition(".")[2]: leaf for leaf in leaves}
        near = [by_last[name] for name in difflib.get_close_matches(last, list(by_last), n=1)]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"got key {dotted!r}, expected one of {', '.join(expected)}{hint}"


def _parse_flags(overrides: Sequence[str]) -> dict[str, str]:
    """Dotted key and text of each flag; a later one wins."""
    leaves, flags, rest = _leaves(), {}, list(overrides)
    while rest:
        token = rest.pop(0)
        key, equals, value = token.removeprefix("--").partition("=")
        if not token.startswith("--"):
            raise ConfigError(f"got {token!r}, expected a flag such as --train.steps=200")
        if key not in leaves:
            section = key.rpartition(".")[0]
            siblings = [leaf for leaf in leaves if section and leaf.rpartition(".")[0] == section]
            raise ConfigError(_unknown(key, siblings or [entry.name for entry in fields(Config)]))
        if not equals and (not rest or rest[0].startswith("--")):
            raise ConfigError(
                f"got {token} without a value, expected {token}={_describe(leaves[key])}"
            )
        flags[key] = value if equals else rest.pop(0)
    return flags


def _describe(kind: Any) -> str:
    """One type in the words of the documentation."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(kind.__args__)
    if isinstance(kind, type) and not get_origin(kind):
        return kind.__name__
    return str(kind).replace(" | ", " or ")


def _build(section: Any, values: Mapping[str, Any]) -> Any:
    kinds = {entry.name: entry.type for entry in fields(section)}
    built = {
        name: _build(kinds[name], value) if is_dataclass(kinds[name]) else value
        for name, value in values.items()
    }
    return section(**built)
