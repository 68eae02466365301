"""The profile of a step adds up."""

import pytest
import torch

from sciwm import testing
from sciwm.train.fit import build_world
from sciwm.train.flops import step_flops
from sciwm.train.profile import Profile, matmul_rate, profile_training
from tests.worlds import config, store


def test_shares_follow_from_what_was_measured():
    device = "cpu, 1 thread(s)"
    found = Profile(flops=6_000_000_000, seconds=0.2, waiting=0.001, peak=60e9, device=device)
    assert found.utilization == pytest.approx(0.5)
    took, share = str(found).split("; ")
    assert took == "6 GFLOP in 200 ms, and 1.0 ms for the next batch"
    assert share == f"30 GFLOP/s, 50% of the 60 GFLOP/s of one large matrix product on {device}"


def test_the_steps_are_those_of_the_training(tmp_path):
    path = store(testing.small_climate(years=1), tmp_path, climatology="constant")
    world = build_world(config(), path)
    before = {k: v.clone() for k, v in world.network.state_dict().items()}
    found = profile_training(world, path, config())
    assert found.flops == step_flops(build_world(config(), path), path, config())
    # A step is never faster than one large product, but for the noise of a busy machine.
    assert 0 < found.utilization < 1.5
    assert 0 <= found.waiting < 10
    assert any(not torch.equal(v, before[k]) for k, v in world.network.state_dict().items())


def test_a_matrix_product_has_a_rate():
    assert 1e8 < matmul_rate(torch.device("cpu"), torch.float32) < 1e14
