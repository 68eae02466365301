"""Two processes that share a batch train as one process with the whole batch does."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sciwm.model.ranks import first_rank_of, num_ranks, sum_over_ranks, total_over_ranks
from sciwm.tokens.record import Known, Tokens
from tests.networks import network, plane
from tests.two_ranks import run_on_two_ranks

STEPS, BATCH = 20, 24
GRID = plane()


class Loss(nn.Module):
    """What DistributedDataParallel calls: the loss is the forward pass."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, features, valid):
        lead = features.new_ones(features.shape[:2])
        cells, seen = features[..., : GRID.num_cells], None
        if valid is not None:
            seen = valid[..., None].expand_as(cells)
        return self.network.loss(Tokens(features, cells, Known(lead), valid, seen))


def network_of(kind, anchor):
    """Every sample is drawn on: two ranks would draw other rows than one."""
    return network(GRID, objective={"kind": kind, "anchor": anchor, "rows": 0}, seed=3).train()


def batches(missing):
    rng = torch.Generator().manual_seed(1)
    shape = BATCH, 4, GRID.num_tokens
    for _ in range(STEPS):
        values = torch.randn(*shape, GRID.num_features, generator=rng).cumsum(1)
        valid = None
        if missing:
            valid = torch.rand(*shape, generator=rng) > 0.3
            valid[: BATCH // 2, 3] = False  # the first rank has nothing at all at this time
        yield values, valid


def losses(rank, kind, missing, anchor, world_size=2):
    jepa = network_of(kind, anchor)
    loss = Loss(jepa) if world_size == 1 else DistributedDataParallel(Loss(jepa))
    optimizer = torch.optim.AdamW(jepa.parameters(), lr=1e-3)
    part = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    out = []
    for step, (values, valid) in enumerate(batches(missing)):
        # Directions must be those of the first rank all the same.
        torch.manual_seed(step + 1000 * rank)
        found = loss(values[part], None if valid is None else valid[part])
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        jepa.objective.moved(jepa)
        out.append(float(found["loss"].detach()))
    return out, {n: p.detach().clone() for n, p in jepa.named_parameters()}


CASES = [(kind, missing, 0.0) for kind in ("sigreg", "ema", "vicreg") for missing in (False, True)]
CASES += [("sigreg", missing, 0.5) for missing in (False, True)]
CASES += [("supervised", True, 0.0)]


def sums(rank):
    part = torch.tensor([1.0, 2.0]) * (rank + 1)
    part.requires_grad_()
    total = sum_over_ranks(part)
    (total**2).sum().backward()
    shared = first_rank_of(torch.full((2,), float(rank)))
    return (
        total.tolist(),
        part.grad.tolist(),
        total_over_ranks(rank + 1),
        num_ranks(),
        shared.tolist(),
    )


def all_cases(rank):
    """Everything at once, because two processes take longer to start than what they do here."""
    return {case: losses(rank, *case) for case in CASES} | {"sums": sums(rank)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_on_two_ranks(all_cases, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case[0]}-{'missing' if case[1] else 'complete'}-{case[2]:g}"
)
def test_two_ranks_have_the_loss_curve_of_one(ranks, case):
    whole, _ = losses(0, *case, world_size=1)
    (first, mine), (second, other) = (rank[case] for rank in ranks)
    mean = (torch.tensor(first) + torch.tensor(second)) / 2
    torch.testing.assert_close(mean, torch.tensor(whole), rtol=1e-5, atol=1e-5)
    assert whole[-1] < (0.99 if case[0] == "ema" else 0.9) * whole[0]
    for name in mine:
        torch.testing.assert_close(mine[name], other[name], rtol=0, atol=0)


def test_sums_and_their_gradients(ranks):
    for total, gradient, count, number, shared in (rank["sums"] for rank in ranks):
        assert (total, count, number, shared) == ([3.0, 6.0], 3, 2, [0.0, 0.0])
        assert gradient == [12.0, 24.0]  # 2 · total, from the loss of each rank
    assert num_ranks() == 1
    assert total_over_ranks(5) == 5
    part = torch.ones(2)
    assert sum_over_ranks(part) is part
