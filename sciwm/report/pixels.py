"""Fields as small images: a scale of 63 colours, and PNGs that always come out the same."""

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap

__all__ = ["BETTER_WORSE", "Scale", "diverging_scale", "field_scale", "png_base64", "size_scale"]

_COLORS = 63  # odd, so that zero has a colour of its own; index 63 is missing
BETTER_WORSE = (
    *("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7"),
    *("#fee0b6", "#fdb863", "#e08214", "#b35806", "#7f3b08"),
)
"""Blue is better, orange is worse: halves of ColorBrewer's RdBu and PuOr.

They are told apart whatever the kind of colour blindness.
"""
_JUDGED = LinearSegmentedColormap.from_list("better_worse", BETTER_WORSE, N=_COLORS)


@dataclass(frozen=True)
class Scale:
    """Which colour stands for which value.

    Parameters
    ----------
    low, high : float
        Values of the first and the last colour; those beyond have these colours, too.
    colors : ndarray of uint8, shape (63, 3)
    """

    low: float
    high: float
    colors: np.ndarray

    def indices(self, values: np.ndarray) -> np.ndarray:
        """Colour of each value by number; 63 where missing."""
        missing = ~np.isfinite(values)
        share = (np.where(missing, self.low, values) - self.low) / (self.high - self.low)
        number = np.clip(np.round(share * (_COLORS - 1)), 0, _COLORS - 1)
        return np.where(missing, _COLORS, number).astype("uint8")

    def png(self, values: np.ndarray) -> str:
        """Base64 of the image of a field ``(row, column)``, transparent where missing.

        The first row of the field is at the bottom.
        """
        return png_base64(self.indices(values[::-1]), self.colors)

    def bar(self) -> str:
        """Base64 of one row with all colours."""
        return png_base64(np.arange(_COLORS, dtype="uint8")[None], self.colors)


def field_scale(values: np.ndarray) -> Scale:
    """Scale of a field, from the 0.1st to the 99.9th percentile.

    It is symmetric and diverging if the field has both signs in earnest.
    """
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.1, 99.9]) if finite.size else (0.0, 1.0)
    if low < 0 < high and min(-low, high) > 0.25 * max(-low, high):
        return _scale(-max(-low, high), max(-low, high), colormaps["RdBu_r"])
    return _scale(float(low), float(high), colormaps["viridis"])


def diverging_scale(values: np.ndarray, *, judged: bool = False) -> Scale:
    """Scale of differences, symmetric about zero; ``judged`` where negative is better."""
    finite = np.abs(values[np.isfinite(values)])
    most = float(np.percentile(finite, 99.5)) if finite.size else 1.0
    colors = _JUDGED if judged else colormaps["PuOr_r"]
    return _scale(-(most or 1.0), most or 1.0, colors)


def size_scale(values: np.ndarray) -> Scale:
    """Scale of what is never negative, from zero."""
    finite = values[np.isfinite(values)]
    most = float(np.percentile(finite, 99.5)) if finite.size else 1.0
    return _scale(0.0, most, colormaps["YlGnBu"])


def _scale(low: float, high: float, colors: Colormap) -> Scale:
    table = np.round(colors(np.linspace(0, 1, _COLORS))[:, :3] * 255).astype("uint8")
    return Scale(float(low), float(high) if high > low else float(low) + 1.0, table)


def png_base64(indices: np.ndarray, colors: np.ndarray) -> str:
    r"""Encode an image of colour numbers as an indexed PNG, in base64.

    The number after the last colour is transparent. Pillow writes such images too, but without the
    filter that smooth fields gain from.

    Parameters
    ----------
    indices : ndarray of uint8, shape (row, column)
    colors : ndarray of uint8, shape (colour, 3)

    Examples
    --------
    >>> base64.b64decode(png_base64(np.zeros((2, 2), "uint8"), np.zeros((1, 3), "uint8")))[:4]
    b'\x89PNG'
    """
    # Base64 of many images, as written here and by Pillow 13:
    #                                                     here      Pillow
    #     ERA-Interim over Europe, 21 x 24 cells, 320     239 kB    268 kB (+12 %)
    #     NCEP over the Atlantic, 17 x 33 cells, 160      129 kB    148 kB (+15 %)
    #     simulated atmosphere, 24 x 48 cells, 320        385 kB    425 kB (+10 %)
    #     smooth noise, 121 x 240 cells, 60               605 kB    804 kB (+33 %)
    #     half noise (tests/reports.py), 462              353 kB    370 kB (+5 %)
    # Pillow is faster: 0.2 s instead of 1.7 s for the smooth noise, 0.02 s instead of 0.03 s for
    # ERA-Interim.
    rows, columns = indices.shape
    # Differences modulo 256 are the filter "sub" of PNG.
    left = np.diff(indices, axis=1, prepend=np.zeros((rows, 1), "uint8"))
    packed = [_packed(indices, 0), _packed(left, 1)]
    palette = np.vstack([colors, [[127, 127, 127]]]).astype("uint8")
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.tobytes()),
        (b"tRNS", b"\xff" * len(colors) + b"\x00"),
        (b"IDAT", min(packed, key=len)),
        (b"IEND", b""),
    ]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)
    return base64.b64encode(file).decode()


def _packed(values: np.ndarray, kind: int) -> bytes:
    return zlib.compress(np.insert(values, 0, kind, axis=1).tobytes(), 9)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
