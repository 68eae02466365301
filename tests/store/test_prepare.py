"""The training store: contents, layout, and what interruptions and bad sources leave behind."""

import errno
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import sciwm.store.prepare as module
import sciwm.store.write as write
from sciwm.data.open import open_dataset
from sciwm.store.prepare import (
    Blocks,
    Fit,
    Origin,
    conditions,
    load_statistics,
    open_training_store,
    prepare,
)
from sciwm.times import Step

SPLIT = Blocks(by="step", train=[0, 450], validation=[450, 520], test=[520, 600], gap_steps=5)
FIT = Fit(harmonics=1)
WHOLE = Blocks(by="segment", train=[0])
MASK = Fit(harmonics=1, missing="mask")
WRITE = write._write_chunk


def grid(periods=600, calendar=None, freq="D"):
    rng = np.random.default_rng(0)
    time = xr.date_range(
        "2000-01-01",
        periods=periods,
        freq=freq,
        calendar=calendar or "standard",
        use_cftime=calendar is not None,
    )
    dims = ("time", "latitude", "longitude")
    coords = {
        "time": time,
        "segment": ("time", np.zeros(periods, np.int32)),
        "latitude": ("latitude", np.linspace(30, 60, 5), {"units": "degrees_north"}),
        "longitude": np.linspace(0, 30, 6),
        "level": [500.0, 850.0],
    }
    fields = {
        "z500": (
            dims,
            (5e4 + 300 * rng.normal(size=(periods, 5, 6))).astype("float32"),
            {"units": "m2 s-2"},
        ),
        "t": (
            ("time", "level", *dims[1:]),
            (270 + rng.normal(size=(periods, 2, 5, 6))).astype("float32"),
            {"units": "K"},
        ),
    }
    return xr.Dataset(fields, coords).chunk(time=50)


def molecule(frames=400):
    rng = np.random.default_rng(1)
    half = frames // 2
    return xr.Dataset(
        {
            "positions": (
                ("time", "atom", "xyz"),
                rng.normal(size=(frames, 4, 3)).astype("float32"),
                {"units": "nm"},
            ),
            "phi": ("time", rng.uniform(-3, 3, frames), {"units": "rad"}),
            "mass": ("atom", [12.0, 1.0, 14.0, 16.0]),
            "element": ("atom", ["C", "H", "N", "O"]),
        },
        {
            "time": ("time", np.tile(np.arange(half) * 1.0, 2), {"units": "ps"}),
            "segment": ("time", np.repeat([0, 1], half).astype(np.int32)),
        },
    )


def mapped(ds, change):
    """The same with a function applied to every chunk of one field."""
    meta = np.empty((0, 0, 0), "float32")
    data = ds.z500.data.map_blocks(change, dtype="float32", meta=meta)
    return ds.assign(z500=ds.z500.copy(data=data))


