"""Figures of the report, caught before they are written."""

import pytest


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are when written; what would be SVG is their description."""
    seen = []

    def keep(figure, *, key, alt):
        seen.append(figure)
        return alt

    for module in ("figures", "series", "curves"):
        monkeypatch.setattr(f"sciwm.report.{module}.inline_svg", keep)
    return seen
