"""Distance rows: the same wherever the molecule is and however it is turned."""

import dask.array as da
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciwm import testing
from sciwm.tokens.molecule import MoleculeTokenizer, fit_distances
from sciwm.tokens.place import Distances


def frames(count=300):
    return testing.double_well(num_trajectories=1, num_frames=count, seed=1).positions.values


def rotation(seed):
    matrix, upper = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    matrix *= np.sign(np.diag(upper))
    matrix[:, 0] *= np.sign(np.linalg.det(matrix))
    return matrix


POSITIONS = frames()
TOKENIZER = MoleculeTokenizer(
    **dict(zip(("mean", "spread"), fit_distances(POSITIONS), strict=True))
)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.tuples(*[st.floats(-3, 3)] * 3))
def test_invariant_to_rotation_and_translation(seed, shift):
    moved = POSITIONS[:20].astype(float) @ rotation(seed).T + np.array(shift)
    before, after = (
        TOKENIZER.tokenize(torch.from_numpy(x), None)[0]
        for x in (POSITIONS[:20].astype(float), moved)
    )
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_standardized_on_training_frames():
    features, cells, valid, seen = TOKENIZER.tokenize(torch.from_numpy(POSITIONS), None)
    assert features.shape == (300, 5, 5)
    assert cells is features
    assert valid is seen is None
    off = ~torch.eye(5, dtype=torch.bool)
    mean, spread = features.mean(0)[off], features.std(0)[off]
    assert mean.abs().max() < 1e-3
    floored = torch.from_numpy(fit_distances(POSITIONS)[1])[off] <= 1e-3
    torch.testing.assert_close(
        spread[~floored], torch.ones(int((~floored).sum())), atol=1e-2, rtol=0
    )
    assert features.diagonal(dim1=1, dim2=2).abs().max() < 1e-2


def test_distances_against_numpy():
    mean, spread = fit_distances(POSITIONS)
    distance = np.linalg.norm(POSITIONS[:, :, None].astype(float) - POSITIONS[:, None], axis=-1)
    np.testing.assert_allclose(mean, distance.mean(0), atol=1e-5)
    np.testing.assert_allclose(spread, np.maximum(distance.std(0), 1e-3), atol=1e-6)


def test_chunked_equals_whole():
    whole = fit_distances(POSITIONS)
    for block, source in (
        (7, POSITIONS),
        (100, da.from_array(POSITIONS, chunks=(33, 5, 3))),
        (300, POSITIONS),
    ):
        for a, b in zip(fit_distances(source, block=block), whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_rigid_bond_is_floored():
    rigid = np.repeat(POSITIONS[:1], 50, axis=0)
    assert (fit_distances(rigid)[1] == 1e-3).all()


def test_missing_positions_are_refused_by_frame():
    broken = POSITIONS.copy()
    broken[123, 2, 1] = np.nan
    with pytest.raises(ValueError, match="frame 123"):
        fit_distances(broken, block=50)


def test_gradient_at_coinciding_atoms_is_finite():
    values = torch.zeros(1, 5, 3, requires_grad=True)
    TOKENIZER.tokenize(values, None)[0].sum().backward()
    assert torch.isfinite(values.grad).all()


def test_an_atom_without_a_position_is_invalid():
    valid = torch.ones(2, 5, 3, dtype=torch.bool)
    valid[1, 3, 0] = False
    assert TOKENIZER.tokenize(torch.zeros(2, 5, 3), valid)[2].tolist() == [
        [True] * 5,
        [True, True, True, False, True],
    ]


def test_neighbours_are_told_apart_by_mean_distances():
    near = TOKENIZER.place.neighbours
    assert isinstance(near, Distances)
    distance = np.linalg.norm(POSITIONS[:, :, None].astype(float) - POSITIONS[:, None], axis=-1)
    np.testing.assert_allclose(near.mean, distance.mean(0), atol=1e-5)
    assert TOKENIZER.place.cells is None


def test_a_molecule_has_no_fields():
    assert TOKENIZER.num_outputs == TOKENIZER.outputs(torch.from_numpy(POSITIONS)).shape[-1] == 0
    with pytest.raises(ValueError, match="a molecule has no fields"):
        TOKENIZER.fields(torch.zeros(3, 5, 4))
