"""World models on labelled data: right values at right times and places, and clear refusals."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from type_checks import unchecked

from sciwm import testing
from sciwm.data.open import open_dataset
from sciwm.store.forcing import conditions
from sciwm.store.split import Split
from sciwm.train.fit import build_world
from tests.worlds import climate_world, config, molecule_world, open_gates, store


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    ds = testing.small_climate(years=1)
    made, _ = climate_world(ds, tmp_path_factory.mktemp("world"), climatology="constant")
    return made


@pytest.fixture(scope="module")
def ds():
    return testing.small_climate(years=1, seed=3).isel(time=slice(0, 40))


def test_an_untrained_world_forecasts_damped_persistence(tmp_path, world, ds):
    """Its latents stand still, so that the residual readout can only damp the initial state."""
    forecast = world.forecast(ds)
    assert forecast.z500.dims == ("init_time", "lead_time", "latitude", "longitude")
    assert dict(forecast.sizes) == {"init_time": 39, "lead_time": 3, "latitude": 8, "longitude": 12}
    np.testing.assert_array_equal(forecast.lead_time / np.timedelta64(1, "D"), [1, 2, 5])
    np.testing.assert_array_equal(forecast.init_time, ds.time[1:])
    assert forecast.z500.attrs["units"] == "m2 s-2"
    assert forecast.attrs["title"] == ds.attrs["title"]
    assert forecast.z500.dtype == np.float32
    spread = ds.z500.std()
    initial = ds.z500.isel(time=slice(1, None)).rename(time="init_time")
    near, far = (abs(forecast.z500.isel(lead_time=k) - initial).mean() for k in (0, 2))
    assert near < far < 3 * spread
    # Anomalies are those of the readouts, put back on the climatology.
    ridge = world.readouts["residual"]
    patches = world.tokenizer.outputs(torch.from_numpy(world.states(ds).values))
    latents = torch.from_numpy(world.encode(ds).values[1:])
    cells = ridge.read_fields(0, latents, torch.cat([patches[1:], patches[:-1]], dim=-1))
    anomaly = xr.DataArray(
        world.tokenizer.fields(cells).numpy(),
        dims=("time", "channel", "latitude", "longitude"),
        coords={"latitude": ds.latitude, "longitude": ds.longitude},
    )
    valid_time = xr.DataArray(ds.time.values[1:] + np.timedelta64(1, "D"), dims="time")
    expected = world.statistics.restore(anomaly, valid_time)
    np.testing.assert_allclose(forecast.t850.isel(lead_time=0), expected.t850, rtol=1e-5)


def test_states_have_unit_spread_and_keep_their_order(world, ds):
    state = world.states(ds)
    assert state.dims == ("time", "channel", "latitude", "longitude")
    assert 0.5 < float(state.std()) < 2
    anomaly = ds.z500 - ds.z500.mean("time")
    r = np.corrcoef(state.isel(channel=0).values.ravel(), anomaly.values.ravel())[0, 1]
    assert r == pytest.approx(1, abs=0.2)


def test_latents_carry_their_places(world, ds):
    latents = world.encode(ds, batch_size=7)
    assert latents.dims == ("time", "token", "latent")
    assert latents.shape == (40, 6, 32)  # as many as a patch has cells
    xr.testing.assert_allclose(latents, world.encode(ds), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(latents.time, ds.time)
    # Tokens of four by four cells from the south-west on.
    box = ds.isel(latitude=slice(0, 4), longitude=slice(0, 4))
    assert float(box.latitude.min()) < latents.token_latitude[0] < float(box.latitude.max())
    np.testing.assert_allclose(latents.token_longitude[0], box.longitude.mean(), atol=1e-3)
    first, second = latents.token_longitude[:2]
    np.testing.assert_allclose(second - first, 12, atol=1e-3)


def test_batches_leads_and_initial_times(world, ds):
    whole = world.forecast(ds)
    xr.testing.assert_allclose(world.forecast(ds, batch_size=5), whole, rtol=1e-5)
    some = world.forecast(ds, init_times=ds.time.values[[9, 4]], lead_times=["5 days", "1 day"])
    xr.testing.assert_allclose(some, whole.isel(init_time=[3, 8], lead_time=[2, 0]), rtol=1e-5)
    one = world.forecast(ds, init_times="2001-01-05", lead_times="48 hours")
    xr.testing.assert_allclose(one, whole.isel(init_time=[3], lead_time=[1]), rtol=1e-5)
    same = world.forecast(ds, init_times=ds.time[4], lead_times=world.step.lead_times([2]))
    xr.testing.assert_allclose(same, one, rtol=1e-5)


def test_the_future_is_not_seen(world, ds):
    before = world.forecast(ds.isel(time=slice(0, 10)))
    changed = ds.where(ds.time <= ds.time[9], 1e6)
    after = world.forecast(changed, init_times=ds.time.values[1:10])
    xr.testing.assert_allclose(after, before, rtol=1e-5)


def test_other_orders_of_latitude_and_longitude(tmp_path, world, ds):
    expected = world.forecast(ds)
    wild = ds.drop_vars("segment").load().isel(latitude=slice(None, None, -1))
    wild = wild.assign_coords(longitude=wild.longitude % 360).sortby("longitude")
    wild = wild.rename(latitude="lat", longitude="lon").transpose("lon", "time", "lat")
    wild.drop_encoding().to_netcdf(tmp_path / "wild.nc")
    opened = open_dataset(tmp_path / "wild.nc")
    got = world.forecast(opened)
    xr.testing.assert_allclose(got.drop_attrs(), expected.drop_attrs(), rtol=1e-6)
    np.testing.assert_array_equal(opened.longitude, ds.longitude)


def test_other_data_are_refused(world, ds):
    with pytest.raises(ValueError, match="t850"):
        world.forecast(ds.drop_vars("t850"))
    with pytest.raises(ValueError, match=r"steps of 48 hours, expected 24 hours"):
        world.forecast(ds.isel(time=slice(None, None, 2)))
    with pytest.raises(ValueError, match="longitude"):
        world.encode(ds.isel(longitude=slice(0, 8)))
    with pytest.raises(ValueError, match="latitude"):
        world.encode(ds.assign_coords(latitude=ds.latitude + 1))


def test_impossible_initial_times_and_leads(world, ds):
    message = r"initial time 2001-01-01.*its context are not in the data \(1 such of 2\)"
    with pytest.raises(ValueError, match=message):
        world.forecast(ds, init_times=ds.time.values[[0, 5]])
    with pytest.raises(ValueError, match=r"initial time 1999-05-05.*it is not in the data"):
        world.forecast(ds, init_times=[np.datetime64("1999-05-05", "ns")])
    with pytest.raises(ValueError, match=r"got 1 time\(s\)"):
        world.positions(ds.isel(time=[0]))
    message = r"lead of 72 hours, expected one of .*name it under forecast.lead_times"
    with pytest.raises(ValueError, match=message):
        world.forecast(ds, lead_times=["3 days"])
    with pytest.raises(ValueError, match="twice"):
        world.forecast(ds, lead_times=["1 day", "24 hours"])
    with unchecked(), pytest.raises(ValueError, match="got readout 'linear'"):
        world.forecast(ds, readout="linear")


def test_contexts_do_not_cross_segments(world, ds):
    apart = ds.assign_coords(segment=("time", np.repeat([0, 1], 20)))
    assert world.positions(apart).tolist() == [*range(1, 20), *range(21, 40)]
    with pytest.raises(ValueError, match="context"):
        world.forecast(apart, init_times=ds.time.values[20])


def test_land_stays_land(tmp_path):
    ds = testing.small_months(years=20)
    made, _ = climate_world(ds, tmp_path, leads=(1, 6), climatology="monthly", missing="mask")
    forecast = made.forecast(ds.isel(time=slice(100, 130)))
    land = ds.sst.isnull().all("time")
    assert 0 < int(land.sum()) < land.size
    assert (forecast.sst.isnull() == land).all()
    np.testing.assert_array_equal(forecast.lead_time, [1, 6])
    assert forecast.lead_time.attrs["units"] == "months"
    # The seasonal cycle is that of the valid month.
    months = made.step.add(forecast.init_time.values[:, None], np.array([1, 6]))
    valid_time = xr.DataArray(months, dims=("init_time", "lead_time"))
    normal = made.statistics.climatology.at(valid_time).sst
    anomaly = (forecast.sst - normal).where(~land, 0)
    assert float(abs(anomaly).max()) < 4


def test_gaps_in_the_observations_are_forecast(tmp_path):
    ds = testing.small_climate(years=1, missing=True)
    made, _ = climate_world(ds, tmp_path, climatology="constant", missing="mask")
    forecast = made.forecast(ds.isel(time=slice(0, 20)))
    always = ds.z500.isnull().all("time")
    assert (forecast.z500.isnull() == always).all()


def test_a_context_without_its_earlier_state_still_forecasts(tmp_path):
    ds = testing.small_climate(years=1, missing=True)
    made, _ = climate_world(ds, tmp_path, climatology="constant", missing="mask")
    part = ds.isel(time=slice(0, 20))
    lost = part.where(part.time != part.time[10])
    whole, holed = made.forecast(part), made.forecast(lost)
    never = whole.z500.isnull()
    assert not never.all()
    assert (holed.z500.isnull() == never).all()
    differs = (whole.z500 != holed.z500).where(~never, False)
    differs = differs.any(["lead_time", "latitude", "longitude"])
    # The state itself, and the context it was the earlier of.
    np.testing.assert_array_equal(differs.init_time[differs], part.time[[10, 11]])
    after = {"init_time": part.time.values[11], "lead_time": whole.lead_time.values[0]}
    truth = ds.z500.sel(time=part.time.values[12])
    error = float(((holed.z500.sel(after) - truth) ** 2).mean())
    assert error < float(((ds.z500 - ds.z500.mean("time")) ** 2).mean())


def test_molecules(tmp_path):
    made, _ = molecule_world(tmp_path)
    ds = testing.double_well(num_trajectories=1, num_frames=40, seed=9)
    forecast = made.forecast(ds)
    assert forecast.torsions.dims == ("init_time", "lead_time", "component")
    assert forecast.component.values.tolist() == ["phi_sin", "phi_cos", "psi_sin", "psi_cos"]
    assert forecast.lead_time.values.tolist() == [1.0, 5.0]
    assert forecast.lead_time.attrs["units"] == "ps"
    assert forecast.init_time.values.tolist() == ds.time.values[1:].tolist()
    assert float(abs(forecast.torsions).max()) < 2
    # Neither place nor attitude matters.
    cosine, sine = np.cos(0.7), np.sin(0.7)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    away = (ds.positions.values @ turn.T + [1.0, 2, 3]).astype("float32")
    moved = ds.assign(positions=(ds.positions.dims, away))
    xr.testing.assert_allclose(made.forecast(moved), forecast, atol=2e-3)
    latents = made.encode(ds)
    assert latents.atom.values.tolist() == ds.atom.values.tolist()
    with pytest.raises(ValueError, match="got 4 atoms, expected the 5"):
        made.encode(ds.isel(atom=slice(0, 4)))
    with pytest.raises(ValueError, match="expected 'positions'"):
        made.encode(ds.drop_vars("positions"))


def test_times_that_repeat_do_not_name_a_state(tmp_path):
    made, _ = molecule_world(tmp_path)
    ds = testing.double_well(num_trajectories=2, num_frames=30)
    assert made.forecast(ds).sizes["init_time"] == 58
    with pytest.raises(ValueError, match=r"take one trajectory first"):
        made.forecast(ds, init_times=[5.0])
    one = ds.isel(time=ds.segment.values == 1)
    same = made.forecast(ds).isel(init_time=[29 + 3]).drop_vars("segment")
    xr.testing.assert_allclose(made.forecast(one, init_times=[5.0]), same, rtol=1e-4)


def test_calendar_sun_and_static_fields_reach_the_dynamics(tmp_path):
    ds = testing.small_climate(years=1, step_hours=12)
    field = np.zeros((8, 12))
    field[:4] = 1
    static = xr.Dataset(
        {"lsm": (("latitude", "longitude"), field)},
        {"latitude": ds.latitude, "longitude": ds.longitude},
    )
    world = build_world(config(), store(ds, tmp_path, static=static, climatology="constant"))
    assert world.static.shape == (6, 1)
    assert torch.equal(world.static[:, 0].sign(), torch.tensor([1.0, 1, 1, -1, -1, -1]))
    times = np.array([["2001-03-21T12", "2001-03-21T00"]], "datetime64[ns]")
    lead = torch.tensor([[0.0, 1.0]])
    known = world.known(torch.from_numpy(conditions(times, world.step)), lead)
    assert known.lead is lead
    assert {name: x.shape for name, x in known.times.items()} == {"calendar": (1, 2, 6)}
    assert {name: x.shape for name, x in known.tokens.items()} == {
        "static": (1, 2, 6, 1),
        "sun": (1, 2, 6, 1),
    }
    assert torch.equal(known.tokens["static"][0, 1], world.static)
    sun = known.tokens["sun"][0, :, :, 0]
    latitude = np.rad2deg(np.arcsin(world.tokenizer.position[:, 2].numpy()))
    # At the equinox the noon sun stands as high as the equator is far from the pole.
    np.testing.assert_allclose(sun[0], np.cos(np.deg2rad(latitude)), atol=0.06)
    np.testing.assert_allclose(sun[1], -sun[0], atol=0.05)
    # The dynamics are built for what is known, and use all of it.
    network = world.network
    open_gates(network)
    assert network.dynamics.names == (("calendar",), ("static", "sun"))
    context = torch.randn(1, 2, *world.latent_shape)
    later = known.at(1)
    with torch.no_grad():
        memory = network.dynamics.start(context, known)
        plain, _ = network.dynamics.step(memory, later)
        for part, name in (("times", "calendar"), ("tokens", "static"), ("tokens", "sun")):
            values = getattr(later, part)
            other = dataclasses.replace(later, **{part: {**values, name: values[name] + 1}})
            assert (network.dynamics.step(memory, other)[0] - plain).abs().max() > 1e-4, name


def test_nothing_is_known_of_tokens_without_static_fields_or_hours(world):
    known = world.known(torch.zeros(1, 3, 4), torch.zeros(1, 3))
    assert list(known.times) == ["calendar"]
    assert known.tokens == {}
    bare = world.known(torch.zeros(1, 3, 0), torch.zeros(1, 3))
    assert bare.times == {}


def test_split_in_words():
    time = np.arange("2000-01-01", "2000-01-07", dtype="datetime64[D]")
    blocks = Split(np.array([0, 0, -1, 1, 1, -1])).describe(time)
    assert blocks == {
        "train": ["2000-01-01", "2000-01-02"],
        "validation": ["2000-01-04", "2000-01-05"],
    }


def test_frozen(world):
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.step = None
