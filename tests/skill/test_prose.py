"""Sentences for the methods section say what the attributes say."""

import numpy as np
import xarray as xr
from reports import hour_leads, skill_table

from sciwm.skill.prose import describe_grid, describe_scores, variable_names


def test_every_number_of_the_verification_is_named():
    attrs = {"num_init": 1355, "first_init": "2008-01-01T12:00:00.000000000", "last_init": "2008-12-26T12:00:00.000000000"}
    attrs |= {"resamples": 1000, "block_length": 8, "lim": "1 steps: 20 EOFs, power"}
    skill = skill_table(["z500"], ["m"], hour_leads(1, 2, 3, 5), regions=("all", "southern_extratropics"), metrics=("rmse", "acc"))
    text = describe_scores(skill.assign_attrs(attrs), truth="ERA-Interim")
    for part in (
        "Forecasts of z500 at lead times of 1, 2, 3 and 5 days were compared with ERA-Interim at 1,355 initial times "
        "from 2008-01-01 12:00 to 2008-12-26 12:00, the same for every method.",
        "root-mean-square error and anomaly correlation",
        "for the regions all and southern extratropics",
        "damped persistence",
        "1,000 resamples, blocks of 8",
        "20 EOFs",
    ):
        assert part in text
    assert "paired t test" not in text
    index = skill_table(["sst"], ["K"], hour_leads(1), metrics=("rmse",)).assign_coords(metric=["index_rmse"])
    assert "RMSE of the region's mean" in describe_scores(index)
    tested = skill.assign(q_value=(("method",), np.full(skill.sizes["method"], 0.5)))
    assert "paired t test" in describe_scores(tested)
    assert "not a fair test" in describe_scores(skill.assign_attrs(leakage="training times"))
    assert "1 to 12 days (12 of them)" in describe_scores(skill_table(["z"], ["m"], hour_leads(*range(1, 13))))


def test_grids_are_round_the_globe_regional_or_none():
    globe = xr.Dataset(coords={"latitude": np.linspace(-90, 90, 37), "longitude": np.arange(0, 360, 5.0)})
    assert describe_grid(globe) == "a grid of 37 × 72 points (5° × 5°, 90°S to 90°N, all longitudes)"
    assert describe_grid(globe.assign_attrs(coastlines="none")) == "a grid of 37 × 72 points"
    assert describe_grid(xr.Dataset()) == ""


def test_variables_are_named_in_words():
    data = xr.Dataset(
        {
            "z500": ("time", [0.0], {"units": "m2 s-2"}),
            "t": (("time", "level"), [[0.0, 0.0]], {"units": "K"}),
            "psi1": ("time", [0.0]),
            "mask": ((), 0.0),
        },
        {"time": [0], "level": [500, 850]},
    )
    assert variable_names(data) == ["geopotential at 500 hPa (z500)", "temperature (t) at levels 500 and 850", "psi1"]
