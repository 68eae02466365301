"""Series to be read out: regions, torsions, and what the store keeps of them."""

import numpy as np
import pytest
import xarray as xr

from sciwm import testing
from sciwm.readout.targets import as_components, stored_series, target_series
from sciwm.store.prepare import open_training_store
from tests.worlds import store


def test_a_region_is_the_area_mean_of_the_first_variable():
    ds = testing.small_climate(years=1)
    series = target_series(ds, ["box:28.5,40.5,-21.5,-9.5"])
    (name,) = series.data_vars
    part = ds.z500.sel(latitude=slice(30, 40), longitude=slice(-20, -10))
    # The box follows the edges of cells.
    cosine = np.cos(np.deg2rad(part.latitude))
    expected = part.weighted(cosine).mean(("latitude", "longitude"))
    np.testing.assert_allclose(series[name], expected, rtol=2e-4)
    assert series[name].attrs["units"] == "m2 s-2"


def test_a_series_of_the_data_is_taken_as_it_is():
    ds = testing.double_well(num_trajectories=2, num_frames=50)
    series = target_series(ds, ["phi", "psi"])
    xr.testing.assert_identical(series.phi.drop_vars("segment"), ds.phi.drop_vars("segment"))


@pytest.mark.parametrize("name", ["nino34", "z500", "chi"])
def test_unknown_targets_are_refused(name):
    with pytest.raises(ValueError, match="got .*" + name):
        target_series(testing.small_climate(years=1), [name])
    message = r"got probe target 'chi', expected a series of the data .*phi"
    with pytest.raises(ValueError, match=message):
        target_series(testing.double_well(num_trajectories=1, num_frames=10), ["chi"])


def test_angles_become_sines_and_cosines():
    ds = testing.double_well(num_trajectories=1, num_frames=50)
    energy = ("time", np.arange(50.0), {"units": "kJ mol-1"})
    series = target_series(ds, ["phi", "psi"]).assign(energy=energy)
    parts = as_components(series)
    assert parts.torsions.dims == ("time", "component")
    assert parts.component.values.tolist() == ["phi_sin", "phi_cos", "psi_sin", "psi_cos"]
    np.testing.assert_allclose(parts.torsions.sel(component="psi_cos"), np.cos(ds.psi), atol=1e-6)
    np.testing.assert_allclose(np.arctan2(*parts.torsions.values.T[:2]), ds.phi, atol=1e-6)
    assert parts.torsions.attrs["units"] == "1"
    xr.testing.assert_identical(parts.energy, series.energy)
    plain = series[["energy"]]
    assert as_components(plain) is not plain
    xr.testing.assert_identical(as_components(plain), plain)


def test_the_store_gives_back_the_same(tmp_path):
    ds = testing.double_well(num_trajectories=3, num_frames=60)
    series = target_series(ds, ["phi", "psi"])
    path = store(ds, tmp_path, targets=series, by="segment", train=[0], validation=[1], test=[2])
    kept, direct = stored_series(open_training_store(path)), as_components(series)
    assert list(kept.data_vars) == ["torsions"]
    assert kept.torsions.dims == ("time", "component")
    np.testing.assert_allclose(kept.torsions, direct.torsions, atol=1e-6)
    assert kept.component.values.tolist() == direct.component.values.tolist()
    np.testing.assert_array_equal(kept.segment, ds.segment)


def test_a_store_without_series(tmp_path):
    path = store(testing.small_climate(years=1), tmp_path, climatology="constant")
    assert stored_series(open_training_store(path)) is None
