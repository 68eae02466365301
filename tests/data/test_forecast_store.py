"""Forecasts on disk: what goes in comes out, whole or not at all."""

import numpy as np
import pytest
import xarray as xr

from sciwm import testing
from sciwm.data.forecast_store import to_disk_layout, write_forecast
from sciwm.data.open import open_dataset, open_forecast


def forecast(num=7, *, hours=24, calendar="standard", seed=0):
    """Forecasts with as many initial times, drawn at random."""
    ds = open_dataset(testing.small_climate(years=1, calendar=calendar, grid=(3, 4)))
    rng = np.random.default_rng(seed)
    dates = {"calendar": calendar, "use_cftime": calendar != "standard"}
    start = xr.date_range("2001-03-01", periods=num, freq=f"{hours}h", **dates)
    dims = ("init_time", "lead_time", "latitude", "longitude")
    fields = {n: rng.normal(size=(num, 2, 3, 4)).astype("float32") for n in ds.data_vars}
    data = {n: (dims, values, ds[n].attrs) for n, values in fields.items()}
    lead = np.array([24, 120], "timedelta64[h]").astype("timedelta64[ns]")
    coords = {
        "init_time": np.asarray(start.values),
        "lead_time": lead,
        "latitude": ds.latitude,
        "longitude": ds.longitude,
    }
    return xr.Dataset(data, coords, ds.attrs)


def batches(ds, sizes):
    ends = np.cumsum(sizes)
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        yield ds.isel(init_time=slice(int(begin), int(end)))


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
@pytest.mark.parametrize("sizes", [[7], [3, 2, 2], [1] * 7])
@pytest.mark.parametrize("hours", [24, 6])
def test_round_trip(tmp_path, sizes, hours, calendar):
    ds = forecast(hours=hours, calendar=calendar)
    attrs = {"method": "jepa"}
    path = write_forecast(batches(ds, sizes), tmp_path / "out.zarr", total=sum(sizes), attrs=attrs)
    again = open_forecast(str(path)).load()
    assert again.attrs["method"] == "jepa"
    for name in ds.data_vars:
        np.testing.assert_array_equal(again[name].transpose(*ds[name].dims), ds[name])
        assert again[name].attrs["units"] == ds[name].attrs["units"]
    assert again.init_time.values.tolist() == ds.init_time.values.tolist()
    np.testing.assert_array_equal(again.lead_time, ds.lead_time)
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]


def test_layout_on_disk(tmp_path):
    path = write_forecast(batches(forecast(), [4, 3]), tmp_path / "deep" / "out.zarr", total=7)
    with xr.open_zarr(path, consolidated=False) as raw:
        assert raw.z500.dims == ("time", "prediction_timedelta", "latitude", "longitude")
        assert raw.z500.shape == (7, 2, 3, 4)
        assert len(raw.sizes) == 4
        assert raw.time.attrs["standard_name"] == "forecast_reference_time"
        assert raw.prediction_timedelta.dtype == "timedelta64[ns]"


def test_names_and_order_of_the_source_come_back(tmp_path):
    wild = testing.small_climate(years=1).drop_vars("segment").drop_attrs()
    for name, units in (("z500", "m2 s-2"), ("t850", "K")):
        wild[name].attrs["units"] = units
    wild = wild.isel(latitude=slice(None, None, -1))
    wild = wild.assign_coords(longitude=wild.longitude % 360).sortby("longitude")
    wild = wild.rename(latitude="lat", longitude="lon")
    lead = np.array([24], "timedelta64[h]").astype("timedelta64[ns]")
    some = open_dataset(wild).isel(time=slice(5, 8)).drop_vars("segment")
    one = some.rename(time="init_time").expand_dims(lead_time=lead, axis=1)
    disk = to_disk_layout(one.load())
    np.testing.assert_array_equal(disk.lat, wild.lat)
    np.testing.assert_array_equal(disk.lon, wild.lon)
    first_lead = disk.t850.isel(prediction_timedelta=0).transpose("time", "lat", "lon")
    np.testing.assert_array_equal(first_lead, wild.t850.isel(time=slice(5, 8)))


def test_an_exception_midway_leaves_no_store(tmp_path):
    def broken():
        yield from batches(forecast(), [3])
        raise RuntimeError("out of luck")

    out = tmp_path / "out.zarr"
    with pytest.raises(RuntimeError, match="luck"):
        write_forecast(broken(), out, total=7)
    assert not out.exists()
    # And does not stand in the way of the next attempt.
    write_forecast(batches(forecast(seed=1), [7]), out, total=7)
    written = open_forecast(str(out)).z500.transpose("init_time", "lead_time", ...)
    np.testing.assert_array_equal(written, forecast(seed=1).z500)
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]


def test_an_existing_path_is_refused(tmp_path):
    out = tmp_path / "out.zarr"
    out.mkdir()
    with pytest.raises(FileExistsError, match="exists already, expected a new name"):
        write_forecast(batches(forecast(), [7]), out, total=7)


def test_nothing_to_write(tmp_path):
    with pytest.raises(ValueError, match="at least one initial time"):
        write_forecast([], tmp_path / "out.zarr", total=0)
    assert not (tmp_path / "out.zarr").exists()


def test_only_one_batch_is_held(tmp_path):
    """Batches are written as they come: the second is asked for when the first is on disk."""
    counts = []

    def watched():
        for batch in batches(forecast(), [3, 2, 2]):
            for partial in tmp_path.glob(".out.zarr.*/out.zarr"):
                counts.append(xr.open_zarr(partial, consolidated=False).sizes["time"])
            yield batch

    write_forecast(watched(), tmp_path / "out.zarr", total=7)
    assert counts == [3, 5]
