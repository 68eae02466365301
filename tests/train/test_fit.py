"""Training: resumed equals unbroken, collapse and nonsense stop it, and it learns."""

import json
import os
import signal
from itertools import pairwise

import lightning as L
import numpy as np
import pytest
import torch

import sciwm.train.fit as module
from sciwm import testing
from sciwm.model.health import CollapseError
from sciwm.model.objectives import OBJECTIVES, TWINS
from sciwm.probe.samples import readout_samples
from sciwm.readout.readout import KINDS
from sciwm.store.prepare import open_training_store
from sciwm.train.callbacks import Checkpoints
from sciwm.train.fit import build_world, fit_world, measure_world
from sciwm.train.module import JEPAModule, hidden_matrices
from tests.worlds import climate_world, config, probed, store

LEADS = (1, 3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return store(testing.small_climate(years=2), tmp_path_factory.mktemp("climate"))


def train(settings, path, folder):
    """Build and fit; the world, whether it finished, and its log."""
    log = []
    world = build_world(settings, path)
    finished = fit_world(world, path, settings, folder=folder, record=log.append, progress=False)
    return world, finished, log


class Interrupt(L.Callback):
    """Ctrl-C during some step."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def interrupted(monkeypatch, at):
    """Let every training be interrupted at a step."""
    original = module._trainer

    def trainer(config, folder, callbacks, *, progress):
        return original(config, folder, [*callbacks, Interrupt(at)], progress=progress)

    monkeypatch.setattr(module, "_trainer", trainer)


def checkpoint(folder):
    """The last checkpoint of a run."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("kind", ["sigreg", "ema", "whitened", *TWINS])
def test_resumed_equals_unbroken(path, tmp_path, monkeypatch, kind):
    objective = {
        "kind": kind,
        "ema_decay": 0.9,
        "mask_ratio": 0.3,
        "latent_noise": 0.01,
        "lead_steps": [1, 2],
        "curriculum": 0.9,
    }
    settings = config(objective=objective)
    before = signal.getsignal(signal.SIGINT)
    whole, finished, log = train(settings, path, tmp_path / "whole")
    assert finished
    with monkeypatch.context() as patch:
        interrupted(patch, 6)
        _, finished, first = train(settings, path, tmp_path / "broken")
    assert not finished
    assert signal.getsignal(signal.SIGINT) is before
    assert checkpoint(tmp_path / "broken")["global_step"] == 7
    resumed, finished, second = train(settings, path, tmp_path / "broken")
    assert finished
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    one, other = (checkpoint(tmp_path / run)["state_dict"] for run in ("whole", "broken"))
    for name, value in one.items():
        assert torch.equal(other[name], value), name
    assert [without_clock(r) for r in log] == [without_clock(r) for r in (*first, *second)]


def without_clock(record):
    return {k: v for k, v in record.items() if k not in ("seconds", "processor_seconds")}


def test_a_finished_training_is_not_trained_again(path, tmp_path):
    first, _, _ = train(config(), path, tmp_path)
    second, finished, log = train(config(), path, tmp_path)
    assert finished
    assert log == []
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name


def test_log_records(path, tmp_path):
    _, _, log = train(config(train={"steps": 24, "validate_every": 12}), path, tmp_path)
    json.dumps(log)
    training = [r for r in log if r["split"] == "train"]
    validation = [r for r in log if r["split"] == "validation"]
    assert [r["step"] for r in training] == [12, 20, 24]
    assert [r["step"] for r in validation] == [0, 12, 24]
    losses = {"step", "split", "loss", "prediction", "regularizer", "seconds", "processor_seconds"}
    assert all(set(r) == losses | {"skipped"} for r in training)
    health = {"effective_rank", "smallest_std", "mean_std", "concentration", "probe_r2"}
    assert all(set(r) == losses | health for r in validation)
    assert all(np.isfinite(v) for r in log for v in r.values() if not isinstance(v, str))


def test_losses_do_not_depend_on_how_often_is_validated(path, tmp_path):
    logs = []
    for every in (20, 7):
        steps = {"steps": 20, "validate_every": every, "checkpoint_every": 20}
        logs.append(train(config(train=steps), path, tmp_path / str(every))[2])
    at_end = [[without_clock(r) for r in log if r["step"] == 20] for log in logs]
    assert at_end[0] == at_end[1]
    assert len(at_end[0]) == 2


def test_the_seed_decides(path):
    same, again, other = (build_world(config(seed=s), path).network.state_dict() for s in (0, 0, 1))
    assert all(torch.equal(same[k], again[k]) for k in same)
    assert not all(torch.equal(same[k], other[k]) for k in same)


def test_without_averaging_the_last_weights_are_kept(path, tmp_path):
    world, _, _ = train(config(train={"average_decay": 0.0, "steps": 4}), path, tmp_path)
    saved = checkpoint(tmp_path)["state_dict"]
    for name, value in world.network.state_dict().items():
        assert torch.equal(saved[f"network.{name}"], value)


def test_the_average_is_the_one_by_hand(path, tmp_path):
    """Weights averaged step by step, with the decay warming up."""
    weights = []

    class Watch(JEPAModule):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            weights.append(self.network.dynamics.change.weight.detach().clone())

    settings = config(train={"steps": 6, "average_decay": 0.3})
    world = build_world(settings, path)
    start = world.network.dynamics.change.weight.detach().clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "JEPAModule", Watch)
        fit_world(world, path, settings, folder=tmp_path, progress=False)
    average = start
    for step, weight in enumerate(weights, start=1):
        decay = min(0.3, step / (step + 9))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(world.network.dynamics.change.weight.detach(), average)


