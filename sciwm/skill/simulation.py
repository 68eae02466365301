"""Whether simulations hold: mean, variance and annual cycle beside those of the truth."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sciwm.climatology import Climatology, evaluate_design
from sciwm.regions import region_weights
from sciwm.skill.alignment import training_pairs, valid_positions
from sciwm.skill.baselines.simple import Reference
from sciwm.skill.lineup import as_channels
from sciwm.times import Step, calendar_fields

__all__ = ["annual_amplitude", "diagnose_simulations", "simulation_table"]

_SPACE = ("latitude", "longitude")
_HEMISPHERES = ("northern_extratropics", "southern_extratropics")
_SINGLE, _TOGETHER = 240.0, 168.0  # hours: leads by themselves up to here, then by the week
_BLOWN = 20.0  # standard deviations
_BLOCK = 2_000_000  # values of one in-memory block
_HARDLY = 0.05  # an annual cycle below this share of the standard deviation is none
_LAST = 0.25  # share of the leads that the table is about


def diagnose_simulations(
    simulations: Mapping[str, Iterable[xr.Dataset]],
    observed: xr.Dataset,
    *,
    reference: Reference,
    every: int,
) -> xr.Dataset:
    r"""Compute mean, spread and annual cycle of long roll-outs, and those of the truth beside.

    With anomalies :math:`a` about the climatology, and means over area, initial times, members and
    leads taken together,

    .. math:: \mathrm{mean} = \overline{a}, \qquad
        \mathrm{spread}^2 = \overline{a^2} - \overline{a}^2, \qquad
        \mathrm{change}^2 = \overline{(a_t - a_{t-1})^2}

    Leads stand alone in the first ten days, and are taken together by the week after. The truth has
    its own spread and change in every calendar month. They are averaged as the months are met.
    Fixed errors of the climate count as spread, but not as change: it tells whether there is
    weather.

    A simulation blows up where an anomaly is not finite or passes the limit of its channel. That is
    20 standard deviations, or twice the largest one in training if that is more. From there on the
    simulation is left out. Sums are taken part by part: memory does not grow with the length.

    Parameters
    ----------
    simulations : mapping of str to iterable of Dataset
        By method, in physical units; parts with dims ``(init_time, lead_time, [number], …)`` as
        `WorldModel.simulate_batches` yields them. Initial times and leads are the same for all.
    observed : Dataset
        The truth, as far as it goes: canonical, with ``time``.
    reference : Reference
        Climatology and anomalies of the training block.
    every : int
        Time steps between two leads.

    Returns
    -------
    Dataset
        With the coordinates ``units(channel)`` and ``num_simulations(method)``:

        - ``mean``, ``mean_std``, ``spread``, ``change``: ``(method, channel, lead_time)``, in the
          units of the channel. ``mean_std`` is the standard deviation of the area mean.
        - ``training_spread``, ``training_change``, ``observed_mean``, ``observed_spread``:
          ``(channel, lead_time)``; the observed ones are NaN beyond the record.
        - ``training_mean_std``: ``(channel,)``.
        - ``cycle``, ``training_cycle``: ``(method, region, channel, month)``, area means.
        - ``alive``: ``(method, lead_time)``, simulations that have not blown up.
        - ``blowup``: ``(method, init_time)``, the first lead at which one did, in ``attrs["lead"]``
          such as hours; NaN where none did. ``attrs["longest"]`` is the longest lead.

    Raises
    ------
    ValueError
        If there are no fields on a grid, or no simulation.
    """
    earth = observed.attrs.get("coastlines") != "none"
    truth = _fit_truth(reference, every, earth=earth)
    found = {}
    for method, parts in simulations.items():
        sums = _Sums(truth)
        for part in parts:
            sums.add(part)
        found[method] = sums
    if not found or not all(sums.leads for sums in found.values()):
        raise ValueError("got no simulation, expected at least one initial time and lead of each")
    one = next(iter(found.values()))
    each = [sums.statistics() for sums in found.values()]
    out = xr.concat(each, "method", data_vars="all", coords="minimal", compat="override")
    out = out.assign_coords(
        method=list(found),
        num_simulations=("method", [sums.count for sums in found.values()]),
    )
    init_time = xr.concat(one.inits, "init_time")
    out = out.assign(_beside(truth, observed, init_time, one)).assign_coords(truth.coords)
    about: dict[str, Any] = {k: v for k, v in observed.attrs.items() if k == "coastlines"}
    about |= {"lead": truth.step.unit, "longest": max(one.leads) * truth.step.value}
    return out.assign_attrs(about, num_init=int(init_time.size))


@dataclass(frozen=True)
class _Truth:
    """What simulations are measured by: the climatology, and what departs from it in training."""

    climatology: Climatology
    step: Step
    names: list[str]
    coords: dict[str, Any]
    area: np.ndarray  # latitude, longitude
    valid: np.ndarray  # channel, latitude, longitude
    regions: list[str]
    weights: np.ndarray  # region, latitude, longitude
    cycle: np.ndarray  # coefficient, region, channel
    mean_std: np.ndarray  # channel
    square: np.ndarray  # month, channel
    change: np.ndarray  # month, channel
    limit: np.ndarray  # channel


def _fit_truth(reference: Reference, every: int, *, earth: bool) -> _Truth:
    climatology = reference.climatology
    names = [
        str(n) for n, v in climatology.coefficients.data_vars.items() if set(_SPACE) <= {*v.dims}
    ]
    if not names:
        raise ValueError(
            f"got {list(climatology.coefficients.data_vars)}, expected fields on latitude and"
            " longitude to judge simulations by"
        )
    coefficients = _stack(climatology.coefficients, names, ("coefficient",))
    field = climatology.coefficients[names[0]]
    regions, weights = _regions(field, earth=earth)
    valid = np.isfinite(coefficients).all(0)
    area = region_weights(field.isel(coefficient=0)).isel(region=0).values
    anomaly, time = reference.anomaly[names], reference.anomaly["time"]
    first, later = training_pairs(time, every, reference.step)
    paired = np.zeros(time.size, bool)
    paired[first[later == first + every]] = True
    month, size = _months(time.values) - 1, _values(anomaly)
    means, squares = [], []
    change, times, largest = np.zeros((12, len(valid))), np.zeros(12), np.zeros(len(valid))
    for rows in _blocks(time.size, size):
        ahead = slice(rows.start, min(rows.stop + every, time.size))
        values = _stack(anomaly.isel(time=ahead).compute(), names, ("time",))
        own = values[: rows.stop - rows.start]
        means.append(_mean(own, area))
        squares.append(_mean(own**2, area))
        largest = np.maximum(largest, np.nanmax(np.abs(own), axis=(0, 2, 3)))
        places = np.flatnonzero(paired[rows])
        moved = _mean((values[places + every] - values[places]) ** 2, area)
        np.add.at(change, month[rows][places], moved)
        np.add.at(times, month[rows][places], 1.0)
    mean, square = np.concatenate(means), np.concatenate(squares)
    counts = np.bincount(month, minlength=12).astype(float)
    by_month = np.zeros((12, len(valid)))
    np.add.at(by_month, month, square)
    whole = square.mean(0)
    scale = np.sqrt(whole)
    return _Truth(
        climatology=climatology,
        step=reference.step,
        names=names,
        coords=_channels(climatology.coefficients, names),
        area=area,
        valid=valid,
        regions=regions,
        weights=weights,
        cycle=np.stack([_mean(coefficients, w) for w in weights], axis=1),
        mean_std=mean.std(0),
        square=_each_month(by_month, counts, whole),
        change=_each_month(change, times, change.sum(0) / max(times.sum(), 1.0)),
        limit=np.maximum(_BLOWN * scale, 2 * largest),
    )


def _each_month(total: np.ndarray, count: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Means by month; that of all where a month was never met."""
    mean = total / np.maximum(count, 1.0)[:, None]
    return np.where(count[:, None] > 0, mean, whole)


