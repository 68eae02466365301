"""Fields as small images: a colour scale with 63 colours, and PNGs that need no library and always come out the same."""

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
"""Blue is better, orange is worse: told apart whatever the kind of colour blindness (halves of ColorBrewer's RdBu and PuOr)."""


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
        return np.where(
            missing, _COLORS, np.clip(np.round(share * (_COLORS - 1)), 0, _COLORS - 1)
        ).astype("uint8")

    def png(self, values: np.ndarray) -> str:
        """Base64 of the image of a field ``(row, column)`` whose first row is at the bottom; transparent where missing."""
        return png_base64(self.indices(values[::-1]), self.colors)

    def bar(self) -> str:
        """Base64 of one row with all colours."""
        return png_base64(np.arange(_COLORS, dtype="uint8")[None], self.colors)


def field_scale(values: np.ndarray) -> Scale:
    """Scale of a field: symmetric and diverging if it has both signs in earnest, from the 0.1st to the 99.9th percentile."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.1, 99.9]) if finite.size else (0.0, 1.0)
    if low < 0 < high and min(-low, high) > 0.25 * max(-low, high):
        return _scale(-max(-low, high), max(-low, high), colormaps["RdBu_r"])
    return _scale(float(low), float(high), colormaps["viridis"])


def diverging_scale(values: np.ndarray, *, judged: bool = False) -> Scale:
    """Scale of differences, symmetric about zero; ``judged`` where negative is better."""
    finite = np.abs(values[np.isfinite(values)])
    most = float(np.percentile(finite, 99.5)) if finite.size else 1.0
    colors = (
        LinearSegmentedColormap.from_list("better_worse", BETTER_WORSE, N=_COLORS)
        if judged
        else colormaps["PuOr_r"]
    )
    return _scale(-(most or 1.0), most or 1.0, colors)


def size_scale(values: np.ndarray) -> Scale:
    """Scale of what is never negative, from zero."""
    finite = values[np.isfinite(values)]
    return _scale(
        0.0, float(np.percentile(finite, 99.5)) if finite.size else 1.0, colormaps["YlGnBu"]
    )


def _scale(low: float, high: float, colors: Colormap) -> Scale:
    table = np.round(colors(np.linspace(0, 1, _COLORS))[:, :3] * 255).astype("uint8")
    return Scale(float(low), float(high) if high > low else float(low) + 1.0, table)


def png_base64(indices: np.ndarray, colors: np.ndarray) -> str:
    r"""Encode an image of colour numbers as an indexed PNG; the number after the last colour is transparent.

    Parameters
    ----------
    indices : ndarray of uint8, shape (row, column)
    colors : ndarray of uint8, shape (colour, 3)

    Examples
    --------
    >>> base64.b64decode(png_base64(np.zeros((2, 2), "uint8"), np.zeros((1, 3), "uint8")))[:4]
    b'\x89PNG'
    """
    rows, columns = indices.shape
    left = np.diff(
        indices, axis=1, prepend=np.zeros((rows, 1), "uint8")
    )  # modulo 256: the filter "sub"
    packed = [_packed(indices, 0), _packed(left, 1)]
    palette = np.vstack([colors, [[127, 127, 127]]]).astype("uint8")
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.tobytes()),
        (b"tRNS", b"\xff" * len(colors) + b"\x00"),
        (b"IDAT", min(packed, key=len)),
        (b"IEND", b""),
    ]
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)
    ).decode()


def _packed(values: np.ndarray, kind: int) -> bytes:
    return zlib.compress(np.insert(values, 0, kind, axis=1).tobytes(), 9)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
