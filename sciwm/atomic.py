"""Files and folders that are whole or not there: written beside, then renamed."""

import glob
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["replacing", "write_atomically"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the place of ``path`` when the block succeeds.

    After an error or Ctrl-C in the block, ``path`` is as before and nothing is left beside it.
    The temporary path has the name of ``path`` and lies in a hidden folder of its own beside it.
    Writers therefore see the same suffix, and two of them never meet.

    Parameters
    ----------
    path : Path
        A file or a folder, there or not; its own folder must be there.

    Yields
    ------
    Path
        Where the block writes a file or a folder.

    Raises
    ------
    FileNotFoundError
        If the block wrote nothing.

    Examples
    --------
    >>> with TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.csv")) as temporary:
    ...         _ = temporary.write_text("1,2")
    ...     os.listdir(folder)
    ['a.csv']
    """
    _remove_leftovers(path)
    own = f".{path.name}.{socket.gethostname()}-{os.getpid()}."
    with TemporaryDirectory(prefix=own, dir=path.parent, ignore_cleanup_errors=True) as beside:
        new = Path(beside, path.name)
        yield new
        if new.is_dir() and path.is_dir():
            _swap_folders(new, path, old=Path(beside, f"{path.name}.old"))
        else:
            os.replace(new, path)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left beside a path."""
    name, host = re.escape(path.name), re.escape(socket.gethostname())
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*"):
        found = re.fullmatch(rf"\.{name}\.{host}-(\d+)\..*", folder.name)
        if found and not _runs(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _swap_folders(new: Path, path: Path, *, old: Path) -> None:
    """Put ``new`` in the place of ``path``; no system renames over a folder that holds files."""
    try:
        os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a crash leaves the old one or the new one, never half."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
