"""Areas that scores are averaged over, as cell weights."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from sciwm.skill.alignment import space_dims

__all__ = ["NAMED_REGIONS", "Region", "parse_region", "region_weights"]


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
            raise ValueError(f"got region {self.name!r} from {self.south} to {self.north} N, expected south < north in [-90, 90]")


NAMED_REGIONS = {
    r.name: r
    for r in (
        Region("tropics", -20, 20, 0, 360),
        Region("northern_extratropics", 20, 90, 0, 360),
        Region("southern_extratropics", -90, -20, 0, 360),
        Region("nino34", -5, 5, 190, 240),
    )
}
_WHOLE = ("all", "domain", "global")
_NUMBER = r"\s*([-+]?[0-9.]+)\s*"


def parse_region(text: str) -> Region | None:
    """Read a region from its name or from ``"name:south,north,west,east"``; None for another plain name.

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
        raise ValueError(f"got region {text!r}, expected 'name:south,north,west,east' in degrees, e.g. 'alps:44,48,5,16'")
    return Region(match[1], *(float(match[k]) for k in range(2, 6)))


def _edges(centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle = (centre[1:] + centre[:-1]) / 2
    edges = np.concatenate([[2 * centre[0] - middle[0]], middle, [2 * centre[-1] - middle[-1]]])
    return np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])


def _fraction(centre: np.ndarray, low: float, high: float) -> np.ndarray:
    """Tell the share of each cell of a 1-D axis inside [low, high]; a lone cell counts by its centre."""
    if len(centre) == 1:
        return ((centre >= low) & (centre <= high)).astype(float)
    left, right = _edges(centre)
    overlap = np.minimum(right, high) - np.maximum(left, low)
    return np.asarray(np.clip(overlap / (right - left), 0.0, 1.0))


def _box(latitude: np.ndarray, longitude: np.ndarray, region: Region) -> np.ndarray:
    width = (region.east - region.west) % 360.0 or 360.0
    west = region.west % 360.0
    turns = [_fraction(longitude, west + turn, west + turn + width) for turn in (-720.0, -360.0, 0.0, 360.0)]
    across = np.minimum(np.sum(turns, axis=0), 1.0)
    return np.asarray(_fraction(latitude, region.south, region.north)[:, None] * across[None, :])


def region_weights(field: xr.DataArray, regions: Sequence[str] = ()) -> xr.DataArray:
    r"""Weigh the cells of a field in each region.

    .. math:: w = \cos(\mathrm{latitude}) \cdot \mathrm{share\ of\ the\ cell\ inside\ the\ box}

    Cells without latitude (components, atoms, an index) weigh 1.

    Parameters
    ----------
    field : DataArray
        Anything with the field's space dims and coordinates, e.g. one variable of the observations.
    regions : sequence of str
        Names (`NAMED_REGIONS`), boxes ``"name:south,north,west,east"``, ``"all"`` (also called ``domain``,
        ``global``), or a prefix of component names: ``"phi"`` takes ``phi_sin`` and ``phi_cos``. Empty means ``all``.

    Returns
    -------
    DataArray
        Dims ``(region, *space)``, weights >= 0; all zero where a region means nothing for this field.

    Raises
    ------
    ValueError
        If a region is malformed or named twice.
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
        elif region is not None:
            names.append(region.name)
            inside = _box(field["latitude"].values.astype(float), field["longitude"].values.astype(float), region) if grid else 0.0
            layers.append(area * inside)
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