def test_a_collapse_stops_the_training(path, tmp_path):
    """Without a penalty all latents shrink, to become easy to predict."""
    rushed = {"steps": 90, "learning_rate": 0.03, "validate_every": 90, "average_decay": 0.0}
    settings = config(model={"latent_dim": 4}, objective={"strength": 0.0}, train=rushed)
    with pytest.raises(CollapseError, match="collapsed at step 90"):
        train(settings, path, tmp_path)


def test_a_loss_that_is_not_a_number_stops_the_training(path, tmp_path, monkeypatch):
    original = JEPAModule.losses

    def broken(self, network, batch, *, noise=0.0, mask_ratio=0.0):
        losses = original(self, network, batch, noise=noise, mask_ratio=mask_ratio)
        factor = torch.nan if network.training and self.global_step >= 5 else 1
        return {k: v * factor for k, v in losses.items()}

    monkeypatch.setattr(JEPAModule, "losses", broken)
    message = r"loss of nan at step 12.*lower train.learning_rate"
    with pytest.raises(FloatingPointError, match=message):
        train(config(train={"steps": 24, "validate_every": 12}), path, tmp_path)
    saved = checkpoint(tmp_path)
    assert saved["global_step"] == 4  # the last one without
    numbers = [v for v in saved["state_dict"].values() if v.is_floating_point()]
    assert all(torch.isfinite(v).all() for v in numbers)


def with_losses_times(monkeypatch, factors):
    """Let the losses of single steps be multiplied, which multiplies their gradients, too."""
    original = JEPAModule.losses

    def losses(self, network, batch, **options):
        found = original(self, network, batch, **options)
        trained = network is self.network and network.training
        factor = factors.get(self.global_step, 1.0) if trained else 1.0
        return found | {"loss": found["loss"] * factor}

    monkeypatch.setattr(JEPAModule, "losses", losses)


def test_a_step_with_a_leaping_loss_is_skipped(path, tmp_path, monkeypatch):
    monkeypatch.setattr("sciwm.train.module._FEWEST", 5)
    settings = config(train={"steps": 12, "checkpoint_every": 1, "average_decay": 0.0, "clip": 1e9})
    weights = []
    update = JEPAModule.optimizer_step

    def step(self, *args, **options):
        update(self, *args, **options)
        weights.append(self.network.dynamics.embed.weight.detach().clone())

    monkeypatch.setattr(JEPAModule, "optimizer_step", step)
    with_losses_times(monkeypatch, {9: 1e4})
    train(settings, path, tmp_path)
    # From step to step; only the tenth left everything as it was.
    moved = [not torch.equal(a, b) for a, b in pairwise(weights)]
    assert moved == [True] * 8 + [False] + [True] * 2
    assert checkpoint(tmp_path)["skipped"] == 1


def test_losses_that_are_not_finite_or_hardly_change_are_no_leaps(path):
    module = JEPAModule(build_world(config(), path), config())
    losses = [*[0.5] * 200, 0.501, float("inf"), float("nan"), 0.503]
    assert sum(module._leaps(x) for x in losses) == 0
    assert module._leaps(1.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sigreg", [1, 1, 2, 2, 3, 3]),
        ("supervised", [1, 1, 2, 2, 3, 3]),
        ("masked_autoencoder", [3] * 6),
    ],
)
def test_the_rollout_grows_over_the_training(path, tmp_path, monkeypatch, kind, expected):
    windows, original = [], JEPAModule.losses

    def losses(self, network, batch, **options):
        if network.training:
            rollout, times = batch.values.shape[1] - network.history, batch.index.shape[1]
            unbroken = torch.diff(batch.index).eq(1).all().item()
            windows.append((rollout, times, unbroken))
        return original(self, network, batch, **options)

    monkeypatch.setattr(JEPAModule, "losses", losses)
    objective = {"kind": kind, "rollout": 3, "curriculum": 1.0, "mask_ratio": 0.5}
    train(config(objective=objective, train={"steps": 6}), path, tmp_path / "run")
    assert windows == [(k, k + 2, True) for k in expected]


