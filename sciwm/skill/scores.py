"""Scores of forecasts: weighted sums for each initial time first, metrics from them.

The sums of two groups of cells add up; those of two groups of initial times are joined. So scores
of a chunked forecast equal those of the whole one. The bootstrap (`sciwm.skill.significance`)
resamples the same sums.

The library `scores` gives the same squared, absolute and mean errors, and the tests compare. It
passes over the fields once for each of them. Here all nine sums come from one pass, because reading
a large forecast is what costs.
"""

import numpy as np
import xarray as xr

from sciwm.skill.alignment import over_space

__all__ = [
    "STATISTICS",
    "acc",
    "area_means",
    "bias",
    "correlation",
    "index_rmse",
    "mae",
    "mean_over_inits",
    "nmse",
    "rmse",
    "score_sums",
]

STATISTICS = (
    "weight",
    "squared_error",
    "absolute_error",
    "error",
    "anomaly_product",
    "forecast_square",
    "observed_square",
    "forecast_anomaly",
    "observed_anomaly",
)
_PRODUCTS = (
    "forecast_anomaly_square",
    "observed_anomaly_square",
    "area_product",
    "area_error_square",
)


def _kernel(
    forecast: np.ndarray, observed: np.ndarray, climatology: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Sum over the trailing axes; returns ``(..., region, statistic)``."""
    cells = int(np.prod(weights.shape[1:]))
    lead = forecast.shape[: forecast.ndim - (weights.ndim - 1)]
    area = weights.reshape(len(weights), cells).T.astype(float)
    fields = (forecast, observed, climatology)
    f, o, c = (np.asarray(a, dtype=float).reshape(*lead, cells) for a in fields)
    valid = np.isfinite(o) & np.isfinite(c)
    lost = valid & ~np.isfinite(f)
    used = valid & ~lost
    f, o, c = (np.where(used, a, 0.0) for a in (f, o, c))
    error, fa, oa = f - o, f - c, o - c
    terms = (valid.astype(float), error**2, np.abs(error), error, fa * oa, fa**2, oa**2, fa, oa)
    sums = np.stack([term @ area for term in terms], axis=-1)
    if lost.any():
        spoilt = lost.astype(float) @ (area > 0) > 0
        sums[..., 1:] = np.where(spoilt[..., None], np.nan, sums[..., 1:])
    return sums


def score_sums(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    climatology: xr.DataArray | None = None,
    *,
    weights: xr.DataArray,
) -> xr.DataArray:
    """Weighted sums over each region, for every initial and lead time.

    Cells missing in ``observed`` or ``climatology`` are left out with their weight. A forecast
    missing where an observation exists makes the sums of that region NaN: it is not excused.

    Parameters
    ----------
    forecast : DataArray
        Dims ``(init_time, lead_time, [level], *space)``, physical units; may be lazy.
    observed, climatology : DataArray
        The same dims: values at the valid times. Without a climatology anomalies are the values
        themselves.
    weights : DataArray
        Dims ``(region, *space)``, from `region_weights`.

    Returns
    -------
    DataArray
        Dims ``(init_time, lead_time, [level], region, statistic)``, lazy; ``statistic`` as in
        `STATISTICS`.
    """
    reference = xr.zeros_like(observed) if climatology is None else climatology
    return over_space(
        _kernel, forecast, observed, reference, weights=weights, dim="statistic", labels=STATISTICS
    )


def area_means(sums: xr.DataArray) -> xr.DataArray:
    """Area means for every initial time; with anomalies, their squares and products, too.

    ``weight`` becomes 1 where anything was observed and 0 elsewhere, where all other means are 0.
    """
    weight = _get(sums, "weight")
    valid = weight > 0
    means = (sums / weight.where(valid)).where(valid, 0.0)
    names = sums["statistic"].values.tolist()
    if "forecast_anomaly" not in names:
        return means
    f, o, e = (_get(means, n) for n in ("forecast_anomaly", "observed_anomaly", "error"))
    parts = [means.drop_vars("statistic"), f**2, o**2, f * o, e**2]
    joined = xr.concat(parts, "statistic", coords="minimal", compat="override")
    return joined.assign_coords(statistic=[*names, *_PRODUCTS]).transpose(*sums.dims)


def mean_over_inits(means: xr.DataArray) -> xr.DataArray:
    """Mean of `area_means` over the initial times with an observation; NaN without any."""
    total = means.sum("init_time", skipna=False)
    count = _get(total, "weight")
    return total / count.where(count > 0)


def _get(means: xr.DataArray, name: str) -> xr.DataArray:
    return means.sel(statistic=name, drop=True)


def rmse(means: xr.DataArray) -> xr.DataArray:
    r"""Root-mean-square error, in the variable's units; range [0, ∞), 0 is perfect.

    .. math:: \sqrt{\frac1N \sum_i \frac{\sum_x w (f-o)^2}{\sum_x w}}

    The mean over initial times is taken before the root.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    return _get(means, "squared_error") ** 0.5


def mae(means: xr.DataArray) -> xr.DataArray:
    """Mean absolute error, in the variable's units; range [0, ∞), 0 is perfect.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    return _get(means, "absolute_error")


def bias(means: xr.DataArray) -> xr.DataArray:
    """Mean of forecast minus observed, in the variable's units; range (−∞, ∞), 0 is perfect.

    Positive is too high.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    return _get(means, "error")


def acc(means: xr.DataArray) -> xr.DataArray:
    r"""Anomaly correlation; unitless, range [−1, 1], 1 is perfect, larger is better.

    .. math:: \frac{\sum_i \langle f'o' \rangle_i}
        {\sqrt{\sum_i \langle f'^2 \rangle_i \sum_i \langle o'^2 \rangle_i}}

    Uncentred: anomalies are from the training climatology, and no mean is removed. Pooled: the sums
    over initial times are taken before the ratio. So days of large anomalies count more than in a
    mean of daily correlations. NaN for a forecast that equals the climatology, up to rounding in
    float32.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    f, o = _get(means, "forecast_square"), _get(means, "observed_square")
    alive = (o > 0) & (f > 1e-9 * o)  # what is left of a climatology that was stored in float32
    return (_get(means, "anomaly_product") / (f * o).where(alive) ** 0.5).clip(-1.0, 1.0)


def correlation(means: xr.DataArray) -> xr.DataArray:
    """Correlation of the region's mean anomaly over initial times; unitless, range [−1, 1].

    1 is perfect, larger is better. It is centred (Pearson): the skill of an index such as Niño3.4.
    NaN if either series is constant.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    f, o = _get(means, "forecast_anomaly"), _get(means, "observed_anomaly")
    ff, oo = _get(means, "forecast_anomaly_square"), _get(means, "observed_anomaly_square")
    varf, varo = ff - f**2, oo - o**2
    alive = (varf > 1e-12 * ff) & (varo > 1e-12 * oo)  # cancellation leaves no exact zeros
    covariance = _get(means, "area_product") - f * o
    return (covariance / (varf * varo).where(alive) ** 0.5).clip(-1.0, 1.0)


def index_rmse(means: xr.DataArray) -> xr.DataArray:
    r"""Root-mean-square error of the region's mean, in the variable's units; range [0, ∞).

    .. math:: \sqrt{\frac1N \sum_i (\bar f_i - \bar o_i)^2}

    0 is perfect. It is the error of an index such as Niño3.4: errors of opposite sign within the
    region cancel. In `rmse` they do not.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    return _get(means, "area_error_square") ** 0.5


def nmse(means: xr.DataArray) -> xr.DataArray:
    """Mean squared error over that of the climatology; unitless, range [0, ∞), 0 is perfect.

    1 is as good as the climatology.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    variance = _get(means, "observed_square")
    return _get(means, "squared_error") / variance.where(variance > 0)
