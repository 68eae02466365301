"""Every format opens lazily; damaged and missing stores say what is wrong."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import dask
import fsspec
import numpy as np
import pytest
import xarray as xr
from stores import days, field, grid, levels

from sciwm.data import read
from sciwm.data.open import open_dataset


def _zip(ds: xr.Dataset, path: Path) -> None:
    folder = path.with_suffix(".folder")
    ds.to_zarr(folder, zarr_format=3, consolidated=False)
    shutil.make_archive(str(path.with_suffix("")), "zip", folder)


WRITERS: dict[str, Callable[[xr.Dataset, Path], object]] = {
    "four.nc": lambda ds, p: ds.to_netcdf(p, format="NETCDF4"),
    "three.nc": lambda ds, p: ds.to_netcdf(p, format="NETCDF3_64BIT"),
    "two.zarr": lambda ds, p: ds.to_zarr(p, zarr_format=2, consolidated=True),
    "plain2.zarr": lambda ds, p: ds.to_zarr(p, zarr_format=2, consolidated=False),
    "v3.zarr": lambda ds, p: ds.to_zarr(p, zarr_format=3, consolidated=False),
    "store.zarr.zip": _zip,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_canonical_fields(name: str, tmp_path: Path) -> None:
    source = grid({"t850": "K"})
    WRITERS[name](source, tmp_path / name)
    ds = open_dataset(tmp_path / name)
    expected = source["t850"].isel(lat=slice(None, None, -1), lon=[3, 0, 1, 2])
    np.testing.assert_array_equal(ds["t850"].values, expected.values)
    assert ds["longitude"].values.tolist() == [-10.0, 0.0, 10.0, 20.0]
    assert ds["latitude"].values.tolist() == [0.0, 30.0, 60.0]
    assert ds["t850"].chunks is not None


def test_variables_of_a_zarr_store_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["v850", "t850", "z500", "q850", "u850", "t2m", "msl"]
    units = {"v": "m s-1", "t": "K", "z": "m2 s-2", "q": "kg kg-1", "u": "m s-1", "m": "Pa"}
    source = grid({n: units[n[0]] for n in names})
    source.to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    assert list(open_dataset(tmp_path / "s.zarr").data_vars) == sorted(names)


@pytest.mark.parametrize("name", ["store.zarr", "four.nc", "three.nc"])
def test_urls_open_through_fsspec(name: str) -> None:
    source = grid({"t850": "K"})
    url = f"memory://{name.replace('.', '-')}/{name}"
    if name.endswith("zarr"):
        source.to_zarr(url, zarr_format=3, consolidated=False)
    else:
        four = "four" in name
        kind, engine = ("NETCDF4", "h5netcdf") if four else ("NETCDF3_64BIT", "scipy")
        data = source.to_netcdf(format=kind, engine=engine)
        with fsspec.open(url, "wb") as file:
            file.write(data)
    np.testing.assert_array_equal(open_dataset(url)["t850"].sum(), source["t850"].sum())
    with pytest.raises((FileNotFoundError, ValueError), match="nothing-here"):
        open_dataset("memory://nothing-here/x.nc")


def test_no_field_is_read_while_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xarray.backends.h5netcdf_ import H5NetCDFArrayWrapper

    source = grid({"geopotential_500": "m**2 s**-2", "tas": "degC"})
    source.to_netcdf(tmp_path / "a.nc")
    source.assign_coords(time=days(10, "2001-01-11")).to_netcdf(tmp_path / "b.nc")
    levels("Pa", (85000.0, 50000.0), "plev").to_netcdf(tmp_path / "c.nc")
    read_names = []
    original = H5NetCDFArrayWrapper.__getitem__

    def spy(self: H5NetCDFArrayWrapper, key: object) -> object:
        read_names.append(self.variable_name)
        return original(self, key)

    monkeypatch.setattr(H5NetCDFArrayWrapper, "__getitem__", spy)
    open_dataset([tmp_path / "a.nc", tmp_path / "b.nc"], variables=["z500"], segments=True)
    open_dataset(tmp_path / "c.nc", variables=["z500", "t850"])
    assert set(read_names) <= {"time", "lat", "lon", "plev"}
    read_names.clear()
    open_dataset(tmp_path / "a.nc")["t2m"].values  # noqa: B018
    assert "tas" in read_names


def test_dask_arrays_in_memory_stay_uncomputed() -> None:
    def explode(*_: object, **__: object) -> None:
        raise AssertionError("a field was computed")

    source = grid({"z": "m2 s-2", "mine": "1"}).chunk(time=3)
    with dask.config.set(scheduler=explode):
        ds = open_dataset(source, variables=["z", "mine"])
    assert ds["mine"].chunksizes["time"] == (3, 3, 3, 1)


def test_chunks_follow_the_store(tmp_path: Path) -> None:
    source = xr.Dataset(
        {"t850": (("time", "lat", "lon"), np.zeros((400, 30, 40), "float32"), {"units": "K"})},
        {"time": days(400), "lat": np.linspace(-80, 80, 30), "lon": np.arange(40) * 9.0},
    )
    huge = {"t850": {"zlib": True, "chunksizes": (400, 30, 40)}}
    source.to_netcdf(tmp_path / "huge.nc", encoding=huge)
    assert open_dataset(tmp_path / "huge.nc")["t850"].chunksizes["time"] == (400,)
    small = {"t850": {"zlib": True, "chunksizes": (7, 10, 40)}}
    source.to_netcdf(tmp_path / "small.nc", encoding=small)
    sizes = open_dataset(tmp_path / "small.nc")["t850"].chunksizes
    assert (sizes["latitude"], sizes["longitude"]) == ((30,), (40,))
    given = open_dataset(tmp_path / "small.nc", chunks={"time": 50})["t850"].chunksizes
    assert given["time"] == (50,) * 8
    with pytest.raises(ValueError, match=r"chunks for \['hour'\]"):
        open_dataset(tmp_path / "small.nc", chunks={"hour": 1})


def test_long_records_are_cut_at_whole_stored_chunks() -> None:
    lazy = dask.array.zeros((10_000, 100, 100), dtype="float32", chunks=-1)
    array = xr.DataArray(lazy, dims=("time", "lat", "lon"))
    array.encoding["preferred_chunks"] = {"time": 30, "lat": 50, "lon": 50}
    sizes = read._sizes(array, "time")
    assert sizes["time"] % 30 == 0
    assert sizes["lat"] == sizes["lon"] == 100
    assert sizes["time"] == 30  # one stored chunk is more than the 1 MiB aimed at


@pytest.mark.parametrize("name", ["four.nc", "three.nc", "store.zarr.zip"])
def test_truncated_files_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](grid({"t850": "K"}, time=days(200)), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"{re.escape(name)}.*truncated"):
        open_dataset(path)


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes\.txt.*expected Zarr, netCDF or GRIB"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"no Zarr store.*/\*\.nc"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match="empty list"):
        open_dataset([])


def test_missing_paths_list_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "era5_daily.nc").write_text("")
    (tmp_path / "readme.md").write_text("")
    near = r"does not exist.*did you mean 'era5_daily.nc'.*readme.md"
    with pytest.raises(FileNotFoundError, match=near):
        open_dataset(tmp_path / "era5_dayly.nc")
    with pytest.raises(FileNotFoundError, match=r"matches nothing.*era5_daily.nc"):
        open_dataset(tmp_path / "era6*.nc")


def test_grib_without_its_reader_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.grib").write_bytes(b"GRIB0000")
    monkeypatch.setattr(read.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"sciwm\[grib\]"):
        open_dataset(tmp_path / "a.grib")


def test_times_without_a_calendar_say_what_to_do(tmp_path: Path) -> None:
    source = grid({"t850": "K"}, time=np.arange(10.0))
    source["time"].attrs["units"] = "months since 1960-01-01"
    source.to_netcdf(tmp_path / "months.nc")
    with pytest.raises(ValueError, match=r"months\.nc.*decode_times=False"):
        open_dataset(tmp_path / "months.nc")


def test_bounds_and_text_are_left_out_and_own_series_kept() -> None:
    source = grid({"t850": "K"})
    source["time_bnds"] = (("time", "bnds"), field(3, (10, 2)))
    source["label"] = ("time", list("abcdefghij"))
    source["nino34"] = ("time", field(4, (10,)))
    source["soil"] = (("time", "lat", "lon", "soil_layer"), field(5, (10, 3, 4, 2)))
    with pytest.warns(UserWarning, match="'soil' left out.*soil_layer"):
        ds = open_dataset(source)
    assert set(ds.data_vars) == {"t850", "nino34"}
    assert ds["nino34"].dims == ("time",)
    with pytest.raises(ValueError, match=r"'soil' with dims.*select along"):
        open_dataset(source, variables=["soil"])