def test_grid_store_holds_what_it_promises(tmp_path):
    ds = grid()
    static = xr.Dataset(
        {"lsm": (("latitude", "longitude"), np.eye(5, 6))},
        {"latitude": ds.latitude, "longitude": ds.longitude},
    )
    static.lsm[0, 0] = np.nan
    targets = xr.Dataset(
        {
            "index": ("time", np.arange(600.0)),
            "angle": ("time", np.arange(600.0), {"units": "degrees"}),
        }
    )
    out = prepare(
        ds,
        tmp_path / "train.zarr",
        blocks=SPLIT,
        fit=FIT,
        static=static,
        targets=targets,
        origin=Origin(config='{"a": 1}', fingerprint="f"),
    )
    assert [p.name for p in tmp_path.iterdir()] == ["train.zarr"]
    store = open_training_store(out)
    statistics = load_statistics(out)
    expected = statistics.standardize(ds)
    assert store.state.dims == ("time", "channel", "latitude", "longitude")
    assert store.state.dtype == np.float32
    np.testing.assert_array_equal(store.state.values, expected.values)
    train = store.state.isel(time=store.split.values == 0)
    weights = np.cos(np.deg2rad(store.latitude))
    np.testing.assert_allclose(
        (train.astype("f8") ** 2).weighted(weights).mean(("time", "latitude", "longitude")),
        1.0,
        rtol=1e-4,
    )
    assert store.channel.values.tolist() == ["z500", "t500", "t850"]
    assert store.variable.values.tolist() == ["z500", "t", "t"]
    np.testing.assert_array_equal(store.level.values, [np.nan, 500.0, 850.0])
    assert {"variable", "level"} <= set(store.coords)
    assert np.bincount(store.split.values + 1).tolist() == [10, 450, 65, 75]
    assert store.condition.shape == (600, 4)
    assert store.target_name.values.tolist() == ["index", "angle_sin", "angle_cos"]
    np.testing.assert_allclose(
        store.target.values[:, 1], np.sin(np.deg2rad(np.arange(600.0))), atol=1e-5
    )
    assert store.static.shape == (1, 5, 6)
    assert np.isfinite(store.static.values).all()
    np.testing.assert_array_equal(store.time.values, ds.time.values)
    np.testing.assert_array_equal(store.latitude.values, ds.latitude.values)
    assert {
        k: store.attrs[k]
        for k in (
            "step_value",
            "step_unit",
            "kind",
            "fingerprint",
            "config",
            "calendar",
            "complete",
        )
    } == {
        "step_value": 24.0,
        "step_unit": "hours",
        "kind": "grid",
        "fingerprint": "f",
        "config": '{"a": 1}',
        "calendar": "proleptic_gregorian",
        "complete": True,
    }


def test_a_store_keeps_that_edges_meet(tmp_path):
    ds = grid().isel(latitude=slice(None, None, -1), level=0, drop=True)
    ds["latitude"].attrs["periodic"] = ds["longitude"].attrs["periodic"] = 1
    out = prepare(open_dataset(ds), tmp_path / "train.zarr", blocks=SPLIT, fit=FIT)
    store = open_training_store(out)
    assert (np.diff(store.latitude) > 0).all()
    assert store.latitude.attrs["periodic"] == store.longitude.attrs["periodic"] == 1
    restored = load_statistics(out).restore(store.state[:3], store.time[:3])
    np.testing.assert_allclose(restored.z500, ds.z500.sortby("latitude")[:3], rtol=1e-5)


def test_molecule_store(tmp_path):
    ds = molecule()
    blocks = Blocks(by="segment", train=[0], test=[1])
    out = prepare(ds, tmp_path / "m.zarr", blocks=blocks, targets=ds[["phi"]], progress=False)
    store = open_training_store(out)
    np.testing.assert_array_equal(store.state.values, ds.positions.values)
    assert store.state.dims == ("time", "atom", "xyz")
    assert store.condition.shape == (400, 0)
    assert store.target_name.values.tolist() == ["phi_sin", "phi_cos"]
    assert store.element.values.tolist() == ["C", "H", "N", "O"]
    assert (store.attrs["kind"], store.attrs["step_unit"], store.attrs["calendar"]) == (
        "molecule",
        "ps",
        "none",
    )
    np.testing.assert_array_equal(store.time.values, ds.time.values)
    np.testing.assert_array_equal(store.split.values, np.repeat([0, 2], 200))
    # 48 bytes a frame: chunks grow until they are worth a read
    assert zarr.open_array(out, path="state", mode="r").chunks == (400, 4, 3)


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_cftime_store(tmp_path, calendar):
    ds = grid(calendar=calendar)
    out = prepare(ds, tmp_path / "train.zarr", blocks=SPLIT, fit=FIT, progress=False)
    store = open_training_store(out)
    assert store.time.values[59] == ds.time.values[59]
    assert store.attrs["calendar"] == calendar


