"""Means of cells that are noise are told from those that are not: on known noise, and real data."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciwm.data.open import open_dataset
from sciwm.store.noise import _ratio, mean_is_noise
from sciwm.testing import small_months

DATA = Path(__file__).parents[2].parent / "shared/data"
DATA = DATA if DATA.is_dir() else Path(__file__).parents[3].parent / "shared/data"


def noise(*, memory=0.0, apart=0.0, members=4, length=600, seed=0):
    """Independent AR(1) series of unit variance, and cells whose means are ``apart``."""
    rng = np.random.default_rng(seed)
    x = np.empty((members, length, 30, 30))
    x[:, 0] = rng.normal(size=x[:, 0].shape)
    for t in range(1, length):
        x[:, t] = memory * x[:, t - 1] + np.sqrt(1 - memory**2) * rng.normal(size=x[:, t].shape)
    x += apart * rng.normal(size=(30, 30)) + 1e4
    time = xr.date_range("2000-01-01", periods=members * length, freq="D")
    coords = {
        "time": time,
        "latitude": np.linspace(-60, 60, 30),
        "longitude": np.linspace(0, 29, 30),
        "segment": ("time", np.repeat(np.arange(members, dtype=np.int32), length)),
    }
    return xr.Dataset({"psi": (("time", "latitude", "longitude"), x.reshape(-1, 30, 30))}, coords)


@pytest.mark.parametrize("memory", [0.0, 0.9, 0.99])
def test_the_ratio_is_one_for_noise_of_any_memory(memory):
    ds = noise(memory=memory)
    train = np.arange(ds.sizes["time"])
    assert _ratio(ds.psi, train) == pytest.approx(1, abs=0.2)
    season = 5 * np.sin(2 * np.pi * ds.time.dt.dayofyear / 365)  # of all cells alike
    assert _ratio(ds.psi + season, train) == pytest.approx(_ratio(ds.psi, train), rel=1e-6)
    assert mean_is_noise(ds, label=np.zeros(train.size, np.int8))


def test_means_that_differ_are_told_by_how_much():
    ds = noise(apart=0.5)
    label = np.zeros(ds.sizes["time"], np.int8)
    # 240 independent times are sampled: 0.25 over 1/240, and the noise itself.
    assert _ratio(ds.psi, np.flatnonzero(label == 0)) == pytest.approx(61, rel=0.2)
    assert not mean_is_noise(ds, label=label)
    assert not mean_is_noise(noise().assign(other=ds.psi), label=label)
    later = ds.psi.where(ds.segment == 3, noise().psi)
    assert mean_is_noise(noise().assign(psi=later), label=np.where(ds.segment == 3, 2, 0))


def test_what_is_too_little_too_large_or_missing():
    ds = noise(length=100)
    label = np.full(400, 2, np.int8)
    label[:63] = 0
    assert not mean_is_noise(ds, label=label)
    label[63] = 0
    assert mean_is_noise(ds, label=label)
    label[:] = 0
    assert not mean_is_noise(ds.isel(latitude=[0], longitude=[0]), label=label)
    assert not mean_is_noise(ds.mean(("latitude", "longitude")), label=label)
    ds["psi"] = ds.psi.where(ds.longitude > 9)  # land
    assert mean_is_noise(ds.chunk(time=50), label=label)
    import dask.array as da

    large = da.zeros((400, 1024, 1024), chunks=(1, -1, -1))
    wide = {"latitude": np.linspace(-1, 1, 1024), "longitude": np.arange(1024) / 3}
    dims = ("time", "latitude", "longitude")
    huge = xr.Dataset({"psi": (dims, large)}, {**wide, "time": ds.time, "segment": ds.segment})
    assert not mean_is_noise(huge, label=label)


def test_a_climate_without_places_is_noise_and_one_with_them_is_not():
    ds = small_months()
    label = np.zeros(ds.sizes["time"], np.int8)
    assert mean_is_noise(ds, label=label)
    assert not mean_is_noise(ds - 0.3 * abs(ds.latitude), label=label)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("erai_europe_daily_2000_2008", 2557),
        ("kaplan_sst_pacific_monthly_1856_1995", 1320),
        ("sim_speedy_6h_7p5deg", 3600),
    ],
)
def test_real_climates_differ_from_place_to_place(name, train):
    ds = open_dataset(DATA / f"{name}.nc")
    label = np.where(np.arange(ds.sizes["time"]) < train, 0, 2).astype(np.int8)
    assert not mean_is_noise(ds, label=label)
