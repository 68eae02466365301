"""The cyclostationary LIM against a system whose propagator of each month is known."""

import numpy as np
import pytest
import xarray as xr
from truths import DAY, weather
from truths import scored as evaluate

from sciwm.skill import fit_reference
from sciwm.skill.baselines.cslim import cslim_forecast, fit_cslim
from sciwm.skill.baselines.lim import fit_lim
from sciwm.testing import small_months

YEARS = 1000
SCALE = np.array([1.0, 5.0, 2.0])


def monthly_propagator(month):
    """Rotation and decay vary smoothly, because the window of three months averages neighbours."""
    phase = 2 * np.pi * month / 12
    turn, decay = 0.5 + 0.3 * np.sin(phase), 0.75 + 0.15 * np.cos(phase)
    out = np.zeros((3, 3))
    out[:2, :2] = decay * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    out[2] = [0.2 * np.cos(phase), 0.0, 0.6]
    return out


@pytest.fixture(scope="module")
def system():
    """x(t+1) = A(month of t) x(t) + noise, three components, no cycle in the mean."""
    random = np.random.default_rng(0)
    count = 12 * YEARS
    x, noise = np.zeros((count, 3)), 0.5 * random.standard_normal((count, 3))
    steps = [monthly_propagator(m) for m in range(12)]
    for i in range(1, count):
        x[i] = steps[(i - 1) % 12] @ x[i - 1] + noise[i]
    options = {"freq": "MS", "calendar": "noleap", "use_cftime": True}
    coords = {
        "time": xr.date_range("0001-01-01", periods=count, **options),
        "component": ["a", "b", "c"],
        "segment": ("time", np.zeros(count, "int32")),
    }
    return xr.Dataset({"state": (("time", "component"), 3.0 + x * SCALE)}, coords)


@pytest.fixture(scope="module")
def reference(system):
    index = np.arange(12 * YEARS)
    return fit_reference(
        system,
        train=index < 12 * 800,
        validation=(index >= 12 * 800) & (index < 12 * 900),
        climatology="constant",
    )


def expected(month, steps):
    """Product of the propagators from a month on."""
    out = np.eye(3)
    for ahead in range(steps):
        out = monthly_propagator((month + ahead) % 12) @ out
    return out


def test_the_propagator_of_every_month_is_recovered(reference):
    lim = fit_cslim(reference, [1, 3])
    assert [p.eofs for p in lim.propagators] == [3, 3]
    for p, steps in zip(lim.propagators, (1, 3), strict=True):
        for month in range(12):
            between = lim.patterns.T @ p.matrices[month] @ lim.patterns
            physical = (np.diag(lim.layout.factor) @ between @ np.diag(1 / lim.layout.factor)).T
            got = physical / SCALE[:, None] * SCALE[None, :]
            np.testing.assert_allclose(got, expected(month, steps), atol=0.12)


def test_one_propagator_for_all_months_is_worse(system, reference):
    start = system["time"].values[12 * 900 : 12 * 1000 - 3]
    lim = fit_cslim(reference, [1, 3])
    forecast = cslim_forecast(lim, reference, system, start)["state"].values
    truth = system["state"].values
    plain = fit_lim(reference, [1, 3])
    for k, steps in enumerate((1, 3)):
        later = 12 * 900 + np.arange(len(start)) + steps
        error = (((forecast[:, k] - truth[later]) / SCALE) ** 2).mean(0)
        # noise of j months ago, grown since
        kicks = [[expected((month - j) % 12, j) for j in range(steps)] for month in range(12)]
        unavoidable = np.mean([sum(0.25 * (g @ g.T) for g in grown) for grown in kicks], axis=0)
        np.testing.assert_allclose(error, np.diag(unavoidable), rtol=0.12)
        z = plain.layout.to_matrix(reference.validation, dim="time")
        assert lim_error(plain, z, k, steps) > 1.05 * lim.propagators[k].validation_nmse


def lim_error(lim, z, k, steps):
    v = lim.patterns
    forecast = z[:-steps] @ v.T @ lim.propagators[k].matrix @ v
    return lim.layout.nmse(forecast, z[steps:])


def test_the_truncation_is_chosen_on_the_validation_block_and_named_in_the_table():
    observed = small_months(years=60)
    first = int(observed["time"].dt.year[0])
    blocks = {
        "train": slice(str(first), str(first + 39)),
        "validation": slice(str(first + 40), str(first + 49)),
    }
    reference = fit_reference(observed, **blocks)
    errors = {k: fit_cslim(reference, [1, 4], eofs=(k,)).propagators for k in (1, 3, 6)}
    chosen = fit_cslim(reference, [1, 4], eofs=(1, 3, 6)).propagators
    for i, p in enumerate(chosen):
        found = {k: each[i].validation_nmse for k, each in errors.items()}
        assert p.validation_nmse == pytest.approx(min(found.values()))
        assert p.validation_nmse == pytest.approx(found[p.eofs])
    init = observed["time"].values[12 * 51 : 12 * 59]
    lim = fit_cslim(reference, [1, 4], eofs=(1, 3, 6))
    forecast = cslim_forecast(lim, reference, observed, init)
    assert forecast["sst"].dims == ("init_time", "lead_time", "latitude", "longitude")
    skill = evaluate(
        {"copy": forecast},
        observed,
        reference=reference,
        baselines=["cslim", "lim"],
        metrics=["rmse"],
        lim_eofs=(1, 3, 6),
        resamples=0,
    )
    value = skill["value"]
    np.testing.assert_allclose(value.loc[{"method": "copy"}], value.loc[{"method": "cslim"}])
    said = [f"{p.lead_steps} steps: {p.eofs} EOFs, monthly" for p in chosen]
    assert skill.attrs["cslim"] == "; ".join(said)
    alone = fit_cslim(fit_reference(observed, train=blocks["train"]), [1, 4], eofs=(1, 3, 6))
    assert all(np.isfinite(p.validation_nmse) for p in alone.propagators)


def test_other_steps_and_too_few_years_are_refused():
    daily = fit_reference(weather(900), train=slice("2000", "2001"))
    wrong = "got data in steps of 24 hours for cslim, expected 1 months"
    with pytest.raises(ValueError, match=wrong):
        fit_cslim(daily, [DAY])
    index = np.arange(36)
    short = fit_reference(small_months(years=3), train=index < 13, validation=index >= 20)
    with pytest.raises(ValueError, match="training pairs about some calendar month"):
        fit_cslim(short, [6])
