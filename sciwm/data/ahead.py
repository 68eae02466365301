"""Items made by a background thread, a few ahead of their use."""

import atexit
import queue
import threading
from collections.abc import Generator
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")
_PAUSE = 0.05  # seconds between looks at whether the consumer has gone
_running: dict[threading.Thread, threading.Event] = {}


@atexit.register
def _stop_all() -> None:
    """End what a program leaves open: a thread that Python stops by force at its exit, in the middle of torch, aborts the process."""
    for thread, gone in list(_running.items()):
        gone.set()
        thread.join()


def ahead(items: Generator[T | None, None, None], depth: int) -> Generator[tuple[int, T | None], None, None]:
    """Yield what a generator makes in a thread, with its number from 1; ``depth`` items wait ready.

    None counts but is not handed over, except at the end: with the number of all items.

    The generator is closed, and the thread has ended, when this iterator is exhausted, closed, or dropped; its exceptions arrive here.
    """
    waiting: queue.Queue[tuple[int, T | BaseException | None]] = queue.Queue(max(1, depth))
    gone = threading.Event()

    def put(entry: tuple[int, T | BaseException | None]) -> bool:
        while not gone.is_set():
            try:
                waiting.put(entry, timeout=_PAUSE)
            except queue.Full:
                continue
            return True
        return False

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
    _running[thread] = gone
    thread.start()
    try:
        while True:
            number, item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            yield number, item
            if item is None:
                return
    finally:
        gone.set()
        # The garbage collector may close this in any thread, also in one that the thread to be joined waits for.
        if not threading.current_thread().name.startswith("sciwm"):
            thread.join()
