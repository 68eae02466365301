"""Claims about the climatology, checked against numpy's own least squares."""

import numpy as np
import pytest
import xarray as xr
from type_checks import unchecked

from sciwm.climatology import Climatology, fit_climatology, fit_climatology_and_spread
from sciwm.times import calendar_fields


def make(time, *, lat=3, lon=4, seed=0, chunks=None, nan=0.0):
    rng = np.random.default_rng(seed)
    year, day, _ = calendar_fields(time)
    cycle = 5 * np.sin(2 * np.pi * year) + 2 * np.cos(4 * np.pi * year) + np.cos(2 * np.pi * day)
    season = cycle[:, None, None] * rng.normal(size=(lat, lon))
    values = 5000.0 + season + rng.normal(size=(len(time), lat, lon))
    values[rng.random(values.shape) < nan] = np.nan
    coords = {"time": time, "latitude": np.arange(lat) * 1.0, "longitude": np.arange(lon) * 1.0}
    ds = xr.Dataset(
        {"z500": (("time", "latitude", "longitude"), values, {"units": "m2 s-2"})}, coords
    )
    return ds if chunks is None else ds.chunk(chunks)


def daily(start="2000-01-01", periods=1000, calendar="standard", freq="D"):
    return xr.date_range(
        start, periods=periods, freq=freq, calendar=calendar, use_cftime=calendar != "standard"
    ).values


def basis(time, harmonics, diurnal):
    year, day, _ = calendar_fields(time)
    columns = [np.ones(len(time))]
    for k in range(1, harmonics + 1):
        columns += [np.sin(2 * np.pi * k * year), np.cos(2 * np.pi * k * year)]
    if diurnal:
        columns += [np.sin(2 * np.pi * day), np.cos(2 * np.pi * day)]
    return np.stack(columns, 1)


@pytest.mark.parametrize(
    ("freq", "calendar"),
    [("D", "standard"), ("6h", "standard"), ("12h", "standard"), ("D", "noleap"), ("D", "360_day")],
)
def test_harmonic_fit_equals_lstsq(freq, calendar):
    time = daily(periods=900 if freq == "D" else 1600, calendar=calendar, freq=freq)
    ds = make(time)
    climatology, spread = fit_climatology_and_spread(ds, harmonics=2)
    assert climatology.diurnal == (freq != "D")
    design = basis(time, 2, freq != "D")
    x = ds.z500.values.reshape(len(time), -1)
    expected = design @ np.linalg.lstsq(design, x, rcond=None)[0]
    got = climatology.at(ds.time).z500
    assert got.dims == ("time", "latitude", "longitude")
    np.testing.assert_allclose(got.values.reshape(expected.shape), expected, rtol=1e-11)
    np.testing.assert_allclose(
        spread.squares.z500.values.ravel(), ((x - expected) ** 2).sum(0), rtol=1e-6
    )
    assert got.attrs["units"] == "m2 s-2"


def test_missing_values_are_left_out_cell_by_cell():
    time = daily(periods=800)
    ds = make(time, nan=0.1)
    ds.z500[:, 0, 0] = np.nan  # never observed
    ds.z500[300:, 0, 1] = np.nan  # observed too briefly for a cycle: its mean
    ds.z500[30:, 0, 1] = np.nan
    climatology, spread = fit_climatology_and_spread(ds.chunk(time=90, latitude=2), harmonics=1)
    design = basis(time, 1, False)
    c = climatology.coefficients.z500.values
    assert np.isnan(c[:, 0, 0]).all()
    np.testing.assert_allclose(c[0, 0, 1], ds.z500[:, 0, 1].mean())
    assert (c[1:, 0, 1] == 0).all()
    for i, j in [(0, 2), (1, 1), (2, 3)]:
        x = ds.z500.values[:, i, j]
        valid = ~np.isnan(x)
        expected = np.linalg.lstsq(design[valid], x[valid], rcond=None)[0]
        np.testing.assert_allclose(c[:, i, j], expected, rtol=1e-9, atol=1e-9)
        assert spread.count.z500[i, j] == valid.sum()
        assert spread.first_missing.z500[i, j] == np.argmin(valid)
        squares = ((x - design @ expected)[valid] ** 2).sum()
        np.testing.assert_allclose(spread.squares.z500[i, j], squares, rtol=1e-6)


