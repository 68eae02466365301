"""Real data, where they lie at hand: our table against plain numpy that shares no code with it."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from truths import scored as evaluate

from sciwm.skill import climatology_forecast, fit_reference

FOUND = [
    p / "shared/data/erai_europe_daily_2000_2008.nc"
    for p in Path(__file__).parents
    if (p / "shared/data").is_dir()
]
pytestmark = pytest.mark.skipif(
    not FOUND or not FOUND[0].exists(), reason="ERA-Interim Europe is not at hand"
)
NAMES, LEADS, EOFS = ["z500", "t850"], [1, 3], (20, 40)


ELSEWHERE = {  # measured on 2009 and 2010 with other programs, the whole grid; m and K
    ("climatology", "z500"): (112, 112),
    ("persistence", "z500"): (66.9, 115.8),
    ("lim", "z500"): (56.5, 97.5),
    ("climatology", "t850"): (3.81, 3.81),
    ("persistence", "t850"): (2.86, 4.37),
    ("damped_persistence", "t850"): (2.65, 3.59),
    ("lim", "t850"): (2.34, 3.58),
}


def plain_numpy(ds):
    """RMSE by method, variable and lead."""
    time = ds.time.values
    year = time.astype("datetime64[Y]").astype(int) + 1970
    train, valid, test = (np.flatnonzero(m) for m in (year <= 2006, year == 2007, year == 2008))
    test = test[test + max(LEADS) < len(time)]
    phase = 2 * np.pi * ((time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D")) / 365.25
    basis = np.stack(
        [np.ones(len(time)), *(f(k * phase) for k in (1, 2, 3) for f in (np.sin, np.cos))], 1
    )
    area = (np.cos(np.deg2rad(ds.lat.values))[:, None] * np.ones(ds.sizes["lon"])).ravel()
    area /= area.sum()
    full = {v: ds[v].values.reshape(len(time), -1).astype(float) for v in NAMES}
    cycle = {v: np.linalg.lstsq(basis[train], full[v][train], rcond=None)[0] for v in NAMES}
    anomaly = {v: full[v] - basis @ cycle[v] for v in NAMES}
    spread = {v: np.sqrt((anomaly[v][train] ** 2 @ area).mean()) for v in NAMES}
    z = np.concatenate([anomaly[v] / spread[v] * np.sqrt(area) for v in NAMES], axis=1)
    patterns = np.linalg.svd(z[train], full_matrices=False)[2]

    def linear(lead, count, kind, start):
        v = patterns[:count]
        p, left = z @ v.T, z - z @ v.T @ v
        lag = 1 if kind == "power" else lead
        g = np.linalg.lstsq(p[train[:-lag]], p[train[lag:]], rcond=None)[0]
        g = np.linalg.matrix_power(g, lead) if kind == "power" else g
        now, later = left[train[:-lead]], left[train[lead:]]
        return p[start] @ g @ v + left[start] * (now * later).sum(0) / (now**2).sum(0)

    def nmse(forecast, truth):
        errors, truths = (np.split(a, len(NAMES), 1) for a in (forecast - truth, truth))
        return np.mean([(e**2).sum() / (t**2).sum() for e, t in zip(errors, truths, strict=True)])

    out = {}
    for lead in LEADS:
        choices = [(c, k) for c in EOFS for k in ("power", "direct")]
        start = valid[:-lead]
        best = min(choices, key=lambda c: nmse(linear(lead, *c, start), z[start + lead]))
        lim = np.split(linear(lead, *best, test) - z[test + lead], len(NAMES), 1)
        for i, v in enumerate(NAMES):
            a = anomaly[v]
            slope = (a[train[:-lead]] * a[train[lead:]]).sum(0) / (a[train[:-lead]] ** 2).sum(0)
            errors = {
                "climatology": a[test + lead],
                "persistence": full[v][test] - full[v][test + lead],
                "damped_persistence": slope * a[test] - a[test + lead],
            }
            for method, e in errors.items():
                out[method, v, lead] = np.sqrt((e**2 @ area).mean())
            out["lim", v, lead] = np.sqrt((lim[i] ** 2).sum(1).mean()) * spread[v]
    return out


def test_baselines_agree_with_plain_numpy():
    every_other = slice(None, None, 2)
    ds = xr.open_dataset(FOUND[0])[NAMES].isel(lat=every_other, lon=every_other).load()
    observed = ds.rename(lat="latitude", lon="longitude").sortby("latitude")
    blocks = {"train": slice("2000", "2006"), "validation": slice("2007", "2007")}
    reference = fit_reference(observed, **blocks)
    lead_times = np.array(LEADS) * np.timedelta64(24 * 3600 * 10**9, "ns")
    init = observed.time.sel(time="2008").values
    forecast = climatology_forecast(reference, observed, init, lead_times)
    skill = evaluate(
        forecast, observed, reference=reference, metrics=("rmse",), lim_eofs=EOFS, resamples=0
    )
    rmse = skill.value.loc[{"metric": "rmse", "region": "all"}]
    for key, expected in plain_numpy(ds).items():
        method, variable, lead = key
        row = rmse.loc[{"method": method, "channel": variable}]
        value = row.loc[{"lead_time": np.timedelta64(lead, "D")}].item()
        assert value == pytest.approx(expected, rel=0.005), key
    assert skill.attrs["num_init"] == 363
    for (method, variable), expected in ELSEWHERE.items():
        scale = 9.80665 if variable == "z500" else 1.0
        value = rmse.loc[{"method": method, "channel": variable}] / scale
        np.testing.assert_allclose(value, expected, rtol=0.08)  # other years, other weather
