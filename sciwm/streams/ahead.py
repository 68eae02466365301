"""Items made by a background thread, a few ahead of their use."""

import atexit
import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")
_running: dict[threading.Thread, Callable[[], None]] = {}


@atexit.register
def _stop_all() -> None:
    """End what a program leaves open.

    At its exit Python stops threads by force. One in the middle of torch aborts the process.
    """
    for thread, stop in list(_running.items()):
        stop()
        thread.join()


def ahead(
    items: Generator[T | None, None, None], depth: int
) -> Generator[tuple[int, T | None], None, None]:
    """Yield what a generator makes in a thread, with its number from 1; ``depth`` items wait ready.

    None counts but is not yielded; at the end, ``(number of all items, None)`` is. Exceptions of
    the generator arrive here. When this iterator is exhausted, closed or dropped, the generator is
    closed and the thread has ended.
    """
    waiting: SimpleQueue[tuple[int, T | BaseException | None]] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()  # one entry for every item that may still be put
    gone = threading.Event()
    for _ in range(max(1, depth)):
        room.put(None)

    def put(entry: tuple[int, T | BaseException | None]) -> bool:
        room.get()
        if gone.is_set():
            return False
        waiting.put(entry)
        return True

    def stop() -> None:
        gone.set()
        room.put(None)

    def work() -> None:
        number = 0
        try:
            for number, item in enumerate(items, start=1):
                if item is not None and not put((number, item)):
                    return
            put((number, None))
        except BaseException as error:
            put((number, error))
        finally:
            items.close()
            _running.pop(thread, None)

    thread = threading.Thread(target=work, name="sciwm-read-ahead", daemon=True)
    _running[thread] = stop
    thread.start()
    try:
        while True:
            number, item = waiting.get()
            room.put(None)
            if isinstance(item, BaseException):
                raise item
            yield number, item
            if item is None:
                return
    finally:
        stop()
        # The garbage collector may close this in any thread, also in one that the thread to be
        # joined waits for.
        if not threading.current_thread().name.startswith("sciwm"):
            thread.join()
