"""Sentences for the methods section say what the attributes say."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from reports import hour_leads, skill_table

from sciwm.config import Config, DataConfig, ObjectiveConfig, ProbeConfig, SplitConfig
from sciwm.model.objectives import OBJECTIVES
from sciwm.report.prose import (
    describe_data,
    describe_grid,
    describe_model,
    describe_rollout,
    describe_scores,
    variable_names,
)
from sciwm.testing import double_well, small_climate
from sciwm.train.fit import objective_of

SPLIT = {
    "train": ["2000-01-01T12:00:00.000000000", "2006-12-31T12:00:00.000000000"],
    "validation": [],
    "test": ["2008-01-01", "2008-12-31"],
}


def test_every_number_of_the_verification_is_named():
    attrs = {
        "num_init": 1355,
        "first_init": "2008-01-01T12:00:00.000000000",
        "last_init": "2008-12-26T12:00:00.000000000",
    }
    attrs |= {"resamples": 1000, "block_length": 8, "lim": "1 steps: 20 EOFs, power"}
    skill = skill_table(
        ["z500"],
        ["m"],
        hour_leads(1, 2, 3, 5),
        regions=("all", "southern_extratropics"),
        metrics=("rmse", "acc"),
    )
    text = describe_scores(skill.assign_attrs(attrs), truth="ERA-Interim")
    for part in (
        (
            "Forecasts of z500 at lead times of 1, 2, 3 and 5 days were compared with ERA-Interim"
            " at 1,355 initial times from 2008-01-01 12:00 to 2008-12-26 12:00, the same for every"
            " method."
        ),
        "root-mean-square error and anomaly correlation",
        "for the regions all and southern extratropics",
        "damped persistence",
        "1,000 resamples, blocks of 8",
        "20 EOFs",
    ):
        assert part in text
    assert "paired t test" not in text
    index = skill_table(["sst"], ["K"], hour_leads(1), metrics=("rmse",))
    index = index.assign_coords(metric=["index_rmse"])
    assert "RMSE of the region's mean" in describe_scores(index)
    tested = skill.assign(q_value=(("method",), np.full(skill.sizes["method"], 0.5)))
    assert "paired t test" in describe_scores(tested)
    assert "not a fair test" in describe_scores(skill.assign_attrs(leakage="training times"))
    many = skill_table(["z"], ["m"], hour_leads(*range(1, 13)))
    assert "1 to 12 days (12 of them)" in describe_scores(many)


def test_grids_are_round_the_globe_regional_or_none():
    coords = {"latitude": np.linspace(-90, 90, 37), "longitude": np.arange(0, 360, 5.0)}
    globe = xr.Dataset(coords=coords)
    expected = "a grid of 37 × 72 points (5° × 5°, 90°S to 90°N, all longitudes)"
    assert describe_grid(globe) == expected
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
    assert variable_names(data) == [
        "geopotential at 500 hPa (z500)",
        "temperature (t) at levels 500 and 850",
        "psi1",
    ]


def test_the_data_are_named_with_grid_and_blocks():
    data = small_climate(years=1)
    config = Config(
        data=DataConfig(store="a/era.zarr", climatology="monthly", split=SplitConfig(by="time"))
    )
    text = describe_data(config, data.assign_attrs(title="ERA-Interim."), SPLIT)
    assert "The data set is “ERA-Interim”; its variables are" in text
    assert f"{data.sizes['latitude']} × {data.sizes['longitude']} points" in text
    blocks = (
        "a training block (2000-01-01 12:00 to 2006-12-31 12:00) and a test block (2008-01-01 to"
        " 2008-12-31)."
    )
    assert blocks in text
    assert "calendar-month means, divided by" in text
    pooled = dataclasses.replace(config.data, climatology_pool="domain")
    shared = describe_data(dataclasses.replace(config, data=pooled), data, SPLIT)
    assert "calendar-month means, one for the whole domain, divided by" in shared
    by_segment = dataclasses.replace(config.data, split=SplitConfig(by="segment"))
    members = dataclasses.replace(config, data=by_segment)
    assert "each of whole members or trajectories" in describe_data(members, data, SPLIT)
    assert "The data are those of era.zarr" in describe_data(members, data.drop_attrs(), SPLIT)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sigreg", "64 random directions (SIGReg, weight 40)"),
        ("ema", "decay 0.996"),
        ("vicreg", "VICReg, weight 40"),
        ("supervised", "trained to forecast pixels"),
        ("autoencoder", "an autoencoder with latent dynamics"),
    ],
)
def test_the_model_is_described_with_its_own_numbers(kind, words):
    config = Config(
        seed=7,
        objective=ObjectiveConfig(kind=kind, rollout=1, lead_steps=[1, 4]),
        probe=ProbeConfig(targets=["nino34"]),
    )
    text = described(config, 1234567)
    for part in (
        words,
        "1,234,567 parameters",
        "strides of 1 and 4 time steps",
        "seed 7",
        "series (nino34)",
    ):
        assert part in text
    single = dataclasses.replace(config, objective=ObjectiveConfig(lead_steps=[1]))
    assert "strides of 1 time step." in described(single, 5)

    def changed(**keys):
        objective = dataclasses.replace(config.objective, **keys)
        return described(dataclasses.replace(config, objective=objective), 5)

    if OBJECTIVES[kind].reads_cells:
        return
    assert "over one prediction" in text
    assert "plus 0.5 times the squared error of the cells" in changed(anchor=0.5)
    ahead = "over 4 predictions in a row (one at first, all after 60 % of the steps)"
    assert ahead in changed(rollout=4, curriculum=0.8)
    assert "squared error of the cells" not in text


def test_a_masked_autoencoder_and_a_molecule_have_sentences_of_their_own():
    hidden = ObjectiveConfig(kind="masked_autoencoder", mask_ratio=0.75)
    text = described(Config(objective=hidden), 5)
    assert "75 % of the tokens of every state masked" in text
    assert "strides" not in text
    config = Config(probe=ProbeConfig(targets=["phi", "psi"]))
    text = described(config, 5, atoms=10)
    assert "one token for each atom" in text
    assert "Scalar series (phi and psi) are read from all tokens together" in text
    told = describe_data(config, double_well(num_trajectories=1, num_frames=20), SPLIT, atoms=10)
    assert "the distances between all pairs of the 10 atoms" in told
    for word in ("patch", "anomal", "season", "cells of"):
        assert word not in text + told, word


def described(config, parameters, *, atoms=0):
    """Paragraph on the model, with the words of its objective."""
    record, objective = OBJECTIVES[config.objective.kind], objective_of(config)
    minimised = record.describe(objective, predictions=describe_rollout(config))
    words = {"noun": record.noun, "minimised": minimised}
    return describe_model(config, parameters, **words, atoms=atoms)
