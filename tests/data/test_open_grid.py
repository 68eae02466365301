"""Names, units, coordinates and layout of grids."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import days, field, grid, levels

from sciwm.data.layout import canonical_longitude
from sciwm.data.names import VARIABLES, find_dimensions, level_suffix, split_name
from sciwm.data.open import fingerprint, open_dataset, to_original
from sciwm.data.units import linear, same_dimension


@pytest.mark.parametrize(
    ("own", "units", "name", "factor", "offset"),
    [
        ("2m_temperature", "K", "t2m", 1, 0),
        ("tas", "degC", "t2m", 1, 273.15),
        ("2t", "deg C", "t2m", 1, 273.15),
        ("psl", "hPa", "msl", 100, 0),
        ("mslp", "mb", "msl", 100, 0),
        ("zg500", "m", "gh500", 1, 0),
        ("z_500", "m**2 s**-2", "z500", 1, 0),
        ("geopotential_500", "m2 s-2", "z500", 1, 0),
        ("z500", "gpm", "gh500", 1, 0),
        ("z500", "dam", "gh500", 10, 0),
        ("hgt500", "gpdm", "gh500", 10, 0),
        ("T850", "Celsius", "t850", 1, 273.15),
        ("u_component_of_wind_850hPa", "m/s", "u850", 1, 0),
        ("tos", "degC", "sst", 1, 273.15),
        ("ssta", "degC", "ssta", 1, 0),
        ("pr_total", "mm", "pr_total", 1, 0),
        ("total_precipitation", "kg m**-2", "tp", 1e-3, 0),
        ("tp", "mm", "tp", 1e-3, 0),
        ("clt", "%", "tcc", 0.01, 0),
        ("q700", "g/kg", "q700", 1e-3, 0),
        ("uas", "m s-1", "u10", 1, 0),
        ("w500", "m s-1", "wz500", 1, 0),
        ("my_own_field", "furlongs", "my_own_field", 1, 0),
        ("q", "s-1", "q", 1, 0),
        ("u", None, "u", 1, 0),
    ],
)
def test_names_and_units(
    own: str, units: str | None, name: str, factor: float, offset: float
) -> None:
    source = grid({own: units})
    ds = open_dataset(source)
    assert set(ds.data_vars) == {name}
    expected = source[own].sortby("lat").isel(lon=[3, 0, 1, 2]).values * factor + offset
    np.testing.assert_allclose(ds[name].values, expected, rtol=1e-12)
    if name in VARIABLES and units and name != "q":
        assert ds[name].attrs["units"] == VARIABLES[name].units
    assert json.loads(ds[name].attrs["original"])["name"] == own


def test_every_name_sciwm_knows_has_parsable_units_and_leads_to_itself() -> None:
    for name, known in VARIABLES.items():
        assert same_dimension(known.units, known.units), name
        assert split_name(name) == (name, None)
        for alias in known.aliases:
            assert split_name(alias) == (name, None), alias
    assert split_name(level_suffix("u", 10.0)) == ("u", 10.0)
    assert split_name("index_12") == (None, None)
    assert split_name("z5000") == (None, None)


def test_anomalies_and_winds_above_ground_are_told_from_their_namesakes() -> None:
    source = grid({"sst": "degC", "t2m": "degC", "u100": "m s-1", "v100": "m s-1"})
    source["sst"].attrs["long_name"] = "SST Anomalies"
    source["t2m"].attrs["long_name"] = "temperature anomaly"
    source["u100"].attrs["long_name"] = "100 metre U wind component"
    ds = open_dataset(source)
    assert set(ds.data_vars) == {"ssta", "t2m", "u100", "v100"}
    np.testing.assert_array_equal(np.sort(ds["ssta"], axis=None), np.sort(source["sst"], axis=None))
    assert ds["t2m"].attrs["units"] == "degC"
    assert ds["v100"].attrs["standard_name"] == "northward_wind"
    assert "standard_name" not in ds["u100"].attrs


def test_wrong_and_missing_units() -> None:
    with pytest.raises(ValueError, match=r"'t850' in 'm', expected.*'K'"):
        open_dataset(grid({"t850": "m"}))
    with pytest.warns(UserWarning, match="'t850' has no units"):
        ds = open_dataset(grid({"t850": None}))
    assert ds["t850"].attrs["units"] == "K"
    good = open_dataset(grid({"t850": "m", "msl": "Pa"}), variables=["msl"])
    assert set(good.data_vars) == {"msl"}
    with pytest.raises(ValueError, match=r"got units 'K', expected units that convert to 'm'"):
        linear("K", "m")
    assert linear("m", "kg m-2") == (1000.0, 0.0)


def test_asking_for_geopotential_where_its_height_is_stored_names_both_units() -> None:
    both_units = r"'z500', which is in m2 s-2, but.* in m: ask for 'gh500'"
    with pytest.raises(ValueError, match=both_units):
        open_dataset(grid({"z500": "m"}), variables=["z500"])
    heights = levels().rename(geopotential="zg")
    heights["zg"].attrs["units"] = "m"
    with pytest.raises(ValueError, match="ask for 'gh500'"):
        open_dataset(heights, variables=["z500"])
    both = grid({"z500": "m", "geopotential_500": "m2 s-2"})
    assert set(open_dataset(both, variables=["z500", "gh500"]).data_vars) == {"z500", "gh500"}


def test_unknown_variables_list_what_is_close_and_everything() -> None:
    source = grid({"tas": "K", "psl": "Pa", "mine": "1"})
    listed = r"unknown variable 't2n'; did you mean 't2m'.*mine, msl, t2m"
    with pytest.raises(ValueError, match=listed):
        open_dataset(source, variables=["t2n"])
    with pytest.raises(ValueError, match=r"unknown variable 'z500'.*mine, msl, t2m"):
        open_dataset(source, variables="z500")
    assert list(open_dataset(source, variables=["mine", "tas"]).data_vars) == ["mine", "t2m"]


@pytest.mark.parametrize(
    ("units", "values", "name"),
    [("Pa", (85000, 50000), "plev"), ("hPa", (500, 850), "level"), ("", (50000, 85000), "lev")],
)
def test_levels_are_hectopascals_and_single_ones_are_taken_out(
    units: str, values: tuple[int, ...], name: str
) -> None:
    source = levels(units, values, name)
    ds = open_dataset(source)
    assert ds["z"].dims == ("time", "level", "latitude", "longitude")
    assert ds["level"].values.tolist() == [500.0, 850.0]
    one = open_dataset(source, variables=["z500", "temperature_850"])
    assert set(one.data_vars) == {"z500", "t850"}
    assert "level" not in one.coords
    at = source.sel({name: values[0] if int(values[0]) in (500, 50000) else values[1]})
    taken_out, there = one["z500"].values, at["geopotential"].values
    np.testing.assert_array_equal(np.sort(taken_out, axis=None), np.sort(there, axis=None))
    with pytest.raises(ValueError, match=r"'z700', but 'z' has levels \[500.0, 850.0\] hPa"):
        open_dataset(source, variables=["z700"])


def test_one_level_gives_a_name_with_its_level() -> None:
    source = levels(values=(500.0,))
    source["mine"] = source["temperature"] * 2
    ds = open_dataset(source)
    assert set(ds.data_vars) == {"z500", "t500", "mine"}
    assert ds["mine"].dims == ("time", "latitude", "longitude")
    back = to_original(ds)
    assert back["geopotential"].sizes["level"] == 1
    scalar = levels(values=(500.0,), name="isobaricInhPa").isel(isobaricInhPa=0)
    assert set(open_dataset(scalar).data_vars) == {"z500", "t500"}
    wind = levels(values=(10.0,))[["geopotential"]].rename(geopotential="u_component_of_wind")
    wind["u_component_of_wind"].attrs["units"] = "m s-1"
    assert set(open_dataset(wind).data_vars) == {"u10hPa"}
    assert "u10hPa" in open_dataset(wind, variables=["u10hPa"])


def test_depths_stay_depths_and_own_variables_have_levels_too() -> None:
    source = levels("m", (5.0, 100.0), "depth").rename(geopotential="thetao", temperature="so")
    ds = open_dataset(source)
    assert ds["level"].attrs["units"] == "m"
    assert ds["thetao"].sizes["level"] == 2
    xr.testing.assert_identical(to_original(ds)["depth"], source["depth"])
    own = levels().rename(geopotential="pv")
    own["pv"].attrs["units"] = "K m2 kg-1 s-1"
    assert set(open_dataset(own, variables=["pv500"]).data_vars) == {"pv500"}


def test_static_fields_are_kept_chosen_or_dropped() -> None:
    source = grid({"tas": "K"})
    source["land_sea_mask"] = (("lat", "lon"), np.eye(3, 4, dtype="int8"), {"units": "(0 - 1)"})
    source["slt"] = (("time", "lat", "lon"), field(9, (10, 3, 4)))
    assert open_dataset(source)["lsm"].dims == ("latitude", "longitude")
    assert open_dataset(source)["lsm"].dtype == np.float32
    assert set(open_dataset(source, variables=["t2m"]).data_vars) == {"t2m"}
    chosen = open_dataset(source, variables=["t2m"], static=["lsm", "slt"])
    assert chosen["slt"].dims == ("latitude", "longitude")
    assert list(open_dataset(source, static="lsm").data_vars) == ["t2m", "slt", "lsm"]


@pytest.mark.parametrize(
    ("given_longitude", "first", "last"),
    [
        (np.mod(np.arange(-20.0, 15.0, 1.5), 360), -20.0, 14.5),
        (np.sort(np.mod(np.arange(-20.0, 15.0, 1.5), 360)), -20.0, 14.5),
        (np.arange(182.5, 288, 5.0), -177.5, -72.5),
        (np.arange(-180.0, 180, 5.0), 0.0, 355.0),
        (np.arange(1.875, 360, 7.5), 1.875, 354.375),
        (np.arange(150.0, 211, 10.0), 150.0, 210.0),
        (np.arange(-180.0, 181, 5.0), 0.0, 355.0),
        (np.array([100.0]), 100.0, 100.0),
        (np.arange(40.0, 9, -10.0), 10.0, 40.0),
        (np.array([-1e-13, 90.0, 180.0, 270.0]), 0.0, 270.0),
    ],
)
def test_longitudes_are_contiguous(given_longitude: np.ndarray, first: float, last: float) -> None:
    order, values = canonical_longitude(given_longitude)
    assert (values[0], values[-1]) == (first, last)
    assert (np.diff(values) > 0).all()
    np.testing.assert_allclose(np.mod(values - given_longitude[order] + 180, 360), 180, atol=1e-9)


@st.composite
def _domains(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, bool]:
    count = draw(st.integers(1, 12))
    if draw(st.booleans()):
        west = draw(st.sampled_from([0.0, -180.0, 0.9375, 20.0]))
        longitude = west + np.arange(count) * 360.0 / count
    else:
        west, step = draw(st.integers(-180, 359)), draw(st.sampled_from([0.1, 1.5, 2.5, 10.0]))
        longitude = west + np.arange(count) * step
    conventions = ["as it is", "0-360", "-180-180", "sorted 0-360", "descending"]
    convention = draw(st.sampled_from(conventions))
    if "0-360" in convention:
        longitude = np.mod(longitude, 360.0)
    if "-180" in convention:
        longitude = np.mod(longitude + 180.0, 360.0) - 180.0
    longitude = np.sort(longitude) if "sorted" in convention else longitude
    longitude = longitude[::-1] if convention == "descending" else longitude
    south, north = draw(st.integers(-90, 0)), draw(st.integers(1, 90))
    latitude = np.linspace(south, north, draw(st.integers(1, 5)))
    return latitude[:: draw(st.sampled_from([1, -1]))], longitude, draw(st.booleans())


_NAMES = [("time", "lat", "lon"), ("time", "longitude", "latitude"), ("nav_lon", "valid_time", "y")]


@settings(max_examples=20)
@given(_domains(), st.sampled_from(_NAMES))
def test_canonical_and_back_is_the_identity(
    domain: tuple[np.ndarray, np.ndarray, bool], names: tuple[str, ...]
) -> None:
    latitude, longitude, single = domain
    role = {"time": "time", "valid_time": "time", "lat": "lat", "latitude": "lat", "y": "lat"}
    kind = "float32" if single else "float64"
    axes = {"time": days(4), "lat": latitude.astype(kind), "lon": longitude.astype(kind)}
    coords = {n: axes[role.get(n, "lon")] for n in names}
    shape = tuple(len(coords[n]) for n in names)
    arrays = {
        "tas": (names, field(1, shape), {"units": "degC", "note": "mine"}),
        "psl": (names, field(2, shape), {"units": "hPa"}),
    }
    source = xr.Dataset(arrays, coords, attrs={"title": "made up"})
    ds = open_dataset(source)
    assert ds["t2m"].dims == ("time", "latitude", "longitude")
    assert (np.diff(ds["latitude"]) > 0).all()
    assert (np.diff(ds["longitude"]) > 0).all()
    assert -180 < float(ds["longitude"][0]) < 360
    back = to_original(ds)
    xr.testing.assert_allclose(back, source, rtol=1e-9, atol=1e-9)
    assert back["tas"].dims == source["tas"].dims
    assert back["tas"].attrs == source["tas"].attrs
    assert back.attrs == source.attrs
    assert back[names[0]].dtype == source[names[0]].dtype
    again = open_dataset(back)
    xr.testing.assert_equal(again["longitude"], ds["longitude"])
    xr.testing.assert_equal(again["latitude"], ds["latitude"])
    assert open_dataset(ds).identical(ds)


def test_cyclic_point_and_part_of_the_domain_on_the_way_back() -> None:
    source = grid({"tas": "K"}, longitude=np.arange(0.0, 361, 30))
    ds = open_dataset(source)
    assert ds.sizes["longitude"] == 12
    round_again = source["tas"].isel(lon=[*range(12), 0]).assign_coords(lon=source["lon"])
    xr.testing.assert_allclose(to_original(ds)["tas"], round_again)
    pacific = grid({"tas": "K"}, longitude=np.arange(182.5, 288, 5))
    part = open_dataset(pacific).sel(longitude=slice(-150, -100))
    assert to_original(part)["lon"].values.tolist() == np.arange(212.5, 258, 5).tolist()


def test_the_way_back_of_forecasts_and_of_levels() -> None:
    source = levels("Pa", (85000.0, 50000.0), "plev").transpose("time", "lon", "plev", "lat")
    ds = open_dataset(source)
    back = to_original(ds)
    xr.testing.assert_allclose(back, source)
    assert back["geopotential"].dims == source["geopotential"].dims
    chosen = open_dataset(source, variables=["z500", "z850"])
    forecast = chosen.isel(time=[0, 1, 2]).drop_vars("segment").rename(time="init_time")
    forecast = forecast.expand_dims(lead_time=2, number=3)
    out = to_original(forecast)
    assert out["geopotential"].dims[:3] == ("init_time", "lead_time", "number")
    assert out["plev"].values.tolist() == [85000.0, 50000.0]
    expected = source["geopotential"].isel(time=1).transpose("plev", "lat", "lon")
    one = out["geopotential"].isel(init_time=1, lead_time=0, number=2)
    np.testing.assert_allclose(one.transpose("plev", "lat", "lon"), expected)
    uneven = to_original(open_dataset(source, variables=["z500", "t850"]))
    assert set(uneven.data_vars) == {"geopotential_500", "temperature_850"}
    assert set(open_dataset(uneven).data_vars) == {"z500", "t850"}


def test_plain_datasets_pass_through_the_way_back() -> None:
    plain = xr.Dataset({"x": ("init_time", [1.0, 2.0])})
    xr.testing.assert_identical(to_original(plain), plain)


def test_coordinates_are_found_by_cf_attributes_whatever_their_names() -> None:
    source = grid({"tas": "K"}).rename(lat="phi", lon="lambda", time="when")
    source["phi"].attrs["units"] = "degrees_north"
    source["lambda"].attrs["standard_name"] = "longitude"
    source["when"].attrs["axis"] = "T"
    assert set(open_dataset(source)["t2m"].dims) == {"time", "latitude", "longitude"}
    auxiliary = grid({"tas": "K"}).rename_dims(lat="j", lon="i", time="record")
    auxiliary = auxiliary.reset_index(["lat", "lon", "time"]).reset_coords()
    opened = open_dataset(auxiliary)
    assert opened["latitude"].values.tolist() == [0.0, 30.0, 60.0]
    assert set(find_dimensions(auxiliary)) == {"time", "latitude", "longitude"}
    back = to_original(opened)
    assert set(back.coords) == {"lat", "lon", "time"}
    assert back["tas"].dims == ("record", "j", "i")


def test_other_grids_are_refused_clearly() -> None:
    plane = (("y", "x"), np.zeros((3, 4)))
    wide = xr.Dataset(
        {"tas": (("time", "y", "x"), np.zeros((10, 3, 4)), {"units": "K"})},
        {"time": days(), "lat": plane, "lon": plane},
    )
    with pytest.raises(ValueError, match=r"two-dimensional latitude 'lat'.*regrid"):
        open_dataset(wide)
    cells = xr.Dataset(
        {"tas": (("time", "cell"), np.zeros((10, 5)), {"units": "K"})},
        {"time": days(), "lat": ("cell", np.arange(5.0)), "lon": ("cell", np.arange(5.0))},
    )
    with pytest.raises(ValueError, match="unstructured"):
        open_dataset(cells)
    projected = grid({"tas": "K"}, names=("time", "y", "x"))
    projected["y"].attrs["units"] = "km"
    with pytest.raises(ValueError, match="'y' in 'km'"):
        open_dataset(projected)
    with pytest.raises(ValueError, match="'lat' without values"):
        open_dataset(grid({"tas": "K"}).drop_vars("lat"))
    with pytest.raises(ValueError, match=r"got dimensions \['site_a'\]"):
        open_dataset(xr.Dataset({"x": (("time", "site_a"), np.zeros((10, 2)))}, {"time": days()}))
    for bad in ([0.0, 50.0, 20.0], [0.0, 95.0, 100.0]):
        with pytest.raises(ValueError, match="within ±90°"):
            open_dataset(grid({"tas": "K"}, latitude=bad))


def test_longitudes_in_no_order_are_sorted() -> None:
    source = grid({"tas": "K"}, longitude=[20.0, 0.0, 10.0, 30.0])
    ds = open_dataset(source)
    assert ds["longitude"].values.tolist() == [0.0, 10.0, 20.0, 30.0]
    np.testing.assert_array_equal(ds["t2m"][0, 0], source["tas"][0, 2, [1, 2, 0, 3]])


@pytest.mark.parametrize("yes", [1, np.int32(1), True, np.bool_(True), "true", "True"])
def test_axes_keep_that_their_ends_meet(yes: object) -> None:
    """Here latitudes are turned round, and longitudes put together from two pieces."""
    source = grid({"tas": "K", "psl": "hPa"})
    bare = open_dataset(source)
    assert "periodic" not in bare["latitude"].attrs
    assert "periodic" not in bare["longitude"].attrs
    source["lat"].attrs["periodic"] = yes
    ds = open_dataset(source, variables=["t2m"])
    assert ds["latitude"].attrs == bare["latitude"].attrs | {"periodic": 1}
    assert type(ds["latitude"].attrs["periodic"]) is int
    assert "periodic" not in ds["longitude"].attrs
    assert fingerprint(open_dataset(source)) == fingerprint(bare)
    source["lon"].attrs["periodic"] = yes
    both = open_dataset([source, source], segments=True)
    assert np.unique(both["segment"]).tolist() == [0, 1]
    assert both["latitude"].attrs["periodic"] == both["longitude"].attrs["periodic"] == 1
    assert to_original(open_dataset(source))["lat"].attrs == {"periodic": yes}


@pytest.mark.parametrize("no", [0, np.int32(0), False, "false", ""])
def test_axes_may_say_that_their_ends_do_not_meet(no: object) -> None:
    source = grid({"tas": "K"})
    source["lat"].attrs["periodic"] = source["lon"].attrs["periodic"] = no
    assert "periodic" not in open_dataset(source)["latitude"].attrs
    assert "periodic" not in open_dataset(source)["longitude"].attrs


def test_fingerprint_sees_data_and_not_conventions() -> None:
    longitude, latitude = np.arange(0.0, 360, 30), np.linspace(-75, 75, 6)
    source = grid({"tas": "K", "psl": "hPa"}, longitude=longitude, latitude=latitude)
    print_ = fingerprint(open_dataset(source))
    rolled = source.assign_coords(lon=(source["lon"] + 180) % 360 - 180).sortby("lon")
    rolled = rolled.isel(lat=slice(None, None, -1))
    assert fingerprint(open_dataset(rolled)) == print_
    renamed = source.rename(tas="t2m").transpose("lon", "lat", "time")
    assert fingerprint(open_dataset(renamed)) == print_
    assert fingerprint(open_dataset(source, chunks={"time": 1})) == print_
    assert fingerprint(open_dataset(source + 1e-3)) != print_
    assert fingerprint(open_dataset(source.isel(time=slice(1, None)))) != print_
    assert fingerprint(open_dataset(source.assign_coords(lat=source["lat"] + 0.5))) != print_
    assert fingerprint(open_dataset(source, variables=["t2m"])) != print_
    time = xr.date_range("2001-01-01", periods=10, calendar="noleap", use_cftime=True)
    noleap = source.assign_coords(time=time)
    assert fingerprint(open_dataset(noleap)) == fingerprint(open_dataset(noleap))
