"""The weighted sums that a table is made of, block by block of initial times."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from dask.base import compute

from sciwm.regions import region_weights
from sciwm.skill.ensemble import ensemble_sums, single_sums
from sciwm.skill.events import Event, event_sums
from sciwm.skill.fractions import fraction_sums, neighbourhood
from sciwm.skill.lineup import Block, Lineup, as_channels
from sciwm.skill.metrics import find_metric
from sciwm.skill.scores import score_sums
from sciwm.skill.seeps import RainClimate, rain_climates, seeps_sums

__all__ = ["Collector", "TableSums", "check_regions", "collect"]

_JOIN: dict[str, Any] = {"coords": "minimal", "compat": "override", "join": "override"}


@runtime_checkable
class Collector(Protocol):
    """Sums of something over the initial times of a lineup."""

    def lazy(self, block: Block) -> Any:
        """What Dask computes for a block."""

    def add(self, computed: Any) -> None:
        """Take what was computed for the next block."""


def collect(
    lineup: Lineup, *collectors: Collector, normal: bool = True, progress: str = "scores"
) -> None:
    """Go through a lineup once for all collectors: forecasts are read, and baselines made, once."""
    for block in lineup.blocks(normal=normal, progress=progress):
        found = compute(*(c.lazy(block) for c in collectors))  # type: ignore[no-untyped-call]
        for collector, computed in zip(collectors, found, strict=True):
            collector.add(computed)


class TableSums:
    """Sums that a table of scores is made of.

    Parameters
    ----------
    lineup : Lineup
    metrics, regions : sequence of str
        As `sciwm.skill.evaluate` takes them.
    events : sequence of Event
    """

    def __init__(
        self,
        lineup: Lineup,
        *,
        metrics: Sequence[str],
        regions: Sequence[str],
        events: Sequence[Event] = (),
    ) -> None:
        self.weights = {
            str(n): region_weights(v, regions, land=lineup.land)
            for n, v in lineup.observed.data_vars.items()
        }
        check_regions(list(self.weights.values()))
        self.asked = frozenset(m for m in metrics if find_metric(m).of == "members")
        self.climates: Mapping[str, RainClimate] = {}
        if lineup.reference is not None:
            self.climates = rain_climates(lineup.reference, lineup.observed, metrics=metrics)
        self.events = events
        self.sizes = sorted({n for n in map(neighbourhood, metrics) if n is not None})
        self.parts: list[list[xr.DataArray]] = []

    def lazy(self, block: Block) -> list[xr.DataArray]:
        """Sums of variables and, with events, of events."""
        lazy = [_value_sums(block, self.weights, self.asked, self.climates)]
        if self.events:
            lazy.append(_event_sums(block, self.weights, self.events, self.sizes))
        return lazy

    def add(self, computed: list[xr.DataArray]) -> None:
        """Keep the sums of a block."""
        self.parts.append(computed)

    @property
    def values(self) -> xr.DataArray:
        """Of the variables: ``(method, channel, region, init_time, lead_time, statistic)``."""
        return self._joined(0)

    @property
    def of_events(self) -> xr.DataArray | None:
        """The same of threshold events, a channel for each, with the coordinate ``event``."""
        return self._joined(1) if self.events else None

    def _joined(self, which: int) -> xr.DataArray:
        blocks = [part[which] for part in self.parts]
        return xr.concat(blocks, "init_time", **_JOIN) if len(blocks) > 1 else blocks[0]


def check_regions(weights: Sequence[xr.DataArray]) -> None:
    """Refuse regions that no cell of any variable lies in."""
    used = {str(r) for w in weights for r in w["region"].values[w.sum(w.dims[1:]).values > 0]}
    if empty := [str(r) for r in weights[0]["region"].values if r not in used]:
        raise ValueError(
            f"got regions {empty} without any cell of the domain, expected names, boxes or"
            " component prefixes that overlap it"
        )


def _join(parts: Mapping[str, list[xr.DataArray]]) -> xr.DataArray:
    joined = [xr.concat(channels, "channel", **_JOIN) for channels in parts.values()]
    return xr.concat(joined, "method", **_JOIN).assign_coords(method=list(parts))


def _value_sums(
    block: Block,
    weights: Mapping[str, xr.DataArray],
    ensemble: frozenset[str],
    climates: Mapping[str, RainClimate],
) -> xr.DataArray:
    lazy: dict[str, list[xr.DataArray]] = {m: [] for m in block.fields}
    for name, weight in weights.items():
        truth = block.truth(name)
        normal = None if block.normal is None else block.normal[name]
        for method, ds in block.fields.items():
            sums = _sums(ds[name], truth, normal, weight, ensemble)
            if climates:
                rain = None
                if name in climates:
                    valid = block.observed["time"].values[block.positions]
                    rain = seeps_sums(ds[name], truth, climates[name], valid=valid, weights=weight)
                sums = _beside(sums, rain, ["seeps", "seeps_weight"])
            lazy[method].append(as_channels(sums, name))
    return _join(lazy)


def _sums(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    normal: xr.DataArray | None,
    weights: xr.DataArray,
    ensemble: frozenset[str],
) -> xr.DataArray:
    mean = forecast.mean("number", skipna=False) if "number" in forecast.dims else forecast
    sums = score_sums(mean, truth, normal, weights=weights)
    if not ensemble:
        return sums
    energy = "energy_score" in ensemble
    if "number" in forecast.dims:
        more = ensemble_sums(forecast, truth, normal, weights=weights, energy=energy)
    else:
        more = single_sums(sums, energy=energy)
    return xr.concat([sums, more.transpose(*sums.dims)], "statistic", **_JOIN)


def _beside(sums: xr.DataArray, more: xr.DataArray | None, labels: list[str]) -> xr.DataArray:
    """Sums with further statistics, NaN where there are none."""
    if more is None:
        more = xr.full_like(sums.isel(statistic=[0] * len(labels)), np.nan)
        more = more.assign_coords(statistic=labels)
    return xr.concat([sums, more.transpose(*sums.dims)], "statistic", **_JOIN)


def _event_sums(
    block: Block, weights: Mapping[str, xr.DataArray], events: Sequence[Event], sizes: Sequence[int]
) -> xr.DataArray:
    """Sums of all events; the statistics have room for the members of the largest ensemble."""
    bins = 1 + max(ds.sizes.get("number", 1) for ds in block.fields.values())
    lazy: dict[str, list[xr.DataArray]] = {m: [] for m in block.fields}
    for event in events:
        for name, weight in weights.items():
            levels = _levels_of(event, block.observed[name], name)
            if not levels:
                continue
            truth = _at(block.truth(name), levels)
            normal = None if block.normal is None else _at(block.normal[name], levels)
            for method, ds in block.fields.items():
                fields = _at(ds[name], levels), truth, normal
                sums = event_sums(*fields, event=event, weights=weight, bins=bins)
                for size in sizes:
                    near = None
                    if weight.ndim == 3:  # a grid
                        near = fraction_sums(*fields, event=event, size=size, weights=weight)
                    sums = _beside(sums, near, [f"fss_{size}_error", f"fss_{size}_reference"])
                channels = as_channels(sums, name)
                labels = [f"{c}{event.condition}" for c in channels["channel"].values]
                conditions = ("channel", [event.condition] * len(labels))
                lazy[method].append(channels.assign_coords(channel=labels, event=conditions))
    return _join(lazy)


def _levels_of(event: Event, field: xr.DataArray, name: str) -> list[int]:
    """Positions of the levels that an event is of; a field without levels is at position 0."""
    levels = field["level"].values if "level" in field.dims else [np.nan]
    return [i for i, level in enumerate(levels) if event.is_of(name, float(level))]


def _at(field: xr.DataArray, levels: list[int]) -> xr.DataArray:
    return field.isel(level=levels) if "level" in field.dims else field
