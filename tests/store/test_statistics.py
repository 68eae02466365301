"""Standardizing: against plain numpy, and as an identity with its inverse."""

import numpy as np
import pytest
import xarray as xr
from type_checks import unchecked

from sciwm.climatology import fit_climatology
from sciwm.store.statistics import Fit, Statistics, fit_statistics, from_channels, to_channels

FIT = Fit(harmonics=1)
MASK = Fit(harmonics=1, missing="mask")


def make(periods=800, freq="D", lat=5, lon=6, seed=0, levels=(850.0, 500.0)):
    rng = np.random.default_rng(seed)
    time = xr.date_range("2000-01-01", periods=periods, freq=freq)
    coords = {
        "time": time,
        "level": ("level", list(levels), {"units": "hPa"}),
        "latitude": np.linspace(30, 70, lat),
        "longitude": np.linspace(0, 30, lon),
        "segment": ("time", np.zeros(periods, np.int32)),
    }
    season = np.sin(2 * np.pi * np.arange(periods) / 365.25)
    z = 5e4 + 800 * season[:, None, None] + 500 * rng.normal(size=(periods, lat, lon))
    t = (
        np.array([280.0, 250.0])[:, None, None]
        + rng.normal(size=(periods, 2, lat, lon)) * np.array([3.0, 2.0])[:, None, None]
    )
    fields = {
        "z500": (
            ("time", "latitude", "longitude"),
            z.astype("float32"),
            {"units": "m2 s-2", "original": "{}"},
        ),
        "t": (
            ("time", "level", "latitude", "longitude"),
            t.astype("float32"),
            {"units": "K", "standard_name": "air_temperature"},
        ),
    }
    return xr.Dataset(fields, coords, attrs={"original_grid": '{"latitude": "descending"}'})


def labels(ds, train=500):
    label = np.full(ds.sizes["time"], 2, np.int8)
    label[:train] = 0
    return label


def test_scale_is_the_area_weighted_rms_of_training_anomalies():
    ds = make()
    statistics = fit_statistics(ds.chunk(time=100), label=labels(ds), fit=FIT)
    train = ds.isel(time=slice(500))
    anomalies = train - fit_climatology(train, harmonics=1).at(train.time)
    expected = np.sqrt(
        (anomalies.astype("float64") ** 2)
        .weighted(np.cos(np.deg2rad(ds.latitude)))
        .mean(("time", "latitude", "longitude"))
    )
    assert statistics.scale["channel"].values.tolist() == ["z500", "t850", "t500"]
    np.testing.assert_allclose(
        statistics.scale.values, [expected.z500, *expected.t.values], rtol=1e-6
    )
    assert (statistics.valid_fraction == 1).all()
    state = statistics.standardize(ds.chunk(time=100, latitude=2))
    assert state.dims == ("time", "channel", "latitude", "longitude")
    assert state.dtype == np.float32
    assert state.chunks is not None
    assert "segment" in state.coords
    np.testing.assert_allclose(
        state.sel(channel="t500")[:500],
        anomalies.t.sel(level=500) / float(expected.t[1]),
        atol=2e-4,
    )
    np.testing.assert_allclose(state.values, statistics.standardize(ds).values, atol=1e-6)


def test_nothing_outside_the_training_block_is_used():
    ds, other = make(), make()
    other.z500[500:] = 1e9
    a, b = (fit_statistics(d, label=labels(d), fit=FIT) for d in (ds, other))
    xr.testing.assert_identical(a.to_dataset(), b.to_dataset())
    scattered = labels(ds)
    scattered[100] = -1
    assert float(fit_statistics(ds, label=scattered, fit=FIT).scale[0]) != float(a.scale[0])


