import asyncio
import functools
import http.server
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

from sciwm.chunks import fetch as module
from sciwm.chunks.cache import Cache
from sciwm.chunks.chunks import ChunkReader, Piece
from sciwm.chunks.fetch import address, open_fetch

CONTENT = {f"a/c/{i}": bytes([i]) * (10 + i) for i in range(20)}
KEYS = list(CONTENT)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.001)


@pytest.fixture
def opened():
    fetches = []

    def open_it(store, **options):
        fetches.append(open_fetch(store, **options))
        return fetches[-1]

    before = set(threading.enumerate())
    yield open_it
    for one in fetches:
        one.close()
        one.close()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not any(name.startswith("sciwm-fetch") for name in left)


class Slow(MemoryStore):
    """Counts requests in flight; fails each key so many times first."""

    def __init__(self, *, delay=0.005, failures=0, error=lambda: OSError("reset"), delays=None):
        super().__init__()
        self.delay, self.failures, self.error, self.delays = delay, failures, error, delays or {}
        self.flying = self.most = self.cancelled = 0
        self.asked = []

    async def get(self, key, prototype, byte_range=None):
        self.asked.append(key)
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(self.delays.get(key, self.delay))
            if self.asked.count(key) <= self.failures:
                raise self.error()
            return await super().get(key, prototype, byte_range)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.flying -= 1


def fill(store):
    async def write():
        for key, data in CONTENT.items():
            await store.set(key, default_buffer_prototype().buffer.from_bytes(data))

    asyncio.run(write())
    return store


def collect(arrivals):
    # A generator may use the memory of a memoryview again.
    return {i: bytes(raw) if isinstance(raw, memoryview) else raw for i, raw in arrivals}


EXPECTED = dict(enumerate(CONTENT.values()))


def test_local_files_are_read_in_order_without_a_thread(tmp_path, opened):
    fetch = opened(fill(LocalStore(tmp_path)))
    threads = threading.active_count()
    found = collect(fetch.many([*KEYS, "a/c/absent", "a/c/0/below"]))
    assert threading.active_count() == threads
    assert list(found) == list(range(22))
    assert found == EXPECTED | {20: None, 21: None}


@pytest.mark.parametrize("platform", [sys.platform, "win32"])
def test_local_files_longer_than_the_memory_are_read_whole(tmp_path, opened, monkeypatch, platform):
    sizes = [0, 1, 63, 64, 65, 200, 10_000, 64, 5]
    contents = [np.random.default_rng(n).bytes(n) for n in sizes]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    monkeypatch.setattr(module, "_FIRST_SIZE", 64)
    monkeypatch.setattr(module.sys, "platform", platform)
    fetch = opened(LocalStore(tmp_path))
    found = collect(fetch.many([str(n) for n in range(len(sizes))]))
    assert found == dict(enumerate(contents))


def test_threads_read_local_files_into_memory_of_their_own(tmp_path, opened):
    fetch, found = opened(fill(LocalStore(tmp_path))), {}
    first, second = fetch.many(KEYS), fetch.many(KEYS[::-1])
    held = next(first)[1]
    reader = threading.Thread(target=lambda: found.update(collect(second)))
    reader.start()
    reader.join(30)
    assert bytes(held) == EXPECTED[0]
    assert found == dict(enumerate(list(EXPECTED.values())[::-1]))


def test_local_faults_are_retried_then_told(tmp_path, opened, monkeypatch):
    fetch = opened(fill(LocalStore(tmp_path)), attempts=3)
    read, calls = module._read_into, []

    def flaky(descriptor, memory):
        calls.append(descriptor)
        if len(calls) < 3:
            raise OSError(5, "Input/output error")
        return read(descriptor, memory)

    monkeypatch.setattr(module, "_read_into", flaky)
    assert collect(fetch.many(KEYS[:1])) == {0: CONTENT[KEYS[0]]}

    def broken(descriptor, memory):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "_read_into", broken)
    error = collect(fetch.many(KEYS[:1]))[0]
    assert isinstance(error, OSError)
    assert "3 attempts" in str(error)
    assert "Input/output error" in str(error)
    assert error.__cause__.errno == 5


def test_what_cannot_get_better_is_not_retried(tmp_path, opened):
    (tmp_path / "folder").mkdir()
    error = collect(opened(LocalStore(tmp_path)).many(["folder"]))[0]
    assert "1 attempt:" in str(error)
    assert isinstance(error.__cause__, IsADirectoryError)


