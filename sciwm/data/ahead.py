"""Items made by a background thread, a few ahead of their use."""

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")
_PAUSE = 0.05  # seconds between looks at whether the consumer has gone


def ahead(items: Generator[T | None, None, None], depth: int) -> Generator[tuple[int, T], None, None]:
    """Yield what a generator makes in a thread, with its number from 1; ``depth`` items wait ready. None counts but is not handed over.

    The generator is closed, and the thread has ended, when this iterator is exhausted, closed, or dropped; its exceptions arrive here.
    """
    waiting: queue.Queue[tuple[int, T | None | BaseException]] = queue.Queue(depth)
    gone = threading.Event()

    def put(entry: tuple[int, T | None | BaseException]) -> bool:
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
            for number, item in enumerate(items, start=1):  # noqa: B007
                if item is not None and not put((number, item)):
                    return
            put((number, None))
        except BaseException as error:
            put((number, error))
        finally:
            items.close()

    thread = threading.Thread(target=work, name="sciwm-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            number, item = waiting.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield number, item
    finally:
        gone.set()
        thread.join()
