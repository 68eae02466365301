"""Map panels as inline SVG: an image under the axes and coastlines that panels of a grid share."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from sciwm.report.pixels import Scale

__all__ = ["MapFrame", "coastlines", "color_bar", "map_frame"]

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 340.0, 38.0, 6.0, 7.0, 20.0  # of a panel, px
_WIDE = _WIDTH - _LEFT - _RIGHT  # of the map in it


@dataclass(frozen=True)
class MapFrame:
    """Where a grid's cells lie in a panel, and what is drawn over them.

    Parameters
    ----------
    key : str
        Unique in the page.
    rows, columns : ndarray of int
        Latitudes and longitudes that are shown, evenly spaced, by position.
    height : float
        Of the map, px; the panel is 340 px wide by nature.
    overlay : str
        SVG of axes and coastlines.
    """

    key: str
    rows: np.ndarray
    columns: np.ndarray
    height: float
    overlay: str

    def definition(self) -> str:
        """Hidden SVG that the panels refer to; once in the page."""
        return (
            '<svg class="hidden" aria-hidden="true" width="0" height="0"><defs>'
            f'<clipPath id="{self.key}-clip"><rect {self._extent()}/></clipPath>'
            f'<g id="{self.key}" class="axes">{self.overlay}</g></defs></svg>'
        )

    def cells(self, field: np.ndarray) -> np.ndarray:
        """The cells of ``(..., latitude, longitude)`` that are shown."""
        return np.asarray(field[..., self.rows[:, None], self.columns[None, :]])

    def panel(self, image: str, label: str) -> str:
        """SVG of one map.

        Parameters
        ----------
        image : str
            Base64 of a PNG, from `Scale.png` of `cells`.
        label : str
            What it shows, for those who cannot see it.
        """
        box, extent = f"0 0 {_WIDTH:g} {self.height + _TOP + _BOTTOM:g}", self._extent()
        return (
            f'<svg class="map" role="img" aria-label="{escape(label)}" viewBox="{box}">'
            f'<rect class="missing" {extent}/>'
            f'<image {extent} preserveAspectRatio="none" href="data:image/png;base64,{image}"/>'
            f'<use href="#{self.key}"/></svg>'
        )

    def _extent(self) -> str:
        return f'x="{_LEFT:g}" y="{_TOP:g}" width="{_WIDE:g}" height="{self.height:g}"'


def map_frame(
    latitude: np.ndarray,
    longitude: np.ndarray,
    *,
    key: str,
    lines: list[np.ndarray] | None,
    most_cells: int | None = None,
) -> MapFrame:
    """Lay out maps of a grid.

    Parameters
    ----------
    latitude, longitude : ndarray
        Ascending; uneven ones take the nearest cell.
    key : str
        Unique in the page.
    lines : list of ndarray, or None
        Coastlines, ``(point, 2)`` longitude and latitude. None stands for what is not the Earth:
        then cells are square, and there are no degrees.
    most_cells : int, optional
        Thin finer grids to about so many.
    """
    cells = len(latitude) * len(longitude)
    thin = max(1.0, (cells / most_cells) ** 0.5) if most_cells is not None else 1.0
    picks, edges = [], []
    for axis in (latitude, longitude):
        even = np.linspace(axis[0], axis[-1], max(1, round(len(axis) / thin)))
        half = (even[-1] - even[0]) / max(len(even) - 1, 1) / 2 or 0.5
        picks.append(np.abs(axis[None, :] - even[:, None]).argmin(axis=1))
        edges.append((float(even[0] - half), float(even[-1] + half)))
    (south, north), (west, east) = edges
    earth = lines is not None
    shape = _shape(latitude, longitude) if earth else len(latitude) / len(longitude)
    height = round(_WIDE * min(max(shape, 0.3), 1.1), 1)

    def place(points: np.ndarray) -> np.ndarray:
        x = _LEFT + (points[:, 0] - west) / (east - west) * _WIDE
        y = _TOP + (north - points[:, 1]) / (north - south) * height
        return np.stack([x, y], axis=1)

    parts = [_coast(lines or [], (west, east, south, north), place, key)]
    for value in _ticks(west, east) if earth else []:
        x, y = place(np.array([[value, south]]))[0, 0], _TOP + height
        text = _degree_text((value + 180) % 360 - 180 if abs(value) != 180 else 180, "E", "W")
        parts.append(f'<path class="tick" d="M{x:.1f} {y:g}v3"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 14:g}" text-anchor="middle">{text}</text>')
    for value in _ticks(south, north) if earth else []:
        x, y = _LEFT, place(np.array([[west, value]]))[0, 1]
        text = _degree_text(value, "N", "S")
        parts.append(f'<path class="tick" d="M{x:g} {y:.1f}h-3"/>')
        parts.append(f'<text x="{x - 5:g}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    edge = f'x="{_LEFT:g}" y="{_TOP:g}" width="{_WIDE:g}" height="{height:g}"'
    parts.append(f'<rect class="edge" {edge}/>')
    return MapFrame(key, picks[0], picks[1], height, "".join(parts))


def _coast(
    lines: list[np.ndarray],
    window: tuple[float, float, float, float],
    place: Callable[[np.ndarray], np.ndarray],
    key: str,
) -> str:
    west, east, south, north = window
    pieces = []
    for shift in (-360, 0, 360):
        for line in lines:
            moved = np.add(line, (shift, 0))
            low, high = moved.min(axis=0), moved.max(axis=0)
            if low[0] < east and high[0] > west and low[1] < north and high[1] > south:
                pieces.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in place(moved)))
    if not pieces:
        return ""
    return f'<path class="coast" clip-path="url(#{key}-clip)" d="{"".join(pieces)}"/>'


def _shape(latitude: np.ndarray, longitude: np.ndarray) -> float:
    """Height of a map over its width; regional maps keep distances at their middle latitude."""
    east = max(float(np.ptp(longitude)), 1e-9)
    east *= float(np.cos(np.deg2rad(latitude.mean()))) if east < 180 else 1.0
    return float(np.ptp(latitude)) / east


def _ticks(low: float, high: float) -> list[float]:
    steps = (0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 90)
    step = next((s for s in steps if (high - low) / s <= 5), 90)
    return [float(v) for v in np.arange(np.ceil(low / step) * step, high + 1e-9, step)]


def _degree_text(value: float, positive: str, negative: str) -> str:
    side = "" if value == 0 or abs(value) == 180 else positive if value > 0 else negative
    return f"{abs(value):g}°{side}"


def color_bar(scale: Scale, text: str) -> str:
    """Colour bar as HTML: the colours, values at both ends and in the middle, and what they are."""
    middle = (scale.low + scale.high) / 2
    values = "".join(f"<span>{_short(v)}</span>" for v in (scale.low, middle, scale.high))
    return (
        f'<div class="bar"><img alt="" src="data:image/png;base64,{scale.bar()}">'
        f'<div class="ends">{values}</div><div>{escape(text)}</div></div>'
    )


def _short(value: float) -> str:
    text = f"{abs(value):,.0f}" if 1e3 <= abs(value) < 1e7 else f"{abs(value):.3g}"
    return f"−{text}" if value < 0 else text


def coastlines() -> list[np.ndarray]:
    """Coastlines as arrays ``(point, 2)`` of longitude and latitude.

    There are none unless cartopy *and* its data are installed. Cartopy would download missing data
    while drawing, so its file is looked for first.
    """
    try:
        import cartopy
        from cartopy.io import shapereader
    except ImportError:
        return []
    for root in (cartopy.config.get("pre_existing_data_dir"), cartopy.config.get("data_dir")):
        path = Path(str(root)) / "shapefiles/natural_earth/physical/ne_110m_coastline.shp"
        if root and path.is_file():
            shapes = shapereader.Reader(path).geometries()
            return [np.asarray(shape.coords)[:, :2] for shape in shapes]
    return []
