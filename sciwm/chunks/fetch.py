"""Raw bytes of many keys of a Zarr store at once.

A local disk is read by plain file calls. Any other store gets concurrent requests.
"""

import asyncio
import contextlib
import copy
import io
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
from zarr.abc.store import Store

# Also exported as zarr.buffer, but only since zarr 3.1.
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from sciwm.chunks.cache import Cache

__all__ = ["Fetch", "Raw", "address", "open_fetch"]

Raw = bytes | memoryview
_Arrival = tuple[int, Raw | Exception | None]
_FIRST_WAIT = 0.1
_FIRST_SIZE = 2**18
_TIMEOUT = 120.0
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_RETRIED_STATUS = (408, 425, 429)
# Errors of clients that are no OSErrors, by package and name, so that none need be installed.
_TRANSIENT = {
    "aiohttp.ClientError",
    "botocore.ConnectionError",
    "botocore.HTTPClientError",
    "obstore.GenericError",
}


def open_fetch(
    store: Store,
    *,
    cache: Cache | None = None,
    requests: int = 64,
    attempts: int = 5,
    timeout: float = _TIMEOUT,
) -> "Fetch":
    """Return what fetches raw bytes from a store.

    Nothing is requested, and no thread started, before the first key is asked for.

    Parameters
    ----------
    store : zarr Store
        A ``LocalStore`` is read by plain file calls in the thread that asks. Every other store is
        asked from one event loop in a thread of its own. An ``FsspecStore`` is reopened there,
        because sessions belong to the event loop that first used them.
    cache : Cache, optional
        Where bytes are kept on disk; not used for a ``LocalStore``, which is on disk already.
    requests : int
        Most requests in flight at once, over all threads that ask.
    attempts : int
        How often a key is asked for when there are transient faults. The waits between are about
        0.1, 0.2, 0.4 … seconds.
    timeout : float
        Seconds after which a request without an answer counts as such a fault. The client of the
        store may give up before.
    """
    if min(requests, attempts) < 1:
        raise ValueError(f"got {requests=} and {attempts=}, expected at least 1 each")
    return Fetch(store, cache, requests, attempts, timeout)


def address(store: Store) -> str | None:
    """Return what tells a remote store from others, in this process and later ones.

    None for stores in memory or on a local disk.
    """
    if isinstance(inner := getattr(store, "_store", None), Store):
        return address(inner)
    fs, path = getattr(store, "fs", None), getattr(store, "path", None)
    if fs is not None and hasattr(fs, "storage_options"):
        options = {**fs.storage_options, **(fs.storage_options.get("client_kwargs") or {})}
        return f"{fs.unstrip_protocol(path)} {options.get('endpoint_url')}"
    if type(store).__name__ == "ObjectStore":
        remote: Any = store.store  # type: ignore[attr-defined]
        return (
            f"{remote!r} {getattr(remote, 'client_options', None)}"
            f" {dict(getattr(remote, 'config', {})).get('endpoint')}"
        )
    return None


class Fetch:
    """Fetches the bytes of many keys; made by `open_fetch`, used by any number of threads."""

    def __init__(
        self, store: Store, cache: Cache | None, requests: int, attempts: int, timeout: float
    ) -> None:
        self._attempts = attempts
        # Not a subclass, which may override `get`.
        self._root = str(store.root) if type(store) is LocalStore else None
        self._cache = cache if self._root is None else None
        self._local = threading.local()
        self._loop = _Loop(store, requests, attempts, timeout)
        self._close = weakref.finalize(self, self._loop.close)

    def many(
        self, keys: Sequence[str], *, names: Sequence[str] | None = None
    ) -> Generator[_Arrival, None, None]:
        """Fetch the bytes of keys, and yield them as they arrive.

        Keys are requested together; those of a local disk are read in order. Closing the generator
        cancels what is outstanding.

        Parameters
        ----------
        keys : sequence of str
            Keys of the store.
        names : sequence of str, optional
            Name of each key's entry in the cache; without it the cache is not used.

        Yields
        ------
        position : int
            Position in ``keys``.
        raw : bytes, memoryview, None or Exception
            None if the store has no such key; the exception if fetching failed. A transient fault
            becomes one only after all attempts. Bytes from a local disk lie in memory of the thread
            that the next step of the generator uses again.
        """
        if not self._close.alive:
            raise ValueError("got keys for a Fetch that is closed")
        if self._root is not None:
            return self._from_disk(keys, self._root)
        if self._cache is None or names is None:
            return self._remote(keys)
        return self._cached(keys, names, self._cache)

    def close(self) -> None:
        """Cancel all requests, close the sessions and end the thread."""
        self._close()

    def _from_disk(self, keys: Sequence[str], root: str) -> Generator[_Arrival, None, None]:
        memory = getattr(self._local, "memory", None)
        if memory is None:
            memory = self._local.memory = _Memory()
        for position, key in enumerate(keys):
            yield position, _read_file(f"{root}/{key}", memory, self._attempts)

    def _remote(self, keys: Sequence[str]) -> Generator[_Arrival, None, None]:
        with contextlib.closing(self._loop.many(range(len(keys)), keys)) as arrivals:
            yield from arrivals

    def _cached(
        self, keys: Sequence[str], names: Sequence[str], cache: Cache
    ) -> Generator[_Arrival, None, None]:
        # Requests for what the cache has not are on their way while entries are read from it.
        absent = [i for i, name in enumerate(names) if name not in cache]
        found = sorted(set(range(len(keys))) - set(absent))
        arrivals = self._loop.many(absent, [keys[i] for i in absent], eager=True)
        try:
            damaged = []
            for i in found:
                if (data := cache.get(names[i])) is None:
                    damaged.append(i)
                else:
                    yield i, data
            for source in (arrivals, self._loop.many(damaged, [keys[i] for i in damaged])):
                with contextlib.closing(source):
                    for i, raw in source:
                        if raw is not None and not isinstance(raw, Exception):
                            cache.put(names[i], raw)
                        yield i, raw
        finally:
            arrivals.close()


