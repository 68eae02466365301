"""Anybody's forecasts are scored with nothing but the truth; baselines become such stores."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciwm.cli import main
from sciwm.data.open import open_dataset, open_forecast
from sciwm.skill import evaluate, fit_reference
from sciwm.testing import small_climate, small_months
from sciwm.verify import Asked, evaluate_forecasts, write_baselines


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Four years of a small climate, as a file; returns its path and the first year."""
    path = tmp_path_factory.mktemp("truth") / "truth.nc"
    ds = small_climate(years=4)
    ds.to_netcdf(path)
    return path, int(ds["time"].dt.year[0])


@pytest.fixture(scope="module")
def baselines(truth, tmp_path_factory):
    """All baselines as stores, for the last year."""
    path, year = truth
    out = tmp_path_factory.mktemp("baselines")
    periods = {"train": (f"{year}", f"{year + 1}"), "validation": (f"{year + 2}", f"{year + 2}")}
    init = (f"{year + 3}-01-05", f"{year + 3}-12-20", "5 days")
    return periods, write_baselines(
        str(path), init=init, lead_times=["1 day", "3 days"], out=str(out), **periods
    )


def test_baselines_scored_as_stores_equal_those_made_by_evaluate(truth, baselines, tmp_path):
    (path, _), (periods, stores) = truth, baselines
    assert [s.name for s in stores] == [
        "climatology.zarr",
        "persistence.zarr",
        "damped_persistence.zarr",
        "lim.zarr",
    ]
    written = {"out": str(tmp_path / "a.csv"), "report": str(tmp_path / "a.html")}
    skill = evaluate_forecasts(
        [str(s) for s in stores], truth=str(path), **written, asked=Asked(baselines=()), **periods
    )
    copy = open_forecast(str(stores[0]))
    observed = open_dataset(path)
    reference = fit_reference(observed, train=_mask(path, periods["train"]))
    direct = evaluate({"copy": copy}, observed, reference=reference, resamples=0)
    for method in ("climatology", "persistence"):
        ours = skill.value.loc[
            {"method": method, "metric": direct.metric.values, "channel": direct.channel.values}
        ]
        np.testing.assert_allclose(ours, direct.value.loc[{"method": method}], rtol=1e-5, atol=1e-5)
    table = pd.read_csv(tmp_path / "a.csv")
    assert set(table["method"]) == {"climatology", "persistence", "damped_persistence", "lim"}
    rmse = skill.value.sel(metric="rmse")
    assert (rmse.loc[{"method": "lim"}] < rmse.loc[{"method": "persistence"}]).all()
    assert (rmse.loc[{"method": "damped_persistence"}] < rmse.loc[{"method": "climatology"}]).all()


def test_stores_have_the_names_of_other_tools_after_one_rename(baselines):
    with xr.open_zarr(baselines[1][0]) as ds:
        assert ds["prediction_timedelta"].dtype.kind == "m"
        weatherbench = ds.rename(time="init_time", prediction_timedelta="lead_time")
        assert set(weatherbench["t850"].dims) == {"init_time", "lead_time", "latitude", "longitude"}
        climpred = ds.rename(time="init", prediction_timedelta="lead")
        assert climpred["init"].attrs["standard_name"] == "forecast_reference_time"
        assert climpred["lead"].attrs["standard_name"] == "forecast_period"
        assert climpred["t850"].dtype == np.float32


def test_the_loader_of_weatherbench_x_finds_what_it_selects(baselines):
    """What its `PredictionsFromXarray` does by default: open, rename, select by labels."""
    ds = xr.open_zarr(str(baselines[1][0]))
    assert "prediction_timedelta" in ds.coords  # how it tells a forecast from an analysis
    ds = ds.rename({"time": "init_time", "prediction_timedelta": "lead_time"})
    init_times = ds["init_time"].values[[3, 7]]
    chunk = ds.sel(init_time=init_times, lead_time=np.array([24, 72], "timedelta64[h]"))["t850"]
    assert chunk.sizes["init_time"] == chunk.sizes["lead_time"] == 2
    assert {"latitude", "longitude"} <= set(chunk.dims)
    np.testing.assert_array_equal(
        chunk.values, ds["t850"].isel(init_time=[3, 7], lead_time=[0, 1]).values
    )
    assert not {"valid_time", "forecast_reference_time"} & set(ds.coords)  # names it makes itself


