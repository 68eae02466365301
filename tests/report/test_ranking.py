"""Who is ahead of whom, by hand and in words."""

import numpy as np
import pytest
from reports import tiny_skill

from sciwm.report.ranking import compare, summarize


def test_comparison_matches_hand_computed_gains():
    skill = tiny_skill(
        {
            "jepa": [1.0, 2.0, np.nan],
            "lim": [1.25, 1.6, 1.0],
            "climatology": [2.0, 1.999, 2.0],
            "jepa_latent": [0.1, 0.1, 0.1],
        }
    )
    (one,) = compare(skill, "jepa")
    np.testing.assert_allclose(one.gain, [20.0, -25.0, np.nan])
    assert one.rival == ["lim", "lim", "lim"]
    np.testing.assert_array_equal(one.clear, [True, True, False])
    higher = tiny_skill({"jepa": [0.8], "lim": [0.7], "persistence": [0.75]}, metric="acc")
    assert compare(higher, "jepa")[0].rival == ["persistence"]
    assert compare(higher, "jepa")[0].gain[0] == pytest.approx(5.0)
    zero = tiny_skill({"jepa": [-0.5], "lim": [-2.0], "persistence": [1.0]}, metric="bias")
    assert compare(zero, "jepa")[0].rival == ["persistence"]
    assert compare(zero, "jepa")[0].gain[0] == pytest.approx(50.0)


def test_summary_says_what_the_numbers_say():
    mixed = summarize(
        tiny_skill({"jepa": [1.0, 1.99, 3.0], "lim": [2.0, 2.0, 2.0]}, channels=("z500", "t850"))
    )
    assert "better RMSE than every other method in 4 of 6 variable–lead pairs" in mixed
    assert "(z500 at 1 and 2 days; t850 at 1 and 2 days)" in mixed
    assert "clearly so (95 % intervals apart) in 2 of them" in mixed
    assert "worse with non-overlapping 95 % intervals in 2" in mixed
    everywhere = summarize(tiny_skill({"jepa": [1.0, 1.0], "lim": [1.005, 1.005]}))
    overlap = "but the 95 % intervals overlap in every one of them."
    assert f"in all 2 lead times (z500 at every lead), {overlap}" in everywhere
    never = summarize(tiny_skill({"jepa": [3.0, 2.001], "climatology": [2.0, 2.0]}))
    assert never == (
        "JEPA (residual readout) is not ahead of the best other method in RMSE at any of the 2"
        " lead times; it is worse with non-overlapping 95 % intervals in 1."
    )
    assert summarize(tiny_skill({"lim": [1.0], "climatology": [2.0]})).startswith("Only baselines")
    theirs = summarize(tiny_skill({"lim": [1.0], "graphcast": [0.5]}))
    assert theirs.startswith("Graphcast has a better RMSE than every other method")
    assert "no other method" in summarize(tiny_skill({"jepa_latent": [1.0]}))
