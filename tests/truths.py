"""Small observations and forecasts with known answers."""

import numpy as np
import xarray as xr

from sciwm.skill import fit_reference, line_up, score_lineup
from sciwm.skill.metrics import with_event_metrics
from sciwm.skill.table import DEFAULT_METRICS

DAY = np.timedelta64(24 * 3600 * 10**9, "ns")


def days(count, *, start="2000-01-01"):
    return np.datetime64(start, "ns") + np.arange(count) * DAY


def grid(values, *, time, name="t850", units="K", latitude=None, longitude=None):
    """Observations ``(time, latitude, longitude)``."""
    _, rows, columns = values.shape
    latitude = np.linspace(40.0, 60.0, rows) if latitude is None else latitude
    longitude = np.arange(columns) * 5.0 if longitude is None else longitude
    coords = {
        "time": time,
        "latitude": latitude,
        "longitude": longitude,
        "segment": ("time", np.zeros(len(time), "int32")),
    }
    dims = ("time", "latitude", "longitude")
    return xr.Dataset({name: (dims, values, {"units": units})}, coords)


def autoregressive(count, *, phi, cells, seed=0):
    """AR(1) series of unit variance, ``(count, cells)``."""
    random = np.random.default_rng(seed)
    out = np.empty((count, cells))
    out[0] = random.standard_normal(cells)
    for i in range(1, count):
        out[i] = phi * out[i - 1] + np.sqrt(1 - phi**2) * random.standard_normal(cells)
    return out


def weather(count=1200, *, phi=0.8, rows=3, columns=4, seed=0, name="t850"):
    """Annual cycle plus AR(1) noise in every cell."""
    time = days(count)
    season = 10.0 * np.cos(2 * np.pi * np.arange(count) / 365.25)
    noise = autoregressive(count, phi=phi, cells=rows * columns, seed=seed)
    noise = noise.reshape(count, rows, columns)
    return grid(280.0 + season[:, None, None] + noise, time=time, name=name)


def forecast_of(observed, init, leads, *, noise=0.5, seed=1, step=DAY):
    """The truth plus noise, in the forecast layout; valid times must be observed."""
    random = np.random.default_rng(seed)
    positions = np.asarray(init)[:, None] + np.asarray(leads)[None, :]
    axes = [d for d in observed.dims if d != "time" and d in observed.coords]
    coords = {d: observed[d].variable for d in axes}
    coords["init_time"] = observed.time.values[np.asarray(init)]
    coords["lead_time"] = np.asarray(leads) * step
    out = {}
    for name, field in observed.data_vars.items():
        values = field.values[positions]
        values = values + noise * random.standard_normal(values.shape)
        out[name] = (("init_time", "lead_time", *field.dims[1:]), values)
    return xr.Dataset(out, coords)


def scored(forecasts, observed, *, train=None, resamples=1000, seed=0, against="lim", **options):
    """`line_up` and `score_lineup` with all their options; ``train`` instead of ``reference``."""
    wanted = {name: options.pop(name) for name in ("regions", "events") if name in options}
    metrics = with_event_metrics(options.pop("metrics", DEFAULT_METRICS), wanted.get("events", ()))
    if train is not None:
        options["reference"] = fit_reference(observed, train=train)
    lineup = line_up(forecasts, observed, metrics=metrics, **options)
    tested = {"resamples": resamples, "seed": seed, "against": against}
    return score_lineup(lineup, metrics=metrics, **wanted, **tested)
