"""Analogs against a search by hand, and on systems of which it is known how well they do."""

import numpy as np
import pytest
import xarray as xr
from truths import days

from sciwm.skill import evaluate
from sciwm.skill.baselines.analogs import analog_forecast, fit_analogs
from sciwm.skill.baselines.matrix import fit_layout
from sciwm.skill.baselines.simple import climatology_forecast, fit_reference
from sciwm.testing import small_climate

DAY = np.timedelta64(24, "h").astype("timedelta64[ns]")


@pytest.fixture(scope="module")
def climate():
    """Five years of a small climate: three for the reference, one to choose with, one to start."""
    ds = small_climate(years=5).load()
    years = [str(int(ds["time"].dt.year[0]) + n) for n in range(5)]
    blocks = {"train": slice(years[0], years[2]), "validation": slice(years[3], years[3])}
    reference = fit_reference(ds, **blocks)
    init = ds["time"].sel(time=slice(f"{years[4]}-01-05", f"{years[4]}-12-20")).values[::7]
    return ds, reference, init


def test_analogs_agree_with_a_search_by_hand(climate):
    ds, reference, init = climate
    analogs = fit_analogs(reference, np.array([1, 3]) * DAY, eofs=[4], neighbours=[6])
    assert analogs.eofs == (4, 4)
    assert analogs.neighbours == (6, 6)
    made = analog_forecast(analogs, reference, ds, init)
    layout, rows = fit_layout(reference.anomaly)
    patterns = np.linalg.svd(rows, full_matrices=False)[2][:4]
    train = reference.anomaly["time"].values
    of_year = (train - train.astype("M8[Y]").astype("M8[ns]")) / DAY
    normal = climatology_forecast(reference, ds, init, np.array([1, 3]) * DAY)
    for i in (0, 20, 40):
        cycle = reference.climatology.at(ds["time"].sel(time=[init[i]])).isel(time=0)
        state = ds.sel(time=init[i]) - cycle
        cells = np.concatenate([state[n].values.ravel() for n in layout.template.data_vars])
        z = cells[layout.keep] * layout.factor
        day = (init[i] - init[i].astype("M8[Y]").astype("M8[ns]")) / DAY
        gap = np.abs(of_year - day)
        for k, lead in enumerate((1, 3)):
            followed = np.arange(len(train)) < len(train) - lead
            allowed = (np.minimum(gap, 365.25 - gap) < 44.5) & followed
            far = ((rows - z) @ patterns.T) ** 2
            nearest = np.argsort(np.where(allowed, far.sum(axis=1), np.inf))[:6]
            expected = reference.anomaly["t850"].values[nearest + lead].mean(axis=0)
            got = (made["t850"] - normal["t850"]).isel(init_time=i, lead_time=k)
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-5)


def test_a_recurrent_world_is_forecast_by_one_analog():
    angle = 2 * np.pi * np.arange(900) / 15.0
    rows = np.stack([np.cos(angle), np.sin(angle), np.cos(2 * angle)], axis=1)
    field = rows[:, :, None] * np.ones(2)
    space = {"latitude": [-10.0, 0.0, 10.0], "longitude": [0.0, 10.0]}
    ds = xr.Dataset(
        {"x": (("time", "latitude", "longitude"), field, {"units": "K"})},
        {"time": days(900), **space},
    )
    reference = fit_reference(
        ds,
        train=slice(ds.time[0], ds.time[599]),
        validation=slice(ds.time[610], ds.time[750]),
        climatology="constant",
    )
    init, leads = ds.time[780:850].values, np.array([5, 20]) * DAY
    skill = evaluate(
        {"zero": climatology_forecast(reference, ds, init, leads)},
        ds,
        reference=reference,
        baselines=["analogs"],
        metrics=["rmse"],
        resamples=0,
    )
    assert (skill.value.loc[{"method": "analogs"}] < 0.02).all()
    assert (skill.value.loc[{"method": "zero"}] > 0.6).all()


def test_analogs_beat_climatology_and_choose_more_neighbours_for_longer_leads(climate):
    ds, reference, init = climate
    leads = np.array([1, 8]) * DAY
    analogs = fit_analogs(reference, leads)
    assert analogs.neighbours[1] >= analogs.neighbours[0]
    assert all(0 < e < 1.05 for e in analogs.validation_nmse)
    forecast = analog_forecast(analogs, reference, ds, init)
    skill = evaluate(
        {"analogs": forecast},
        ds,
        reference=reference,
        baselines=["climatology"],
        metrics=["rmse"],
        resamples=0,
    )
    rmse = skill.value.isel(lead_time=0)
    assert (rmse.loc[{"method": "analogs"}] < rmse.loc[{"method": "climatology"}]).all()


def test_blocks_do_not_matter_and_nothing_is_computed_early(climate, monkeypatch):
    ds, reference, init = climate
    analogs = fit_analogs(reference, np.array([1]) * DAY, eofs=[5], neighbours=[10])
    whole = analog_forecast(analogs, reference, ds, init)
    monkeypatch.setattr("sciwm.skill.baselines.matrix._BLOCK", 3000)
    cut = analog_forecast(analogs, reference, ds, init)
    assert len(cut["t850"].chunks[0]) > 1
    xr.testing.assert_allclose(whole, cut)


def test_choice_without_a_validation_block_and_what_is_refused(climate):
    ds, reference, _ = climate
    first = int(ds["time"].dt.year[0])
    alone = fit_reference(ds, train=slice(f"{first}", f"{first + 2}"))
    analogs = fit_analogs(alone, np.array([1]) * DAY, eofs=[5], neighbours=[5, 10_000])
    assert len(analogs.rows) == alone.anomaly.sizes["time"]
    with pytest.raises(ValueError, match="training pairs 4000 steps apart"):
        fit_analogs(reference, np.array([4000]) * DAY)
    with pytest.raises(ValueError, match="validation block without times 400 steps apart"):
        fit_analogs(reference, np.array([400]) * DAY)
    with pytest.warns(UserWarning, match="each is its own best analog"):
        analog_forecast(analogs, alone, ds, alone.anomaly["time"].values[5:8])