def _regions(field: xr.DataArray, *, earth: bool) -> tuple[list[str], np.ndarray]:
    """Regions whose annual cycle is looked at: the hemispheres, or all where there are none."""
    field = field.isel(coefficient=0)
    weights = region_weights(field, _HEMISPHERES if earth else ())
    there = weights.sum(_SPACE) > 0
    weights = weights.isel(region=np.flatnonzero(there)) if there.any() else region_weights(field)
    return [str(r) for r in weights["region"].values], weights.values


def _channels(ds: xr.Dataset, names: list[str]) -> dict[str, Any]:
    """Coordinates of the dim ``channel``."""
    parts = [as_channels(ds[n].isel(coefficient=0), n) for n in names]
    labels = [str(c) for part in parts for c in part["channel"].values]
    units = [
        str(ds[n].attrs.get("units", ""))
        for n, part in zip(names, parts, strict=True)
        for _ in range(part.sizes["channel"])
    ]
    return {"channel": labels, "units": ("channel", units)}


def _stack(ds: xr.Dataset, names: list[str], lead: tuple[str, ...]) -> np.ndarray:
    """Variables and levels as channels, ``[*lead, channel, latitude, longitude]``, float64."""
    parts = []
    for name in names:
        field = ds[name] if "level" in ds[name].dims else ds[name].expand_dims("level")
        parts.append(field.transpose(*lead, "level", *_SPACE).values.astype(float))
    return np.concatenate(parts, axis=len(lead))


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area mean over the last two axes of what is there."""
    seen = np.isfinite(values)
    if seen.all():
        return np.asarray(np.einsum("...yx,yx->...", values, weights / weights.sum()))
    total = np.einsum("...yx,yx->...", seen.astype(float), weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.einsum("...yx,yx->...", np.where(seen, values, 0.0), weights) / total)


def _months(time: np.ndarray) -> np.ndarray:
    """Calendar months, 1 to 12; 1 where there is no calendar."""
    if np.asarray(time).dtype.kind in "iuf":
        return np.ones(np.shape(time), np.int64)
    return np.asarray(calendar_fields(time)[2]).astype(np.int64)


def _values(ds: xr.Dataset) -> int:
    return int(sum(v.size // v.sizes["time"] for v in ds.data_vars.values()))


def _blocks(count: int, size: int) -> Iterator[slice]:
    """Stretches of a time axis whose states fit into memory."""
    together = max(1, _BLOCK // size)
    for start in range(0, count, together):
        yield slice(start, min(start + together, count))


class _Sums:
    """Sums over the parts of the simulations of one method."""

    def __init__(self, truth: _Truth) -> None:
        self.truth, channels = truth, len(truth.valid)
        self.inits: list[xr.DataArray] = []
        self.leads: dict[int, int] = {}  # simulations alive, by lead in steps
        self.sums: dict[float, np.ndarray] = {}  # five sums and two counts of each channel
        self.count = 0
        shape = (len(truth.regions), 12, channels)
        self.cycle, self.normal, self.months = np.zeros(shape), np.zeros(shape), np.zeros(12)
        self.blowup: list[np.ndarray] = []
        self.dead = np.zeros((0, 0), bool)
        self.last: np.ndarray | None = None

    def add(self, part: xr.Dataset) -> None:
        """Add some leads of some initial times; those of an initial time come in order."""
        truth, step = self.truth, self.truth.step
        part = part if "number" in part.dims else part.expand_dims("number")
        steps = np.asarray(step.steps(part["lead_time"].values))
        init = part["init_time"]
        if not (self.inits and init.identical(self.inits[-1])):
            self._begin(init, part.sizes["number"])
        valid_time = step.add(init.values[:, None], steps)
        normal = truth.climatology.at(xr.DataArray(valid_time, dims=("init_time", "lead_time")))
        lead = ("init_time", "lead_time", "number")
        values = _stack(part, truth.names, lead)
        values -= _stack(normal, truth.names, lead[:2])[:, :, None]
        alive = self._alive(values, step.amounts(part["lead_time"].values))
        values = np.where(alive[..., None, None, None] & truth.valid, values, np.nan)
        months, before = _months(valid_time) - 1, self.last
        moved = np.diff(values, axis=1, prepend=values[:, :1] if before is None else before)
        self.last = values[:, -1:]
        found = [_mean(x, truth.area) for x in (values, values**2, moved**2)]
        if before is None:
            found[2][:, 0] = np.nan
        self._add_leads(steps, found, alive)
        self._add_months(months, values, alive, truth.climatology, valid_time)

    def _begin(self, init: xr.DataArray, members: int) -> None:
        self.inits.append(init)
        self.count += init.size * members
        self.dead, self.last = np.zeros((init.size, members), bool), None
        self.blowup.append(np.full(init.size, np.nan))

    def _alive(self, values: np.ndarray, lead: np.ndarray) -> np.ndarray:
        """Which have not blown up so far, ``[init, lead, member]``."""
        small = np.abs(values) <= self.truth.limit[:, None, None]
        bad = ~small & self.truth.valid
        now = bad.reshape(*bad.shape[:3], -1).any(-1)
        dead = np.logical_or.accumulate(now, axis=1) | self.dead[:, None]
        gone = np.asarray((dead & ~self.dead[:, None]).any(2))
        first = np.where(gone.any(1), lead[gone.argmax(1)], np.nan)
        self.blowup[-1] = np.fmin(self.blowup[-1], first)
        self.dead = dead[:, -1]
        return ~dead

    def _add_leads(self, steps: np.ndarray, found: list[np.ndarray], alive: np.ndarray) -> None:
        mean, square, moved = found
        parts = [mean, mean**2, square, moved, np.isfinite(mean), np.isfinite(moved)]
        for k, (lead, label) in enumerate(zip(steps, _labels(self.truth.step, steps), strict=True)):
            now = np.stack([np.nansum(x[:, k], axis=(0, 1)) for x in parts])
            self.sums[label] = self.sums.get(label, 0.0) + now
            self.leads[int(lead)] = self.leads.get(int(lead), 0) + int(alive[:, k].sum())

    def _add_months(
        self,
        months: np.ndarray,
        values: np.ndarray,
        alive: np.ndarray,
        climatology: Climatology,
        valid_time: np.ndarray,
    ) -> None:
        """Area means of each calendar month, of anomalies and of the climatology."""
        truth, count = self.truth, alive.sum(2)
        design = climatology.design(xr.DataArray(valid_time, dims=("init_time", "lead_time")))
        monthly = climatology.kind == "monthly"
        normal = evaluate_design(design.values, truth.cycle, monthly=monthly)
        for r, weights in enumerate(truth.weights):
            total = np.nansum(_mean(values, weights), axis=2)
            np.add.at(self.cycle[r], months, total)
            np.add.at(self.normal[r], months, normal[:, :, r] * count[..., None])
        np.add.at(self.months, months, count)

    def statistics(self) -> xr.Dataset:
        """Means from sums; the rows of `diagnose_simulations` of one method."""
        truth, by_label = self.truth, np.stack([self.sums[k] for k in sorted(self.sums)])
        total, squares, square, moved, count, changes = np.moveaxis(by_label, 1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = total / count
            columns = {
                "mean": mean,
                "mean_std": np.sqrt(np.maximum(squares / count - mean**2, 0.0)),
                "spread": np.sqrt(np.maximum(square / count - mean**2, 0.0)),
                "change": np.sqrt(moved / changes),
            }
            normal = self.normal / self.months[:, None]
            cycle = normal + self.cycle / self.months[:, None]
        out: dict[str, Any] = {k: (("channel", "lead_time"), v.T) for k, v in columns.items()}
        order = ("region", "month", "channel")
        out |= {"cycle": (order, cycle), "training_cycle": (order, normal)}
        out["alive"] = ("lead_time", self._alive_by_label())
        init_time = xr.concat(self.inits, "init_time")
        out["blowup"] = ("init_time", np.concatenate(self.blowup))
        coords = {
            "lead_time": self.lead_time(),
            "init_time": init_time.variable,
            "region": truth.regions,
            "month": np.arange(1, 13),
        }
        return xr.Dataset(out, coords).transpose(..., "channel", "lead_time", "month")

    def grouped(self) -> dict[float, list[int]]:
        """Leads in steps that are taken together."""
        steps, groups = np.array(sorted(self.leads)), dict[float, list[int]]()
        for lead, label in zip(steps.tolist(), _labels(self.truth.step, steps), strict=True):
            groups.setdefault(label, []).append(lead)
        return groups

    def lead_time(self) -> xr.Variable:
        """Mean of the leads that are taken together, and how many they are."""
        step, groups = self.truth.step, self.grouped().values()
        middle = np.array([np.mean(leads) for leads in groups])
        if step.unit != "hours":
            return xr.Variable("lead_time", middle * step.value, {"units": step.unit})
        return xr.Variable("lead_time", step.lead_times(middle))

    def _alive_by_label(self) -> np.ndarray:
        return np.array([self.leads[leads[-1]] for leads in self.grouped().values()])


def _labels(step: Step, steps: np.ndarray) -> list[float]:
    """What leads are taken together by: their own length, or the end of their week."""
    amount = steps * step.value
    if step.unit != "hours":
        return list(amount.tolist())
    weeks = _SINGLE + np.ceil((amount - _SINGLE) / _TOGETHER - 1e-9) * _TOGETHER
    return list(np.where(amount <= _SINGLE, amount, weeks).tolist())


def _beside(
    truth: _Truth, observed: xr.Dataset, init_time: xr.DataArray, sums: _Sums
) -> dict[str, Any]:
    """What the truth has at the leads: spread by month of training, and the record itself."""
    groups = sums.grouped()
    steps = np.array([lead for leads in groups.values() for lead in leads])
    place = valid_positions(observed["time"], init_time, steps, truth.step)
    months = _months(truth.step.add(init_time.values[:, None], steps)) - 1
    mean, square = _record(truth, observed, np.unique(place[place >= 0]))
    rows: dict[str, list[np.ndarray]] = {
        k: [] for k in ("training_spread", "training_change", "observed_mean", "observed_spread")
    }
    start = 0
    for leads in groups.values():
        own = slice(start, start + len(leads))
        start += len(leads)
        at = place[:, own]
        at = at[at >= 0]
        rows["training_spread"].append(np.sqrt(truth.square[months[:, own]].mean((0, 1))))
        rows["training_change"].append(np.sqrt(truth.change[months[:, own]].mean((0, 1))))
        nothing = np.full(len(truth.valid), np.nan)
        middle = mean[at].mean(0) if len(at) else nothing
        rows["observed_mean"].append(middle)
        spread = np.sqrt(square[at].mean(0) - middle**2) if len(at) else nothing
        rows["observed_spread"].append(spread)
    out: dict[str, Any] = {
        k: (("channel", "lead_time"), np.stack(v, axis=1)) for k, v in rows.items()
    }
    return out | {"training_mean_std": ("channel", truth.mean_std)}


def _record(
    truth: _Truth, observed: xr.Dataset, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area means of the anomalies of the record, and of their squares, ``[time, channel]``."""
    mean, square = np.full((2, observed.sizes["time"], len(truth.valid)), np.nan)
    fields = observed[truth.names]
    for rows in _blocks(len(places), _values(fields)):
        part = fields.isel(time=places[rows])
        values = _stack(part.compute(), truth.names, ("time",))
        values -= _stack(truth.climatology.at(part["time"]), truth.names, ("time",))
        mean[places[rows]] = _mean(values, truth.area)
        square[places[rows]] = _mean(values**2, truth.area)
    return mean, square


