"""The time axis of a record: pieces joined, members stacked as segments, and every axis checked to be regular."""

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
    """Dates in ``datetime64[ns]`` or ``cftime`` as they are; simulation times in fs, ps or ns become ps.

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
    if time.dtype.kind == "M":
        return ds.assign_coords(
            {role: (role, time.values.astype("datetime64[ns]"), _plain(time.attrs))}
        )
    if time.dtype.kind == "O":
        return ds.assign_coords({role: (role, time.values, _plain(time.attrs))})
    units = str(time.attrs.get("units", ""))
    try:
        factor, _ = linear(units or "?", "ps")
    except ValueError:
        raise ValueError(
            f"got {name!r} as plain numbers in units {units!r}, expected dates or simulation time"
            " in fs, ps or ns; set them: "
            f'ds["{name}"].attrs["units"] = "ps"'
        ) from None
    record[role]["units_factor"] = factor
    values = time.values.astype("float64")
    values = values if factor == 1.0 else np.round(values * factor, 9)
    return ds.assign_coords({role: (role, values, {**_plain(time.attrs), "units": "ps"})})


def _plain(attrs: dict[Any, Any]) -> dict[Any, Any]:
    return {k: v for k, v in attrs.items() if k not in ("bounds", "climatology")}


def canonical_lead(ds: xr.Dataset, axis: Axis) -> tuple[xr.DataArray, float]:
    """Lead times as ``timedelta64[ns]``, whole months with ``units="months"``, or picoseconds with ``units="ps"``.

    Returns
    -------
    lead_time : DataArray
    factor : float
        From the store's numbers to picoseconds; 1 for the others.

    Raises
    ------
    ValueError
        If they are plain numbers without units.
    """
    if axis.coordinate is None:
        raise ValueError(f"got dimension {axis.dim!r} without values, expected lead times")
    values, units = (
        ds[axis.coordinate].values,
        str(ds[axis.coordinate].attrs.get("units", "")).strip(),
    )
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
                " hours, days, months or ps; set them: "
                f'ds["{axis.coordinate}"].attrs["units"] = "hours"'
            )
    values = values.astype("timedelta64[ns]") if values.dtype.kind == "m" else values
    return xr.DataArray(values, dims="lead_time", attrs=attrs), factor


def keep_coordinates(ds: xr.Dataset, roles: set[str]) -> xr.Dataset:
    """Drop every coordinate but the dimensions' own, those of atoms and components, and a ``segment(time)`` that the store brings along."""
    dims = {"atom", "xyz", "component"} & set(ds.dims)
    if "segment" in ds.variables and ds["segment"].dims == ("time",):
        ds = ds.set_coords("segment")
        roles = roles | {"segment"}
    drop = [c for c in ds.coords if c not in roles and not (ds[c].ndim and set(ds[c].dims) <= dims)]
    return ds.drop_vars(drop)


def join_pieces(pieces: Sequence[Piece]) -> list[Piece]:
    """Join the pieces of one record in time; overlapping pieces stay apart, as trajectories of their own.

    Pieces with different variables and the same times (one file per variable) are merged.

    Raises
    ------
    ValueError
        If grids, atoms, calendars or variables of the pieces disagree, or they overlap only in
        part; the message names the files.
    """
    pieces = (
        [next(p for p in pieces if "time" in p[1].dims)]
        if not any(ds.data_vars for _, ds in pieces)
        else pieces
    )
    still = [ds for _, ds in pieces if "time" not in ds.dims]
    groups: dict[frozenset[str], list[Piece]] = {}
    for label, ds in pieces:
        if "time" in ds.dims:
            groups.setdefault(
                frozenset(str(n) for n, v in ds.data_vars.items() if "time" in v.dims), []
            ).append((label, ds))
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
        times = [[ds["time"].values for _, ds in some] for some in (records, others)]
        if len(records) != len(others) or not all(
            np.array_equal(a, b) for a, b in zip(*times, strict=True)
        ):
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
            if (
                role in ds.dims
                and role in reference.dims
                and ds.sizes[role] != reference.sizes[role]
            ):
                raise ValueError(
                    f"got {ds.sizes[role]} along {role} in {label} and {reference.sizes[role]} in"
                    f" {first}, expected the same"
                )
    kinds = {
        label: _calendar(ds["time"].values)
        for label, ds in pieces
        if "time" in ds.dims and ds.sizes["time"]
    }
    if len(set(kinds.values())) > 1:
        examples = [
            f"{calendar} in {next(n for n, c in kinds.items() if c == calendar)}"
            for calendar in dict.fromkeys(kinds.values())
        ]
        raise ValueError(
            f"got times in different calendars: {', '.join(examples)}; expected one, because their"
            " differences have no meaning"
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
        if len(overlaps) < len(group) - 1 or (0 < shared < 0.5 * min(len(spans[a]), len(spans[b]))):
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
    out.attrs = {
        k: v for k, v in first.items() if all(str(p.attrs.get(k)) == str(v) for p in parts)
    }
    return (
        out.assign_attrs(original_grid=first["original_grid"]) if "original_grid" in first else out
    )


def stack_segments(records: Sequence[Piece]) -> xr.Dataset:
    """Put trajectories and members one after the other along ``time``, numbered by the coordinate ``segment(time)``."""
    _check_steps(records)
    parts = []
    for _, ds in records:
        members = (
            [ds.isel(segment=i, drop=True) for i in range(ds.sizes["segment"])]
            if "segment" in ds.dims
            else [ds]
        )
        parts += members
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
    (least, first), (most, second) = (min(steps), max(steps)) if steps else ((1.0, ""), (1.0, ""))
    if most > 1.15 * least > 0:
        unit = "ps" if records[0][1]["time"].dtype.kind == "f" else "hours"
        raise ValueError(
            f"got time steps of {least:g} {unit} in {first} and {most:g} {unit} in {second},"
            " expected the same in all segments"
        )


def check_times(ds: xr.Dataset, *, split: bool = False, label: str = "the store") -> xr.Dataset:
    """Refuse times that are repeated, unordered or irregular; with ``split``, cut the record into segments at gaps.

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
