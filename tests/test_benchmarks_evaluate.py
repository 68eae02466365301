"""The benchmark of scoring runs, and both ways give the same scores."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "evaluate.py"


def test_both_ways_agree(tmp_path, monkeypatch):
    pytest.importorskip("xskillscore")
    spec = importlib.util.spec_from_file_location("benchmark_evaluate", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "GRID", (9, 16))
    truth, forecast = module.write_stores(tmp_path, 20)
    found = {way: module.score(way, truth, forecast) for way in ("sciwm", "xskillscore")}
    for metric in ("rmse", "bias"):
        for name in module.NAMES:
            ours, theirs = (np.array(found[way]["scores"][metric][name]) for way in found)
            assert ours.shape == (module.LEADS,)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    growth = np.array(found["sciwm"]["scores"]["rmse"]["z500"])
    assert (np.diff(growth) > 0).all()  # the noise grows with the lead
