"""Lets the tests here import their makers, `truths` and `reports`, whatever import mode pytest runs in."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are when written; what would be SVG is their description."""
    seen = []

    def keep(figure, *, key, alt):
        seen.append(figure)
        return alt

    for module in ("figures", "series", "curves"):
        monkeypatch.setattr(f"sciwm.skill.{module}.inline_svg", keep)
    return seen
