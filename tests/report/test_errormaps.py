"""Maps of error and of skill: the pictures are those of the diagnostics."""

import json
import re

import numpy as np
from reports import decoded, diagnostics_table

from sciwm.report.errormaps import error_map_section, map_reference, relative_error
from sciwm.report.pixels import size_scale


def frames_of(html):
    data = json.loads(re.search(r'id="error-maps-data">(.*?)</script>', html, re.DOTALL)[1])
    return data["images"], data["frames"]


def test_the_reference_is_the_best_known_baseline():
    assert map_reference(["jepa", "lim", "climatology"], "lim") == "lim"
    assert map_reference(["jepa", "analogs", "lim"], "analogs") == "analogs"
    assert map_reference(["jepa", "persistence", "climatology"], "lim") == "climatology"
    assert map_reference(["jepa", "other"], "lim") == "other"


def test_relative_error_by_hand():
    rmse = diagnostics_table()["rmse"]
    rmse[...] = 2.0
    rmse.loc[{"method": "jepa"}] = 1.5
    rmse.loc[{"method": "lim"}].values[..., 0, 0] = 0.0
    found = relative_error(rmse, "lim").loc[{"method": "jepa"}]
    assert float(found[0, 0, 1, 1]) == -25.0
    assert np.isnan(found[..., 0, 0]).all()


def test_each_setting_shows_its_maps():
    table = diagnostics_table()
    html = error_map_section(table, against="lim", method="jepa")
    images, frames = frames_of(html)
    assert len(frames) == 2 * 3 * 3
    for i, channel in enumerate(("t850", "u850")):
        for k in range(3):
            values = table["rmse"].sel(channel=channel).isel(lead_time=k)
            scale = size_scale(values.values)
            text, bars, *panels = frames[f"{i},0,{k}"]
            expected = scale.colors[scale.indices(values.loc[{"method": "jepa"}].values)][::-1]
            np.testing.assert_array_equal(decoded(images[panels[0][0]])[..., :3], expected)
            assert bars == 3 * i + k
            jepa, lim = (values.loc[{"method": m}].values for m in ("jepa", "lim"))
            share = f"{100 * (jepa < lim).mean():.0f} % of the map"
            assert f"smaller than that of Linear inverse model on {share}" in text
    assert frames["0,1,0"][4][1] == "The reference itself"
    assert (decoded(images[frames["0,1,0"][4][0]])[..., 3] == 0).all()
    assert 'data-group="0"' in html
    # the other bars are hidden
    assert len(re.findall(r'<div data-group="\d+"><div class="bar">', html)) == 3


def test_far_worse_methods_do_not_wash_out_the_scale():
    table = diagnostics_table()
    table = table.assign_coords(method=["jepa", "lim", "climatology"])
    table["rmse"].loc[{"method": "climatology"}] *= 1000
    html = error_map_section(table, against="lim", method="jepa")
    images, frames = frames_of(html)
    keen = table["rmse"].loc[{"method": ["jepa", "lim"], "channel": "t850"}]
    assert f"<span>{size_scale(keen.isel(lead_time=0).values).high:.3g}</span>" in html
    picture = decoded(images[frames["0,0,0"][2][0]])[..., :3]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5


def test_more_variables_than_are_drawn_are_said():
    table = diagnostics_table().isel(channel=[0] * 8)
    table = table.assign_coords(channel=[f"v{i}" for i in range(8)], units=("channel", ["K"] * 8))
    assert "2 further variable(s)" in error_map_section(table, against="lim", method="jepa")
    table["rmse"].loc[{"channel": "v0"}] = np.nan
    assert ">v0<" not in error_map_section(table, against="lim", method="jepa")


def test_the_reference_is_not_what_is_shown_first():
    table = diagnostics_table()
    html = error_map_section(table, against="lim", method="lim")
    shown = re.search(r'id="error-maps-1".*?selected>([^<]*)<', html, re.DOTALL)[1]
    assert shown == "JEPA (residual readout)"
    only = table.isel(method=[0, 1]).assign_coords(method=["lim", "persistence"])
    _, frames = frames_of(error_map_section(only, against="lim", method="lim"))
    assert frames["0,1,0"][4][1] == "Against Linear inverse model"
