"""Where tokens are, and where the sun stands above them."""

import numpy as np
import pytest
import torch

from sciwm.tokens.positions import fourier_features, is_periodic, solar_elevation, unit_sphere

EQUINOX, JUNE, DECEMBER = 80.5 / 365, 172 / 365, 355 / 365


def elevation(year, day, latitude, longitude):
    point = torch.from_numpy(unit_sphere(np.array([latitude]), np.array([longitude]))).float()
    return float(
        solar_elevation(
            torch.tensor(year, dtype=torch.float32), torch.tensor(day, dtype=torch.float32), point
        )
    )


def test_points_on_the_sphere():
    np.testing.assert_allclose(
        unit_sphere(np.array([0.0, 0, 90, -90]), np.array([0.0, 90, 33, 7])),
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1]],
        atol=1e-12,
    )
    rng = np.random.default_rng(0)
    latitude, longitude = rng.uniform(-90, 90, 50), rng.uniform(-180, 180, 50)
    point = unit_sphere(latitude, longitude)
    np.testing.assert_allclose(np.linalg.norm(point, axis=-1), 1)
    np.testing.assert_allclose(point, unit_sphere(latitude, longitude + 360), atol=1e-12)
    # Chord and haversine agree.
    a, b = slice(0, 25), slice(25, 50)
    half = np.deg2rad(latitude[a] - latitude[b]) / 2, np.deg2rad(longitude[a] - longitude[b]) / 2
    haversine = (
        np.sin(half[0]) ** 2
        + np.cos(np.deg2rad(latitude[a])) * np.cos(np.deg2rad(latitude[b])) * np.sin(half[1]) ** 2
    )
    np.testing.assert_allclose(
        np.sum((point[a] - point[b]) ** 2, axis=-1), 4 * haversine, atol=1e-12
    )


@pytest.mark.parametrize(
    ("longitude", "expected"),
    [
        (np.arange(0, 360, 2.5), True),
        (np.arange(1.25, 361, 2.5), True),
        (np.arange(-180, 180, 0.7031250), True),
        (np.arange(0, 357, 2.5), False),
        (np.arange(0, 361.0), False),
        (np.arange(-20, 15, 1.5), False),
        (np.array([0.0, 180.0]), False),
    ],
)
def test_periodic_axes(longitude, expected):
    assert is_periodic(longitude) is expected


def test_sun():
    assert elevation(EQUINOX, 0.5, 0, 0) == pytest.approx(1, abs=1e-3)
    assert elevation(EQUINOX, 0.0, 0, 0) == pytest.approx(-1, abs=1e-3)
    # Noon in the west comes later.
    assert elevation(EQUINOX, 0.75, 0, -90) == pytest.approx(1, abs=1e-3)
    assert elevation(EQUINOX, 0.25, 0, 90) == pytest.approx(1, abs=1e-3)
    assert elevation(JUNE, 0.5, 23.44, 0) == pytest.approx(1, abs=1e-3)
    assert elevation(DECEMBER, 0.5, -23.44, 0) == pytest.approx(1, abs=1e-3)
    hours = np.arange(24) / 24
    assert max(elevation(DECEMBER, h, 80, 0) for h in hours) < 0  # polar night
    assert min(elevation(JUNE, h, 80, 0) for h in hours) > 0  # midnight sun
    # Over a day at the equinox the mean at the equator is zero.
    assert np.mean([elevation(EQUINOX, h, 0, 0) for h in hours]) == pytest.approx(0, abs=1e-3)


def test_sun_broadcasts_and_stays_in_range():
    point = torch.nn.functional.normalize(torch.randn(7, 3), dim=-1)
    out = solar_elevation(torch.rand(4, 5), torch.rand(4, 5), point)
    assert out.shape == (4, 5, 7)
    assert out.abs().max() <= 1 + 1e-6


def test_fourier_features_resolve_a_region_like_the_globe():
    position = torch.rand(20, 3)
    features = fourier_features(position)
    assert features.shape == (20, 3 + 2 * 3 * 4)
    assert features.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(fourier_features(5 + 0.01 * position), features, atol=5e-3, rtol=0)
    flat = fourier_features(torch.cat([position[:, :2], torch.ones(20, 1)], dim=1))
    assert torch.isfinite(flat).all()  # an axis without extent
    assert torch.linalg.matrix_rank(features) == 20  # all tokens told apart
