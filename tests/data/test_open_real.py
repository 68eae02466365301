"""The real files open without any option, and lead back to themselves."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciwm.data.open import open_dataset, to_original

DATA = Path(__file__).parents[2].parent / "shared/data"
DATA = DATA if DATA.is_dir() else Path(__file__).parents[3].parent / "shared/data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("erai_europe_daily_2000_2008", {"z500", "t850", "msl"}),
        ("kaplan_sst_pacific_monthly_1856_1995", {"ssta"}),
        ("sim_speedy_6h_7p5deg", {"gh500", "t850", "u850", "v850"}),
    ],
)
def test_grids_open_without_options_and_lead_back(name: str, variables: set[str]) -> None:
    path = DATA / f"{name}.nc"
    ds = open_dataset(path)
    assert set(ds.data_vars) == variables
    assert (np.diff(ds["latitude"]) > 0).all()
    assert not ds["segment"].any()
    with xr.open_dataset(path) as raw:
        back = to_original(ds)
        assert dict(back.sizes) == dict(raw.sizes)
        for own in raw.data_vars:
            assert back[own].dims == raw[own].dims
            assert back[own].attrs == raw[own].attrs
            np.testing.assert_allclose(back[own].values, raw[own].values, rtol=1e-12)
        for coordinate in raw.coords:
            np.testing.assert_array_equal(back[coordinate].values, raw[coordinate].values)


def test_domains_are_contiguous_on_the_real_grids() -> None:
    pacific = open_dataset(DATA / "kaplan_sst_pacific_monthly_1856_1995.nc")["longitude"]
    assert (float(pacific[0]), float(pacific[-1])) == (-177.5, -72.5)
    europe = open_dataset(DATA / "erai_europe_daily_2000_2008.nc")["longitude"]
    assert (float(europe[0]), float(europe[-1])) == (-20.0, 14.5)
    globe = open_dataset(DATA / "sim_speedy_6h_7p5deg.nc")["longitude"]
    np.testing.assert_allclose([globe[0], globe[-1]], [1.875, 354.375])


def test_four_trajectories_are_four_segments() -> None:
    files = sorted(DATA.glob("alanine_dipeptide_450K_heavy_*.nc"))
    ds = open_dataset(files)
    assert ds["positions"].dims == ("time", "atom", "xyz")
    assert ds["positions"].dtype == np.float32
    assert ds["time"].attrs["units"] == "ps"
    assert np.bincount(ds["segment"]).tolist() == [15000, 15000, 9332, 15000]
    with xr.open_dataset(files[2]) as raw:
        third = ds["phi"].values[ds["segment"].values == 2]
        np.testing.assert_array_equal(third, raw["phi"].values)
