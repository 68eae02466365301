"""What SIGReg and VICReg promise, against formulas written out."""

import numpy as np
import pytest
import torch
from scipy import integrate

from sciwm.model.loss import _characteristic, energy_error, latent_error, sigreg, vicreg


def plain_sigreg(samples, generator, directions=64, knots=17):
    """The statistic by the textbook, with automatic gradients."""
    direction = torch.randn(samples.shape[1], directions, generator=generator)
    projected = samples @ (direction / direction.norm(dim=0))
    node = torch.linspace(0, 3, knots)
    angle = projected[..., None] * node
    distance = (angle.cos().mean(0) - torch.exp(-(node**2) / 2)) ** 2 + angle.sin().mean(0) ** 2
    half = torch.trapezoid(distance * torch.exp(-(node**2) / 2), node, dim=-1)
    return 2 * half.mean() * len(samples)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("count", [50, 500, 5000])
def test_a_gaussian_scores_about_one_whatever_the_sample_size(count):
    values = [
        sigreg(torch.randn(count, 16, generator=seeded(i)), generator=seeded(i)) for i in range(20)
    ]
    # E|φ̂ - φ|² = (1 - φ²) / n
    expected, _ = integrate.quad(lambda t: (1 - np.exp(-(t**2))) * np.exp(-(t**2) / 2), -3, 3)
    assert float(torch.stack(values).mean()) == pytest.approx(expected, rel=0.15)
    assert expected == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("count", [10, 1000])
def test_a_collapse_scores_0402_n(count):
    assert float(sigreg(torch.zeros(count, 8))) == pytest.approx(0.402 * count, rel=2e-3)


def test_other_distributions_score_higher():
    n = 2000
    gauss = sigreg(torch.randn(n, 8, generator=seeded()), generator=seeded())
    for other in (
        2 * torch.randn(n, 8, generator=seeded()),
        torch.randn(n, 8, generator=seeded()) + 0.3,
        torch.randn(n, 1, generator=seeded()).expand(n, 8),
        torch.randn(n, 8, generator=seeded()).sign(),
    ):
        assert sigreg(other, generator=seeded()) > 3 * gauss


def test_equals_the_textbook_formula_and_its_gradient():
    samples = (torch.randn(40, 6, generator=seeded(3)) * 1.5 + 0.2).requires_grad_()
    ours, theirs = sigreg(samples, generator=seeded(5)), plain_sigreg(samples, seeded(5))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    mine, reference = (torch.autograd.grad(x, samples)[0] for x in (ours, theirs))
    torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-5)


def test_characteristic_function_and_its_gradient():
    angle = torch.randn(7, 3, dtype=torch.float64, generator=seeded()).requires_grad_()
    real, imaginary = _characteristic(angle, 9)
    for k in range(9):
        torch.testing.assert_close(real[k], (k * angle).cos().mean(0))
        torch.testing.assert_close(imaginary[k], (k * angle).sin().mean(0))
    assert torch.autograd.gradcheck(lambda x: _characteristic(x, 9), (angle,))


def test_no_gradient_at_the_collapse():
    samples = torch.zeros(100, 8, requires_grad=True)
    sigreg(samples, generator=seeded()).backward()
    assert samples.grad.abs().max() == 0
    # A hair beside it there is one, and it points outwards.
    samples = (1e-2 * torch.randn(100, 8, generator=seeded())).requires_grad_()
    sigreg(samples, generator=seeded()).backward()
    assert (samples.grad * samples).sum() < 0


def test_float32_under_autocast():
    samples = torch.randn(500, 8, generator=seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sigreg(samples.bfloat16(), generator=seeded())
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, sigreg(samples.bfloat16().float(), generator=seeded()))


def test_vicreg_is_zero_for_wide_uncorrelated_data_only():
    white = torch.linalg.qr(torch.randn(400, 8, generator=seeded()) - 0)[0]
    white = white - white.mean(0)
    u, _, v = torch.linalg.svd(white, full_matrices=False)
    white = (u @ v) * 400**0.5  # exactly uncorrelated, unit variance
    assert float(vicreg(1.01 * white)) == pytest.approx(0, abs=1e-6)
    narrow = vicreg(0.5 * white)
    assert float(narrow) == pytest.approx(40 * (1 - (0.25 + 1e-4) ** 0.5), rel=1e-3)
    correlated = torch.cat([white[:, :4], white[:, :4]], dim=1) * 1.01
    # Four pairs of covariance 1.01²·400/399, both triangles, over eight dimensions.
    expected = 2 * 8 * (1.01**2 * 400 / 399) ** 2 / 8
    assert float(vicreg(correlated)) == pytest.approx(expected, rel=1e-3)
    assert torch.isfinite(vicreg(torch.zeros(1, 8)))


def test_latent_error_counts_valid_tokens_alone():
    a, b = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    valid = torch.rand(3, 4, generator=seeded()) > 0.4
    torch.testing.assert_close(latent_error(a, b, valid), (a - b)[valid].square().mean())
    torch.testing.assert_close(latent_error(a, b, None), (a - b).square().mean())
    difference = (a - b).abs()
    smooth = torch.where(difference < 1, 0.5 * difference**2, difference - 0.5)
    torch.testing.assert_close(latent_error(a, b, valid, smooth=True), smooth[valid].mean())
    assert latent_error(a, b, torch.zeros(3, 4, dtype=torch.bool)) == 0
    assert latent_error(a, a, None) == 0


def test_the_energy_score_is_smallest_for_the_distribution_of_the_target():
    """Of Gaussian members of several widths and places, those like the target win.

    Two equal members score their distance.
    """
    target = torch.randn(20_000, 8, generator=seeded())

    def score(width, place=0.0):
        members = place + width * torch.randn(2, 20_000, 8, generator=seeded(1))
        return float(energy_error(members, target, None))

    assert score(1.0) < min(score(0.7), score(1.4), score(1.0, 0.5))
    members = torch.zeros(2, 3, 4)
    away = torch.full((3, 4), 2.0)
    assert float(energy_error(members, away, None)) == pytest.approx(2.0, abs=1e-3)
    only_last = torch.tensor([False, False, True])
    away[:2] = 100
    assert float(energy_error(members, away, only_last)) == pytest.approx(2.0, abs=1e-3)


def test_equal_members_have_a_gradient():
    members = torch.zeros(2, 3, 4, requires_grad=True)
    energy_error(members, torch.ones(3, 4), None).backward()
    assert members.grad.isfinite().all()
    assert members.grad.abs().sum() > 0
