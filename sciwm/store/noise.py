"""Whether the mean of every cell is known, or no more than sampling noise about a common one."""

import numpy as np
import xarray as xr

__all__ = ["mean_is_noise"]

_SPACE = ("latitude", "longitude")
# Of homogeneous turbulence the ratio is up to 1.3, of observed anomalies 4.9 and of fields over 30.
_MOST_RATIO = 2.0
_MOST_TIMES, _FEWEST_TIMES = 256, 64
_MOST_VALUES, _MOST_DECODED = 2**25, 2**28  # of one variable


def mean_is_noise(ds: xr.Dataset, *, label: np.ndarray) -> bool:
    r"""Whether means of the training block differ between cells as by chance alone.

    So it is if no channel has more than twice the variance that chance gives:

    .. math:: \frac{\operatorname{var}_\mathrm{cells} \bar x}
        {\operatorname{var}_\mathrm{cells} (x - \bar x)} \cdot n \frac{1 - r}{1 + r} \le 2

    Here r is the autocorrelation of anomalies from one of the n times to the next. What cells have
    in common drops out of both variances.

    Cheap: up to 256 times are read, evenly spaced. The first variable whose means are told apart
    ends the search. Records of fewer than 64 times, and states too large to read so many, are not
    looked at.

    Parameters
    ----------
    ds : Dataset
        Canonical grid Dataset, lazy or not, with ``segment(time)``.
    label : int8, ``[time]``
        As `sciwm.store.split.split_times` returns; only times labelled 0 are read.

    Returns
    -------
    bool
        False where nothing was looked at.
    """
    fields = [v for v in ds.data_vars.values() if {"time", *_SPACE} <= set(v.dims)]
    train = np.flatnonzero(np.asarray(label) == 0)
    return bool(fields) and all(_ratio(field, train) <= _MOST_RATIO for field in fields)


def _ratio(field: xr.DataArray, train: np.ndarray) -> float:
    """The largest ratio of all levels; NaN if they are not looked at."""
    cells = field.size // field.sizes["time"]
    chunk = max(field.chunksizes.get("time", (1,)))
    most = min(_MOST_TIMES, _MOST_VALUES // cells)
    if field.size > _MOST_DECODED:  # chunks are decoded whole
        most = min(most, _MOST_DECODED // (cells * chunk))
    stride = max(1, -(-train.size // max(most, 1)))
    index = train[::stride]
    if index.size < _FEWEST_TIMES:
        return float("nan")
    x = field.isel(time=index).astype(np.float64).compute()
    area: xr.DataArray = np.cos(np.deg2rad(x["latitude"]))  # type: ignore[assignment]
    count, mean = x.notnull().sum("time"), x.mean("time")
    anomaly = x - mean
    anomaly = anomaly - anomaly.weighted(area).mean(_SPACE)
    variance = (anomaly**2).mean("time")
    near = (np.diff(index) == stride) & (np.diff(x["segment"].values) == 0)
    after = np.flatnonzero(near) + 1
    both = anomaly.isel(time=after - 1) * anomaly.isel(time=after).variable
    lagged = both.mean("time").weighted(area).mean(_SPACE) / variance.weighted(area).mean(_SPACE)
    r = lagged.fillna(0.0).clip(0.0)
    by_chance = (variance / count).weighted(area).mean(_SPACE) * (1 + r) / (1 - r)
    apart = mean - mean.weighted(area).mean(_SPACE)
    return float(((apart**2).weighted(area).mean(_SPACE) / by_chance).max(skipna=False))
