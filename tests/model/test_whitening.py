"""Whitening: unit covariance, a floor, and nothing for what does not vary."""

import pytest
import torch

from sciwm.model.encoder import Whitened
from sciwm.model.loss import sigreg
from sciwm.model.mixing import MIXINGS
from sciwm.model.settings import Inputs, Sizes
from sciwm.model.whitening import fit_whitening
from tests.networks import SIZES, globe, network, states, window

CELLS = 6


def correlated(count=4000, tokens=3, *, alike=True, seed=0):
    """Features of which the first six are correlated cells, and two more are not cells."""
    rng = torch.Generator().manual_seed(seed)
    mixes = torch.randn(1 if alike else tokens, CELLS, CELLS, generator=rng)
    x = torch.randn(count, tokens, CELLS, generator=rng)
    x = torch.einsum("stf,tfg->stg", x, mixes.expand(tokens, -1, -1)) + 5
    return torch.cat([x, torch.rand(count, tokens, 2, generator=rng)], dim=-1)


def white(x, whitening):
    return torch.einsum(
        "stf,gfd->std" if len(whitening.matrix) == 1 else "stf,tfd->std",
        x - whitening.mean,
        whitening.matrix,
    )


def covariance(z):
    centred = z - z.mean(0)
    return centred.T @ centred / len(z)


@pytest.mark.parametrize("alike", [True, False])
def test_components_are_uncorrelated_and_of_variance_one(alike):
    x = correlated(alike=alike)
    whitening = fit_whitening(x.split(700), num_cells=CELLS, floor=0.0, alike=alike)
    assert len(whitening.matrix) == len(whitening.mean) == (1 if alike else 3)
    z = white(x, whitening)
    groups = [z.flatten(0, 1)] if alike else z.unbind(1)
    for values in groups:
        expected = torch.eye(8)
        expected[CELLS:] = 0  # what is no cell gets no component
        torch.testing.assert_close(covariance(values), expected, atol=2e-3, rtol=0)
        torch.testing.assert_close(values.mean(0), torch.zeros(8), atol=2e-3, rtol=0)
    assert (whitening.matrix[:, CELLS:] == 0).all()
    assert (whitening.mean[:, CELLS:] == 0).all()


def test_one_for_all_is_not_one_for_each():
    x = correlated(alike=False)
    whitening = fit_whitening([x], num_cells=CELLS, floor=0.0)
    apart = covariance(white(x, whitening)[:, 0])[:CELLS, :CELLS] - torch.eye(CELLS)
    assert apart.abs().max() > 0.2


def test_the_largest_component_comes_first_and_the_floor_damps_the_small_ones():
    torch.manual_seed(0)
    spread = torch.tensor([0.01, 3.0, 0.3, 1.0])
    x = torch.randn(20_000, 1, 4) * spread
    whitening = fit_whitening([x], num_cells=4, floor=0.3)
    got = white(x, whitening)[:, 0].std(0)
    ordered = torch.tensor([3.0, 1.0, 0.3, 0.01])
    torch.testing.assert_close(got, ordered / (ordered**2 + 0.3**2).sqrt(), rtol=0.03, atol=1e-3)
    assert got[3] < 0.04  # not blown up to 1
    largest = whitening.matrix[0].abs().argmax(0)
    assert largest.tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_what_never_varies_is_no_component(floor):
    x = correlated()
    x[..., 2], x[..., 4] = 0.0, 1000.0  # such as padding, or a mask
    whitening = fit_whitening(x.split(1000), num_cells=CELLS, floor=floor)
    z = white(x, whitening).flatten(0, 1)
    assert (z.std(0)[:4] > 0.5).all()
    assert (z[:, 4:] == 0).all()
    assert whitening.matrix.isfinite().all()


def test_fewer_components_are_the_first_and_more_are_zero():
    whitening = fit_whitening([correlated()], num_cells=CELLS, floor=0.0)
    assert torch.equal(whitening.components(2), whitening.matrix[..., :2])
    more = whitening.components(11)
    assert torch.equal(more[..., :8], whitening.matrix)
    assert (more[..., 8:] == 0).all()


def test_nothing_to_whiten():
    with pytest.raises(ValueError, match="got no training states to whiten"):
        fit_whitening([], num_cells=2, floor=0.0)


@pytest.mark.parametrize("latent_dim", [0, 3, 7])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_the_untrained_encoder_is_the_whitening(latent_dim, mixing):
    tokenizer = globe(channels=2)
    untrained = network(tokenizer, opened=False, latent_dim=latent_dim, encoder_mixing=mixing)
    tokens = window(tokenizer, missing=0.2)
    latents = untrained.encode(tokens.features)
    whitening = fit_whitening(
        [tokenizer.tokenize(states(tokenizer, 200, 1, seed=9))[0][:, 0]],
        num_cells=tokenizer.num_cells,
        floor=0.0,
    )
    expected = white(tokens.features.flatten(0, 1), whitening).unflatten(0, (8, 4))
    count = latent_dim or tokenizer.num_cells
    torch.testing.assert_close(latents, expected[..., :count], rtol=1e-4, atol=1e-5)
    opened = network(tokenizer, latent_dim=latent_dim, encoder_mixing=mixing)
    assert (opened.encode(tokens.features) - latents).abs().max() > 0.01


def test_latents_beyond_the_number_of_cells_begin_as_zero_and_can_be_learnt():
    tokenizer = globe()
    tokens = window(tokenizer)
    made = network(tokenizer, opened=False, latent_dim=9)
    assert (made.encode(tokens.features)[..., 4:] == 0).all()
    opened = network(tokenizer, latent_dim=9).encode(tokens.features)
    assert opened[..., 4:].std() > 1e-3


def test_latents_of_untrained_encoders_are_next_to_normal():
    """SIGReg is about 1 for a Gaussian: there is nothing that the penalty has to repair."""
    x, other = correlated(40_000, tokens=1).split([30_000, 10_000])
    whitening = fit_whitening([x], num_cells=CELLS, floor=0.0)
    inputs = Inputs(globe((2, 4), (2, 4)).place, whitening, CELLS)
    encoder = Whitened(inputs, Sizes(**SIZES))
    latents, raw = encoder(other)[:, 0].detach(), other[:, 0, :CELLS]
    values, of_raw = [], []
    for part, same in zip(latents.split(500), raw.split(500), strict=True):
        rng = torch.Generator().manual_seed(len(values))
        values.append(float(sigreg(part, generator=rng)))
        of_raw.append(float(sigreg(same, generator=rng)))
    assert sum(values) / 20 == pytest.approx(1.0, abs=0.25)
    assert min(of_raw) > 50


def test_a_frozen_encoder_is_the_whitening_and_has_nothing_to_learn():
    tokenizer = globe()
    whitening = fit_whitening([states_of(tokenizer)], num_cells=4, floor=0.0)
    inputs = Inputs(tokenizer.place, whitening, 4)
    frozen = Whitened(inputs, Sizes(**SIZES), frozen=True)
    assert not any(p.requires_grad for p in frozen.parameters())
    x = states_of(tokenizer)
    torch.testing.assert_close(frozen(x), white(x, whitening)[..., :4])


def states_of(tokenizer):
    return tokenizer.tokenize(states(tokenizer, 50, 1))[0][:, 0]
