"""What lies behind the scores: maps of error, zonal spectra and rank histograms.

Every method has them, for a few leads.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciwm.atomic import replacing
from sciwm.regions import region_weights
from sciwm.skill.alignment import evenly_spread, over_inits
from sciwm.skill.ensemble import rank_counts
from sciwm.skill.lineup import Block, Lineup, as_channels
from sciwm.skill.spectra import goes_round, zonal_power
from sciwm.skill.sums import collect

__all__ = ["DiagnosticSums", "diagnose", "write_diagnostics"]

_JOIN: dict[str, Any] = {"coords": "minimal", "compat": "override", "join": "outer"}
_ORDER = ("method", "channel", "lead_time")


def diagnose(lineup: Lineup, *, most_leads: int = 4, most_cells: int = 8000) -> xr.Dataset:
    r"""Compute maps of error, spectra and rank histograms of every method.

    .. math:: \mathrm{rmse}(x) = \sqrt{\frac1N \sum_i (f_i(x) - o_i(x))^2}, \qquad
        \mathrm{bias}(x) = \frac1N \sum_i (f_i(x) - o_i(x))

    Sums over initial times are taken block by block: memory does not grow with their number. Maps
    and spectra are for fields on ``latitude`` and ``longitude``. Spectra also need longitudes that
    go round the globe, and no missing value. Of an ensemble, the map shows the mean, and the
    spectrum is the mean over the members. Only ensembles have rank histograms.

    Parameters
    ----------
    lineup : Lineup
        From `line_up`.
    most_leads : int
        Lead times, evenly spread from the first to the last.
    most_cells : int
        Of a map. On finer grids, means over boxes of n × n cells are shown, n in
        ``attrs["cells_per_box"]``.

    Returns
    -------
    Dataset
        What the data allow of the following, with the coordinate ``units(channel)``.

        - ``rmse``, ``bias``: ``(method, channel, lead_time, latitude, longitude)``, in the
          variable's units. 0 is perfect; NaN where nothing was observed.
        - ``spectrum``: ``(method, channel, lead_time, zonal_wavenumber)``, in squared units.
        - ``observed_spectrum``: ``(channel, lead_time, zonal_wavenumber)``, in squared units.
        - ``rank_frequency``: ``(method, channel, lead_time, rank)``. 1 everywhere if reliable; NaN
          for methods without members.

    Examples
    --------
    >>> from sciwm.skill.lineup import line_up
    >>> days = np.arange("2000-01-01", "2000-01-11", dtype="M8[D]").astype("M8[ns]")
    >>> globe = {"latitude": [-30.0, 30.0], "longitude": np.arange(0.0, 360.0, 90.0)}
    >>> truth = xr.Dataset({"t": (("time", *globe), np.ones((10, 2, 4)))}, {"time": days, **globe})
    >>> lead = np.array([1], "m8[D]").astype("m8[ns]")
    >>> zeros = (("init_time", "lead_time", *globe), np.zeros((5, 1, 2, 4)))
    >>> forecast = xr.Dataset({"t": zeros}, {"init_time": days[:5], "lead_time": lead, **globe})
    >>> found = diagnose(line_up(forecast, truth, baselines=[]))
    >>> float(found["bias"].mean()), found["observed_spectrum"].values.ravel().tolist()
    (-1.0, [1.0, 0.0, 0.0])
    """
    found = DiagnosticSums(lineup, most_leads=most_leads, most_cells=most_cells)
    collect(lineup, found, normal=False, progress="diagnostics")
    return found.diagnostics()


class DiagnosticSums:
    """Sums that maps, spectra and rank histograms are made of.

    Parameters
    ----------
    lineup, most_leads, most_cells
        As `diagnose` takes them.
    """

    def __init__(self, lineup: Lineup, *, most_leads: int = 4, most_cells: int = 8000) -> None:
        self.lineup, self.most_cells = lineup, most_cells
        self.leads = evenly_spread(lineup.times.lead.size, most_leads)
        self.total: xr.Dataset | None = None

    def lazy(self, block: Block) -> xr.Dataset:
        """Sums over the initial times of a block."""
        return _block_sums(block.at_leads(self.leads), self.most_cells)

    def add(self, computed: xr.Dataset) -> None:
        """Add the sums of a block."""
        self.total = computed if self.total is None else self.total + computed

    def diagnostics(self) -> xr.Dataset:
        """Give what `diagnose` returns, once all blocks are added."""
        assert self.total is not None
        total, channels = self.total, []
        for name, field in self.lineup.observed.data_vars.items():
            channels += [str(c) for c in as_channels(field, str(name))["channel"].values]
        if total.data_vars:
            there = total["channel"].values
            total = total.reindex(channel=[c for c in channels if c in there])
        return _finish(total, self.lineup, self.leads, self.most_cells)


def write_diagnostics(diagnostics: xr.Dataset, path: str | Path) -> None:
    """Write what `diagnose` found as NetCDF, compressed, in single precision.

    The file is whole or not there.
    """
    small = {"dtype": "float32", "zlib": True, "complevel": 4}
    encoding = {str(n): small for n in diagnostics.data_vars}
    with replacing(Path(path)) as temporary:
        diagnostics.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def _block_sums(block: Block, most_cells: int) -> xr.Dataset:
    """Sums over the initial times of a block, lazy; they add up."""
    maps: dict[str, list[xr.DataArray]] = {}
    spectra: dict[str, list[xr.DataArray]] = {}
    ranks: dict[str, list[xr.DataArray]] = {}
    observed: list[xr.DataArray] = []
    for name, array in block.observed.data_vars.items():
        truth = block.truth(str(name))
        on_grid = {"latitude", "longitude"} <= set(array.dims)
        wavy = on_grid and goes_round(array)
        if wavy:
            observed.append(_channels(_spectra(truth), name))
        for method, ds in block.fields.items():
            if on_grid:
                errors = _error_maps(ds[name], truth, most_cells)
                maps.setdefault(method, []).append(_channels(errors, name))
            if wavy:
                spectra.setdefault(method, []).append(_channels(_spectra(ds[name]), name))
            if "number" in ds[name].dims:
                counts = rank_counts(ds[name], truth, weights=region_weights(array))
                counts = counts.isel(region=0, drop=True).sum("init_time")
                ranks.setdefault(method, []).append(_channels(counts, name))
    found = {"maps": maps, "spectrum": spectra, "ranks": ranks}
    out = xr.Dataset({name: _joined(parts) for name, parts in found.items() if parts})
    if observed:
        out["observed_spectrum"] = xr.concat(observed, "channel", **_JOIN)
    return out


def _channels(sums: xr.DataArray, name: object) -> xr.DataArray:
    return as_channels(sums, str(name)).drop_vars(("variable", "level"))


def _joined(parts: Mapping[str, list[xr.DataArray]]) -> xr.DataArray:
    each = [xr.concat(channels, "channel", **_JOIN) for channels in parts.values()]
    return xr.concat(each, "method", **_JOIN).assign_coords(method=list(parts))


def _boxes(latitude: int, longitude: int, most_cells: int) -> int:
    return max(1, int(np.ceil(np.sqrt(latitude * longitude / most_cells))))


def _error_maps(forecast: xr.DataArray, observed: xr.DataArray, most_cells: int) -> xr.DataArray:
    """Count, sum of squared errors and sum of errors in boxes of cells.

    They are flat: ``(lead_time, [level], cell)``.
    """
    rows, columns = observed.sizes["latitude"], observed.sizes["longitude"]
    size = _boxes(rows, columns, most_cells)
    cells = 3 * -(-rows // size) * -(-columns // size)
    return over_inits(partial(_box_sums, size=size), forecast, observed, dim="cell", size=cells)


def _box_sums(forecast: np.ndarray, observed: np.ndarray, *, size: int) -> np.ndarray:
    valid = np.isfinite(observed)
    mean = forecast.mean(axis=-1, dtype=float) if forecast.ndim > observed.ndim else forecast
    error = np.subtract(mean, observed, dtype=float)
    error[~valid] = 0.0
    square = np.einsum("i...,i...->...", error, error)
    out = np.stack([valid.sum(axis=0, dtype=float), square, error.sum(axis=0)], axis=-3)
    if size > 1:
        for axis in (-2, -1):
            out = np.add.reduceat(out, np.arange(0, out.shape[axis], size), axis=axis)
    return np.asarray(out.reshape(*out.shape[:-3], -1))


def _spectra(field: xr.DataArray) -> xr.DataArray:
    """Sum over initial times of the mean `zonal_spectrum` of the members.

    Its dims are ``(lead_time, [level], zonal_wavenumber)``.
    """
    share = region_weights(field).isel(region=0, longitude=0).values
    waves = field.sizes["longitude"] // 2 + 1
    kernel = partial(_spectrum_sums, share=share / share.sum(), members="number" in field.dims)
    sums = over_inits(kernel, field, dim="zonal_wavenumber", size=waves)
    return sums.assign_coords(zonal_wavenumber=range(waves))


def _spectrum_sums(values: np.ndarray, *, share: np.ndarray, members: bool) -> np.ndarray:
    used = share > 0  # a circle of no area may be missing
    each = np.moveaxis(values, -1, 0) if members else values[None]
    power = sum(zonal_power(one[..., used, :]).sum(axis=0) for one in each)
    return np.asarray(share[used] @ power / len(each))


def _finish(total: xr.Dataset, lineup: Lineup, leads: list[int], most_cells: int) -> xr.Dataset:
    """Means from sums."""
    count = lineup.times.init.size
    out: dict[str, xr.DataArray] = {}
    size = 1
    if "maps" in total:
        fields = lineup.observed.data_vars.values()
        field = next(v for v in fields if {"latitude", "longitude"} <= set(v.dims))
        size = _boxes(field.sizes["latitude"], field.sizes["longitude"], most_cells)
        axes = {d: _centres(field[d].values.astype(float), size) for d in ("latitude", "longitude")}
        maps = total["maps"].transpose(*_ORDER, "cell")
        shape = (*maps.shape[:-1], 3, *(len(a) for a in axes.values()))
        valid, square, error = np.moveaxis(maps.values.reshape(shape), 3, 0)
        coords = {d: total[d] for d in _ORDER} | axes
        with np.errstate(divide="ignore", invalid="ignore"):
            out["rmse"] = xr.DataArray(np.sqrt(square / valid), coords, tuple(coords))
            out["bias"] = xr.DataArray(error / valid, coords, tuple(coords))
    for name in ("spectrum", "observed_spectrum"):
        if name in total:
            mean = total[name] / count
            out[name] = mean.transpose(..., "channel", "lead_time", "zonal_wavenumber")
    if "ranks" in total:
        mean = total["ranks"].mean("rank")
        frequency = total["ranks"] / mean.where(mean > 0)
        out["rank_frequency"] = frequency.transpose(*_ORDER, "rank")
    methods = [m for m in lineup.names if m in total.get("method", ())]
    result = xr.Dataset(out).reindex({"method": methods})
    if out:
        of_channel = {
            c: str(v.attrs.get("units", ""))
            for n, v in lineup.observed.data_vars.items()
            for c in as_channels(v, str(n))["channel"].values
        }
        units = [of_channel[str(c)] for c in result["channel"].values]
        lead = lineup.times.lead[leads]
        result = result.assign_coords(units=("channel", units), lead_time=lead)
    about = {k: v for k, v in lineup.observed.attrs.items() if k == "coastlines"}
    return result.assign_attrs(about | {"num_init": count, "cells_per_box": size})


def _centres(axis: np.ndarray, size: int) -> np.ndarray:
    starts = np.arange(0, len(axis), size)
    return np.asarray(np.add.reduceat(axis, starts) / np.diff([*starts, len(axis)]))
