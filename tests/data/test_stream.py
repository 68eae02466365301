"""Batches: right values in every mode, exact resumption, bounded memory, clean ends."""

import threading
from dataclasses import fields
from itertools import islice

import numpy as np
import pytest
import torch
import xarray as xr

import sciwm.data.stream as module
from sciwm.data.prepare import open_training_store, prepare
from sciwm.data.stream import stream

OPTIONS = {"length": 4, "lead_steps": (1, 3), "batch_size": 16, "seed": 7}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(0)
    dims = ("time", "latitude", "longitude")
    coords = {
        "time": xr.date_range("2000-01-01", periods=1500, freq="D"),
        "segment": ("time", np.repeat([0, 1], [400, 1100]).astype(np.int32)),
        "latitude": np.linspace(-30, 30, 16),
        "longitude": np.arange(36.0),
    }
    values = (280 + rng.normal(size=(1500, 16, 36))).astype("float32")
    values[:, 3, 4] = np.nan
    values[700, 1, 1] = np.nan
    ds = xr.Dataset({"sst": (dims, values)}, coords).chunk(time=100)
    out = tmp_path_factory.mktemp("store") / "train.zarr"
    split = {"by": "step", "train": [0, 1200], "validation": [1200, 1350], "test": [1350, 1500], "gap_steps": 9}
    return prepare(ds, out, **split, harmonics=1, missing="mask", progress=False)


def same(a, b):
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def check(batch, store):
    index = batch.index.numpy()
    expected = store.state.values[index]
    np.testing.assert_array_equal(batch.values.numpy(), np.nan_to_num(expected))
    np.testing.assert_array_equal(batch.valid.numpy(), ~np.isnan(expected))
    np.testing.assert_array_equal(np.diff(index, axis=1), np.repeat(batch.lead_steps.numpy()[:, None], index.shape[1] - 1, 1))
    np.testing.assert_array_equal(batch.condition.numpy(), store.condition.values[index])
    hours = (store.time.values - np.datetime64("1970-01-01")) / np.timedelta64(1, "h")
    np.testing.assert_array_equal(batch.time.numpy(), hours[index])
    assert batch.values.dtype == torch.float32
    assert batch.values.is_contiguous()


@pytest.mark.parametrize("mode", ["resident", "block"])
def test_values_and_labels(path, mode):
    store = open_training_store(path).load()
    batches = list(stream(path, **OPTIONS, epochs=2, mode=mode))
    assert len(batches) > 8
    for batch in batches:
        check(batch, store)
        assert (store.split.values[batch.index.numpy()] == 0).all()
        assert (np.ptp(store.segment.values[batch.index.numpy()], axis=1) == 0).all()
    assert {b.lead_steps.max().item() for b in batches} == {3}


@pytest.mark.parametrize("order", ["block", "none"])
def test_both_modes_serve_the_same_batches(path, order):
    a, b = (list(stream(path, **OPTIONS, epochs=3, mode=m, order=order)) for m in ("resident", "block"))
    assert len(a) == len(b)
    assert all(same(x, y) for x, y in zip(a, b, strict=True))
    ds = list(stream(open_training_store(path), **OPTIONS, epochs=3, mode="block", order=order))
    assert all(same(x, y) for x, y in zip(a, ds, strict=True))


@pytest.mark.parametrize("mode", ["resident", "block"])
@pytest.mark.parametrize("start", [0, 3, 17, 18, 19, 100])
def test_start_batch_continues_exactly(path, mode, start):
    unbroken = list(islice(stream(path, **OPTIONS, mode=mode), start + 4))
    resumed = stream(path, **OPTIONS, mode=mode, start_batch=start)
    got = list(islice(resumed, 4))
    assert all(same(x, y) for x, y in zip(unbroken[start:], got, strict=True))
    assert resumed.state_dict() == {"seed": 7, "batches": start + 4}


def test_state_dict_round_trip(path):
    first = stream(path, **OPTIONS)
    expected = list(islice(stream(path, **OPTIONS), 30))
    seen = list(islice(first, 11))
    second = stream(path, **OPTIONS)
    second.load_state_dict(first.state_dict())
    seen += list(islice(second, 19))
    assert all(same(x, y) for x, y in zip(expected, seen, strict=True))
    with pytest.raises(ValueError, match="seed 7, expected seed 8"):
        stream(path, **OPTIONS | {"seed": 8}).load_state_dict(first.state_dict())


