"""The benchmark of scoring runs, and both ways give the same scores."""

import numpy as np
import pytest

from tests.scripts import load_benchmark


def test_both_ways_agree(tmp_path, monkeypatch):
    pytest.importorskip("xskillscore")
    module = load_benchmark("evaluate")
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
