"""Whether a simulation holds: worlds that do, that fade, drift, exaggerate the seasons, blow up."""

import numpy as np
import pytest
import xarray as xr

from sciwm.skill import fit_reference
from sciwm.skill.simulation import annual_amplitude, diagnose_simulations, simulation_table
from tests.truths import DAY, autoregressive, days, grid

LATITUDE, LONGITUDE = np.array([-60.0, -20.0, 20.0, 60.0]), np.arange(0, 360.0, 60.0)
SHAPE, YEARS, TRAIN = (4, 6), 3, 730
NORTH = np.sign(LATITUDE)[:, None] * np.ones(6)


def seasons(time):
    """Warm in the north in July, 10 K; in the south in January."""
    year = (time - time.astype("datetime64[Y]").astype(time.dtype)) / DAY / 365.25
    return 280.0 - 10.0 * NORTH * np.cos(2 * np.pi * year)[..., None, None]


def weather(count, *, seed, phi=0.8):
    """Of unit variance in every cell, ``(count, latitude, longitude)``."""
    return autoregressive(count, phi=phi, cells=24, seed=seed).reshape(count, *SHAPE)


@pytest.fixture(scope="module")
def observed():
    time = days(365 * YEARS)
    values = seasons(time) + weather(time.size, seed=0)
    return grid(values, time=time, latitude=LATITUDE, longitude=LONGITUDE)


@pytest.fixture(scope="module")
def reference(observed):
    train = observed.time.values < observed.time.values[TRAIN]
    return fit_reference(observed, train=train, harmonics=1)


INIT = np.array([740, 800, 900, 1000])


