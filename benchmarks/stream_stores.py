"""What `benchmarks/stream.py` reads: synthetic reanalysis, a trajectory, a slow store."""

import asyncio
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import xarray as xr
import zarr
from fsspec.asyn import AsyncFileSystem
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter
from zarr.codecs import BloscCodec

CHUNK = 32
# Mean and standard deviation of each variable; the step is what a 16–18 bit archive would keep.
FIELDS = {
    "z500": (55000.0, 2500.0),
    "t850": (281.0, 12.0),
    "u850": (1.4, 8.0),
    "v850": (0.0, 6.0),
    "q700": (0.003, 0.002),
    "msl": (101000.0, 1200.0),
    "t2m": (285.0, 15.0),
    "u10": (0.5, 5.0),
    "v10": (0.2, 4.5),
    "d2m": (280.0, 14.0),
}


@dataclass(frozen=True)
class Sizes:
    """How much is written."""

    times: int = 20000
    frames: int = 2**20
    grid: tuple[int, int] = (32, 64)


QUICK = Sizes(times=1200, frames=2**15, grid=(8, 16))


@dataclass(frozen=True)
class Stores:
    """Where everything lies; `write_stores` makes what is missing."""

    folder: Path
    sizes: Sizes

    @property
    def fields(self) -> Path:
        return self.folder / f"fields_{self.sizes.times}.zarr"

    @property
    def packed(self) -> Path:
        return self.folder / f"packed_{self.sizes.times}.nc"

    @property
    def contiguous(self) -> Path:
        return self.folder / f"contiguous_{self.sizes.times}.nc"

    @property
    def frames(self) -> Path:
        return self.folder / f"frames_{self.sizes.frames}.zarr"

    @property
    def longer(self) -> Path:
        return self.folder / f"fields_{self.sizes.times}_ten_times.zarr"

    def ratio(self) -> float:
        """Bytes in memory by bytes on disk of the fields."""
        raw = 4 * len(FIELDS) * self.sizes.times * self.sizes.grid[0] * self.sizes.grid[1]
        return raw / sum(
            f.stat().st_size
            for name in FIELDS
            for f in (self.fields / name / "c").rglob("*")
            if f.is_file()
        )


class SlowFileSystem(AsyncFileSystem):
    """Local files at ``slow:///path``; every read takes ``delay`` seconds longer."""

    protocol = "slow"
    delay = 0.03

    async def _cat_file(self, path, start=None, end=None, **kwargs):
        await asyncio.sleep(self.delay)
        return Path(self._strip_protocol(path)).read_bytes()[start:end]

    async def _info(self, path, **kwargs):
        local = Path(self._strip_protocol(path))
        return {
            "name": str(local),
            "size": local.stat().st_size,
            "type": "directory" if local.is_dir() else "file",
        }

    async def _ls(self, path, detail=True, **kwargs):
        found = [await self._info(p) for p in Path(self._strip_protocol(path)).iterdir()]
        return found if detail else [f["name"] for f in found]


fsspec.register_implementation("slow", SlowFileSystem)


def blosc() -> BloscCodec:
    return BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=4)


def write_stores(stores: Stores) -> Iterator[str]:
    """Write what is not there yet, under a temporary name until complete; yields a word on each."""
    stores.folder.mkdir(parents=True, exist_ok=True)
    for path, write in (
        (stores.fields, _write_fields),
        (stores.packed, _write_packed),
        (stores.contiguous, _write_contiguous),
        (stores.frames, _write_frames),
        (stores.longer, _write_longer),
    ):
        if not path.exists():
            yield f"writing {path.name}"
            part = path.with_name("part_" + path.name)
            shutil.rmtree(part, ignore_errors=True)
            with warnings.catch_warnings():
                unspecified = "Consolidated metadata is currently not part"
                warnings.filterwarnings("ignore", unspecified, UserWarning)
                write(part, stores)
            part.rename(path)


