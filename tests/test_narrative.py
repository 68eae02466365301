"""A run in sentences."""

import dataclasses

import numpy as np
import pytest

from sciwm.config import Config, DataConfig, ObjectiveConfig, ProbeConfig, SplitConfig
from sciwm.narrative import describe_data, describe_model
from sciwm.testing import small_climate

SPLIT = {
    "train": ["2000-01-01T12:00:00.000000000", "2006-12-31T12:00:00.000000000"],
    "validation": [],
    "test": ["2008-01-01", "2008-12-31"],
}


def test_the_data_are_named_with_grid_and_blocks():
    data = small_climate(years=1)
    config = Config(data=DataConfig(store="a/era.zarr", climatology="monthly", split=SplitConfig(by="time")))
    text = describe_data(config, data.assign_attrs(title="ERA-Interim."), SPLIT)
    assert "The data set is “ERA-Interim”; its variables are" in text
    assert f"{data.sizes['latitude']} × {data.sizes['longitude']} points" in text
    assert "a training block (2000-01-01 12:00 to 2006-12-31 12:00) and a test block (2008-01-01 to 2008-12-31)." in text
    assert "calendar-month means" in text
    members = dataclasses.replace(config, data=dataclasses.replace(config.data, split=SplitConfig(by="segment")))
    assert "each of whole members or trajectories" in describe_data(members, data, SPLIT)
    assert "The data are those of era.zarr" in describe_data(members, data.drop_attrs(), SPLIT)


@pytest.mark.parametrize(
    ("kind", "words"), [("sigreg", "256 random directions (SIGReg, weight 40)"), ("ema", "decay 0.996"), ("vicreg", "VICReg, weight 40")]
)
def test_the_model_is_described_with_its_own_numbers(kind, words):
    config = Config(seed=7, objective=ObjectiveConfig(kind=kind, rollout=1, lead_steps=[1, 4]), probe=ProbeConfig(targets=["nino34"]))
    text = describe_model(config, 1234567)
    for part in (words, "1,234,567 parameters", "strides of 1 and 4 time steps", "over one prediction", "seed 7", "series (nino34)"):
        assert part in text
    single = dataclasses.replace(config, objective=ObjectiveConfig(lead_steps=[1]))
    assert "strides of 1 time step." in describe_model(single, np.int64(5))
    anchored = dataclasses.replace(config, objective=dataclasses.replace(config.objective, anchor=0.5))
    assert "plus 0.5 times the squared error of the cells" in describe_model(anchored, 5)
    growing = dataclasses.replace(config, objective=dataclasses.replace(config.objective, rollout=4, curriculum=0.8))
    assert "over 4 predictions in a row (one at first, all after 60 % of the steps)" in describe_model(growing, 5)
    assert "squared error of the cells" not in text