def annual_amplitude(cycle: xr.DataArray) -> xr.DataArray:
    """Amplitude of the first annual harmonic, from means of the twelve calendar months.

    Parameters
    ----------
    cycle : DataArray
        With the dim ``month``.

    Returns
    -------
    DataArray
        In the units of ``cycle``, without ``month``; NaN unless all months are there.

    Examples
    --------
    >>> month = xr.DataArray(np.arange(1, 13), dims="month")
    >>> wave = 3.0 + 2.0 * np.cos(2 * np.pi * (month - 7.5) / 12)
    >>> round(float(annual_amplitude(wave)), 6)
    2.0
    """
    angle = xr.DataArray(2 * np.pi * (np.arange(12) + 0.5) / 12, dims="month")
    sine, cosine = (
        (cycle * wave).sum("month", skipna=False) / 6 for wave in (np.sin(angle), np.cos(angle))
    )
    return (sine**2 + cosine**2) ** 0.5


def simulation_table(simulation: xr.Dataset) -> pd.DataFrame:
    """How well simulations hold: one row of each channel and method, over the last quarter.

    Parameters
    ----------
    simulation : Dataset
        From `diagnose_simulations`.

    Returns
    -------
    DataFrame
        Columns ``channel, units, method``, and

        - ``drift``: area mean of the anomalies; 0 is perfect. ``truth_mean_std`` is how far that of
          the truth is from 0 at any one time.
        - ``spread_ratio``, ``change_ratio``: to the truth's; 1 is perfect, 0 is no weather at all.
        - ``cycle_ratio_REGION``: of annual amplitudes; NaN where the truth has none, or months are
          missing.
        - ``simulations, blown_up, first_blowup``: how many of how many, and the first lead.
    """
    lead = simulation["lead_time"].values
    late = simulation.isel(lead_time=np.flatnonzero(lead >= (1 - _LAST) * lead[-1]))
    drift = late["mean"].mean("lead_time")
    ratios = {}
    for name in ("spread", "change"):
        square = (late[name] ** 2).mean("lead_time")
        beside = (late[f"training_{name}"].where(late[name].notnull()) ** 2).mean("lead_time")
        ratios[f"{name}_ratio"] = (square / beside.where(beside > 0)) ** 0.5
    truth = annual_amplitude(simulation["training_cycle"])
    least = _HARDLY * simulation["training_spread"].mean("lead_time")
    cycle = annual_amplitude(simulation["cycle"]) / truth.where(truth > least)
    rows = []
    for method in simulation["method"].values:
        one = {"method": method}
        total = int(simulation["num_simulations"].sel(one))
        alive = int(simulation["alive"].sel(one).isel(lead_time=-1))
        first = simulation["blowup"].sel(one).min()
        for channel in simulation["channel"].values:
            at = {"channel": channel} | one
            rows.append(
                {
                    "channel": str(channel),
                    "units": str(simulation["units"].sel(channel=channel).item()),
                    "method": str(method),
                    "drift": float(drift.sel(at)),
                    "truth_mean_std": float(simulation["training_mean_std"].sel(channel=channel)),
                    **{k: float(v.sel(at)) for k, v in ratios.items()},
                    **{
                        f"cycle_ratio_{r}": float(cycle.sel(at | {"region": r}))
                        for r in simulation["region"].values
                    },
                    "simulations": total,
                    "blown_up": total - alive,
                    "first_blowup": float(first),
                }
            )
    order = {str(c): i for i, c in enumerate(simulation["channel"].values)}
    frame = pd.DataFrame(rows)
    return frame.sort_values(
        "channel", key=lambda c: c.map(order), kind="stable", ignore_index=True
    )
