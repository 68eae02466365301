"""Which truth belongs to which forecast, in hours, months and picoseconds."""

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from reports import grid_forecast

from sciwm.report.fields import Field, match_fields, truth_at, typical_case


def times_of(values, **coords):
    others = {k: ("time", v) for k, v in coords.items()}
    return xr.DataArray(values, {"time": values} | others, "time")


def inits_of(values, **coords):
    others = {k: ("init_time", v) for k, v in coords.items()}
    return xr.DataArray(values, others, "init_time")


def test_truth_is_found_for_hours_months_and_picoseconds():
    days = pd.date_range("2000-02-27", periods=4, freq="D").values
    lead = xr.DataArray(np.array([24, 72], "m8[h]").astype("m8[ns]"), dims="lead_time")
    found = truth_at(times_of(days), inits_of(days[:2]), lead)
    np.testing.assert_array_equal(found, [[1, 3], [2, -1]])
    noleap = np.array([cftime.DatetimeNoLeap(2000, *day) for day in ((2, 27), (2, 28), (3, 1))])
    found = truth_at(times_of(noleap), inits_of(noleap[:2]), lead)
    np.testing.assert_array_equal(found, [[1, -1], [2, -1]])
    # the middle of months: 31 January and 29 February are valid a month apart, whatever the day
    months = np.array(["2000-01-31", "2000-02-29", "2000-03-31"], "datetime64[ns]")
    lead = xr.DataArray([1, 2], dims="lead_time", attrs={"units": "months"})
    found = truth_at(times_of(months), inits_of(months), lead)
    np.testing.assert_array_equal(found, [[1, 2], [2, -1], [-1, -1]])
    middle = np.array([cftime.Datetime360Day(1999, 12, 16), cftime.Datetime360Day(2000, 1, 16)])
    np.testing.assert_array_equal(truth_at(times_of(middle), inits_of(middle[:1]), lead), [[1, -1]])
    lead = xr.DataArray([0.2, 0.4], dims="lead_time", attrs={"units": "ps"})
    ps = np.tile(np.arange(4) * 0.2, 2)
    piece = np.repeat([0, 1], 4)
    found = truth_at(times_of(ps, segment=piece), inits_of(ps[[0, 6]], segment=piece[[0, 6]]), lead)
    np.testing.assert_array_equal(found, [[1, 2], [7, -1]])
    with pytest.raises(ValueError, match="segment"):
        truth_at(times_of(ps), inits_of(ps[:1]), lead)


def test_typical_case_has_the_median_error():
    forecast, observed = grid_forecast()
    forecast = forecast.isel(init_time=slice(0, 29))
    at = np.arange(29)[:, None] + np.array([1, 2, 3, 5])
    weight = np.cos(np.deg2rad(observed["latitude"].values))[:, None] * np.ones(24)
    square = (forecast["z500"].values - observed["z500"].values[at]) ** 2
    error = np.sqrt((square * weight).sum(axis=(2, 3)) / weight.sum())
    relative = (error / error.mean(axis=0)).mean(axis=1)
    expected = int(np.abs(relative - np.median(relative)).argmin())
    assert typical_case(Field("z500", "m", forecast["z500"], observed["z500"])) == expected
    assert 10 < expected < 20
    late = observed["z500"].isel(time=slice(0, 2))
    assert typical_case(Field("z500", "m", forecast["z500"], late)) is None


def test_levels_members_and_missing_truth_are_matched():
    forecast, observed = grid_forecast()
    level = {"level": [500.0]}
    members = xr.concat([forecast["z500"] - 1, forecast["z500"] + 1], dim="number")
    members = members.expand_dims(level).transpose("init_time", "lead_time", "number", "level", ...)
    world = xr.Dataset({"z": members, "q": forecast["u850"], "mask": forecast["latitude"]})
    (field,), remarks = match_fields(world, observed)
    assert (field.name, field.units, field.members) == ("z500", "m", True)
    np.testing.assert_allclose(field.forecast.values, forecast["z500"].values)
    assert remarks == ["Not drawn, because the observed data have no such field: q."]
    stacked = xr.Dataset({"z": observed["z500"].expand_dims(level)})
    (field,), _ = match_fields(world[["z"]], stacked)
    np.testing.assert_array_equal(field.observed.values, observed["z500"].values)
