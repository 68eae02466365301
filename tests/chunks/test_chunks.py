import asyncio
import threading
import warnings
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore

from sciwm.chunks import fetch
from sciwm.chunks.cache import Cache
from sciwm.chunks.chunks import ChunkReader, Found, Piece
from sciwm.chunks.decode import _zstd_size, decoding

V3 = {
    "none": [],
    "zstd": [ZstdCodec(level=1)],
    "zstd, checksum": [ZstdCodec(level=1, checksum=True)],
    "gzip": [GzipCodec(level=1)],
    "blosc": [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")],
    "blosc lz4, crc32c": [BloscCodec(cname="lz4"), Crc32cCodec()],
    "crc32c": [Crc32cCodec()],
}
V2 = {
    "none": None,
    "blosc": numcodecs.Blosc(cname="lz4"),
    "zstd": numcodecs.Zstd(),
    "lz4": numcodecs.LZ4(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(),
}
CODECS = [(3, name) for name in V3] + [(2, name) for name in V2]


def make(values, *, chunks, version=3, codec="blosc", store=None, **options):
    """One array in a store, opened again."""
    store = MemoryStore() if store is None else store
    group = zarr.open_group(store, mode="a", zarr_format=version)
    compressors = V3[codec] if version == 3 else V2[codec]
    settings = {"name": "a", "dtype": values.dtype, "config": {"write_empty_chunks": True}}
    settings |= {"chunks": chunks, "compressors": compressors or None, **options}
    array = group.create_array(shape=values.shape, **settings)
    array[...] = values
    return zarr.open_group(store, mode="r+")[array.path]


def read(*pieces, start=0, stop=None, shape=None, cache=None):
    reader = ChunkReader(pieces, cache=cache)
    try:
        stop = pieces[0].array.shape[0] if stop is None else stop
        out = np.full((stop - start, *(shape or pieces[0].array.shape[1:])), 7, np.float32)
        return out, reader.read(start, stop, out)
    finally:
        reader.close()


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@st.composite
def layouts(draw):
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    chunks = [draw(st.integers(1, n + 2)) for n in shape]
    start = draw(st.integers(0, shape[0] - 1))
    return tuple(shape), tuple(chunks), start, draw(st.integers(start + 1, shape[0]))


@settings(max_examples=50)
@given(
    layouts(),
    st.sampled_from(CODECS),
    st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<f2", "<i2", ">i2", "u1", "<i4"]),
    st.sampled_from("./"),
)
def test_reads_what_zarr_reads(layout, codec, dtype, separator):
    shape, chunks, start, stop = layout
    version, name = codec
    values = (normal(*shape) * 40).clip(0, 200).astype(dtype)
    keys = {"name": "default" if version == 3 else "v2", "separator": separator}
    options = {"chunk_key_encoding": keys}
    if version == 3 and values.dtype.itemsize > 1:
        serializer = BytesCodec(endian="big" if dtype[0] == ">" else "little")
        options |= {"serializer": serializer, "dtype": values.dtype.newbyteorder("=")}
    array = make(values, chunks=chunks, version=version, codec=name, **options)
    assert decoding(array.metadata)[0] is not None
    out, found = read(Piece(array, None), start=start, stop=stop)
    assert np.array_equal(out, array[start:stop].astype(np.float32))
    assert np.array_equal(out, values[start:stop].astype(np.float32))
    assert found == Found(False, ())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_whole_chunks_are_decoded_in_place_or_copied(codec, shuffled):
    values = [normal(20, 3, 4, seed=s) for s in range(3)]
    store = MemoryStore()
    arrays = [
        make(v, chunks=(4, 3, 4), version=codec[0], codec=codec[1], store=store, name=f"v{i}")
        for i, v in enumerate(values)
    ]
    order = (2, 0, 1) if shuffled else (0, 1, 2)
    pieces = [Piece(arrays[v], slice(i, i + 1)) for i, v in enumerate(order)]
    out, found = read(*pieces, start=4, stop=18, shape=(3, 3, 4))
    assert np.array_equal(out, np.stack([values[v] for v in order], 1)[4:18])
    assert found == Found(False, ())
    whole, _ = read(Piece(arrays[0], None), start=4, stop=16)
    assert np.array_equal(whole, values[0][4:16])


def test_levels_fill_as_many_channels():
    store = MemoryStore()
    surface, levels = normal(10, 3, 4), normal(10, 5, 3, 4, seed=1)
    pieces = [
        Piece(make(levels, chunks=(3, 2, 3, 4), store=store, name="t"), slice(1, 6)),
        Piece(make(surface, chunks=(10, 3, 4), store=store, name="s"), slice(0, 1)),
    ]
    out, _ = read(*pieces, start=2, stop=9, shape=(6, 3, 4))
    assert np.array_equal(out, np.concatenate([surface[:, None], levels], 1)[2:9])
    assert ChunkReader(pieces).chunk == 10


def test_arrays_of_several_stores():
    values = normal(6, 2), normal(6, 2, seed=1)
    pieces = [Piece(make(v, chunks=(2, 2)), slice(i, i + 1)) for i, v in enumerate(values)]
    out, _ = read(*pieces, shape=(2, 2))
    assert np.array_equal(out, np.stack(values, 1))


@pytest.mark.parametrize("kind", ["shards", "transpose", "order F", "v2 filter", "unknown codec"])
def test_other_layouts_are_left_to_zarr(kind):
    values = normal(21, 4, 6)
    options = {
        "shards": {"shards": (8, 4, 6)},
        "transpose": {"filters": [TransposeCodec(order=(1, 0, 2))]},
        "order F": {"version": 2, "order": "F"},
        "v2 filter": {"version": 2, "filters": [numcodecs.Delta(dtype="f4")]},
        "unknown codec": {"version": 2, "compressors": numcodecs.Shuffle(4)},
    }[kind]
    array = make(values, chunks=(4, 4, 6), **options)
    assert decoding(array.metadata)[0] is None
    out, found = read(Piece(array, slice(1, 2)), start=3, stop=19, shape=(2, 4, 6))
    assert np.allclose(out[:, 1], values[3:19], rtol=0, atol=1e-5 if kind == "v2 filter" else 0)
    assert (out[:, 0] == 7).all()
    assert found == Found(False, ())


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["i2", "u1", "i4", "f4", "f8"])
@pytest.mark.parametrize(
    "packing",
    [
        {"scale_factor": 0.013, "add_offset": 281.7},
        {"scale_factor": 0.25},
        {"add_offset": -3.0},
        {},
    ],
)
def test_packed_values_are_those_of_xarray(tmp_path, version, dtype, packing):
    fill = 17
    stored = np.random.default_rng(1).integers(0, 200, (9, 3, 4)).astype(dtype)
    stored[5, 1, 2] = fill
    raw = xr.Dataset({"x": (("time", "a", "b"), stored, {"missing_value": fill, **packing})})
    encoding = {"x": {"chunks": (2, 3, 3)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw.to_zarr(tmp_path, zarr_format=version, consolidated=False, encoding=encoding)
        opened = xr.open_dataset(tmp_path, engine="zarr", consolidated=False)
        expected = opened["x"].values.astype(np.float32)
    array = zarr.open_group(tmp_path, mode="r")["x"]
    scale, offset = packing.get("scale_factor", 1.0), packing.get("add_offset", 0.0)
    piece = Piece(array, None, scale, offset, float(fill))
    out, found = read(piece)
    assert np.isnan(expected[5, 1, 2])
    assert np.array_equal(out, expected, equal_nan=True)
    assert found == Found(True, ())
    assert not read(piece, start=6)[1].missing


@pytest.mark.parametrize("fill", [-9999.0, 0.5, np.nan, 1e30])
def test_fill_values_outside_the_type_mark_nothing(fill):
    array = make(np.arange(8, dtype=np.uint8), chunks=(3,))
    out, found = read(Piece(array, None, fill=fill))
    assert np.array_equal(out, np.arange(8))
    assert found == Found(False, ())


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "f2"])
@pytest.mark.parametrize("codec", ["blosc", "gzip"])
@pytest.mark.parametrize("extreme", [np.inf, -np.inf])
def test_one_nan_is_found(dtype, codec, extreme):
    values = normal(12, 3, 4).astype(dtype)
    values[0, 0, 0] = extreme
    values[9, 2, 1] = np.nan
    array = make(values, chunks=(4, 3, 2), version=2 if dtype[0] == ">" else 3, codec=codec)
    assert read(Piece(array, None))[1] == Found(True, ())
    assert read(Piece(array, None), start=8, stop=10)[1] == Found(True, ())
    assert read(Piece(array, None), stop=9)[1] == Found(False, ())


def test_values_beyond_float32_become_infinite():
    out, found = read(Piece(make(np.array([1.0, 1e300, -1e300]), chunks=(2,)), None))
    assert out.tolist() == [1, np.inf, -np.inf]
    assert found == Found(False, ())


def damage(store, key, data):
    async def write():
        if data is None:
            await store.delete(key)
        else:
            await store.set(key, default_buffer_prototype().buffer.from_bytes(data))

    asyncio.run(write())


def raw_bytes(store, key):
    return asyncio.run(store.get(key, default_buffer_prototype())).to_bytes()


def as_bytes(values):
    return np.ascontiguousarray(values).tobytes()


HARMS = {
    "absent": (lambda raw: None, "no such key"),
    "empty": (lambda raw: b"", ""),
    "cut short": (lambda raw: raw[: len(raw) // 2], ""),
    "cut to a few bytes": (lambda raw: raw[:3], ""),
    "garbage": (lambda raw: bytes(range(256)) * 4, ""),
}
SIZES = {
    "blosc": lambda values: numcodecs.Blosc().encode(values),
    "zstd": lambda values: numcodecs.Zstd().encode(values),
    "gzip": lambda values: numcodecs.GZip().encode(values),
    "none": as_bytes,
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("codec", CODECS)
def test_a_harmed_chunk_is_told_and_left_at_nan(codec, harm, tmp_path, monkeypatch):
    store = LocalStore(tmp_path)
    values = normal(22, 4, 6)
    array = make(values, chunks=(4, 4, 3), version=codec[0], codec=codec[1], store=store)
    key = f"a/{array.metadata.encode_chunk_key((2, 0, 1))}"
    change, cause = HARMS[harm]
    damage(store, key, change(raw_bytes(store, key)))
    out, found = read(Piece(array, None), start=9, stop=22)
    expected = values[9:].copy()
    expected[:3, :, 3:] = np.nan
    assert np.array_equal(out, expected, equal_nan=True)
    assert not found.missing
    (failure,) = found.failed
    assert (failure.start, failure.stop) == (8, 12)
    for part in (key, "array 'a'", str(tmp_path), "[8:12, 0:4, 3:6]", cause):
        assert part in failure.message
    assert read(Piece(array, None), stop=8)[1] == Found(False, ())


def test_bytes_behind_a_blosc_chunk_do_no_harm():
    store, values = MemoryStore(), normal(20, 4, 6)
    array = make(values, chunks=(4, 4, 6), codec="blosc", store=store)
    damage(store, "a/c/1/0/0", bytes(numcodecs.Blosc().encode(values[4:8])) + b"12345678")
    out, found = read(Piece(array, None))
    assert found == Found(False, ())
    assert np.array_equal(out, values)


@pytest.mark.parametrize("count", [95, 97])
@pytest.mark.parametrize("codec", SIZES)
def test_a_chunk_of_another_size_is_a_failure(codec, count):
    store = MemoryStore()
    array = make(normal(20, 4, 6), chunks=(4, 4, 6), codec=codec, store=store)
    damage(store, "a/c/1/0/0", bytes(SIZES[codec](np.ones(count, np.float32))))
    out, found = read(Piece(array, None))
    assert [(f.start, f.stop) for f in found.failed] == [(4, 8)]
    assert f"decodes to {4 * count} bytes, expected {4 * 96}" in found.failed[0].message
    assert np.isnan(out[4:8]).all()


def test_a_checksum_that_does_not_match_is_a_failure():
    store = MemoryStore()
    array = make(normal(8, 4, 6), chunks=(4, 4, 6), codec="crc32c", store=store)
    raw = bytearray(raw_bytes(store, "a/c/1/0/0"))
    raw[10] ^= 1
    damage(store, "a/c/1/0/0", bytes(raw))
    (failure,) = read(Piece(array, None))[1].failed
    assert "crc32c" in failure.message


def test_the_last_chunk_ends_with_the_store():
    store = MemoryStore()
    array = make(normal(10, 2), chunks=(4, 2), store=store)
    damage(store, "a/c/2/0", None)
    (failure,) = read(Piece(array, None))[1].failed
    assert (failure.start, failure.stop) == (8, 10)


def test_zarrs_pipeline_loses_one_row_of_chunks_of_a_damaged_shard():
    store = MemoryStore()
    values = normal(32, 4)
    array = make(values, chunks=(4, 4), codec="blosc lz4, crc32c", shards=(16, 4), store=store)
    raw = bytearray(raw_bytes(store, "a/c/1/0"))
    raw[len(raw) // 2 - 30] ^= 255
    damage(store, "a/c/1/0", bytes(raw))
    out, found = read(Piece(array, None), start=2)
    (failure,) = found.failed
    assert failure.stop - failure.start == 4
    lost = slice(failure.start, failure.stop)
    assert np.isnan(out[failure.start - 2 : failure.stop - 2]).all()
    kept = np.ones(32, bool)
    kept[lost] = kept[:2] = False
    assert np.array_equal(out[kept[2:]], values[kept])
    assert f"times {failure.start} to {failure.stop - 1} of array 'a'" in failure.message


class Flaky(MemoryStore):
    """Its keys fail so many times; refuses some for good."""

    def __init__(self, failures=0, refused=()):
        super().__init__()
        self.failures, self.refused, self.asked = failures, refused, []

    async def get(self, key, prototype, byte_range=None):
        if "/c/" in key:
            self.asked.append(key)
            if self.asked.count(key) <= self.failures or key in self.refused:
                raise ConnectionResetError("by peer")
        return await super().get(key, prototype, byte_range)


def test_a_store_that_fails_for_a_while_is_read(monkeypatch):
    monkeypatch.setattr(fetch, "_FIRST_WAIT", 0.001)
    store, values = Flaky(failures=3), normal(16, 4)
    assert np.array_equal(read(Piece(make(values, chunks=(4, 4), store=store), None))[0], values)
    store = Flaky(refused=["a/c/2/0"])
    out, found = read(Piece(make(values, chunks=(4, 4), store=store), None))
    assert [(f.start, f.stop) for f in found.failed] == [(8, 12)]
    assert "5 attempts" in found.failed[0].message
    assert "by peer" in found.failed[0].message
    assert np.isnan(out).sum() == 16


@pytest.mark.parametrize("local", [True, False])
def test_many_threads_read_different_blocks(local, tmp_path):
    store = LocalStore(tmp_path) if local else MemoryStore()
    values = normal(400, 5, 6), (normal(400, 5, 6, seed=1) * 100).astype(np.int16)
    pieces = [
        Piece(make(values[0], chunks=(16, 3, 6), store=store, name="f"), slice(0, 1)),
        Piece(make(values[1], chunks=(7, 5, 6), store=store, name="i"), slice(1, 2), scale=0.5),
    ]
    reader = ChunkReader(pieces)
    expected = np.stack([values[0], values[1] * np.float32(0.5)], 1)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            start, stop = np.sort(rng.choice(401, 2, replace=False)).tolist()
            out = np.empty((stop - start, 2, 5, 6), np.float32)
            found = reader.read(start, stop, out)
            if found != Found(False, ()) or not np.array_equal(out, expected[start:stop]):
                wrong.append((start, stop))

    threads = [threading.Thread(target=work, args=(s,)) for s in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader.close()
    assert not wrong


def test_the_cache_serves_a_remote_store_until_its_metadata_change(tmp_path):
    url = f"memory://{tmp_path.name}"
    values = normal(12, 3)
    cache = Cache(tmp_path)

    def again(values, codec):
        store = zarr.storage.FsspecStore.from_url(url)
        make(values, chunks=(4, 3), codec=codec, store=store, overwrite=True)
        return zarr.open_group(url, mode="r")["a"]

    array = again(values, "blosc")
    assert np.array_equal(read(Piece(array, None), cache=cache)[0], values)
    assert len([p for p in Path(tmp_path).rglob("*") if p.is_file()]) == 3
    damage(array.store.with_read_only(False), "a/c/1/0", None)
    assert np.array_equal(read(Piece(array, None), cache=cache)[0], values)
    array = again(-values, "zstd")
    assert np.array_equal(read(Piece(array, None), cache=cache)[0], -values)


def test_zstd_frames_tell_their_size():
    for count in (0, 10, 255, 256, 300, 65791, 65792, 200_000):
        assert _zstd_size(numcodecs.Zstd().encode(bytes(count) if count else b"")) == count
    # One raw block of 4 bytes, in a window.
    unsized = bytes.fromhex("28b52ffd0058") + bytes.fromhex("210000") + b"abcd"
    assert _zstd_size(unsized) is None
    store = MemoryStore()
    array = make(np.zeros((2, 1), np.float32), chunks=(1, 1), codec="zstd", store=store)
    damage(store, "a/c/1/0", unsized)
    assert read(Piece(array, None))[0].tobytes() == bytes(4) + b"abcd"


def test_arguments_that_fit_nothing_are_refused():
    store = MemoryStore()
    array = make(normal(10, 3), chunks=(4, 3), store=store)
    with pytest.raises(ValueError, match="no pieces"):
        ChunkReader([])
    shorter = make(normal(9, 3), chunks=(4, 3), store=store, name="b")
    with pytest.raises(ValueError, match="different numbers of times"):
        ChunkReader([Piece(array, None), Piece(shorter, None)])
    dates = make(np.zeros(4, "M8[s]"), chunks=(2,), version=2)
    with pytest.raises(ValueError, match="expected numbers"):
        ChunkReader([Piece(dates, None)])
    reader = ChunkReader([Piece(array, None)])
    for start, stop in [(-1, 2), (3, 3), (0, 11)]:
        with pytest.raises(ValueError, match="within the 10 times"):
            reader.read(start, stop, np.empty((4, 3), np.float32))
    for out in (np.empty((3, 3), np.float32), np.empty((4, 3))):
        with pytest.raises(ValueError, match="expected float32 of 4"):
            reader.read(0, 4, out)
    with pytest.raises(ValueError, match="cannot be placed"):
        reader.read(0, 4, np.empty((4, 4), np.float32))