@pytest.mark.parametrize("kind", ["memory", "zip", "fsspec", "wrapped"])
def test_every_other_store_gives_the_same_bytes(kind, tmp_path, opened):
    if kind == "memory":
        store = MemoryStore()
    elif kind == "zip":
        store = ZipStore(tmp_path / "s.zip", mode="w")
    else:
        store = FsspecStore.from_url(f"memory://{tmp_path.name}{kind}")
    fill(store)
    if kind == "wrapped":
        store = zarr.storage.WrapperStore(store)
    fetch = opened(store)
    for _ in range(2):
        assert collect(fetch.many([*KEYS, "absent"])) == EXPECTED | {20: None}
    if kind == "zip":
        store.close()


def test_arrivals_come_as_they_arrive(opened):
    store = fill(Slow(delays={KEYS[0]: 0.2}))
    order = [i for i, _ in opened(store).many(KEYS)]
    assert order[-1] == 0
    assert sorted(order) == list(range(20))


@pytest.mark.parametrize("requests", [3, 64])
def test_requests_in_flight_reach_the_limit_and_never_pass_it(requests, opened):
    store = fill(Slow(delay=0.02))
    fetch = opened(store, requests=requests)
    found = {}
    readers = [
        threading.Thread(target=lambda n=n: found.update({n: collect(fetch.many(KEYS))}))
        for n in range(4)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == dict.fromkeys(range(4), EXPECTED)
    assert store.most == requests
    assert [t.name for t in threading.enumerate()].count("sciwm-fetch") == 1


def test_transient_faults_are_retried(opened):
    store = fill(Slow(failures=4, delay=0))
    assert collect(opened(store).many(KEYS)) == EXPECTED
    assert len(store.asked) == 5 * len(KEYS)


class Status(Exception):
    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (OSError, 3),
        (TimeoutError, 3),
        (ConnectionResetError, 3),
        (lambda: Status(503), 3),
        (lambda: Status(429), 3),
        (lambda: Status(403), 1),
        (PermissionError, 1),
        (ValueError, 1),
    ],
)
def test_faults_that_stay_are_yielded_with_the_number_of_attempts(error, attempts, opened):
    store = fill(Slow(failures=99, delay=0, error=error))
    found = collect(opened(store, attempts=3).many(KEYS[:2]))
    for position, fault in found.items():
        assert isinstance(fault, OSError)
        assert f"{attempts} attempt" in str(fault)
        assert KEYS[position] in str(fault)
    assert len(store.asked) == 2 * attempts


def test_errors_of_obstore_and_aiohttp_count_as_transient():
    aiohttp = pytest.importorskip("aiohttp")
    assert module._is_transient(aiohttp.ServerDisconnectedError())
    assert not module._is_transient(aiohttp.ClientResponseError(None, (), status=404))
    generic = type("GenericError", (Exception,), {"__module__": "obstore.exceptions"})
    assert module._is_transient(generic())


def test_waits_double():
    for attempt in (1, 2, 5):
        usual = module._FIRST_WAIT * 2 ** (attempt - 1)
        assert 0.75 <= module._wait(attempt) / usual <= 1.25


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert condition()


def test_closing_the_generator_cancels_what_is_outstanding(opened):
    store = fill(Slow(delay=30, delays={KEYS[3]: 0}))
    fetch = opened(store, requests=10)
    arrivals = fetch.many(KEYS)
    assert next(arrivals)[0] == 3
    arrivals.close()
    wait_until(lambda: store.flying == 0)
    assert store.cancelled >= 9
    store.delay = 0
    assert collect(fetch.many(KEYS)) == EXPECTED


def test_a_generator_that_was_never_started_asks_for_nothing(opened):
    store = fill(Slow())
    opened(store).many(KEYS).close()
    assert not store.asked


def test_close_wakes_a_reader_that_waits(opened):
    store = fill(Slow(delay=30))
    fetch = opened(store, requests=2)
    found = {}
    reader = threading.Thread(target=lambda: found.update(collect(fetch.many(KEYS))))
    reader.start()
    wait_until(lambda: store.flying == 2)
    fetch.close()
    reader.join(5)
    assert not reader.is_alive()
    assert len(found) == 20
    assert all("closed" in str(e) for e in found.values())
    with pytest.raises(ValueError, match="closed"):
        fetch.many(KEYS)


