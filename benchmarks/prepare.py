"""Speed and memory of `sciwm prepare`, beside reading alone and plain xarray and Dask.

    python benchmarks/prepare.py            # speed
    python benchmarks/prepare.py --memory   # peak for a source, and for one five times as long

Speed is for two synthetic sources of about 400 MB: chunks of 32 times, and of one time. Ways take
turns within a repetition, so that a busy machine slows all of them; ratios are medians over the
repetitions.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask
import numpy as np
import xarray as xr

from sciwm.data.open import open_dataset
from sciwm.store.prepare import Blocks, Fit, prepare

SOURCES = {  # times, latitudes, longitudes, times in a chunk
    "chunks of 32 times, 32×64": (5000, 32, 64, 32),
    "chunks of one time, 64×128": (1250, 64, 128, 1),
}
NAMES = ["z500", "z850", "t500", "t850", "u500", "u850", "v500", "v850", "t2m", "msl"]
SPLIT = {"train": [0, 0.8], "validation": [0.8, 0.9], "test": [0.9, 1.0]}


def write_source(path: Path, times: int, lats: int, lons: int, chunk: int) -> None:
    """Ten variables that compress like daily fields: annual cycle, smooth waves, noise."""
    rng = np.random.default_rng(0)
    latitude, longitude = np.linspace(-87, 87, lats), np.arange(lons) * 360 / lons
    coords = {
        "time": np.datetime64("1990-01-01", "ns") + np.arange(times) * np.timedelta64(1, "D"),
        "latitude": latitude,
    }
    empty = xr.Dataset(coords=coords | {"longitude": longitude})
    empty.to_zarr(path, zarr_format=3, consolidated=False)
    waves = np.stack(
        [
            np.cos(np.deg2rad(k * longitude)) * np.cos(np.deg2rad(latitude))[:, None] ** k
            for k in range(1, 7)
        ]
    )
    import zarr

    group = zarr.open_group(path, mode="r+")
    for number, name in enumerate(NAMES):
        amplitude = rng.normal(size=(times, 6)).cumsum(0) % 7
        season = np.sin(2 * np.pi * np.arange(times) / 365.25 + number)[:, None, None]
        array = group.create_array(
            name,
            shape=(times, lats, lons),
            chunks=(chunk, lats, lons),
            dtype="float32",
            dimension_names=["time", "latitude", "longitude"],
        )
        for start in range(0, times, 512):
            part = slice(start, start + 512)
            smooth = np.tensordot(amplitude[part], waves, axes=1) + 3 * season[part]
            values = 5e4 * (number < 2) + 10 * smooth + rng.normal(size=smooth.shape)
            array[part] = values.astype("float32")


def split_of(ds: xr.Dataset) -> dict[str, list[int]]:
    return {name: [int(f * ds.sizes["time"]) for f in ends] for name, ends in SPLIT.items()}


def read_alone(source: Path, out: Path) -> None:
    """Every stored value into memory once, as lazily opened blocks."""
    ds = open_dataset(source)
    blocks = [b for v in ds.data_vars.values() for b in v.data.to_delayed().ravel()]
    count = dask.delayed(np.size)
    dask.compute([count(b) for b in blocks])


def prepare_once(source: Path, out: Path) -> None:
    ds = open_dataset(source)
    blocks = Blocks(by="step", **split_of(ds))
    prepare(ds, out, blocks=blocks, fit=Fit(harmonics=2), progress=False)


def plain_xarray(source: Path, out: Path) -> None:
    """The same climatology, scale and layout, in what a user of xarray would write."""
    from zarr.codecs import BloscCodec

    # The chunks of the store would make 200,000 tasks.
    ds = xr.open_zarr(source, consolidated=False, chunks={"time": 480})
    train = ds.isel(time=slice(*split_of(ds)["train"]))
    phase = 2 * np.pi * (ds.time.dt.dayofyear - 1) / 365.25
    basis = xr.concat(
        [xr.ones_like(phase), *(f(k * phase) for k in (1, 2) for f in (np.sin, np.cos))],
        dim="coefficient",
    )
    own = basis.isel(time=slice(train.sizes["time"]))
    inverse = xr.DataArray(np.linalg.inv(own.values @ own.values.T), dims=("coefficient", "other"))
    cross = train.map(lambda x: xr.dot(own.rename(coefficient="other"), x, dim="time"))
    coefficients = cross.map(lambda c: xr.dot(inverse, c, dim="other")).compute()
    lazy_basis, count = basis.chunk(time=480), basis.sizes["coefficient"]
    # xr.dot is slower.
    climatology = sum(lazy_basis[k] * coefficients.isel(coefficient=k) for k in range(count))
    weights = np.cos(np.deg2rad(ds.latitude))
    std = ((train - climatology) ** 2).weighted(weights).mean().compute() ** 0.5
    state = ((ds - climatology) / std).astype("float32").to_array("channel").rename("state")
    state = state.transpose("time", "channel", ...)
    size = state.isel(time=0).size
    chunks = (min(32, max(1, 2**20 // size)), *state.shape[1:])
    codec = BloscCodec(typesize=4, cname="zstd", clevel=3, shuffle="bitshuffle")
    encoding = {"chunks": chunks, "compressors": codec}
    lazy = state.reset_coords(drop=True).drop_encoding()
    lazy = lazy.chunk({d: 480 if d == "time" else -1 for d in state.dims}).to_dataset()
    lazy.to_zarr(out, zarr_format=3, encoding={"state": encoding}, consolidated=False)


WAYS = {"reading alone": read_alone, "sciwm prepare": prepare_once, "plain xarray": plain_xarray}


def seconds(way: str, source: Path, folder: Path) -> float:
    out = folder / "out.zarr"
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    WAYS[way](source, out)
    return time.perf_counter() - start


def speed(folder: Path, repeats: int) -> None:
    print("| source | way | s | MB/s | time against prepare | … reading alone |")
    print("|---|---|---|---|---|---|")
    for label, shape in SOURCES.items():
        source = folder / f"source{shape[-1]}.zarr"
        write_source(source, *shape)
        megabytes = 4e-6 * len(NAMES) * np.prod(shape[:3])
        times = [{way: seconds(way, source, folder) for way in WAYS} for _ in range(repeats)]
        for way in WAYS:
            median = statistics.median(t[way] for t in times)
            ours, least = (
                statistics.median(t[way] / t[other] for t in times)
                for other in ("sciwm prepare", "reading alone")
            )
            cells = f"{median:.2f} | {megabytes / median:.0f} | {ours:.2f} | {least:.2f}"
            print(f"| {label} | {way} | {cells} |", flush=True)


def memory(folder: Path) -> None:
    print("| times | source, MB | peak memory of prepare, MB |\n|---|---|---|")
    for times in (1000, 5000):
        source = folder / f"long{times}.zarr"
        write_source(source, times, 64, 128, 32)
        command = [sys.executable, __file__, "--once", source, folder / "out.zarr"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        size = 4e-6 * len(NAMES) * times * 64 * 128
        print(f"| {times} | {size:.0f} | {done.stdout.strip()} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed")
    parser.add_argument(
        "--once",
        nargs=2,
        type=Path,
        metavar=("SOURCE", "OUT"),
        help="prepare once and print the peak memory",
    )
    options = parser.parse_args()
    if options.once:
        prepare_once(*options.once)
        print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f}")
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        memory(Path(folder)) if options.memory else speed(Path(folder), options.repeats)


if __name__ == "__main__":
    main()
