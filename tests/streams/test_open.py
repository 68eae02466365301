"""Batches: right values in every mode, exact resumption, bounded memory, clean ends."""

import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from itertools import islice

import numpy as np
import pytest
import torch
import xarray as xr
from type_checks import unchecked

from sciwm.store.prepare import Blocks, Fit, open_training_store, prepare
from sciwm.streams.ahead import ahead
from sciwm.streams.choices import Order, Reading
from sciwm.streams.windows import Spacing
from tests.loaders import loader
from tests.two_ranks import run_on_two_ranks

OPTIONS = {"window": 4, "lead_steps": (1, 3), "batch_size": 16, "seed": 7}
SMALL = {"mode": "block", "memory_limit": 3 * 2**20}
APART = OPTIONS | {"window": Spacing(5, context=3, context_step=2)}


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
    blocks = Blocks(
        by="step", train=[0, 1200], validation=[1200, 1350], test=[1350, 1500], gap_steps=9
    )
    fit = Fit(harmonics=1, missing="mask")
    return prepare(ds, out, blocks=blocks, fit=fit, progress=False)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A Zarr store of 1,000 times without missing values, in small chunks."""
    rng = np.random.default_rng(1)
    ds = xr.Dataset(
        {n: (("time", "y", "x"), rng.normal(size=(1000, 6, 8)).astype("f4")) for n in ("u", "v")},
        {"time": xr.date_range("2000-01-01", periods=1000, freq="6h")},
    )
    out = tmp_path_factory.mktemp("complete") / "a.zarr"
    ds.to_zarr(
        out, zarr_format=3, consolidated=False, encoding={n: {"chunks": (16, 6, 8)} for n in "uv"}
    )
    return out


def same(a, b):
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def all_same(a, b):
    a, b = list(a), list(b)
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def starts(batches):
    return torch.cat([b.index[:, 0] for b in batches]).tolist()


def check(batch, store, spacing):
    index = batch.index.numpy()
    expected = store.state.values[index]
    np.testing.assert_array_equal(batch.values.numpy(), np.nan_to_num(expected))
    np.testing.assert_array_equal(batch.valid.numpy(), ~np.isnan(expected))
    steps = np.repeat(batch.lead_steps.numpy()[:, None], spacing.length - 1, 1)
    steps[:, : spacing.context - 1] = spacing.context_step
    np.testing.assert_array_equal(np.diff(index, axis=1), steps)
    np.testing.assert_array_equal(batch.condition.numpy(), store.condition.values[index])
    hours = (store.time.values - np.datetime64("1970-01-01")) / np.timedelta64(1, "h")
    np.testing.assert_array_equal(batch.time.numpy(), hours[index])
    assert batch.values.dtype == torch.float32
    assert batch.values.is_contiguous()


@pytest.mark.parametrize(
    "window", [Spacing(4), APART["window"], Spacing(4, 4, 5), Spacing(6, 2, 40)]
)
@pytest.mark.parametrize("options", [{"mode": "resident"}, SMALL])
def test_values_and_labels(path, options, window):
    store = open_training_store(path).load()
    batches = list(loader(path, **OPTIONS | {"window": window}, epochs=2, every=1, **options))
    assert len(batches) > 100
    for batch in batches:
        check(batch, store, window)
        assert (store.split.values[batch.index.numpy()] == 0).all()
        assert (np.ptp(store.segment.values[batch.index.numpy()], axis=1) == 0).all()
    assert {b.lead_steps.max().item() for b in batches} == {3}


@pytest.mark.parametrize("windows", [OPTIONS, APART], ids=["stride", "context"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_way_of_reading_serves_the_same_batches(path, shuffle, windows):
    options = windows | {"epochs": 3, "every": 2, "shuffle": shuffle}
    block = loader(path, **options, **SMALL)
    expected = list(block)
    assert block.mode == "block"
    resident = loader(path, **options, mode="resident")
    assert all_same(expected, replace(resident, order=block.order, sizes=block.sizes))
    for data in (open_training_store(path), open_training_store(path).load()):
        same_sizes = replace(loader(data, **options, mode="block"), sizes=block.sizes)
        assert all_same(expected, same_sizes)


@pytest.mark.parametrize("options", [{"mode": "resident"}, SMALL])
@pytest.mark.parametrize("start", [0, 3, 17, 18, 19, 200])
def test_seek_continues_exactly(path, options, start):
    unbroken = islice(loader(path, **OPTIONS, **options, epochs=None), start, start + 4)
    resumed = loader(path, **OPTIONS, **options, epochs=None)
    resumed.seek(start)
    assert all_same(unbroken, islice(resumed, 4))


@pytest.mark.parametrize("windows", [OPTIONS, APART], ids=["stride", "context"])
def test_killed_and_resumed_anywhere_with_any_number_of_threads(path, windows):
    options = windows | SMALL | {"epochs": None, "every": 2}
    expected = list(islice(loader(path, **options), 120))
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 110, 20).tolist():
        before, after = rng.integers(1, 5, 2).tolist()
        first = loader(path, **options, threads=before)
        iterator = iter(first)
        seen = list(islice(iterator, position))
        state = first.state_dict()
        iterator.close()
        second = loader(path, **options, threads=after)
        second.load_state_dict(state)
        assert all_same(expected[position : position + 10], islice(second, 10))
        assert all_same(expected[:position], seen)


def test_a_state_fits_only_the_stream_it_came_from(path):
    state = loader(path, **OPTIONS).state_dict()
    with pytest.raises(ValueError, match="with seed 7, expected seed 8"):
        loader(path, **OPTIONS | {"seed": 8}).load_state_dict(state)
    with pytest.raises(ValueError, match=r"with windows \d+, expected windows"):
        loader(path, **OPTIONS | {"window": 3}).load_state_dict(state)
    with pytest.raises(ValueError, match=r"with lead_steps \[1, 3\], expected lead_steps \[1\]"):
        loader(path, **OPTIONS | {"lead_steps": (1,)}).load_state_dict(state)
    for window, message in (
        (Spacing(4, 2), "with context 1, expected context 2"),
        (Spacing(4, context_step=2), "with context_step 1, expected context_step 2"),
    ):
        with pytest.raises(ValueError, match=message):
            loader(path, **OPTIONS | {"window": window}).load_state_dict(state)
    with pytest.raises(ValueError, match="with weights None, expected weights"):
        loader(path, **OPTIONS, weights=np.ones(1500)).load_state_dict(state)
    other = r"with order global, expected order block.*pass the same mode"
    with pytest.raises(ValueError, match=other):
        loader(path, **OPTIONS, mode="block", every=1).load_state_dict(state)
    with pytest.raises(ValueError, match=r"with every 1, expected every 2.*pass the same mode"):
        loader(path, **OPTIONS, every=2).load_state_dict(state)


def test_a_state_without_a_context_is_one_of_states_a_stride_apart(path):
    first = loader(path, **OPTIONS)
    next(iter(first))
    state = {k: v for k, v in first.state_dict().items() if not k.startswith("context")}
    assert len(state) == len(first.state_dict()) - 2
    resumed, again = loader(path, **OPTIONS), loader(path, **OPTIONS)
    resumed.load_state_dict(state)
    assert all_same(islice(again, 1, None), resumed)
    with pytest.raises(ValueError, match="with context 1, expected context 3"):
        loader(path, **APART).load_state_dict(state)


def test_a_state_brings_its_sizes_along(path):
    wide, tight = (
        loader(path, **OPTIONS, mode="block", epochs=1, memory_limit=n * 2**20) for n in (40, 3)
    )
    expected = list(wide)
    resumed = loader(path, **OPTIONS, mode="block", epochs=1, memory_limit=40 * 2**20)
    iterator = iter(resumed)
    next(iterator)
    assert tight.sizes.block != wide.sizes.block
    tight.load_state_dict(resumed.state_dict())
    assert all_same(expected[1:], tight)


@pytest.mark.parametrize("ranks", [(1, 2), (2, 1), (3, 2), (2, 4)])
@pytest.mark.parametrize("options", [{"mode": "resident"}, SMALL])
def test_another_number_of_ranks_goes_on_without_repeating_a_window(path, ranks, options):
    options = OPTIONS | options | {"epochs": 1, "drop_last": False, "every": 1}
    old = [loader(path, **options, rank=r, world_size=ranks[0]) for r in range(ranks[0])]
    iterators = [iter(s) for s in old]
    seen = [b for iterator in iterators for b in islice(iterator, 7)]
    states = [s.state_dict() for s in old]
    assert all(s == states[0] for s in states)
    new = [loader(path, **options, rank=r, world_size=ranks[1]) for r in range(ranks[1])]
    for s in new:
        s.load_state_dict(states[0])
    parts = [list(s) for s in new]
    assert len({len(p) for p in parts}) == 1
    together = starts(seen) + [x for p in parts for x in starts(p)]
    whole = starts(loader(path, **options))
    assert len(set(together)) == len(together) > len(whole) - ranks[1]
    assert set(together) <= set(whole)
    fresh = loader(path, **options | {"epochs": 2}, rank=0, world_size=ranks[1])
    # The next epoch is an ordinary one.
    assert all_same(islice(fresh, fresh.batches_per_epoch(), None), new[0])


def test_each_iteration_is_the_next_epoch(path):
    a = loader(path, **OPTIONS)
    epochs = [list(a), list(a)]
    assert epochs[0][0].index.tolist() != epochs[1][0].index.tolist()
    assert len(a) == len(epochs[0]) == a.batches_per_epoch()
    assert all_same(epochs[0] + epochs[1], loader(path, **OPTIONS | {"epochs": 2}))
    b = loader(path, **OPTIONS)
    next(iter(b))  # an epoch left early is not gone on with
    assert all_same(epochs[1], b)
    with pytest.raises(TypeError, match="without end has no length"):
        len(loader(path, **OPTIONS, epochs=None))


@pytest.mark.parametrize("mode", ["resident", "block"])
def test_ordered_windows_for_evaluation_cover_all(path, mode):
    batches = list(loader(path, which="test", window=3, batch_size=16, shuffle=False, mode=mode))
    assert starts(batches) == list(range(1359, 1498))
    assert len(batches[-1]) == 139 % 16


@pytest.mark.parametrize("options", [{"mode": "resident"}, SMALL])
def test_ranks_are_disjoint_and_equally_long(path, options):
    ranks = [list(loader(path, **OPTIONS, rank=r, world_size=3, **options)) for r in range(3)]
    assert len({len(r) for r in ranks}) == 1
    seen = [set(starts(batches)) for batches in ranks]
    assert not seen[0] & seen[1] | seen[1] & seen[2] | seen[0] & seen[2]


def test_ranks_come_from_torch_distributed(path, tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        assert (loader(path, **OPTIONS).rank, loader(path, **OPTIONS).world_size) == (0, 1)
        assert loader(path, **OPTIONS, rank=1, world_size=2).rank == 1
    finally:
        torch.distributed.destroy_process_group()


WHOLE = {"lead_steps": [1], "drop_last": False, "every": 1}
MODES = {mode["mode"]: OPTIONS | WHOLE | mode for mode in ({"mode": "resident"}, SMALL)}


def windows_of_a_rank(rank, path):
    return {
        mode: [(b.index[:, 0].tolist(), b.values) for b in loader(path, **options)]
        for mode, options in MODES.items()
    }


@pytest.fixture(scope="module")
def windows_of_ranks(path, tmp_path_factory):
    """Of all modes at once, because two processes take longer to start than to read."""
    return run_on_two_ranks(windows_of_a_rank, tmp_path_factory.mktemp("ranks"), path)


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_of_a_group_see_together_what_one_sees(path, windows_of_ranks, mode):
    ranks = [windows[mode] for windows in windows_of_ranks]
    seen = [[start for starts, _ in rank for start in starts] for rank in ranks]
    whole = list(loader(path, **MODES[mode]))
    expected = starts(whole)
    assert len(seen[0]) == len(seen[1]) == len(expected) // 2
    assert len(set(seen[0] + seen[1])) == len(seen[0] + seen[1])
    assert set(seen[0] + seen[1]) <= set(expected)
    assert len(expected) - len(seen[0] + seen[1]) <= 1  # an odd one is left for another epoch
    values = {int(b.index[i, 0]): b.values[i] for b in whole for i in range(len(b))}
    for rank in ranks:
        for starts_of, states in rank:
            assert torch.equal(states, torch.stack([values[s] for s in starts_of]))


def test_memory_decides_the_mode_and_bounds_the_pool(path, monkeypatch):
    state = 16 * 36 * 4
    assert loader(path, **OPTIONS, memory_limit=2 * 1200 * state).mode == "resident"
    tight = loader(path, **OPTIONS, memory_limit=1200 * state, epochs=1, every=1)
    assert (tight.mode, tight.order) == ("block", "block")
    made = []
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: made.append(empty(*a, **k)) or made[-1])
    store = open_training_store(path).load()
    for batch in tight:
        check(batch, store, Spacing(4))
    largest = max(t.numel() * t.element_size() for t in made)
    assert largest + 4 * 16 * 4 * state <= 1200 * state


def test_complete_data_has_a_mask_of_one_byte(complete):
    ds = xr.open_zarr(complete, consolidated=False).load()
    for options in ({"mode": "resident"}, {"mode": "block"}):
        batches = list(loader(complete, window=3, batch_size=8, every=3, **options))
        assert len(batches) == 333 // 8
        for batch in batches:
            expected = np.stack([ds[n].values[batch.index.numpy()] for n in ("u", "v")], axis=2)
            np.testing.assert_array_equal(batch.values.numpy(), expected)
            assert batch.valid.all()
            assert batch.valid.untyped_storage().nbytes() == 1
            assert batch.to("cpu").valid.shape == batch.values.shape


def test_bfloat16(complete):
    plain, half = (
        list(loader(complete, window=3, batch_size=8, mode=m, dtype=d))
        for m, d in (("block", torch.float32), ("block", torch.bfloat16))
    )
    assert all(
        torch.equal(a.values.to(torch.bfloat16), b.values) for a, b in zip(plain, half, strict=True)
    )
    resident = list(loader(complete, window=3, batch_size=8, every=3, dtype=torch.bfloat16))
    assert resident[0].values.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"dtype torch.float64"):
        loader(complete, window=3, batch_size=8, dtype=torch.float64)


def test_weights_draw_some_times_more_often(complete):
    weights = np.where(np.arange(1000) < 200, 4.0, 1.0)
    options = {"window": 3, "batch_size": 10}
    batches = loader(complete, **options, weights=weights, epochs=30, mode="block")
    drawn = np.bincount(starts(batches), minlength=1000)
    assert drawn[:200].mean() / drawn[200:998].mean() == pytest.approx(4, rel=0.05)
    with pytest.raises(ValueError, match=r"shape \(3,\), expected one for each of the 1000 times"):
        loader(complete, **options, weights=np.ones(3))
    with pytest.raises(ValueError, match="expected at least one positive"):
        loader(complete, **options, weights=np.zeros(1000))


def test_small_blocks_of_windows_give_one_short_batch(path):
    options = {"which": "validation", "window": 3}
    assert [len(b) for b in loader(path, **options, batch_size=500)] == [139]
    assert len(list(loader(path, **options, batch_size=100))) == 1
    assert len(list(loader(path, **options, batch_size=100, drop_last=False))) == 2


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("sciwm")]


def damage(path, when):
    ds = open_training_store(path)

    def read(block, block_info=None):
        if when(block_info[0]["array-location"][0][0]):
            raise RuntimeError("bad checksum")
        return block

    meta = np.empty((0,) * 4, "float32")
    ds["state"] = ds.state.copy(data=ds.state.data.map_blocks(read, dtype="float32", meta=meta))
    return ds


@pytest.mark.parametrize("options", [{"mode": "resident"}, SMALL])
def test_reader_errors_arrive_and_threads_end(path, options):
    what = r"of times 200.* steps \d+ to \d+ of the training store.* bad checksum"
    with pytest.raises(OSError, match=f"could not read the states {what}"):
        list(loader(damage(path, lambda start: start >= 400), **OPTIONS, **options))
    assert not readers()


@pytest.mark.parametrize("options", [{"mode": "resident"}, SMALL])
def test_windows_that_cannot_be_read_are_skipped_and_counted(path, options):
    options = OPTIONS | options | {"every": 1, "epochs": 1}
    expected = starts(loader(path, **options))
    chunk = open_training_store(path).state.chunksizes["time"][0]
    low, high = 400 // chunk * chunk, 600 // chunk * chunk
    damaged = loader(damage(path, lambda start: low <= start < high), **options, on_error="skip")
    batches = list(damaged)
    lost = [bool(((b.index >= low) & (b.index < high)).any()) for b in batches]
    assert not any(lost)
    whole = loader(path, **options)
    index = torch.cat([b.index for b in whole])
    touched = ((index >= low) & (index < high)).any(1)
    kept = index[~touched, 0].tolist()
    assert starts(batches) == kept
    assert damaged.skipped == len(expected) - len(kept) > 150
    everything = loader(damage(path, lambda start: True), **options, on_error="skip")
    assert list(everything) == []
    assert everything.skipped == len(expected)
    state = everything.state_dict()
    assert (state["epoch"], state["batch"]) == (1, 0)  # batches that were lost count


def test_an_early_end_stops_the_readers(path):
    iterator = iter(loader(path, **OPTIONS, **SMALL))
    next(iterator)
    assert readers()
    iterator.close()
    assert not readers()
    for _ in loader(path, **OPTIONS, **SMALL):
        break
    assert not readers()


def test_an_error_in_the_loop_stops_the_readers(path):
    def train():
        for _ in loader(path, **OPTIONS, **SMALL, epochs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert not readers()


def test_a_program_may_end_in_the_middle(complete):
    code = (
        "from sciwm import Order, Reading, stream;"
        f"batches = stream({str(complete)!r}, window=3, batch_size=8, order=Order(epochs=None),"
        " reading=Reading(mode='block')); it = iter(batches); next(it)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_readers_wait_for_a_slow_consumer(complete, monkeypatch):
    from sciwm.streams.pool import Filler

    reads = []
    original = Filler.fill

    def counted(self, start, stop, out):
        reads.append(start)
        return original(self, start, stop, out)

    monkeypatch.setattr(Filler, "fill", counted)
    batches = loader(
        complete, window=3, batch_size=8, mode="block", memory_limit=200_000, epochs=None
    )
    iterator = iter(batches)
    next(iterator)
    time.sleep(0.3)
    held = len(reads)
    assert held <= batches.sizes.slots
    time.sleep(0.3)
    assert len(reads) == held
    iterator.close()


def test_large_batches_are_part_of_the_memory(complete):
    held = 1000 * 2 * 6 * 8 * 4
    assert loader(complete, window=3, batch_size=8, memory_limit=3 * held).mode == "resident"
    less = loader(complete, window=40, batch_size=8, every=1, memory_limit=5 * held // 2)
    assert less.mode == "block"
    with pytest.raises(ValueError, match=r"memory limit of 1 MiB, expected at least \d+ MiB"):
        loader(complete, window=50, batch_size=8, memory_limit=3 * held)


def test_the_thread_that_collects_garbage_never_waits_for_itself():
    def items():
        yield 1
        yield 2

    iterator = ahead(items(), 1)
    assert next(iterator) == (1, 1)
    collector = threading.Thread(target=iterator.close, name="sciwm-read_0")
    collector.start()
    collector.join(10)
    assert not collector.is_alive()
    assert list(ahead(items(), 1)) == [(1, 1), (2, 2), (2, None)]


@pytest.fixture(params=[False, True], ids=["states whole", "channels apart"])
def layout(request, monkeypatch):
    """Both ways to keep states, whatever the size of a channel."""
    monkeypatch.setattr("sciwm.streams.source._APART", 1 if request.param else 2**62)
    return request.param


@pytest.mark.parametrize("mode", ["block", "resident"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_do_not_depend_on_how_states_are_kept(complete, layout, mode, dtype):
    ds = xr.open_zarr(complete, chunks=None, consolidated=False).load()[["u", "v"]]
    whole = torch.from_numpy(np.stack([ds[n].values for n in "uv"], axis=1)).to(dtype)
    for data in (
        complete,
        ds,
        ds.chunk(time=50),
        [ds.isel(time=slice(0, 430)), ds.isel(time=slice(430, None))],
    ):
        batches = loader(data, window=3, batch_size=32, mode=mode, dtype=dtype, memory_limit=2**20)
        assert batches.source.apart is layout
        for batch in batches:
            assert torch.equal(batch.values, whole[batch.index])


def test_a_damaged_chunk_costs_its_windows_however_states_are_kept(complete, layout, tmp_path):
    damaged = tmp_path / "a.zarr"
    shutil.copytree(complete, damaged)
    (damaged / "v" / "c" / "10" / "0" / "0").write_bytes(b"no chunk")
    whole = xr.open_zarr(complete, chunks=None, consolidated=False)
    options = {"every": 1, "mode": "block", "memory_limit": 2**20, "drop_last": False}
    batches = loader(damaged, window=3, batch_size=32, on_error="skip", **options)
    seen = []
    for batch in batches:
        seen.append(batch.index)
        np.testing.assert_array_equal(
            batch.values[:, :, 1].numpy(), whole["v"].values[batch.index.numpy()]
        )
    times = torch.cat(seen)
    assert not ((times >= 160) & (times < 176)).any()
    assert batches.skipped == 16 + 2
    assert len(times) == 1000 - 2 - 18


def test_a_full_pool_grows_and_keeps_what_it_holds(complete, layout):
    from sciwm.streams.pool import Filler, Pool
    from sciwm.streams.source import open_source

    source = open_source(complete)
    filler = Filler(source, torch.float32, "raise")
    pool = Pool(filler, source, torch.float32, slot_times=40, slots=1, threads=1)
    for epoch, start in ((0, 0), (0, 100), (1, 200)):
        pool.submit((epoch, start), start, start + 40)
    whole = np.empty(source.shape, np.float32)
    source.reader.read(0, 1000, whole)
    for key in ((0, 0), (0, 100), (1, 200)):
        offset, missing = pool.wait(key)
        assert not missing
        kept = torch.empty((40, *source.shape[1:]))
        pool.states.take(key[1] + offset + np.arange(40), kept)
        np.testing.assert_array_equal(kept.numpy(), whole[key[1] : key[1] + 40])
    pool.release([(0, 0), (0, 100)])
    assert pool.has_room()
    assert (1, 200) in pool
    assert (0, 0) not in pool
    pool.close()


def test_small_states_in_long_chunks_are_read_several_chunks_at_a_time(tmp_path):
    time = np.arange(64_000) * 0.1
    frames = xr.Dataset(
        {"positions": (("time", "atom", "xyz"), np.zeros((64_000, 2, 3), "f4"))}, {"time": time}
    )
    frames.to_zarr(
        tmp_path / "a.zarr",
        zarr_format=3,
        consolidated=False,
        encoding={"positions": {"chunks": (500, 2, 3)}},
    )
    options = {"batch_size": 32, "mode": "block"}
    sizes = loader(tmp_path / "a.zarr", window=64, **options).sizes
    assert (sizes.block, sizes.pool) == (2000, 16)  # half of the record in the pool
    assert sizes.slots < 3 * sizes.pool + 5
    single = loader(tmp_path / "a.zarr", window=1, **options).sizes
    assert single.block == 1000  # nothing is decoded twice
    small = loader(tmp_path / "a.zarr", window=64, memory_limit=2**20, **options).sizes
    assert small.block < 2000


def test_not_in_worker_processes(complete, monkeypatch):
    batches = loader(complete, window=3, batch_size=8)
    wrapped = torch.utils.data.DataLoader(batches, batch_size=None)
    assert next(iter(wrapped)).values.shape == (8, 3, 2, 6, 8)
    with pytest.raises(RuntimeError, match="sent to another process, expected num_workers=0"):
        pickle.dumps(batches)
    monkeypatch.setattr("sciwm.streams.batches.get_worker_info", lambda: 1)
    with pytest.raises(RuntimeError, match="inside a DataLoader worker, expected num_workers=0"):
        next(iter(batches))


def test_refusals(path):
    with pytest.raises(ValueError, match="rank 2 of 2"):
        loader(path, **OPTIONS, rank=2, world_size=2)
    with pytest.raises(ValueError, match="expected both or neither"):
        loader(path, **OPTIONS, rank=2)
    with pytest.raises(ValueError, match="got a window of 0 states, expected at least 1"):
        loader(path, window=0, batch_size=4)
    with pytest.raises(ValueError, match="got batch_size 0, expected at least 1"):
        loader(path, window=4, batch_size=0)
    with pytest.raises(ValueError, match="got epochs 0, expected at least 1"):
        Order(epochs=0)
    with pytest.raises(ValueError, match="got every 0, expected at least 1"):
        Order(every=0)
    with unchecked(), pytest.raises(ValueError, match="got mode 'memory', expected 'resident'"):
        Reading(mode="memory")
    with unchecked(), pytest.raises(ValueError, match="got on_error 'ignore', expected 'raise'"):
        Reading(on_error="ignore")
    with pytest.raises(ValueError, match=r"memory limit of 0 MiB, expected at least \d+ MiB"):
        loader(path, **OPTIONS, memory_limit=10_000)
    with pytest.raises(ValueError, match="at least one each"):
        next(iter(loader(path, **OPTIONS, rank=0, world_size=5000)))
    with pytest.raises(ValueError, match=r"141 times without 200 in a row"):
        loader(path, which="validation", window=200, batch_size=4)
    with pytest.raises(ValueError, match="expected neither: it holds prepared states"):
        loader(path, **OPTIONS, variables=["sst"])
    with pytest.raises(ValueError, match="got 0 threads"):
        loader(path, **OPTIONS, threads=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="pin_memory=True without a GPU"):
            loader(path, **OPTIONS, pin_memory=True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_readers_let_the_training_go_first(path, monkeypatch):
    """Reader threads are nicer than the one that takes the batches; their work is ahead of it."""
    mine, seen = os.getpriority(os.PRIO_PROCESS, 0), []
    batches = loader(path, **OPTIONS, **SMALL)
    kind = type(batches.source.reader)
    read = kind.read

    def watched(reader, *arguments):
        seen.append(os.getpriority(os.PRIO_PROCESS, 0))
        return read(reader, *arguments)

    monkeypatch.setattr(kind, "read", watched)
    assert len(list(batches)) > 1
    assert set(seen) == {min(19, mine + 10)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == mine