class _Memory:
    """Memory that files are read into, one after the other."""

    def __init__(self) -> None:
        self.view = _aligned(_FIRST_SIZE)

    def grow(self, size: int) -> None:
        """Make room for so many bytes; keeps what was there."""
        old, self.view = self.view, _aligned(size)
        self.view[: len(old)] = old


def _aligned(size: int) -> memoryview:
    # Where large pieces of memory start by themselves, 16 bytes into a page, some processors copy
    # at a third of their speed.
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].data


def _read_file(path: str, memory: _Memory, attempts: int) -> Raw | Exception | None:
    for attempt in range(1, attempts + 1):
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                # Python is slow here, where all its memory has left the processor's cache: no file
                # object, no question for the size.
                size = _read_into(descriptor, memory.view)
                while size == len(memory.view):
                    memory.grow(max(os.fstat(descriptor).st_size + 1, 2 * size))
                    size += _read_into(descriptor, memory.view[size:])
                return memory.view[:size]
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if attempt == attempts or not _is_transient(error):
                return _given_up(path, attempt, error)
            time.sleep(_wait(attempt))
    raise AssertionError


def _read_into(descriptor: int, memory: memoryview) -> int:
    """Read on in a file until it ends or the memory is full; return the number of bytes."""
    if sys.platform != "win32":
        return os.readv(descriptor, (memory,))
    with io.FileIO(descriptor, closefd=False) as file:
        return file.readinto(memory) or 0


def _is_transient(error: Exception) -> bool:
    if isinstance(error, _PERMANENT):
        return False
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status >= 500 or status in _RETRIED_STATUS
    names = {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(error).__mro__}
    return isinstance(error, OSError) or bool(names & _TRANSIENT)


def _given_up(key: str, attempts: int, error: Exception) -> OSError:
    failure = OSError(
        f"{key!r} could not be fetched in {attempts} attempt{'s' * (attempts > 1)}:"
        f" {type(error).__name__}: {error}"
    )
    failure.__cause__ = error
    return failure


def _wait(attempt: int) -> float:
    return _FIRST_WAIT * 2.0 ** (attempt - 1) * random.uniform(0.75, 1.25)


