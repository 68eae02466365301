"""Readouts of fields and series: residual, latent-only, and of states alone."""

import numpy as np
import pytest
import torch

from sciwm.readout.features import field_features, series_features
from sciwm.readout.readout import KINDS, Readouts, Sample, fit_readouts
from sciwm.readout.ridge import Moments, fit_pooled, fit_ridge

LEADS = (1, 4)
AREA = torch.tensor([0.5, 0.3, 0.2])
COMMON = {"lead_steps": list(LEADS), "scope": "token", "halo": 0, "targets": [], "reads": "both"}


def sample(count=600, *, seed=0, cells=4, targets=2, noise=0.3, shuffled=False):
    """States that decay towards a linear image of the latents."""
    rng = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    latents = torch.randn(count, len(LEADS), 3, 5, generator=rng)
    initial = torch.randn(count, 3, cells, generator=rng)
    begin = torch.randn(count, targets, generator=rng)
    into_cells = torch.randn(5, cells, generator=fixed)
    into_series = torch.randn(15, targets, generator=fixed) / 4
    decay = torch.tensor([0.8, 0.4])[:, None]
    later = decay[..., None] * initial[:, None] + latents @ into_cells
    later = later + noise * torch.randn(later.shape, generator=rng)
    later_series = decay * begin[:, None] + latents.flatten(2) @ into_series
    if shuffled:
        order = torch.randperm(count, generator=rng)
        later, later_series = later[order], later_series[order]
    return Sample(latents, initial, later, begin, later_series)


def fit(*, train=None, validation=None, scope="token", strengths=(1e-3, 1e-1, 10.0)):
    train, validation = train or [sample()], validation or [sample(200, seed=1)]
    return fit_readouts(
        train, validation, lead_steps=LEADS, scope=scope, strengths=strengths, area=AREA
    )


def squared(readouts, held):
    """Mean squared error of fields and of series at every lead."""
    errors = []
    for lead in range(len(LEADS)):
        latents, later, later_series = (
            values[:, lead] for values in (held.latents, held.later, held.later_series)
        )
        fields = readouts.read_fields(lead, latents, held.initial)
        series = readouts.read_series(lead, latents, held.initial_series)
        assert fields.shape == later.shape
        assert series.shape == later_series.shape
        apart = fields - later, series - later_series
        errors.append([float(difference.square().mean()) for difference in apart])
    return np.array(errors)


@pytest.mark.parametrize("scope", ["token", "shared"])
def test_they_find_what_is_there(scope):
    readouts = fit(scope=scope)
    held = sample(300, seed=2)
    residual, latent = squared(readouts["residual"], held), squared(readouts["latent"], held)
    np.testing.assert_allclose(residual[:, 0], 0.09, rtol=0.15)  # the noise
    assert (residual[:, 1] < 2e-3).all()
    without = 0.09 + np.array([0.64, 0.16])  # the initial state is not given
    np.testing.assert_allclose(latent[:, 0], without, rtol=0.2)


def test_latent_only_never_sees_values_of_a_series_however_many_there_are():
    some = sample()
    values = [some.initial_series, some.later_series[:, 0], some.later_series[:, 1]]
    more = some._replace(initial_series=torch.cat(values, dim=1))
    readouts = fit(train=[more], validation=[more])
    assert [ridge.weight.shape[1] for ridge in readouts["latent"].series] == [15, 15]
    assert [ridge.weight.shape[1] for ridge in readouts["residual"].series] == [21, 21]


@pytest.mark.parametrize("scope", ["token", "shared"])
def test_latent_only_is_the_same_fit_with_fewer_features(scope):
    whole = sample()
    no_cells, no_series = whole.initial[..., :0], whole.initial_series[..., :0]
    readouts = fit(train=[whole], scope=scope, strengths=[0.1])["latent"]
    for lead in range(len(LEADS)):
        latents, y = whole.latents[:, lead], whole.later[:, lead]
        x = field_features(latents, no_cells, scope=scope)
        if scope == "shared":
            y = y.flatten(0, 1)[:, None]
        moments = Moments.zeros(groups=x.shape[1], features=x.shape[2], targets=y.shape[2])
        moments.add(x, y)
        (direct,) = fit_ridge(moments, [0.1])
        if scope == "token":
            direct = fit_pooled(moments, moments, [0.1])
        torch.testing.assert_close(readouts.fields[lead].weight, direct.weight)
        moments = Moments.zeros(groups=1, features=15, targets=2)
        moments.add(series_features(latents, no_series), whole.later_series[:, lead][:, None])
        (direct,) = fit_ridge(moments, [0.1])
        torch.testing.assert_close(readouts.series[lead].weight, direct.weight)