@pytest.mark.parametrize("kind", ["harmonic", "monthly", "constant"])
@pytest.mark.parametrize("nan", [0.0, 0.05])
def test_chunked_equals_whole(kind, nan):
    ds = make(daily(periods=700), lat=4, lon=6, nan=nan)
    whole, one = fit_climatology_and_spread(ds, kind=kind, harmonics=2)
    for chunks in (
        {"time": 1, "latitude": -1},
        {"time": 70, "latitude": 3, "longitude": 4},
        {"time": -1, "longitude": 5},
    ):
        parts, two = fit_climatology_and_spread(ds.chunk(chunks), kind=kind, harmonics=2)
        # Coefficients of the cycle are sums of terms of both signs: measured by the size of the
        # anomalies, about 5.
        xr.testing.assert_allclose(parts.coefficients, whole.coefficients, rtol=1e-12, atol=1e-12)
        xr.testing.assert_identical(two.count, one.count)
        xr.testing.assert_identical(two.first_missing, one.first_missing)
        xr.testing.assert_allclose(two.squares, one.squares, rtol=1e-12)


@pytest.mark.parametrize("kind", ["harmonic", "monthly", "constant"])
@pytest.mark.parametrize("nan", [0.0, 0.1])
def test_a_large_offset_loses_nothing(kind, nan):
    time = daily(periods=1500)
    ds = make(time, lat=4, lon=5, nan=nan)
    ds["z500"] = ds.z500 - 5000.0
    # Multiples of 2⁻²⁰ stay exact when 50,000 or ten million is added: any difference comes from
    # the sums.
    ds["z500"] = (ds.z500 * 2.0**20).round() / 2.0**20
    plain, one = fit_climatology_and_spread(ds, kind=kind, harmonics=2)
    means, waves = slice(None) if kind == "monthly" else slice(1), slice(1, None)
    for offset in (5e4, 1e7):
        for chunks in ({"time": -1}, {"time": 97, "latitude": 3}):
            data = (ds + offset).chunk(chunks)
            shifted, two = fit_climatology_and_spread(data, kind=kind, harmonics=2)
            xr.testing.assert_allclose(two.squares, one.squares, rtol=1e-12)
            found, expected = (c.coefficients.isel(coefficient=means) for c in (shifted, plain))
            atol = 2 * np.spacing(offset)
            xr.testing.assert_allclose(found - offset, expected, rtol=0, atol=atol)
            if kind == "harmonic":
                found, expected = (c.coefficients.isel(coefficient=waves) for c in (shifted, plain))
                xr.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_parts_of_the_record_may_never_see_a_cell():
    ds = make(daily(periods=900))
    ds.z500[:400, 0, 0] = np.nan  # in the first blocks
    ds.z500[500:, 1, 1] = np.nan  # in the last
    whole, one = fit_climatology_and_spread(ds, harmonics=1)
    parts, two = fit_climatology_and_spread(ds.chunk(time=100), harmonics=1)
    xr.testing.assert_allclose(parts.coefficients, whole.coefficients, rtol=1e-12, atol=1e-12)
    xr.testing.assert_allclose(two.squares, one.squares, rtol=1e-12)
    x = ds.z500.values[400:, 0, 0]
    design = basis(ds.time.values[400:], 1, False)
    expected = np.linalg.lstsq(design, x, rcond=None)[0]
    np.testing.assert_allclose(parts.coefficients.z500[:, 0, 0], expected, rtol=1e-9, atol=1e-9)


