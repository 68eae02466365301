"""Where tokens are, and what the calendar and the sun are doing there."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["fourier_features", "is_periodic", "solar_elevation", "unit_sphere"]


def unit_sphere(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Cartesian points on the unit sphere.

    Longitudes that differ by 360 degrees give the same point. So nothing downstream needs to know
    whether the grid is periodic.

    Parameters
    ----------
    latitude, longitude : ndarray
        Degrees, broadcastable.

    Returns
    -------
    ndarray
        ``[..., 3]``, each in [-1, 1].

    Examples
    --------
    >>> unit_sphere(np.array(0.0), np.array(360.0)).round(6) + 0.0
    array([1., 0., 0.])
    """
    lat, lon = np.broadcast_arrays(np.deg2rad(latitude), np.deg2rad(longitude))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def is_periodic(longitude: np.ndarray) -> bool:
    """Whether a regular longitude axis closes on itself.

    Examples
    --------
    >>> is_periodic(np.arange(0, 360, 7.5)), is_periodic(np.arange(-20, 15, 1.5))
    (True, False)
    """
    if len(longitude) < 3:
        return False
    spacing = float(np.median(np.diff(longitude)))
    return bool(abs(longitude[-1] + spacing - longitude[0] - 360.0) < 0.01 * spacing)


def fourier_features(
    position: Float[Tensor, "token axis"], *, octaves: int = 4
) -> Float[Tensor, "token feature"]:
    """Sines and cosines of positions at doubling frequencies, beside the positions themselves.

    Every axis is first stretched to [-1, 1] over the tokens at hand. So a region of a few degrees
    is resolved as well as the globe.
    """
    centre = (position.amax(0) + position.amin(0)) / 2
    half = ((position.amax(0) - position.amin(0)) / 2).clamp_min(1e-6)
    scaled = (position - centre) / half
    angle = scaled[:, :, None] * torch.pi * 2.0 ** torch.arange(octaves)
    return torch.cat([scaled, angle.sin().flatten(1), angle.cos().flatten(1)], dim=1)


def solar_elevation(
    year_phase: Float[Tensor, "*lead"],
    day_phase: Float[Tensor, "*lead"],
    position: Float[Tensor, "token 3"],
) -> Float[Tensor, "*lead token"]:
    r"""Sine of the sun's elevation above each token, in [-1, 1].

    .. math:: \sin h = \sin\varphi \sin\delta + \cos\varphi \cos\delta \cos H, \qquad
        \delta = -23.44^\circ \cos(2\pi(y + 10/365))

    Parameters
    ----------
    year_phase, day_phase : Tensor
        Fractions of the year and of the UTC day gone by, in [0, 1).
    position : Tensor
        Unit-sphere points of the tokens.
    """
    tilt = -0.4091 * torch.cos(2 * torch.pi * (year_phase + 10 / 365))
    noon = torch.pi - 2 * torch.pi * day_phase
    sun = torch.stack([tilt.cos() * noon.cos(), tilt.cos() * noon.sin(), tilt.sin()], dim=-1)
    return sun @ position.T
