"""Damage and servers that fail: an error that names the chunk, or right values; never a hang."""

import gc
import http.server
import shutil
import threading
import time
from collections import defaultdict
from urllib.parse import unquote, urlsplit

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr

import sciwm
from sciwm.chunks import fetch
from tests.loaders import loader

TIMES, CHUNK = 400, 20
OPTIONS = {"window": 4, "batch_size": 16, "every": 4, "seed": 1}
BLOCKS = OPTIONS | {"mode": "block", "memory_limit": 200_000}

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).normal(size=(TIMES, 6, 8)).astype(np.float32)


def write(path, values):
    coords = {
        "time": xr.date_range("2000-01-01", periods=TIMES, freq="6h", unit="ns"),
        "latitude": ("latitude", np.linspace(-75, 75, 6), {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(8) * 45.0, {"units": "degrees_east"}),
    }
    ds = xr.Dataset({"u": (("time", "latitude", "longitude"), values, {"units": "m s-1"})}, coords)
    ds.to_zarr(path, encoding={"u": {"chunks": (CHUNK, 6, 8)}}, zarr_format=3, consolidated=False)
    zarr.consolidate_metadata(path)
    return path


@pytest.fixture
def store(tmp_path, values):
    with pytest.warns(match="Consolidated metadata"):
        return write(tmp_path / "bucket" / "u.zarr", values)


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("sciwm-read")]


# ---- the local disk


