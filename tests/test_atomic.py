"""Files and folders that are whole or not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sciwm import atomic
from sciwm.atomic import replacing, write_atomically


def write_folder(path, text):
    path.mkdir()
    (path / "part").write_text(text)


def write_half(path, error):
    with replacing(path) as temporary:
        write_folder(temporary, "half") if path.is_dir() else temporary.write_text("half")
        raise error


def test_a_file_takes_the_place_of_the_old_one(tmp_path):
    file = tmp_path / "a.csv"
    for text in ("old", "new"):
        with replacing(file) as temporary:
            temporary.write_text(text)
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "a.zarr"
    for text in ("old", "new"):
        with replacing(folder) as temporary:
            write_folder(temporary, text)
    assert (folder / "part").read_text() == "new"
    assert list(tmp_path.iterdir()) == [folder]


def test_the_old_one_stays_readable_until_the_block_ends(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"


def test_writers_see_the_name_and_never_meet(tmp_path):
    file = tmp_path / "a.csv"
    with replacing(file) as one, replacing(file) as other:
        assert one.name == other.name == "a.csv"
        one.write_text("one")
        other.write_text("other")
    assert file.read_text() == "one"  # whose block ends last


def test_a_path_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replacing(Path("a.csv")) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.csv").read_text() == "new"


def test_a_new_file_has_the_usual_permissions(tmp_path):
    usual, file = tmp_path / "usual", tmp_path / "a.csv"
    usual.write_text("")
    write_atomically(file, "new")
    assert file.stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_end_within_the_block_keeps_the_old_file(tmp_path, error):
    file = tmp_path / "a.csv"
    file.write_text("old")
    with pytest.raises(error):
        write_half(file, error)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_end_within_the_block_keeps_the_old_folder(tmp_path):
    folder = tmp_path / "a.zarr"
    write_folder(folder, "old")
    with pytest.raises(KeyboardInterrupt):
        write_half(folder, KeyboardInterrupt)
    assert (folder / "part").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_an_end_between_two_renames_keeps_the_old_folder(tmp_path, monkeypatch):
    folder = tmp_path / "a.zarr"
    write_folder(folder, "old")
    rename = os.replace

    def crash_once(source, target):
        if target == folder:
            monkeypatch.setattr(atomic.os, "replace", rename)
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(atomic.os, "replace", crash_once)
    with pytest.raises(KeyboardInterrupt), replacing(folder) as temporary:
        write_folder(temporary, "new")
    assert (folder / "part").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_block_that_writes_nothing_keeps_the_old_file(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(file):
        pass
    assert file.read_text() == "old"


def test_a_crash_while_writing_keeps_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomically(file, "old")

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    program = (
        "import os, sys, pathlib; from sciwm.atomic import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as new:\n"
        "    new.mkdir(); (new / 'half').touch(); os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "out.zarr"
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "out.zarr" / "half").exists()
    others = [tmp_path / ".out.zarr.partial", tmp_path / ".out.zarr.elsewhere-1.x"]
    for other in others:
        other.mkdir()
    with replacing(path) as new, replacing(path) as second:  # two of a living process
        for made in (new, second):
            made.mkdir()
        assert not left.exists()
        assert new.exists()
    assert path.is_dir()
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])