def _write_fields(path: Path, stores: Stores) -> None:
    num, grid = stores.sizes.times, stores.sizes.grid
    dims = ("time", "latitude", "longitude")
    coords = {
        "time": xr.date_range("1990-01-01", periods=num, freq="6h", unit="ns"),
        "latitude": ("latitude", np.linspace(-87.2, 87.2, grid[0]), {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(grid[1]) * (360 / grid[1]), {"units": "degrees_east"}),
    }
    for number, (name, (mean, std)) in enumerate(FIELDS.items()):
        values = _field(np.random.default_rng(number), num, grid, mean, std)
        array = xr.DataArray(values, coords, dims, attrs={"units": _units(name)})
        encoding = {name: {"chunks": (CHUNK, *grid), "compressors": blosc()}}
        mode = "a" if number else "w"
        ds = array.to_dataset(name=name)
        ds.to_zarr(path, mode=mode, encoding=encoding, zarr_format=3, consolidated=False)
    zarr.consolidate_metadata(path)


def _field(
    rng: np.random.Generator, num: int, grid: tuple[int, int], mean: float, std: float
) -> np.ndarray:
    """Twelve smooth patterns with memory of about 20 steps, rounded as archives round.

    White noise is a thousandth of ``std``.
    """
    patterns = np.stack(
        [gaussian_filter(rng.normal(size=grid), grid[0] / 10, mode="wrap") for _ in range(12)]
    )
    patterns /= patterns.std() * np.sqrt(12)
    memory = 0.95
    amplitudes = lfilter(
        [np.sqrt(1 - memory**2)], [1, -memory], rng.normal(size=(num + 200, 12)), axis=0
    )[200:]
    values = np.tensordot(amplitudes.astype("f4"), patterns.astype("f4"), 1)
    values += 1e-3 * rng.standard_normal(values.shape, dtype="f4")
    step = 2.0 ** np.floor(np.log2(std * 8 / 2**18))
    return (np.round((mean + std * values.astype("f8")) / step) * step).astype("f4")


def _units(name: str) -> str:
    wind, kelvin = "m s-1", "K"
    by_letter = {"z": "m2 s-2", "q": "kg kg-1", "m": "Pa"}
    by_letter |= {"t": kelvin, "d": kelvin, "u": wind, "v": wind}
    return by_letter[name[0]]


def _write_packed(path: Path, stores: Stores) -> None:
    chunks = (CHUNK, *stores.sizes.grid)
    encoding = {"zlib": True, "complevel": 4, "shuffle": True, "chunksizes": chunks}
    _write_netcdf(path, stores, encoding)


def _write_contiguous(path: Path, stores: Stores) -> None:
    _write_netcdf(path, stores, {"contiguous": True})


def _write_netcdf(path: Path, stores: Stores, encoding: dict) -> None:
    # As long as the Zarr store: of a short file, libraries soon hold every chunk decoded.
    ds = xr.open_zarr(stores.fields, chunks=None).load().drop_encoding()
    ds.to_netcdf(path, engine="netcdf4", encoding=dict.fromkeys(FIELDS, encoding))


def _write_frames(path: Path, stores: Stores) -> None:
    """Ten atoms that shake around their places."""
    rng, num = np.random.default_rng(0), stores.sizes.frames
    moves = lfilter([0.02], [1, -0.9], rng.standard_normal((num, 10, 3), dtype="f4"), axis=0)
    values = (rng.normal(size=(10, 3)) * 0.3 + moves).astype("f4")
    time = ("time", np.arange(num) * 0.1, {"units": "ps"})
    positions = (("time", "atom", "xyz"), values, {"units": "nm"})
    ds = xr.Dataset({"positions": positions}, {"time": time})
    encoding = {"positions": {"chunks": (4096, 10, 3), "compressors": blosc()}}
    ds.to_zarr(path, mode="w", encoding=encoding, zarr_format=3, consolidated=True)


def _write_longer(path: Path, stores: Stores) -> None:
    """The fields ten times over, one after another.

    Its metadata are its own, its chunks hard links, so that only folders take room.
    """
    whole = stores.sizes.times // CHUNK
    num = 10 * whole * CHUNK
    with xr.open_zarr(stores.fields, chunks=None) as ds:
        coords = ds[["latitude", "longitude"]].assign_coords(
            time=xr.date_range("1990-01-01", periods=num, freq="6h", unit="ns")
        )
        coords.load().drop_encoding().to_zarr(path, mode="w", zarr_format=3, consolidated=False)
    for name in FIELDS:
        metadata = json.loads((stores.fields / name / "zarr.json").read_text())
        metadata["shape"][0] = num
        (path / name).mkdir()
        (path / name / "zarr.json").write_text(json.dumps(metadata))
        for number in range(10 * whole):
            target = path / name / "c" / str(number) / "0" / "0"
            target.parent.mkdir(parents=True)
            os.link(stores.fields / name / "c" / str(number % whole) / "0" / "0", target)
    zarr.consolidate_metadata(path)
