"""Five ways in which scored times were seen before: each is refused with its reason, or marked."""

import dataclasses

import cftime
import numpy as np
import pytest
import xarray as xr
from truths import DAY, days, forecast_of, weather
from truths import scored as evaluate

from sciwm.climatology import Climatology, fit_climatology
from sciwm.skill import fit_reference
from sciwm.skill.leakage import check_leakage, declared_periods, find_leaks

OPTIONS = {"baselines": ("climatology",), "metrics": ("rmse",), "resamples": 0}


@pytest.fixture(scope="module")
def observed():
    return weather(1500)  # 2000-01-01 to 2004-02-08


@pytest.fixture(scope="module")
def reference(observed):
    return fit_reference(observed, train=slice("2000", "2001"), validation=slice("2002", "2002"))


def scored(observed, first, count=30, leads=(1, 3)):
    """Forecasts of consecutive days from one on."""
    start = int(np.flatnonzero(observed["time"].values == np.datetime64(first, "ns"))[0])
    return forecast_of(observed, np.arange(start, start + count), leads)


def refused(forecast, observed, match, **options):
    """Refused with the reason; scored and marked when asked for."""
    with pytest.raises(ValueError, match=match) as error:
        evaluate(forecast, observed, **OPTIONS, **options)
    assert "--allow-leakage" in str(error.value)
    skill = evaluate(forecast, observed, **OPTIONS, **options, allow_leakage=True)
    assert skill.attrs["leakage"] in str(error.value)
    assert skill.attrs["leakage"] in skill.attrs["notices"]
    return skill.attrs["leakage"]


def leakage(forecast, observed, reference):
    """What is said of scores that are not refused."""
    return evaluate(forecast, observed, reference=reference, **OPTIONS).attrs["leakage"]


def test_honest_blocks_are_scored(observed, reference):
    assert leakage(scored(observed, "2003-01-01"), observed, reference) == ""
    later = fit_reference(observed, train=slice("2002", "2003"))
    assert leakage(scored(observed, "2001-11-20"), observed, later) == ""


def test_training_times(observed, reference):
    told = "7 of 30 initial times have themselves or a valid time"
    said = refused(scored(observed, "2001-12-25"), observed, told, reference=reference)
    assert said.startswith(f"{told} in the training block (2000-01-01 to 2001-12-31)")
    later = fit_reference(observed, train=slice("2002", "2003"))
    said = refused(scored(observed, "2001-12-01"), observed, "2 of 30", reference=later)
    assert "training block (2002-01-01" in said


def test_a_climatology_fitted_on_scored_times_elsewhere(observed, reference):
    everything = dataclasses.replace(reference, climatology=fit_climatology(observed))
    forecast = scored(observed, "2003-03-01")
    way_out = "fit the climatology on the training block"
    said = refused(forecast, observed, way_out, reference=everything)
    assert said == (
        "30 of 30 initial times have themselves or a valid time in the times that the climatology"
        " was fitted on (2000-01-01 to 2004-02-08)"
    )
    restored = Climatology.from_dataset(everything.climatology.to_dataset())
    assert restored.fitted == (("2000-01-01T00:00:00", "2004-02-08T00:00:00"),)
    again = dataclasses.replace(reference, climatology=restored)
    refused(forecast, observed, "climatology was fitted on", reference=again)


def test_a_climatology_knows_the_gaps_of_its_block(observed):
    year = observed["time"].dt.year.values
    around = fit_reference(observed, train=(year < 2002) | (year == 2003))
    assert [first[:10] for first, _ in around.climatology.fitted] == ["2000-01-01", "2003-01-01"]
    assert leakage(scored(observed, "2002-03-01"), observed, around) == ""


def test_windows_that_cross_the_gap(observed, reference):
    near = scored(observed, "2002-01-01")
    alone = dataclasses.replace(reference, validation=None)
    said = refused(near, observed, "leave a gap of the longest lead", reference=alone)
    assert said == (
        "2 of 30 initial times begin less than the longest lead (3 days) after the training block"
        " (2000-01-01 to 2001-12-31)"
    )
    assert leakage(near.isel(init_time=slice(2, None)), observed, alone) == ""
    one = near.isel(init_time=[1])
    assert "1 of 1 initial times begins less" in refused(one, observed, "1 of 1", reference=alone)


def test_the_validation_block(observed, reference):
    late = scored(observed, "2002-12-30")
    said = refused(late, observed, "on which choices were made", reference=reference)
    where = "in the validation block, on which choices were made (2002-01-01 to 2002-12-31)"
    assert said == f"2 of 30 initial times have themselves or a valid time {where}"


def test_what_a_store_says_of_its_own_training(observed):
    forecast = scored(observed, "2003-01-01")
    honest = forecast.assign_attrs(training_period="2000-01-01/2002-12-31")
    options = {"baselines": ("persistence",), "metrics": ("rmse",), "resamples": 0}
    assert evaluate({"a": honest}, observed, **options).attrs["leakage"] == ""
    cheat = forecast.assign_attrs(training_period="1979 to 2003-01-10")
    declared = r"10 of 30 .* in the training_period that c declares \(1979 to 2003-01-10\)"
    with pytest.raises(ValueError, match=declared):
        evaluate({"a": honest, "c": cheat}, observed, **options)
    skill = evaluate({"b": cheat, "c": cheat, "a": honest}, observed, **options, allow_leakage=True)
    assert "training_period that b and c declare (1979 to 2003-01-10)" in skill.attrs["leakage"]
    chosen = forecast.assign_attrs(validation_period="spring")
    skill = evaluate(chosen, observed, **options)
    assert "validation_period 'spring' of forecast is not understood" in skill.attrs["notices"]
    for name in ("validation_period", "climatology_period"):
        several = forecast.assign_attrs({name: "1990/2000; 2003-01-20/2003-02-01"})
        with pytest.raises(ValueError, match=name):
            evaluate(several, observed, **options)


