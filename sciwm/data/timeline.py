"""The time axis of a record: pieces joined, members stacked as segments, steps checked."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from sciwm.data.names import Axis
from sciwm.data.units import linear, same_dimension
from sciwm.times import infer_step, numeric_time

__all__ = [
    "canonical_lead",
    "canonical_time",
    "check_times",
    "join_pieces",
    "keep_coordinates",
    "stack_segments",
]

Piece = tuple[str, xr.Dataset]


def canonical_time(ds: xr.Dataset, record: dict[str, Any], *, role: str = "time") -> xr.Dataset:
    """Keep dates in ``datetime64[ns]`` or ``cftime``; turn simulation times in fs or ns into ps.

    Raises
    ------
    ValueError
        If the times are plain numbers without such units, or missing.
    """
    name = record[role]["coordinate"] or record[role]["dim"]
    if role not in ds.coords:
        raise ValueError(
            f"got dimension {name!r} without values, expected times; set them:"
            f" ds.assign_coords({name}=...)"
        )
    time = ds[role]
    attrs = {k: v for k, v in time.attrs.items() if k not in ("bounds", "climatology")}
    if time.dtype.kind == "M":
        return ds.assign_coords({role: (role, time.values.astype("datetime64[ns]"), attrs)})
    if time.dtype.kind == "O":
        return ds.assign_coords({role: (role, time.values, attrs)})
    units = str(time.attrs.get("units", ""))
    try:
        factor, _ = linear(units or "?", "ps")
    except ValueError:
        raise ValueError(
            f"got {name!r} as plain numbers in units {units!r}, expected dates or simulation time"
            f' in fs, ps or ns; set them: ds["{name}"].attrs["units"] = "ps"'
        ) from None
    record[role]["units_factor"] = factor
    values = time.values.astype("float64")
    values = values if factor == 1.0 else np.round(values * factor, 9)
    return ds.assign_coords({role: (role, values, {**attrs, "units": "ps"})})


def canonical_lead(ds: xr.Dataset, axis: Axis) -> tuple[xr.DataArray, float]:
    """Lead times of a forecast store, in canonical form.

    Returns
    -------
    lead_time : DataArray
        ``timedelta64[ns]``, whole numbers with ``units="months"``, or picoseconds with
        ``units="ps"``.
    factor : float
        From the store's numbers to picoseconds; 1 for the others.

    Raises
    ------
    ValueError
        If they are plain numbers without units.
    """
    if axis.coordinate is None:
        raise ValueError(f"got dimension {axis.dim!r} without values, expected lead times")
    given = ds[axis.coordinate]
    values, units = given.values, str(given.attrs.get("units", "")).strip()
    attrs, factor = {"standard_name": "forecast_period"}, 1.0
    if values.dtype.kind != "m":
        if units in ("month", "months"):
            values, attrs["units"] = np.round(values).astype("int64"), "months"
        elif units in ("fs", "ps", "ns") or "femto" in units or "pico" in units:
            factor = linear(units, "ps")[0]
            values, attrs["units"] = np.round(values.astype("float64") * factor, 9), "ps"
        elif same_dimension(units, "s"):
            seconds = np.round(values.astype("float64") * linear(units, "s")[0], 3)
            values = (seconds * 1000).round().astype("int64").astype("timedelta64[ms]")
        else:
            raise ValueError(
                f"got lead times {axis.coordinate!r} as plain numbers in units {units!r}, expected"
                " hours, days, months or ps; set them:"
                f' ds["{axis.coordinate}"].attrs["units"] = "hours"'
            )
    values = values.astype("timedelta64[ns]") if values.dtype.kind == "m" else values
    return xr.DataArray(values, dims="lead_time", attrs=attrs), factor


def keep_coordinates(ds: xr.Dataset, roles: set[str]) -> xr.Dataset:
    """Drop every coordinate but those of dimensions, of atoms and of components.

    A ``segment(time)`` that the store brings along stays, too.
    """
    dims = {"atom", "xyz", "component"} & set(ds.dims)
    if "segment" in ds.variables and ds["segment"].dims == ("time",):
        ds = ds.set_coords("segment")
        roles = roles | {"segment"}
    drop = [c for c in ds.coords if c not in roles and not (ds[c].ndim and set(ds[c].dims) <= dims)]
    return ds.drop_vars(drop)


def join_pieces(pieces: Sequence[Piece]) -> list[Piece]:
    """Join the pieces of one record in time.

    Overlapping pieces stay apart, as trajectories of their own. Pieces with different variables and
    the same times (one file per variable) are merged.

    Raises
    ------
    ValueError
        If grids, atoms, calendars or variables of the pieces disagree. Also if pieces overlap only
        in part. The message names the files.
    """
    if not any(ds.data_vars for _, ds in pieces):
        pieces = [next(p for p in pieces if "time" in p[1].dims)]
    still = [ds for _, ds in pieces if "time" not in ds.dims]
    groups: dict[frozenset[str], list[Piece]] = {}
    for label, ds in pieces:
        if "time" in ds.dims:
            own = frozenset(str(n) for n, v in ds.data_vars.items() if "time" in v.dims)
            groups.setdefault(own, []).append((label, ds))
    _check_same(pieces)
    names = list(groups)
    for a, b in (pair for pair in itertools.combinations(names, 2) if pair[0] & pair[1]):
        raise ValueError(
            f"got {groups[a][0][0]} with variables {sorted(a)} and {groups[b][0][0]} with"
            f" {sorted(b)}, expected every file to have the same variables, or none in common"
        )
    joined = [_join(group) for group in groups.values()]
    records = joined[0]
    for group, others in zip(list(groups.values())[1:], joined[1:], strict=True):
        pairs = zip(records, others, strict=False)
        same = all(np.array_equal(a[1]["time"].values, b[1]["time"].values) for a, b in pairs)
        if len(records) != len(others) or not same:
            raise ValueError(
                f"got other times in {group[0][0]} than in {pieces[0][0]}, expected the same,"
                " because their variables are merged"
            )
        records = [(a[0], _merge([a[1], b[1]])) for a, b in zip(records, others, strict=True)]
    return [(label, _merge([ds, *still])) for label, ds in records]


def _merge(parts: list[xr.Dataset]) -> xr.Dataset:
    if len(parts) == 1:
        return parts[0]
    merged = xr.merge(parts, compat="override", join="override", combine_attrs="override")
    grids = [p.attrs["original_grid"] for p in parts if "original_grid" in p.attrs]
    return merged.assign_attrs(original_grid=max(grids, key=len)) if grids else merged


def _check_same(pieces: Sequence[Piece]) -> None:
    first, reference = pieces[0]
    for label, ds in pieces[1:]:
        for role in ("latitude", "longitude", "level", "atom"):
            same = role in ds.coords, role in reference.coords
            if all(same) and not np.array_equal(ds[role].values, reference[role].values):
                raise ValueError(
                    f"got another {role} in {label} than in {first}, expected the same in all"
                    " pieces of one record"
                )
            here, there = ds.sizes.get(role), reference.sizes.get(role)
            if here is not None and there is not None and here != there:
                raise ValueError(
                    f"got {here} along {role} in {label} and {there} in {first}, expected the same"
                )
    examples: dict[str, str] = {}
    for label, ds in pieces:
        if "time" in ds.dims and ds.sizes["time"]:
            examples.setdefault(_calendar(ds["time"].values), label)
    if len(examples) > 1:
        found = ", ".join(f"{calendar} in {label}" for calendar, label in examples.items())
        raise ValueError(
            f"got times in different calendars: {found}; expected one, because their differences"
            " have no meaning"
        )


def _calendar(values: np.ndarray) -> str:
    if values.dtype.kind == "M":
        return "standard (datetime64)"
    return str(values[0].calendar) if values.dtype.kind == "O" else "simulation time"


def _join(group: list[Piece]) -> list[Piece]:
    if len(group) == 1:
        return group
    spans = [np.sort(numeric_time(ds["time"].values)) for _, ds in group]
    order = sorted(range(len(group)), key=lambda i: spans[i][0])
    overlaps = [(a, b) for a, b in itertools.pairwise(order) if spans[a][-1] >= spans[b][0]]
    if not overlaps:
        return [(group[order[0]][0], _concat([group[i][1] for i in order]))]
    for a, b in overlaps:
        shared = np.intersect1d(spans[a], spans[b]).size
        in_part = 0 < shared < 0.5 * min(len(spans[a]), len(spans[b]))
        if len(overlaps) < len(group) - 1 or in_part:
            raise ValueError(
                f"got {group[a][0]} and {group[b][0]} overlapping in {shared} times, from"
                f" {group[b][1]['time'].values[0]} on; expected pieces that follow one another, or"
                " trajectories that all overlap by half or more"
            )
    return group


def _concat(parts: list[xr.Dataset]) -> xr.Dataset:
    if len(parts) == 1:
        return parts[0]
    out = xr.concat(
        parts,
        "time",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    first = parts[0].attrs
    shared = {k for k, v in first.items() if all(str(p.attrs.get(k)) == str(v) for p in parts)}
    out.attrs = {k: v for k, v in first.items() if k in shared or k == "original_grid"}
    return out


def stack_segments(records: Sequence[Piece]) -> xr.Dataset:
    """Put trajectories and members one after the other along ``time``.

    The coordinate ``segment(time)`` numbers them.
    """
    _check_steps(records)
    parts = []
    for _, ds in records:
        if "segment" in ds.dims:
            parts += [ds.isel(segment=i, drop=True) for i in range(ds.sizes["segment"])]
        else:
            parts.append(ds)
    segment, next_one = [], 0
    for part in parts:
        own = part["segment"].values if "segment" in part.coords else np.zeros(part.sizes["time"])
        numbers = np.concatenate([[0], np.cumsum(own[1:] != own[:-1])])[: len(own)]
        segment.append(numbers + next_one)
        next_one += int(numbers.max(initial=0)) + 1
    out = _concat([part.drop_vars("segment", errors="ignore") for part in parts])
    return out.assign_coords(segment=("time", np.concatenate(segment).astype("int32")))


def _check_steps(records: Sequence[Piece]) -> None:
    steps = [
        (float(np.median(np.diff(numeric_time(ds["time"].values)))), label)
        for label, ds in records
        if ds.sizes["time"] > 1
    ]
    if not steps:
        return
    (least, first), (most, second) = min(steps), max(steps)
    if most > 1.15 * least > 0:
        unit = "ps" if records[0][1]["time"].dtype.kind == "f" else "hours"
        raise ValueError(
            f"got time steps of {least:g} {unit} in {first} and {most:g} {unit} in {second},"
            " expected the same in all segments"
        )


def check_times(ds: xr.Dataset, *, split: bool = False, label: str = "the store") -> xr.Dataset:
    """Refuse times that are repeated, unordered or irregular.

    With ``split``, cut the record into segments at gaps.

    Raises
    ------
    ValueError
        With the first offenders and how many there are.
    """
    time, segment = ds["time"], ds["segment"].values
    values = time.values
    if len(values) == 0:
        raise ValueError(f"got no times in {label}")
    amount, same = numeric_time(values), segment[1:] == segment[:-1]
    step = np.diff(amount)
    if (wrong := same & (step == 0)).any():
        raise ValueError(
            f"got repeated times in {label}: {_name(values[1:][wrong])}; expected each once"
            " (ds.drop_duplicates('time'))"
        )
    if (wrong := same & (step < 0)).any():
        raise ValueError(
            f"got times out of order in {label}: {_name(values[1:][wrong])} after later ones;"
            " expected them ascending (ds.sortby('time'))"
        )
    if not same.any():
        return ds
    gap = same & _jumps(values, step, same)
    if not gap.any():
        infer_step(time)
        return ds
    usual = np.median(step[same])
    if (same & gap & (step < usual * 0.999)).any() or gap.sum() > 0.5 * same.sum():
        raise ValueError(
            f"got an irregular time axis in {label}: steps change at {_name(values[1:][gap])};"
            " expected one time step throughout"
        )
    if not split:
        raise ValueError(
            f"got gaps in time in {label}: before {_name(values[1:][gap])}; fill them, or pass"
            " segments=True to make each piece between gaps a segment that no window crosses"
        )
    starts = np.concatenate([[0], np.cumsum(gap | ~same)])
    return ds.assign_coords(segment=("time", starts.astype("int32")))


def _jumps(values: np.ndarray, step: np.ndarray, same: np.ndarray) -> np.ndarray:
    usual = float(np.median(step[same]))
    if values.dtype.kind in "MO" and usual > 27.9 * 24:
        if values.dtype.kind == "M":
            months = values.astype("datetime64[M]").astype("int64")
        else:
            months = np.array([t.year * 12 + t.month for t in values])
        stride = np.diff(months)
        return np.asarray(stride != np.median(stride[same]))
    return np.asarray(np.abs(step - usual) > 1e-6 * max(usual, 1.0))


def _name(times: np.ndarray, most: int = 3) -> str:
    shown = ", ".join(str(t).removesuffix(".000000000") for t in times[:most])
    return shown + (f" … ({len(times)} in all)" if len(times) > most else "")