@pytest.mark.parametrize(
    ("kind", "freq"), [("harmonic", "D"), ("monthly", "D"), ("constant", "6h"), ("harmonic", "6h")]
)
def test_restore_inverts_standardize(kind, freq):
    ds = make(periods=1700 if freq == "6h" else 800, freq=freq)
    label = labels(ds, 1600 if freq == "6h" else 500)
    statistics = fit_statistics(ds, label=label, fit=Fit(climatology=kind, harmonics=1))
    part = ds.isel(time=slice(0, 40))
    back = statistics.restore(statistics.standardize(part.chunk(time=7)), part.time)
    xr.testing.assert_allclose(back, part, rtol=1e-6)
    assert back.attrs == ds.attrs
    assert back.t.attrs == ds.t.attrs
    assert back.t.dims == ds.t.dims
    assert back.t.level.attrs == {"units": "hPa"}


def test_restore_forecasts_on_two_time_dims_and_members():
    ds = make()
    statistics = fit_statistics(ds, label=labels(ds), fit=FIT)
    state = statistics.standardize(ds)
    start, lead = np.array([3, 10, 40]), np.array([0, 2])
    index = xr.DataArray(start[:, None] + lead, dims=("init_time", "lead_time"))
    forecast = state.isel(time=index).drop_vars(["time", "segment"]).expand_dims(number=4)
    valid = ds.time.isel(time=index).drop_vars(["time", "segment"])
    for data in (forecast, forecast.chunk(init_time=1)):
        back = statistics.restore(data.transpose("init_time", "lead_time", "number", ...), valid)
        assert back.t.dims == ("init_time", "lead_time", "number", "level", "latitude", "longitude")
        np.testing.assert_allclose(
            back.t.isel(number=2).values, ds.t.isel(time=index).values, rtol=1e-6
        )
    bare = xr.DataArray(
        forecast.isel(number=0).values,
        dims=("init_time", "lead_time", "channel", "latitude", "longitude"),
    )
    np.testing.assert_allclose(
        statistics.restore(bare, valid).z500.values, ds.z500.isel(time=index).values, rtol=1e-6
    )
    with pytest.raises(ValueError, match="expected the channels"):
        statistics.restore(state.isel(channel=[0]), ds.time)
    with pytest.raises(ValueError, match=r"expected \['z500', 't850', 't500'\]"):
        statistics.restore(state.isel(channel=[1, 0, 2]), ds.time)


