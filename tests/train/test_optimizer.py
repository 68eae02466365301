"""Muon and AdamW as one optimiser: equal to plain versions of both, and resumed bit for bit."""

import copy

import lightning as L
import pytest
import torch
from torch.nn import Parameter

from sciwm.config import TrainConfig
from sciwm.train.optimizer import Muon, make_optimizer, orthogonalize
from sciwm.train.quiet import quiet_lightning

SHAPES = [(24, 48), (48, 24), (24, 48), (24, 24), (48, 24), (5, 24), (24, 48)]


def random_parameters(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [Parameter(torch.randn(s, generator=generator)) for s in shapes]


def give_gradients(*sets, seed, scale=1.0):
    """The same random gradients to every set of parameters."""
    generator = torch.Generator().manual_seed(seed)
    for same in zip(*sets, strict=True):
        grad = scale * torch.randn(same[0].shape, generator=generator)
        for p in same:
            p.grad = grad.to(p.dtype, copy=True)


def muon(params, lr=0.02, weight_decay=0.1):
    return Muon([{"params": params, "lr": lr, "weight_decay": weight_decay, "kind": "muon"}])


class PlainMuon:
    """One matrix after the other, as one would write it first."""

    def __init__(self, params, lr, weight_decay):
        self.params, self.lr, self.weight_decay = params, lr, weight_decay
        self.momenta = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def step(self):
        for p, momentum in zip(self.params, self.momenta, strict=True):
            momentum.lerp_(p.grad, 0.05)
            x = p.grad.lerp(momentum, 0.95)
            x = x / (x.norm() + 1e-7)
            tall = x.shape[0] > x.shape[1]
            x = x.T if tall else x
            for _ in range(5):
                g = x @ x.T
                x = 3.4445 * x + (-4.7750 * g + 2.0315 * g @ g) @ x
            x = x.T if tall else x
            p.mul_(1 - self.lr * self.weight_decay)
            p.add_(x, alpha=-self.lr * max(1, p.shape[0] / p.shape[1]) ** 0.5)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_equals_a_plain_muon(weight_decay):
    ours, theirs = random_parameters(SHAPES), random_parameters(SHAPES)
    one, other = muon(ours, 0.02, weight_decay), PlainMuon(theirs, 0.02, weight_decay)
    for step in range(6):
        give_gradients(ours, theirs, seed=step)
        one.step()
        other.step()
    for a, b, start in zip(ours, theirs, random_parameters(SHAPES), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        assert (a - start).norm() > 0.1


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="came with torch 2.9")
def test_it_equals_the_muon_of_torch_within_bfloat16():
    ours, theirs = random_parameters(SHAPES), random_parameters(SHAPES)
    one, other = muon(ours), torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    for step in range(4):
        give_gradients(ours, theirs, seed=step)
        one.step()
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=4e-3)


@pytest.mark.parametrize(("rows", "columns"), [(24, 48), (48, 24), (32, 32), (1, 7)])
def test_a_batch_equals_its_matrices_one_by_one(rows, columns):
    x = torch.randn(5, rows, columns, generator=torch.Generator().manual_seed(0))
    each = torch.cat([orthogonalize(m[None]) for m in x])
    torch.testing.assert_close(orthogonalize(x), each, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-2)


