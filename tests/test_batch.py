"""Batches check themselves and travel whole."""

from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch

from sciwm.batch import Batch


def batch(state=(2, 3, 4), *, condition=5):
    shape = (6, 3, *state)
    return Batch(
        values=torch.randn(shape),
        valid=torch.rand(shape) > 0.1,
        time=torch.arange(18, dtype=torch.float64).reshape(6, 3),
        index=torch.arange(18).reshape(6, 3),
        lead_steps=torch.ones(6, dtype=torch.int64),
        condition=torch.randn(6, 3, condition),
    )


@pytest.mark.parametrize("state", [(2, 3, 4), (5, 3)])
def test_well_formed(state):
    made = batch(state, condition=0)
    assert len(made) == 6
    with pytest.raises(FrozenInstanceError):
        made.values = made.values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("valid", torch.ones(6, 3, 2, 3, dtype=torch.bool)),
        ("time", torch.zeros(6, 2)),
        ("index", torch.zeros(5, 3, dtype=torch.int64)),
        ("lead_steps", torch.ones(6, 1, dtype=torch.int64)),
        ("condition", torch.zeros(6, 2, 5)),
    ],
)
def test_shapes_that_disagree(name, value):
    with pytest.raises(
        ValueError, match=rf"got {name} of shape .*because values has \(6, 3, 2, 3, 4\)"
    ):
        replace(batch(), **{name: value})


def test_values_without_a_state():
    with pytest.raises(ValueError, match=r"values of shape \(6, 3\)"):
        replace(batch(), values=torch.zeros(6, 3))


def test_valid_must_be_boolean():
    with pytest.raises(ValueError, match=r"type torch.float32, expected torch.bool"):
        replace(batch(), valid=torch.ones(6, 3, 2, 3, 4))


def test_head_has_the_first_states_of_every_window():
    made = batch()
    head = made.head(2)
    assert head.values.shape == (6, 2, 2, 3, 4)
    for name in ("values", "valid", "time", "index", "condition"):
        assert torch.equal(getattr(head, name), getattr(made, name)[:, :2]), name
    assert torch.equal(head.lead_steps, made.lead_steps)
    assert head.values.data_ptr() == made.values.data_ptr()
    assert made.head(3) is made


def test_leads_are_the_steps_since_the_state_before():
    index = torch.tensor([[4, 8, 10], [20, 21, 22]])
    made = replace(batch(), **{f.name: getattr(batch(), f.name)[:2] for f in fields(Batch)})
    lead = replace(made, index=index).lead
    assert lead.dtype == torch.float32
    assert lead.tolist() == [[0, 4, 2], [0, 1, 1]]


def test_complete_where_every_value_was_observed():
    made = batch()
    whole = torch.ones_like(made.valid)
    assert not made.complete
    assert replace(made, valid=whole).complete
    # One byte may stand for all.
    assert replace(made, valid=torch.ones((), dtype=torch.bool).expand(whole.shape)).complete
    whole[3, 1, 0, 2, 1] = False
    assert not replace(made, valid=whole).complete


def test_to_another_device():
    moved = batch().to("meta")
    assert all(getattr(moved, f.name).device.type == "meta" for f in fields(moved))
    assert moved.values.shape == (6, 3, 2, 3, 4)
    same = batch()
    stayed = same.to("cpu", non_blocking=True)
    assert all(torch.equal(getattr(stayed, f.name), getattr(same, f.name)) for f in fields(same))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pages are locked for a GPU")
def test_pinned():
    pinned = batch().pin_memory()
    assert all(getattr(pinned, f.name).is_pinned() for f in fields(pinned))