def test_large_blocks_are_cut_and_still_agree(monkeypatch):
    ds = make(daily(periods=500), nan=0.3)
    whole = fit_climatology(ds, harmonics=1)
    monkeypatch.setattr("sciwm.moments._BLOCK_BYTES", 8 * 12 * 7)
    monkeypatch.setattr("sciwm.climatology._SLAB_CELLS", 5)
    xr.testing.assert_allclose(
        fit_climatology(ds, harmonics=1).coefficients, whole.coefficients, rtol=1e-10
    )


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_monthly_is_the_calendar_month_mean(calendar):
    ds = make(daily(periods=1100, calendar=calendar), nan=0.2)
    ds.z500[{"time": ds.time.dt.month.values == 1, "latitude": 0, "longitude": 0}] = np.nan
    expected = ds.z500.groupby("time.month").mean()
    climatology = fit_climatology(ds, kind="monthly")
    assert climatology.harmonics == 0
    got = climatology.at(ds.time).z500
    np.testing.assert_allclose(got.values, expected.sel(month=ds.time.dt.month).values, rtol=1e-12)


def test_two_dimensional_valid_times_and_laziness():
    ds = make(daily(periods=1600, freq="6h"), lat=2)
    for kind in ("harmonic", "monthly"):
        climatology = fit_climatology(ds, kind=kind)
        valid = xr.DataArray(ds.time.values[:12].reshape(3, 4), dims=("init_time", "lead_time"))
        got = climatology.at(valid).z500
        assert got.dims == ("init_time", "lead_time", "latitude", "longitude")
        flat = climatology.at(ds.time[:12]).z500
        np.testing.assert_allclose(got.values.reshape(flat.shape), flat.values)
        lazy = climatology.at(valid.chunk(init_time=1)).z500
        assert lazy.chunks is not None
        np.testing.assert_allclose(lazy.values, got.values)


def test_cftime_valid_times_and_constant_picoseconds():
    time = daily(periods=720, calendar="360_day")
    climatology = fit_climatology(make(time), harmonics=1)
    valid = xr.DataArray(time[:6].reshape(2, 3), dims=("init_time", "lead_time"))
    assert climatology.at(valid).z500.shape == (2, 3, 3, 4)
    assert climatology.at(valid.chunk(init_time=1)).z500.compute().shape == (2, 3, 3, 4)
    ds = xr.Dataset(
        {"phi": ("time", np.arange(10.0))}, {"time": ("time", np.arange(10.0), {"units": "ps"})}
    )
    mean = fit_climatology(ds, kind="constant")
    assert float(mean.at(ds.time[3]).phi) == pytest.approx(4.5)
    with pytest.raises(ValueError, match="choose climatology 'constant'"):
        fit_climatology(ds)


def test_round_trip(tmp_path):
    ds = make(daily(periods=1600, freq="6h"))
    climatology = fit_climatology(ds, harmonics=2)
    climatology.to_dataset().to_netcdf(tmp_path / "c.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "c.nc", engine="scipy") as stored:
        back = Climatology.from_dataset(stored.load())
    assert (back.kind, back.harmonics, back.diurnal) == ("harmonic", 2, True)
    xr.testing.assert_identical(back.at(ds.time), climatology.at(ds.time))
    with pytest.raises(ValueError, match="without the attribute 'climatology'"):
        Climatology.from_dataset(ds)


def test_undetermined_cycles_are_refused():
    with pytest.raises(ValueError, match=r"at least about a year.*fewer harmonics"):
        fit_climatology(make(daily(periods=150)))
    with pytest.raises(ValueError, match="at least about a year"):
        fit_climatology(make(daily(periods=40, freq="YS")), harmonics=1)
    with pytest.raises(ValueError, match=r"month\(s\) 11, 12"):
        fit_climatology(make(daily(periods=300)), kind="monthly")
    with unchecked(), pytest.raises(ValueError, match="expected 'harmonic', 'monthly'"):
        fit_climatology(make(daily()), kind="weekly")
    with pytest.raises(ValueError, match="no time"):
        fit_climatology(make(daily()).isel(time=slice(0, 0)))
    with pytest.raises(ValueError, match="at least one with a time"):
        fit_climatology(make(daily()).drop_vars("z500").assign(mask=("latitude", np.ones(3))))


def pooled_lstsq(x, design, cells, area):
    """Weighted least squares over the rows of all cells that were observed: plain numpy."""
    rows, values = [], []
    for cell in cells:
        seen = ~np.isnan(x[:, cell])
        rows.append(design[seen] * np.sqrt(area[cell]))
        values.append(x[seen, cell] * np.sqrt(area[cell]))
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0]