@pytest.mark.parametrize(("rows", "columns"), [(48, 96), (96, 48), (20, 200), (1, 9)])
def test_an_update_is_nearly_orthogonal_and_keeps_the_axes(rows, columns):
    x = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(1))
    found = orthogonalize(x)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    # In the axes of the gradient, only the diagonal is left.
    inside = u.mT @ found @ vh.mT
    diagonal = torch.diag_embed(inside.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(inside, diagonal, rtol=0.0, atol=1e-4)


def test_a_zero_matrix_stays_zero():
    assert not orthogonalize(torch.zeros(2, 3, 4)).any()


def test_the_scale_of_the_gradient_does_not_matter_to_muon():
    moved = []
    for scale in (1e-2, 1.0, 1e4):
        params = random_parameters(SHAPES)
        optimizer = muon(params)
        for step in range(3):
            give_gradients(params, seed=step, scale=scale)
            optimizer.step()
        moved.append([p.detach() for p in params])
    for small, one, large in zip(*moved, strict=True):
        torch.testing.assert_close(small, one, rtol=0.0, atol=2e-6)
        torch.testing.assert_close(large, one, rtol=0.0, atol=2e-6)


def test_matrices_in_bfloat16_move_like_those_in_float32():
    single = random_parameters(SHAPES)
    half = [Parameter(p.detach().bfloat16()) for p in single]
    for params, optimizer in ((single, muon(single)), (half, muon(half))):
        give_gradients(params, seed=0)
        optimizer.step()
    for a, b in zip(single, half, strict=True):
        assert b.dtype == torch.bfloat16
        # Eight bits of numbers up to 4.
        torch.testing.assert_close(a, b.float(), rtol=1e-2, atol=2e-2)


def test_tall_matrices_move_further():
    """Root mean square of an update: 1/√columns of a wide one, as much for a tall one."""
    for shape in [(16, 64), (64, 16)]:
        (p,) = random_parameters([shape])
        before = p.detach().clone()
        give_gradients([p], seed=0)
        muon([p], lr=1.0, weight_decay=0.0).step()
        size = (p.detach() - before).square().mean().sqrt() * shape[1] ** 0.5
        assert size == pytest.approx(1.0, abs=0.25)


MIXED = [(24, 48), (7,), (48, 24), (3, 1, 5, 5), (), (6, 2)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_the_other_part_equals_adamw(weight_decay):
    ours, theirs = random_parameters(MIXED), random_parameters(MIXED)
    group = {"params": ours, "lr": 0.01, "weight_decay": weight_decay, "kind": "adamw"}
    one = Muon([group])
    other = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.95), weight_decay=weight_decay)
    for step in range(6):
        give_gradients(ours, theirs, seed=step)
        # One that goes without a gradient once has seen one step less.
        if step == 2:
            ours[1].grad = theirs[1].grad = None
        one.step()
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def both(params):
    """Matrices to Muon, everything else to AdamW, as `make_optimizer` does it."""
    hidden = [p for p in params if p.ndim == 2]
    rest = [p for p in params if p.ndim != 2]
    return make_optimizer(hidden, [], rest, settings=TrainConfig())


def test_parameters_without_a_gradient_stay_with_their_averages():
    params = random_parameters(MIXED)
    optimizer = both(params)
    for step in range(2):
        give_gradients(params, seed=step)
        optimizer.step()
    before, state = copy.deepcopy(params), copy.deepcopy(optimizer.state_dict())
    for p in params:
        p.grad = None
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert_same_state(optimizer.state_dict(), state)
    # Only the first matrix: its neighbours of equal kind keep still.
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    same = [torch.equal(p, q) for p, q in zip(params, before, strict=True)]
    assert same == [False, *[True] * (len(params) - 1)]


def assert_same_state(found, expected):
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for key, entries in expected["state"].items():
        assert found["state"][key].keys() == entries.keys()
        assert all(torch.equal(found["state"][key][name], v) for name, v in entries.items())


def test_a_resumed_optimiser_goes_on_bit_for_bit(tmp_path):
    def schedule(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    def advance(params, optimizer, scheduler, steps):
        for step in steps:
            give_gradients(params, seed=step)
            optimizer.step()
            scheduler.step()

    unbroken, broken = random_parameters(MIXED), random_parameters(MIXED)
    one, other = both(unbroken), both(broken)
    clock, until = schedule(one), schedule(other)
    advance(unbroken, one, clock, range(8))
    advance(broken, other, until, range(3))
    saved = {"params": broken, "optimizer": other.state_dict(), "clock": until.state_dict()}
    torch.save(saved, tmp_path / "checkpoint.pt")
    loaded = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed = [Parameter(p.detach().clone()) for p in loaded["params"]]
    again = both(resumed)
    late = schedule(again)
    again.load_state_dict(loaded["optimizer"])
    late.load_state_dict(loaded["clock"])
    assert_same_state(again.state_dict(), other.state_dict())
    advance(resumed, again, late, range(3, 8))
    assert all(torch.equal(p, q) for p, q in zip(resumed, unbroken, strict=True))
    assert_same_state(again.state_dict(), one.state_dict())


def test_one_schedule_moves_the_rates_of_both_kinds():
    optimizer = both(random_parameters(MIXED))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.001]


