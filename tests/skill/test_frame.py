import io

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rich.console import Console
from truths import forecast_of, weather
from truths import scored as evaluate

from sciwm.skill.frame import render, to_frame, write_skill

COLUMNS = [
    *("variable", "level", "region", "lead_hours", "method", "metric"),
    *("value", "ci_low", "ci_high", "units", "num_init"),
]


@pytest.fixture(scope="module")
def skill():
    observed = weather(900).rename(t850="z500")
    observed.z500.attrs["units"] = "m2 s-2"
    observed["index"] = observed.z500.mean(("latitude", "longitude"))
    forecast = {"mine": forecast_of(observed, range(750, 850), [1, 3])}
    return evaluate(
        forecast,
        observed,
        train=slice("2000", "2001"),
        baselines=("climatology", "persistence"),
        regions=("all", "south:35,45,-5,20"),
        resamples=100,
    )


def test_rows_are_those_of_the_table(skill):
    frame = to_frame(skill)
    assert frame.columns.tolist() == COLUMNS
    # z500 in two regions, the index in one; two leads, three methods, four metrics
    assert len(frame) == 3 * 2 * 3 * 4
    row = frame.query(
        "variable == 'z500' and region == 'south' and lead_hours == 72 and method == 'mine' and"
        " metric == 'mae'"
    )
    where = {
        "channel": "z500",
        "region": "south",
        "method": "mine",
        "metric": "mae",
        "lead_time": np.timedelta64(72, "h"),
    }
    assert row.value.item() == skill.value.loc[where].item()
    assert row.ci_low.item() == skill.ci_low.loc[where].item()
    assert row.units.item() == "m2 s-2"
    assert row.num_init.item() == 100
    assert set(frame[frame.metric == "acc"].units) == {"1"}
    assert frame.level.isna().all()


def test_files_can_be_read_back(skill, tmp_path):
    write_skill(skill, tmp_path / "skill.csv", tmp_path / "skill.nc")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["skill.csv", "skill.nc"]
    head, first, *_ = (tmp_path / "skill.csv").read_text().splitlines()
    assert head == ",".join(COLUMNS)
    assert first.startswith("z500,,all,24.0,mine,rmse,")
    table = pd.read_csv(tmp_path / "skill.csv")
    pd.testing.assert_frame_equal(table, to_frame(skill), check_dtype=False)
    with xr.open_dataset(tmp_path / "skill.nc", engine="h5netcdf") as back:
        np.testing.assert_array_equal(back.value, skill.value)
        assert back.attrs["block_length"] == skill.attrs["block_length"]
        pd.testing.assert_frame_equal(to_frame(back), to_frame(skill), check_dtype=False)


@pytest.mark.parametrize(
    ("units", "values", "column"),
    [("months", [3, 6], "lead_months"), ("ps", [1.0, 5.0], "lead_ps")],
)
def test_lead_columns_follow_the_unit(skill, units, values, column):
    other = skill.assign_coords(lead_time=("lead_time", values, {"units": units}))
    frame = to_frame(other)
    assert column in frame
    assert sorted(set(frame[column])) == values
    assert f"{values[0]:g} {units}" in printed(other)


def printed(skill, **options):
    console = Console(
        file=io.StringIO(), width=100, force_terminal=True, color_system=None, **options
    )
    render(skill, console=console)
    return console.file.getvalue()


def test_tables_show_methods_leads_and_the_best_in_bold(skill):
    text = printed(skill)
    assert "z500, rmse, m2 s-2" in text
    assert "south" in text
    assert text.count("index, rmse") == 1
    assert "1 d" in text
    assert "3 d" in text
    assert "climatology" in text
    assert "100 initial times" in text
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    render(skill, console=console)
    mine = skill.value.loc[{"channel": "z500", "region": "all", "method": "mine", "metric": "rmse"}]
    assert f"\x1b[1m{mine[0].item():.2f}" in console.file.getvalue()


def test_the_best_correlation_is_the_largest_and_undefined_ones_are_dashes(skill):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    render(skill, metric="acc", console=console)
    text = console.file.getvalue()
    acc = skill.value.loc[{"channel": "z500", "region": "all", "metric": "acc"}]
    assert f"\x1b[1m{acc.max('method')[0].item():.3f}" in text
    assert "–" in text
    render(skill, metric="bias", console=console)
    assert "bias" in console.file.getvalue()


def test_unknown_metrics_are_named(skill):
    held = "got metric 'nmse', expected one of this table: rmse, mae, bias, acc"
    with pytest.raises(ValueError, match=held):
        render(skill, metric="nmse")
    with pytest.raises(ValueError, match=r"known: rmse"):
        render(skill, metric="crpss")


def test_nothing_but_dashes_and_hours_that_are_not_days(skill):
    hours = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    empty = skill.assign(value=skill.value * np.nan, ci_low=skill.ci_low * np.nan)
    assert "6 hours" in printed(empty.assign_coords(lead_time=hours))
    zero = printed(skill.assign(value=skill.value * 0))
    assert "0.00" in zero
