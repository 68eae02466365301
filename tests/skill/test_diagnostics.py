"""Maps of error, spectra and rank histograms: against plain numpy, in blocks, through a file."""

import numpy as np
import pytest
import scores
import xarray as xr
from truths import DAY, days, forecast_of, grid

from sciwm.skill.baselines.simple import fit_reference
from sciwm.skill.diagnostics import diagnose, write_diagnostics
from sciwm.skill.lineup import line_up

INIT, LEADS = np.arange(200, 260, 2), (1, 2, 3, 5, 8, 13)


def globe(count=300, *, rows=6, columns=8, name="t850", seed=0):
    values = np.random.default_rng(seed).normal(280, 5, (count, rows, columns))
    axes = {"latitude": np.linspace(-75, 75, rows), "longitude": np.arange(columns) * 360 / columns}
    return grid(values, time=days(count), name=name, **axes)


def ensemble_of(truth, members=5, *, noise=2.0):
    one = forecast_of(truth, INIT, LEADS, noise=noise)
    values = np.random.default_rng(3).normal(0, noise, (members, *one["t850"].shape))
    jitter = xr.DataArray(values, dims=("number", *one["t850"].dims))
    dims = ("init_time", "lead_time", "number", "latitude", "longitude")
    return xr.Dataset(
        {n: (v + jitter).transpose(*dims).assign_attrs(v.attrs) for n, v in one.data_vars.items()}
    )


def at_valid(truth, leads):
    return truth.values[INIT[:, None] + np.array(leads)]


def test_maps_equal_plain_numpy_for_stores_ensembles_and_baselines():
    truth = globe()
    model, ensemble = forecast_of(truth, INIT, LEADS), ensemble_of(truth)
    train = slice(truth.time.values[0], truth.time.values[150])
    reference = fit_reference(truth, train=train, climatology="constant")
    stores, baselines = {"model": model, "members": ensemble}, ["climatology", "persistence"]
    found = diagnose(line_up(stores, truth, reference=reference, baselines=baselines))
    shown = [1, 3, 5, 13]
    assert found["method"].values.tolist() == ["model", "members", "climatology", "persistence"]
    np.testing.assert_array_equal(found["lead_time"].values, np.array(shown) * DAY)
    observed = at_valid(truth["t850"], shown)
    picked = [LEADS.index(v) for v in shown]
    forecasts = {
        "model": model["t850"].values[:, picked],
        "members": ensemble["t850"].values[:, picked].mean(axis=2),
        "climatology": np.broadcast_to(truth["t850"].values[:151].mean(axis=0), observed.shape),
        "persistence": np.broadcast_to(truth["t850"].values[INIT][:, None], observed.shape),
    }
    for name, forecast in forecasts.items():
        one, error = found.loc[{"method": name, "channel": "t850"}], forecast - observed
        np.testing.assert_allclose(one["rmse"], np.sqrt((error**2).mean(axis=0)), rtol=1e-6)
        np.testing.assert_allclose(one["bias"], error.mean(axis=0), atol=1e-5)
    assert found.attrs["num_init"] == len(INIT)
    assert found["units"].values.tolist() == ["K"]


def test_spectra_are_means_over_times_and_members():
    truth = globe()
    ensemble = ensemble_of(truth)
    found = diagnose(line_up({"members": ensemble}, truth, baselines=[]), most_leads=2)
    weight = np.cos(np.deg2rad(truth["latitude"].values))

    def power(values):  # (..., latitude, longitude)
        amplitude = np.abs(np.fft.rfft(values, axis=-1) / values.shape[-1]) ** 2
        amplitude[..., 1:-1] *= 2
        return np.average(amplitude, axis=-2, weights=weight)

    picked = [0, 5]
    members = power(ensemble["t850"].values[:, picked]).mean(axis=(0, 2))
    np.testing.assert_allclose(found["spectrum"].isel(method=0, channel=0), members)
    observed = power(at_valid(truth["t850"], (1, 13))).mean(axis=0)
    np.testing.assert_allclose(found["observed_spectrum"].isel(channel=0), observed)


def test_rank_histograms_equal_those_of_scores():
    truth = globe()
    ensemble = ensemble_of(truth, noise=3.0)
    model = forecast_of(truth, INIT, LEADS)
    lineup = line_up({"model": model, "members": ensemble}, truth, baselines=[])
    found = diagnose(lineup, most_leads=6)
    observed = model["t850"].copy(data=at_valid(truth["t850"], LEADS))
    weight = np.cos(np.deg2rad(truth["latitude"]))
    per_cell = scores.probability.rank_histogram(
        ensemble["t850"], observed, "number", preserve_dims=["lead_time", "latitude"]
    )
    expected = per_cell.weighted(weight).mean("latitude") * 6
    frequency = found["rank_frequency"]
    members = frequency.loc[{"method": "members"}].isel(channel=0)
    np.testing.assert_allclose(members, expected.transpose("lead_time", ...))
    assert np.isnan(frequency.loc[{"method": "model"}]).all()


