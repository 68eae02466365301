"""A damaged piece of a store is named, wherever it is read first, and nothing looks finished."""

import os

import numpy as np
import pytest

from sciwm.data.open import open_dataset
from sciwm.store.prepare import Blocks, Fit, prepare
from sciwm.testing import small_climate

CHUNKS = (100, 8, 12)


def damaged(folder, suffix):
    """A store whose t850 cannot be decoded from position 300 to 399."""
    ds = small_climate(years=3).load()
    path = folder / f"a.{suffix}"
    if suffix == "zarr":
        encoding = {v: {"chunks": CHUNKS} for v in ds.data_vars}
        ds.to_zarr(path, encoding=encoding, zarr_format=3, consolidated=False)
        chunk = path / "t850" / "c" / "3" / "0" / "0"
        chunk.write_bytes(chunk.read_bytes()[:100])
        return path, ds
    ds.to_netcdf(path, encoding={v: {"zlib": True, "chunksizes": CHUNKS} for v in ds.data_vars})
    import h5py

    with h5py.File(path) as file:
        info = file["t850"].id.get_chunk_info(3)
    with path.open("r+b") as file:
        file.seek(info.byte_offset)
        file.write(os.urandom(info.size))
    return path, ds


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_the_damaged_chunk_is_named(tmp_path, suffix):
    path, ds = damaged(tmp_path, suffix)
    opened = open_dataset(path, chunks={"time": 100})
    np.testing.assert_array_equal(opened["t850"][:300], ds["t850"][:300])
    with pytest.raises(OSError, match=rf"'t850' of .*a\.{suffix}, chunk 3/0/0 \(time 300…399"):
        opened["t850"][250:350].compute()


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_prepare_stops_there_and_leaves_nothing_that_looks_finished(tmp_path, suffix):
    path, ds = damaged(tmp_path, suffix)
    year = int(ds["time"].dt.year[0])
    out, train = tmp_path / "t.zarr", [str(year), str(year + 1)]
    blocks, fit = Blocks(train=train), Fit(harmonics=1)
    with pytest.raises(OSError, match=rf"t850.*a\.{suffix}, chunk 3/0/0 \(time 300…399"):
        prepare(open_dataset(path), out, blocks=blocks, fit=fit, progress=False)
    assert not out.exists()
