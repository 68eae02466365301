"""Scores of ensembles: weighted sums for each initial time, metrics from them, and rank histograms.

The sums stand beside those of `sciwm.skill.scores` along ``statistic`` and are averaged and
resampled with them. A forecast without members is an ensemble of one: its CRPS is the absolute
error, its spread undefined.

The library `scores` has a fair CRPS too, and the tests compare. It compares every member with every
other; here members are sorted. So 50 members cost 5 times as much as one pass over them, not 50.
"""

from functools import partial

import numpy as np
import xarray as xr

from sciwm.skill.alignment import over_space

__all__ = [
    "crps",
    "energy_score",
    "ensemble_sums",
    "rank_counts",
    "rank_histogram",
    "single_sums",
    "spread",
    "spread_skill",
]

ENSEMBLE_STATISTICS = ("crps", "ensemble_variance", "expected_square")


def _used(
    forecast: np.ndarray, observed: np.ndarray, climatology: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cells that count, and cells where a member is missing though something was observed."""
    valid = np.isfinite(observed) & np.isfinite(climatology)
    lost = valid & ~np.isfinite(forecast).all(axis=-1)
    return valid & ~lost, lost


def _flat(forecast: np.ndarray, *fields: np.ndarray, space: int) -> tuple[np.ndarray, ...]:
    """``(..., *space, number)`` and ``(..., *space)`` with the dims of space joined, in float64."""
    lead = forecast.shape[: forecast.ndim - 1 - space]
    members = np.asarray(forecast, dtype=float).reshape(*lead, -1, forecast.shape[-1])
    return members, *(np.asarray(f, dtype=float).reshape(*lead, -1) for f in fields)


def _kernel(
    forecast: np.ndarray,
    observed: np.ndarray,
    climatology: np.ndarray,
    weights: np.ndarray,
    *,
    energy: bool,
) -> np.ndarray:
    """Sum over space; returns ``(..., region, statistic)``."""
    f, o, c = _flat(forecast, observed, climatology, space=weights.ndim - 1)
    area = weights.reshape(len(weights), -1).T.astype(float)
    used, lost = _used(f, o, c)
    o = np.where(used, o, 0.0)
    deviation = np.where(used[..., None], f - o[..., None], 0.0)
    number = deviation.shape[-1]
    ordered = np.sort(deviation, axis=-1)
    gaps = ordered @ (2.0 * np.arange(number) - (number - 1))  # sum of |x_i − x_j| over pairs
    distance = gaps / (number * (number - 1)) if number > 1 else 0.0
    variance = deviation.var(axis=-1, ddof=1) if number > 1 else np.full(o.shape, np.nan)
    terms = [np.abs(deviation).mean(axis=-1) - distance, variance, variance * (1 + 1 / number)]
    sums = np.stack([np.where(used, term, 0.0) @ area for term in terms], axis=-1)
    if number == 1:
        sums[..., 1:] = np.nan
    if energy:
        sums = np.concatenate([sums, _energy(deviation, used, area)[..., None]], axis=-1)
    if lost.any():
        sums = np.where((lost.astype(float) @ (area > 0))[..., None] > 0, np.nan, sums)
    return np.asarray(sums)


def _energy(deviation: np.ndarray, used: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Fair energy score of each region times its observed weight: ``(..., region)``."""
    number = deviation.shape[-1]
    total = used.astype(float) @ area
    out = np.empty(total.shape)
    for region in range(area.shape[1]):
        whole = total[..., region, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(whole > 0, area[:, region] / whole, 0.0)
        scaled = deviation * np.sqrt(share)[..., None]
        gram = np.swapaxes(scaled, -1, -2) @ scaled
        square = np.diagonal(gram, axis1=-2, axis2=-1)
        apart = np.sqrt(np.maximum(square[..., :, None] + square[..., None, :] - 2 * gram, 0.0))
        apart[..., np.arange(number), np.arange(number)] = 0.0
        spread = apart.sum(axis=(-1, -2)) / (2 * number * (number - 1)) if number > 1 else 0.0
        out[..., region] = (np.sqrt(square).mean(axis=-1) - spread) * total[..., region]
    return out


def ensemble_sums(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    climatology: xr.DataArray | None = None,
    *,
    weights: xr.DataArray,
    energy: bool = False,
) -> xr.DataArray:
    """Weighted sums of ensemble statistics over each region, for every initial and lead time.

    Cells are left out, and missing members punished, as `sciwm.skill.scores.score_sums` does it.

    Parameters
    ----------
    forecast : DataArray
        Dims ``(init_time, lead_time, number, [level], *space)``; may be lazy.
    observed, climatology : DataArray
        The same dims without ``number``. The climatology only tells which cells count.
    weights : DataArray
        Dims ``(region, *space)``, from `region_weights`.
    energy : bool
        Add the energy score, which compares every member with every other.

    Returns
    -------
    DataArray
        Dims ``(init_time, lead_time, [level], region, statistic)``, lazy. The statistics are the
        fair CRPS, the unbiased variance of the members, and the fair energy score. Beside them
        stands the squared error that the mean of so many reliable members has.
    """
    reference = xr.zeros_like(observed) if climatology is None else climatology
    names = [*ENSEMBLE_STATISTICS, *(["energy_score"] if energy else [])]
    return over_space(
        partial(_kernel, energy=energy),
        forecast,
        observed,
        reference,
        weights=weights,
        dim="statistic",
        labels=names,
    )


def single_sums(sums: xr.DataArray, *, energy: bool = False) -> xr.DataArray:
    """The same statistics of a forecast without members, from its `score_sums`."""
    weight, square = (sums.sel(statistic=n, drop=True) for n in ("weight", "squared_error"))
    undefined = xr.full_like(weight, np.nan)
    parts = {
        "crps": sums.sel(statistic="absolute_error", drop=True),
        "ensemble_variance": undefined,
        "expected_square": undefined,
    }
    if energy:
        parts["energy_score"] = (square * weight) ** 0.5
    joined = xr.concat(list(parts.values()), "statistic").assign_coords(statistic=list(parts))
    return joined.transpose(*sums.dims)


def _get(means: xr.DataArray, name: str) -> xr.DataArray:
    return means.sel(statistic=name, drop=True)


def crps(means: xr.DataArray) -> xr.DataArray:
    r"""Fair continuous ranked probability score, in the variable's units; smaller is better.

    .. math:: \frac1M \sum_i |x_i - o| - \frac{1}{2 M (M-1)} \sum_{i,j} |x_i - x_j|

    Its mean does not depend on the number M of members of a reliable ensemble (Ferro 2014,
    doi:10.1002/qj.2270). Range (−∞, ∞): single values may be negative. A forecast without members
    has its absolute error.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    return _get(means, "crps")


def energy_score(means: xr.DataArray) -> xr.DataArray:
    r"""Fair energy score of whole fields, in the variable's units; smaller is better.

    .. math:: \frac1M \sum_i \lVert x_i - o \rVert
        - \frac{1}{2 M (M-1)} \sum_{i,j} \lVert x_i - x_j \rVert

    with the norm :math:`\lVert d \rVert^2 = \sum_x w d^2 / \sum_x w` over the region (Gneiting and
    Raftery 2007, doi:10.1198/016214506000001437). A forecast without members has its
    root-mean-square error of the day.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    return _get(means, "energy_score")


def spread(means: xr.DataArray) -> xr.DataArray:
    """Root of the mean unbiased variance of the members, in the variable's units; range [0, ∞).

    NaN without members.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    return _get(means, "ensemble_variance") ** 0.5


def spread_skill(means: xr.DataArray) -> xr.DataArray:
    r"""Spread over the error of the ensemble mean; unitless, range [0, ∞), 1 is reliable.

    Less than 1 is overconfident:

    .. math:: \sqrt{\frac{(1 + 1/M)\, \overline{s^2}}{\overline{(\bar x - o)^2}}}

    The factor makes 1 the value of any number M of reliable members (Fortin et al. 2014,
    doi:10.1175/JHM-D-14-0008.1).

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits`, with the dim ``statistic``.
    """
    error = _get(means, "squared_error")
    return (_get(means, "expected_square") / error.where(error > 0)) ** 0.5


def _ranks(forecast: np.ndarray, observed: np.ndarray, weights: np.ndarray) -> np.ndarray:
    f, o = _flat(forecast, observed, space=weights.ndim - 1)
    area = weights.reshape(len(weights), -1).T.astype(float)
    used, _ = _used(f, o, np.zeros_like(o))
    below, equal = (f < o[..., None]).sum(axis=-1), (f == o[..., None]).sum(axis=-1)
    share = np.where(used, 1.0 / (equal + 1), 0.0)
    out = np.zeros((*o.shape[:-1], area.shape[1], f.shape[-1] + 1))
    for rank in range(f.shape[-1] + 1):
        out[..., rank] = (share * ((below <= rank) & (rank <= below + equal))) @ area
    return out


def rank_counts(
    forecast: xr.DataArray, observed: xr.DataArray, *, weights: xr.DataArray
) -> xr.DataArray:
    """Weight of the cells at which the observation has each rank among the members.

    The arguments are those of `rank_histogram`.

    Returns
    -------
    DataArray
        Dims ``(init_time, lead_time, [level], region, rank)``, lazy; may be added up.
    """
    return over_space(
        _ranks,
        forecast,
        observed,
        weights=weights,
        dim="rank",
        labels=range(forecast.sizes["number"] + 1),
    )


def rank_histogram(
    forecast: xr.DataArray, observed: xr.DataArray, *, weights: xr.DataArray
) -> xr.DataArray:
    """How often the observation has which rank among the members, weighted by area.

    It is flat, 1 everywhere, for a reliable ensemble. U-shaped is overconfident, hump-shaped
    underconfident, sloped biased. An observation equal to
    members (zero rain) counts for each of the ranks it could have, in equal parts. Cells at which
    it or a member is missing are left out.

    Parameters
    ----------
    forecast : DataArray
        Dims ``(init_time, lead_time, number, [level], *space)``; may be lazy.
    observed : DataArray
        The same dims without ``number``.
    weights : DataArray
        Dims ``(region, *space)``, from `region_weights`.

    Returns
    -------
    DataArray
        Dims ``(lead_time, [level], region, rank)`` with the M + 1 ranks; mean 1 over them, NaN
        where nothing was observed.
    """
    total = rank_counts(forecast, observed, weights=weights).sum("init_time")
    mean = total.mean("rank")
    return (total / mean.where(mean > 0)).compute()
