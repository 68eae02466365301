"""Areas that scores are averaged over, as cell weights: boxes, and land and ocean."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

__all__ = [
    "LAND_REGIONS",
    "NAMED_REGIONS",
    "Region",
    "land_fraction",
    "parse_region",
    "region_weights",
    "space_dims",
]


@dataclass(frozen=True)
class Region:
    """A box in degrees; ``west`` and ``east`` in any longitude convention, eastward from ``west``.

    Parameters
    ----------
    name : str
    south, north : float
        Latitudes in [−90, 90].
    west, east : float
        Longitudes; equal (modulo 360) means the whole circle.
    """

    name: str
    south: float
    north: float
    west: float
    east: float

    def __post_init__(self) -> None:
        if not -90 <= self.south < self.north <= 90:
            raise ValueError(
                f"got region {self.name!r} from {self.south} to {self.north} N, expected south <"
                " north in [-90, 90]"
            )


NAMED_REGIONS = {
    r.name: r
    for r in (
        Region("tropics", -20, 20, 0, 360),
        Region("northern_extratropics", 20, 90, 0, 360),
        Region("southern_extratropics", -90, -20, 0, 360),
        Region("nino34", -5, 5, 190, 240),
    )
}
LAND_REGIONS = ("land", "ocean")
_MASKS = ("lsm", "land_sea_mask", "sftlf")
_MASK_NAMES = ("land_binary_mask", "land_area_fraction")
_WHOLE = ("all", "domain", "global")
_NOT_SPACE = frozenset({"time", "init_time", "lead_time", "number", "level"})
_NUMBER = r"\s*([-+]?[0-9.]+)\s*"


def parse_region(text: str) -> Region | None:
    """Read a region from its name or from ``"name:south,north,west,east"``.

    Another plain name gives None.

    Examples
    --------
    >>> parse_region("alps:44,48,5,16")
    Region(name='alps', south=44.0, north=48.0, west=5.0, east=16.0)
    """
    if text in NAMED_REGIONS:
        return NAMED_REGIONS[text]
    if ":" not in text:
        return None
    match = re.fullmatch(r"([^:]+):" + ",".join([_NUMBER] * 4), text)
    if not match:
        raise ValueError(
            f"got region {text!r}, expected 'name:south,north,west,east' in degrees, e.g."
            " 'alps:44,48,5,16'"
        )
    return Region(match[1], *(float(match[k]) for k in range(2, 6)))


def _edges(centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle = (centre[1:] + centre[:-1]) / 2
    edges = np.concatenate([[2 * centre[0] - middle[0]], middle, [2 * centre[-1] - middle[-1]]])
    return np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])


def _fraction(centre: np.ndarray, low: float, high: float) -> np.ndarray:
    """Share of each cell of a 1-D axis inside [low, high]; a lone cell counts by its centre."""
    if len(centre) == 1:
        return ((centre >= low) & (centre <= high)).astype(float)
    left, right = _edges(centre)
    overlap = np.minimum(right, high) - np.maximum(left, low)
    return np.asarray(np.clip(overlap / (right - left), 0.0, 1.0))


def _box(field: xr.DataArray, region: Region) -> np.ndarray:
    """Share of each cell of a field inside a region."""
    latitude, longitude = (field[d].values.astype(float) for d in ("latitude", "longitude"))
    width = (region.east - region.west) % 360.0 or 360.0
    west = region.west % 360.0
    starts = [west + turn for turn in (-720.0, -360.0, 0.0, 360.0)]
    turns = [_fraction(longitude, start, start + width) for start in starts]
    across = np.minimum(np.sum(turns, axis=0), 1.0)
    return np.asarray(_fraction(latitude, region.south, region.north)[:, None] * across[None, :])


def land_fraction(static: xr.Dataset) -> xr.DataArray | None:
    """Find the share of land in each cell among fields; None where there is none.

    Parameters
    ----------
    static : Dataset
        With a field called ``lsm``, ``land_sea_mask`` or ``sftlf``, or of such a standard name. Of
        several times the first is taken.

    Returns
    -------
    DataArray
        Dims ``(latitude, longitude)``, in [0, 1], in memory.

    Raises
    ------
    ValueError
        If it has missing values, or others than 0–1 or 0–100 %.

    Examples
    --------
    >>> land_fraction(
    ...     xr.Dataset({"sftlf": (("latitude", "longitude"), [[0.0, 25.0, 100.0]], {"units": "%"})})
    ... ).values
    array([[0.  , 0.25, 1.  ]])
    """
    named = static.data_vars.items()
    found = [v for n, v in named if n in _MASKS or v.attrs.get("standard_name") in _MASK_NAMES]
    found = [v.isel(time=0, drop=True) if "time" in v.dims else v for v in found]
    found = [v for v in found if set(v.dims) == {"latitude", "longitude"}]
    if not found:
        return None
    share = found[0].transpose("latitude", "longitude").astype(float).compute()
    share = share / 100 if share.attrs.get("units") == "%" else share
    low, high = float(share.min(skipna=False)), float(share.max(skipna=False))
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise ValueError(
            f"got land–sea mask {found[0].name!r} with values from {low:g} to {high:g}, expected 0"
            " (sea) to 1 (land) everywhere"
        )
    return share.clip(0.0, 1.0)


def region_weights(
    field: xr.DataArray, regions: Sequence[str] = (), *, land: xr.DataArray | None = None
) -> xr.DataArray:
    r"""Weigh the cells of a field in each region.

    .. math:: w = \cos(\mathrm{latitude}) \cdot \mathrm{share\ of\ the\ cell\ inside\ the\ region}

    Cells without latitude (components, atoms, an index) weigh 1.

    Parameters
    ----------
    field : DataArray
        Anything with the field's space dims and coordinates, e.g. one variable of the observations.
    regions : sequence of str
        Names (`NAMED_REGIONS`), boxes ``"name:south,north,west,east"``, ``"all"`` (also called
        ``domain``, ``global``), ``"land"`` or ``"ocean"``. Or a prefix of component names:
        ``"phi"`` takes ``phi_sin`` and ``phi_cos``. Empty means ``all``.
    land : DataArray, optional
        Share of land in each cell, from `land_fraction`; only ``land`` and ``ocean`` need it.
        Coasts count in part for both.

    Returns
    -------
    DataArray
        Dims ``(region, *space)``, weights >= 0; all zero where a region means nothing for this
        field.

    Raises
    ------
    ValueError
        If a region is malformed or named twice, or ``land`` is missing or on another grid.
    """
    space = space_dims(field)
    shape = tuple(field.sizes[d] for d in space)
    grid = space == ("latitude", "longitude")
    area = np.ones(shape)
    if "latitude" in space:
        cosine = np.cos(np.deg2rad(field["latitude"].values.astype(float))).clip(0.0)
        area = area * cosine.reshape([-1 if d == "latitude" else 1 for d in space])
    names, layers = [], []
    for text in regions or ("all",):
        region = parse_region(text)
        if text in _WHOLE:
            names.append("all")
            layers.append(area)
        elif text in LAND_REGIONS and grid:
            names.append(text)
            share = _land_on(field, land, text)
            layers.append(area * (share if text == "land" else 1.0 - share))
        elif region is not None:
            names.append(region.name)
            layers.append(area * _box(field, region) if grid else np.zeros(shape))
        else:
            names.append(text)
            chosen = np.zeros(shape)
            if space == ("component",):
                labels = [str(c) for c in field["component"].values]
                chosen = np.array([float(c == text or c.startswith(f"{text}_")) for c in labels])
            layers.append(chosen)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"got regions {list(regions)}, expected {twice[0]!r} once")
    coords = {"region": names, **{d: field[d].variable for d in space if d in field.coords}}
    return xr.DataArray(np.stack(layers), dims=("region", *space), coords=coords)


def _land_on(field: xr.DataArray, land: xr.DataArray | None, text: str) -> np.ndarray:
    """Share of land on the grid of a field."""
    if land is None:
        raise ValueError(
            f"got region {text!r} without a land–sea mask, expected lsm, land_sea_mask or sftlf"
            " beside the observations, mask=…, or --mask STORE"
        )
    for dim in ("latitude", "longitude"):
        got, want = land[dim].values.astype(float), field[dim].values.astype(float)
        if len(got) != len(want) or not np.allclose(got, want, rtol=0.0, atol=1e-4):
            raise ValueError(
                f"got a land–sea mask with {len(got)} of {dim} from {got[0]:g} to {got[-1]:g},"
                f" expected those of the observations: {len(want)} from {want[0]:g} to {want[-1]:g}"
            )
    return np.asarray(land.values)


def space_dims(field: xr.DataArray) -> tuple[Hashable, ...]:
    """List the dimensions of one field: all but times, ``number`` and ``level``."""
    return tuple(d for d in field.dims if d not in _NOT_SPACE)
