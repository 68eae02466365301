"""The scorecard: differences and significance by hand, cells, the table to download."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from reports import hour_leads, skill_table, tiny_skill
from truths import forecast_of, weather

from sciwm.report.scorecard import (
    differences,
    has_scorecard,
    scorecard_frame,
    scorecard_section,
    shade,
)
from sciwm.skill.lineup import line_up
from sciwm.skill.significance import false_discovery, paired_difference
from sciwm.skill.sums import TableSums, collect
from sciwm.skill.table import score_lineup


def paired(skill, q_value):
    """The table with the same q-value for every pair."""
    order = ("method", "reference_method", "channel", "region", "lead_time")
    shape = [skill.sizes[d.replace("reference_", "")] for d in order]
    more = {name: (order, np.full(shape, q_value)) for name in ("pair_p_value", "pair_q_value")}
    return skill.assign(more).assign_coords(reference_method=skill["method"].values)


def test_differences_are_percent_of_the_reference():
    table = differences(
        tiny_skill({"jepa": [1.0, 2.2], "lim": [1.25, 2.0], "persistence": [2.0, np.nan]})
    )
    one = table["difference"].isel(channel=0, region=0)
    np.testing.assert_allclose(
        one.loc[{"method": "jepa", "reference_method": "lim"}], [-20.0, 10.0]
    )
    np.testing.assert_allclose(
        one.loc[{"method": "lim", "reference_method": "jepa"}], [25.0, -100 / 11]
    )
    assert np.isnan(one.loc[{"method": "jepa", "reference_method": "jepa"}]).all()
    assert np.isnan(one.loc[{"method": "jepa", "reference_method": "persistence"}][1])
    pair = {"method": "jepa", "reference_method": "lim"}
    # fair scores of few cases
    below = differences(tiny_skill({"jepa": [-0.3], "lim": [-0.2]}, metric="crps"))
    np.testing.assert_allclose(below["difference"].loc[pair].values, -50.0)
    higher = differences(tiny_skill({"jepa": [0.8], "lim": [0.7]}, metric="acc"))
    np.testing.assert_allclose(higher["difference"].loc[pair].values, 10.0)


def test_significance_is_that_of_the_pair_and_else_of_the_intervals():
    skill = tiny_skill({"jepa": [1.0, 1.995], "lim": [1.25, 2.0]}, half=0.01)
    table = differences(skill)
    assert table.attrs["paired"] == 0
    one = table["significant"].loc[{"method": "jepa", "reference_method": "lim"}]
    np.testing.assert_array_equal(one.values.ravel(), [True, False])
    sure, unsure = differences(paired(skill, 0.05)), differences(paired(skill, 0.051))
    assert sure.attrs["paired"] == 1
    assert sure["significant"].all()
    assert not unsure["significant"].any()
    unpaired = tiny_skill({"a": [1.0], "b": [1.2]}, metric="mae")
    assert differences(paired(unpaired, 0.01)).attrs["paired"] == 0
    assert "intervals overlap" in scorecard_section(skill)
    assert "paired test" in scorecard_section(paired(skill, 0.05))


def test_pairs_in_the_skill_table_are_the_paired_tests():
    truth = weather()
    init = np.arange(900, 1100, 2)
    forecasts = {
        name: forecast_of(truth, init, [1, 3], noise=noise, seed=seed)
        for seed, (name, noise) in enumerate((("good", 0.9), ("same", 0.91), ("bad", 1.4)))
    }
    lineup = line_up(forecasts, truth, baselines=["persistence"])
    skill = score_lineup(lineup, metrics=["rmse"], against="bad", resamples=0)
    found = TableSums(lineup, metrics=["rmse"], regions=())
    collect(lineup, found)
    sums = found.values
    for a, sums_a in zip(lineup.names, sums, strict=True):
        for b, sums_b in zip(lineup.names, sums, strict=True):
            test = paired_difference(sums_a.drop_vars("method"), sums_b.drop_vars("method"))
            expected = test.p_value.transpose("channel", "region", "lead_time").values
            found = skill.loc[{"method": a, "reference_method": b}]
            np.testing.assert_allclose(found["pair_p_value"], expected)
            np.testing.assert_allclose(found["pair_q_value"], false_discovery(expected))
    for name in ("p_value", "q_value"):
        against_bad = skill[f"pair_{name}"].loc[{"reference_method": "bad"}]
        xr.testing.assert_equal(skill[name], against_bad.drop_vars("reference_method"))
    sure = differences(skill)["significant"]
    assert sure.loc[{"method": "good", "reference_method": "bad"}].all()


@pytest.mark.parametrize(
    ("difference", "style"),
    [
        (-31, "b5"),
        (-30, "b5"),
        (-29.9, "b4"),
        (-7, "b3"),
        (-3, "b2"),
        (-1, "b1"),
        (-0.99, "s0"),
        (0, "s0"),
        (2, "w1"),
        (500, "w5"),
    ],
)
def test_shades_change_at_the_steps_of_the_legend(difference, style):
    assert shade(difference) == style
    assert shade(-difference, higher=True) == style
    assert shade(np.nan) == ""


def cards(html):
    return json.loads(re.search(r'id="scorecard-data">(.*?)</script>', html, re.DOTALL)[1])


def test_the_section_shows_the_best_known_pair_and_holds_all():
    skill = skill_table(["z500", "t850"], ["m", "K"], hour_leads(1, 3), regions=("all", "tropics"))
    html = scorecard_section(skill)
    data = cards(html)
    assert "JEPA (residual readout) against Linear inverse model" in html
    body = re.search(r"<tbody>.*?</tbody>", html, re.DOTALL)[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL)
    shown = [re.findall(r"<td[^>]*>([^<]*)<", r) for r in rows]
    jepa, lim = 0, 6
    assert shown == [[c.split("|")[0] for c in row] for row in data["cells"][jepa][lim]]
    value = skill["value"].sel(metric="rmse")
    expected = 100 * (value[jepa, 0, 1, 1] / value[lim, 0, 1, 1] - 1).item()
    assert shown[1][1] == f"{expected:+.1f}".replace("-", "−")
    assert data["cells"][jepa][jepa][0] == ["–|", "–|"]
    assert "<script>" not in html.replace('<script type="application/json"', "")


def test_channels_without_the_metric_are_left_out():
    skill = skill_table(["z500", "t850>285"], ["m", "K"], hour_leads(1, 3))
    skill["value"].loc[{"channel": "t850>285", "metric": "rmse"}] = np.nan
    html = scorecard_section(skill)
    assert "t850" not in re.search(r"<tbody>.*?</tbody>", html, re.DOTALL)[0]
    assert len(cards(html)["cells"][0][1]) == 1


def test_the_table_to_download_has_every_pair():
    methods = ("jepa", "lim", "climatology")
    skill = paired(skill_table(["z500"], ["m"], hour_leads(1, 3), methods=methods), 0.2)
    frame = scorecard_frame(skill)
    assert len(frame) == 3 * 2 * 2
    row = frame.query("method == 'jepa' and reference == 'lim' and lead == 3").iloc[0]
    value = skill["value"].sel(metric="rmse", channel="z500", region="domain").isel(lead_time=1)
    assert row["difference_percent"] == pytest.approx(100 * (float(value[0]) / float(value[1]) - 1))
    found = [row[name] for name in ("lead_unit", "metric", "q_value", "significant")]
    assert found == ["days", "rmse", 0.2, False]
    assert isinstance(frame, pd.DataFrame)


def test_a_card_needs_two_methods_and_a_metric_to_judge_by():
    assert not has_scorecard(tiny_skill({"lim": [1.0]}))
    assert not has_scorecard(tiny_skill({"lim": [1.0], "jepa": [1.0]}, metric="spread"))
    assert has_scorecard(tiny_skill({"lim": [1.0], "jepa": [1.0]}, metric="acc"))
