"""Every objective: its record, a training in miniature, and weights drawn at random."""

import copy
from dataclasses import fields

import pytest
import torch

from sciwm.config import Config, ConfigError, ModelConfig, ObjectiveConfig, load_config
from sciwm.model.dynamics import DYNAMICS
from sciwm.model.encoder import Whitened
from sciwm.model.jepa import Objective
from sciwm.model.mixing import MIXINGS, DistanceMixing
from sciwm.model.objectives import OBJECTIVES, TWINS, build_network, randomize
from sciwm.model.settings import Inputs, ObjectiveSettings, Sizes
from sciwm.model.whitening import Whitening
from sciwm.tokens.place import Distances, Place
from sciwm.train.fit import objective_of, sizes_of
from tests.networks import SIZES, globe, network, window

GRID = globe()


def choices(section, name):
    """What a configuration may say there."""
    return next(f.type for f in fields(section) if f.name == name).__args__


def test_configurations_know_every_name_and_no_other():
    assert {*choices(ObjectiveConfig, "kind")} == {*OBJECTIVES}
    assert {*choices(ModelConfig, "dynamics")} == {*DYNAMICS}
    for name in ("mixing", "encoder_mixing"):
        assert {*choices(ModelConfig, name)} == {*MIXINGS}
    for name in ("objective.kind", "model.mixing", "model.encoder_mixing", "model.dynamics"):
        with pytest.raises(ConfigError, match=rf"got {name} = 'else', expected"):
            load_config("", [f"--{name}=else"])


def test_what_is_configured_is_what_a_network_is_built_from():
    config = Config(
        model=ModelConfig(width=24, mixing="both", reach=3, history=4, noise_dim=2, dropout=0.2),
        objective=ObjectiveConfig(kind="vicreg", strength=3.0, rows=7, anchor=0.5),
    )
    sizes, settings = sizes_of(config), objective_of(config)
    for made, section in ((sizes, config.model), (settings, config.objective)):
        for each in fields(made):
            assert getattr(made, each.name) == getattr(section, each.name)
    # Their defaults are the same, too.
    assert sizes_of(Config()) == Sizes()
    assert objective_of(Config()) == ObjectiveSettings()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_record_says_what_is_minimised(name):
    record = OBJECTIVES[name]
    assert record.name == name
    settings = ObjectiveSettings(kind=name, strength=3.0, num_directions=17, ema_decay=0.9)
    words = record.describe(settings, predictions="2 predictions in a row")
    assert "{" not in words
    assert words.startswith("the squared error of")
    for number in ("17", "3", "0.9"):
        assert (number in words) == (f"{{{NAMED[number]}}}" in record.words)
    made = network(GRID, objective={"kind": name})
    assert isinstance(made.objective, Objective)
    assert made.objective.settings.kind == name


NAMED = {"17": "directions", "3": "strength", "0.9": "decay"}


def test_twins_are_those_that_compare_pixels():
    assert TWINS == ("supervised", "masked_autoencoder", "autoencoder", "convnet")
    assert {n for n, record in OBJECTIVES.items() if record.hides_states} == {"masked_autoencoder"}
    assert {record.method for record in OBJECTIVES.values()} == {"jepa", "whitened", *TWINS}


def trained(made, tokens, hidden, steps=30):
    """Losses over some steps on the same windows."""
    rate = 1e-3 if made.objective.settings.kind == "convnet" else 5e-3
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=rate)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        loss = made.loss(tokens, hidden)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        made.objective.moved(made)
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", OBJECTIVES)
def test_thirty_steps_lower_the_loss(name):
    torch.manual_seed(0)
    hides = OBJECTIVES[name].hides_states
    hidden = torch.rand(16, 4, GRID.num_tokens) < 0.5 if hides else None
    made = network(GRID, objective={"kind": name}, opened=False).train()
    before = copy.deepcopy(made)
    losses = trained(made, window(GRID, 16), hidden)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    own, old = made.state_dict(), before.state_dict()
    moved = {n for n in own if not torch.equal(own[n], old[n])}
    assert {n for n, p in made.named_parameters() if p.requires_grad} <= moved
    encoder = {n for n in own if n.startswith("encoder.")}
    assert bool(encoder & moved) == (name not in ("whitened", "convnet"))


def molecule():
    """What the tokens of a molecule look like."""
    torch.manual_seed(0)
    apart = torch.cdist(*[torch.randn(5, 3)] * 2)
    whitening = Whitening(torch.zeros(5, 5), torch.eye(5).expand(5, 5, 5).clone())
    return Inputs(Place(torch.eye(5), Distances(apart)), whitening, num_cells=5)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_random_weights_are_random_throughout(name, mixing):
    """Whatever they were: nothing of a whitening, of zeros or of a training stays."""
    kind = {"kind": name, "anchor": 0.5}
    mixings = {"mixing": mixing, "encoder_mixing": mixing}
    made = network(GRID, objective=kind, opened=False, tokens={"sun": 1}, **mixings)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(7.0)
    torch.manual_seed(0)
    randomize(made)
    for part, parameter in made.named_parameters():
        assert not (parameter == 7.0).any(), part
        if parameter.ndim > 1:
            assert parameter.std() > 0.01, part
    tokens = window(GRID, tokens={"sun": 1})
    start = made.encode(tokens[:2].features)
    later = made.predict(start, tokens.known)
    assert later.isfinite().all()
    if name != "masked_autoencoder":  # which has no dynamics
        assert (later[:, 0] - start[:, -1]).abs().mean() > 0.01


def test_weights_of_a_molecule_are_drawn_too():
    torch.manual_seed(1)
    made = build_network(molecule(), Sizes(**SIZES), ObjectiveSettings())
    drawn = [m for m in made.modules() if isinstance(m, DistanceMixing)]
    assert len(drawn) == 2
    before = copy.deepcopy(made)
    randomize(made)
    for one, other in zip(made.modules(), before.modules(), strict=True):
        if isinstance(one, DistanceMixing):
            assert not torch.equal(one.weight, other.weight)
        if isinstance(one, Whitened):
            assert not torch.equal(one.matrix, other.matrix)
