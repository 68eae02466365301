"""Skill tables, forecasts and logs with known properties, and reports of them."""

import base64
import io

import matplotlib.image
import numpy as np
import pandas as pd
import xarray as xr

from sciwm.report.page import About, write_report

METHODS = (
    "jepa",
    "jepa_latent",
    "random_encoder",
    "climatology",
    "persistence",
    "damped_persistence",
    "lim",
)


def skill_table(
    channels,
    units,
    lead_time,
    *,
    methods=METHODS,
    regions=("domain",),
    metrics=("rmse", "mae", "bias", "acc"),
    seed=0,
):
    """Skill that saturates at climatology; the JEPA is best at two leads, the LIM afterwards."""
    rng = np.random.default_rng(seed)
    lead = np.arange(1, len(lead_time[1]) + 1) / len(lead_time[1])
    scale = np.array([{"m": 110.0, "K": 3.8, "Pa": 800.0}.get(u, 1.0) for u in units])
    rmse = np.stack([_rmse(m, lead) for m in methods])
    shape = (len(methods), len(channels), len(regions), len(lead), len(metrics))
    value = np.empty(shape)
    for k, metric in enumerate(metrics):
        one = {
            "rmse": rmse,
            "mae": 0.8 * rmse,
            "nmse": rmse**2,
            "bias": 0.02 * (rmse - 0.5),
            "acc": 1 - rmse**2,
        }[metric]
        factor = scale if metric not in ("acc", "nmse") else np.ones_like(scale)
        value[..., k] = one[:, None, None, :] * factor[None, :, None, None]
    value = value * (1 + 0.01 * rng.standard_normal(shape))
    half = 0.05 * np.abs(value) + 1e-3
    dims = ("method", "channel", "region", "lead_time", "metric")
    fields = {"value": value, "ci_low": value - half, "ci_high": value + half}
    fields["num_init"] = np.full(shape, 355)
    coords = {
        "method": list(methods),
        "channel": list(channels),
        "region": list(regions),
        "lead_time": lead_time,
        "metric": list(metrics),
        "units": ("channel", list(units)),
    }
    return xr.Dataset({name: (dims, field) for name, field in fields.items()}, coords)


def _rmse(method, lead):
    curves = {
        "jepa": 0.38 + 0.62 * lead,
        "jepa_latent": 0.45 + 0.57 * lead,
        "random_encoder": 0.7 + 0.3 * lead,
        "climatology": np.ones_like(lead),
        "persistence": 0.5 + 0.8 * lead,
        "damped_persistence": 0.48 + 0.53 * lead,
        "lim": 0.46 + 0.5 * lead,
    }
    return curves.get(method, 0.9 + 0.2 * lead)


def hour_leads(*days):
    hours = np.array([round(24 * d) for d in days], "timedelta64[h]")
    return "lead_time", hours.astype("timedelta64[ns]")


def grid_forecast():
    """Two fields, 30 days, 4 leads; the error grows from the first initial time to the last."""
    rng = np.random.default_rng(1)
    latitude, longitude = np.arange(30, 60.1, 1.5), np.arange(-20, 14.6, 1.5)
    time = pd.date_range("2008-01-01T12", periods=40, freq="D")
    phase = np.deg2rad(6 * longitude)[None, None] + 0.4 * np.arange(40)[:, None, None]
    wave = np.sin(phase) * np.cos(np.deg2rad(3 * latitude))[:, None]
    mean = (5600 - 12 * (latitude - 45))[None, :, None]
    height = mean + 120 * wave + 8 * rng.standard_normal((40, 21, 24))
    dims = ("time", "latitude", "longitude")
    coords = {"time": time, "latitude": latitude, "longitude": longitude}
    observed = xr.Dataset(
        {"z500": (dims, height, {"units": "m"}), "u850": (dims, 15 * wave, {"units": "m s-1"})},
        coords,
    )
    leads = np.array([1, 2, 3, 5])
    at = np.arange(30)[:, None] + leads
    growth = (1 + np.arange(30))[:, None, None, None] * leads[None, :, None, None]
    noise = rng.standard_normal((30, 4, 21, 24)) * growth
    dims = ("init_time", "lead_time", "latitude", "longitude")
    coords = {
        "init_time": time[:30],
        "lead_time": leads.astype("timedelta64[D]").astype("timedelta64[ns]"),
        "latitude": latitude,
        "longitude": longitude,
    }
    fields = {
        n: (dims, observed[n].values[at] + 0.5 * noise, observed[n].attrs) for n in ("z500", "u850")
    }
    return xr.Dataset(fields, coords), observed


