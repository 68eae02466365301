"""The data of a run: where they are, their blocks and leads, and what baselines may learn from them."""

import dataclasses
from pathlib import Path

import numpy as np
import xarray as xr

from sciwm import catalogue
from sciwm.climatology import Climatology, fit_climatology
from sciwm.config import Config
from sciwm.data.open import open_dataset
from sciwm.data.prepare import load_statistics, open_training_store
from sciwm.data.scale import from_channels
from sciwm.probe.targets import as_components, stored_series, target_series
from sciwm.rundir import RunDir
from sciwm.skill.baselines import Reference
from sciwm.times import Step

__all__ = ["gap_steps", "lead_steps", "observations", "open_data", "reference_of", "series_climatology", "times_between", "with_store"]


def open_data(config: Config, run: RunDir | None = None) -> xr.Dataset:
    """Open the data of a configuration; ``qg`` is simulated into the run directory first, if it is not there."""
    store = config.data.store
    if store == "qg" and not Path("qg").exists():
        path = (run.path if run else Path("runs")) / "qg.zarr"
        if not path.exists():
            catalogue.load("qg").make(path=path, seed=config.seed)
        store = str(path)
    series = [t for t in config.probe.targets if ":" not in t]
    ds = open_dataset(store, static=config.data.static or None, segments=config.data.segments)
    if not config.data.variables or "positions" in ds:
        return ds
    wanted = [*config.data.variables, *(s for s in series if s in ds and ds[s].dims == ("time",))]
    return open_dataset(store, variables=wanted, static=config.data.static or None, segments=config.data.segments)


def lead_steps(config: Config, step: Step) -> list[int]:
    """Leads of the forecasts in time steps, in increasing order."""
    return sorted({int(step.steps(lead)) for lead in config.forecast.lead_times})


def gap_steps(config: Config, step: Step) -> int:
    """Steps between blocks of time, so that no window of one reaches into the other."""
    context = (config.model.history - 1) * max(config.objective.lead_steps)
    return context + max(*lead_steps(config, step), config.objective.rollout * max(config.objective.lead_steps))


def with_store(config: Config, store: str | list[str]) -> Config:
    """The same configuration with other data."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, store=store))


def observations(config: Config, ds: xr.Dataset) -> xr.Dataset:
    """Fields and series to score against."""
    if not config.probe.targets:
        return ds
    series = as_components(target_series(ds, config.probe.targets))
    fields = ds.drop_vars([n for n, v in ds.data_vars.items() if v.dims == ("time",) or "atom" in v.dims])
    return fields.assign(series.data_vars)


def series_climatology(run: RunDir, config: Config) -> Climatology | None:
    """Climatology of the scalar series of a run, from its training block; None without series."""
    store = open_training_store(run.train_store)
    series = stored_series(store)
    if series is None:
        return None
    train = series.isel(time=np.flatnonzero(store["split"].values == 0))
    kind = config.data.climatology if Step(store.attrs["step_value"], store.attrs["step_unit"]).unit != "ps" else "constant"
    return fit_climatology(train, kind=kind, harmonics=config.data.harmonics)


def reference_of(run: RunDir) -> Reference:
    """Climatology and anomalies of the training block, from the training store of a run."""
    store = open_training_store(run.train_store)
    step = Step(float(store.attrs["step_value"]), store.attrs["step_unit"])
    anomalies: dict[str, xr.DataArray] = {}
    coefficients: dict[str, xr.DataArray] = {}
    one: Climatology | None = None
    if "channel" in store["state"].dims:
        statistics = load_statistics(run.train_store)
        one = statistics.climatology
        names = {k: statistics.scale.coords[k] for k in ("channel", "variable", "level")}
        bare = store["state"].drop_vars(list(names), errors="ignore").assign_coords(names)
        anomalies |= dict(from_channels(bare * statistics.scale).data_vars)  # type: ignore[arg-type]
        coefficients |= dict(one.coefficients.data_vars)  # type: ignore[arg-type]
    series = stored_series(store)
    if series is not None:
        own = series_climatology(run, run.read_config())
        assert own is not None
        one = one or own
        mean = own.at(series["time"])
        anomalies |= {str(n): v - mean[n] for n, v in series.data_vars.items()}
        coefficients |= dict(own.coefficients.data_vars)  # type: ignore[arg-type]
    assert one is not None
    whole = xr.Dataset(anomalies).assign_coords(segment=("time", store["segment"].values))
    climatology = dataclasses.replace(one, coefficients=xr.Dataset(coefficients))
    split = store["split"].values
    blocks = [whole.isel(time=np.flatnonzero(split == number)) for number in (0, 1)]
    return Reference(climatology=climatology, anomaly=blocks[0], validation=blocks[1] if blocks[1].sizes["time"] else None, step=step)


def times_between(time: xr.DataArray, start: str, end: str) -> np.ndarray:
    """Positions of the times from ``start`` to ``end``, both included: dates as text, or picoseconds."""
    if time.dtype.kind in "iuf":
        return np.flatnonzero((time.values >= float(start)) & (time.values <= float(end)))
    where = time.to_index().slice_indexer(start, end)
    positions: np.ndarray = np.arange(len(time))[where]
    return positions
