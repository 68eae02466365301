"""The mean annual cycle: fitted once on training times, evaluated at any time of the same calendar.

One pass over the data accumulates normal equations per block of time (`sciwm.moments`). Blocks
merge, so that chunked equals whole and memory stays bounded by a few states.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from sciwm.moments import Moments, accumulate
from sciwm.times import calendar_fields, numeric_time

__all__ = ["Climatology", "Spread", "fit_climatology", "fit_climatology_and_spread"]

Kind = Literal["harmonic", "monthly", "constant"]
Pool = Literal["none", "longitude", "domain"]

_SLAB_CELLS = 2**15
_MOST_STRETCHES = 100
# Of the mean normal matrix; 0.5 for whole years, 0 for an undetermined cycle.
_SMALLEST_EIGENVALUE = 0.02


@dataclass(frozen=True)
class Climatology:
    r"""Mean state as a function of the calendar.

    .. math:: c(t) = a_0 + \sum_k a_k \sin 2\pi k\varphi + b_k \cos 2\pi k\varphi
        \;[+ \text{first diurnal harmonic}]

    with the phase of the year φ from `sciwm.times.calendar_fields`; or one mean per calendar month;
    or one mean.

    Parameters
    ----------
    kind : {"harmonic", "monthly", "constant"}
        Form of the cycle.
    coefficients : Dataset
        The variables it was fitted on with ``time`` replaced by a leading ``coefficient``, float64,
        in their units.
    harmonics : int
        Annual harmonics; 0 unless ``kind`` is ``harmonic``.
    diurnal : bool
        Whether the first harmonic of the day is part of the cycle.
    fitted : tuple of (str, str)
        First and last time of each stretch without a gap that it was fitted on. Empty where that
        says nothing: simulation times, times that repeat (members), or more than a hundred
        stretches.
    """

    kind: Kind
    coefficients: xr.Dataset
    harmonics: int
    diurnal: bool
    fitted: tuple[tuple[str, str], ...] = ()

    def design(self, time: xr.DataArray) -> xr.DataArray:
        """Values of the basis functions at ``time``, lazy if it is.

        Dims are those of ``time``, and ``coefficient``.
        """
        count = self.coefficients.sizes["coefficient"]
        out: xr.DataArray = xr.apply_ufunc(
            _design,
            time,
            kwargs={"kind": self.kind, "harmonics": self.harmonics, "diurnal": self.diurnal},
            output_core_dims=[["coefficient"]],
            dask="parallelized",
            output_dtypes=[np.float64],
            dask_gufunc_kwargs={"output_sizes": {"coefficient": count}},
        )
        return out

    def at(self, time: xr.DataArray) -> xr.Dataset:
        """Climatology at given times.

        Parameters
        ----------
        time : DataArray
            Times of any shape, e.g. valid times ``(init_time, lead_time)``: ``datetime64``,
            ``cftime``, or, for a constant climatology, anything. Back it by Dask for a lazy result.

        Returns
        -------
        Dataset
            Float64, dims of ``time`` followed by those of the state, in the units of the data.
        """
        design = self.design(time)
        return self.coefficients.map(lambda c: self._evaluate(design, c), keep_attrs=True)

    def _evaluate(self, design: xr.DataArray, coefficients: xr.DataArray) -> xr.DataArray:
        space = [d for d in coefficients.dims if d != "coefficient"]
        out: xr.DataArray = xr.apply_ufunc(
            evaluate_design,
            design,
            coefficients,
            kwargs={"monthly": self.kind == "monthly"},
            input_core_dims=[["coefficient"], ["coefficient", *space]],
            output_core_dims=[space],
            dask="parallelized",
            output_dtypes=[np.float64],
            dask_gufunc_kwargs={"output_sizes": {d: coefficients.sizes[d] for d in space}},
        )
        return out.assign_attrs(coefficients.attrs)

    def to_dataset(self) -> xr.Dataset:
        """Everything as one Dataset; `from_dataset` is the inverse."""
        fitted = "; ".join(f"{first}/{last}" for first, last in self.fitted)
        attrs = {
            "climatology": self.kind,
            "harmonics": self.harmonics,
            "diurnal": int(self.diurnal),
            "fitted": fitted,
        }
        return self.coefficients.assign_attrs(attrs)

    @classmethod
    def from_dataset(cls, ds: xr.Dataset) -> "Climatology":
        """Rebuild from what `to_dataset` returned, also after a round trip through a file."""
        attrs = dict(ds.attrs)
        if "climatology" not in attrs:
            raise ValueError(
                "got a Dataset without the attribute 'climatology', expected what"
                " Climatology.to_dataset returns"
            )
        kind, harmonics = attrs.pop("climatology"), int(attrs.pop("harmonics"))
        diurnal = bool(attrs.pop("diurnal"))
        stretches = attrs.pop("fitted", "").split("; ")  # absent in files of older versions
        pairs = (part.split("/") for part in stretches if part)
        fitted = tuple((first, last) for first, last in pairs)
        coefficients = ds.copy()
        coefficients.attrs = attrs
        return cls(kind, coefficients, harmonics, diurnal, fitted)


@dataclass(frozen=True)
class Spread:
    """What is left when the climatology is taken away.

    Datasets have the variables of the data, over the dims of a state.

    Parameters
    ----------
    squares : Dataset
        Sum of squared anomalies over time, in squared units.
    count : Dataset
        Number of times observed.
    first_missing : Dataset
        Position of the first missing time; the number of times if none is.
    num_times : int
        Number of times, observed or not.
    """

    squares: xr.Dataset
    count: xr.Dataset
    first_missing: xr.Dataset
    num_times: int


def fit_climatology(ds: xr.Dataset, *, kind: Kind = "harmonic", harmonics: int = 3) -> Climatology:
    """Least-squares climatology of every variable of ``ds`` with a time dimension.

    Hand in training times only: whatever is scored later must not have been seen here. Missing
    values are left out cell by cell. A cell never observed gets NaN, one observed in a small part
    of the year its plain mean.

    Parameters
    ----------
    ds : Dataset
        Variables ``(time, ...)``, lazy or not; read once, in blocks of time.
    kind : {"harmonic", "monthly", "constant"}
        Harmonics of the year, calendar-month means, or the mean. When steps are below a day, the
        first harmonic of the day comes with those of the year.
    harmonics : int
        Annual harmonics of the first kind.

    Returns
    -------
    Climatology
        In memory.

    Raises
    ------
    ValueError
        If the times do not determine the cycle. They last less than about a year, or a calendar
        month never occurs.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> time = np.arange("2000", "2002", dtype="datetime64[D]").astype("datetime64[ns]")
    >>> ds = xr.Dataset({"t2m": ("time", 280.0 + np.zeros(time.size))}, {"time": time})
    >>> climatology = fit_climatology(ds, harmonics=2)
    >>> round(float(climatology.at(ds.time[100]).t2m), 6)
    280.0
    """
    return fit_climatology_and_spread(ds, kind=kind, harmonics=harmonics)[0]


def fit_climatology_and_spread(
    ds: xr.Dataset, *, kind: Kind = "harmonic", harmonics: int = 3, pool: Pool = "none"
) -> tuple[Climatology, Spread]:
    r"""`fit_climatology` and the sums of squared anomalies about it, from the same single pass.

    Cells may share one climatology. Its coefficients then minimise, over all of them,

    .. math:: \sum_{\mathrm{cells}} w \sum_t (x(t) - d(t)^\top \beta)^2

    with the cells' areas w. So cells count by how often they were observed. Where all share the
    same times, this is the mean of their own coefficients.

    Parameters
    ----------
    ds, kind, harmonics
        See `fit_climatology`.
    pool : {"none", "longitude", "domain"}
        Which cells share: none; those of a latitude; or all. Levels and variables never do.

    Returns
    -------
    Climatology
        Its coefficients lie on the whole grid, and are NaN where a cell was never observed.
    Spread
        About the shared climatology.

    Raises
    ------
    ValueError
        As of `fit_climatology`, or if variables lack the dims to pool over.
    """
    check_kind(kind)
    check_pool(pool)
    harmonics = harmonics if kind == "harmonic" else 0
    time = ds["time"]
    if time.size == 0:
        raise ValueError("got no time, expected the training block")
    diurnal = kind == "harmonic" and _is_subdaily(time.values)
    design = _design(time.values, kind=kind, harmonics=harmonics, diurnal=diurnal)
    _check_determined(design.T @ design, time, kind=kind, harmonics=harmonics)
    names = [name for name, v in ds.data_vars.items() if "time" in v.dims]
    if not names:
        raise ValueError(
            f"got variables {list(ds.data_vars)}, expected at least one with a time dimension"
        )
    found = accumulate(ds[names], design)
    annual = 1 + 2 * harmonics
    fields: dict[str, dict[Hashable, xr.DataArray]] = {
        key: {} for key in ("coefficients", "squares", "count", "first_missing")
    }
    for name in names:
        template = ds[name].isel(time=0, drop=True)
        coords = {k: c for k, c in template.coords.items() if c.ndim}
        if pool == "none":
            solved = _solve(found[name], kind=kind, annual=annual)
        else:
            group, area = _pooled_cells(template, pool)
            solved = _solve_pooled(found[name], group, area, kind=kind, annual=annual)
        solved["count"] = found[name].count
        solved["first_missing"] = np.minimum(found[name].first_missing, time.size)
        for key, flat in solved.items():
            values = flat.reshape((*flat.shape[:-1], *template.shape))
            dims = ("coefficient", *template.dims) if key == "coefficients" else template.dims
            attrs = template.attrs if key == "coefficients" else {}
            fields[key][name] = xr.DataArray(values, dims=dims, coords=coords, attrs=attrs)
    coefficients = xr.Dataset(fields["coefficients"], attrs=ds.attrs)
    climatology = Climatology(kind, coefficients, harmonics, diurnal, _stretches(time.values))
    squares, count, first = (xr.Dataset(fields[k]) for k in ("squares", "count", "first_missing"))
    return climatology, Spread(squares, count, first, num_times=time.size)


def check_kind(kind: str) -> None:
    """Refuse what is no kind of climatology."""
    if kind not in ("harmonic", "monthly", "constant"):
        raise ValueError(f"got climatology {kind!r}, expected 'harmonic', 'monthly' or 'constant'")


def check_pool(pool: str) -> None:
    """Refuse what is no way to pool cells."""
    if pool not in ("none", "longitude", "domain"):
        raise ValueError(f"got pool {pool!r}, expected 'none', 'longitude' or 'domain'")


def evaluate_design(
    design: np.ndarray, coefficients: np.ndarray, *, monthly: bool = False
) -> np.ndarray:
    """Contract basis values ``[..., coefficient]`` with ``[coefficient, ...state]``."""
    if monthly:  # looked up, not summed: a NaN of another month must not enter
        return np.asarray(coefficients[design.argmax(-1)])
    return np.tensordot(design, coefficients, axes=(-1, 0))


def _stretches(time: np.ndarray) -> tuple[tuple[str, str], ...]:
    """First and last time of each stretch without a gap."""
    amounts = numeric_time(time)
    order = np.argsort(amounts)
    jumps = np.diff(amounts[order])
    if time.dtype.kind in "iuf" or (jumps <= 0).any():
        return ()
    breaks = np.flatnonzero(jumps > 1.5 * np.median(jumps)) if jumps.size else np.array([], int)
    starts, ends = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [time.size - 1]])
    ordered = time[order]
    found = tuple(
        (str(ordered[a])[:19], str(ordered[b])[:19]) for a, b in zip(starts, ends, strict=True)
    )
    return found if len(found) <= _MOST_STRETCHES else ()


def _is_subdaily(time: np.ndarray) -> bool:
    if time.size < 2:
        return False
    return 0 < float(np.median(np.abs(np.diff(numeric_time(time))))) < 24.0 - 1e-6


def _design(time: np.ndarray, *, kind: Kind, harmonics: int, diurnal: bool) -> np.ndarray:
    if kind == "constant":
        return np.ones((*time.shape, 1))
    try:
        year, day, month = calendar_fields(time)
    except ValueError as error:
        raise ValueError(f"{error}; choose climatology 'constant'") from None
    if kind == "monthly":
        return np.asarray(month[..., None] == np.arange(1, 13), dtype=np.float64)
    angles = [2 * np.pi * k * year for k in range(1, harmonics + 1)]
    angles += [2 * np.pi * day] if diurnal else []
    waves = [f(a) for a in angles for f in (np.sin, np.cos)]
    return np.stack([np.ones(time.shape), *waves], axis=-1)


def _check_determined(gram: np.ndarray, time: xr.DataArray, *, kind: Kind, harmonics: int) -> None:
    first, last, count = str(time.values[0])[:10], str(time.values[-1])[:10], time.size
    if kind == "monthly" and (np.diag(gram) == 0).any():
        absent = ", ".join(str(m) for m in np.flatnonzero(np.diag(gram) == 0) + 1)
        raise ValueError(
            f"got {count} training times from {first} to {last} without calendar month(s) {absent},"
            " expected all twelve, because a monthly climatology needs each; lengthen the training"
            " block or choose climatology 'constant'"
        )
    if kind != "harmonic":
        return
    annual = 1 + 2 * harmonics
    if np.linalg.eigvalsh(gram[:annual, :annual] / count)[0] < _SMALLEST_EIGENVALUE:
        raise ValueError(
            f"got {count} training times from {first} to {last}, expected at least about a year of"
            f" regular times, because they do not determine {harmonics} annual harmonics; lengthen"
            " the training block, use fewer harmonics, or choose climatology 'constant'"
        )


def _pooled_cells(template: xr.DataArray, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """Group and area of each cell of a state; cells of one group share a climatology."""
    pooled = ("longitude",) if pool == "longitude" else ("latitude", "longitude")
    if absent := [d for d in pooled if d not in template.dims]:
        raise ValueError(
            f"got {template.name!r} of dims {template.dims}, expected also {absent}, because its"
            f" climatology is to be pooled over {' and '.join(pooled)}"
        )
    sizes = [1 if d in pooled else n for d, n in template.sizes.items()]
    group = np.broadcast_to(np.arange(np.prod(sizes)).reshape(sizes), template.shape)
    area = xr.ones_like(template, dtype=np.float64)
    if pool == "domain":
        area = area * np.cos(np.deg2rad(template["latitude"]))
    return group.ravel(), area.transpose(*template.dims).values.ravel()


def _inverse(normal: np.ndarray, *, kind: Kind, annual: int) -> np.ndarray:
    """From sums over times, ``[..., coefficient]``, to coefficients."""
    if kind == "harmonic":
        # The pseudo-inverse: e.g. 12-hourly times do not determine both diurnal coefficients.
        inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
        count = np.where(normal[:, 0, 0] > 0, normal[:, 0, 0], 1.0)
        smallest = np.linalg.eigvalsh(normal[:, :annual, :annual] / count[:, None, None])[:, 0]
        poor = smallest < _SMALLEST_EIGENVALUE
        inverse[poor] = 0.0
        inverse[poor, 0, 0] = 1.0 / count[poor]
    else:
        one, diagonal = np.eye(normal.shape[1]), np.diagonal(normal, axis1=1, axis2=2)
        with np.errstate(divide="ignore"):
            inverse = np.where(diagonal > 0, 1.0 / diagonal, np.nan)[:, :, None] * one
        inverse[..., one == 0] = 0.0
    return inverse


def _solve(found: Moments, *, kind: Kind, annual: int) -> dict[str, np.ndarray]:
    # About the mean of each cell, so that the result does not depend on how the record was cut.
    m = found.about(found.shift + found.sums / np.maximum(found.count, 1))
    inverse = _inverse(m.normal, kind=kind, annual=annual)
    coefficients = np.empty_like(m.cross)
    for start in range(0, m.cross.shape[1], _SLAB_CELLS):
        cells = slice(start, start + _SLAB_CELLS)
        own = inverse[m.pattern[cells]]
        coefficients[:, cells] = np.einsum("cij,jc->ic", own, m.cross[:, cells])
    # For a least-squares fit the squared residuals are the squares less the part explained.
    explained = np.einsum("ic,ic->c", np.nan_to_num(coefficients), m.cross)
    squares = np.maximum(m.squares - explained, 0.0)
    return {"coefficients": _shifted(coefficients, m, kind), "squares": squares}


def _solve_pooled(
    found: Moments, group: np.ndarray, area: np.ndarray, *, kind: Kind, annual: int
) -> dict[str, np.ndarray]:
    """`_solve` with one climatology for each group of cells, in which they count by area."""
    num, width = int(group.max()) + 1, len(found.normal)
    observed = np.bincount(group, area * found.count, num)
    total = np.bincount(group, area * (found.count * found.shift + found.sums), num)
    m = found.about((total / np.where(observed > 0, observed, 1.0))[group])
    # Cells of one group that were observed at the same times need one product between them.
    pairs, pair = np.unique(group * width + m.pattern, return_inverse=True)
    owner, normal = pairs // width, m.normal[pairs % width]
    pooled = np.zeros((num, *normal.shape[1:]))
    np.add.at(pooled, owner, np.bincount(pair, area)[:, None, None] * normal)
    cross = np.stack([np.bincount(group, area * row, num) for row in m.cross])
    shared = np.einsum("gij,jg->ig", _inverse(pooled, kind=kind, annual=annual), cross)
    known = np.nan_to_num(shared)
    both = np.einsum("cp,pcd,dp->p", known[:, owner], normal, known[:, owner])
    explained = 2 * np.einsum("ic,ic->c", known[:, group], m.cross) - both[pair]
    squares = np.maximum(m.squares - explained, 0.0)
    return {"coefficients": _shifted(shared[:, group], m, kind), "squares": squares}


def _shifted(coefficients: np.ndarray, m: Moments, kind: Kind) -> np.ndarray:
    """Coefficients of the values, from those of what the moments are about."""
    # Months add up to one, and so does the first of the other basis functions alone.
    coefficients[slice(None) if kind == "monthly" else slice(1)] += m.shift
    coefficients[:, m.count == 0] = np.nan
    return coefficients
