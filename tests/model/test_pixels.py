"""The pixel-trained twins: the parts of a JEPA, and what each learns from."""

from dataclasses import replace

import pytest
import torch

from sciwm.model.loss import pixel_error
from sciwm.model.objectives import TWINS
from tests.networks import globe, network, window

GRID = globe(channels=2)
CELLS, TOLD = GRID.num_cells, {"times": {"calendar": 4}}


def twin(kind, *, seed=0, **sizes):
    return network(GRID, objective={"kind": kind}, seed=seed, **TOLD, **sizes)


def hidden_states(batch=8, time=4, ratio=0.5):
    torch.manual_seed(3)
    return torch.rand(batch, time, GRID.num_tokens) < ratio


def hidden_for(kind, time=4):
    return hidden_states(time=time) if kind == "masked_autoencoder" else None


def with_cells(tokens, change, *, where=slice(None)):
    """The same tokens, but for the cells that a twin is to give."""
    cells = tokens.cells.clone()
    cells[where] += change
    return replace(tokens, cells=cells)


@pytest.mark.parametrize("kind", ["supervised", "autoencoder", "masked_autoencoder"])
def test_encoder_and_dynamics_are_those_of_the_jepa(kind):
    made, other = twin(kind, seed=3), twin("sigreg", seed=3)
    parts = ("encoder",) if kind == "masked_autoencoder" else ("encoder", "dynamics")
    for part in parts:
        own, theirs = (getattr(n, part).state_dict() for n in (made, other))
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[k], theirs[k]) for k in own)
    features = window(GRID).features
    assert torch.equal(made.encode(features), other.encode(features))
    for name in ("history", "noise_dim"):
        assert getattr(made, name) == getattr(other, name)


def test_pixel_error_by_hand():
    cells, seen = torch.randn(2, 3, 5, CELLS), torch.rand(2, 3, 5, CELLS) > 0.4
    predicted = torch.randn_like(cells)
    places = zip(*torch.nonzero(seen, as_tuple=True), strict=True)
    hand = sum(float((predicted - cells)[i] ** 2) for i in places) / int(seen.sum())
    assert float(pixel_error(predicted, cells, seen)) == pytest.approx(hand, rel=1e-5)
    cells[~seen] = torch.nan
    assert torch.isfinite(pixel_error(predicted, cells, seen))
    assert float(pixel_error(predicted, cells, torch.zeros_like(seen))) == 0.0


@pytest.mark.parametrize("kind", ["supervised", "convnet"])
def test_forecast_cells_count_by_their_area(kind):
    """The error is that of scores: cosines of latitude, in the mean over all that was observed."""
    made, tokens = twin(kind), window(GRID, missing=0.3, **TOLD)
    given = made.objective.head(made.predict(made.encode(tokens[:2].features), tokens.known))
    difference, seen = (
        GRID.fields(x) for x in (given - tokens.cells[:, 2:], tokens.seen_cells()[:, 2:].float())
    )
    weight = torch.deg2rad(GRID.latitude).cos().float()[:, None].expand(GRID.shape)
    weight = weight / weight.mean()
    by_hand = (difference.square() * weight * seen).sum() / seen.sum()
    torch.testing.assert_close(made.loss(tokens)["prediction"], by_hand.detach())


def test_hidden_tokens_do_not_reach_the_encoder_of_the_masked_autoencoder():
    made, tokens, hidden = twin("masked_autoencoder"), window(GRID, **TOLD), hidden_states()
    before = made.loss(tokens, hidden)["loss"]
    other = tokens.features.clone()
    other[hidden] = torch.nan
    assert torch.equal(made.loss(replace(tokens, features=other), hidden)["loss"], before)
    # Only the hidden ones are asked for, of every state on its own.
    assert torch.equal(made.loss(with_cells(tokens, 100, where=~hidden), hidden)["loss"], before)
    for time in range(4):
        asked = torch.zeros_like(hidden)
        asked[:, time] = hidden[:, time]
        changed = made.loss(with_cells(tokens, 1, where=asked), hidden)["loss"]
        assert not torch.equal(changed, before)


