"""Data sets that lie in files: the reference ones open, missing ones say where they come from."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import sciwm
from sciwm import catalogue

DATA = Path(__file__).parents[2].parent / "shared" / "data"
DATA = DATA if DATA.is_dir() else Path(__file__).parents[3].parent / "shared" / "data"


@pytest.mark.parametrize("name", ["erai_europe", "kaplan_pacific", "speedy_global", "alanine"])
def test_missing_file_says_where_it_comes_from(name, tmp_path):
    module = catalogue.load(name)
    with pytest.raises(FileNotFoundError) as caught:
        module.open(tmp_path / "nothing.nc")
    assert module.HOW_TO_GET in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nc"):
        module.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "variables", "times"),
    [
        ("erai_europe", {"z500", "t850", "msl"}, 3288),
        ("kaplan_pacific", {"ssta"}, 1680),
        ("speedy_global", {"t850", "u850", "v850"}, 4800),
    ],
)
def test_published_files_open_and_match(monkeypatch, name, variables, times):
    if not DATA.is_dir():
        pytest.skip("the reference files are not here")
    _plain_opener(monkeypatch)
    ds = catalogue.load(name).open(DATA, checksum=True)
    assert variables <= set(ds)
    assert ds.sizes["time"] == times


def test_published_trajectories_open_and_match(monkeypatch):
    if not DATA.is_dir():
        pytest.skip("the reference files are not here")
    _plain_opener(monkeypatch)
    alanine = catalogue.load("alanine")
    ds = alanine.open(DATA, checksum=True)
    assert ds.sizes["time"] == 15000 * 3 + 9332
    assert alanine.open(DATA, temperature=300, checksum=True).sizes["time"] == 20000


def _plain_opener(monkeypatch):
    """Plain xarray instead of `sciwm.open_dataset`: tested here is which files are opened."""
    plainly = {"data_vars": "minimal", "coords": "minimal", "compat": "override"}

    def opener(store):
        files = store if isinstance(store, list) else [store]
        return xr.concat([xr.open_dataset(file) for file in files], "time", **plainly)

    monkeypatch.setattr(sciwm, "open_dataset", opener, raising=False)


def test_unknown_temperature_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got temperature 310 K, expected one of 450, 300"):
        catalogue.load("alanine").open(tmp_path, temperature=310)


def test_openmm_missing_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openmm", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install sciwm\[md\]"):
        catalogue.load("alanine").make()


def test_made_trajectory_is_the_molecule_of_the_published_files(monkeypatch, tmp_path):
    pytest.importorskip("openmm")
    alanine = catalogue.load("alanine")
    monkeypatch.setattr(alanine, "_EQUILIBRATION_PS", 2.0)
    path = tmp_path / "made.nc"
    made = alanine.make(path=path, nanoseconds=0.02, save_every_ps=0.5, progress=False)
    assert dict(made.sizes) == {"time": 40, "atom": 10, "xyz": 3, "bond": 9, "pair": 2}
    x = made.positions.values.astype(float)
    assert np.abs(x.mean(1)).max() < 1e-6
    pairs = made.bonds.values
    lengths = np.linalg.norm(x[:, pairs[:, 0]] - x[:, pairs[:, 1]], axis=-1).mean(0)
    assert lengths == pytest.approx(
        [0.152, 0.123, 0.1335, 0.145, 0.1526, 0.1522, 0.123, 0.1335, 0.145], abs=0.006
    )
    names = made.atom.values.tolist()
    n, ca, c, cb = (x[:, names.index(f"ALA1-{name}")] for name in ("N", "CA", "C", "CB"))
    assert (np.einsum("ti,ti->t", np.cross(n - ca, c - ca), cb - ca) > 0).all(), "not the L form"
    with xr.open_dataset(path) as packed:
        assert packed.positions.encoding["dtype"] == np.int16
        assert np.abs(packed.positions.values - x).max() < 6e-5
        assert packed.phi.values == pytest.approx(made.phi.values, abs=6e-5)
        assert packed.attrs["temperature_K"] == 450
        if DATA.is_dir():
            with xr.open_dataset(DATA / "alanine_dipeptide_450K_heavy_0.nc") as published:
                assert set(packed.variables) == set(published.variables)
                for name in ("atom", "bonds", "mass", "atomic_number", "residue", "xyz"):
                    assert (packed[name].values == published[name].values).all()
                for name in packed.variables:
                    assert packed[name].dims == published[name].dims
                    assert packed[name].attrs.get("units") == published[name].attrs.get("units")
    with pytest.raises(FileExistsError, match="delete it to make it again"):
        alanine.make(path=path)
    again = alanine.make(nanoseconds=0.002, save_every_ps=0.5, progress=False)
    assert again.positions.values == pytest.approx(made.positions.values[:4], abs=1e-6)


def test_native_solvent_has_the_energy_of_the_force_field():
    openmm = pytest.importorskip("openmm")
    from openmm import app, unit

    alanine = catalogue.load("alanine")
    topology, start, native = alanine._system()
    slow = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
    )

    def energy(system, x):
        context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
        )
        context.setPositions(x * unit.nanometer)
        return (
            context.getState(getEnergy=True)
            .getPotentialEnergy()
            .value_in_unit(unit.kilojoule_per_mole)
        )

    shaken = start + 0.005 * np.random.default_rng(0).standard_normal(start.shape)
    assert energy(native, shaken) == pytest.approx(energy(slow, shaken), abs=1e-3)