def test_a_forgotten_fetch_ends_its_thread():
    fetch = open_fetch(fill(MemoryStore()))
    assert collect(fetch.many(KEYS)) == EXPECTED
    thread = next(t for t in threading.enumerate() if t.name == "sciwm-fetch")
    del fetch
    wait_until(lambda: not thread.is_alive())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_a_thread_of_its_own(opened):
    fetch = opened(fill(MemoryStore()))
    assert collect(fetch.many(KEYS)) == EXPECTED
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(collect(fetch.many(KEYS)) != EXPECTED)
    assert os.waitpid(child, 0)[1] == 0
    assert collect(fetch.many(KEYS)) == EXPECTED


@pytest.mark.parametrize("option", ["requests", "attempts"])
def test_limits_below_one_are_refused(option):
    with pytest.raises(ValueError, match=f"{option}=0"):
        open_fetch(MemoryStore(), **{option: 0})


def test_cached_keys_are_not_asked_for_again(tmp_path, opened):
    store, cache = fill(Slow(delay=0)), Cache(tmp_path)
    names = [f"n{key}" for key in KEYS]
    fetch = opened(store, cache=cache)
    assert collect(fetch.many(KEYS[:5], names=names[:5])) == dict(list(EXPECTED.items())[:5])
    found = collect(fetch.many([*KEYS, "absent"], names=[*names, "nabsent"]))
    assert found == EXPECTED | {20: None}
    assert sorted(store.asked) == sorted([*KEYS, "absent"])
    assert collect(fetch.many(KEYS)) == EXPECTED  # Without names nothing is cached.
    assert len(store.asked) == 41


def test_a_damaged_entry_is_fetched_again(tmp_path, opened):
    store, cache = fill(Slow(delay=0)), Cache(tmp_path)
    fetch = opened(store, cache=cache)
    assert collect(fetch.many(KEYS, names=KEYS)) == EXPECTED
    victim = cache._path(KEYS[7])
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    assert collect(fetch.many(KEYS, names=KEYS)) == EXPECTED
    assert store.asked.count(KEYS[7]) == 2
    assert len(store.asked) == 21
    assert cache.get(KEYS[7]) == CONTENT[KEYS[7]]


def test_closing_early_with_a_cache_cancels_too(tmp_path, opened):
    store, cache = fill(Slow(delay=30)), Cache(tmp_path)
    cache.put(KEYS[0], CONTENT[KEYS[0]])
    arrivals = opened(store, cache=cache).many(KEYS, names=KEYS)
    assert next(arrivals)[0] == 0
    wait_until(lambda: store.flying == 19)
    arrivals.close()
    wait_until(lambda: store.flying == 0)


def test_addresses_tell_remote_stores_apart(tmp_path):
    assert address(LocalStore(tmp_path)) is None
    assert address(MemoryStore()) is None
    one, other = (FsspecStore.from_url(f"memory://{n}") for n in "ab")
    assert address(one) == address(FsspecStore.from_url("memory://a")) != address(other)
    assert address(zarr.storage.WrapperStore(one)) == address(one)


@pytest.fixture
def server(tmp_path):
    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(tmp_path))
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_an_http_store_that_zarr_opened_is_read_from_our_loop(server, tmp_path, opened):
    pytest.importorskip("aiohttp")
    values = np.random.default_rng(0).normal(size=(40, 4, 6)).astype(np.float32)
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    group.create_array("a", data=values, chunks=(8, 4, 6))
    remote = zarr.open_array(f"{server}/s.zarr", path="a", mode="r")
    assert np.array_equal(remote[:8], values[:8])  # zarr's own session lives on zarr's loop.
    cache = Cache(tmp_path / "cache")
    reader = ChunkReader([Piece(remote, None)], cache=cache)
    out = np.zeros_like(values)
    assert reader.read(0, 40, out).failed == ()
    assert np.array_equal(out, values)
    for path in (tmp_path / "s.zarr/a/c").rglob("*"):
        if path.is_file():
            path.unlink()
    out[:] = 0
    assert reader.read(0, 40, out).failed == ()  # All from the cache.
    assert np.array_equal(out, values)
    reader.close()
    absent = ChunkReader([Piece(remote, None)]).read(0, 40, out)
    assert len(absent.failed) == 5
    close_zarr_session(remote.store.fs)


def close_zarr_session(fs):
    from zarr.core.sync import sync

    sync(fs._session.close())


def test_obstore_is_read(tmp_path, opened):
    obstore = pytest.importorskip("obstore")
    fill(LocalStore(tmp_path))
    store = zarr.storage.ObjectStore(obstore.store.LocalStore(str(tmp_path)), read_only=True)
    assert collect(opened(store).many([*KEYS, "absent"])) == EXPECTED | {20: None}
    assert address(store)