@pytest.mark.parametrize("mode", ["block", "resident"])
@pytest.mark.parametrize("harm", ["truncated", "empty", "missing", "noise"])
def test_a_damaged_chunk_is_named_or_skipped_and_counted(store, values, mode, harm):
    chunk = store / "u" / "c" / "3" / "0" / "0"
    whole = chunk.read_bytes()
    if harm == "missing":
        chunk.unlink()
    else:
        half = whole[: len(whole) // 2]
        chunk.write_bytes({"truncated": half, "empty": b"", "noise": bytes(len(whole))}[harm])
    options = BLOCKS | {"mode": mode, "memory_limit": 200_000 if mode == "block" else 2**30}
    with pytest.raises(OSError, match=r"could not read the states of times 2000-01-1.*u/c/3/0/0"):
        list(loader(store, **options))
    assert not readers()
    lossy = loader(store, **options, on_error="skip")
    batches = list(lossy)
    index = np.concatenate([b.index.numpy() for b in batches])
    assert not ((index >= 3 * CHUNK) & (index < 4 * CHUNK)).any()
    assert 1 <= lossy.skipped <= CHUNK // 4 + 1
    assert len(index) + lossy.skipped == len(loader(store, **options)) * 16
    for b in batches:
        np.testing.assert_array_equal(b.values[:, :, 0].numpy(), values[b.index.numpy()])


def test_a_store_that_is_deleted_in_the_middle_of_an_epoch(store):
    batches = iter(loader(store, **BLOCKS | {"every": 1}, epochs=None))
    next(batches)
    shutil.rmtree(store)
    message = r"could not read the states of times .*u/c/\d+/0/0.*no such key"
    with pytest.raises(OSError, match=message):
        for _ in batches:
            pass
    assert not readers()


# ---- a server that speaks enough of S3


def complaint(code, message):
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


class Bucket:
    """Serves a folder as S3 does; ``faults[key]``: what happens to the next requests for a key."""

    def __init__(self, folder):
        self.folder, self.faults, self.requests = folder, defaultdict(list), defaultdict(int)
        bucket, self.stopped = self, threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                bucket.answer(self, body=True)

            def do_HEAD(self):
                bucket.answer(self, body=False)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler, *, body):
        key = unquote(urlsplit(handler.path).path).lstrip("/")
        self.requests[key] += 1
        fault = self.faults[key].pop(0) if self.faults[key] else None
        path = self.folder / key
        if fault in ("timeout", "closed"):
            self.stopped.wait(30 if fault == "timeout" else 0)
            handler.close_connection = True
        elif fault == "500":
            message = "We encountered an internal error."
            self.send(handler, 500, complaint("InternalError", message), body=body)
        elif "list-type" in urlsplit(handler.path).query:
            listing = "<Name>bucket</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated>"
            listing = f"<ListBucketResult>{listing}</ListBucketResult>".encode()
            self.send(handler, 200, listing, body=body)
        elif not path.is_file():
            message = "The specified key does not exist."
            self.send(handler, 404, complaint("NoSuchKey", message), body=body)
        else:
            self.send(handler, 200, path.read_bytes(), body=body, cut=fault == "truncated")

    def send(self, handler, status, data, *, body=True, cut=False):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header("ETag", '"0"')
        handler.send_header("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
        handler.end_headers()
        if body:
            handler.wfile.write(data[: len(data) // 2] if cut else data)
        handler.close_connection = handler.close_connection or cut

    def close(self):
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def bucket(store, tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    served = Bucket(tmp_path)
    # One attempt and a short wait for the client: what sciwm does about faults is seen, and soon.
    config = {"retries": {"total_max_attempts": 1}, "connect_timeout": 2, "read_timeout": 0.5}
    options = {
        "key": "user",
        "secret": "word",
        "endpoint_url": served.url,
        "config_kwargs": config | {"region_name": "us-east-1"},
    }
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    monkeypatch.setattr(fetch, "_FIRST_WAIT", 0.02)
    yield served
    served.close()
    gc.collect()  # streams that errors have kept alive, and their threads that ask the server


KEY = "bucket/u.zarr/u/c/{}/0/0"
URL = "s3://bucket/u.zarr"


@pytest.mark.parametrize("fault", ["500", "timeout", "truncated", "closed"])
def test_s3_faults_that_pass_are_retried(bucket, values, fault):
    for number in (0, 7, 13):
        bucket.faults[KEY.format(number)] = [fault, fault]
    batches = list(loader(URL, **BLOCKS))
    assert len(batches) * 16 >= TIMES // 4 - 16
    for b in batches:
        np.testing.assert_array_equal(b.values[:, :, 0].numpy(), values[b.index.numpy()])
    assert all(bucket.requests[KEY.format(n)] >= 3 for n in (0, 7, 13))


@pytest.mark.parametrize("fault", ["500", "timeout", "truncated", "closed"])
def test_s3_faults_that_stay_are_errors_that_name_the_chunk(bucket, fault):
    bucket.faults[KEY.format(7)] = [fault] * 10_000
    started = time.monotonic()
    message = r"could not read the states of times .*u/c/7/0/0.*in 5 attempts"
    with pytest.raises(OSError, match=message):
        list(loader(URL, **BLOCKS))
    assert time.monotonic() - started < 30
    assert not readers()
    lossy = loader(URL, **BLOCKS, on_error="skip")
    assert sum(len(b) for b in lossy) + lossy.skipped == len(loader(URL, **BLOCKS)) * 16
    assert lossy.skipped > 0


def test_s3_keys_that_vanish_are_named_at_once(bucket, store):
    batches = iter(loader(URL, **BLOCKS | {"every": 1}, epochs=None))
    next(batches)
    shutil.rmtree(store / "u")
    with pytest.raises(OSError, match=r"u/c/\d+/0/0.*no such key"):
        for _ in batches:
            pass


def test_a_request_without_an_answer_is_given_up(monkeypatch):
    """Also where the client itself would wait for ever."""

    class Silent(zarr.storage.MemoryStore):
        async def get(self, key, prototype, byte_range=None):
            await fetch.asyncio.sleep(3600)

    monkeypatch.setattr(fetch, "_FIRST_WAIT", 0.01)
    asked = fetch.open_fetch(Silent(), attempts=2, timeout=0.2)
    started = time.monotonic()
    ((position, error),) = list(asked.many(["a"]))
    assert (position, type(error)) == (0, OSError)
    assert "'a' could not be fetched in 2 attempts: TimeoutError" in str(error)
    assert time.monotonic() - started < 10
    asked.close()


def test_errors_reach_a_training_loop_through_the_top_level_name(store):
    (store / "u" / "c" / "5" / "0" / "0").write_bytes(b"x")
    with pytest.raises(OSError, match="u/c/5/0/0"):
        list(sciwm.stream(store, window=4, batch_size=16, reading=sciwm.Reading(mode="block")))
