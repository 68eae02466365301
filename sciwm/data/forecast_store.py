"""Forecasts on disk: the WeatherBench 2 layout, with the names and units of the source."""

import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from rich.progress import Progress

from sciwm.atomic import replacing
from sciwm.data.layout import to_original

__all__ = ["to_disk_layout", "write_forecast", "write_forecasts"]


def to_disk_layout(forecast: xr.Dataset) -> xr.Dataset:
    """Give a forecast the dims of the WeatherBench 2 layout and the source's names and units.

    ``init_time`` becomes ``time``, ``lead_time`` becomes ``prediction_timedelta``. WeatherBench-X,
    and a plain `xarray.open_zarr`, read the result as it is.
    """
    out = to_original(forecast)
    if "segment" in forecast.coords and "init_time" in forecast["segment"].dims:
        out = out.assign_coords(segment=forecast["segment"].variable)
    out = out.rename(init_time="time", lead_time="prediction_timedelta")
    out["time"].attrs.setdefault("standard_name", "forecast_reference_time")
    out["prediction_timedelta"].attrs.setdefault("standard_name", "forecast_period")
    return out


def write_forecast(
    batches: Iterable[xr.Dataset],
    out: str | Path,
    *,
    total: int,
    attrs: dict[str, Any] | None = None,
    progress: str = "forecast",
) -> Path:
    """Append batches of forecasts to a Zarr store, which appears under its name when complete.

    Parameters
    ----------
    batches : iterable of Dataset
        Forecasts of some initial times each; only one is in memory at a time.
    out : path
        A new folder, ``*.zarr``.
    total : int
        Initial times in all, for the progress bar.
    attrs : dict, optional
        Added to the attributes of the store.
    progress : str
        Text beside the progress bar.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    FileExistsError
        If something is there already.
    ValueError
        If there is no batch.
    """
    named = ({"": batch} for batch in batches)
    stores = {"": (Path(out), attrs or {})}
    return write_forecasts(named, stores, total=total, progress=progress)[0]


def write_forecasts(
    batches: Iterable[Mapping[str, xr.Dataset]],
    stores: Mapping[str, tuple[Path, dict[str, Any]]],
    *,
    total: int,
    progress: str = "forecast",
    chunk: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Write several forecasts that are made together, each to a store of its own.

    Parameters
    ----------
    batches : iterable of mapping of str to Dataset
        Forecasts by name, as `WorldModel.forecast_batches` yields them.
    stores : mapping of str to (path, attributes)
        Where each goes, and what is added to its attributes.
    total, progress
        As `write_forecast` takes them.
    chunk : int
        Initial times that are written together, at least; an ensemble is written as it comes.
    overwrite : bool
        Replace what is there, once the new stores are complete.

    Returns
    -------
    list of Path
        In the order of ``stores``; they appear under their names when all are complete.

    Raises
    ------
    FileExistsError
        If something is there already.
    ValueError
        If there is no batch.
    """
    for path, _ in stores.values():
        if path.exists() and not overwrite:
            raise FileExistsError(
                f"got {path}, which exists already, expected a new name: remove it or choose"
                " another"
            )
    held: dict[str, list[xr.Dataset]] = {name: [] for name in stores}
    count = 0
    with ExitStack() as stack, Progress(transient=True) as bar:
        partial = {}
        for name, (path, _) in stores.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial[name] = stack.enter_context(replacing(path))
        task = bar.add_task(progress, total=total)
        for batch in batches:
            now = next(iter(batch.values())).sizes["init_time"]
            count += now
            for name, (_, attrs) in stores.items():
                held[name].append(batch[name])
                together = sum(ds.sizes["init_time"] for ds in held[name])
                if "number" in batch[name].dims or together >= chunk:
                    _append(held[name], partial[name], attrs)
                    held[name] = []
            bar.advance(task, now)
        for name, (_, attrs) in stores.items():
            if held[name]:
                _append(held[name], partial[name], attrs)
        if not count:
            listed = ", ".join(str(path) for path, _ in stores.values())
            raise ValueError(
                f"got no forecasts to write to {listed}, expected at least one initial time"
            )
        for path in partial.values():
            with warnings.catch_warnings():
                # zarr-python warns that other readers may not know consolidated metadata; those
                # read it array by array as before.
                warnings.filterwarnings(
                    "ignore", message="Consolidated metadata is currently not part"
                )
                zarr.consolidate_metadata(path)
    return [path for path, _ in stores.values()]


def _append(batches: list[xr.Dataset], path: Path, attrs: dict[str, Any]) -> None:
    """Add batches of initial times to a store that is being written."""
    whole = batches[0] if len(batches) == 1 else xr.concat(batches, "init_time", join="exact")
    ds = to_disk_layout(whole).assign_attrs(attrs)
    if path.exists():
        ds.to_zarr(path, append_dim="time", consolidated=False)
        return
    encoding: dict[str, dict[str, Any]] = {
        str(n): {"chunks": v.shape} for n, v in ds.data_vars.items()
    }
    if ds["time"].dtype.kind in "MO":
        # Fixed beforehand: units found for the first batch, such as days, may not do for the next.
        encoding["time"] = {
            "units": "seconds since 1970-01-01",
            "calendar": ds["time"].dt.calendar,
            "dtype": "int64",
        }
    ds.to_zarr(path, mode="w", encoding=encoding, zarr_format=3, consolidated=False)
