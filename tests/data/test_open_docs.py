# ruff: noqa: D103
"""The how-to page and the docstrings say what happens."""

import doctest
from pathlib import Path

import pytest

import sciwm.data.layout
import sciwm.data.names
import sciwm.data.open
import sciwm.data.units

PAGE = Path(__file__).parents[2] / "docs/open.md"


def test_the_how_to_page_runs() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0


@pytest.mark.parametrize("module", [sciwm.data.layout, sciwm.data.names, sciwm.data.open, sciwm.data.units], ids=lambda m: m.__name__)
def test_docstrings_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted
    assert result.failed == 0