def test_float16_is_refused(path):
    message = r"got train\.precision = '16-mixed', expected bf16-mixed or 32-true"
    with pytest.raises(ValueError, match=message):
        JEPAModule(build_world(config(), path), config(train={"precision": "16-mixed"}))


def test_a_new_level_of_the_loss_is_taken_after_five_steps(path):
    module = JEPAModule(build_world(config(), path), config())
    noise = np.random.default_rng(0).normal(size=300)
    assert sum(module._leaps(float(x)) for x in noise) == 0
    assert [module._leaps(1000.0) for _ in range(8)] == [True] * 5 + [False] * 3


def test_a_checkpoint_is_replaced_whole(tmp_path):
    class Trainer(L.Trainer):
        fails, is_global_zero = False, True

        def __init__(self):
            pass

        def save_checkpoint(self, path):
            path.write_text("new" if self.fails else "old")
            if self.fails:
                raise OSError("disk full")

    checkpoints, trainer = Checkpoints(path=tmp_path / "a" / "last.ckpt", every=1), Trainer()
    checkpoints.save(trainer)
    trainer.fails = True
    with pytest.raises(OSError, match="full"):
        checkpoints.save(trainer)
    assert checkpoints.path.read_text() == "old"


def test_a_second_ctrl_c_ends_at_once(path, tmp_path, monkeypatch):
    class Twice(Interrupt):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == self.at + 1:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(f"{__name__}.Interrupt", Twice)
    interrupted(monkeypatch, 5)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config(), path, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert checkpoint(tmp_path)["global_step"] == 6  # by the first


def test_missing_data_masked_context_and_all_objectives_train(tmp_path):
    path = store(testing.small_climate(years=2, missing=True), tmp_path, missing="mask")
    for kind in OBJECTIVES:
        settings = config(objective={"kind": kind, "mask_ratio": 0.4}, train={"steps": 4})
        _, finished, log = train(settings, path, tmp_path / kind)
        assert finished
        assert all(np.isfinite(r["loss"]) for r in log)


def errors_of(world, store, leads):
    """Mean squared errors on the test block, by kind of forecast and position of the lead."""
    squared = {}
    for sample in readout_samples(world, store, which="test", lead_steps=leads):
        newest = sample.initial[..., : sample.later.shape[-1]]
        for lead in range(len(leads)):
            latents, forecasts = sample.latents[:, lead], {"persistence": newest}
            for kind in KINDS:
                readouts = world.readouts[kind]
                forecasts[kind] = readouts.read_fields(lead, latents, sample.initial)
            for kind, forecast in forecasts.items():
                error = (forecast - sample.later[:, lead]).square().mean()
                squared.setdefault((kind, lead), []).append(float(error))
    return {key: float(np.mean(values)) for key, values in squared.items()}


def test_it_learns(tmp_path):
    """A small run beats persistence, and linear readouts of each patch, on waves that travel."""
    ds = testing.small_climate(years=4)
    settings = config(
        model={"width": 32, "dropout": 0.0, "patch_size": [2, 2]},
        objective={"rollout": 3},
        train={"steps": 150, "batch_size": 32, "learning_rate": 3e-3, "validate_every": 150},
    )
    untrained, path = climate_world(ds, tmp_path, leads=LEADS, settings=settings)
    world, _, log = train(settings, path, tmp_path)
    state = open_training_store(path)
    errors = errors_of(probed(world, path, LEADS, settings), state, LEADS)
    anomaly = state.state.values[state.split.values == 0]
    held = state.state.values[state.split.values == 2]
    for lead, steps in enumerate(LEADS):
        slope = (anomaly[:-steps] * anomaly[steps:]).sum(0) / (anomaly[:-steps] ** 2).sum(0)
        damped = float(np.mean((held[steps:] - slope * held[:-steps]) ** 2))
        error = errors["residual", lead]
        assert error < 0.6 * errors["persistence", lead]
        assert error < 0.8 * damped
        # No better than the waves allow in expectation, around which a test block scatters.
        assert error > 0.97 * (1 - np.exp(-2 * steps / testing.DAMPING_DAYS))
    # One step ahead a patch has it all in itself. Later, waves come from its neighbours.
    assert errors["residual", 1] < 0.95 * errors["local_linear", 1]
    assert errors["latent", 1] < 0.95 * errors_of(untrained, state, LEADS)["latent", 1]
    # In latent space, too: untrained dynamics persist. Latents keep their spread.
    first, last = (r for r in log if r["split"] == "validation")
    assert last["prediction"] < 0.5 * first["prediction"]
    assert last["mean_std"] > 0.8 * first["mean_std"]


