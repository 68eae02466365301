"""The benchmark of streams runs, checks the values of every design, and prints every row."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from tests.scripts import BENCHMARKS, load_benchmark


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    out = folder / "table.md"
    options = ["--quick", "--data", str(folder), "--out", str(out)]
    command = [sys.executable, str(BENCHMARKS / "stream.py"), *options]
    places = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": places}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return out.read_text()


def section(table: str, title: str) -> dict[str, list[str]]:
    """Rows of the one section whose title contains the words."""
    (part,) = [p for p in table.split("| **")[1:] if title in p.partition("**")[0]]
    lines = [line for line in part.splitlines()[1:] if line.startswith("| ")]
    rows = [line.strip("| ").split(" | ") for line in lines]
    return {row[0]: row[1:] for row in rows}


def test_every_design_has_its_row(table):
    baseline = {"xarray, isel and load"}
    if importlib.util.find_spec("xbatcher"):
        baseline |= {"xbatcher, 0 workers"}
    for stride, reuse in ((1, "6"), (6, "1")):
        rows = section(table, f"windows of 6 at stride {stride}")
        assert baseline | {
            "stream(xr.open_zarr(path)), decoded without Dask",
            "stream(sciwm.open_dataset(path)), through Dask",
            "stream(path)",
            "limit: decode + gather, 2 threads",
        } <= set(rows)
        assert {row[0] for row in rows.values()} == {reuse}
    for title, name in (
        ("derived lazily", "stream(derived Dataset), through Dask"),
        ("zlib", "stream(path)"),
        ("contiguous", "stream(path)"),
        ("30 ms", "stream(url)"),
        ("10 atoms at stride 1", "stream(path), blocks"),
        ("accelerator", "stream(path), reuse 1"),
        ("one thread of the processor", "stream(path), reuse 6"),
        ("Memory", "stream(path), memory_limit 32 MiB"),
    ):
        assert name in section(table, title), title
    assert "failed" not in table


def test_ratios_say_whether_they_clear_their_bar(table):
    row = section(table, "derived lazily")["stream(derived Dataset), through Dask"]
    assert "×" in row[2]
    assert row[3].startswith("≥ 25×")
    assert row[3].endswith(("met", "MISSED"))


@pytest.fixture
def designs():
    return load_benchmark("stream_designs")


def test_wrong_values_stop_the_benchmark(designs, monkeypatch):
    main = load_benchmark("stream")
    sections = load_benchmark("stream_sections")
    index = np.arange(6)[None]
    right = designs.Measured(1, 1.0, 1.0, None, index, np.ones((1, 6, 2)))
    wrong = designs.Measured(1, 1.0, 1.0, None, index, np.full((1, 6, 2), 1.01))
    for found in (right, wrong):
        design = designs.Design("some", "reference", lambda number, found=found: found)
        one = sections.Section("title", "1", [design], lambda index: np.ones((*index.shape, 2)))
        if found is right:
            main.measure(one, 0)
            assert design.seen == [right]
        else:
            message = "some in 'title' returned wrong values in round 0"
            with pytest.raises(AssertionError, match=message):
                main.measure(one, 0)


def test_the_plain_loop_reads_the_windows_it_says(designs):
    values = np.random.default_rng(0).normal(size=(40, 3)).astype("f4")
    ds = xr.Dataset({"a": (("time", "x"), values), "b": (("time", "x"), values + 1)})
    found = designs.plain(lambda: ds, window=4, stride=3, batch_size=5, batches=2)(0)
    assert found.windows == 10
    assert (found.index[:, 0] % 3 == 0).all()
    np.testing.assert_array_equal(found.values, np.stack([values, values + 1], axis=1)[found.index])


def test_ratios_are_taken_within_rounds(designs, monkeypatch):
    main = load_benchmark("stream")
    sections = load_benchmark("stream_sections")

    def design(name, role, rates, **options):
        seen = [designs.Measured(int(r), 1.0, 0.1) for r in rates]
        return designs.Design(name, role, lambda number: None, seen=seen, **options)

    # The machine is twice as fast in the second round, and another reference is the best in the
    # third.
    rows = [
        design("slow", "reference", [10, 20, 5]),
        design("other", "reference", [5, 10, 20]),
        design("fast", "ours", [500, 1000, 400], bar=40.0),
    ]
    cells = {r.cells[0]: r.cells for r in main.section_rows(sections.Section("title", "6", rows))}
    assert cells["fast"][3:5] == ("50× [20, 50]", "≥ 40× met")
    assert cells["fast"][2] == "500 /s"


def test_the_limit_adds_decoding_of_new_steps_and_gathering(designs, tmp_path, monkeypatch):
    stores = load_benchmark("stream_stores")
    small = stores.Stores(tmp_path, stores.Sizes(times=128, frames=4096, grid=(8, 16)))
    list(stores.write_stores(small))
    # 128 steps take 2 s of wall time to decode, 12 batches of 8 windows in each of 2 threads 0.5 s
    # to gather.
    times = {"decode": (2.0, 4.0), "gather": (0.5, 1.0)}
    monkeypatch.setattr(designs, "_together", lambda work, threads: times[work.__name__])
    names, gathered = list(stores.FIELDS), 12 * 2 * 8
    for stride in (1, 6):
        measure = designs.limit(small.fields, names, window=6, stride=stride, batch_size=8)
        found = measure(0)
        assert found.seconds / found.windows == pytest.approx(stride * 2.0 / 128 + 0.5 / gathered)
        assert found.cpu / found.windows == pytest.approx(stride * 4.0 / 128 + 1.0 / gathered)


def test_the_longer_store_repeats_the_shorter(designs, tmp_path):
    stores = load_benchmark("stream_stores")
    small = stores.Stores(tmp_path, stores.Sizes(times=128, frames=4096, grid=(8, 16)))
    list(stores.write_stores(small))
    assert list(stores.write_stores(small)) == []  # what is there is used again
    short, longer = (xr.open_zarr(p, chunks=None) for p in (small.fields, small.longer))
    assert longer.sizes["time"] == 1280
    for k in (0, 3, 9):
        np.testing.assert_array_equal(longer["t850"][128 * k : 128 * k + 128], short["t850"])
    assert small.ratio() > 1.2
