"""Tokenizers come back from files, and nothing outside `sciwm.tokens` asks which one it has."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciwm
from sciwm import testing
from sciwm.store.prepare import open_training_store
from sciwm.tokens.tokenizer import Tokenizer, fit_tokenizer, read_tokenizer
from tests.networks import globe, plane
from tests.worlds import store

PACKAGE = Path(sciwm.__file__).parent


def again(tokenizer):
    """What is read from what would be written."""
    settings = json.loads(json.dumps(tokenizer.settings()))
    return read_tokenizer(tokenizer.kind, settings, tokenizer.tensors())


def same_place(one, other):
    assert one.neighbours == other.neighbours
    assert (one.cells, one.patch) == (other.cells, other.patch)
    for name in ("position", "points", "area"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize(
    "tokenizer",
    [globe(channels=2), globe((6, 8), (4, 2)), plane(), plane(periodic=(False, True))],
    ids=["globe", "padded", "torus", "channel"],
)
def test_a_grid_comes_back_from_a_file(tokenizer):
    other = again(tokenizer)
    assert isinstance(other, Tokenizer)
    same_place(other.place, tokenizer.place)
    values = torch.randn(2, tokenizer.num_channels, *tokenizer.shape)
    for one, two in zip(tokenizer.tokenize(values), other.tokenize(values), strict=True):
        assert (one is None and two is None) or torch.equal(one, two)
    for name in ("position", "area", "channel"):
        assert torch.equal(getattr(other, name), getattr(tokenizer, name)), name


def test_a_molecule_comes_back_from_a_file(tmp_path):
    ds = testing.double_well(num_trajectories=3, num_frames=60)
    blocks = {"by": "segment", "train": [0], "validation": [1], "test": [2]}
    tokenizer = fit_tokenizer(open_training_store(store(ds, tmp_path, **blocks)), patch_size=(2, 2))
    other = again(tokenizer)
    assert isinstance(other, Tokenizer)
    positions = torch.from_numpy(ds.positions.values[:7])
    one, two = (t.tokenize(positions, None)[0] for t in (tokenizer, other))
    assert torch.equal(one, two)
    assert torch.equal(other.place.neighbours.mean, tokenizer.place.neighbours.mean)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="got tokens of kind 'mesh', expected one of grid, molec"):
        read_tokenizer("mesh", {}, {})


@pytest.mark.parametrize("value", [1, True, "true", "1"])
def test_a_store_says_what_closes_on_itself(value):
    ds = xr.Dataset(
        {"state": (("time", "channel", "latitude", "longitude"), np.zeros((1, 1, 4, 6)))},
        {"latitude": np.arange(4.0), "longitude": np.arange(6.0)},
        attrs={"kind": "grid"},
    )
    assert fit_tokenizer(ds, patch_size=(2, 2)).periodic == (False, False)
    ds["longitude"].attrs["periodic"] = value
    assert fit_tokenizer(ds, patch_size=(2, 2)).place.cells.periodic == (False, True)
    ds["latitude"].attrs["periodic"] = value
    both = fit_tokenizer(ds, patch_size=(2, 2))
    assert both.place.neighbours.periodic == both.place.cells.periodic == (True, True)
    ds["latitude"].attrs["periodic"] = 0
    assert fit_tokenizer(ds, patch_size=(2, 2)).periodic == (False, True)


def test_constant_fields_are_averaged_over_tokens():
    tokenizer = globe((5, 6), (2, 3))
    planes = torch.randn(2, 5, 6)
    means = tokenizer.means(planes)
    assert means.shape == (tokenizer.num_tokens, 2)
    torch.testing.assert_close(means[1], planes[:, :2, 3:].mean((1, 2)))
    torch.testing.assert_close(means[4], planes[:, 4:, :3].mean((1, 2)))  # without the padding


def told_apart(source):
    """Where a source asks for, or names, a particular tokenizer or what its tokens came from."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        names |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.name.rpartition(".")[2] for alias in node.names}
        concrete = names & {"GridTokenizer", "MoleculeTokenizer"}
        asks = isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "isinstance",
            "hasattr",
        )
        if concrete or (asks and "tokenizer" in names):
            found.append(ast.unparse(node).splitlines()[0])
    return found


def test_nothing_else_asks_which_tokenizer_it_has():
    paths = [p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE / "tokens"]
    found = {p.name: told_apart(p.read_text(encoding="utf-8")) for p in paths}
    assert len(found) > 50
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from sciwm.tokens.grid import GridTokenizer",
        "import sciwm.tokens.grid as g\nx = g.GridTokenizer.fit(store)",
        "if isinstance(world.tokenizer, nn.Module): pass",
        "if isinstance(tokenizer, Grid): pass",
        "if hasattr(self.tokenizer, 'patches'): pass",
    ],
)
def test_asking_is_seen(source):
    assert told_apart(source)