class Regression(L.LightningModule):
    """A small network, with the optimiser of the configuration and one schedule."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.GELU(), torch.nn.Linear(16, 16), torch.nn.Linear(16, 1)
        )

    def training_step(self, batch, batch_idx):
        return self.layers(batch[0]).square().mean()

    def configure_optimizers(self):
        rest = [p for p in self.parameters() if p.shape != (16, 16)]
        hidden = [self.layers[2].weight]
        optimizer = make_optimizer(hidden, [], rest, settings=TrainConfig())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_steps_clips_saves_and_resumes_it(tmp_path, precision):
    # The same batch at every step: which one comes first after a restart is Lightning's business.
    data = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data), batch_size=4)

    def fit(steps, checkpoint=None):
        module = Regression()
        trainer = L.Trainer(
            max_steps=steps,
            accelerator="cpu",
            precision=precision,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        with quiet_lightning():
            trainer.fit(module, batches, ckpt_path=checkpoint)
        return module, trainer

    unbroken, _ = fit(6)
    _, trainer = fit(3)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, again = fit(6, tmp_path / "half.ckpt")
    assert again.global_step == 6
    pairs = zip(unbroken.parameters(), resumed.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [g["lr"] for g in again.optimizers[0].param_groups] == pytest.approx(
        [0.02 / 7, 2e-3 / 7]
    )


def test_a_closure_computes_gradients_first():
    (p,) = random_parameters([(3, 4)])
    optimizer = muon([p])
    before = p.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss == before.square().sum()
    assert p.grad is not None
    assert not torch.equal(p, before)


def made(**settings):
    hidden, decayed, rest = (random_parameters([s]) for s in [(4, 8), (3, 1, 5, 5), (4,)])
    optimizer = make_optimizer(hidden, decayed, rest, settings=TrainConfig(**settings))
    return optimizer, *hidden, *decayed, *rest


def groups_of(optimizer):
    return [(g["params"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]


def test_with_muon_only_hidden_matrices_decay():
    optimizer, hidden, decayed, rest = made(muon_rate=0.05, learning_rate=0.002, weight_decay=0.2)
    assert isinstance(optimizer, Muon)
    assert [g["kind"] for g in optimizer.param_groups] == ["muon", "adamw"]
    assert groups_of(optimizer) == [([hidden], 0.05, 0.2), ([decayed, rest], 0.002, 0.0)]


def test_with_adamw_all_but_the_rest_decays():
    settings = {"optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.2}
    optimizer, hidden, decayed, rest = made(**settings)
    assert type(optimizer) is torch.optim.AdamW
    assert {g["betas"] for g in optimizer.param_groups} == {(0.9, 0.95)}
    assert groups_of(optimizer) == [([hidden, decayed], 0.002, 0.2), ([rest], 0.002, 0.0)]


@pytest.mark.parametrize("shape", [(3,), (3, 1, 5, 5)])
def test_what_is_no_matrix_is_refused_for_muon(shape):
    message = r"got a parameter of shape \(3,.*\), expected a matrix, because Muon"
    with pytest.raises(ValueError, match=message):
        make_optimizer(random_parameters([shape]), [], [], settings=TrainConfig())


def test_a_group_says_all_of_what_it_is():
    whole = {"params": random_parameters([(3, 4)]), "lr": 0.1, "weight_decay": 0.0}
    with pytest.raises(ValueError, match=r"required optimization parameter kind"):
        Muon([whole])
    with pytest.raises(ValueError, match=r"got a group of kind 'sgd', expected 'muon' or 'adamw'"):
        Muon([whole | {"kind": "sgd"}])
    with pytest.raises(ValueError, match=r"required optimization parameter lr"):
        Muon([{k: v for k, v in whole.items() if k != "lr"} | {"kind": "muon"}])


def test_a_problem_in_matrices_is_solved():
    """A linear network that learns another one, with the rates of the configuration."""
    generator = torch.Generator().manual_seed(0)
    first, second = (
        Parameter(0.1 * torch.randn(s, generator=generator)) for s in [(32, 8), (8, 32)]
    )
    bias, target = Parameter(torch.zeros(8)), torch.randn(8, 8, generator=generator)
    optimizer = make_optimizer(
        [first, second], [], [bias], settings=TrainConfig(weight_decay=0.0, learning_rate=0.03)
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 300)
    losses = []
    for _ in range(300):
        x = torch.randn(64, 8, generator=generator)
        loss = (x @ (second @ first - target).T + bias - 1.0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-5 * losses[0]