@pytest.mark.parametrize(
    ("lat", "expected"), [(4, 512), (16, 128), (150, 32), (256, 16), (8192, 1)]
)
def test_chunk_rule(lat, expected):
    shape = (2000, lat, 8 if lat < 200 else 256)
    values = da.zeros(shape, dtype="float32", chunks=(1, *shape[1:]))
    fields = xr.Dataset({"t": (("time", "latitude", "longitude"), values)})
    assert module._chunk_times(fields) == expected


def test_conditions():
    time = xr.date_range("2001-01-01", periods=8, freq="6h").values
    got = conditions(time, Step(6, "hours"))
    assert got.shape == (8, 6)
    np.testing.assert_allclose(got[0], [0, 1, 0, 1, 0, 1], atol=1e-7)
    np.testing.assert_allclose(got[1, 4:], [1, 0], atol=1e-6)
    assert conditions(time.reshape(2, 4), Step(24, "hours")).shape == (2, 4, 4)
    assert conditions(time, Step(1, "months")).shape == (8, 4)


class Interrupted:
    """Stands in for the chunk writer and fails after some chunks."""

    def __init__(self, after, error):
        self.left, self.error, self.starts, self.write = after, error, [], WRITE

    def __call__(self, standardize, design, path, start, *fields):
        if self.left == 0:
            raise self.error
        self.left -= 1
        self.starts.append(start)
        return self.write(standardize, design, path, start, *fields)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_an_interrupted_call_goes_on_where_it_stopped(tmp_path, monkeypatch, error):
    ds, out = grid(), tmp_path / "train.zarr"
    monkeypatch.setattr(write, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(write, "_CHUNKS_PER_THREAD", 2)
    writer = Interrupted(7, error)
    monkeypatch.setattr(write, "_write_chunk", writer)
    chunk = module._chunk_times(ds)
    assert chunk == 183
    monkeypatch.setattr(module, "_chunk_times", lambda fields: 30)
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(type(error), match="is full" if isinstance(error, OSError) else None),
    ):
        prepare(ds, out, blocks=SPLIT, fit=FIT, progress=False)
    assert not out.exists()
    with pytest.raises(FileNotFoundError, match="unfinished one lies beside"):
        open_training_store(out)
    record = json.loads((tmp_path / ".train.zarr.partial" / "progress.json").read_text())
    assert record["done"] == 180  # three blocks of two chunks; the seventh chunk is repeated
    again = Interrupted(-1, error)
    monkeypatch.setattr(write, "_write_chunk", again)
    monkeypatch.setattr(module, "fit_statistics", None)  # not fitted a second time
    prepare(ds, out, blocks=SPLIT, fit=FIT, progress=False)
    assert min(again.starts) == 180
    np.testing.assert_array_equal(
        open_training_store(out).state.values, load_statistics(out).standardize(ds).values
    )


