"""How far tokens hear: their neighbours exactly, all of them, or those near by."""

import pytest
import torch

from sciwm.model.mixing import MIXINGS, Attention, Block, DistanceMixing, LatticeMixing
from sciwm.model.settings import Sizes
from sciwm.tokens.place import Distances, Lattice, Place

WIDTH = 8
LATTICES = [
    Lattice(5, 8),
    Lattice(5, 8, (False, True)),
    Lattice(5, 8, (True, True)),
    Lattice(4, 8, (False, True), (True, True)),
]


def heard(mix, count, width=WIDTH):
    """Which tokens each token hears: ``[token, told]``, by what a change of one token changes."""
    torch.manual_seed(1)
    x = torch.randn(1, count, width)
    told = x.repeat(count, 1, 1)
    told[torch.arange(count), torch.arange(count)] += torch.randn(width)
    with torch.no_grad():
        apart = (mix(told) - mix(x)).abs().amax(-1)
    return apart.T > 1e-6


@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize("lattice", LATTICES, ids=["edges", "channel", "torus", "globe"])
def test_local_mixing_hears_exactly_the_neighbours_within_reach(lattice, reach):
    torch.manual_seed(0)
    mix = LatticeMixing(lattice, WIDTH, reach)
    count, around, side = lattice.rows * lattice.columns, lattice.around(reach), 2 * reach + 1
    expected = torch.zeros(count, count, dtype=torch.bool)
    for row in range(lattice.rows):
        for column in range(lattice.columns):
            near = around[row : row + side, column : column + side].flatten()
            expected[row * lattice.columns + column, near] = True
    assert torch.equal(heard(mix, count), expected)
    assert not expected.all()


def test_local_mixing_is_a_convolution_channel_by_channel():
    torch.manual_seed(0)
    mix, x = LatticeMixing(Lattice(4, 5, (True, True)), WIDTH, 1), torch.randn(3, 20, WIDTH)
    fields = torch.nn.functional.pad(x.transpose(1, 2).view(3, WIDTH, 4, 5), (1,) * 4, "circular")
    weight, bias = mix.convolution.weight, mix.convolution.bias
    by_hand = torch.nn.functional.conv2d(fields, weight, bias, groups=WIDTH)
    torch.testing.assert_close(mix(x), by_hand.flatten(2).transpose(1, 2))


def points(count=7, seed=0):
    torch.manual_seed(seed)
    return torch.randn(count, 3)


def test_mixing_by_distance_does_not_depend_on_the_order_of_tokens():
    place, order = points(), torch.randperm(7)
    one = DistanceMixing(Distances(torch.cdist(place, place)), WIDTH)
    other = DistanceMixing(Distances(torch.cdist(place[order], place[order])), WIDTH)
    other.load_state_dict(one.state_dict())
    x = torch.randn(4, 7, WIDTH)
    torch.testing.assert_close(other(x[:, order]), one(x)[:, order])
    assert heard(one, 7).all()


def test_what_is_near_counts_differently_from_what_is_far():
    """With one weight alone, a token hears mostly what is as far away as that ring."""
    place = torch.arange(8.0)[:, None]
    mix = DistanceMixing(Distances(torch.cdist(place, place)), 1)
    with torch.no_grad():
        mix.weight.zero_()
        mix.weight[1] = 1  # the nearest ring
    x = torch.zeros(2, 8, 1)
    x[0, 1], x[1, 7] = 1, 1  # next to the first token, and far from it
    near, far = mix(x)[:, 0, 0].tolist()
    assert near > 5 * far
    with torch.no_grad():
        mix.weight.zero_()
        mix.weight[-1] = 1
    near, far = mix(x)[:, 0, 0].tolist()
    assert far > 5 * near


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_tokens_have_distances_too(count):
    mix = DistanceMixing(Distances(torch.cdist(points(count), points(count))), WIDTH)
    assert mix(torch.randn(3, count, WIDTH)).isfinite().all()


