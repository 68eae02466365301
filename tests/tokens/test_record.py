"""The record of tokens checks itself, and its views are what they say."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from sciwm.tokens.record import Known, Tokens

BATCH, TIME, TOKENS, FEATURES, CELLS = 3, 4, 5, 6, 2


def known(**more):
    torch.manual_seed(0)
    numbers = {
        "lead": torch.rand(BATCH, TIME),
        "times": {"calendar": torch.randn(BATCH, TIME, 2)},
        "tokens": {"sun": torch.randn(BATCH, TIME, TOKENS, 1)},
        "noise": torch.randn(BATCH, TIME, 7),
    }
    return Known(**numbers | more)


def tokens(**more):
    torch.manual_seed(0)
    numbers = {
        "features": torch.randn(BATCH, TIME, TOKENS, FEATURES),
        "cells": torch.randn(BATCH, TIME, TOKENS, CELLS),
        "known": known(),
        "valid": torch.rand(BATCH, TIME, TOKENS) > 0.2,
        "seen": torch.rand(BATCH, TIME, TOKENS, CELLS) > 0.2,
    }
    return Tokens(**numbers | more)


def parts(one):
    """Every tensor of a `Known`, by name."""
    return {"lead": one.lead, **one.times, **one.tokens, "noise": one.noise}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cells", torch.zeros(BATCH, TIME, TOKENS + 1, CELLS), r"expected \(3, 4, 5, 2\)"),
        ("valid", torch.ones(BATCH, TIME, dtype=torch.bool), r"expected \(3, 4, 5\)"),
        ("seen", torch.ones(BATCH, TIME, TOKENS, 3, dtype=torch.bool), r"expected \(3, 4, 5, 2\)"),
    ],
)
def test_shapes_that_disagree(name, value, message):
    with pytest.raises(ValueError, match=rf"got {name} of shape .*{message}, because features"):
        tokens(**{name: value})


def test_what_is_known_must_be_of_the_same_times():
    with pytest.raises(ValueError, match=r"got known.lead of shape \(3, 3\), expected \(3, 4\)"):
        tokens(known=known()[:3])
    for name, values in (
        ("calendar", {"times": {"calendar": torch.zeros(BATCH, TIME + 1, 2)}}),
        ("sun", {"tokens": {"sun": torch.zeros(BATCH + 1, TIME, TOKENS, 1)}}),
        ("noise", {"noise": torch.zeros(BATCH, 1, 7)}),
    ):
        with pytest.raises(ValueError, match=rf"got '{name}' of shape .*expected \(3, 4\) first"):
            known(**values)
    with pytest.raises(ValueError, match="'noise'"):
        known(noise=None).with_noise(torch.zeros(BATCH, TIME + 2, 7))


def test_masks_may_be_left_out():
    bare = tokens(valid=None, seen=None)
    assert len(bare) == BATCH
    assert bare.seen_cells().shape == bare.cells.shape
    assert bare.seen_cells().all()
    assert bare[1:].valid is None
    made = tokens()
    assert made.seen_cells() is made.seen
    with pytest.raises(FrozenInstanceError):
        made.valid = None


def test_hiding_takes_features_alone():
    made = tokens()
    hidden = torch.rand(BATCH, 2, TOKENS) > 0.5
    shown = made.hide(hidden)
    assert (shown.features[:, :2][hidden] == 0).all()
    assert torch.equal(shown.features[:, :2][~hidden], made.features[:, :2][~hidden])
    assert torch.equal(shown.features[:, 2:], made.features[:, 2:])
    assert shown.cells is made.cells
    assert shown.seen is made.seen
    assert shown.valid is made.valid
    assert shown.known is made.known
    assert made.features[:, :2][hidden].any()  # the one it came from is as it was


def test_some_of_the_times():
    made = tokens()
    some = made[1:3]
    for name in ("features", "cells", "valid", "seen"):
        assert torch.equal(getattr(some, name), getattr(made, name)[:, 1:3])
    for name, values in parts(made.known).items():
        assert torch.equal(parts(some.known)[name], values[:, 1:3])
    assert some.features.data_ptr() == made.features[:, 1:].data_ptr()  # a view


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda k: k.at(2), lambda x: x[:, 2]),
        (lambda k: k.at(-1), lambda x: x[:, 3]),
        (lambda k: k[:2], lambda x: x[:, :2]),
        (lambda k: k.repeat(2), lambda x: torch.cat([x, x])),
        (lambda k: k.interleave(2), lambda x: torch.stack([x, x], 1).flatten(0, 1)),
        (lambda k: k.flat(), lambda x: x.flatten(0, 1)),
        (lambda k: k.flat().alone(), lambda x: x.flatten(0, 1)[:, None]),
    ],
    ids=["at", "at the end", "some", "repeat", "interleave", "flat", "alone"],
)
def test_every_part_of_what_is_known_is_changed_alike(change, expected):
    made = known()
    changed = change(made)
    for name, values in parts(made).items():
        assert torch.equal(parts(changed)[name], expected(values)), name
    assert change(replace(made, noise=None)).noise is None


def test_noise_is_put_beside_what_is_known():
    made, noise = known(noise=None), torch.randn(BATCH, TIME, 3)
    with_noise = made.with_noise(noise)
    assert with_noise.noise is noise
    assert with_noise.times is made.times
    assert made.noise is None
