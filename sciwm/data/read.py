"""Reading stores lazily: Zarr, netCDF or GRIB; one or many; local, zipped or remote."""

import glob
import importlib.util
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciwm.chunks.guard import chunk_guarded
from sciwm.data.names import close_matches

__all__ = ["Store", "chunk_lazily", "read_pieces"]

Store = str | Path | xr.Dataset | Sequence[str | Path | xr.Dataset]
_BLOCK = 2**20
_WHOLE = 2**27
_REMOTE_SUFFIXES = (".nc", ".nc4", ".h5", ".netcdf")


def read_pieces(store: Store) -> list[tuple[str, xr.Dataset]]:
    """Open every piece of a store, with a label for error messages; no field is read.

    Parameters
    ----------
    store : path, glob, URL, Dataset, or a list of these
        Zarr 2 or 3 (folder, ``.zip``, URL), netCDF 3 or 4, GRIB.

    Raises
    ------
    FileNotFoundError
        Listing what is there.
    ValueError
        If a file cannot be opened; the message names it.
    """
    if isinstance(store, xr.Dataset):
        return [("the Dataset", store)]
    if not isinstance(store, str | Path):
        pieces = [
            (label if label != "the Dataset" else f"Dataset {i}", ds)
            for i, s in enumerate(store)
            for label, ds in read_pieces(s)
        ]
        if not pieces:
            raise ValueError("got an empty list of stores, expected at least one")
        return pieces
    text = str(store)
    if "://" in text or "::" in text:
        return [(text, _open_remote(text))]
    path = Path(text).expanduser()
    if not path.exists() and glob.has_magic(text):
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            near = _neighbours(path)
            raise FileNotFoundError(f"got pattern {text!r}, which matches nothing{near}")
        return [piece for name in found for piece in read_pieces(name)]
    if not path.exists():
        raise FileNotFoundError(f"got {text!r}, which does not exist{_neighbours(path)}")
    return [(str(path), ds) for ds in _open_local(path)]


def _neighbours(path: Path) -> str:
    folder = next(p for p in (path.absolute().parent, *path.absolute().parents) if p.is_dir())
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    missing = path.absolute().relative_to(folder).parts[0]
    more = f" … ({len(names)} in all)" if len(names) > 40 else ""
    return f"; in {folder}{close_matches(missing, names[:40])}{more}"


def _open_local(path: Path) -> list[xr.Dataset]:
    if path.is_dir():
        marks = ("zarr.json", ".zgroup", ".zmetadata")
        if not any((path / m).exists() for m in marks):
            raise ValueError(
                f"got folder {str(path)!r}, which is no Zarr store; for the files in it, write"
                f" '{path}/*.nc'"
            )
        return [_open(path, engine="zarr")]
    with path.open("rb") as file:
        head = file.read(8)
    if head[:3] == b"CDF":
        engine = "scipy" if head[3:4] in b"\x01\x02" else "netcdf4"
        return [_checked_netcdf3(path, _open(path, engine=engine))]
    if head[1:4] == b"HDF":
        # Not netCDF4: its C library takes no lock when a forgotten Dataset is closed by the garbage
        # collector, and crashes if another thread reads at that moment; h5py guards every call.
        return [_open(path, engine="h5netcdf")]
    if head[:2] == b"PK":
        return [_open_zip(path)]
    if head[:4] == b"GRIB" or path.suffix.lower() in (".grib", ".grb", ".grib2", ".grb2"):
        return _open_grib(path)
    raise ValueError(
        f"got {str(path)!r}, which starts with {head!r}, expected Zarr, netCDF or GRIB; is the file"
        " complete?"
    )


def _open(target: Any, *, engine: str, label: str = "") -> xr.Dataset:
    dates = xr.coders.CFDatetimeCoder(time_unit="ns")
    try:
        with warnings.catch_warnings():
            # Dates beyond 2262 become cftime, which is fine.
            warnings.filterwarnings("ignore", category=xr.SerializationWarning)
            options: Any = {"consolidated": _is_consolidated(target)} if engine == "zarr" else {}
            ds = xr.open_dataset(
                target,
                engine=engine,
                chunks=None,
                decode_times=dates,
                decode_timedelta=False,
                **options,
            )
            # Without consolidated metadata Zarr lists the variables in the order of the file
            # system, which differs between machines.
            return ds[sorted(ds.data_vars, key=str)] if engine == "zarr" else ds
    except (OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        name = label or str(target)
        if "decode time" in str(error):
            raise ValueError(
                f"got times in {name!r} that follow no calendar ({error}); open it with"
                " xarray.open_dataset(..., decode_times=False), assign dates to its time"
                " coordinate and pass that Dataset"
            ) from error
        raise ValueError(
            f"got {name!r}, which cannot be opened as {engine} ({error}); is the file truncated or"
            " damaged?"
        ) from error


def _is_consolidated(target: Any) -> bool:
    import zarr

    # Left to xarray, it comes out by an error inside zarr, whose traceback keeps what all callers
    # hold, such as streams and batches, alive until the garbage collector runs.
    return zarr.open_group(target, mode="r").metadata.consolidated_metadata is not None


def _open_zip(path: Path) -> xr.Dataset:
    import zarr

    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"got {str(path)!r}, which starts as a zip archive but has no table of contents; the"
            " file is truncated"
        )
    return _open(zarr.storage.ZipStore(path, mode="r"), engine="zarr", label=str(path))