def test_other_arguments_start_over(tmp_path, monkeypatch):
    ds, out = grid(), tmp_path / "train.zarr"
    with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(write, "_write_chunk", Interrupted(0, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            prepare(ds, out, blocks=SPLIT, fit=FIT, progress=False)
    calls = []
    fit = module.fit_statistics
    monkeypatch.setattr(module, "fit_statistics", lambda *a, **k: calls.append(1) or fit(*a, **k))
    prepare(ds, out, blocks=SPLIT, fit=Fit(climatology="monthly"), progress=False)
    assert calls == [1]
    assert load_statistics(out).climatology.kind == "monthly"
    # Replaces the older store.
    prepare(ds, out, blocks=SPLIT, fit=Fit(climatology="constant"), progress=False)
    assert load_statistics(out).climatology.kind == "constant"
    assert [p.name for p in tmp_path.iterdir()] == ["train.zarr"]


def test_an_unreadable_piece_is_named_and_nothing_looks_finished(tmp_path):
    ds, out = grid(), tmp_path / "train.zarr"

    def read(block, block_info=None):
        if block_info[0]["array-location"][0][0] == 550:
            raise OSError("chunk c/11 is damaged")
        return block

    broken = mapped(ds, read)
    with pytest.raises(OSError, match=r"2000-01-01.* … 2001-08-22.*c/11 is damaged"):
        prepare(broken, out, blocks=SPLIT, fit=FIT, progress=False)
    assert not out.exists()


def test_missing_values_outside_the_training_block(tmp_path):
    ds = grid().load()
    ds.t[570, 1, 2, 3] = np.nan
    place = r"'t850' at time 2001-07-24.*latitude 45.0, longitude 18.0"
    with pytest.raises(ValueError, match=rf"1 missing values.*{place}.*missing: mask"):
        prepare(ds, tmp_path / "train.zarr", blocks=SPLIT, fit=FIT, progress=False)
    out = prepare(ds, tmp_path / "train.zarr", blocks=SPLIT, fit=MASK, progress=False)
    assert int(open_training_store(out).state.isnull().sum()) == 1
    broken = molecule()
    broken.positions[5, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"'positions' at time 5\.0"):
        prepare(broken, tmp_path / "m.zarr", blocks=WHOLE, progress=False)


@pytest.mark.parametrize("missing", ["error", "mask"])
def test_infinite_values_are_refused_even_where_missing_ones_are_masked(tmp_path, missing):
    ds = grid().load()
    ds.t[570, 1, 2, 3] = -np.inf
    ds.t[575, 1, 2, 3] = np.inf
    place = r"'t850' at time 2001-07-24.*latitude 45.0, longitude 18.0"
    with pytest.raises(ValueError, match=rf"2 infinite values.*{place}.*in the source"):
        prepare(
            ds,
            tmp_path / "train.zarr",
            blocks=SPLIT,
            fit=replace(FIT, missing=missing),
            progress=False,
        )
    assert not (tmp_path / "train.zarr").exists()
    broken = molecule()
    broken.positions[5, 0, 0] = np.inf
    fit = Fit(missing=missing)
    with pytest.raises(ValueError, match=r"1 infinite values.*'positions' at time 5\.0"):
        prepare(broken, tmp_path / "m.zarr", blocks=WHOLE, fit=fit, progress=False)


def test_gaps_in_targets_are_refused_where_they_would_be_used(tmp_path):
    ds, out = grid(), tmp_path / "train.zarr"
    options = {"blocks": replace(SPLIT, test=[520, 590]), "fit": FIT, "progress": False}
    series = np.arange(600.0)
    series[[455, 470, 595]] = np.nan  # the last in none of the blocks
    targets = xr.Dataset({"whole": ("time", np.arange(600.0)), "index": ("time", series)})
    what = r"target 'index' with 2 missing.* first at time 2001-03-31.*probe\.targets"
    with pytest.raises(ValueError, match=what):
        prepare(ds, out, targets=targets, **options)
    assert list(tmp_path.iterdir()) == []
    targets["index"][[455, 470]] = 0.0
    prepare(ds, out, targets=targets, **options)


def test_refusals(tmp_path):
    ds = grid()
    (tmp_path / "notes").mkdir()
    with pytest.raises(FileExistsError, match="no training store"):
        prepare(ds, tmp_path / "notes", blocks=SPLIT)
    with pytest.raises(ValueError, match="'complete' is not set"):
        open_training_store(tmp_path / "notes")
    with pytest.raises(FileNotFoundError, match="sciwm prepare"):
        open_training_store(tmp_path / "nothing")
    with pytest.raises(ValueError, match="expected fields"):
        prepare(ds.drop_vars(["z500", "t"]), tmp_path / "a.zarr", blocks=SPLIT)
    with pytest.raises(ValueError, match="target 'x'"):
        prepare(
            ds, tmp_path / "a.zarr", blocks=SPLIT, targets=xr.Dataset({"x": ("time", np.ones(3))})
        )
    flat = xr.Dataset(
        {"one": (("latitude", "longitude"), np.ones((5, 6)))}, {"latitude": ds.latitude}
    )
    with pytest.raises(ValueError, match="static field 'one'"):
        prepare(ds, tmp_path / "a.zarr", blocks=SPLIT, static=flat)


def test_a_killed_process_leaves_something_to_go_on_with(tmp_path):
    source, out = tmp_path / "source.nc", tmp_path / "train.zarr"
    grid().drop_vars("segment").to_netcdf(source, engine="scipy")
    script = f"""
import os, xarray as xr
import sciwm.store.prepare as module
import sciwm.store.write as write
record = write.record_progress
def die(partial, key, done):
    record(partial, key, done)
    if done >= 366:
        os._exit(9)
    return done
write.record_progress, write._BLOCK_BYTES, write._CHUNKS_PER_THREAD = die, 1, 1
with xr.open_dataset({str(source)!r}, engine="scipy", chunks={{"time": 50}}) as ds:
    module.prepare(
        ds, {str(out)!r}, blocks=module.{SPLIT!r}, fit=module.{FIT!r}, progress=False
    )
"""
    root = Path(module.__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", script], check=False, env=os.environ | {"PYTHONPATH": str(root)}
    )
    assert killed.returncode == 9
    assert not out.exists()
    with (
        xr.open_dataset(source, engine="scipy", chunks={"time": 50}) as ds,
        pytest.MonkeyPatch.context() as patch,
    ):
        writer = Interrupted(-1, None)
        patch.setattr(write, "_write_chunk", writer)
        prepare(ds, out, blocks=SPLIT, fit=FIT, progress=False)
        assert writer.starts == [366, 549]
        np.testing.assert_array_equal(
            open_training_store(out).state.values, load_statistics(out).standardize(ds).values
        )


class Counted:
    """An array that notes how often each of its chunks of time is read."""

    def __init__(self, values, chunk):
        self.values, self.chunk, self.reads = values, chunk, Counter()
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        times = range(len(self.values))[key[0]]
        if len(times):
            self.reads.update(range(times[0] // self.chunk, times[-1] // self.chunk + 1))
        return self.values[key]


def counted(ds, name, chunk):
    source = Counted(ds[name].values, chunk)
    lazy = da.from_array(
        source,
        chunks=(chunk, *source.shape[1:]),
        name=False,
        asarray=False,
        meta=np.empty((0,) * source.ndim, "float32"),
    )
    return source, ds[name].copy(data=lazy)


@pytest.mark.parametrize(("z_chunk", "t_chunk"), [(1, 32), (50, 50), (600, 33)])
def test_the_source_is_read_once_for_the_statistics_and_once_for_the_writing(
    tmp_path, monkeypatch, z_chunk, t_chunk
):
    ds = grid().load()
    z, lazy_z = counted(ds, "z500", z_chunk)
    t, lazy_t = counted(ds, "t", t_chunk)
    # levels taken one by one out of an array whose chunks hold them all
    one, two = (lazy_t.isel(level=i, drop=True).drop_attrs() * 1.0 for i in (0, 1))
    fields = xr.Dataset(
        {"z500": lazy_z, "t500": one, "t850": two}, ds.drop_vars(["z500", "t"]).coords
    ).drop_vars("level")
    monkeypatch.setattr(write, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(write, "_CHUNKS_PER_THREAD", 2)
    monkeypatch.setattr(module, "_chunk_times", lambda fields: 32)
    after = {}
    start = module._write_skeleton
    monkeypatch.setattr(
        module,
        "_write_skeleton",
        lambda *a: after.update(z=z.reads.copy(), t=t.reads.copy()) or start(*a),
    )
    with dask.config.set(scheduler="threads"):
        out = prepare(fields, tmp_path / "train.zarr", blocks=SPLIT, fit=FIT, progress=False)
    for source, reads, chunk in ((z, after["z"], z_chunk), (t, after["t"], t_chunk)):
        assert reads == Counter(range(-(-450 // chunk)))  # of the training block, 0 … 449
        assert source.reads - reads == Counter(range(-(-600 // chunk)))
    expected = load_statistics(out).standardize(fields.compute())
    np.testing.assert_allclose(
        open_training_store(out).state.values, expected.values, rtol=0, atol=3e-7
    )


def test_a_chunk_without_a_value_is_written(tmp_path):
    ds = grid().load()
    ds.z500[550:] = np.nan
    ds.t[550:] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_chunk_times", lambda fields: 30)
        out = prepare(ds, tmp_path / "train.zarr", blocks=SPLIT, fit=MASK, progress=False)
    assert sorted(int(p.name) for p in (out / "state" / "c").iterdir()) == list(range(20))
    assert zarr.open_array(out, path="state", mode="r").nchunks_initialized == 20
    assert np.isnan(open_training_store(out).state.values[550:]).all()


def files(store):
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def test_worker_processes_write_the_same_bytes_though_one_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    ds, flag = grid(), tmp_path / "killed"

    def die_once(block):
        if not flag.exists():
            flag.touch()
            os._exit(1)
        return block

    mortal = mapped(ds, die_once)
    threads_store = prepare(ds, tmp_path / "a.zarr", blocks=SPLIT, fit=FIT, progress=False)
    settings = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "dashboard_address": None,
        "silence_logs": logging.CRITICAL,
    }
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster):
        cluster_store = prepare(mortal, tmp_path / "b.zarr", blocks=SPLIT, fit=FIT, progress=False)
    assert flag.exists()
    assert files(cluster_store) == files(threads_store)


def test_a_cluster_that_loses_its_work_leaves_something_to_go_on_with(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    ds, out = grid(), tmp_path / "train.zarr"
    monkeypatch.setattr(write, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(write, "_CHUNKS_PER_THREAD", 1)
    monkeypatch.setattr(module, "_chunk_times", lambda fields: 30)
    record = write.record_progress

    def restart(partial, key, done):
        if done == 240:
            client.restart(wait_for_workers=False)
        return record(partial, key, done)

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        monkeypatch.context() as patch,
    ):
        patch.setattr(write, "record_progress", restart)
        lost = r"the cluster lost its work on times .* what was written before is kept"
        with pytest.raises(OSError, match=lost):
            prepare(ds, out, blocks=SPLIT, fit=FIT, progress=False)
        record = json.loads((tmp_path / ".train.zarr.partial" / "progress.json").read_text())
        assert record["done"] == 240
    monkeypatch.setattr(module, "fit_statistics", None)  # not fitted a second time
    prepare(ds, out, blocks=SPLIT, fit=FIT, progress=False)
    np.testing.assert_array_equal(
        open_training_store(out).state.values, load_statistics(out).standardize(ds).values
    )


def test_a_worker_that_does_not_see_the_folder_is_told_plainly(tmp_path):
    with pytest.raises(FileNotFoundError, match="one file system that all workers share"):
        WRITE(None, np.zeros((1, 0)), str(tmp_path / "elsewhere"), 0)


@pytest.mark.parametrize("suffix", ["zarr", "zip", "nc", "nc3"])
def test_what_reads_a_store_can_be_sent_to_a_worker(tmp_path, suffix):
    cloudpickle = pytest.importorskip("cloudpickle")
    ds, path = grid(120).drop_vars("segment").load(), tmp_path / f"a.{suffix}"
    if suffix == "zarr":
        ds.to_zarr(path, zarr_format=3, consolidated=False)
    elif suffix == "zip":
        ds.to_zarr(tmp_path / "a", zarr_format=3, consolidated=False)
        shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "a")
    else:
        ds.to_netcdf(path, engine="h5netcdf" if suffix == "nc" else "scipy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        opened = open_dataset(path)
        again = pickle.loads(cloudpickle.dumps(opened))
        xr.testing.assert_equal(again.compute(), opened.compute())
