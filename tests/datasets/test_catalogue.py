"""The catalogue finds data sets and configurations, in a checkout and installed, unimported."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sciwm import catalogue

CHECKOUT = Path(__file__).parents[2]


def test_every_data_set_tells_its_licence_and_origin():
    rows = {row["name"]: row for row in catalogue.table()}
    assert set(rows) == {
        "alanine",
        "erai_europe",
        "kaplan_pacific",
        "ncep_slp",
        "qg",
        "speedy_global",
    }
    assert set(rows) == set(catalogue.names())
    for row in rows.values():
        said = [row[key] for key in ("what", "size", "licence", "origin", "how_to_get")]
        assert all(isinstance(text, str) and text for text in said)
        assert row["verbs"]
    assert {name for name, row in rows.items() if row["simulated"]} == {
        "alanine",
        "qg",
        "speedy_global",
    }
    assert "make" in rows["qg"]["verbs"]
    assert "may not be redistributed" in rows["erai_europe"]["how_to_get"]


def test_table_agrees_with_the_modules():
    for row in catalogue.table():
        module = catalogue.load(row["name"])
        assert row["what"] == module.TITLE
        assert [verb for verb in ("open", "make") if hasattr(module, verb)] == row["verbs"]
        assert catalogue.load(row["name"]) is module


def test_listing_imports_neither_torch_nor_xarray():
    code = (
        "import sys; from sciwm import catalogue; catalogue.table(); sys.exit(bool({'torch',"
        " 'xarray', 'datasets'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)


def test_unknown_data_set_gets_the_closest_names():
    with pytest.raises(KeyError, match="did you mean speedy_global"):
        catalogue.load("speedy_globe")
    with pytest.raises(KeyError, match="known are alanine, erai_europe"):
        catalogue.load("xyzzy")


@pytest.mark.parametrize("inside", [True, False])
def test_folders_inside_or_beside_the_package(tmp_path, inside):
    package = tmp_path / "site" / "sciwm"
    shutil.copytree(
        CHECKOUT / "sciwm",
        package,
        ignore=shutil.ignore_patterns("__pycache__", "datasets", "configs"),
    )
    home = package if inside else package.parent
    shutil.copytree(
        CHECKOUT / "datasets", home / "datasets", ignore=shutil.ignore_patterns("__pycache__")
    )
    (home / "configs").mkdir()
    (home / "configs" / "tiny.yaml").write_text("seed: 1\n")
    code = (
        "from sciwm import catalogue as c; m = c.load('erai_europe'); print(m.__file__,"
        " c.config_path('tiny'));import sys; sys.exit('datasets' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=package.parent,
        env={"PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [
        str(home / "datasets/erai_europe.py"),
        str(home / "configs/tiny.yaml"),
    ]


def test_package_without_its_folders_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "sciwm" / "catalogue.py"))
    with pytest.raises(FileNotFoundError, match=r"got no folder 'datasets'.*reinstall sciwm"):
        catalogue.names()


def test_broken_data_set_is_not_half_imported(monkeypatch, tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "broken.py").write_text("raise RuntimeError('broken')\n")
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "sciwm" / "catalogue.py"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            catalogue.load("broken")


def test_config_by_name_by_file_name_and_by_path(monkeypatch, tmp_path):
    (tmp_path / "configs").mkdir()
    shipped = tmp_path / "configs" / "speedy_global.yaml"
    shipped.write_text("seed: 1\n")
    own = tmp_path / "own.yaml"
    own.write_text("seed: 2\n")
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "sciwm" / "catalogue.py"))
    monkeypatch.chdir(tmp_path / "configs" / "..")
    for name in ("speedy_global", "speedy_global.yaml", "configs/speedy_global.yaml", shipped):
        assert catalogue.config_path(name).resolve() == shipped.resolve()
    monkeypatch.chdir("/")
    assert catalogue.config_path("configs/speedy_global.yaml") == shipped.resolve()
    assert catalogue.config_path(own) == own
    with pytest.raises(
        FileNotFoundError, match=r"got configuration 'speedy_globl'.*did you mean speedy_global\?"
    ):
        catalogue.config_path("speedy_globl")
    with pytest.raises(FileNotFoundError, match=r"elsewhere/speedy_global\.yaml"):
        catalogue.config_path("elsewhere/speedy_global.yaml")


def test_files_are_found_and_checked(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"abc")
    files = {"a.nc": hashlib.sha256(b"abc").hexdigest()}
    for path in (tmp_path, tmp_path / "a.nc"):
        assert catalogue.locate(path, files, how_to_get="ask", checksum=True) == [tmp_path / "a.nc"]
    with pytest.raises(
        FileNotFoundError, match=r"got no file .*b.nc, expected a.nc. Ask the author"
    ):
        catalogue.locate(tmp_path / "b.nc", files, how_to_get="Ask the author")
    (tmp_path / "a.nc").write_bytes(b"abd")
    with pytest.raises(ValueError, match="altered or cut off"):
        catalogue.locate(tmp_path, files, how_to_get="ask", checksum=True)
    assert catalogue.locate(tmp_path, files, how_to_get="ask") == [tmp_path / "a.nc"]