def _mask(path, period):
    with xr.open_dataset(path) as ds:
        years = ds["time"].dt.year.values
    return (years >= int(period[0])) & (years <= int(period[1]))


def bare_stores(folder, *, kind, levels=True, members=0):
    """Stores in the WeatherBench 2 layout without attributes: a truth, a model off by +1 and −2."""
    rng = np.random.default_rng(0)
    time = np.datetime64("2020-01-01", "ns") + np.arange(60) * np.timedelta64(12, "h")
    coords = {
        "time": time,
        "level": [300, 500, 850],
        "latitude": np.linspace(-90, 90, 7),
        "longitude": np.arange(0, 360, 45.0),
    }
    field = rng.normal(250, 10, size=(60, 3, 7, 8)).astype("f4")
    lead = np.array([12, 24], "timedelta64[h]").astype("timedelta64[ns]")
    place = np.arange(0, 50, 2)
    values = np.stack([field[place + k][:, [1, 2], ::-1] for k in (1, 2)], axis=1)
    values[:, 0] += 1.0
    values[:, 1] -= 2.0
    dims = ["time", "prediction_timedelta", "level", "latitude", "longitude"]
    other = {
        "time": time[place],
        "prediction_timedelta": lead,
        "level": [500, 850],
        "latitude": coords["latitude"][::-1],
    }
    truth = xr.Dataset({"temperature": (tuple(coords), field)}, coords)
    theirs = xr.Dataset(
        {"temperature": (dims, values)}, {**other, "longitude": coords["longitude"]}
    )
    if members:  # spread evenly about the model: −1, 0, 1 for three
        offset = xr.DataArray(
            np.arange(members) - (members - 1) / 2, {"number": np.arange(members)}, "number"
        )
        theirs = (theirs + offset).astype("f4").transpose("time", "number", ...)
    if not levels:
        truth, theirs = (ds.sel(level=500, drop=True) for ds in (truth, theirs))
    paths = [folder / f"{name}.{kind}" for name in ("truth", "model")]
    for ds, path in zip((truth, theirs), paths, strict=True):
        assert not ds.attrs
        assert not any(v.attrs for v in ds.variables.values())
        ds.to_zarr(path, zarr_format=2) if kind == "zarr" else ds.to_netcdf(path)
    return [str(p) for p in paths]


@pytest.mark.filterwarnings("ignore:variable 'temperature' has no units")
@pytest.mark.parametrize("kind", ["zarr", "nc"])
@pytest.mark.parametrize("levels", [True, False])
def test_a_weatherbench_file_without_attributes_is_scored_without_configuration(
    kind, levels, tmp_path
):
    """A forecast on some of the truth's levels, latitude from north to south."""
    truth, model = bare_stores(tmp_path, kind=kind, levels=levels)
    command = [
        "evaluate",
        model,
        "--truth",
        truth,
        "--out",
        str(tmp_path / "s.csv"),
        "--report",
        str(tmp_path / "r.html"),
    ]
    assert main(command) == 0
    table = pd.read_csv(tmp_path / "s.csv")
    assert table["method"].unique().tolist() == ["model", "persistence"]
    assert table["num_init"].unique().tolist() == [25]
    assert table["level"].dropna().unique().tolist() == ([500, 850] if levels else [])
    ours = table[table["method"] == "model"].set_index(["metric", "lead_hours"])["value"]
    for metric, expected in (("rmse", [1, 2]), ("bias", [1, -2])):
        for lead, value in zip((12, 24), expected, strict=True):
            np.testing.assert_allclose(ours[metric, lead], value, rtol=1e-4)
    page = (tmp_path / "r.html").read_text()
    assert "Forecasts of model" in page
    assert "Not a fair test" not in page


