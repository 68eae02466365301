"""Fields to standardized anomalies and back, with what was learnt on the training block only."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from sciwm.climatology import (
    Climatology,
    Kind,
    Pool,
    Spread,
    check_kind,
    check_pool,
    evaluate_design,
    fit_climatology_and_spread,
)

__all__ = ["Fit", "Statistics", "fit_statistics", "from_channels", "to_channels"]

_SPACE = ("latitude", "longitude")
_OF_CLIMATOLOGY = ("climatology", "harmonics", "diurnal", "fitted")  # its attributes in a file
_PIECE_SIZE = 2**17
_CONSTANT = 1e-7  # relative to the field's magnitude: what float32 cannot resolve


@dataclass(frozen=True)
class Fit:
    """How climatology and scale are learnt.

    Parameters
    ----------
    climatology : {"harmonic", "monthly", "constant"}
        See `sciwm.climatology.fit_climatology`.
    harmonics : int
        Annual harmonics of the harmonic climatology.
    missing : {"error", "mask"}
        Refuse missing values, or leave them out cell by cell.
    pool : {"none", "longitude", "domain"}
        Which cells share one climatology: none, those of a latitude, or all. Their scale is one
        for each channel anyway.

    Raises
    ------
    ValueError
        If one of them is none of these values.
    """

    climatology: Kind = "harmonic"
    harmonics: int = 3
    missing: Literal["error", "mask"] = "error"
    pool: Pool = "none"

    def __post_init__(self) -> None:
        check_kind(self.climatology)
        check_pool(self.pool)
        if self.harmonics < 0:
            raise ValueError(f"got harmonics {self.harmonics}, expected 0 or more")
        if self.missing not in ("error", "mask"):
            raise ValueError(f"got missing {self.missing!r}, expected 'error' or 'mask'")


@dataclass(frozen=True)
class Statistics:
    r"""Climatology and scale of every channel.

    .. math:: s = (x - c(t)) / \sigma

    Parameters
    ----------
    climatology : Climatology
        Fitted on the training block; its coefficients carry the grid, units and attributes of the
        variables.
    scale : DataArray, ``(channel,)``
        Root of the area- and time-mean squared anomaly, in the units of the channel.
    valid_fraction : DataArray, ``(channel, latitude, longitude)``
        Fraction of the training times at which a cell was observed: 0 on land for sea-surface
        temperature.
    """

    climatology: Climatology
    scale: xr.DataArray
    valid_fraction: xr.DataArray

    @property
    def variables(self) -> list[str]:
        """Names of the variables, in channel order."""
        return [str(name) for name in self.climatology.coefficients.data_vars]

    def standardize(self, ds: xr.Dataset) -> xr.DataArray:
        """Turn fields into standardized anomalies, lazily if they are lazy.

        Parameters
        ----------
        ds : Dataset
            Canonical, with at least the variables fitted on, on the same grid and levels; other
            variables are ignored.

        Returns
        -------
        DataArray
            ``state (time, channel, latitude, longitude)``, float32, unitless; NaN where ``ds`` is
            missing.

        Raises
        ------
        ValueError
            If a variable is absent or the grid differs; the message names it.
        """
        self._check(ds)
        scale, states = from_channels(self.scale), {}
        design = self.climatology.design(ds["time"])
        for name in self.variables:
            x = ds[name].transpose("time", ...)
            states[name] = self._apply(_standardize, x, design, scale[name], name)
        return to_channels(xr.Dataset(states)).rename("state")

    def kernel(self) -> "Standardize":
        """`standardize` for the bare arrays of one chunk, as tasks of `sciwm.store.write` do it."""
        fitted = self.climatology.coefficients.transpose("coefficient", ..., *_SPACE)
        coefficients = [fitted[name].values for name in self.variables]
        scale = from_channels(self.scale)
        scales = [scale[name].values for name in self.variables]
        return Standardize(coefficients, scales, self.climatology.kind == "monthly")

    def restore(self, state: xr.DataArray, time: xr.DataArray) -> xr.Dataset:
        """Turn standardized anomalies back into fields: the inverse of `standardize`.

        Parameters
        ----------
        state : DataArray, ``(..., channel, latitude, longitude)``
            Standardized anomalies, e.g. of forecasts ``(init_time, lead_time, number, channel,
            …)``.
        time : DataArray
            Valid time of the states: any of their leading dims, e.g. ``(init_time, lead_time)``.

        Returns
        -------
        Dataset
            Float32 fields in their units, with the leading dims of ``state``.
        """
        names = self.scale["channel"].values.tolist()
        if "channel" not in state.dims or state.sizes["channel"] != len(names):
            raise ValueError(
                f"got a state of sizes {dict(state.sizes)}, expected the channels {names}"
            )
        if "channel" in state.coords and (given := state["channel"].values.tolist()) != names:
            raise ValueError(f"got channels {given}, expected {names}")
        ours = {k: self.scale.coords[k] for k in ("channel", "variable", "level")}
        fields = from_channels(state.drop_vars(list(ours), errors="ignore").assign_coords(ours))
        design, scale = self.climatology.design(time), from_channels(self.scale)
        coefficients = self.climatology.coefficients
        out = {}
        for name in self.variables:
            lead = [d for d in fields[name].dims if d not in ("level", *_SPACE)]
            field = fields[name].transpose(*lead, *_space(coefficients[name]))
            restored = self._apply(_restore, field, design, scale[name], name)
            out[name] = restored.assign_attrs(coefficients[name].attrs)
        return xr.Dataset(out, attrs=coefficients.attrs)

    def _apply(
        self, kernel: Any, x: xr.DataArray, design: xr.DataArray, scale: xr.DataArray, name: str
    ) -> xr.DataArray:
        coefficients = self.climatology.coefficients[name]
        space = _space(coefficients)
        level = [d for d in space if d == "level"]
        design = design.drop_vars(list(design.coords))
        if sizes := x.variable.chunksizes:
            x = x.chunk(dict.fromkeys(space, -1))
            design = design.chunk({d: sizes[d] for d in design.dims if d in sizes})
        out: xr.DataArray = xr.apply_ufunc(
            kernel,
            x,
            design,
            coefficients.variable,
            scale.variable,
            kwargs={"monthly": self.climatology.kind == "monthly"},
            input_core_dims=[space, ["coefficient"], ["coefficient", *space], level],
            output_core_dims=[space],
            dask="parallelized",
            output_dtypes=[np.float32],
            keep_attrs="override",  # for those of the coordinates
        )
        return out.drop_attrs(deep=False)

    def _check(self, ds: xr.Dataset) -> None:
        for name in self.variables:
            if name not in ds.data_vars:
                raise ValueError(
                    f"got variables {list(ds.data_vars)}, expected also {name!r}, because the"
                    " statistics were fitted on it"
                )
            expected = self.climatology.coefficients[name]
            for dim in _space(expected):
                ours = expected[dim].values
                theirs = ds[name][dim].values if dim in ds[name].dims else np.empty(0)
                if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0, atol=1e-4):
                    raise ValueError(
                        f"got {name!r} with {dim} {_ends(theirs)}, expected {_ends(ours)}, the grid"
                        " of the statistics"
                    )

    def to_dataset(self) -> xr.Dataset:
        """Everything as one Dataset; `from_dataset` is the inverse, also by way of a file."""
        ds = self.climatology.to_dataset()
        kept = {k: ds.attrs.pop(k) for k in _OF_CLIMATOLOGY}
        attributes = {str(n): v.attrs for n, v in ds.data_vars.items()}
        packed = {
            "attributes": json.dumps(attributes, default=_plain),
            "dataset": json.dumps(ds.attrs, default=_plain),
        }
        fields = {
            "coefficients": to_channels(ds),
            "scale": self.scale,
            "valid_fraction": self.valid_fraction,
        }
        return xr.Dataset(fields, attrs=kept | packed)

    @classmethod
    def from_dataset(cls, ds: xr.Dataset) -> "Statistics":
        """Rebuild from what `to_dataset` returned."""
        if "coefficients" not in ds or "attributes" not in ds.attrs:
            raise ValueError(
                f"got a Dataset of {list(ds.data_vars)}, expected what Statistics.to_dataset"
                " returns"
            )
        ds = ds.load()
        names = {
            k: (ds[k].dims, np.array([str(v) for v in ds[k].values], dtype=object))
            for k in ("channel", "variable")
        }
        ds = ds.assign_coords(names)
        coefficients = from_channels(ds["coefficients"])
        for name, attrs in json.loads(ds.attrs["attributes"]).items():
            coefficients[name].attrs = attrs
        kept = {k: ds.attrs[k] for k in _OF_CLIMATOLOGY if k in ds.attrs}
        coefficients.attrs = json.loads(ds.attrs["dataset"]) | kept
        return cls(Climatology.from_dataset(coefficients), ds["scale"], ds["valid_fraction"])


@dataclass(frozen=True)
class Standardize:
    """From arrays to states ``[time, channel, latitude, longitude]``.

    The arrays are ``[time, (level), latitude, longitude]``, one per variable.
    """

    coefficients: list[np.ndarray]
    scales: list[np.ndarray]
    monthly: bool

    def __call__(self, fields: Sequence[np.ndarray], design: np.ndarray) -> np.ndarray:
        """States of the times whose basis values are the rows of ``design``."""
        out = np.empty(
            (len(design), sum(s.size for s in self.scales), *fields[0].shape[-2:]), np.float32
        )
        place = 0
        for x, coefficients, scale in zip(fields, self.coefficients, self.scales, strict=True):
            into = out[:, place : place + scale.size] if scale.ndim else out[:, place]
            _standardize(x, design, coefficients, scale, monthly=self.monthly, out=into)
            place += scale.size
        return out


def fit_statistics(ds: xr.Dataset, *, label: np.ndarray, fit: Fit = Fit()) -> Statistics:
    """Learn climatology and scale from the training block in one pass.

    Parameters
    ----------
    ds : Dataset
        Canonical grid Dataset, lazy or not; every variable with a time dimension becomes one
        channel per level.
    label : int8, ``[time]``
        As `sciwm.store.split.split_times` returns; only times labelled 0 are read.
    fit : Fit
        Kind of climatology, which cells share it, and what becomes of missing values.

    Returns
    -------
    Statistics

    Raises
    ------
    ValueError
        If a variable is constant, never observed, or has missing values that were not asked to be
        masked.
    """
    train = np.flatnonzero(np.asarray(label) == 0)
    if train.size and train[-1] - train[0] + 1 == train.size:
        block = ds.isel(time=slice(int(train[0]), int(train[-1]) + 1))
    else:
        block = ds.isel(time=train)
    fitted, spread = fit_climatology_and_spread(
        block, kind=fit.climatology, harmonics=fit.harmonics, pool=fit.pool
    )
    for name, count in spread.count.data_vars.items():
        if fit.missing == "error" and int(count.min()) < spread.num_times:
            raise ValueError(_missing_message(name, spread, block))
    weights = np.cos(np.deg2rad(ds["latitude"]))
    squares, counts = (
        (weights * part).sum(_SPACE, skipna=False) for part in (spread.squares, spread.count)
    )
    for name in spread.count.data_vars:
        _check_scale(name, squares[name], counts[name], fitted.coefficients[name])
    scale = to_channels((squares / counts) ** 0.5)
    valid_fraction = to_channels(spread.count / spread.num_times).astype(np.float32)
    return Statistics(fitted, scale, valid_fraction)


def to_channels(ds: xr.Dataset) -> xr.DataArray:
    """Stack variables and their levels to a dim ``channel`` before ``latitude, longitude``.

    ``t`` at level 850 becomes ``t850``. Coordinates ``variable(channel)`` and ``level(channel)``
    (NaN without a level) say where each came from.
    """
    parts, names, variables, levels = [], [], [], []
    units: dict[Hashable, Any] = {}
    for name, field in ds.data_vars.items():
        if "level" in field.dims:
            values = np.asarray(field["level"].values, dtype=np.float64)
            units = units or field["level"].attrs
            names += [f"{name}{v:g}" for v in values]
            part = field.rename(level="channel")
        else:
            values = np.array([np.nan])
            names.append(str(name))
            part = field.expand_dims("channel")
        part = part.drop_vars(["channel", "level"], errors="ignore")
        lead = [d for d in part.dims if d not in ("channel", *_SPACE)]
        parts.append(part.transpose(*lead, "channel", ...))
        variables += [str(name)] * len(values)
        levels += values.tolist()
    if len(set(names)) < len(names):
        raise ValueError(
            f"got channels {names}, expected distinct names, because t at level 850 and t850 are"
            " told apart by name"
        )
    stacked = xr.concat(
        parts,
        dim="channel",
        join="exact",
        coords="minimal",
        compat="override",
        combine_attrs="drop",
    )
    coords = {
        "channel": np.array(names, dtype=object),
        "variable": ("channel", np.array(variables, dtype=object)),
        "level": ("channel", np.array(levels), units),
    }
    return stacked.assign_coords(coords).transpose(*parts[0].dims).rename(None)


def from_channels(state: xr.DataArray) -> xr.Dataset:
    """Undo `to_channels`: a Dataset of the variables.

    Where they have levels, ``level`` comes before ``latitude, longitude``.
    """
    variables = np.asarray([str(v) for v in state["variable"].values])
    levels = np.asarray(state["level"].values, dtype=np.float64)
    bare = state.drop_vars(["channel", "variable", "level"], errors="ignore")
    fields: dict[Hashable, xr.DataArray] = {}
    for name in dict.fromkeys(variables.tolist()):
        places = np.flatnonzero(variables == name)
        if np.isnan(levels[places[0]]):
            fields[name] = bare.isel(channel=int(places[0]))
        else:
            contiguous = slice(int(places[0]), int(places[-1]) + 1)
            part = bare.isel(channel=contiguous).rename(channel="level")
            fields[name] = part.assign_coords(level=("level", levels[places], state["level"].attrs))
    return xr.Dataset(fields)


def _standardize(
    x: Any, design: Any, coefficients: Any, scale: Any, *, monthly: bool, out: Any = None
) -> Any:
    out = np.empty(x.shape, np.float32) if out is None else out
    divisor = np.asarray(scale)[..., None, None]
    # An array that came from another process may lie unaligned, which keeps numpy from BLAS and
    # changes last bits.
    design, coefficients = (np.require(a, requirements=("C", "A")) for a in (design, coefficients))
    step = max(1, _PIECE_SIZE // max(1, x[:1].size))
    for start in range(0, len(x), step):  # in float64, a piece that stays in cache at a time
        rows = slice(start, start + step)
        piece = evaluate_design(design[rows], coefficients, monthly=monthly)
        np.subtract(x[rows], piece, out=piece)
        np.divide(piece, divisor, out=piece)
        out[rows] = piece
    return out


def _restore(state: Any, design: Any, coefficients: Any, scale: Any, *, monthly: bool) -> Any:
    mean = evaluate_design(design, coefficients, monthly=monthly)
    return (state * np.asarray(scale)[..., None, None] + mean).astype(np.float32)


def _space(field: xr.DataArray) -> list[Hashable]:
    return [d for d in field.dims if d in ("level", *_SPACE)]


def _ends(values: np.ndarray) -> str:
    return f"{values[0]:g} … {values[-1]:g} ({values.size})" if values.size else "absent"


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


def _missing_message(name: Hashable, spread: Spread, block: xr.Dataset) -> str:
    count, first = spread.count[name], spread.first_missing[name]
    total = int(spread.num_times * count.size - count.sum())
    place = np.unravel_index(int(np.argmin(first.values)), first.shape)
    where = ", ".join(f"{d} {float(first[d][i]):g}" for d, i in zip(first.dims, place, strict=True))
    time = block["time"].values[int(first.min())]
    return (
        f"got {total} missing values in {name!r} within the training block, the first at time"
        f" {time}, {where}; expected none: write `missing: mask` under `data` to carry a mask, or"
        " leave the variable out"
    )


def _check_scale(
    name: Hashable, squares: xr.DataArray, count: xr.DataArray, coefficients: xr.DataArray
) -> None:
    if (count == 0).any():
        raise ValueError(
            f"got {name!r} without a single observed value in the training block, expected some;"
            " leave the variable out"
        )
    spread = np.sqrt(squares / count)
    if not np.isfinite(spread).all():
        raise ValueError(
            f"got infinite values in {name!r} within the training block, expected finite or missing"
            " ones"
        )
    magnitude = np.sqrt((coefficients**2).mean(["coefficient", *_SPACE], skipna=True))
    flat = (spread <= _CONSTANT * magnitude) | (spread == 0)
    if flat.any():
        at = ""
        if "level" in flat.dims:
            at = f" at level {float(flat['level'][int(np.argmax(flat.values))]):g}"
        raise ValueError(
            f"got {name!r}{at} without any departure from its climatology in the training block,"
            " expected some, because a constant field cannot be standardized; leave the variable"
            " out, or name it under `data.static`"
        )
