"""Forecast stores of ours and of others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from stores import days, field, molecule

from sciwm.data.open import fingerprint, open_dataset, open_forecast, to_original

LEADS = [24, 48]


def _forecast(lead: Any = None, **attrs: str) -> xr.Dataset:
    dims = ("prediction_timedelta", "level", "time", "longitude", "number", "latitude")
    lead = np.array(LEADS, "timedelta64[h]").astype("timedelta64[ns]") if lead is None else lead
    coords = {
        "prediction_timedelta": ("prediction_timedelta", lead, attrs),
        "level": [500, 850],
        "time": days(3),
        "longitude": [0.0, 10.0, 350.0],
        "number": [0, 1],
        "latitude": [60.0, 30.0],
    }
    array = (dims, field(0, (2, 2, 3, 3, 2, 2)), {"units": "m**2 s**-2"})
    return xr.Dataset({"geopotential": array}, coords)


@pytest.mark.parametrize("form", ["zarr", "nc", "memory"])
def test_weatherbench_layout(form: str, tmp_path: Path) -> None:
    source = _forecast()
    store: Any = tmp_path / f"forecast.{form}"
    if form == "zarr":
        source.to_zarr(store, zarr_format=3, consolidated=False)
    elif form == "nc":
        source.to_netcdf(store)
    else:
        store = source
    ds = open_forecast(store)
    assert ds["z"].dims == ("init_time", "lead_time", "number", "level", "latitude", "longitude")
    assert ds["lead_time"].dtype == "timedelta64[ns]"
    assert (ds["lead_time"].values / np.timedelta64(1, "h")).tolist() == LEADS
    assert ds["init_time"].dtype == "datetime64[ns]"
    assert ds["longitude"].values.tolist() == [-10.0, 0.0, 10.0]
    order = ("time", "prediction_timedelta", "number", "level", "latitude", "longitude")
    expected = source["geopotential"].transpose(*order)
    np.testing.assert_array_equal(ds["z"].values, expected.values[..., ::-1, :][..., [2, 0, 1]])
    assert ds["z"].chunks is not None
    back = to_original(ds)
    restored = back["geopotential"]
    xr.testing.assert_allclose(restored, source["geopotential"].transpose(*restored.dims))
    again = open_forecast(back)
    xr.testing.assert_equal(again, ds)
    assert fingerprint(again) == fingerprint(ds)
    back.to_netcdf(tmp_path / "back.nc")
    xr.testing.assert_equal(open_forecast(tmp_path / "back.nc"), ds)


@pytest.mark.parametrize(
    ("values", "units", "expected"),
    [
        ([24, 48], "hours", np.array(LEADS, "timedelta64[h]")),
        ([1.0, 2.0], "days", np.array(LEADS, "timedelta64[h]")),
        ([86400, 172800], "seconds", np.array(LEADS, "timedelta64[h]")),
        ([86400 * 10**9, 172800 * 10**9], "nanoseconds", np.array(LEADS, "timedelta64[h]")),
        ([48, 24], "hours", np.array([24, 48], "timedelta64[h]")),
        ([1, 2], "months", np.array([1, 2])),
        ([1.0, 10.0], "ps", np.array([1.0, 10.0])),
        ([1000.0, 2000.0], "fs", np.array([1.0, 2.0])),
    ],
)
def test_lead_times_in_every_unit(values: list[float], units: str, expected: np.ndarray) -> None:
    ds = open_forecast(_forecast(np.asarray(values), units=units))
    np.testing.assert_array_equal(ds["lead_time"].values, expected)
    if expected.dtype.kind != "m":
        assert ds["lead_time"].attrs["units"] in ("months", "ps")
    back = to_original(ds)["prediction_timedelta"]
    if expected.dtype.kind != "m":
        np.testing.assert_allclose(back, values)
        assert back.attrs["units"] == units


def test_ours_index_component_and_molecule() -> None:
    lead = ("lead_time", np.array([1.0, 5.0]), {"units": "ps"})
    init = ("init_time", np.arange(4.0), {"units": "ps"})
    source = xr.Dataset(
        {
            "state": (("component", "lead_time", "init_time"), field(0, (3, 2, 4)), {"units": "1"}),
            "phi": (("init_time", "lead_time"), field(1, (4, 2))),
        },
        {"lead_time": lead, "init_time": init, "component": ["a", "b", "c"]},
    )
    ds = open_forecast(source)
    assert ds["state"].dims == ("init_time", "lead_time", "component")
    assert ds["component"].values.tolist() == ["a", "b", "c"]
    assert ds["phi"].dims == ("init_time", "lead_time")
    assert (ds["init_time"].attrs["units"], ds["lead_time"].attrs["units"]) == ("ps", "ps")
    truth = open_dataset(molecule(units="angstrom"))
    forecast = truth.drop_vars(["segment", "mass"]).rename(time="init_time")
    forecast = forecast.expand_dims(lead_time=lead[1])
    forecast["lead_time"].attrs["units"] = "ps"
    stored = to_original(forecast)
    assert stored["positions"].attrs["units"] == "angstrom"
    opened = open_forecast(stored)
    assert opened["positions"].dims == ("init_time", "lead_time", "atom", "xyz")
    np.testing.assert_allclose(opened["positions"][:, 0], truth["positions"], rtol=1e-5)
    np.testing.assert_allclose(opened["phi"][:, 1], truth["phi"])


def test_monthly_index_with_cftime() -> None:
    init = xr.date_range("2000-01-01", periods=6, freq="MS", calendar="noleap", use_cftime=True)
    source = xr.Dataset(
        {"nino34": (("time", "prediction_timedelta"), field(0, (6, 2)))},
        {"time": init, "prediction_timedelta": [1, 2]},
    )
    source["prediction_timedelta"].attrs["units"] = "months"
    ds = open_forecast(source)
    assert ds["nino34"].dims == ("init_time", "lead_time")
    assert ds["init_time"].values[0].calendar == "noleap"


def test_what_is_wrong_with_a_forecast_store_is_said() -> None:
    with pytest.raises(ValueError, match=r"plain numbers in units ''.*\"hours\""):
        open_forecast(_forecast(np.array([1, 2])))
    with pytest.raises(ValueError, match="expected also lead times"):
        open_forecast(_forecast().isel(prediction_timedelta=0))
    with pytest.raises(ValueError, match="'prediction_timedelta' without values"):
        open_forecast(_forecast().drop_vars("prediction_timedelta"))
    with pytest.raises(ValueError, match=r"init_time 2001-01-01.* more than once"):
        open_forecast(_forecast().isel(time=[0, 0, 1]))
    with pytest.raises(ValueError, match="2 pieces"):
        open_forecast([_forecast(), _forecast()])
    with pytest.raises(ValueError, match=r"forecast store.*open_forecast"):
        open_dataset(_forecast())


def test_truth_and_forecast_agree_after_a_trip_through_the_store() -> None:
    longitude = np.mod(np.arange(-20.0, 15.0, 1.1), 360)
    source = xr.Dataset(
        {"z": (("time", "lat", "lon"), field(0, (5, 3, len(longitude))), {"units": "m2 s-2"})},
        {"time": days(5), "lat": [60.0, 45.0, 30.0], "lon": longitude},
    )
    truth = open_dataset(source)
    lead = np.array([24], "timedelta64[h]").astype("m8[ns]")
    forecast = truth.drop_vars("segment").rename(time="init_time").expand_dims(lead_time=lead)
    opened = open_forecast(to_original(forecast))
    xr.testing.assert_equal(opened["longitude"], truth["longitude"])
    np.testing.assert_array_equal(opened["z"][:, 0], truth["z"])