@pytest.mark.filterwarnings("ignore:variable 'temperature' has no units")
@pytest.mark.parametrize("kind", ["zarr", "nc"])
def test_an_ensemble_without_attributes_is_scored_too(kind, tmp_path):
    """Members at −1, 0 and 1 about a model off by 1 and −2: fair CRPS and spread by hand."""
    truth, model = bare_stores(tmp_path, kind=kind, members=3)
    command = [
        "evaluate",
        model,
        "--truth",
        truth,
        "--out",
        str(tmp_path / "s.csv"),
        "--metrics",
        "rmse,crps,spread",
    ]
    assert main(command) == 0
    table = pd.read_csv(tmp_path / "s.csv").query("method == 'model' and level == 500")
    ours = table.set_index(["metric", "lead_hours"])["value"]
    pairs = (1 + 2 + 1) / 3 / 2  # half the mean distance of two members
    np.testing.assert_allclose([ours["rmse", 12], ours["rmse", 24]], [1, 2], rtol=1e-4)
    np.testing.assert_allclose(
        [ours["crps", 12], ours["crps", 24]],
        [(0 + 1 + 2) / 3 - pairs, (3 + 2 + 1) / 3 - pairs],
        atol=1e-3,
    )
    np.testing.assert_allclose([ours["spread", 12], ours["spread", 24]], 1.0, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:variable 'temperature' has no units")
def test_another_grid_is_refused_or_regridded_on_request_and_said(tmp_path, capsys):
    truth, model = bare_stores(tmp_path, kind="nc")
    finer = xr.open_dataset(model).interp(
        latitude=np.linspace(90, -90, 13)
    )  # every other row is the old one
    finer = xr.concat([finer, finer.isel(longitude=0).assign_coords(longitude=360.0)], "longitude")
    finer.interp(longitude=np.arange(0, 360, 22.5)).to_netcdf(tmp_path / "fine.nc")
    command = [
        "evaluate",
        str(tmp_path / "fine.nc"),
        "--truth",
        truth,
        "--out",
        str(tmp_path / "s.csv"),
    ]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert (
        "got 13 values of latitude in t of 'fine', expected 7 as observed; the first difference, at"
        " position 1: -75.0, observed -60.0" in error
    )
    assert "--regrid" in error
    assert main([*command, "--regrid", "--report", str(tmp_path / "r.html")]) == 0
    said = (
        "fine was brought from 13 × 16 points onto the 7 × 8 of the truth by bilinear interpolation"
        " (xarray-regrid"
    )
    assert said in " ".join(capsys.readouterr().out.split())
    assert said.replace("fine was", "Fine was") in (tmp_path / "r.html").read_text()
    ours = pd.read_csv(tmp_path / "s.csv").query("method == 'fine' and metric == 'rmse'")
    np.testing.assert_allclose(ours["value"], [1, 2, 1, 2], rtol=1e-4)
    assert main([*command, "--regrid", "conservative"]) == 0
    assert "by conservative remapping" in " ".join(capsys.readouterr().out.split())


@pytest.mark.filterwarnings("ignore:variable 'temperature' has no units")
def test_missing_valid_times_are_counted_and_told(tmp_path, capsys):
    truth, model = bare_stores(tmp_path, kind="nc")
    with xr.open_dataset(truth) as ds:
        short = ds.isel(time=slice(0, 46)).load()
    short.to_netcdf(tmp_path / "short.nc")
    command = [
        "evaluate",
        model,
        "--truth",
        str(tmp_path / "short.nc"),
        "--out",
        str(tmp_path / "s.csv"),
        "--report",
        str(tmp_path / "r.html"),
    ]
    assert main(command) == 0
    said = (
        "5 valid times are not observed (5 of 50 pairs of initial and lead time), the first"
        " 2020-01-24T00:00; the nearest that is observed is 2020-01-23T12:00"
    )
    out = " ".join(capsys.readouterr().out.split())
    assert said in out
    assert "3 initial times dropped" in out
    assert all(part in (tmp_path / "r.html").read_text() for part in said.split("; the")[:1])
    short.isel(time=[0, 1]).to_netcdf(tmp_path / "two.nc")
    assert main([*command[:3], str(tmp_path / "two.nc"), *command[4:]]) == 2
    error = capsys.readouterr().err
    assert "got no initial time between 2020-01-01" in error
    assert "the first 2020-01-02T00:00; the nearest that is observed is 2020-01-01T12:00" in error


def test_training_times_are_not_scored_unless_asked_for(truth, baselines, tmp_path):
    (path, year), (_, stores) = truth, baselines
    options = {
        "truth": str(path),
        "out": tmp_path / "s.csv",
        "train": (f"{year}", f"{year + 3}"),
        "asked": Asked(baselines=("climatology",)),
    }
    lim = [str(s) for s in stores if s.name == "lim.zarr"]
    with pytest.raises(
        ValueError,
        match=r"71 of 71 initial times have themselves or a valid time in the training block",
    ):
        evaluate_forecasts(lim, **options)
    assert not (tmp_path / "s.csv").exists()
    allowed = options | {"asked": replace(options["asked"], allow_leakage=True)}
    skill = evaluate_forecasts(lim, **allowed, report=tmp_path / "r.html")
    assert f"Not a fair test: {skill.attrs['leakage']}" in (tmp_path / "r.html").read_text()
    assert skill.attrs["leakage"].startswith("71 of 71 initial times")
    assert skill.attrs["leakage"] in skill.attrs["notices"]
    crossing = {**options, "train": (f"{year}-01-01", f"{year + 3}-01-08")}
    with pytest.raises(ValueError, match=r"1 of 71 initial times"):
        evaluate_forecasts(lim, **crossing)


@pytest.mark.parametrize(
    ("declared", "train", "validation", "reason"),
    [
        ({}, "{0}:{3}", None, "have themselves or a valid time in the training block"),
        (
            {"climatology_period": "{0}/{3}"},
            "{0}:{1}",
            None,
            "in the climatology_period that model declares",
        ),
        (
            {},
            "{0}-01-01:{2}-12-31",
            None,
            "begins less than the longest lead (3 days) after the training block",
        ),
        ({}, "{0}:{1}", "{2}:{3}", "in the validation block, on which choices were made"),
        (
            {"training_period": "{0} to {3}"},
            None,
            None,
            "in the training_period that model declares",
        ),
    ],
)
def test_leakage_on_the_terminal(declared, train, validation, reason, truth, tmp_path, capsys):
    """Five kinds, each refused with its reason, or marked in table and report."""
    path, year = truth
    years = [year + n for n in range(4)]
    ds = open_dataset(path)
    start = np.flatnonzero(ds["time"].values >= np.datetime64(f"{years[3]}-01-02"))[:40]
    lead = np.array([1, 3], "timedelta64[D]").astype("timedelta64[ns]")
    values = np.stack([ds["t850"].values[start + k] for k in (1, 3)], axis=1) + 0.5
    coords = {
        "init_time": ds["time"].values[start],
        "lead_time": lead,
        "latitude": ds["latitude"],
        "longitude": ds["longitude"],
    }
    model = xr.Dataset(
        {"t850": (("init_time", "lead_time", "latitude", "longitude"), values, {"units": "K"})},
        coords,
    )
    model.assign_attrs({k: v.format(*years) for k, v in declared.items()}).to_netcdf(
        tmp_path / "model.nc"
    )
    command = [
        "evaluate",
        str(tmp_path / "model.nc"),
        "--truth",
        str(path),
        "--out",
        str(tmp_path / "s.csv"),
        "--metrics",
        "rmse",
    ]
    command += [
        "--baselines",
        "climatology" if train else "persistence",
        "--report",
        str(tmp_path / "r.html"),
    ]
    for flag, text in (("--train", train), ("--validation", validation)):
        command += [flag, text.format(*years)] if text else []
    assert main(command) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "such scores are optimistic" in error
    assert "--allow-leakage" in error
    assert not (tmp_path / "s.csv").exists()
    assert main([*command, "--allow-leakage"]) == 0
    assert reason in " ".join(capsys.readouterr().out.split())
    assert (
        f"Not a fair test: {error.partition('of which ')[2].partition(', expected none')[0]}"
        in (tmp_path / "r.html").read_text()
    )


def test_stores_of_baselines_say_what_they_have_seen(truth, baselines, tmp_path):
    (path, year), (_, stores) = truth, baselines
    attrs = open_forecast(str(stores[0])).attrs
    assert attrs["training_period"] == f"{year}-01-01T00:00:00/{year + 1}-12-31T00:00:00"
    assert attrs["validation_period"] == f"{year + 2}-01-01T00:00:00/{year + 2}-12-31T00:00:00"
    init = (f"{year + 1}-12-01", f"{year + 1}-12-10", None)
    (late,) = write_baselines(
        str(path),
        train=(f"{year}", f"{year + 1}"),
        init=init,
        lead_times=["1 day"],
        out=tmp_path,
        methods=["persistence"],
    )
    with pytest.raises(ValueError, match=r"10 of 10 .* training_period that persistence declares"):
        evaluate_forecasts([str(late)], truth=str(path), out=tmp_path / "s.csv")


def test_cslim_is_a_baseline_of_monthly_data_on_the_terminal(tmp_path):
    ds = small_months(years=50)
    ds.to_netcdf(tmp_path / "months.nc")
    year = int(ds["time"].dt.year[0])
    train = ["--train", f"{year}:{year + 29}", "--validation", f"{year + 30}:{year + 39}"]
    command = [
        "baselines",
        str(tmp_path / "months.nc"),
        *train,
        "--init",
        f"{year + 41}-01:{year + 47}-12",
    ]
    assert (
        main(
            [
                *command,
                "--lead-times",
                "1 month, 3 months",
                "--methods",
                "cslim,lim",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    stores = [str(tmp_path / "cslim.zarr"), str(tmp_path / "lim.zarr")]
    table = tmp_path / "s.csv"
    assert (
        main(
            [
                "evaluate",
                *stores,
                "--truth",
                str(tmp_path / "months.nc"),
                *train,
                "--metrics",
                "nmse",
                "--out",
                str(table),
            ]
        )
        == 0
    )
    nmse = pd.read_csv(table).set_index(["method", "lead_months"])["value"]
    assert {"cslim", "lim", "damped_persistence"} <= set(nmse.index.get_level_values(0))
    assert nmse["cslim", 1] < nmse["climatology", 1]


def test_two_worker_processes_give_the_same_scores(truth, baselines, tmp_path):
    """Of fields, ensembles, events, baselines, with intervals and tests; and the same report."""
    (path, year), (_, stores) = truth, baselines
    lim = next(s for s in stores if s.name == "lim.zarr")
    offset = xr.DataArray([-1.0, 0.5, 2.0], dims="number")
    with xr.open_zarr(lim) as ds:
        one = ds.map(
            lambda v: (v + offset).astype("f4").assign_attrs(v.attrs) if "time" in v.dims else v
        )
        one.drop_encoding().to_zarr(tmp_path / "many.zarr", zarr_format=2, consolidated=True)
    tables, pages = [], []
    for name, more in (("threads", []), ("processes", ["--workers", "2"])):
        out = [str(tmp_path / f"{name}.{kind}") for kind in ("csv", "html")]
        more += [
            "--metrics",
            "rmse,acc,crps,energy_score,spread_skill,brier,roc_area,fss_3",
            "--events",
            "t850>275",
            "--report",
            out[1],
        ]
        stores = [str(lim), str(tmp_path / "many.zarr")]
        assert (
            main(
                [
                    "evaluate",
                    *stores,
                    "--truth",
                    str(path),
                    "--train",
                    f"{year}:{year + 1}",
                    "--out",
                    out[0],
                    *more,
                ]
            )
            == 0
        )
        tables.append((tmp_path / f"{name}.csv").read_bytes())
        pages.append(
            re.sub(
                r'<section id="provenance">.*?</section>',
                "",
                (tmp_path / f"{name}.html").read_text(),
                flags=re.DOTALL,
            )
        )
    assert tables[0] == tables[1]
    assert pages[0] == pages[1]
    assert "Rank histograms" in pages[0]
    table = pd.read_csv(tmp_path / "threads.csv")
    assert {"crps", "energy_score", "spread_skill", "brier", "roc_area", "fss_3"} <= set(
        table.dropna(subset=["value"])["metric"]
    )


def test_two_worker_processes_make_the_same_baselines(truth, baselines, tmp_path):
    (path, year), (_, stores) = truth, baselines
    command = [
        "baselines",
        str(path),
        "--train",
        f"{year}:{year + 1}",
        "--validation",
        f"{year + 2}:{year + 2}",
    ]
    command += [
        "--init",
        f"{year + 3}-01-05:{year + 3}-12-20:5 days",
        "--lead-times",
        "1 day, 3 days",
    ]
    assert main([*command, "--out", str(tmp_path), "--workers", "2"]) == 0
    for store in stores:
        with xr.open_zarr(store) as one, xr.open_zarr(tmp_path / store.name) as other:
            xr.testing.assert_equal(one.load(), other.load())


def test_events_land_and_ocean_on_the_terminal(truth, baselines, tmp_path, capsys):
    (path, year), (_, stores) = truth, baselines
    with xr.open_dataset(path) as ds:
        grid = {d: ds[d] for d in ("latitude", "longitude")}
    share = np.zeros([len(v) for v in grid.values()])
    share[:, : share.shape[1] // 2] = 1.0
    xr.Dataset({"land_sea_mask": (tuple(grid), share, {"units": "1"})}, grid).isel(
        latitude=slice(None, None, -1)
    ).to_netcdf(tmp_path / "mask.nc")
    command = [
        "evaluate",
        str(stores[3]),
        "--truth",
        str(path),
        "--train",
        f"{year}:{year + 1}",
        "--out",
        str(tmp_path / "s.csv"),
    ]
    command += ["--events", "t850>275; t850<=270", "--regions", "all;land;ocean"]
    assert main(command) == 2
    assert "got region 'land' without a land–sea mask" in capsys.readouterr().err
    assert (
        main([*command, "--mask", str(tmp_path / "mask.nc"), "--report", str(tmp_path / "r.html")])
        == 0
    )
    assert "t850>275, brier" in capsys.readouterr().out
    page = (tmp_path / "r.html").read_text()
    assert "Brier score" in page
    assert "Area under the ROC curve" in page
    rows = pd.read_csv(tmp_path / "s.csv").query(
        "method == 'lim' and lead_hours == 24 and variable == 't850'"
    )
    assert set(rows.loc[rows["metric"] == "brier", "event"]) == {">275", "<=270"}
    observed = open_dataset(path)
    forecast = open_forecast(str(stores[3])).isel(lead_time=[0])
    at_valid = (
        observed["t850"]
        .sel(time=(forecast["init_time"] + forecast["lead_time"].values[0]).values)
        .values
    )
    missed = (forecast["t850"].isel(lead_time=0).values > 275) != (at_valid > 275)
    area = np.cos(np.deg2rad(observed["latitude"].values))[:, None] * share
    brier = rows.query("metric == 'brier' and event == '>275' and region == 'land'")["value"].item()
    assert brier == pytest.approx((missed * area).sum() / area.sum() / len(missed))
    xr.Dataset({"t": (("latitude", "longitude"), share, {"units": "K"})}, grid).to_netcdf(
        tmp_path / "no.nc"
    )
    assert main([*command, "--mask", str(tmp_path / "no.nc")]) == 2
    assert "expected lsm, land_sea_mask or sftlf among them" in capsys.readouterr().err


def test_refusals(truth, baselines, tmp_path):
    (path, year), (periods, stores) = truth, baselines
    with pytest.raises(ValueError, match=r"ends in \.csv"):
        evaluate_forecasts([str(stores[0])], truth=str(path), out=tmp_path / "s.txt")
    with pytest.raises(ValueError, match="--validation without --train"):
        evaluate_forecasts(
            [str(stores[0])], truth=str(path), out=tmp_path / "s.csv", validation=("2000", "2001")
        )
    with pytest.raises(ValueError, match="expected distinct names"):
        evaluate_forecasts([str(stores[0])] * 2, truth=str(path), out=tmp_path / "s.csv")
    options = {"init": (f"{year + 3}", f"{year + 3}", None), "lead_times": ["1 day"], **periods}
    with pytest.raises(ValueError, match=r"got methods \['arima'\]"):
        write_baselines(str(path), out=tmp_path, methods=["arima"], **options)
    with pytest.raises(ValueError, match="no initial time between 1800 and 1801"):
        write_baselines(str(path), out=tmp_path, **{**options, "init": ("1800", "1801", None)})
    with pytest.raises(FileExistsError, match=r"lim\.zarr, which exists already"):
        write_baselines(str(path), out=stores[0].parent, methods=["lim"], **options)


def test_verification_needs_no_torch():
    code = "import sys, sciwm.verify, sciwm.skill.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