@pytest.mark.parametrize("scope", ["token", "shared"])
def test_local_linear_is_the_residual_readout_of_latents_without_numbers(scope):
    whole, held = sample(), sample(200, seed=1)
    none, also = (s._replace(latents=s.latents[..., :0]) for s in (whole, held))
    local = fit(train=[whole], validation=[held], scope=scope)["local_linear"]
    bare = fit(train=[none], validation=[also], scope=scope)
    residual = bare["residual"]
    assert "latent" not in bare  # it would have nothing to read
    assert local.tensors().keys() == residual.tensors().keys()
    for name, value in residual.tensors().items():
        torch.testing.assert_close(local.tensors()[name], value)
    for lead in range(len(LEADS)):
        latents = torch.full_like(held.latents[:, lead], torch.nan)
        got = local.read_fields(lead, latents, held.initial)
        want = residual.read_fields(lead, latents[..., :0], held.initial)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        got = local.read_series(lead, latents, held.initial_series)
        want = residual.read_series(lead, latents[..., :0], held.initial_series)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        assert got.isfinite().all()


def test_without_states_there_is_no_readout_of_states():
    whole = sample()
    bare = whole._replace(
        initial=whole.initial[..., :0], initial_series=whole.initial_series[:, :0]
    )
    assert set(fit(train=[bare], validation=[bare])) == {"residual", "latent"}
    assert set(fit(train=[whole], validation=[whole])) == set(KINDS)


def test_residual_is_at_least_as_good_as_damped_persistence_on_training_data():
    """Even when the latents are pure noise, as those of an untrained network may be."""
    whole = sample(noise=2.0)
    whole = whole._replace(latents=torch.randn_like(whole.latents))
    readouts = fit(train=[whole], validation=[whole], strengths=[1e-6])["residual"]
    for lead in range(len(LEADS)):
        x, y = whole.initial, whole.later[:, lead]
        centred = x - x.mean(0)
        slope = (centred * (y - y.mean(0))).sum(0) / centred.square().sum(0)
        damped = (centred * slope + y.mean(0) - y).square().mean(0)
        read = readouts.read_fields(lead, whole.latents[:, lead], whole.initial)
        assert ((read - y).square().mean(0) <= damped + 1e-5).all()


def test_shuffled_targets_give_no_skill():
    held = sample(400, seed=2)
    readouts = fit(train=[sample(shuffled=True)], validation=[sample(200, seed=1, shuffled=True)])
    for kind in ("residual", "latent"):
        errors = squared(readouts[kind], held)
        parts = held.later, held.later_series
        variance = [[float(part[:, lead].var()) for part in parts] for lead in range(2)]
        assert (errors > 0.97 * np.array(variance)).all()


def test_batches_of_any_size_give_the_same():
    whole = sample()
    parts = [Sample(*(t[i : i + 70] for t in whole if t is not None)) for i in range(0, 600, 70)]
    a, b = fit(train=[whole])["residual"], fit(train=parts)["residual"]
    for name, value in a.tensors().items():
        torch.testing.assert_close(b.tensors()[name], value, rtol=1e-4, atol=1e-6)


def test_area_weighs_the_choice_of_strength():
    """Of three readouts, each chosen for one token, the one of a token is the best there."""
    train, held = sample(40, noise=3.0), sample(200, seed=1, noise=3.0)
    asked = {"lead_steps": LEADS, "strengths": [1e-3, 0.1, 3.0, 100.0]}
    errors = np.zeros((3, 3, len(LEADS)))  # chosen for, at, lead
    for token in range(3):
        area = torch.nn.functional.one_hot(torch.tensor(token), 3).float()
        readouts = fit_readouts([train], [held], area=area, **asked)["residual"]
        for lead in range(len(LEADS)):
            read = readouts.read_fields(lead, held.latents[:, lead], held.initial)
            errors[token, :, lead] = (read - held.later[:, lead]).square().mean((0, 2))
    own = np.diagonal(errors, axis1=0, axis2=1).T
    assert (own <= errors.min(0) + 1e-6).all()
    assert (errors.max(0) > own + 1e-6).any()  # the area does make a difference


def test_fields_or_series_alone():
    whole = sample()
    begin, later = whole.initial_series[..., :0], whole.later_series[..., :0]
    fields = whole._replace(initial_series=begin, later_series=later)
    readouts = fit(train=[fields], validation=[fields])["residual"]
    assert (len(readouts.fields), len(readouts.series)) == (2, 0)
    series = whole._replace(initial=whole.initial[..., :0], later=whole.later[..., :0])
    readouts = fit(train=[series], validation=[series])["residual"]
    assert (len(readouts.fields), len(readouts.series)) == (0, 2)
    assert Readouts.from_tensors(readouts.tensors(), **COMMON).fields == ()


def test_round_trip_through_tensors():
    readouts = fit(scope="shared")["latent"]
    again = Readouts.from_tensors(
        readouts.tensors(), **COMMON | {"scope": "shared", "reads": "latents"}
    )
    held = sample(50, seed=3)
    np.testing.assert_array_equal(squared(again, held), squared(readouts, held))
    assert again.lead_steps == LEADS
    assert [r.strength for r in again.fields] == [r.strength for r in readouts.fields]


@pytest.mark.parametrize(("block", "name"), [("train", "training"), ("validation", "validation")])
def test_no_samples(block, name):
    blocks = {"train": [sample(9)], "validation": [sample(9)]} | {block: []}
    with pytest.raises(ValueError, match=f"no {name} windows"):
        fit_readouts(**blocks, lead_steps=LEADS, strengths=[1.0], area=AREA)
