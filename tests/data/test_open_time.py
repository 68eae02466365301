"""Times: joined, stacked, refused or split; every calendar; segments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from stores import days, field, grid, molecule

from sciwm.data.open import open_dataset, to_original
from sciwm.times import infer_step


def _at(time: Any) -> xr.Dataset:
    return grid({"tas": "K"}, time=np.asarray(time))


def test_pieces_of_one_record_are_joined_in_order_of_time(tmp_path: Path) -> None:
    source = _at(days(30))
    for i, name in enumerate(["c", "a", "b"]):
        source.isel(time=slice(10 * i, 10 * i + 10)).to_netcdf(tmp_path / f"{name}.nc")
    ds = open_dataset(str(tmp_path / "*.nc"))
    np.testing.assert_array_equal(ds["time"], source["time"])
    np.testing.assert_array_equal(to_original(ds)["tas"], source["tas"])
    assert not ds["segment"].any()
    assert "segment" not in to_original(ds).coords


def test_overlapping_pieces_are_segments() -> None:
    members = [grid({"tas": "K"}, seed=i) for i in range(3)]
    ds = open_dataset(members)
    assert np.bincount(ds["segment"]).tolist() == [10, 10, 10]
    assert ds["segment"].dtype == np.int32
    joined = np.concatenate([member["tas"].values for member in members])
    np.testing.assert_array_equal(to_original(ds)["tas"].values, joined)
    assert infer_step(ds["time"]).value == 24


def test_pieces_that_overlap_a_little_are_refused() -> None:
    pieces = [_at(days(10)), _at(days(10, "2001-01-10"))]
    named = r"Dataset 0 and Dataset 1 overlapping in 1 times, from 2001-01-10"
    with pytest.raises(ValueError, match=named):
        open_dataset(pieces)
    three = [_at(days(10)), _at(days(10)), _at(days(10, "2002-01-01"))]
    with pytest.raises(ValueError, match="Dataset 0 and Dataset 1 overlapping in 10 times"):
        open_dataset(three)


def test_one_file_per_variable_is_merged(tmp_path: Path) -> None:
    source = grid({"tas": "K", "psl": "Pa"})
    source["orog"] = (("lat", "lon"), field(8, (3, 4)))
    for name in source.data_vars:
        for half, part in enumerate((slice(0, 5), slice(5, 10))):
            if name != "orog":
                source[[name]].isel(time=part).to_netcdf(tmp_path / f"{name}_{half}.nc")
    source[["orog"]].to_netcdf(tmp_path / "orog.nc")
    ds = open_dataset(tmp_path / "*.nc")
    assert set(ds.data_vars) == {"t2m", "msl", "orog"}
    expected = source.drop_vars("time").assign_coords(time=source["time"])
    xr.testing.assert_allclose(to_original(ds), expected)
    assert set(open_dataset(tmp_path / "*.nc", variables=["msl"]).data_vars) == {"msl"}
    with pytest.raises(ValueError, match=r"unknown variable 'sst'.*msl, orog, t2m"):
        open_dataset(tmp_path / "*.nc", variables=["sst"])
    with pytest.raises(ValueError, match="other times in Dataset 1 than in Dataset 0"):
        open_dataset([source[["tas"]], source[["psl"]].isel(time=slice(1, None))])
    with pytest.raises(ValueError, match="same variables, or none in common"):
        open_dataset([source, source[["psl"]]])


def test_pieces_on_other_grids_or_calendars_are_named() -> None:
    for latitude in ([1.0, 2.0, 3.0], [1.0, 2.0]):
        other = grid({"tas": "K"}, latitude=latitude, time=days(10, "2002-01-01"))
        with pytest.raises(ValueError, match="another latitude in Dataset 1 than in Dataset 0"):
            open_dataset([_at(days()), other])
    noleap = xr.date_range("2002-01-01", periods=10, calendar="noleap", use_cftime=True)
    named = r"different calendars: standard.* in Dataset 0, noleap in Dataset 1"
    with pytest.raises(ValueError, match=named):
        open_dataset([_at(days()), _at(noleap)])


@pytest.mark.parametrize("dim", ["member", "number", "realization", "trajectory", "segment"])
def test_members_become_segments_and_members_again(dim: str) -> None:
    source = xr.concat([grid({"tas": "K"}, seed=i) for i in range(3)], dim)
    source = source.assign_coords({dim: [4, 5, 6]})
    source = source.transpose("time", dim, "lat", "lon")
    source["orog"] = (("lat", "lon"), field(8, (3, 4)))
    ds = open_dataset(source)
    assert ds["t2m"].dims == ("time", "latitude", "longitude")
    assert np.bincount(ds["segment"]).tolist() == [10, 10, 10]
    back = to_original(ds)
    xr.testing.assert_allclose(back, source)
    assert back["tas"].dims == source["tas"].dims
    uneven = to_original(ds.isel(time=slice(1, None)))
    assert uneven.sizes["time"] == 29
    joined = open_dataset([source, source.assign_coords(time=days(10, "2001-01-11"))])
    assert np.bincount(joined["segment"]).tolist() == [20, 20, 20]


def test_repeated_and_unordered_times_are_counted() -> None:
    time = days(10)
    counted = r"repeated times.*: 2001-01-04T00:00:00, 2001-01-04.*, 2001-01-04.* … \(6 in all\)"
    with pytest.raises(ValueError, match=counted):
        open_dataset(_at(np.where(np.arange(10) > 3, time[3], time)))
    with pytest.raises(ValueError, match=r"out of order.*2001-01-01T00:00:00 after later"):
        open_dataset(_at(np.roll(time, 2)))


def test_gaps_are_named_or_split() -> None:
    time = np.concatenate([days(10), days(5, "2001-02-01"), days(8, "2001-03-01")])
    named = r"gaps in time in the Dataset: before 2001-02-01T00:00:00, 2001-03-01.*segments=True"
    with pytest.raises(ValueError, match=named):
        open_dataset(_at(time))
    ds = open_dataset(_at(time), segments=True)
    assert np.bincount(ds["segment"]).tolist() == [10, 5, 8]
    np.testing.assert_array_equal(ds["time"], time)
    again = open_dataset(ds)
    np.testing.assert_array_equal(again["segment"], ds["segment"])
    early = np.concatenate([days(5), days(5, "2001-01-06") - np.timedelta64(6, "h")])
    with pytest.raises(ValueError, match="irregular"):
        open_dataset(_at(early), segments=True)
    with pytest.raises(ValueError, match="irregular"):
        open_dataset(_at(days(100)[np.cumsum(np.arange(10) % 4 + 1)]), segments=True)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "all_leap", "proleptic_gregorian"])
@pytest.mark.parametrize("freq", ["D", "6h", "MS"])
def test_calendars_keep_their_dates(calendar: str, freq: str, tmp_path: Path) -> None:
    time = xr.date_range("1999-11-01", periods=40, freq=freq, calendar=calendar, use_cftime=True)
    source = _at(time)
    source.to_netcdf(tmp_path / "a.nc")
    ds = open_dataset(tmp_path / "a.nc")
    if calendar == "proleptic_gregorian":
        assert ds["time"].dtype == "datetime64[ns]"
    else:
        assert ds["time"].values[0].calendar == calendar
    assert [str(t)[:10] for t in ds["time"].values] == [str(t)[:10] for t in time]
    holed = source.isel(time=[*range(20), *range(22, 40)])
    with pytest.raises(ValueError, match="gaps"):
        open_dataset(holed)
    assert int(open_dataset(holed, segments=True)["segment"].max()) == 1


def test_mid_month_dates_and_coarse_datetimes() -> None:
    months = np.arange("2000-01", "2003-01", dtype="datetime64[M]")
    middle = months.astype("datetime64[D]") + np.timedelta64(14, "D")
    ds = open_dataset(_at(middle.astype("datetime64[s]")))
    assert ds["time"].dtype == "datetime64[ns]"
    assert str(infer_step(ds["time"])) == "1 months"
    last = (months + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    open_dataset(_at(last.astype("datetime64[ns]")))
    with pytest.raises(ValueError, match=r"gaps.*before 2001-03"):
        open_dataset(_at(np.delete(middle, [12, 13]).astype("datetime64[ns]")))


def test_axes_without_dates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'time' as plain numbers in units ''.*fs, ps or ns"):
        open_dataset(_at(np.arange(10)))
    with pytest.raises(ValueError, match=r"'time' without values.*assign_coords"):
        open_dataset(grid({"tas": "K"}).drop_vars("time"))
    with pytest.raises(ValueError, match="without a time dimension"):
        open_dataset(grid({"tas": "K"}).isel(time=0))
    with pytest.raises(ValueError, match="no times"):
        open_dataset(_at(days()).isel(time=slice(0, 0)))
    assert open_dataset(_at(days(1))).sizes["time"] == 1


@pytest.mark.parametrize(
    ("units", "factor"),
    [("nm", 1.0), ("angstrom", 0.1), ("Angstrom", 0.1), ("Å", 0.1), ("A", 0.1), ("pm", 1e-3)],
)
def test_molecules_are_in_nanometres_picoseconds_and_radians(units: str, factor: float) -> None:
    source = molecule(units=units, time_units="fs")
    ds = open_dataset(source)
    assert ds["positions"].dtype == np.float32
    assert ds["positions"].attrs["units"] == "nm"
    np.testing.assert_allclose(ds["positions"], source["positions"] * factor, rtol=1e-6)
    np.testing.assert_allclose(ds["time"], source["time"] * 1e-3)
    np.testing.assert_allclose(ds["phi"], np.deg2rad(source["phi"]))
    assert (ds["phi"].attrs["units"], ds["time"].attrs["units"]) == ("rad", "ps")
    assert ds["mass"].dims == ("atom",)
    back = to_original(ds)
    xr.testing.assert_allclose(back, source.assign_coords(xyz=["x", "y", "z"]), rtol=1e-5)
    assert back["positions"].attrs == source["positions"].attrs


def test_molecules_without_units_are_refused_with_the_fix() -> None:
    source = molecule()
    del source["positions"].attrs["units"]
    with pytest.raises(ValueError, match=r'without units.*\["positions"\].attrs\["units"\] = "nm"'):
        open_dataset(source)
    with pytest.raises(ValueError, match="'positions' in 'K'"):
        open_dataset(molecule(units="K"))
    with pytest.raises(ValueError, match="plain numbers in units ''"):
        open_dataset(molecule(time_units=""))
    with pytest.raises(ValueError, match="without a time"):
        open_dataset(molecule().isel(time=0))
    two = molecule().rename(positions="one").assign(two=molecule()["positions"])
    with pytest.raises(ValueError, match=r"\['one', 'two'\].*'positions'"):
        open_dataset(two)


def test_amber_conventions_and_trajectory_dimensions() -> None:
    amber = molecule(units="angstrom", time_units="picosecond")
    amber = amber.rename(positions="coordinates", xyz="spatial")
    amber = amber.rename_dims(time="frame").reset_index("time").reset_coords("time")
    ds = open_dataset(amber)
    assert ds["positions"].dims == ("time", "atom", "xyz")
    assert ds["time"].values[0] == 1.0
    assert to_original(ds)["coordinates"].dims == ("frame", "atom", "spatial")
    both = [molecule(seed=i) for i in range(2)]
    stacked = xr.concat(both, "trajectory", data_vars=["positions", "phi"])
    ds = open_dataset(stacked.transpose("atom", ...))
    assert ds["positions"].dims == ("time", "atom", "xyz")
    assert np.bincount(ds["segment"]).tolist() == [20, 20]
    np.testing.assert_allclose(ds["positions"][20:], molecule(seed=1)["positions"], rtol=1e-6)


def test_trajectories_overlap_and_pieces_follow() -> None:
    runs = [molecule(count, seed=count) for count in (20, 12, 20)]
    ds = open_dataset(runs, variables=["positions", "phi"])
    assert np.bincount(ds["segment"]).tolist() == [20, 12, 20]
    second = ds["positions"].isel(time=slice(20, 32))
    np.testing.assert_allclose(second, runs[1]["positions"], rtol=1e-6)
    longer = open_dataset([molecule(20), molecule(20, start=21.0)])
    assert not longer["segment"].any()
    other = molecule().assign_coords(atom=["A", "B", "C", "X"])
    with pytest.raises(ValueError, match="another atom in Dataset 1"):
        open_dataset([molecule(), other])
    with pytest.raises(ValueError, match=r"time steps of 1 ps in Dataset 0 and 2 ps in Dataset 1"):
        open_dataset([molecule(), molecule().isel(time=slice(None, None, 2))])