class _Loop:
    """An event loop in a daemon thread that asks one store."""

    def __init__(self, store: Store, requests: int, attempts: int, timeout: float) -> None:
        self._origin = self._store = store
        self._requests, self._attempts, self._timeout = requests, attempts, timeout
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def many(
        self, positions: Sequence[int], keys: Sequence[str], *, eager: bool = False
    ) -> "_Arrivals":
        return _Arrivals(partial(self._submit, positions, keys), len(keys), eager=eager)

    def _submit(
        self, positions: Sequence[int], keys: Sequence[str], arrived: "SimpleQueue[_Arrival]"
    ) -> Callable[[], None]:
        """Request keys; return what cancels the requests."""
        tasks: set[asyncio.Task[Raw | Exception | None]] = set()

        def begin() -> None:
            for position, key in zip(positions, keys, strict=True):
                task = loop.create_task(self._get(key))
                tasks.add(task)
                task.add_done_callback(partial(_deliver, tasks, arrived, position))

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        with self._lock:
            if self._closed:
                raise ValueError("got keys for a Fetch that is closed")
            loop = self._running()
            loop.call_soon_threadsafe(begin)

        def cancel_soon() -> None:
            # If the loop is closed, there is nothing to cancel.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(cancel)

        return cancel_soon

    def _running(self) -> asyncio.AbstractEventLoop:
        # A forked process has the loop but not its thread.
        if self._loop is None or self._process != os.getpid():
            return self._start()
        return self._loop

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._gate = asyncio.Semaphore(self._requests)
        # Stores without asynchronous calls are asked in threads of this executor; asyncio's own has
        # few on small machines.
        self._executor = ThreadPoolExecutor(self._requests, thread_name_prefix="sciwm-fetch")
        loop.set_default_executor(self._executor)
        loop.call_soon(self._reopen)
        self._thread = threading.Thread(
            target=self._serve, args=(loop,), name="sciwm-fetch", daemon=True
        )
        self._thread.start()
        return loop

    def _reopen(self) -> None:
        self._store = _reopened(self._origin)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(_close_sessions(self._store))
            loop.run_until_complete(loop.shutdown_asyncgens())
            self._executor.shutdown(wait=True, cancel_futures=True)
            loop.close()

    async def _get(self, key: str) -> Raw | Exception | None:
        for attempt in range(1, self._attempts + 1):
            try:
                async with self._gate:
                    answer = self._store.get(key, default_buffer_prototype())
                    buffer = await asyncio.wait_for(answer, self._timeout)
                return None if buffer is None else buffer.as_numpy_array().data
            except Exception as error:
                if attempt == self._attempts or not _is_transient(error):
                    return _given_up(key, attempt, error)
            await asyncio.sleep(_wait(attempt))
        raise AssertionError

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._loop is not None and not self._loop.is_closed():
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


class _Arrivals:
    """What `Fetch.many` yields from the loop.

    Requests start with the first step, or at once if ``eager``.
    """

    def __init__(
        self,
        submit: Callable[["SimpleQueue[_Arrival]"], Callable[[], None]],
        count: int,
        *,
        eager: bool,
    ) -> None:
        self._submit, self._left = submit, count
        self._arrived: SimpleQueue[_Arrival] = SimpleQueue()
        self._cancel: Callable[[], None] | None = submit(self._arrived) if eager and count else None

    def __iter__(self) -> "_Arrivals":
        return self

    def __next__(self) -> _Arrival:
        if not self._left:
            raise StopIteration
        if self._cancel is None:
            self._cancel = self._submit(self._arrived)
        arrival = self._arrived.get()
        self._left -= 1
        return arrival

    def close(self) -> None:
        if self._left and self._cancel is not None:
            self._cancel()
        self._left = 0


def _deliver(
    tasks: "set[asyncio.Task[Any]]",
    arrived: "SimpleQueue[_Arrival]",
    position: int,
    task: "asyncio.Task[Any]",
) -> None:
    tasks.discard(task)
    if task.cancelled():
        raw: Raw | Exception | None = OSError("cancelled, because the Fetch was closed")
    elif (error := task.exception()) is None:
        raw = task.result()
    else:
        raw = error if isinstance(error, Exception) else OSError(repr(error))
    arrived.put((position, raw))


def _reopened(store: Store) -> Store:
    """Copy a store for another event loop, with a filesystem of its own."""
    inner = getattr(store, "_store", None)
    if isinstance(inner, Store):  # A wrapper, as zarr.storage.WrapperStore.
        if (again := _reopened(inner)) is inner:
            return store
        wrapper: Any = copy.copy(store)
        wrapper._store = again
        return wrapper  # type: ignore[no-any-return]
    fs = getattr(store, "fs", None)
    if fs is None or not hasattr(fs, "storage_options"):
        return store
    again_store: Any = copy.copy(store)
    again_store.fs = _reopened_filesystem(fs)
    return again_store  # type: ignore[no-any-return]


def _reopened_filesystem(fs: Any) -> Any:
    options = {**fs.storage_options, "asynchronous": True, "skip_instance_cache": True}
    for name, value in options.items():
        if getattr(value, "async_impl", False) and hasattr(value, "storage_options"):
            options[name] = _reopened_filesystem(value)
    return type(fs)(*fs.storage_args, **options)


async def _close_sessions(store: Store) -> None:
    inner = getattr(store, "_store", None)
    if isinstance(inner, Store):
        await _close_sessions(inner)
    fs: Any = getattr(store, "fs", None)
    for system in (fs, *getattr(fs, "storage_options", {}).values()):
        if getattr(system, "async_impl", False) and hasattr(system, "set_session"):
            # Whatever goes wrong in closing, all bytes have been read.
            with contextlib.suppress(Exception):
                session = await system.set_session()
                await session.close()
