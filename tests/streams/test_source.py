"""Every kind of store gives the states that xarray reads from it, and segments."""

import gc
import threading

import numpy as np
import pytest
import torch
import xarray as xr

from sciwm.chunks.cache import Cache
from sciwm.chunks.chunks import ChunkReader
from sciwm.data.open import open_dataset
from sciwm.streams.readers import DaskReader, JoinedReader, SliceReader
from sciwm.streams.source import open_source
from tests.loaders import loader

RNG = np.random.default_rng(0)


def record(num=300, start="2000-01-01", freq="6h", names=("u", "v"), shape=(5, 6)):
    dims = ("time", "latitude", "longitude")
    coords = {
        "time": xr.date_range(start, periods=num, freq=freq),
        "latitude": np.arange(5.0),
        "longitude": np.arange(6.0),
    }
    return xr.Dataset(
        {n: (dims, RNG.normal(10, 3, size=(num, *shape)).astype("f4")) for n in names}, coords
    )


def read(source, start=0, stop=None):
    stop = source.shape[0] if stop is None else stop
    out = np.full((stop - start, *source.shape[1:]), -99, np.float32)
    found = source.reader.read(start, stop, out)
    assert not found.failed
    assert found.missing == bool(np.isnan(out).any())
    return out


def stacked(ds, names):
    return np.stack([ds[n].values for n in names], axis=1).astype("f4")


