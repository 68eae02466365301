"""Forecasts beside the truth: which cases, which pictures, which numbers."""

import json
import re

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from reports import decoded, grid_forecast, molecule_forecast

from sciwm.report import cases
from sciwm.report.cases import case_section, pick_cases
from sciwm.report.fields import match_fields, typical_case
from sciwm.report.pixels import diverging_scale, field_scale


def frames_of(html):
    data = json.loads(re.search(r'id="case-browser-data">(.*?)</script>', html, re.DOTALL)[1])
    return data["images"], data["frames"]


def options(html, number):
    select = re.search(rf'<select id="case-browser-{number}".*?</select>', html, re.DOTALL)[0]
    return re.findall(r"<option[^>]*>([^<]*)<", select)


def test_a_dozen_initial_times_meet_all_seasons():
    days = pd.date_range("2001-01-01", "2016-12-31", freq="D").values
    picked = pick_cases(days, np.arange(len(days)))
    assert 12 <= len(picked) <= 16
    assert set((days[picked].astype("M8[M]").astype(int) % 12) // 3) == {0, 1, 2, 3}
    # sixteen new years' days a year apart would be one season: another number is taken
    yearly = pd.date_range("2001-01-01", periods=15 * 365 + 1, freq="D").values
    sixteen = yearly[np.linspace(0, 15 * 365, 16).round().astype(int)]
    assert len(set(pd.DatetimeIndex(sixteen).month)) <= 2
    picked = pick_cases(yearly, np.arange(len(yearly)))
    assert len(picked) < 16
    assert set((yearly[picked].astype("M8[M]").astype(int) % 12) // 3) == {0, 1, 2, 3}
    noleap = np.array([cftime.DatetimeNoLeap(2000, 1 + m % 12, 1) for m in range(24)])
    assert len(pick_cases(noleap, np.arange(24))) == 16


def test_the_typical_case_is_among_them_and_unusable_ones_are_not():
    picked = pick_cases(np.arange(100.0), np.arange(20, 90, 3), typical=23)
    assert 23 in picked
    assert set(picked) <= set(range(20, 90, 3))
    assert pick_cases(np.arange(5.0), np.array([1, 3])) == [1, 3]


def test_pictures_and_errors_are_those_of_the_fields():
    forecast, observed = grid_forecast()
    html = case_section(forecast[["u850"]], observed, method="JEPA")
    images, frames = frames_of(html)
    stamps = options(html, 1)
    field = match_fields(forecast[["u850"]], observed)[0][0]
    typical = pd.Timestamp(forecast["init_time"].values[typical_case(field)])
    opened = re.search(r'id="case-browser-1".*?selected>([^<]*)</option>', html, re.DOTALL)[1]
    assert opened == typical.strftime("%Y-%m-%d %H:%M")
    assert f"opens with {opened}" in html
    assert options(html, 2) == ["1 day", "2 days", "3 days", "5 days"]
    init = forecast["init_time"].values
    picked = [int(np.flatnonzero(init == np.datetime64(s))[0]) for s in stamps]
    leads = np.array([1, 2, 3, 5])
    f = forecast["u850"].values[picked]
    o = observed["u850"].values[np.array(picked)[:, None] + leads]
    scale = field_scale(np.stack([f, o]).astype("float32"))
    error = diverging_scale((f - o).astype("float32"))
    weight = np.cos(np.deg2rad(observed["latitude"].values))
    for c, k in ((0, 0), (5, 3), (len(picked) - 1, 2)):
        text, bars, *panels = frames[f"0,{c},{k}"]
        assert bars == 0
        pictures = zip(panels, (f, o, f - o), (scale, scale, error), strict=True)
        for (image, _), values, colors in pictures:
            expected = colors.colors[colors.indices(values[c, k].astype("float32"))][::-1]
            np.testing.assert_array_equal(decoded(images[image])[..., :3], expected)
        rmse = np.sqrt(np.average(((f - o)[c, k] ** 2).mean(axis=1), weights=weight))
        assert panels[2][1] == f"Difference, RMSE {rmse:.3g} m s⁻¹"
        valid = pd.Timestamp(stamps[c]) + pd.Timedelta(days=int(leads[k]))
        assert panels[1][1] == f"Truth, {valid:%Y-%m-%d %H:%M}"
        assert stamps[c] in text
    assert len(frames) == len(picked) * 4


def test_a_page_stays_small_however_large_the_forecast(monkeypatch):
    forecast, observed = grid_forecast()
    monkeypatch.setattr(cases, "_MOST_PIXELS", 30_000)
    images, _ = frames_of(case_section(forecast, observed))
    assert sum(decoded(i)[..., 0].size for i in images) < 45_000


def test_further_fields_and_missing_truth_are_said():
    forecast, observed = grid_forecast()
    assert "no maps are drawn" in case_section(forecast, observed.isel(time=slice(0, 2)))
    many = xr.merge([forecast["z500"].rename(f"x{i}") for i in range(6)])
    truth = xr.merge([observed["z500"].rename(f"x{i}") for i in range(6)])
    html = case_section(many.isel(init_time=slice(0, 2)), truth)
    assert "2 further field(s)" in html
    assert options(html, 0) == ["x0", "x1", "x2", "x3"]


def test_land_is_transparent_and_monthly_cases_name_months():
    time = pd.date_range("1999-11-16", periods=4, freq="31D").values
    field = np.random.default_rng(0).standard_normal((4, 3, 2))
    field[:, 0, 0] = np.nan
    coords = {"time": time, "latitude": [-5.0, 0.0, 5.0], "longitude": [200.0, 210.0]}
    observed = xr.Dataset({"ssta": (("time", "latitude", "longitude"), field)}, coords)
    forecast = observed.isel(time=[0, 1]).rename(time="init_time")
    forecast = forecast.expand_dims(lead_time=[1, 2], axis=1)
    forecast["lead_time"].attrs["units"] = "months"
    html = case_section(forecast, observed)
    images, frames = frames_of(html)
    assert frames["0,0,0"][2][1] == "Forecast, 1 month"
    assert frames["0,0,0"][3][1] == "Truth, 1999-12"
    assert options(html, 1) == ["1999-11", "1999-12"]
    assert decoded(images[frames["0,0,0"][4][0]])[-1, 0, 3] == 0


def test_molecules_are_series_and_ambiguous_times_are_said():
    forecast, observed = molecule_forecast()
    html = case_section(forecast, observed)
    assert html.count("Series of") == 2
    assert "case-browser" not in html
    html = case_section(forecast, xr.concat([observed, observed], dim="time"))
    assert html.startswith("<p>No forecast is drawn: got observed times that repeat")
