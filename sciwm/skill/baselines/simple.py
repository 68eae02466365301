"""Forecasts that need no model: the climatology, persistence and damped persistence.

They see the training years (`fit_reference`) and the observation at the initial time, nothing else.
A cell missing at the initial time starts from its climatology. So every method is scored on the
same cells.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from sciwm.climatology import Climatology, fit_climatology
from sciwm.skill.alignment import locate, training_pairs
from sciwm.times import Step, calendar_fields, infer_step

__all__ = [
    "Reference",
    "add_climatology",
    "axes",
    "climatology_forecast",
    "damped_persistence_forecast",
    "fit_reference",
    "fit_slopes",
    "init_anomaly",
    "lead_steps",
    "persistence_forecast",
]

Kind = Literal["harmonic", "monthly", "constant"]
_BLOCK = 2_000_000  # values of one in-memory block
_KINDS: dict[str, Kind] = {"hours": "harmonic", "months": "monthly", "ps": "constant"}


@dataclass(frozen=True)
class Reference:
    """What baselines and anomaly scores may know.

    That is the training block, and a validation block to choose with.

    Parameters
    ----------
    climatology : Climatology
        Fitted on the training block.
    anomaly : Dataset
        Departures of the training block from it, dims ``(time, [level], *space)``, physical units;
        may be lazy.
    validation : Dataset or None
        Departures of the validation block from the same climatology.
    step : Step
        Time step of the data.
    """

    climatology: Climatology
    anomaly: xr.Dataset
    validation: xr.Dataset | None
    step: Step


def _with_time(ds: xr.Dataset) -> xr.Dataset:
    names = [str(n) for n, v in ds.data_vars.items() if "time" in v.dims and v.dtype.kind in "fiu"]
    if not names:
        raise ValueError(
            f"got variables {list(ds.data_vars)}, expected at least one numeric one with the dim"
            " 'time'"
        )
    return ds[names]


def _block(ds: xr.Dataset, block: Any, name: str) -> xr.Dataset:
    if isinstance(block, slice):
        chosen = ds.sel(time=block)
    else:
        chosen = ds.isel(time=np.flatnonzero(_mask(ds, block, name)))
    if not chosen.sizes["time"]:
        raise ValueError(
            f"got no times in {name}={block!r}, expected some between {ds.time.values[0]} and"
            f" {ds.time.values[-1]}"
        )
    return chosen


def _mask(ds: xr.Dataset, block: Any, name: str) -> np.ndarray:
    mask = np.asarray(block)
    if mask.dtype != bool or mask.shape != (ds.sizes["time"],):
        raise ValueError(
            f"got {name} of type {mask.dtype} and shape {mask.shape}, expected a slice or one bool"
            " for each of the times"
        )
    return mask


def _departures(ds: xr.Dataset, climatology: Climatology) -> xr.Dataset:
    normal = climatology.at(ds["time"])
    return xr.Dataset(
        {
            n: (v - normal[n]).transpose(*v.dims).assign_attrs(v.attrs)
            for n, v in ds.data_vars.items()
        }
    )


def fit_reference(
    ds: xr.Dataset,
    *,
    train: Any,
    validation: Any = None,
    climatology: Kind | None = None,
    harmonics: int = 3,
) -> Reference:
    """Learn the climatology of the training block and keep its anomalies.

    Parameters
    ----------
    ds : Dataset
        Observations, dims ``(time, [level], *space)``.
    train, validation : slice or ndarray of bool
        Blocks of ``time``: a slice of labels, e.g. ``slice("2000", "2006")``, or a mask. Without a
        validation block, choices such as the LIM's truncation are made on parts of the training
        block.
    climatology : {"harmonic", "monthly", "constant"}, optional
        Kind of mean cycle. By default it is harmonic for data in hours, monthly for months, and
        constant for picoseconds.
    harmonics : int
        Annual harmonics of a harmonic climatology.

    Returns
    -------
    Reference

    Raises
    ------
    ValueError
        If a block holds no times, or the two overlap.
    """
    ds = _with_time(ds)
    step = infer_step(ds["time"])
    block = _block(ds, train, "train")
    fitted = fit_climatology(block, kind=climatology or _KINDS[step.unit], harmonics=harmonics)
    held = None if validation is None else _block(ds, validation, "validation")
    if held is not None:
        apart = "segment" in held.coords and "segment" in block.coords
        segment = held["segment"].values if apart else None
        if (locate(block["time"], held["time"].values, segment=segment) >= 0).any():
            raise ValueError(
                "got validation times that are training times too, expected separate blocks,"
                " because choices made there would be optimistic"
            )
    return Reference(
        climatology=fitted,
        anomaly=_departures(block, fitted),
        validation=None if held is None else _departures(held, fitted),
        step=step,
    )


def axes(init_times: Any, lead_times: Any, step: Step) -> tuple[xr.DataArray, xr.DataArray]:
    """Make initial and lead times the axes of the forecast layout; ``segment`` is kept."""
    init = init_times
    if not isinstance(init, xr.DataArray):
        init = xr.DataArray(np.asarray(init_times), dims="init_time")
    lead = np.asarray(lead_times.values if isinstance(lead_times, xr.DataArray) else lead_times)
    coords: dict[str, Any] = {"init_time": init.values}
    if "segment" in init.coords:
        coords["segment"] = ("init_time", init["segment"].values)
    attrs = {} if step.unit == "hours" else {"units": step.unit}
    own = {"lead_time": ("lead_time", lead, attrs)}
    lead_axis = xr.DataArray(lead, own, "lead_time", attrs=attrs)
    return xr.DataArray(init.values, coords, "init_time"), lead_axis


def lead_steps(lead_times: Any, step: Step) -> list[int]:
    """Say how many time steps lead times are ahead, as a list."""
    _, lead = axes([], lead_times, step)
    return [int(s) for s in np.atleast_1d(step.steps(lead.values))]


def _layout(observed: xr.DataArray) -> list[str]:
    """Dims of a forecast of a variable, from those of its observations."""
    return ["init_time", "lead_time", *[str(d) for d in observed.dims if d != "time"]]


def _at_valid(
    climatology: Climatology, init: xr.DataArray, lead: xr.DataArray, step: Step
) -> xr.Dataset:
    valid = step.add(init.values[:, None], step.steps(lead.values)[None, :])
    time = xr.DataArray(valid, dims=("init_time", "lead_time"), attrs=_time_attrs(step))
    sizes = [int(np.prod(v.shape[1:])) for v in climatology.coefficients.data_vars.values()]
    per_init = lead.size * max(sizes, default=1)
    # lazy: as large as the forecast
    normal = climatology.at(time.chunk(init_time=max(1, _BLOCK // per_init)))
    times = {"init_time", "lead_time"}
    normal = normal.drop_vars([c for c in normal.coords if times & set(normal[c].dims)])
    normal = normal.assign_coords(init_time=init, lead_time=lead)
    return normal.transpose("init_time", "lead_time", ...)


def _init_positions(observed: xr.Dataset, init: xr.DataArray) -> np.ndarray:
    apart = "segment" in init.coords and "segment" in observed.coords
    segment = init["segment"].values if apart else None
    positions = locate(observed["time"], init.values, segment=segment)
    if (positions < 0).any():
        absent = [str(t) for t in init.values[positions < 0]]
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        raise ValueError(
            f"got initial times without an observation: {shown}; expected every one in `observed`,"
            " baselines start from it"
        )
    return positions


def _init_state(observed: xr.Dataset, init: xr.DataArray) -> xr.Dataset:
    picked = observed.isel(time=xr.DataArray(_init_positions(observed, init), dims="init_time"))
    picked = picked.drop_vars([c for c in picked.coords if "init_time" in picked[c].dims])
    return picked.assign_coords(init_time=init)


def init_anomaly(reference: Reference, observed: xr.Dataset, init_times: Any) -> xr.Dataset:
    """Take anomalies of the observations at the initial times; 0 where nothing was observed.

    Returns
    -------
    Dataset
        The variables of ``reference``, dims ``(init_time, [level], *space)``.
    """
    init, _ = axes(init_times, [], reference.step)
    names = _names(reference, observed)
    state = _init_state(observed[names], init)
    normal = _at_init(reference, init)
    out = {}
    for name in names:
        dims = ["init_time", *[d for d in reference.anomaly[name].dims if d != "time"]]
        out[name] = (state[name] - normal[name].variable).fillna(0.0).transpose(*dims)
    return xr.Dataset(out)


def _at_init(reference: Reference, init: xr.DataArray) -> xr.Dataset:
    """The climatology at initial times, without their coordinate."""
    time = xr.DataArray(init.values, dims="init_time", attrs=_time_attrs(reference.step))
    return reference.climatology.at(time).drop_vars("init_time", errors="ignore")


def _time_attrs(step: Step) -> dict[str, str]:
    return {"units": "ps"} if step.unit == "ps" else {}


def _names(reference: Reference, observed: xr.Dataset) -> list[str]:
    names = [str(n) for n in reference.anomaly.data_vars]
    absent = [n for n in names if n not in observed.data_vars]
    if absent:
        raise ValueError(
            f"got observations without {absent}, expected all variables of the reference: {names}"
        )
    return names


def add_climatology(anomaly: xr.Dataset, reference: Reference, observed: xr.Dataset) -> xr.Dataset:
    """Make full fields from forecast anomalies, in the forecast layout.

    They have the attributes of the observations.
    """
    init, lead = axes(anomaly["init_time"], anomaly["lead_time"], reference.step)
    normal = _at_valid(reference.climatology, init, lead, reference.step)
    out = {}
    for name in anomaly.data_vars:
        like = observed[name]
        field = anomaly[name] + normal[name].variable
        out[name] = field.transpose(*_layout(like)).assign_attrs(like.attrs)
    return xr.Dataset(out)


def climatology_forecast(
    reference: Reference, observed: xr.Dataset, init_times: Any, lead_times: Any
) -> xr.Dataset:
    """Forecast the climatology of the training years at every valid time.

    Parameters
    ----------
    reference : Reference
    observed : Dataset
        Its variables and attributes; its values are not read.
    init_times, lead_times : array-like
        As `Step.lead_times` makes them.

    Returns
    -------
    Dataset
        Forecast layout, physical units.
    """
    init, lead = axes(init_times, lead_times, reference.step)
    normal = _at_valid(reference.climatology, init, lead, reference.step)
    out = {}
    for name in _names(reference, observed):
        like = observed[name]
        out[name] = normal[name].transpose(*_layout(like)).assign_attrs(like.attrs)
    return xr.Dataset(out)


def persistence_forecast(
    reference: Reference | None, observed: xr.Dataset, init_times: Any, lead_times: Any
) -> xr.Dataset:
    """Repeat the whole observed field of the initial time (not its anomaly) at every lead.

    Parameters
    ----------
    reference : Reference or None
        Gives the climatology that stands in for cells missing at the initial time. None leaves them
        missing.
    observed : Dataset
        Dims ``(time, [level], *space)``.
    init_times, lead_times : array-like
        As `Step.lead_times` makes them.

    Returns
    -------
    Dataset
        Forecast layout, physical units.

    Raises
    ------
    ValueError
        If an initial time is not in ``observed``; the message lists them.
    """
    step = infer_step(observed["time"]) if reference is None else reference.step
    init, lead = axes(init_times, lead_times, step)
    state = _init_state(_with_time(observed), init)
    if reference is not None:
        names = _names(reference, observed)
        normal = _at_init(reference, init)
        filled = {n: state[n].fillna(normal[n]) for n in names}
        state = xr.Dataset(filled, attrs=state.attrs)
    out = {}
    for name in state.data_vars:
        like = observed[name]
        field = state[name].expand_dims(lead_time=lead)
        out[name] = field.transpose(*_layout(like)).assign_attrs(like.attrs)
    return xr.Dataset(out).assign_coords(lead_time=lead)


def fit_slopes(reference: Reference, lead_times: Any) -> xr.Dataset:
    r"""Fit slopes of the anomaly at ``t + lead`` on that at ``t``, for every cell and lead.

    .. math:: s = \sum_t a_t a_{t+l} / \sum_t a_t^2

    over the training pairs inside one segment. For monthly data there is one for each calendar
    month of ``t``.

    Parameters
    ----------
    reference : Reference
    lead_times : array-like

    Returns
    -------
    Dataset
        Unitless, dims ``(lead_time, season, [level], *space)``, lazy for lazy anomalies. ``season``
        is the start month 1–12, or the single 0. Slopes are 0 where there is nothing to learn from.
    """
    _, lead = axes([], lead_times, reference.step)
    time = reference.anomaly["time"]
    monthly = reference.step.unit == "months"
    seasons = np.arange(1, 13) if monthly else np.array([0])
    layers = []
    for steps in reference.step.steps(lead.values):
        first, later = training_pairs(time, int(steps), reference.step)
        if not len(first):
            raise ValueError(
                f"got no training pairs {steps} steps apart, expected a training block longer than"
                " the lead"
            )
        month = calendar_fields(time.values[first])[2] if monthly else np.zeros(len(first), int)
        of_season = (month[None, :] == seasons[:, None]).astype(float)
        chosen = xr.DataArray(of_season, dims=("season", "time"))
        layers.append(reference.anomaly.map(_seasonal_slope, args=(chosen, first, later)))
    return xr.concat(layers, dim="lead_time").assign_coords(lead_time=lead, season=seasons)


def _seasonal_slope(
    anomaly: xr.DataArray, chosen: xr.DataArray, first: np.ndarray, later: np.ndarray
) -> xr.DataArray:
    plain = anomaly.drop_vars([c for c in anomaly.coords if "time" in anomaly[c].dims])
    a, b = plain.isel(time=first), plain.isel(time=later)
    both = a.notnull() & b.notnull()
    product = xr.dot(chosen, (a * b).where(both, 0.0), dim="time")
    square = xr.dot(chosen, (a * a).where(both, 0.0), dim="time")
    slope: xr.DataArray = (product / square.where(square > 0)).fillna(0.0)
    return slope


def damped_persistence_forecast(
    reference: Reference,
    observed: xr.Dataset,
    init_times: Any,
    lead_times: Any,
    *,
    slopes: xr.Dataset | None = None,
) -> xr.Dataset:
    """Forecast the climatology plus the damped initial anomaly.

    It is damped by the slope that `fit_slopes` finds in the training years.

    Parameters
    ----------
    reference : Reference
    observed : Dataset
        Dims ``(time, [level], *space)``.
    init_times, lead_times : array-like
    slopes : Dataset, optional
        From `fit_slopes`, fitted here if left out.

    Returns
    -------
    Dataset
        Forecast layout, physical units.

    Raises
    ------
    ValueError
        If an initial time is not in ``observed``; the message lists them.
    """
    init, lead = axes(init_times, lead_times, reference.step)
    anomaly = init_anomaly(reference, observed, init)
    slopes = fit_slopes(reference, lead) if slopes is None else slopes
    monthly = reference.step.unit == "months"
    month = calendar_fields(init.values)[2] if monthly else np.zeros(init.size, int)
    place = np.searchsorted(slopes["season"].values, month)
    damping = slopes.isel(season=xr.DataArray(place, dims="init_time")).drop_vars("season")
    damped = xr.Dataset({n: damping[n].variable * anomaly[n] for n in anomaly.data_vars})
    damped = damped.assign_coords(init_time=init, lead_time=lead)
    return add_climatology(damped, reference, observed)
