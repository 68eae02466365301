"""Steps of one training that take the processor time of another."""

import pytest
import torch

from sciwm import testing
from sciwm.train import pace
from sciwm.train.windows import epoch_of
from tests.worlds import config, store

COSTS = {"sigreg": 1.0, "convnet": 0.25, "supervised": 90.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("climate")
    return store(testing.small_climate(years=1), folder, climatology="constant")


def costing(monkeypatch, order):
    """Let steps take what they are said to, but for the first of each, which warms up."""

    class Steps:
        def __init__(self, config, store, batch):
            self.kind, self.taken = config.objective.kind, 0

        def take(self):
            order.append(self.kind)
            self.taken += 1
            return COSTS[self.kind] if self.taken > 1 else 1000.0

    monkeypatch.setattr(pace, "_Steps", Steps)


def test_a_cheaper_method_gets_more_steps_and_a_costly_one_fewer(path, monkeypatch):
    order = []
    costing(monkeypatch, order)
    own = config(train={"steps": 20})
    steps = {}
    for kind in COSTS:
        steps[kind] = pace.equal_steps(own, config(objective={"kind": kind}), path)
    assert steps == {"sigreg": 20, "convnet": 80, "supervised": 1}
    assert order[10:20] == ["sigreg", "convnet"] * 5  # in turn


def test_real_steps_are_timed_and_leave_random_numbers_as_they_were(path):
    before = torch.get_rng_state()
    steps = pace.equal_steps(config(), config(objective={"kind": "convnet"}), path)
    assert torch.equal(torch.get_rng_state(), before)
    assert 1 <= steps < 12  # a step of the convolutional network costs more than one of these


def test_a_step_is_timed_with_as_many_predictions_as_it_makes(path):
    long, short = (config(objective={"rollout": n}) for n in (4, 2))
    batch = next(iter(epoch_of(path, long, "train")))
    times = [pace._Steps(each, path, batch).batch.values.shape[1] for each in (long, short)]
    assert times == [long.model.history + 4, short.model.history + 2]