@pytest.mark.parametrize("kind", TWINS)
def test_a_twin_learns_more_than_the_mean(kind, path, tmp_path):
    """On held-out states the pixel error falls below that of forecasting the mean field."""
    steps = 20 if kind == "convnet" else 60
    mask_ratio = 0.5 if kind == "masked_autoencoder" else 0.0
    settings = config(
        model={"dropout": 0.0},
        objective={"kind": kind, "mask_ratio": mask_ratio},
        train={"steps": steps, "batch_size": 32, "learning_rate": 3e-3, "validate_every": steps},
    )
    world, finished, log = train(settings, path, tmp_path)
    assert finished
    last = [r for r in log if r["split"] == "validation"][-1]
    state = open_training_store(path)
    mean = float(np.mean(state.state.values[state.split.values == 1] ** 2))
    assert last["prediction"] < 0.7 * mean
    measured = measure_world(world, path, settings)
    assert measured == {k: last[k] for k in measured}


def test_a_store_without_validation_block_is_refused(tmp_path):
    path = store(testing.small_climate(years=1), tmp_path, validation=[], climatology="constant")
    with pytest.raises(ValueError, match="validation"):
        train(config(), path, tmp_path)


def test_what_moves_which_weights(path):
    """Muon the matrices between hidden features; AdamW all else, of which vectors never decay."""
    world = build_world(config(model={"mixing": "both", "encoder_mixing": "both"}), path)
    names = {id(p): n for n, p in world.network.named_parameters()}
    hidden = {names[id(p)] for p in hidden_matrices(world.network)}
    matrices = ("up", "down", "mix.far.project", "mix.far.out")
    blocks = [f"{part}.blocks.0.{m}.weight" for part in ("encoder", "dynamics") for m in matrices]
    assert hidden == {*blocks, "dynamics.embed.weight"}
    for optimizer in ("muon", "adamw"):
        settings = config(train={"optimizer": optimizer, "weight_decay": 0.1})
        made = JEPAModule(world, settings).configure_optimizers()["optimizer"]
        groups = {g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in made.param_groups}
        assert set.union(*groups.values()) == set(names.values())
        assert groups[0.1] >= hidden
        decayed = [p for p in world.network.parameters() if names[id(p)] in groups[0.1]]
        assert all(p.ndim >= 2 for p in decayed)
        assert (groups[0.1] == hidden) == (optimizer == "muon")


def test_a_frozen_encoder_is_not_optimised(path):
    settings = config(objective={"kind": "whitened"})
    world = build_world(settings, path)
    made = JEPAModule(world, settings).configure_optimizers()["optimizer"]
    moved = {id(p) for g in made.param_groups for p in g["params"]}
    assert moved == {id(p) for p in world.network.dynamics.parameters()}


def test_learning_rate_warms_up_and_falls(path):
    rate = {"optimizer": "adamw", "learning_rate": 1.0}
    settings = config(train={"steps": 100, "warmup": 0.1} | rate)
    made = JEPAModule(build_world(settings, path), settings).configure_optimizers()
    rates = []
    for _ in range(100):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=1e-6, atol=2e-3)
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[54] == pytest.approx(0.5, abs=0.03)
    assert rates[-1] < 5e-3


def test_states_for_the_whitening_are_of_few_chunks_where_there_are_many():
    train = np.concatenate([np.arange(3, 5000), np.arange(6000, 20000)])
    for chunk, most in ((1, 1024), (32, 32), (500, 32)):
        chosen = module._spread_out(train, 1024, chunk=chunk)
        assert 512 < len(chosen) <= 1024
        assert np.isin(chosen, train).all()
        assert len(np.unique(chosen // chunk)) <= most
        # All of the record is met.
        assert np.diff(chosen).max() < 1000 + 20000 / 15
    assert np.array_equal(module._spread_out(train[:50], 1024, chunk=8), train[:50])
    before = train[np.unique(np.linspace(0, len(train) - 1, 1024).astype(int))]
    assert np.array_equal(module._spread_out(train, 1024, chunk=1), before)