def test_periods_as_people_write_them():
    def periods(held):
        return declared_periods({"a": xr.Dataset(attrs={"training_period": held})})

    for text in (
        "1979/2017",
        "1979-2017",
        "1979:2017",
        "1979 to 2017",
        "1979–2017",
        "1979-01/2017-12",
        "1979-01-01T06:00/2017-12-31 18:00:00",
    ):
        found, notices = periods(text)
        assert found == {("training_period", text): ["a"]}, text
        assert notices == []
    assert list(periods(np.array(["1979", "2017"]))[0]) == [("training_period", "1979/2017")]
    for text in ("before 1979", "1979-13/2017", "1979/2017; later"):
        assert periods(text)[0] == {}, text


def test_other_hours_of_the_same_days_and_months_leak_too(observed, reference):
    validation = reference.validation["time"]
    for block, what in ((reference.anomaly["time"], "training"), (validation, "validation")):
        init = xr.DataArray(block.values[[0, 50, 100]] + np.timedelta64(6, "h"), dims="init_time")
        (leak,) = find_leaks(init, init.values[:, None] + np.timedelta64(6, "h"), **{what: block})
        assert leak.said.startswith("3 of 3"), what
        assert f"in the {what} block" in leak.said
    years = xr.DataArray(np.arange("1900", "2000", 2, dtype="M8[Y]").astype("M8[ns]"), dims="time")
    odd = np.arange("1901", "1999", 2, dtype="M8[Y]").astype("M8[ns]")
    between = xr.DataArray(odd, dims="init_time")
    assert find_leaks(between, between.values[:, None], training=years) == []
    later = xr.DataArray(validation.values[-1:] + np.timedelta64(6, "h"), dims="init_time")
    assert find_leaks(later, later.values[:, None], validation=validation) == []


def test_members_molecules_and_other_segments_are_not_looked_at():
    time = xr.DataArray(days(40), dims="time")
    twice = xr.concat([time, time], "time").assign_coords(segment=("time", np.repeat([0, 1], 40)))
    init, valid = time[10:20], time.values[10:20, None] + DAY
    assert find_leaks(init, valid, training=twice, validation=twice) == []
    piece = time.assign_coords(segment=("time", np.zeros(40, int)))
    other = xr.DataArray(init.values, {"segment": ("init_time", np.ones(10, int))}, "init_time")
    assert find_leaks(other, valid, training=piece) == []
    frames = xr.DataArray(np.arange(40.0), dims="time", attrs={"units": "ps"})
    start, later = frames[10:20], frames.values[10:20, None] + 1
    assert find_leaks(start, later, training=frames, fitted=[("0", "39")]) == []
    same = other.assign_coords(segment=("init_time", np.zeros(10, int)))
    assert len(find_leaks(same, valid, training=piece)) == 1


def test_members_that_share_times_are_scored_though_a_period_is_declared(observed):
    segment = ("time", np.repeat([0, 1], 1500).astype("int32"))
    members = xr.concat([observed, observed], "time").assign_coords(segment=segment)
    reference = fit_reference(members, train=members["segment"].values == 0)
    forecast = forecast_of(observed, np.arange(100, 130), (1, 3))
    forecast = forecast.assign_coords(segment=("init_time", np.ones(30, "int32")))
    assert reference.climatology.fitted
    assert leakage(forecast.assign_attrs(training_period="2000/2003"), members, reference) == ""


def test_other_calendars():
    first = cftime.DatetimeNoLeap(2000, 1, 1)
    time = np.array([first + np.timedelta64(n, "D").astype(object) for n in range(900)])
    observed = weather(900).assign_coords(time=time)
    reference = fit_reference(observed, train=np.arange(900) < 730)
    assert reference.climatology.fitted == (("2000-01-01 00:00:00", "2001-12-31 00:00:00"),)
    every = dataclasses.replace(reference, climatology=fit_climatology(observed))
    init, valid = xr.DataArray(time[800:810], dims="init_time"), time[801:811, None]
    training = reference.anomaly["time"]
    honest = find_leaks(init, valid, training=training, fitted=reference.climatology.fitted)
    assert honest == []
    (leak,) = find_leaks(init, valid, training=training, fitted=every.climatology.fitted)
    assert "climatology was fitted on (2000-01-01 to 2002-06-19)" in leak.said


def test_all_that_leaks_is_told_at_once(observed, reference):
    forecast = scored(observed, "2001-12-30", count=380).assign_attrs(training_period="2000/2002")
    with pytest.raises(ValueError, match="training block") as error:
        evaluate(forecast, observed, reference=reference, **OPTIONS)
    for part in (
        "training block",
        "validation block",
        "training_period that forecast declares",
        "less than the longest lead",
    ):
        assert part in str(error.value), part
    assert check_leakage([], allow=False) == ""