@pytest.mark.parametrize("mode", ["resident", "block"])
def test_ordered_windows_for_evaluation_cover_all(path, mode):
    batches = list(stream(path, which="test", length=3, batch_size=16, shuffle=False, epochs=1, mode=mode))
    starts = torch.cat([b.index[:, 0] for b in batches]).tolist()
    assert starts == list(range(1359, 1498))
    assert len(batches[-1]) == 139 % 16


@pytest.mark.parametrize("mode", ["resident", "block"])
def test_ranks_are_disjoint_and_equally_long(path, mode):
    ranks = [list(stream(path, **OPTIONS, epochs=1, rank=r, world_size=2, mode=mode)) for r in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    starts = [set(torch.cat([b.index[:, 0] for b in batches]).tolist()) for batches in ranks]
    assert not starts[0] & starts[1]


def test_memory_decides_the_mode_and_bounds_the_pool(path):
    state = 16 * 36 * 4
    assert stream(path, **OPTIONS, memory_limit=2 * 1200 * state).mode == "resident"
    tight = stream(path, **OPTIONS, memory_limit=600 * state)
    assert (tight.mode, tight.order) == ("block", "block")
    assert (tight.pool + 4) * (tight.block + 9) <= 600
    store = open_training_store(path).load()
    made = []
    original = module.Pool.__init__

    def spy(self, *args):
        original(self, *args)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Pool, "__init__", spy)
        for batch in islice(tight, 60):
            check(batch, store)
    assert len(made[0].states) <= 600


def test_a_pool_too_small_for_the_plan_grows(path):
    loose = stream(path, **OPTIONS, mode="block", epochs=1)
    expected = list(loose)
    loose.block, loose.pool = 57, 4
    other = list(loose)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AHEAD", -5)
        assert all(same(a, b) for a, b in zip(other, loose, strict=True))
    assert len(expected) >= len(other) - 1


def test_small_blocks_of_windows_give_one_short_batch(path):
    batches = list(stream(path, which="validation", length=3, batch_size=500, epochs=1))
    assert [len(b) for b in batches] == [139]
    assert len(list(stream(path, which="validation", length=3, batch_size=100, epochs=1))) == 1
    assert len(list(stream(path, which="validation", length=3, batch_size=100, epochs=1, drop_last=False))) == 2


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("sciwm-read")]


@pytest.mark.parametrize("mode", ["resident", "block"])
def test_reader_errors_arrive_and_threads_end(path, mode):
    damaged = open_training_store(path)

    def read(block, block_info=None):
        if block_info[0]["array-location"][0][0] >= 400:
            raise RuntimeError("bad checksum")
        return block

    meta = np.empty((0,) * 4, "float32")
    damaged["state"] = damaged.state.copy(data=damaged.state.data.map_blocks(read, dtype="float32", meta=meta))
    with pytest.raises(OSError, match=r"could not read the states of times 200.* bad checksum"):
        list(stream(damaged, **OPTIONS, mode=mode, epochs=1))
    assert not readers()


def test_an_early_end_stops_the_readers(path):
    iterator = iter(stream(path, **OPTIONS, mode="block"))
    next(iterator)
    assert readers()
    iterator.close()
    assert not readers()


def test_refusals(path):
    with pytest.raises(ValueError, match="order 'global' while reading in blocks"):
        stream(path, **OPTIONS, mode="block", order="global")
    with pytest.raises(ValueError, match="rank 2 of 2"):
        stream(path, **OPTIONS, rank=2, world_size=2)
    with pytest.raises(ValueError, match=r"memory limit of 0 MiB, expected at least \d+ MiB"):
        stream(path, **OPTIONS, memory_limit=10_000)
    with pytest.raises(ValueError, match="at least one each"):
        next(iter(stream(path, **OPTIONS, world_size=5000)))
    with pytest.raises(ValueError, match=r"141 times without 200 in a row"):
        stream(path, which="validation", length=200, batch_size=4)
