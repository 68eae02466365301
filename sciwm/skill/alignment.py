"""Which observation belongs to which forecast: times looked up by value, never by position."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np
import xarray as xr
from dask.array import blockwise

from sciwm.regions import space_dims
from sciwm.times import Step, infer_step, numeric_time

__all__ = [
    "at_positions",
    "check_grid",
    "evenly_spread",
    "locate",
    "observed_at",
    "over_inits",
    "over_space",
    "training_pairs",
    "valid_positions",
]

_TOLERANCE = 1e-4  # hours or ps
_BLOCK = 2_000_000  # values of one in-memory block
_GRID = ("latitude", "longitude")


def evenly_spread(count: int, most: int) -> list[int]:
    """At most ``most`` positions out of ``count``, evenly spread from the first to the last.

    Examples
    --------
    >>> evenly_spread(10, 4)
    [0, 3, 6, 9]
    """
    return sorted(set(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()))


def locate(
    time: xr.DataArray, wanted: np.ndarray, *, segment: np.ndarray | None = None
) -> np.ndarray:
    """Find the positions of ``wanted`` times on the axis ``time``; −1 where absent.

    Parameters
    ----------
    time : DataArray
        1-D times; may carry the coordinate ``segment``.
    wanted : ndarray
        Times of the same kind, any shape.
    segment : ndarray of int, optional
        Segments of ``wanted`` (broadcastable to it); then only times of the same segment count.

    Raises
    ------
    ValueError
        If the kinds of time differ, or ``time`` has duplicates and no ``segment`` tells them apart.
    """
    have, want = time.values, np.asarray(wanted)
    if have.dtype.kind != want.dtype.kind and not {have.dtype.kind, want.dtype.kind} <= set("iuf"):
        raise ValueError(
            f"got times of type {want.dtype}, expected {have.dtype} as in the observations (same"
            " calendar)"
        )
    if not have.size or not want.size:
        return np.full(want.shape, -1)
    key, goal = numeric_time(have), numeric_time(want)
    if segment is not None:
        low = min(key.min(), goal.min())
        span = max(key.max(), goal.max()) - low + 1.0
        key = key - low + span * time.coords["segment"].values
        goal = goal - low + span * np.broadcast_to(segment, goal.shape)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    if (np.diff(ordered) <= _TOLERANCE).any():
        raise ValueError(
            "got the same time more than once in the observations, expected the coordinate"
            " segment(init_time) on the forecast, because only it tells trajectories or members"
            " apart"
        )
    place = np.minimum(np.searchsorted(ordered, goal - _TOLERANCE), len(ordered) - 1)
    return np.where(np.abs(ordered[place] - goal) <= _TOLERANCE, order[place], -1)


def _segment(init_time: xr.DataArray, time: xr.DataArray) -> np.ndarray | None:
    if "segment" in init_time.coords and "segment" in time.coords:
        return np.asarray(init_time.coords["segment"].values)
    return None


def valid_positions(
    time: xr.DataArray, init_time: xr.DataArray, lead_steps: Sequence[int] | np.ndarray, step: Step
) -> np.ndarray:
    """Find the positions on ``time`` of ``init_time + lead``; −1 where absent.

    Returns
    -------
    ndarray of int, ``(init, lead)``
    """
    valid = step.add(init_time.values[:, None], np.asarray(lead_steps)[None, :])
    segment = _segment(init_time, time)
    return locate(time, valid, segment=None if segment is None else segment[:, None])


def training_pairs(
    time: xr.DataArray, lead_steps: int, step: Step
) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs ``(t, t + lead)`` of one segment."""
    segment = time.coords["segment"].values if "segment" in time.coords else None
    later = locate(time, step.add(time.values, np.full(time.size, lead_steps)), segment=segment)
    first = np.flatnonzero(later >= 0)
    return first, later[first]


def at_positions(
    field: xr.DataArray, positions: np.ndarray, init_time: xr.DataArray, lead_time: xr.DataArray
) -> xr.DataArray:
    """Take fields at ``(init, lead)`` positions of their time axis, in the forecast layout.

    The result is lazy for lazy fields.
    """
    plain = field.drop_vars([c for c in field.coords if "time" in field[c].dims])
    picked = [
        plain.isel(time=xr.DataArray(positions[:, k], dims="init_time"))
        for k in range(positions.shape[1])
    ]
    joined = xr.concat(
        picked, dim="lead_time", coords="minimal", compat="override", join="override"
    )
    joined = joined.assign_coords(init_time=init_time.variable, lead_time=lead_time.variable)
    return joined.transpose("init_time", "lead_time", ...)