@pytest.mark.parametrize("pool", ["longitude", "domain"])
@pytest.mark.parametrize("kind", ["harmonic", "monthly", "constant"])
@pytest.mark.parametrize("nan", [0.0, 0.2])
def test_cells_that_share_a_climatology_are_fitted_together(kind, pool, nan):
    time = daily(periods=800)
    ds = make(time, lat=4, lon=5, nan=nan).assign_coords(latitude=[0.0, 30.0, 60.0, 90.0])
    ds["z500"] = ds.z500 + 3 * np.arange(20.0).reshape(4, 5)
    ds.z500[:, 1, 1] = np.nan  # never observed
    ds.z500[40:, 2, 2] = np.nan  # too briefly for a cycle of its own
    found, spread = fit_climatology_and_spread(ds, kind=kind, harmonics=1, pool=pool)
    design = found.design(ds.time).values
    x, shape = ds.z500.values.reshape(len(time), -1), (4, 5)
    area = np.cos(np.deg2rad(np.repeat(ds.latitude.values, 5)))
    own = np.arange(20).reshape(shape)
    groups = [own.ravel()] if pool == "domain" else list(own)
    c = found.coefficients.z500.values.reshape(-1, 20)
    for cells in groups:
        expected = pooled_lstsq(x, design, cells, area if pool == "domain" else np.ones(20))
        for cell in cells:
            if cell == own[1, 1]:
                assert np.isnan(c[:, cell]).all()
                continue
            np.testing.assert_allclose(c[:, cell], expected, rtol=1e-9, atol=1e-9)
            squares = np.nansum((x[:, cell] - design @ expected) ** 2)
            np.testing.assert_allclose(spread.squares.z500.values.ravel()[cell], squares, rtol=1e-9)
    assert spread.count.z500[1, 1] == 0
    assert found.at(ds.time).z500.dims == ("time", "latitude", "longitude")
    for chunks in ({"time": 70, "latitude": 3, "longitude": 2}, {"time": 1}):
        parts, two = fit_climatology_and_spread(ds.chunk(chunks), kind=kind, harmonics=1, pool=pool)
        xr.testing.assert_allclose(parts.coefficients, found.coefficients, rtol=1e-12, atol=1e-11)
        xr.testing.assert_allclose(two.squares, spread.squares, rtol=1e-11)
        xr.testing.assert_identical(two.first_missing, spread.first_missing)


def test_without_gaps_the_shared_climatology_is_the_mean_of_those_of_cells():
    ds = make(daily(periods=900), lat=4, lon=5).assign_coords(latitude=[10.0, 30.0, 50.0, 70.0])
    # Levels never share.
    ds = xr.concat([ds, 2 * ds + 100], xr.DataArray([500.0, 850.0], dims="level", name="level"))
    ds = ds.transpose("time", "latitude", "level", "longitude")
    own = fit_climatology(ds, harmonics=2).coefficients
    along = fit_climatology_and_spread(ds, harmonics=2, pool="longitude")[0].coefficients
    xr.testing.assert_allclose(along, 0 * own + own.mean("longitude"))
    whole = fit_climatology_and_spread(ds, harmonics=2, pool="domain")[0].coefficients
    mean = own.weighted(np.cos(np.deg2rad(ds.latitude))).mean(("latitude", "longitude"))
    xr.testing.assert_allclose(whole, 0 * own + mean)


def test_what_cannot_be_pooled_is_refused():
    ds = make(daily(periods=400))
    with unchecked(), pytest.raises(ValueError, match="got pool 'zonal', expected 'none', 'long"):
        fit_climatology_and_spread(ds, kind="constant", pool="zonal")
    index = ds.mean("longitude")
    assert "latitude" in fit_climatology(index, kind="constant").coefficients.dims
    with pytest.raises(ValueError, match=r"expected also \['longitude'\], because its climatology"):
        fit_climatology_and_spread(index, kind="constant", pool="domain")
