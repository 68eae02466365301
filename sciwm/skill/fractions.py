"""Fractions skill score: is an event forecast in the right neighbourhood, if not in the cell."""

import re
from functools import partial

import numpy as np
import scipy.ndimage
import xarray as xr

from sciwm.regions import space_dims
from sciwm.skill.alignment import over_space
from sciwm.skill.events import Event, with_members
from sciwm.skill.spectra import goes_round

__all__ = ["fraction_sums", "fss", "neighbourhood"]


def neighbourhood(metric: str) -> int | None:
    """Number N of cells along the sides of the neighbourhood of ``fss_N``; None for other metrics.

    Raises
    ------
    ValueError
        If the number is even: there is a cell in the middle.

    Examples
    --------
    >>> neighbourhood("fss_5"), neighbourhood("rmse")
    (5, None)
    """
    match = re.fullmatch(r"fss_(\d+)", metric)
    if match and int(match[1]) % 2 == 0:
        raise ValueError(
            f"got metric {metric!r}, expected an odd number of cells, because a neighbourhood has a"
            " cell in its middle"
        )
    return int(match[1]) if match else None


def _kernel(
    forecast: np.ndarray,
    observed: np.ndarray,
    climatology: np.ndarray,
    weights: np.ndarray,
    *,
    event: Event,
    size: int,
    modes: tuple[str, str],
) -> np.ndarray:
    """Sum over space; ``forecast`` ends with members; returns ``(..., region, statistic)``."""

    def around(cells: np.ndarray) -> np.ndarray:
        """Whole numbers added up over the neighbourhood."""
        for axis, mode in zip((-2, -1), modes, strict=True):
            means = scipy.ndimage.uniform_filter1d(cells.astype(float), size, axis=axis, mode=mode)
            cells = np.rint(size * means)  # the means leave 1e-17 where nothing happened
        return cells

    valid = np.isfinite(observed) & np.isfinite(climatology)
    lost = valid & ~np.isfinite(forecast).all(axis=-1)
    count = np.maximum(around(valid), 1.0)
    chance = around(np.where(valid, event.happens(forecast).sum(axis=-1), 0)) / (
        count * forecast.shape[-1]
    )
    share = around(valid & event.happens(observed)) / count
    terms = [np.where(valid, term, 0.0) for term in ((chance - share) ** 2, chance**2 + share**2)]
    area = weights.reshape(len(weights), -1).T.astype(float)
    flat = [term.reshape(*term.shape[:-2], -1) @ area for term in terms]
    sums = np.stack(flat, axis=-1)
    if lost.any():
        near = (valid & (around(lost) > 0)).reshape(*lost.shape[:-2], -1)
        sums = np.where((near.astype(float) @ (area > 0))[..., None] > 0, np.nan, sums)
    return np.asarray(sums)


def fraction_sums(
    forecast: xr.DataArray,
    observed: xr.DataArray,
    climatology: xr.DataArray | None = None,
    *,
    event: Event,
    size: int,
    weights: xr.DataArray,
) -> xr.DataArray:
    """Weighted sums of squared differences of fractions over each region.

    There is one for every initial and lead time. The fraction of a cell is the share of the cells
    around it with the event. Only cells that are observed and in the domain count; the domain goes
    round where its longitudes do. The fraction of an ensemble is the mean of its members'. A
    forecast missing where something was observed makes the sums of every region near it NaN.

    Parameters
    ----------
    forecast : DataArray
        Dims ``(init_time, lead_time, [number], [level], latitude, longitude)``, physical units; may
        be lazy.
    observed, climatology : DataArray
        The same dims without ``number``. The climatology only tells which cells count.
    event : Event
        Its threshold is compared with, its channel is not looked at.
    size : int
        Cells along the sides of the square neighbourhood, odd.
    weights : DataArray
        Dims ``(region, latitude, longitude)``, from `region_weights`.

    Returns
    -------
    DataArray
        Dims ``(init_time, lead_time, [level], region, statistic)``, lazy; ``fss_N_error`` and
        ``fss_N_reference``.

    Raises
    ------
    ValueError
        If the neighbourhood does not fit into the domain.
    """
    space = space_dims(observed)
    if set(space) != {"latitude", "longitude"} or size > min(observed.sizes[d] for d in space):
        raise ValueError(
            f"got a neighbourhood of {size} × {size} cells for dims {dict(observed.sizes)},"
            " expected one that fits in a grid"
        )
    wrapped = goes_round(observed)
    rows, columns = ("wrap" if d == "longitude" and wrapped else "constant" for d in space)
    kernel = partial(_kernel, event=event, size=size, modes=(rows, columns))
    reference = xr.zeros_like(observed) if climatology is None else climatology
    labels = [f"fss_{size}_error", f"fss_{size}_reference"]
    return over_space(
        kernel,
        with_members(forecast, observed),
        observed,
        reference,
        weights=weights,
        dim="statistic",
        labels=labels,
    )


def fss(means: xr.DataArray, *, size: int) -> xr.DataArray:
    r"""Fractions skill score of an event; unitless, range [0, 1], 1 is perfect, larger is better.

    .. math:: 1 - \frac{\sum_i \langle (P_f - P_o)^2 \rangle_i}
        {\sum_i \langle P_f^2 + P_o^2 \rangle_i}

    with the fractions P of the neighbourhoods (Roberts and Lean 2008, doi:10.1175/2007MWR2123.1).
    Sums over initial times are taken before the ratio. NaN if the event was neither forecast nor
    observed.

    Parameters
    ----------
    means : DataArray
        From `mean_over_inits` of `fraction_sums`, with the dim ``statistic``.
    size : int
        Cells along the sides of the neighbourhood.
    """
    error, reference = (
        means.sel(statistic=f"fss_{size}_{n}", drop=True) for n in ("error", "reference")
    )
    return 1.0 - error / reference.where(reference > 0)