def observed_at(observed: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Arrange observations like a forecast: at its valid times, on its initial and lead times.

    Scores of other libraries take them so.

    Parameters
    ----------
    observed : Dataset
        Dims ``(time, [level], *space)``; may be lazy.
    forecast : Dataset
        Dims ``init_time`` and ``lead_time`` among them. Its values are not read, and its grid is
        not looked at.

    Returns
    -------
    Dataset
        The variables of the forecast that are observed, lazy for lazy observations. Dims
        ``(init_time, lead_time, [level], *space)``; NaN at valid times that are not observed.

    Raises
    ------
    ValueError
        If no variable is observed.

    Examples
    --------
    >>> days = np.arange("2000-01-01", "2000-01-06", dtype="M8[D]").astype("M8[ns]")
    >>> observed = xr.Dataset({"t": ("time", np.arange(5.0))}, {"time": days})
    >>> lead = np.array([1, 3], "m8[D]").astype("m8[ns]")
    >>> forecast = xr.Dataset(
    ...     {"t": (("init_time", "lead_time"), np.zeros((2, 2)))},
    ...     {"init_time": days[[0, 2]], "lead_time": lead},
    ... )
    >>> observed_at(observed, forecast)["t"].values
    array([[ 1.,  3.],
           [ 3., nan]])
    """
    names = [n for n in forecast.data_vars if n in observed.data_vars]
    if not names:
        raise ValueError(
            f"got forecasts of {list(forecast.data_vars)}, expected some of what is observed:"
            f" {list(observed.data_vars)}"
        )
    step = infer_step(observed["time"])
    init, lead = forecast["init_time"], forecast["lead_time"]
    positions = valid_positions(observed["time"], init, step.steps(lead.values), step)
    there = xr.DataArray(positions >= 0, dims=("init_time", "lead_time"))
    held = np.maximum(positions, 0)
    fields = {n: at_positions(observed[n], held, init, lead) for n in names}
    return xr.Dataset({n: field.where(there.variable) for n, field in fields.items()})


def over_space(
    kernel: Callable[..., np.ndarray],
    forecast: xr.DataArray,
    *others: xr.DataArray,
    weights: xr.DataArray,
    dim: str,
    labels: Sequence[object],
) -> xr.DataArray:
    """Let a kernel sum over space what belongs together, lazily and in blocks of initial times.

    Parameters
    ----------
    kernel : callable
        From arrays ``(..., *space)``, of which that of the forecast may end with ``number``, and
        weights ``(region, *space)`` to ``(..., region, dim)``.
    forecast : DataArray
        Dims ``(init_time, lead_time, [number], [level], *space)``.
    others : DataArray
        The same dims without ``number``.
    weights : DataArray
        Dims ``(region, *space)``.
    dim, labels
        Name and coordinate of what the kernel adds.

    Returns
    -------
    DataArray
        Dims ``(init_time, lead_time, [level], region, dim)``.
    """
    members = [d for d in forecast.dims if d == "number"]
    space = list(space_dims(others[0]))
    fields = _in_blocks(forecast, *others)
    sums: xr.DataArray = xr.apply_ufunc(
        kernel,
        *fields,
        weights.drop_vars(list(weights.coords)),
        input_core_dims=[[*space, *members], *(space for _ in others), ["region", *space]],
        output_core_dims=[["region", dim]],
        dask="parallelized",
        output_dtypes=[float],
        dask_gufunc_kwargs={"output_sizes": {"region": weights.sizes["region"], dim: len(labels)}},
        join="override",
    )
    return sums.assign_coords({"region": weights["region"], dim: list(labels)})


def over_inits(
    kernel: Callable[..., np.ndarray], *fields: xr.DataArray, dim: str, size: int
) -> xr.DataArray:
    """Let a kernel sum over initial times, lazily and in blocks of them; its sums must add up.

    Parameters
    ----------
    kernel : callable
        From arrays ``(init_time, lead_time, [level], *space, [number])`` to ``(lead_time, [level],
        dim)``.
    fields : DataArray
        Dims ``(init_time, lead_time, [number], [level], *space)``; all but the first without
        ``number``.
    dim, size
        Name and length of what is left of the space.

    Returns
    -------
    DataArray
        Dims ``(lead_time, [level], dim)``.
    """
    arrays = _in_blocks(*fields)
    kept = [d for d in arrays[0].dims if d in ("init_time", "lead_time", "level")]
    pairs = [part for a in arrays for part in (a.data, a.dims)]
    parts = blockwise(  # type: ignore[no-untyped-call]
        partial(_summed, kernel),
        (*kept, dim),
        *pairs,
        new_axes={dim: size},
        adjust_chunks={"init_time": 1},
        concatenate=True,
        dtype=float,
        meta=np.empty(0),
    )
    coords = {d: fields[0][d].variable for d in kept[1:] if d in fields[0].coords}
    return xr.DataArray(parts.sum(axis=0), coords, (*kept[1:], dim))


def _summed(kernel: Callable[..., np.ndarray], *blocks: np.ndarray) -> np.ndarray:
    return kernel(*blocks)[None]


def _in_blocks(*fields: xr.DataArray) -> list[xr.DataArray]:
    """The fields with their dims in the same order, ``number`` last, and no other coordinates.

    They are chunked along initial times only.
    """
    forecast = fields[0]
    members = [d for d in forecast.dims if d == "number"]
    dims = [d for d in forecast.dims if d != "number"]
    per_init = max(1, int(forecast.size // max(1, forecast.sizes["init_time"])))
    chunks: dict[Hashable, int] = dict.fromkeys(forecast.dims, -1)
    chunks["init_time"] = max(1, _BLOCK // per_init)
    ordered = [forecast.transpose(*dims, *members), *(a.transpose(*dims) for a in fields[1:])]
    return [
        a.drop_vars([c for c in a.coords if c not in dims]).chunk({d: chunks[d] for d in a.dims})
        for a in ordered
    ]


def check_grid(forecast: xr.DataArray, observed: xr.DataArray, *, method: str) -> xr.DataArray:
    """Put the forecast on the observations' very coordinates and order of dimensions.

    Raises
    ------
    ValueError
        If dimensions or coordinates differ beyond float32 rounding; the first difference is named.
    """
    name = forecast.name
    rest = [d for d in observed.dims if d != "time"]
    members = [d for d in ("number",) if d in forecast.dims]
    if set(forecast.dims) != {"init_time", "lead_time", *members, *rest}:
        raise ValueError(
            f"got {name} of {method!r} with dims {forecast.dims}, expected init_time, lead_time and"
            f" {rest}"
        )
    for dim in rest:
        if problem := _difference(forecast, observed, dim):
            hint = "bring it onto the truth's grid with --regrid (sciwm.skill.regrid_forecast)"
            raise ValueError(
                f"{problem.format(where=f'{name} of {method!r}')}:"
                f" {hint if dim in _GRID else 'select first'}; nothing is interpolated unasked"
            )
        if dim in observed.coords and dim in forecast.coords:
            forecast = forecast.assign_coords({dim: observed[dim].variable})
    return forecast.transpose("init_time", "lead_time", *members, *rest)


def _difference(forecast: xr.DataArray, observed: xr.DataArray, dim: Hashable) -> str:
    """What is different about a dimension, with the first value that is; empty if nothing is."""
    size, wanted = forecast.sizes[dim], observed.sizes[dim]
    sizes = f"got {size} values of {dim} in {{where}}, expected {wanted} as observed"
    if dim not in observed.coords or dim not in forecast.coords:
        return sizes if size != wanted else ""
    got, want = forecast[dim].values, observed[dim].values
    shared = min(size, wanted)
    a, b = got[:shared], want[:shared]
    numbers = want.dtype.kind in "iuf" and got.dtype.kind in "iuf"
    same = np.isclose(a, b, rtol=0.0, atol=1e-4) if numbers else a == b
    bad = shared if same.all() else int(np.argmin(same))
    if size != wanted:
        one, other = (v[bad] if bad < len(v) else "none" for v in (got, want))
        return f"{sizes}; the first difference, at position {bad}: {one}, observed {other}"
    if bad == shared:
        return ""
    reverse = got[0] != want[0] and got[0] == want[-1]
    hint = "; it is in reverse order, open it with open_forecast" if reverse else ""
    return (
        f"got {dim} {got[bad]} at position {bad} in {{where}},"
        f" expected {want[bad]} as observed{hint}"
    )
