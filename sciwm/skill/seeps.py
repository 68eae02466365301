"""SEEPS: how well precipitation is put into the categories dry, light and heavy of its climate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr

from sciwm.skill.alignment import at_positions, over_space
from sciwm.skill.baselines.simple import Reference
from sciwm.skill.events import with_members
from sciwm.times import calendar_fields

__all__ = [
    "RainClimate",
    "fit_rain_climate",
    "is_precipitation",
    "rain_climates",
    "seeps",
    "seeps_sums",
]

_MILLIMETRES = {
    "m": 1000.0,
    "mm": 1.0,
    "kg m-2": 1.0,
    "kg m**-2": 1.0,
    "mm/day": 1.0,
    "mm day-1": 1.0,
    "mm d-1": 1.0,
    "kg m-2 s-1": 86400.0,
}
"""What one unit is in millimetres, or millimetres a day."""
_LOWEST, _HIGHEST = 0.1, 0.85


@dataclass(frozen=True)
class RainClimate:
    """What divides dry, light and heavy in each cell and calendar month of the training block.

    Parameters
    ----------
    dry : float
        At most so much is dry, in the units of the data.
    dry_probability : DataArray
        Share of dry times, dims ``(time, [level], *space)`` with the 12 months along ``time``. NaN
        where nothing was observed.
    heavy : DataArray
        More than so much is heavy: two thirds of the wet times have less. The same dims. NaN
        without wet times.
    """

    dry: float
    dry_probability: xr.DataArray
    heavy: xr.DataArray


def is_precipitation(field: xr.DataArray) -> bool:
    """Tell precipitation by its name or standard name."""
    name, standard_name = str(field.name), str(field.attrs.get("standard_name", ""))
    if name in ("tp", "pr", "precip") or "precipitation" in standard_name:
        return True
    return name.startswith(("total_precipitation", "precipitation"))


def rain_climates(
    reference: Reference, observed: xr.Dataset, *, metrics: Sequence[str]
) -> dict[str, RainClimate]:
    """Climates of the variables that are precipitation; none if SEEPS is not asked for.

    Raises
    ------
    ValueError
        If no variable is precipitation, or its units are unknown.
    """
    if "seeps" not in metrics:
        return {}
    names = [str(n) for n, field in observed.data_vars.items() if is_precipitation(field)]
    if not names:
        raise ValueError(
            f"got metric 'seeps' for {list(observed.data_vars)}, expected precipitation among them:"
            " a variable called tp, pr or total_precipitation…, or with 'precipitation' in its"
            " standard_name"
        )
    return {
        name: fit_rain_climate(reference, name, units=str(observed[name].attrs.get("units", "")))
        for name in names
    }


def fit_rain_climate(reference: Reference, name: str, *, units: str) -> RainClimate:
    """Learn the categories of precipitation from the training block.

    Dry is at most 0.25 mm, and 0.1 mm for variables whose name ends in ``6hr``.

    Parameters
    ----------
    reference : Reference
        From `fit_reference`. Nothing but its training block is looked at.
    name : str
        The variable.
    units : str
        Of the variable: m, mm or kg m-2 for sums, mm/day or kg m-2 s-1 for rates.

    Raises
    ------
    ValueError
        If the units are others, or times have no calendar.
    """
    if units not in _MILLIMETRES:
        raise ValueError(
            f"got precipitation {name!r} in {units!r}, expected one of {', '.join(_MILLIMETRES)},"
            " because 0.25 mm are dry"
        )
    dry = (0.1 if name.endswith("6hr") else 0.25) / _MILLIMETRES[units]
    anomaly = reference.anomaly[name]
    own = replace(reference.climatology, coefficients=reference.climatology.coefficients[[name]])
    values = anomaly + own.at(anomaly["time"])[name]
    values = values.drop_vars([c for c in anomaly.coords if c not in anomaly.dims])
    month = calendar_fields(anomaly["time"].values)[2]
    found = [_categories(values.isel(time=np.flatnonzero(month == m)), dry) for m in range(1, 13)]
    both = xr.concat(found, "time", coords="minimal", compat="override", join="override").compute()
    both = both.transpose("category", "time", ...)
    return RainClimate(dry, both.isel(category=0, drop=True), both.isel(category=1, drop=True))


def _categories(values: xr.DataArray, dry: float) -> xr.DataArray:
    """Share of dry times, and what divides light and heavy, along ``category``.

    Lazy for lazy values.
    """
    if not values.sizes["time"]:
        one = values.reindex(time=[0]).isel(time=0, drop=True)
        return xr.full_like(one, np.nan, dtype=float).expand_dims(category=2, axis=-1)
    if values.chunks is not None:
        values = values.chunk({d: -1 if d == "time" else "auto" for d in values.dims})
    out: xr.DataArray = xr.apply_ufunc(
        partial(_split, dry=dry),
        values.astype(float),
        input_core_dims=[["time"]],
        output_core_dims=[["category"]],
        dask="parallelized",
        output_dtypes=[float],
        dask_gufunc_kwargs={"output_sizes": {"category": 2}},
    )
    return out


def _split(values: np.ndarray, *, dry: float) -> np.ndarray:
    """Times along the last axis; returns ``(..., 2)``."""
    valid, wet = np.isfinite(values), values > dry
    count = wet.sum(axis=-1)
    ordered = np.sort(np.where(wet, values, np.inf), axis=-1)
    last = np.maximum(count - 1, 0)
    place = last * 2 / 3
    low = np.floor(place).astype(int)
    around = (low, np.minimum(low + 1, last))
    ends = [np.take_along_axis(ordered, k[..., None], -1)[..., 0] for k in around]
    below, above = (np.where(count > 0, end, np.nan) for end in ends)
    share = (valid & ~wet).sum(axis=-1) / np.where(valid.any(axis=-1), valid.sum(axis=-1), np.nan)
    return np.stack([share, below + (place - low) * (above - below)], axis=-1)


def _kernel(
    forecast: np.ndarray,
    observed: np.ndarray,
    p1: np.ndarray,
    heavy: np.ndarray,
    weights: np.ndarray,
    *,
    dry: float,
) -> np.ndarray:
    """Sum over space; ``forecast`` ends with members; returns ``(..., region, statistic)``."""
    valid = np.isfinite(observed) & np.isfinite(heavy) & (p1 >= _LOWEST) & (p1 <= _HIGHEST)
    lost = valid & ~np.isfinite(forecast).all(axis=-1)
    p1 = np.where(valid, p1, 0.5)
    p3 = (1 - p1) / 3
    f = np.asarray(forecast, dtype=float)
    rain, more = f > dry, f > heavy[..., None]
    wet, much = (observed > dry)[..., None], (observed > heavy)[..., None]
    too_dry = (wet & ~rain) / (1 - p1)[..., None] + (much & ~more) / p3[..., None]
    too_wet = (~wet & rain) / p1[..., None] + (~much & more) / (1 - p3)[..., None]
    score = np.where(valid, (too_dry + too_wet).mean(axis=-1) / 2, 0.0)
    area = weights.reshape(len(weights), -1).T.astype(float)
    lead = valid.shape[: valid.ndim - (weights.ndim - 1)]
    flat, there, gone = (a.reshape(*lead, -1).astype(float) for a in (score, valid, lost))
    sums = np.stack([flat @ area, there @ area], axis=-1)
    if lost.any():
        spoilt = gone @ (area > 0) > 0
        sums = np.where(spoilt[..., None], np.nan, sums)
    return np.asarray(sums)


def seeps_sums(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    climate: RainClimate,
    *,
    valid: np.ndarray,
    weights: xr.DataArray,
) -> xr.DataArray:
    """Weighted sums of SEEPS over each region, for every initial and lead time.

    The score of an ensemble is the mean of its members'. Cells missing in the observations are left
    out with their weight. So are cells that in a month are dry in less than 10 % or more than 85 %
    of the times. A forecast missing where something was observed makes the sums of that region NaN.

    Parameters
    ----------
    forecast : DataArray
        Dims ``(init_time, lead_time, [number], [level], *space)``; may be lazy.
    observed : DataArray
        The same dims without ``number``.
    climate : RainClimate
        From `fit_rain_climate`.
    valid : ndarray, ``(init, lead)``
        Valid times.
    weights : DataArray
        Dims ``(region, *space)``, from `region_weights`.

    Returns
    -------
    DataArray
        Dims ``(init_time, lead_time, [level], region, statistic)``, lazy: ``seeps`` and
        ``seeps_weight``.
    """
    month = calendar_fields(valid)[2] - 1
    init, lead = observed["init_time"], observed["lead_time"]
    climates = (climate.dry_probability, climate.heavy)
    # lazy: as large as the forecast
    fields = [at_positions(a.chunk(time=1), month, init, lead) for a in climates]
    kernel = partial(_kernel, dry=climate.dry)
    many = with_members(forecast, observed)
    return over_space(
        kernel,
        many,
        observed,
        *(field.transpose(*observed.dims) for field in fields),
        weights=weights,
        dim="statistic",
        labels=["seeps", "seeps_weight"],
    )


def seeps(means: xr.DataArray) -> xr.DataArray:
    r"""Stable equitable error in probability space; unitless, range [0, 13.4), 0 is perfect.

    .. math:: \frac12 \begin{pmatrix} 0 & \frac{1}{1-p_1} & \frac{1}{p_3} + \frac{1}{1-p_1} \\
        \frac{1}{p_1} & 0 & \frac{1}{p_3} \\
        \frac{1}{p_1} + \frac{1}{1-p_3} & \frac{1}{1-p_3} & 0 \end{pmatrix}

    is the penalty of a forecast (row) of dry, light, heavy when another of these was observed
    (column). In the cell and month, the climate's probability of dry is p₁, that of heavy
    p₃ = (1 − p₁)/3. Forecasts without knowledge, constant ones among them, score 1 on average
    (Rodwell et al. 2010, doi:10.1002/qj.656). Sums over initial times are taken before the ratio to
    the weight.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits` of `seeps_sums` beside the ordinary sums, with the dim ``statistic``.
    """
    weight = means.sel(statistic="seeps_weight", drop=True)
    return means.sel(statistic="seeps", drop=True) / weight.where(weight > 0)
