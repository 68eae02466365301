"""Health measures on spectra that are known."""

import numpy as np
import pytest
import torch

from sciwm.model.health import CollapseError, check_health, latent_health
from sciwm.model.teacher import moving_average, update_average


def samples_with(spread, count=4000):
    """Samples whose singular values are in the ratio of ``spread``."""
    first, second = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    dim, exact = len(spread), torch.float64
    values = torch.randn(count, dim, generator=first, dtype=exact)
    u, _, _ = torch.linalg.svd(values - values.mean(0), full_matrices=False)
    rotation, _ = torch.linalg.qr(torch.randn(dim, dim, generator=second, dtype=exact))
    return (u - u.mean(0)) * torch.tensor(spread, dtype=exact) * count**0.5 @ rotation + 5


def test_isotropic():
    health = latent_health(samples_with([1.0] * 12))
    assert health["effective_rank"] == pytest.approx(12, rel=1e-6)
    assert health["smallest_std"] == pytest.approx(1, rel=1e-6)
    assert health["mean_std"] == pytest.approx(1, rel=1e-6)
    assert health["concentration"] == pytest.approx(1 / 12, rel=1e-6)


def test_one_direction():
    health = latent_health(samples_with([3.0] + [0.0] * 7))
    assert health["effective_rank"] == pytest.approx(1, abs=1e-4)
    assert health["concentration"] == pytest.approx(1)


def test_known_spectrum():
    spread = np.array([4.0, 2.0, 1.0, 1.0])
    health = latent_health(samples_with(list(spread)))
    share = spread / spread.sum()
    rank = np.exp(-(share * np.log(share)).sum())
    assert health["effective_rank"] == pytest.approx(rank, rel=1e-6)
    assert health["concentration"] == pytest.approx(16 / 22, rel=1e-6)


def test_constant():
    assert latent_health(torch.full((50, 6), 7.0)) == {
        "effective_rank": 1.0,
        "smallest_std": 0.0,
        "mean_std": 0.0,
        "concentration": 1.0,
    }


@pytest.mark.parametrize(
    "samples",
    [torch.ones(100, 8), 1e-3 * torch.randn(100, 8), samples_with([1.0] + [0.0] * 7)],
    ids=["constant", "tiny", "one direction"],
)
def test_the_alarm(samples):
    message = r"collapsed at step 300: effective rank .*Raise objective.strength"
    with pytest.raises(CollapseError, match=message):
        check_health(latent_health(samples), step=300)


def test_no_false_alarm():
    check_health(latent_health(torch.randn(500, 8)), step=1)
    check_health(latent_health(samples_with([1.0] * 3 + [0.0] * 5)), step=1)


def test_moving_average():
    network = torch.nn.Linear(3, 2)
    average = moving_average(network)
    start = [p.clone() for p in average.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2).add_(1)
    for _ in range(3):
        update_average(average, network, decay=0.8)
    for old, now, new in zip(start, average.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(now.data, 0.8**3 * old + (1 - 0.8**3) * new.data)
        assert not now.requires_grad
    update_average(average, network, decay=0.0)
    torch.testing.assert_close(average.state_dict(), network.state_dict())