def test_blocks_add_up_to_the_whole(monkeypatch):
    truth = globe().assign(z500=globe(name="z500", seed=1)["z500"])
    forecasts = {"model": forecast_of(truth, INIT, LEADS), "members": ensemble_of(truth)}
    lineup = line_up(forecasts, truth, baselines=["persistence"])
    whole = diagnose(lineup)
    monkeypatch.setattr("sciwm.skill.lineup._BLOCK", 20_000)
    assert len(list(lineup.blocks())) > 5
    xr.testing.assert_allclose(diagnose(lineup), whole, rtol=1e-9)
    lazy = {k: v.chunk(init_time=7) for k, v in forecasts.items()}
    chunked = line_up(lazy, truth.chunk(time=50), baselines=["persistence"])
    xr.testing.assert_allclose(diagnose(chunked), whole, rtol=1e-9)


def test_fine_grids_are_averaged_in_boxes():
    truth = globe(rows=7, columns=9)
    model = forecast_of(truth, INIT, LEADS)
    found = diagnose(line_up(model, truth, baselines=[]), most_cells=20, most_leads=6)
    assert found.attrs["cells_per_box"] == 2
    assert found["rmse"].shape[-2:] == (4, 5)
    square = (model["t850"].values - at_valid(truth["t850"], LEADS)) ** 2
    rmse = found["rmse"][0, 0]
    np.testing.assert_allclose(rmse[:, 0, 0], np.sqrt(square[:, :, :2, :2].mean(axis=(0, 2, 3))))
    np.testing.assert_allclose(rmse[:, -1, -1], np.sqrt(square[:, :, 6, 8].mean(axis=0)))
    pairs = truth["latitude"].values[:6].reshape(3, 2)
    np.testing.assert_allclose(found["latitude"], [*pairs.mean(axis=1), 75.0])


def test_missing_values_leave_a_hole_and_no_spectrum():
    truth = globe()
    truth["t850"].values[:, 0, 0] = np.nan  # land
    truth["t850"].values[INIT[0] + 1, 2, 2] = np.nan  # one day
    model = forecast_of(globe(), INIT, LEADS)
    model["t850"].values[3, 0, 4, 4] = np.nan  # lost
    found = diagnose(line_up(model, truth, baselines=[]))
    rmse = found["rmse"].isel(method=0, channel=0, lead_time=0)
    assert np.isnan(rmse[0, 0])
    assert np.isnan(rmse[4, 4])
    assert np.isfinite(rmse).sum() == rmse.size - 2
    square = (model["t850"].values[1:, 0, 2, 2] - truth["t850"].values[INIT[1:] + 1, 2, 2]) ** 2
    assert float(rmse[2, 2]) == pytest.approx(np.sqrt(square.mean()))
    assert np.isnan(found["observed_spectrum"]).all()


def test_regional_grids_have_no_spectra_and_series_no_maps():
    truth = grid(np.random.default_rng(0).normal(size=(300, 3, 4)), time=days(300))
    found = diagnose(line_up(forecast_of(truth, INIT, LEADS), truth, baselines=[]))
    assert set(found.data_vars) == {"rmse", "bias"}
    index = xr.Dataset({"nino34": ("time", np.arange(300.0))}, {"time": days(300)})
    assert not diagnose(line_up(forecast_of(index, INIT, LEADS), index, baselines=[])).data_vars


def test_levels_become_channels_beside_a_series():
    values = np.random.default_rng(0).normal(size=(300, 2, 3, 4))
    coords = {
        "time": days(300),
        "level": [500.0, 850.0],
        "latitude": [-40.0, 0.0, 40.0],
        "longitude": np.arange(4) * 90.0,
    }
    index = ("time", np.arange(300.0), {"units": "1"})
    truth = xr.Dataset({"t": (tuple(coords), values, {"units": "K"}), "index": index}, coords)
    found = diagnose(line_up(forecast_of(truth, INIT, LEADS), truth, baselines=[]))
    assert found["channel"].values.tolist() == ["t_500", "t_850"]
    assert found["rmse"].shape == (1, 2, 4, 3, 4)


def test_what_is_written_is_read_back(tmp_path):
    truth = globe()
    found = diagnose(line_up({"members": ensemble_of(truth)}, truth, baselines=["persistence"]))
    write_diagnostics(found, tmp_path / "diagnostics.nc")
    with xr.open_dataset(tmp_path / "diagnostics.nc") as back:
        xr.testing.assert_allclose(back, found, rtol=1e-6)
        assert back.attrs == found.attrs
    assert [p.name for p in tmp_path.iterdir()] == ["diagnostics.nc"]