def test_attention_is_global_and_keeps_what_a_token_was():
    torch.manual_seed(0)
    mix = Attention(WIDTH, num_heads=2)
    assert heard(mix, 9).all()
    with torch.no_grad():
        mix.out.weight.zero_()
        mix.out.bias.zero_()
    x = torch.randn(2, 9, WIDTH)
    assert torch.equal(mix(x), x)


def test_attention_against_softmax_written_out():
    torch.manual_seed(0)
    attention, tokens = Attention(8, num_heads=2), torch.randn(3, 5, 8)
    query, key, value = attention.project(attention.norm(tokens)).chunk(3, dim=-1)
    mixed = []
    for head in (slice(0, 4), slice(4, 8)):
        score = query[..., head] @ key[..., head].transpose(1, 2) / 2
        mixed.append(score.softmax(-1) @ value[..., head])
    by_hand = tokens + attention.out(torch.cat(mixed, dim=-1))
    torch.testing.assert_close(attention(tokens), by_hand)


def test_attention_is_the_same_under_autocast_on_a_cpu():
    torch.manual_seed(0)
    attention, tokens = Attention(8, num_heads=2), torch.randn(2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(tokens)
    torch.testing.assert_close(out.float(), attention(tokens), atol=3e-2, rtol=3e-2)


NEAR = {"lattice": Lattice(5, 6), "distances": Distances(torch.cdist(points(30), points(30)))}


@pytest.mark.parametrize("near", NEAR)
@pytest.mark.parametrize("name", MIXINGS)
def test_every_mixing_by_name(name, near):
    place = Place(torch.randn(30, 2), NEAR[near])
    mix = MIXINGS[name](place, Sizes(reach=1, num_heads=2), WIDTH)
    x = torch.randn(3, 30, WIDTH, requires_grad=True)
    out = mix(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert x.grad.abs().amin(-1).min() > 0
    assert all(p.grad.abs().max() > 0 for p in mix.parameters())
    told = heard(mix, 30)
    alone, everyone = torch.eye(30, dtype=torch.bool), torch.ones(30, 30, dtype=torch.bool)
    expected = {"none": alone, "global": everyone, "both": everyone}
    if near == "distances":
        expected["local"] = everyone
    assert torch.equal(told, expected.get(name, told))
    assert told[alone].all()
    assert name != "local" or near == "distances" or 30 * 6 < told.sum() < 30 * 10


@pytest.mark.parametrize("name", ["local", "both"])
def test_tokens_without_neighbours_cannot_be_mixed_locally(name):
    place = Place(torch.randn(4, 2))
    message = r"got model.mixing = .* for tokens without neighbours, expected 'global'"
    with pytest.raises(ValueError, match=message):
        MIXINGS[name](place, Sizes(), WIDTH)
    assert heard(MIXINGS["global"](place, Sizes(num_heads=2), WIDTH), 4).all()


@pytest.mark.parametrize("name", MIXINGS)
@pytest.mark.parametrize("condition_dim", [0, 5])
def test_a_block_starts_as_the_identity(name, condition_dim):
    place = Place(torch.randn(30, 2), NEAR["lattice"])
    sizes = Sizes(reach=1, num_heads=2, dropout=0.5)
    block = Block(place, sizes, WIDTH, name, condition_dim).train()
    x = torch.randn(3, 30, WIDTH)
    for condition in (torch.zeros(3, condition_dim), 100 * torch.randn(3, condition_dim)):
        assert torch.equal(block(x, condition if condition_dim else None), x)


def test_a_condition_shifts_and_scales_what_a_block_adds():
    place, sizes = Place(torch.randn(30, 2), NEAR["lattice"]), Sizes(reach=1)
    torch.manual_seed(0)
    block = Block(place, sizes, WIDTH, "local", condition_dim=2)
    torch.nn.init.normal_(block.down.weight)
    x, told = torch.randn(2, 30, WIDTH), torch.randn(2, 2)
    y = block.norm(block.mix(x))
    scale, shift = block.modulate(told)[:, None].chunk(2, dim=-1)
    hidden = torch.nn.functional.gelu(block.up(y * (1 + scale) + shift))
    torch.testing.assert_close(block(x, told), x + block.down(hidden))