def test_round_trip_through_a_file(tmp_path):
    ds = make()
    statistics = fit_statistics(ds, label=labels(ds), fit=Fit(climatology="monthly"))
    stored = statistics.to_dataset()
    stored.to_netcdf(tmp_path / "s.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "s.nc", engine="scipy") as read:
        back = Statistics.from_dataset(read)
    part = ds.isel(time=slice(0, 5))
    state = statistics.standardize(part)
    xr.testing.assert_identical(back.standardize(part), state)
    xr.testing.assert_identical(
        back.restore(state, part.time), statistics.restore(state, part.time)
    )
    with pytest.raises(ValueError, match="expected what Statistics"):
        Statistics.from_dataset(ds)


def test_channels_round_trip():
    ds = make(periods=3)
    bare = xr.Dataset({name: field.drop_attrs(deep=False) for name, field in ds.data_vars.items()})
    xr.testing.assert_identical(from_channels(to_channels(ds)), bare)
    mask = xr.Dataset({"lsm": (("latitude", "longitude"), np.ones((2, 3)))})
    assert to_channels(mask).dims == ("channel", "latitude", "longitude")
    with pytest.raises(ValueError, match="distinct names"):
        to_channels(ds.assign(t850=ds.t.isel(level=0, drop=True)))


def test_missing_values():
    ds = make()
    ds.t[20, 1, 2, 3] = np.nan
    ds.t[30, 1, 0, 0] = np.nan
    place = r"2000-01-21.*level 500, latitude 50, longitude 18"
    with pytest.raises(ValueError, match=rf"2 missing values in 't'.*{place}.*missing: mask"):
        fit_statistics(ds.chunk(time=15), label=labels(ds), fit=FIT)
    statistics = fit_statistics(ds, label=labels(ds), fit=MASK)
    assert float(statistics.valid_fraction[2, 2, 3]) == pytest.approx(1 - 1 / 500)
    state = statistics.standardize(ds)
    assert int(state.isnull().sum()) == 2
    ds.z500[:] = np.nan
    with pytest.raises(ValueError, match="without a single observed value"):
        fit_statistics(ds, label=labels(ds), fit=MASK)


def test_constant_infinite_absent_and_foreign_fields():
    ds = make()
    with pytest.raises(ValueError, match="'t' at level 500 without any departure"):
        fit_statistics(ds.assign(t=ds.t.where(ds.level != 500, 250.0)), label=labels(ds), fit=FIT)
    with pytest.raises(ValueError, match="'p' without any departure"):
        fit_statistics(ds.assign(p=ds.z500 * 0 + 101325.7), label=labels(ds), fit=FIT)
    statistics = fit_statistics(ds, label=labels(ds), fit=FIT)
    with pytest.raises(ValueError, match="expected also 't'"):
        statistics.standardize(ds[["z500"]])
    with pytest.raises(ValueError, match="'z500' with latitude"):
        statistics.standardize(ds.isel(latitude=slice(1, None)))
    ds.z500[3, 2, 1] = np.inf
    with pytest.raises(ValueError, match="infinite values in 'z500'"):
        fit_statistics(ds, label=labels(ds), fit=FIT)


@pytest.mark.parametrize("pool", ["longitude", "domain"])
def test_cells_that_share_a_climatology_are_standardized_about_it(pool, tmp_path):
    ds = make()
    ds["z500"] = ds.z500 + 900 * np.arange(30.0).reshape(5, 6)  # what is shared is not of a cell
    ds.z500[:, :2, :2] = np.nan  # land
    fit = Fit(harmonics=1, missing="mask", pool=pool)
    statistics = fit_statistics(ds.chunk(time=90, latitude=2), label=labels(ds), fit=fit)
    c = statistics.climatology.coefficients.z500
    assert c.sizes == {"coefficient": 3, "latitude": 5, "longitude": 6}
    shared = ("longitude",) if pool == "longitude" else ("latitude", "longitude")
    assert float((c.max(shared) - c.min(shared)).max()) == 0
    assert c.isnull().any("coefficient").sum() == 4
    train = ds.isel(time=slice(500))
    anomalies = (train - statistics.climatology.at(train.time)).astype("float64")
    squares = (anomalies**2).weighted(np.cos(np.deg2rad(ds.latitude)))
    expected = np.sqrt(squares.mean(("time", "latitude", "longitude")).z500)
    np.testing.assert_allclose(statistics.scale[0], expected, rtol=1e-6)
    state = statistics.standardize(ds)
    back = statistics.restore(state, ds.time)
    np.testing.assert_allclose(back.z500, ds.z500, rtol=1e-6)
    assert (statistics.valid_fraction[0, :2, :2] == 0).all()
    statistics.to_dataset().to_netcdf(tmp_path / "s.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "s.nc", engine="scipy") as read:
        xr.testing.assert_identical(Statistics.from_dataset(read).standardize(ds), state)
    ds.z500[3, 4, 1] = np.inf
    with pytest.raises(ValueError, match="infinite values in 'z500'"):
        fit_statistics(ds, label=labels(ds), fit=fit)


def test_a_fit_that_there_is_not():
    with unchecked(), pytest.raises(ValueError, match="got climatology 'weekly', expected 'harm"):
        Fit(climatology="weekly")
    with pytest.raises(ValueError, match="got harmonics -1, expected 0 or more"):
        Fit(harmonics=-1)
    with unchecked(), pytest.raises(ValueError, match="got missing 'drop', expected 'error' or"):
        Fit(missing="drop")
    with unchecked(), pytest.raises(ValueError, match="got pool 'zonal', expected 'none', 'long"):
        Fit(pool="zonal")
