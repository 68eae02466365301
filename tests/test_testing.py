"""The synthetic worlds have the form and the predictability that they claim."""

import doctest
import json
import subprocess
import sys

import numpy as np
import pytest

import sciwm.testing
from sciwm.testing import DAMPING_DAYS, DAMPING_MONTHS, double_well, small_climate, small_months
from sciwm.times import calendar_fields, infer_step


def anomalies(field, harmonics=2):
    """Departures from a least-squares annual cycle, [time, cell]."""
    phase = calendar_fields(field.time.values)[0]
    columns = [np.ones_like(phase)]
    for k in range(1, harmonics + 1):
        columns += [np.cos(2 * np.pi * k * phase), np.sin(2 * np.pi * k * phase)]
    design = np.stack(columns, axis=1)
    values = field.values.reshape(len(phase), -1).astype(float)
    values = values[:, np.isfinite(values).all(0)]
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def errors(x, lead, rank):
    """Normalised squared errors on the later third of the record.

    They are those of a linear model in EOFs, of damped persistence and of persistence.
    """
    cut = 2 * len(x) // 3
    train, test = x[:cut], x[cut:]
    eofs = np.linalg.svd(train, full_matrices=False)[2][:rank].T
    a, b = train[:-lead] @ eofs, train[lead:] @ eofs
    operator = np.linalg.lstsq(a, b, rcond=None)[0]
    slope = (train[:-lead] * train[lead:]).sum() / (train[:-lead] ** 2).sum()
    now, later = test[:-lead], test[lead:]
    forecasts = (now @ eofs @ operator @ eofs.T, slope * now, now)
    return [((forecast - later) ** 2).mean() / (later**2).mean() for forecast in forecasts]


@pytest.mark.parametrize("lead", [1, 3, 5])
def test_climate_has_the_predictability_it_claims(lead):
    x = anomalies(small_climate(years=16).z500)
    linear, damped, persistence = errors(x, lead, rank=18)
    assert linear == pytest.approx(1 - np.exp(-2 * lead / DAMPING_DAYS), abs=0.04)
    assert linear < 0.85 * damped
    assert damped < persistence


def test_months_have_the_predictability_they_claim():
    x = anomalies(small_months(years=150).sst)
    linear, damped, persistence = errors(x, 6, rank=8)
    assert linear == pytest.approx(1 - np.exp(-12 / DAMPING_MONTHS), abs=0.08)
    assert linear < 0.95 * damped
    assert damped < persistence


def test_climate_is_canonical():
    ds = small_climate(years=1, variables=("z500", "t850", "msl"))
    for name, units in {"z500": "m2 s-2", "t850": "K", "msl": "Pa"}.items():
        assert ds[name].dims == ("time", "latitude", "longitude")
        assert ds[name].dtype == np.float32
        assert ds[name].chunks is not None
        assert ds[name].attrs["units"] == units
        assert json.loads(ds[name].attrs["original"])["name"] == name
    assert (np.diff(ds.latitude) > 0).all()
    assert (np.diff(ds.longitude) > 0).all()
    assert ds.segment.dtype == np.int32
    assert ds.segment.dims == ("time",)
    assert str(infer_step(ds.time)) == "24 hours"
    assert json.loads(ds.attrs["original_grid"])
    assert 270 < float(ds.t850.mean()) < 290


def test_annual_cycle_and_spread_are_as_tabled():
    ds = small_climate(years=20)
    z = ds.z500.isel(latitude=-1).mean("longitude").groupby("time.month").mean()
    assert float(z.max() - z.min()) == pytest.approx(3000, rel=0.1)
    assert int(z.idxmax("month")) in (7, 8)
    assert anomalies(ds.t850).std() == pytest.approx(3.5, rel=0.1)


@pytest.mark.parametrize(
    ("calendar", "days"), [("noleap", 730), ("360_day", 720), ("standard", 730)]
)
def test_calendars(calendar, days):
    ds = small_climate(years=2, calendar=calendar)
    assert ds.sizes["time"] == days
    assert ds.time.dt.calendar == ("proleptic_gregorian" if calendar == "standard" else calendar)
    assert str(infer_step(ds.time)) == "24 hours"


def test_steps_below_a_day_keep_the_damping_time():
    x = anomalies(small_climate(years=6, step_hours=6).z500)
    daily = errors(x, 4, rank=18)[0]
    assert daily == pytest.approx(1 - np.exp(-2 / DAMPING_DAYS), abs=0.04)