def test_a_masked_autoencoder_needs_hidden_tokens_of_every_state():
    made, tokens = twin("masked_autoencoder"), window(GRID, **TOLD)
    for hidden in (None, hidden_states(time=2)):
        with pytest.raises(ValueError, match="got no hidden tokens of some states"):
            made.loss(tokens, hidden)


def test_a_masked_autoencoder_knows_nothing_of_time():
    """Its context is given as it is; leads change nothing in what it fills in."""
    made, tokens, hidden = twin("masked_autoencoder"), window(GRID, **TOLD), hidden_states()
    start = made.encode(tokens[:2].features)
    for latents in made.rollout(start, tokens.known):
        assert torch.equal(latents, torch.cat([start[:, 0], start[:, 1]], dim=-1))
    assert made.objective.head is None  # it forecasts no pixels
    later = replace(tokens, known=replace(tokens.known, lead=tokens.known.lead + 3))
    assert torch.equal(made.loss(later, hidden)["loss"], made.loss(tokens, hidden)["loss"])


def test_what_each_kind_learns_from():
    """The forecaster from all later states, the autoencoder from the context and the next one."""
    tokens = window(GRID, time=5, **TOLD)
    for kind, reached in (
        ("supervised", [2, 3, 4]),
        ("convnet", [2, 3, 4]),
        ("autoencoder", [0, 1, 2]),
    ):
        made = twin(kind)
        before = made.loss(tokens)
        for time in range(5):
            after = made.loss(with_cells(tokens, 1, where=(slice(None), time)))
            assert (not torch.equal(after["loss"], before["loss"])) == (time in reached)
        parts = before["prediction"] + before["regularizer"]
        torch.testing.assert_close(before["loss"].detach(), parts)
        assert (float(before["regularizer"]) > 0) == (kind == "autoencoder")


@pytest.mark.parametrize("kind", ["supervised", "autoencoder"])
def test_hidden_tokens_of_the_context_are_not_seen(kind):
    made, tokens, hidden = twin(kind), window(GRID, **TOLD), hidden_states(time=2)
    before = made.loss(tokens, hidden)["loss"]
    other = tokens.features.clone()
    other[:, :2][hidden] = torch.nan
    assert torch.equal(made.loss(replace(tokens, features=other), hidden)["loss"], before)


def test_an_autoencoder_does_not_reconstruct_what_it_did_not_see():
    made, tokens, hidden = twin("autoencoder"), window(GRID, **TOLD), hidden_states(time=2)
    before = made.loss(tokens, hidden)["loss"]
    everywhere = torch.zeros(8, 4, GRID.num_tokens, dtype=torch.bool)
    everywhere[:, :2] = hidden
    assert torch.equal(made.loss(with_cells(tokens, 10, where=everywhere), hidden)["loss"], before)


@pytest.mark.parametrize("kind", TWINS)
def test_cells_that_were_not_observed_count_for_nothing(kind):
    made, tokens, hidden = twin(kind), window(GRID, missing=0.5, **TOLD), hidden_for(kind)
    before = made.loss(tokens, hidden)
    unseen = with_cells(tokens, 100, where=~tokens.seen)
    after = made.loss(unseen, hidden)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_forecaster_recovers_a_map_between_neighbours():
    """The next state is the last one, a column further: the error falls to a few percent."""
    grid = globe((2, 8), (1, 1))
    made = network(grid, objective={"kind": "supervised"}, history=1, predictor_blocks=2)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for step in range(150):
        torch.manual_seed(step)
        now = torch.randn(32, 1, 1, 2, 8)
        values = torch.cat([now, now.roll(1, -1)], dim=1)
        features, cells, some, seen = grid.tokenize(values)
        tokens = replace(window(grid, 32, 2), features=features, cells=cells, valid=some, seen=seen)
        loss = made.loss(tokens)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