def molecule_forecast():
    rng = np.random.default_rng(2)
    time = np.arange(0.0, 200.0)
    angle = np.cumsum(rng.standard_normal(200)) * 0.3
    observed = xr.Dataset(
        {"torsion": (("time", "component"), np.stack([np.sin(angle), np.cos(angle)], 1))},
        {"time": time, "component": ["sin_phi", "cos_phi"]},
    )
    leads = np.array([1.0, 5.0, 10.0, 50.0])
    at = np.arange(140)[:, None] + leads.astype(int)
    values = 0.6 * observed["torsion"].values[at]
    forecast = xr.Dataset(
        {"torsion": (("init_time", "lead_time", "component"), values)},
        {"init_time": time[:140], "component": ["sin_phi", "cos_phi"]},
    )
    return forecast.assign_coords(lead_time=("lead_time", leads, {"units": "ps"})), observed


def training_log(steps=500):
    rng = np.random.default_rng(3)
    rows = []
    for step in range(10, steps + 1, 10):
        fall = np.exp(-step / 120)
        row = {
            "step": step,
            "split": "train",
            "loss": 0.4 + fall + 0.02 * rng.standard_normal(),
            "prediction": 0.3 + 0.8 * fall,
            "regularizer": 0.01 + 0.5 * fall**3,
        }
        health = {"effective_rank": 60 * (1 - fall), "smallest_std": 0.4 * (1 - fall)}
        rows.append(row | health | {"probe_r2": None, "seconds": 0.1 * step})
        if step % 100 == 0:
            held = {"split": "validation", "loss": row["loss"] + 0.05}
            health = {"effective_rank": 55 * (1 - fall), "probe_r2": 0.7 - 0.6 * fall}
            rows.append(row | held | health)
    return rows


TITLE = "Winds <of> Europe & $more$"
CONFIG = "seed: 0\ndata:\n  store: <here>\n"
PROVENANCE = {
    "sciwm": "0.1.0",
    "Data fingerprint": "ab" * 32,
    "Test block": "2008-01-01 to 2008-12-31",
}


def make_report(
    out, skill, *, notes=("Simulated data & nothing else.",), skill_csv="a,b\n1,<2>\n", **data
):
    """Report of a skill table; ``data`` are forecast, observed, log and diagnostics."""
    about = About(
        title=TITLE,
        provenance=PROVENANCE,
        notes=notes,
        methods=["Everything was <done> as it is."],
        config=CONFIG,
        skill_csv=skill_csv,
    )
    return write_report(out, about=about, skill=skill, **data)


def leads_of(unit, values):
    return ("lead_time", np.array(values), {"units": unit})


def tiny_skill(values, *, metric="rmse", half=0.01, channels=("z500",)):
    """Skill from ``{method: values by lead}``, the same for each channel."""
    value = np.array([[v] * len(channels) for v in values.values()], dtype=float)
    value = value[:, :, None, :, None]
    dims = ("method", "channel", "region", "lead_time", "metric")
    leads = hour_leads(*range(1, value.shape[3] + 1))
    coords = {
        "method": list(values),
        "channel": list(channels),
        "region": ["domain"],
        "lead_time": leads,
        "metric": [metric],
    }
    return xr.Dataset(
        {"value": (dims, value), "ci_low": (dims, value - half), "ci_high": (dims, value + half)},
        coords,
    )


def diagnostics_table(methods=("jepa", "lim", "members"), *, seed=4):
    """Diagnostics of two variables on a coarse globe at three leads; only ``members`` has ranks."""
    rng = np.random.default_rng(seed)
    coords = {
        "method": list(methods),
        "channel": ["t850", "u850"],
        "lead_time": hour_leads(1, 3, 5),
    }
    globe = {"latitude": np.linspace(-80, 80, 9), "longitude": np.arange(12) * 30.0}
    maps = (len(methods), 2, 3, 9, 12)
    wave = 1.0 / (1 + np.arange(7.0)) ** 2
    ranks = np.full((len(methods), 2, 3, 6), np.nan)
    if "members" in methods:
        counts = rng.uniform(0.5, 2.0, (2, 3, 6))
        ranks[methods.index("members")] = counts / counts.mean(axis=-1, keepdims=True)
    first = ("method", "channel", "lead_time")
    waves = (*first, "zonal_wavenumber")
    fields = {
        "rmse": ((*first, *globe), rng.uniform(0.5, 2.0, maps)),
        "bias": ((*first, *globe), rng.normal(0, 0.3, maps)),
        "spectrum": (waves, wave * rng.uniform(0.3, 1.0, (len(methods), 2, 3, 7))),
        "observed_spectrum": (waves[1:], wave * rng.uniform(0.9, 1.1, (2, 3, 7))),
        "rank_frequency": ((*first, "rank"), ranks),
    }
    coords |= globe
    coords |= {"zonal_wavenumber": np.arange(7), "rank": np.arange(6)}
    coords["units"] = ("channel", ["K", "m s-1"])
    return xr.Dataset(fields, coords, {"num_init": 90, "cells_per_box": 1})


def decoded(text):
    """Pixels of a PNG in base64, read by matplotlib: RGBA in 0 … 255, first row at the top."""
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(text)), format="png")
    return np.round(pixels * 255).astype(int)