def test_periodic_grid_closes():
    ds = small_climate(years=4, periodic=True, grid=(8, 24))
    assert float(ds.longitude[-1] + ds.longitude[1] - ds.longitude[0]) == 360
    assert abs(float(ds.latitude.sum())) < 1e-9
    x = ds.z500.isel(latitude=4)
    seam = float(((x.isel(longitude=0) - x.isel(longitude=-1)) ** 2).mean())
    inside = float(((x.isel(longitude=12) - x.isel(longitude=11)) ** 2).mean())
    assert seam == pytest.approx(inside, rel=0.2)


def test_missing_values_are_a_fixed_land_and_a_few_gaps():
    missing = small_climate(years=1, missing=True).z500.isnull()
    land = missing.all("time")
    assert int(land.sum()) == 2 * 3
    share = float(missing.where(~land).mean())
    assert share == pytest.approx(0.01, abs=0.002)


def test_months_are_monthly_with_fixed_land():
    ds = small_months(years=3, variable="ssta")
    assert str(infer_step(ds.time)) == "1 months"
    missing = ds.ssta.isnull()
    assert bool((missing == missing.isel(time=0)).all())
    assert 0 < int(missing.isel(time=0).sum()) < missing.isel(time=0).size / 2
    assert abs(float(ds.ssta.mean())) < 0.5


@pytest.mark.parametrize("make", [small_climate, small_months, double_well])
def test_seed_decides_everything(make):
    assert make(seed=3).identical(make(seed=3))
    assert not make(seed=3).equals(make(seed=4))


def test_unknown_variable_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="got variables \\['z600'\\], expected some of z500"):
        small_climate(variables=("z600",))


def dihedral_by_projection(a, b, c, d):
    """Torsion by projecting onto the plane normal to the middle bond: another way than ours."""
    axis = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
    u = (a - b) - ((a - b) * axis).sum(-1, keepdims=True) * axis
    v = (d - c) - ((d - c) * axis).sum(-1, keepdims=True) * axis
    return np.arctan2((np.cross(axis, u) * v).sum(-1), (u * v).sum(-1))


def test_torsions_agree_with_positions():
    ds = double_well(num_frames=400)
    atoms = np.moveaxis(ds.positions.values.astype(float), 1, 0)
    for name, four in {"phi": atoms[:4], "psi": atoms[1:]}.items():
        difference = np.angle(np.exp(1j * (dihedral_by_projection(*four) - ds[name].values)))
        assert np.abs(difference).max() < 1e-4
    bond = np.linalg.norm(np.diff(ds.positions.values, axis=1), axis=-1)
    assert bond.mean(0) == pytest.approx([0.1335, 0.1449, 0.1522, 0.1335], rel=0.01)
    assert np.abs(ds.positions.mean("atom")).max() < 1e-6


def test_phi_has_two_wells_with_boltzmann_weights_and_psi_is_fast():
    ds = double_well(num_trajectories=20, num_frames=2000)
    phi, psi = (ds[name].values.reshape(20, -1).astype(float) for name in ("phi", "psi"))
    grid = np.linspace(-np.pi, np.pi, 2001)
    weight = np.exp(-(2 * np.cos(2 * grid) + 0.5 * np.sin(grid)))
    assert (phi > 0).mean() == pytest.approx(weight[grid > 0].sum() / weight.sum(), abs=0.06)
    edges = np.linspace(-np.pi, np.pi, 13)
    histogram = np.histogram(psi, edges, density=True)[0]
    middle = (edges[1:] + edges[:-1]) / 2
    boltzmann = np.exp(1.5 * np.cos(middle - 2))
    assert histogram == pytest.approx(boltzmann / boltzmann.sum() / (edges[1] - edges[0]), abs=0.04)
    hops = (np.sign(phi[:, 1:]) != np.sign(phi[:, :-1])).sum(1)
    assert hops.min() >= 5
    remembered = [
        np.corrcoef(np.sin(x[:, :-10]).ravel(), np.sin(x[:, 10:]).ravel())[0, 1] for x in (phi, psi)
    ]
    assert remembered[0] > 0.6
    assert remembered[1] < 0.2


def test_molecule_is_canonical_and_tumbles():
    ds = double_well(num_trajectories=2, num_frames=50)
    assert ds.positions.dtype == np.float32
    assert ds.positions.attrs["units"] == "nm"
    assert ds.segment.values.tolist() == [0] * 50 + [1] * 50
    assert (np.diff(ds.time.values[:50]) == 1).all()
    assert ds.time.values[50] == 1
    assert str(infer_step(ds.time)) == "1 ps"
    direction = ds.positions.values[:, 1] - ds.positions.values[:, 0]
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    assert (direction[0] @ direction[25]) < 0.95


def test_examples_in_docstrings():
    assert doctest.testmod(sciwm.testing).failed == 0


def test_torch_is_not_imported():
    work = "t.small_months(years=1); t.double_well(num_frames=3)"
    code = f"import sys, sciwm.testing as t; {work}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