FORMATS = {
    "zarr3": lambda ds, path: ds.to_zarr(path / "a.zarr", zarr_format=3, consolidated=False),
    "zarr2": lambda ds, path: ds.to_zarr(path / "a.zarr", zarr_format=2),
    "netcdf4": lambda ds, path: ds.to_netcdf(
        path / "a.nc", encoding={n: {"zlib": True, "chunksizes": (20, 5, 6)} for n in ds.data_vars}
    ),
    "netcdf3": lambda ds, path: ds.to_netcdf(path / "a.nc", engine="scipy"),
    "packed": lambda ds, path: ds.to_zarr(
        path / "a.zarr",
        zarr_format=2,
        encoding={
            n: {
                "dtype": "int16",
                "scale_factor": 0.001,
                "add_offset": 10.0,
                "_FillValue": -32768,
                "chunks": (32, 5, 6),
            }
            for n in ds
        },
    ),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(tmp_path, kind):
    ds = record()
    ds["u"][7, 2, 3] = np.nan
    FORMATS[kind](ds, tmp_path)
    path = next(tmp_path.iterdir())
    source = open_source(path)
    truth = xr.open_dataset(path, **({"consolidated": False} if kind == "zarr3" else {})).load()
    assert isinstance(
        source.reader, ChunkReader if "zarr" in kind or kind == "packed" else SliceReader
    )
    assert source.channels == ("u", "v")
    np.testing.assert_array_equal(read(source), stacked(truth, "uv"))
    np.testing.assert_array_equal(read(source, 13, 101), stacked(truth, "uv")[13:101])
    assert source.condition.shape == (300, 6)
    assert source.time[1] - source.time[0] == 6
    only = open_source(path, variables=["v"])
    np.testing.assert_array_equal(read(only), stacked(truth, "v"))


def test_two_values_that_mean_missing(tmp_path):
    ds = record(40)
    ds["u"][3, 1, 1] = -9999.0
    ds["u"][4, 1, 1] = np.nan
    ds.u.attrs["missing_value"] = np.float32(-9999.0)
    ds.to_zarr(
        tmp_path / "a.zarr", zarr_format=2, encoding={"u": {"_FillValue": np.float32(np.nan)}}
    )
    for data in (tmp_path / "a.zarr", open_dataset(tmp_path / "a.zarr")):
        states = read(open_source(data))
        assert np.isnan(states[3:5, 0, 1, 1]).all()
        assert np.isnan(states).sum() == 2


def test_lazily_derived_datasets_with_uneven_chunks():
    ds = record()
    lazy = ds.chunk(time=(100, 37, 163), latitude=3)
    lazy["speed"] = np.hypot(lazy.u, lazy.v)
    lazy["anomaly"] = lazy.u - lazy.u.mean("time")
    lazy["static"] = lazy.u[0]
    source = open_source(lazy[["u", "speed", "anomaly", "static"]])
    assert isinstance(source.reader, DaskReader)
    assert source.channels == ("u", "speed", "anomaly")
    expected = np.stack([ds.u, np.hypot(ds.u, ds.v), ds.u - ds.u.mean("time")], axis=1)
    np.testing.assert_allclose(read(source), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(read(source, 90, 140), expected[90:140], rtol=1e-5, atol=1e-5)


@pytest.fixture
def zarr_path(tmp_path):
    """A Zarr store of u and v, in chunks of 32 times."""
    ds = record()
    ds["u"][7, 2, 3] = np.nan
    ds.to_zarr(
        tmp_path / "a.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={n: {"chunks": (32, 5, 6)} for n in ds},
    )
    return tmp_path / "a.zarr"


DERIVED = {
    "as it is": lambda ds: ds,
    "one": lambda ds: ds[["v"]],
    "in large chunks": lambda ds: ds.chunk(time=-1),
    "from a later time": lambda ds: ds.isel(time=slice(40, None)),
    "every second": lambda ds: ds.isel(time=slice(None, None, 2)),
    "turned": lambda ds: ds.isel(latitude=slice(None, None, -1)),
    "a region": lambda ds: ds.isel(latitude=slice(1, 4), longitude=slice(0, 2)),
    "computed": lambda ds: ds.assign(u=np.hypot(ds.u, ds.v) - ds.u[3]),
    "filled": lambda ds: ds.fillna(1.0),
}


@pytest.mark.parametrize("name", DERIVED)
def test_dask_reads_plain_zarr_arrays_without_zarr(zarr_path, monkeypatch, name):
    opened = xr.open_zarr(zarr_path, consolidated=False)[["u", "v"]]  # in any order otherwise
    expected = stacked(DERIVED[name](opened.compute()), list(DERIVED[name](opened)))
    source = open_source(DERIVED[name](opened))
    # Whoever calls it fails.
    monkeypatch.setattr("xarray.backends.zarr.ZarrArrayWrapper.__getitem__", None)
    if name == "every second":  # asks for single steps of chunks, which are left to zarr
        with pytest.raises(AssertionError):
            read(source)
        monkeypatch.undo()
    np.testing.assert_array_equal(read(source), expected)
    np.testing.assert_array_equal(read(source, 13, 101), expected[13:101])


def test_dask_leaves_to_xarray_what_xarray_decodes(tmp_path, zarr_path):
    ds = record()
    packing = {
        "dtype": "int16",
        "scale_factor": 0.001,
        "add_offset": 10.0,
        "_FillValue": -32768,
        "chunks": (32, 5, 6),
    }
    fill = {"chunks": (32, 5, 6), "_FillValue": np.float32(5.0)}
    ds.to_zarr(
        tmp_path / "packed.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={"u": packing, "v": fill},
    )
    lazy = xr.open_zarr(tmp_path / "packed.zarr", consolidated=False)
    np.testing.assert_array_equal(
        read(open_source(lazy, variables="uv")), stacked(lazy.compute(), "uv")
    )
    inline = xr.open_dataset(
        zarr_path, engine="zarr", chunks={}, inline_array=True, consolidated=False
    )
    np.testing.assert_array_equal(
        read(open_source(inline, variables="uv")), stacked(inline.compute(), "uv")
    )
    cached = xr.open_dataset(zarr_path, engine="zarr", consolidated=False)
    np.testing.assert_array_equal(
        read(open_source(cached.chunk(time=32), variables="uv")), stacked(cached.compute(), "uv")
    )


def test_dask_gives_the_fill_value_for_chunks_that_are_absent_and_names_damaged_ones(zarr_path):
    (zarr_path / "u" / "c" / "2" / "0" / "0").unlink()
    damaged = zarr_path / "v" / "c" / "5" / "0" / "0"
    damaged.write_bytes(damaged.read_bytes()[:50])
    source = open_source(xr.open_zarr(zarr_path, consolidated=False), variables="uv")
    states = read(source, 0, 128)
    assert np.isnan(states[64:96, 0]).all()
    np.testing.assert_array_equal(states[:, 1], xr.open_zarr(zarr_path, consolidated=False).v[:128])
    found = source.reader.read(100, 250, np.empty((150, 2, 5, 6), np.float32))
    assert [(f.start, f.stop) for f in found.failed] == [(160, 192)]
    source.reader.close()


def test_a_graph_too_large_to_lay_out_is_cut_block_by_block(monkeypatch):
    ds = record()
    expected = read(open_source(ds.chunk(time=16)))
    monkeypatch.setattr("sciwm.streams.readers._WHOLE", 10)
    np.testing.assert_array_equal(read(open_source(ds.chunk(time=16)), 5, 70), expected[5:70])


def test_states_of_every_rank_and_levels_become_channels():
    time = xr.date_range("2000-01-01", periods=40, freq="D")
    index = xr.Dataset({"nino34": ("time", RNG.normal(size=40))}, {"time": time})
    assert next(iter(loader(index, window=2, batch_size=4))).values.shape == (4, 2, 1)
    level = xr.Dataset(
        {
            "msl": (("time", "lat", "lon"), RNG.normal(size=(40, 3, 4))),
            "z": (("time", "level", "lat", "lon"), RNG.normal(size=(40, 2, 3, 4))),
        },
        {"time": time, "level": [500, 850]},
    )
    source = open_source(level)
    assert source.channels == ("msl", "z_500", "z_850")
    np.testing.assert_array_equal(read(source)[:, 1:], level.z.values.astype("f4"))
    swapped = open_source(level.transpose("lat", "time", "lon", "level"))
    np.testing.assert_array_equal(read(swapped), read(source))
    np.testing.assert_array_equal(read(open_source(level.chunk(time=7, level=1))), read(source))
    assert open_source(level[["z"]]).shape == (40, 1, 2, 3, 4)


def test_molecules():
    rng = np.random.default_rng(0)
    runs = [
        xr.Dataset(
            {"positions": (("time", "atom", "xyz"), rng.normal(size=(50, 10, 3)))},
            {"time": np.arange(50.0)},
        )
        for _ in range(3)
    ]
    source = open_source(runs)
    assert source.shape == (150, 10, 3)
    assert source.channels == ()
    assert source.segment.tolist() == [0] * 50 + [1] * 50 + [2] * 50
    batches = list(loader(runs, window=8, batch_size=4, every=1, drop_last=False))
    starts = sorted(torch.cat([b.index[:, 0] for b in batches]).tolist())
    assert starts == [50 * r + i for r in range(3) for i in range(43)]
    whole = np.concatenate([r.positions.values for r in runs]).astype("f4")
    for b in batches:
        np.testing.assert_array_equal(b.values.numpy(), whole[b.index.numpy()])
    assert batches[0].condition.shape == (4, 8, 0)


def test_files_that_follow_one_another_are_one_record_and_others_are_segments(tmp_path):
    ds = record(200)
    for i, part in enumerate((slice(0, 70), slice(70, 130), slice(150, 200))):  # a gap of 20
        ds.isel(time=part).to_netcdf(tmp_path / f"{i}.nc")
    source = open_source(f"{tmp_path}/*.nc")
    assert isinstance(source.reader, JoinedReader)
    assert source.segment.tolist() == [0] * 130 + [1] * 50
    kept = ds.isel(time=np.r_[0:130, 150:200])
    np.testing.assert_array_equal(read(source, 60, 165), stacked(kept, "uv")[60:165])
    members = open_source([ds, ds + 1])
    assert members.segment.tolist() == [0] * 200 + [1] * 200
    np.testing.assert_array_equal(read(members)[200:], stacked(ds + 1, "uv"))
    again = open_source(ds.assign_coords(segment=("time", np.repeat([3, 8], 100))))
    assert again.segment.tolist() == [0] * 100 + [1] * 100


def test_periods():
    ds = record(1000, freq="D")
    source = open_source(ds, period=("2000-03", "2001"))
    assert (source.label == 0).sum() == 671
    assert source.names[source.label == 0][0] == np.datetime64("2000-03-01")
    batches = list(loader(ds, window=3, batch_size=8, which=("2000-03", "2001")))
    assert min(b.index.min() for b in batches) >= 60
    noleap = ds.assign_coords(
        time=xr.date_range("2000-01-01", periods=1000, freq="D", calendar="noleap", use_cftime=True)
    )
    assert (open_source([noleap, noleap], period=("2001", "2001")).label == 0).sum() == 730
    run = xr.Dataset(
        {"positions": (("time", "atom", "xyz"), np.zeros((50, 2, 3)))}, {"time": np.arange(50.0)}
    )
    assert (open_source(run, period=(10, 19.5)).label == 0).sum() == 10
    with pytest.raises(
        ValueError, match="got which = 1990 … 1991, expected times between 2000-01-01"
    ):
        open_source(ds, period=("1990", "1991"))


def test_the_cache_serves_a_store_that_is_gone(tmp_path):
    import fsspec
    import zarr

    ds = record(64)
    store = zarr.storage.FsspecStore.from_url("memory://cached.zarr")
    ds.to_zarr(
        store, zarr_format=3, consolidated=False, encoding={n: {"chunks": (16, 5, 6)} for n in ds}
    )
    options = {"window": 2, "batch_size": 8, "mode": "block", "cache": Cache(tmp_path / "cache")}
    first = list(loader("memory://cached.zarr", **options))
    second = loader("memory://cached.zarr", **options)
    files = fsspec.filesystem("memory")
    for name in files.find("cached.zarr"):
        if "/c/" in name:
            files.rm(name)
    assert [b.values.tolist() for b in first] == [b.values.tolist() for b in second]


def test_threads_of_a_remote_store_end_with_its_stream():
    import zarr

    store = zarr.storage.FsspecStore.from_url("memory://held.zarr")
    record(64).to_zarr(store, zarr_format=3, consolidated=False)

    def fetching():
        return [t for t in threading.enumerate() if t.name.startswith("sciwm-fetch")]

    def use():
        batches = loader("memory://held.zarr", window=2, batch_size=8, mode="block")
        assert len(list(batches)) == 4
        assert fetching()

    gc.collect()
    gc.disable()
    try:
        use()
        assert not fetching()
    finally:
        gc.enable()


def test_damaged_chunks_are_named(tmp_path):
    ds = record(96)
    ds.to_zarr(
        tmp_path / "a.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={n: {"chunks": (16, 5, 6)} for n in ds},
    )
    (tmp_path / "a.zarr/v/c/2/0/0").write_bytes(b"damaged")
    (tmp_path / "a.zarr/u/c/4/0/0").unlink()
    options = {"window": 2, "batch_size": 8, "mode": "block", "drop_last": False, "every": 1}
    with pytest.raises(OSError, match=r"(?s)states of times 2000-01-.*chunk '(u/c/4|v/c/2)/0/0'"):
        list(loader(tmp_path / "a.zarr", **options))
    rest = loader(tmp_path / "a.zarr", **options, on_error="skip")
    starts = sorted(torch.cat([b.index[:, 0] for b in rest]).tolist())
    assert starts == [*range(31), *range(48, 63), *range(80, 95)]
    assert rest.skipped == 95 - len(starts)


def test_refusals(tmp_path):
    ds = record(20)
    with pytest.raises(
        ValueError, match=r"variable 'w', which the Dataset does not have along time"
    ):
        open_source(ds, variables=["w"])
    with pytest.raises(ValueError, match="expected one called 'time'; rename it"):
        open_source(ds.rename(time="valid_time"))
    with pytest.raises(ValueError, match="without a numeric variable along time"):
        open_source(xr.Dataset(coords=ds.coords))
    with pytest.raises(
        ValueError, match=r"got states .* in Dataset 1 and .* in Dataset 0, expected the same"
    ):
        open_source([ds, ds.isel(latitude=slice(3))])
    with pytest.raises(ValueError, match="repeated times"):
        open_source(xr.concat([ds, ds.isel(time=[-1])], "time"))
    with pytest.raises(ValueError, match="out of order"):
        open_source(ds.isel(time=[0, 2, 1, 3]))
    noleap = ds.assign_coords(
        time=xr.date_range("2000-01-01", periods=20, freq="6h", calendar="noleap", use_cftime=True)
    )
    with pytest.raises(ValueError, match="different calendars"):
        open_source([ds, noleap])
    days = ds.assign_coords(
        time=xr.date_range("2010-01-01", periods=20, freq="6h", calendar="360_day", use_cftime=True)
    )
    with pytest.raises(ValueError, match="different calendars"):
        open_source([noleap, days])
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "none.zarr")