def simulated(observed, anomaly, *, length=365, cycle=1.0):
    """Simulations from `INIT` whose anomalies are given, ``(init, lead, latitude, longitude)``."""
    init = observed.time.values[INIT]
    lead = np.arange(1, length + 1) * DAY
    normal = cycle * (seasons(init[:, None] + lead) - 280.0) + 280.0
    dims = ("init_time", "lead_time", "latitude", "longitude")
    coords = {"init_time": init, "lead_time": lead, "latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.Dataset({"t850": (dims, normal + anomaly)}, coords)


def fresh(length=365, *, phi=0.8):
    return np.stack([weather(length, seed=10 + i, phi=phi) for i in range(len(INIT))])


def judged(observed, reference, parts):
    return diagnose_simulations(parts, observed, reference=reference, every=1)


def test_a_world_like_the_truth_holds(observed, reference):
    found = judged(observed, reference, {"jepa": [simulated(observed, fresh())]})
    (row,) = simulation_table(found).to_dict("records")
    assert (row["channel"], row["units"], row["method"]) == ("t850", "K", "jepa")
    assert abs(row["drift"]) < 0.1
    assert row["truth_mean_std"] == pytest.approx(24**-0.5, rel=0.25)
    assert row["spread_ratio"] == pytest.approx(1.0, abs=0.06)
    assert row["change_ratio"] == pytest.approx(1.0, abs=0.06)
    assert row["cycle_ratio_northern_extratropics"] == pytest.approx(1.0, abs=0.03)
    assert row["cycle_ratio_southern_extratropics"] == pytest.approx(1.0, abs=0.03)
    assert (row["simulations"], row["blown_up"]) == (4, 0)
    assert np.isnan(row["first_blowup"])
    assert found["alive"].values.tolist() == [[4] * 61]


def test_leads_stand_alone_for_ten_days_and_by_the_week_after(observed, reference):
    found = judged(observed, reference, {"jepa": [simulated(observed, fresh())]})
    lead = found.lead_time / DAY
    assert lead[:12].values.tolist() == [*range(1, 11), 14, 21]
    assert lead.size == 10 + 51
    anomaly = simulated(observed, fresh())["t850"].values - simulated(observed, 0.0)["t850"].values
    week = anomaly[:, 10:17]
    area = (
        np.cos(np.deg2rad(LATITUDE))[:, None]
        * np.ones(6)
        / (6 * np.cos(np.deg2rad(LATITUDE)).sum())
    )
    mean, square = (week * area).sum((2, 3)), (week**2 * area).sum((2, 3))
    one = found.isel(lead_time=10, channel=0, method=0)
    # The climatology was fitted with noise: departures from it are a little larger.
    assert float(one["mean"]) == pytest.approx(mean.mean(), abs=0.1)
    assert float(one["mean_std"]) == pytest.approx(mean.std(), rel=0.1)
    assert float(one["spread"]) == pytest.approx(
        np.sqrt(square.mean() - mean.mean() ** 2), rel=0.03
    )
    change = (np.diff(anomaly, axis=1)[:, 9:16] ** 2 * area).sum((2, 3)).mean() ** 0.5
    assert float(one["change"]) == pytest.approx(change, rel=0.01)
    assert np.isnan(found["change"].isel(lead_time=0)).all()


def test_parts_add_up_to_the_whole(observed, reference):
    whole = simulated(observed, fresh())
    parts = [
        whole.isel(init_time=rows, lead_time=leads)
        for rows in (slice(0, 3), slice(3, 4))
        for leads in (slice(0, 7), slice(7, 100), slice(100, 365))
    ]
    one = judged(observed, reference, {"jepa": [whole]})
    xr.testing.assert_allclose(judged(observed, reference, {"jepa": parts}), one)


def test_what_fades_is_told_from_what_stands_still(observed, reference):
    """A fixed error of the climate is spread, yet no weather."""
    fading = fresh() * 0.9 ** np.arange(365)[:, None, None]
    standing = np.broadcast_to(weather(1, seed=3), (4, 365, *SHAPE))
    parts = {"fades": [simulated(observed, fading)], "stands": [simulated(observed, standing)]}
    table = simulation_table(judged(observed, reference, parts)).set_index("method")
    # What is left is the error of a climatology fitted on two years of noise.
    assert table.loc["fades", "spread_ratio"] < 0.25
    assert table.loc["fades", "change_ratio"] < 0.1
    assert table.loc["stands", "spread_ratio"] > 0.7
    assert table.loc["stands", "change_ratio"] < 0.1


def test_drift_and_seasons_are_seen(observed, reference):
    parts = {"warm": [simulated(observed, fresh() + 3.0, cycle=2.0)]}
    (row,) = simulation_table(judged(observed, reference, parts)).to_dict("records")
    assert row["drift"] == pytest.approx(3.0, abs=0.2)
    assert row["cycle_ratio_northern_extratropics"] == pytest.approx(2.0, abs=0.05)
    short = simulated(observed, fresh(40), length=40)
    (row,) = simulation_table(judged(observed, reference, {"s": [short]})).to_dict("records")
    assert np.isnan(row["cycle_ratio_northern_extratropics"])


def test_an_unstable_mode_blows_up_at_its_lead(observed, reference):
    """Members alike; one cell of one initial time grows by a fifth a day from 1 K."""
    anomaly = fresh()
    anomaly[2, :, 1, 4] = 1.2 ** np.arange(1, 366)
    anomaly[2, 300:] = np.nan  # what overflows later changes nothing
    scale = float(
        (reference.anomaly["t850"] ** 2)
        .weighted(np.cos(np.deg2rad(reference.anomaly.latitude)))
        .mean()
        ** 0.5
    )
    first = int(np.ceil(np.log(20 * scale) / np.log(1.2)))
    calm = simulated(observed, fresh()).isel(init_time=[0, 1, 3])
    whole = simulated(observed, anomaly)
    found = judged(
        observed,
        reference,
        {"jepa": [whole.isel(lead_time=slice(0, 9)), whole.isel(lead_time=slice(9, 365))]},
    )
    assert found["blowup"].values[0].tolist()[2] == pytest.approx(24 * first, abs=24)
    assert np.isnan(found["blowup"].values[0, [0, 1, 3]]).all()
    assert found["alive"].values[0, 0] == 4
    assert found["alive"].values[0, -1] == 3
    (row,) = simulation_table(found).to_dict("records")
    assert (row["blown_up"], row["first_blowup"]) == (1, found["blowup"].values[0, 2])
    # The rest goes on as if it had not been there.
    rest = judged(observed, reference, {"jepa": [calm]})
    for name in ("mean", "spread", "change"):
        np.testing.assert_allclose(found[name][..., -30:], rest[name][..., -30:])


def test_members_count_one_by_one(observed, reference):
    members = [simulated(observed, fresh(phi=phi)) for phi in (0.8, 0.5)]
    both = xr.concat(members, "number")
    growing = both.copy(deep=True)
    growing["t850"][1, 0, 30:] = np.inf
    found = judged(observed, reference, {"all": [both], "one": [growing]})
    assert found.num_simulations.values.tolist() == [8, 8]
    assert found["alive"].isel(lead_time=-1).values.tolist() == [8, 7]
    assert found["blowup"].values[1, 0] == 31 * 24
    one = [judged(observed, reference, {"m": [m]})["spread"].values ** 2 for m in members]
    np.testing.assert_allclose(found["spread"].values[:1] ** 2, np.mean(one, axis=0), rtol=0.1)


def test_the_record_stands_beside_as_far_as_it_goes(observed, reference):
    found = judged(observed, reference, {"jepa": [simulated(observed, fresh())]})
    lead = (found.lead_time / DAY).values
    there = np.isfinite(found["observed_mean"][0].values)
    last = 365 * YEARS - 1 - INIT[0]  # a week counts from its first day on
    assert there[lead <= last].all()
    assert not there[lead > last + 3].any()
    anomaly = observed.t850 - seasons(observed.time.values)
    fifth = (anomaly[INIT + 5] ** 2).weighted(np.cos(np.deg2rad(observed.latitude))).mean() ** 0.5
    assert float(found["observed_spread"][0, 4]) == pytest.approx(float(fifth), rel=0.05)
    np.testing.assert_allclose(found["training_spread"], 1.0, atol=0.15)
    np.testing.assert_allclose(found["training_change"], np.sqrt(2 * 0.2), atol=0.08)


def test_missing_cells_have_no_part(observed, reference):
    """Land stays land: it is neither averaged nor taken for a blow-up."""
    land = np.ones(SHAPE, bool)
    land[2] = False
    masked = observed.where(xr.DataArray(land, dims=LATITUDE_LONGITUDE))
    own = fit_reference(
        masked, train=observed.time.values < observed.time.values[TRAIN], harmonics=1
    )
    simulation = simulated(observed, fresh()).where(xr.DataArray(land, dims=LATITUDE_LONGITUDE))
    found = judged(masked, own, {"jepa": [simulation]})
    assert found["alive"].min() == 4
    assert (abs(found["spread"] - 1) < 0.2).all()


LATITUDE_LONGITUDE = ("latitude", "longitude")


def test_nothing_is_refused(observed, reference):
    with pytest.raises(ValueError, match="got no simulation"):
        judged(observed, reference, {"jepa": []})


def test_amplitudes_need_all_months():
    month = np.arange(1, 13)
    cycle = xr.DataArray(5 + 3 * np.sin(2 * np.pi * month / 12), dims="month")
    assert float(annual_amplitude(cycle)) == pytest.approx(3.0)
    assert np.isnan(annual_amplitude(cycle.where(cycle["month"] != 4)))
