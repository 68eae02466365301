"""Raw chunks of remote stores kept on a local disk, up to a size, with checksums."""

import contextlib
import hashlib
import os
import tempfile
import threading
import time
import warnings
from pathlib import Path

__all__ = ["Cache"]

_MAGIC = b"sciwm\x00c1"
_DIGEST = 32
_STALE = 3600.0
_KEPT = 0.9


class Cache:
    """Entries of bytes by name in a folder, used by any number of threads and processes.

    Reading checks an entry against a hash of its name and content, and removes a damaged one. When
    the entries pass the limit, the longest unused ones are removed until a tenth of it is free.
    Each process counts only what it wrote itself. It looks at the folder again when it has written
    as much as was free. So several processes that write at once may pass the limit, each by a tenth
    of it. If nothing can be written, caching stops with one warning. Entries already there are
    still read.

    The cache knows nothing of stores. Names must change with what they stand for: `ChunkReader`
    takes the store's address, the array's metadata and the key. So a store rewritten with other
    metadata (shape, chunks, type, codecs, attributes) is fetched afresh. Chunks **overwritten in
    place under the same metadata are not noticed**: remove the folder then.

    Parameters
    ----------
    folder : path
        Made if it is missing. It must hold nothing else.
    limit : int
        Bytes of all entries together.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = Cache(folder)
    ...     cache.put("a", b"chunk")
    ...     cache.get("a"), cache.get("b")
    (b'chunk', None)
    """

    def __init__(self, folder: str | Path, *, limit: int = 10 * 2**30) -> None:
        if limit <= 0:
            raise ValueError(f"got limit={limit}, expected bytes > 0")
        self._folder = Path(folder).expanduser()
        self._limit = limit
        self._lock = threading.Lock()
        # Bytes in the folder as far as this process knows; None before it has looked.
        self._size: int | None = None
        self._broken = False

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def get(self, name: str) -> bytes | None:
        """Return an entry, or None if there is none or it is damaged."""
        path = self._path(name)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + _DIGEST
        data = stored[start:]
        if stored[:start] != _header(name, data):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        # Modification times order the entries by use; access times are switched off on many disks.
        with contextlib.suppress(OSError):
            os.utime(path)
        return data

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write an entry, or replace it; readers see all of it or nothing."""
        header = _header(name, data)
        size = len(header) + len(data)
        if self._broken or size > self._limit:
            return
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(header)
                    file.write(data)
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
            self._make_room(size)
        except OSError as error:
            self._stop(error)

    def _path(self, name: str) -> Path:
        digest = hashlib.blake2b(name.encode(), digest_size=20).hexdigest()
        return self._folder / digest[:2] / digest[2:]

    def _make_room(self, added: int) -> None:
        with self._lock:
            if self._size is not None:
                self._size += added
                if self._size <= self._limit:
                    return
            entries = sorted(self._entries())
            self._size = sum(size for _, size, _ in entries)
            if self._size <= self._limit:
                return
            for _, size, path in entries:
                if self._size <= _KEPT * self._limit:
                    break
                with contextlib.suppress(OSError):
                    os.unlink(path)
                self._size -= size

    def _entries(self) -> list[tuple[float, int, str]]:
        """Time of last use, size and path of every entry.

        Temporary files that a dead process left are removed.
        """
        found = []
        for folder in os.scandir(self._folder):
            if not (folder.is_dir() and len(folder.name) == 2):
                continue
            for entry in os.scandir(folder.path):
                with contextlib.suppress(OSError):  # Another process removed it.
                    status = entry.stat()
                    if not entry.name.endswith(".tmp"):
                        found.append((status.st_mtime, status.st_size, entry.path))
                    elif status.st_mtime < time.time() - _STALE:
                        os.unlink(entry.path)
        return found

    def _stop(self, error: OSError) -> None:
        with self._lock:
            first, self._broken = not self._broken, True
        if first:
            warnings.warn(
                f"chunks are no longer cached in {str(self._folder)!r}, which cannot be written"
                f" ({error}); reading goes on without",
                RuntimeWarning,
                stacklevel=3,
            )


def _header(name: str, data: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(name.encode() + b"\0", digest_size=_DIGEST)
    digest.update(data)
    return _MAGIC + digest.digest()
