import errno
import multiprocessing
import os
import threading
import warnings

import pytest

from sciwm.chunks import cache as module
from sciwm.chunks.cache import Cache

HEADER = len(module._header("", b""))


def files(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


def size(folder):
    return sum(p.stat().st_size for p in files(folder))


def age(cache, name, seconds):
    path = cache._path(name)
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


def test_gives_back_what_was_put_also_to_another_cache_of_the_folder(tmp_path):
    cache = Cache(tmp_path / "made" / "deep")
    cache.put("a", b"one")
    cache.put("b/ü 2", memoryview(b"two"))
    cache.put("a", b"three")
    again = Cache(str(tmp_path / "made" / "deep"))
    assert [again.get("a"), again.get("b/ü 2"), again.get("c")] == [b"three", b"two", None]
    assert ("a" in again, "c" in again) == (True, False)
    again.put("empty", b"")
    assert cache.get("empty") == b""


@pytest.mark.parametrize(
    "harm",
    [
        lambda b: b[:-1],
        lambda b: b"",
        lambda b: b[:20],
        lambda b: b[:-3] + b"x" + b[-2:],
        lambda b: b"y" + b[1:],
        lambda b: b + b"z",
    ],
)
def test_a_damaged_entry_is_dropped(tmp_path, harm):
    cache = Cache(tmp_path)
    cache.put("a", bytes(range(200)))
    path = cache._path("a")
    path.write_bytes(harm(path.read_bytes()))
    assert cache.get("a") is None
    assert not path.exists()


def test_an_entry_under_another_name_is_dropped(tmp_path):
    cache = Cache(tmp_path)
    cache.put("a", b"content of a")
    cache.put("b", b"content of b")
    os.replace(cache._path("a"), cache._path("b"))
    assert cache.get("b") is None


def test_what_was_not_used_for_longest_leaves(tmp_path):
    cache = Cache(tmp_path, limit=10 * (100 + HEADER))
    for i in range(10):
        cache.put(f"n{i}", bytes(100))
        age(cache, f"n{i}", 1000 - i)
    assert cache.get("n0") == bytes(100)  # Used just now.
    cache.put("n10", bytes(100))
    assert [i for i in range(11) if f"n{i}" not in cache] == [1, 2]
    assert size(tmp_path) == 9 * (100 + HEADER)


def test_the_folder_is_listed_once_in_a_while(tmp_path, monkeypatch):
    listings = []
    entries = Cache._entries
    monkeypatch.setattr(Cache, "_entries", lambda self: listings.append(1) or entries(self))
    cache = Cache(tmp_path, limit=100 * (100 + HEADER))
    for i in range(400):
        cache.put(f"n{i}", bytes(100))
        assert i % 25 or size(tmp_path) <= 100 * (100 + HEADER)
    assert 20 <= len(listings) <= 40


def test_entries_of_before_count(tmp_path):
    limit = 10 * (100 + HEADER)
    for i in range(10):
        Cache(tmp_path, limit=limit).put(f"n{i}", bytes(100))
    Cache(tmp_path, limit=limit).put("one more", bytes(100))
    assert size(tmp_path) <= limit


def test_larger_than_the_limit_is_not_kept(tmp_path):
    cache = Cache(tmp_path, limit=1000)
    cache.put("a", bytes(1000))
    assert cache.get("a") is None
    assert files(tmp_path) == []
    with pytest.raises(ValueError, match="limit=0"):
        Cache(tmp_path, limit=0)


def test_left_over_temporary_files_are_removed(tmp_path):
    cache = Cache(tmp_path)
    folder = cache._path("a").parent
    folder.mkdir()
    (tmp_path / "README").touch()
    old, new = folder / "old.tmp", folder / "new.tmp"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (1, 1))
    cache.put("a", b"content")
    assert not old.exists()
    assert new.exists()


def fill(folder, worker):
    cache = Cache(folder, limit=200 * 1000)
    for i in range(300):
        name = f"n{(i * 7 + worker) % 60}"
        found = cache.get(name)
        assert found is None or found == name.encode() * 400
        cache.put(name, name.encode() * 400)


def test_threads_share_a_folder(tmp_path):
    cache, wrong = Cache(tmp_path, limit=50 * 1000), []

    def work(worker):
        for i in range(200):
            name = f"n{(i * 7 + worker) % 60:02d}"
            if cache.get(name) not in (None, name.encode() * 400):
                wrong.append(name)
            cache.put(name, name.encode() * 400)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert size(tmp_path) <= 50 * 1000
    assert not [p for p in files(tmp_path) if p.suffix == ".tmp"]


def test_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path, n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0]
    assert size(tmp_path) <= 200 * 1000 * 1.2


def test_a_full_disk_stops_caching_with_one_warning(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    cache.put("a", b"one")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        cache.put("b", b"two")
    cache.put("c", b"three")  # Warns no more: warnings are errors here.
    assert len(files(tmp_path)) == 1
    assert cache.get("a") == b"one"
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put("b", b"two")
    assert cache.get("b") is None


def test_a_folder_that_cannot_be_made_stops_caching(tmp_path):
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file")
    with pytest.warns(RuntimeWarning, match="no longer cached"):
        cache.put("a", b"one")
    assert cache.get("a") is None
    assert "a" not in cache
