"""Anomalies of all variables as rows of one matrix, standardized and weighted, for EOFs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sciwm.regions import region_weights

__all__ = ["StateLayout", "fit_layout"]

_BLOCK = 2_000_000  # values of one in-memory block


@dataclass(frozen=True)
class StateLayout:
    """How variables become columns of a matrix and back.

    Parameters
    ----------
    template : Dataset
        One anomaly field of each variable without time; gives dims and coordinates.
    keep : ndarray of bool, ``(all cells,)``
        Cells that were observed in most of the training block.
    factor : ndarray, ``(kept cells,)``
        It multiplies anomalies: sqrt(share of the area) / standard deviation of the channel.
    channel : ndarray of int, ``(kept cells,)``
        Number of the (variable, level) a column belongs to.
    """

    template: xr.Dataset
    keep: np.ndarray
    factor: np.ndarray
    channel: np.ndarray

    def to_matrix(self, anomaly: xr.Dataset, *, dim: str) -> np.ndarray:
        """Rows along ``dim``, in memory; missing anomalies become 0."""
        fields = [anomaly[n].transpose(dim, *v.dims) for n, v in self.template.data_vars.items()]
        parts = [_flat(field.values) for field in fields]
        matrix = np.concatenate(parts, axis=1)[:, self.keep] * self.factor
        return np.asarray(np.nan_to_num(matrix, copy=False))

    def scatter(self, matrix: np.ndarray) -> np.ndarray:
        """Restore anomalies in physical units, ``(..., all cells)``; cells left out are 0."""
        full = np.zeros((*matrix.shape[:-1], self.keep.size))
        full[..., self.keep] = matrix / self.factor
        return full

    def nmse(self, forecast: np.ndarray, truth: np.ndarray) -> float:
        """Squared error of rows over that of the climatology, mean of all channels."""
        error = np.bincount(self.channel, ((forecast - truth) ** 2).sum(axis=0))
        variance = np.bincount(self.channel, (truth**2).sum(axis=0))
        used = variance > 0
        return float((error[used] / variance[used]).mean())

    def forecast(
        self,
        kernel: Callable[..., np.ndarray],
        z: np.ndarray,
        *others: np.ndarray,
        init: xr.DataArray,
        lead: xr.DataArray,
    ) -> xr.Dataset:
        """Forecast anomalies from rows, lazily and in blocks of initial times.

        ``kernel`` gets a block of ``z`` and of the ``others``, which have one value for each row.
        It returns ``(init, lead, kept cells)``. Dims of the forecast are
        ``(init_time, lead_time, [level], *space)``; ``init`` and ``lead`` are its times, as
        `sciwm.skill.baselines.simple.axes` makes them.
        """
        size = max(1, _BLOCK // (self.keep.size * lead.size))
        rows = [
            xr.DataArray(a, dims=("init_time", "kept")[: a.ndim]).chunk(init_time=size)
            for a in (z, *others)
        ]
        full = xr.apply_ufunc(
            lambda *blocks: self.scatter(kernel(*blocks)),
            *rows,
            input_core_dims=[["kept"], *([] for _ in others)],
            output_core_dims=[["lead_time", "cell"]],
            dask="parallelized",
            output_dtypes=[float],
            dask_gufunc_kwargs={"output_sizes": {"lead_time": lead.size, "cell": self.keep.size}},
        )
        made = self.to_dataset(full.data, dims=("init_time", "lead_time"))
        return made.assign_coords(init_time=init, lead_time=lead)

    def to_dataset(self, full: Any, *, dims: tuple[str, ...]) -> xr.Dataset:
        """Split an array ``(*dims, all cells)`` into variables, lazy if it is."""
        out, start = {}, 0
        for name, field in self.template.data_vars.items():
            values = full[..., start : start + field.size].reshape((*full.shape[:-1], *field.shape))
            out[name] = xr.DataArray(values, dims=(*dims, *field.dims), coords=field.coords)
            start += field.size
        return xr.Dataset(out)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).astype(float)


def fit_layout(anomaly: xr.Dataset) -> tuple[StateLayout, np.ndarray]:
    """Layout of the training anomalies, and their matrix.

    Every channel is divided by its area-weighted standard deviation over the training block. Every
    cell is weighted by the root of its share of the area. So each channel has the same total
    variance.

    Returns
    -------
    StateLayout
    ndarray, ``(time, kept cells)``
    """
    template = anomaly.isel(time=0, drop=True).drop_vars("segment", errors="ignore")
    flat, keep, factor, channel = [], [], [], []
    count = 0
    for name, field in template.data_vars.items():
        levels = field.sizes.get("level", 1)
        values = anomaly[name].transpose("time", *field.dims).values.astype(float)
        share_of_area = region_weights(field).isel(region=0, drop=True)
        area = share_of_area.broadcast_like(field).transpose(*field.dims).values.ravel()
        along = [levels if d == "level" else 1 for d in field.dims]
        number = np.broadcast_to(np.arange(levels).reshape(along), field.shape).ravel()
        x = _flat(values)
        seen = (np.isfinite(x).mean(axis=0) > 0.5) & (area > 0)
        x = np.where(np.isfinite(x), x, 0.0)
        square = (x**2).mean(axis=0)
        scale = np.zeros(field.size)
        for k in range(levels):
            cells = (number == k) & seen
            share = area[cells] / area[cells].sum() if cells.any() else area[cells]
            variance = float(share @ square[cells])
            scale[cells] = np.sqrt(share / variance) if variance > 0 else 0.0
        kept = seen & (scale > 0)
        flat.append(x[:, kept] * scale[kept])
        keep.append(kept)
        factor.append(scale[kept])
        channel.append(number[kept] + count)
        count += levels
    if not any(k.any() for k in keep):
        raise ValueError(
            "got training anomalies without any varying, observed cell, expected at least one,"
            " because EOFs are made of them"
        )
    joined = (np.concatenate(parts) for parts in (keep, factor, channel))
    return StateLayout(template, *joined), np.concatenate(flat, axis=1)