def _checked_netcdf3(path: Path, ds: xr.Dataset) -> xr.Dataset:
    # Classic files have no checksum and open even when cut short, so their size is compared with
    # what their arrays need.
    stored = [(v.shape, np.dtype(v.encoding.get("dtype", v.dtype))) for v in ds.variables.values()]
    needed = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in stored)
    if (size := path.stat().st_size) < needed:
        raise ValueError(
            f"got {str(path)!r} of {size} bytes, which needs at least {needed}; the file is"
            " truncated"
        )
    return ds


def _open_grib(path: Path) -> list[xr.Dataset]:
    if importlib.util.find_spec("cfgrib") is None:
        raise ImportError(
            f"got GRIB file {str(path)!r}, which needs cfgrib: pip install 'sciwm[grib]'"
        )
    import cfgrib

    try:
        pieces = list(cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": ""}))
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ValueError(
            f"got {str(path)!r}, which cannot be read as GRIB ({error}); is the file truncated or"
            " damaged?"
        ) from error
    if not pieces:
        raise ValueError(
            f"got {str(path)!r}, in which there is no GRIB field; is the file truncated or damaged?"
        )
    return pieces


def _open_remote(url: str) -> xr.Dataset:
    import fsspec

    if url.rstrip("/").lower().endswith(_REMOTE_SUFFIXES):
        try:
            file = fsspec.open(url).open()
        except FileNotFoundError:
            raise FileNotFoundError(f"got {url!r}, which does not exist") from None
        head = file.read(3)
        file.seek(0)
        return _open(file, engine="scipy" if head == b"CDF" else "h5netcdf", label=url)
    return _open(url, engine="zarr", label=url)


def chunk_lazily(ds: xr.Dataset, chunks: Any, names: dict[str, str], *, label: str) -> xr.Dataset:
    """Make every variable dask-backed.

    ``"auto"`` takes whole stored chunks, as many along time as fit 1 MiB. So no stored chunk is
    decompressed twice, and no task is tiny. A mapping gives sizes by canonical dimension name.

    Parameters
    ----------
    ds : Dataset
        As it was opened, or in memory; arrays that are dask-backed already keep their chunks with
        ``"auto"``.
    chunks : "auto" or mapping
    names : dict
        Canonical name to the dimension's name in ``ds``.
    label : str
        Name of the store, for reading errors.
    """
    in_memory = label.startswith(("the Dataset", "Dataset "))

    def lazily(array: xr.DataArray, sizes: dict[Any, int]) -> xr.DataArray:
        return array.chunk(sizes) if in_memory else chunk_guarded(array, sizes, label=label)

    arrays = dict(ds.data_vars)
    if chunks == "auto":
        time = names.get("time")
        eager = {n: v for n, v in arrays.items() if v.chunks is None}
        return ds.assign({n: lazily(v, _sizes(v, time)) for n, v in eager.items()})
    sizes = {names.get(str(d), str(d)): n for d, n in dict(chunks).items()}
    if unknown := [d for d in chunks if names.get(str(d), str(d)) not in ds.dims]:
        raise ValueError(f"got chunks for {unknown}, expected dimensions among {sorted(names)}")
    wanted = {d: n if sizes.get(str(d), -1) == -1 else sizes[str(d)] for d, n in ds.sizes.items()}
    return ds.assign(
        {n: lazily(v, wanted) if v.chunks is None else v.chunk(wanted) for n, v in arrays.items()}
    )


def _sizes(array: xr.DataArray, time: str | None) -> dict[Any, int]:
    stored = array.encoding.get("preferred_chunks") or {}
    sizes = {d: int(stored.get(d, n)) if d in stored else n for d, n in array.sizes.items()}
    whole = {d: sizes[d] if d == time else n for d, n in array.sizes.items()}
    item = max(array.dtype.itemsize, 4)
    if np.prod(list(whole.values())) * item <= _WHOLE:
        sizes = whole
    if time in sizes and array.sizes[time]:
        step = sizes[time] if time in stored else 1
        others = int(np.prod([n for d, n in sizes.items() if d != time])) * item
        sizes[time] = min(array.sizes[time], step * max(1, _BLOCK // max(1, step * others)))
    return sizes
