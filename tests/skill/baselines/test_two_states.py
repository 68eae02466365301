"""Regression on two states: a system of second order is found, and one state is not enough."""

import numpy as np
import pytest
import xarray as xr
from truths import scored as evaluate

from sciwm.skill.baselines.lim import fit_lim, lim_forecast
from sciwm.skill.baselines.simple import fit_reference
from sciwm.skill.baselines.two_states import fit_two_states, two_states_forecast
from sciwm.testing import small_climate

DAY = np.timedelta64(1, "D")
TURN, KEPT = 0.4, 0.98  # a damped oscillator seen without its velocity


@pytest.fixture(scope="module")
def oscillator():
    rng = np.random.default_rng(0)
    x = np.zeros((4000, 6))
    for t in range(2, len(x)):
        step = 2 * KEPT * np.cos(TURN) * x[t - 1] - KEPT**2 * x[t - 2]
        x[t] = step + 0.1 * rng.standard_normal(6)
    time = np.datetime64("2000-01-01", "ns") + DAY * np.arange(len(x))
    dims = ("time", "latitude", "longitude")
    coords = {"time": time, "latitude": [5.0, -5.0], "longitude": [0.0, 10.0, 20.0]}
    return xr.Dataset({"u": (dims, x.reshape(-1, 2, 3))}, coords)


@pytest.fixture(scope="module")
def reference(oscillator):
    time = oscillator["time"].values
    train, validation = slice(time[0], time[2499]), slice(time[2600], time[3099])
    return fit_reference(oscillator, train=train, validation=validation, climatology="constant")


def errors(forecast, oscillator, init):
    found = []
    for k, lead in enumerate(forecast["lead_time"].values):
        truth = oscillator["u"].sel(time=init + lead).values
        found.append(np.mean((forecast["u"].values[:, k] - truth) ** 2))
    return np.array(found)


def test_a_system_of_second_order_is_forecast_as_well_as_can_be(oscillator, reference):
    init, leads = oscillator["time"].values[3200:3990], [DAY, 3 * DAY]
    fitted = fit_two_states(reference, leads)
    forecast = two_states_forecast(fitted, reference, oscillator, init)
    assert forecast["u"].dims == ("init_time", "lead_time", "latitude", "longitude")
    found = errors(forecast, oscillator, init)
    # What a kick has become after j steps: the rest of the error is unavoidable.
    grown = [KEPT**j * np.sin(TURN * (j + 1)) / np.sin(TURN) for j in range(3)]
    best = 0.01 * np.array([grown[0] ** 2, sum(g**2 for g in grown)])
    np.testing.assert_allclose(found, best, rtol=0.1)
    plain = lim_forecast(fit_lim(reference, leads), reference, oscillator, init)
    assert (errors(plain, oscillator, init) > 2 * found).all()


def test_segments_do_not_touch_and_the_first_state_is_refused(oscillator, reference):
    segment = np.repeat([0, 1], 2000)
    apart = oscillator.assign_coords(segment=("time", segment))
    fitted = fit_two_states(reference, [DAY])
    with pytest.raises(ValueError, match=r"initial times without an observation: 1999-12-31"):
        two_states_forecast(fitted, reference, oscillator, oscillator["time"].values[:2])
    train = np.arange(4000) < 3000
    whole = fit_reference(apart, train=train, climatology="constant")
    assert np.isfinite([p.validation_nmse for p in fit_two_states(whole, [DAY]).propagators]).all()


def test_the_number_of_eofs_is_chosen_on_the_validation_block_and_named_in_the_table():
    observed = small_climate(years=4)
    first = int(observed["time"].dt.year[0])
    blocks = {"train": slice(str(first), str(first + 1)), "validation": str(first + 2)}
    blocks["validation"] = slice(blocks["validation"], blocks["validation"])
    reference = fit_reference(observed, **blocks)
    leads, asked = [DAY, 4 * DAY], (5, 10, 20)
    each = {k: fit_two_states(reference, leads, eofs=(k,)).propagators for k in asked}
    chosen = fit_two_states(reference, leads, eofs=asked)
    for i, p in enumerate(chosen.propagators):
        found = {k: one[i].validation_nmse for k, one in each.items()}
        assert p.validation_nmse == pytest.approx(min(found.values()))
        assert p.validation_nmse == pytest.approx(found[p.eofs])
    init = observed["time"].sel(time=str(first + 3)).values[10:100]
    forecast = two_states_forecast(chosen, reference, observed, init)
    skill = evaluate(
        {"copy": forecast},
        observed,
        reference=reference,
        baselines=["two_states", "lim"],
        metrics=["rmse"],
        lim_eofs=asked,
        resamples=0,
    )
    value = skill["value"]
    np.testing.assert_allclose(value.loc[{"method": "copy"}], value.loc[{"method": "two_states"}])
    said = [f"{p.lead_steps} steps: {p.eofs} EOFs, two states" for p in chosen.propagators]
    assert skill.attrs["two_states"] == "; ".join(said)


def test_too_few_times_are_refused(oscillator):
    time = oscillator["time"].values
    blocks = {"train": slice(time[0], time[3]), "validation": slice(time[10], time[30])}
    short = fit_reference(oscillator, **blocks, climatology="constant")
    with pytest.raises(ValueError, match="hardly any training times"):
        fit_two_states(short, [3 * DAY])
    blocks = {"train": slice(time[0], time[300]), "validation": slice(time[400], time[402])}
    short = fit_reference(oscillator, **blocks, climatology="constant")
    with pytest.raises(ValueError, match="validation block without times 3 steps apart"):
        fit_two_states(short, [3 * DAY])
