"""What the latents are: the state itself up to a rotation, without what cannot be predicted.

Klindt et al. 2026, arXiv:2605.26379: where latents that are predicted well have to be normally
distributed, those of a stationary Gaussian process are a linear map of its state, however it is
observed. With a predictor it is enough that the square of the largest correlation from one step to
the next is below the smallest: products of states are then forgotten sooner than any state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from sciwm.model.jepa import JEPA
from sciwm.model.objectives import build_network
from sciwm.model.settings import Inputs, ObjectiveSettings, Sizes
from sciwm.model.whitening import fit_whitening
from sciwm.sections import Config, TrainConfig
from sciwm.tokens.place import Place
from sciwm.tokens.record import Known, Tokens
from sciwm.train.module import JEPAModule

DECAY = torch.tensor([0.10, 0.13, 0.16])  # per step
STATES, SEEN, SAMPLES = len(DECAY), 6, 4000
STEPS, BATCH, NOISE = 600, 256, 2.0
SIZES = {"width": 32, "encoder_blocks": 2, "encoder_width": 64, "predictor_blocks": 1}
SIZES |= {"mixing": "none", "latent_dim": STATES}
OBJECTIVE = {"strength": 8.0, "num_directions": 32}


def process(count: int, times: int) -> Tensor:
    """A stationary Ornstein-Uhlenbeck process of variance 1, ``[sample, time, state]``."""
    kept, now = (-DECAY).exp(), torch.randn(count, STATES)
    states = [now]
    for _ in range(times - 1):
        now = kept * now + (1 - kept**2).sqrt() * torch.randn(count, STATES)
        states.append(now)
    return torch.stack(states, dim=1)


def mixing(seed: int) -> Callable[[Tensor], Tensor]:
    """A map that bends space and can be undone: orthogonal layers with leaky rectifiers."""
    rng = torch.Generator().manual_seed(seed)

    def orthogonal() -> Tensor:
        return torch.linalg.qr(torch.randn(SEEN, SEEN, generator=rng))[0]

    first, second, third = orthogonal()[:STATES], orthogonal(), orthogonal()
    shift, other = torch.randn(2, SEEN, generator=rng)

    def mix(states: Tensor) -> Tensor:
        bent = nn.functional.leaky_relu(2.5 * states @ first + shift, 0.1)
        return nn.functional.leaky_relu(bent @ second + other / 2, 0.1) @ third

    seen = mix(process(SAMPLES, 1))
    mean, spread = seen.mean((0, 1)), seen.std((0, 1))
    return lambda states: (mix(states) - mean) / spread


@dataclass(frozen=True)
class World:
    """States, how they are observed, and what else is: white noise and a constant."""

    mix: Callable[[Tensor], Tensor]
    nuisance: bool

    def draw(self, count: int, times: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """States, noise and what is observed."""
        states, noise = process(count, times), torch.randn(count, times, 1)
        seen = self.mix(states)
        if self.nuisance:
            seen = torch.cat([seen, NOISE * noise, torch.full_like(noise, 3.0)], dim=-1)
        return states, noise, seen


def untrained(world: World) -> JEPA:
    """A network whose latents are the components of most variance."""
    _, _, seen = world.draw(SAMPLES)
    cells = seen.shape[-1]
    whitening = fit_whitening([seen], num_cells=cells, floor=0.0)
    inputs = Inputs(Place(torch.zeros(1, 1)), whitening, cells)
    return build_network(inputs, Sizes(**SIZES), ObjectiveSettings(**OBJECTIVE))


def train(network: JEPA, world: World) -> None:
    """With the optimiser and the schedule of every training."""
    module = SimpleNamespace(network=network, config=Config(train=TrainConfig(steps=STEPS)))
    made = JEPAModule.configure_optimizers(module)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    times = network.history + 1
    lead = torch.ones(BATCH, times)
    for _ in range(STEPS):
        features = world.draw(BATCH, times)[2][:, :, None]
        optimizer.zero_grad()
        network.loss(Tokens(features, features, Known(lead)))["loss"].backward()
        nn.utils.clip_grad_norm_(network.parameters(), module.config.train.clip)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def latents(network: JEPA, seen: Tensor) -> Tensor:
    """Of samples of one time and one token, ``[sample, latent]``."""
    return network.encode(seen[:, :, None]).flatten(0, 2)


def explained(predicted: Tensor, truth: Tensor) -> Tensor:
    """R² of every column; 1 is perfect."""
    return 1 - (truth - predicted).square().mean(0) / truth.var(0)


def linear(features: Tensor, truth: Tensor, fresh: Tensor) -> Tensor:
    """Least squares with an offset."""
    inside, outside = (torch.cat([x, torch.ones(len(x), 1)], dim=1) for x in (features, fresh))
    # A constant channel beside the offset leaves the matrix without full rank.
    solution = torch.linalg.lstsq(inside.double(), truth.double(), driver="gelsd").solution
    return outside @ solution.float()


def nearest(features: Tensor, truth: Tensor, fresh: Tensor) -> Tensor:
    """Mean of the hundred nearest samples: whatever else there is but a line."""
    return truth[torch.cdist(fresh, features).topk(100, largest=False).indices].mean(1)


def table(network: JEPA, world: World) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R² of states and of noise from latents, of noise by neighbours, and of states from pixels."""
    (states, noise, seen), (later, other, unseen) = (
        (s[:, 0], n[:, 0], x) for s, n, x in (world.draw(SAMPLES), world.draw(SAMPLES))
    )
    inside, outside = latents(network, seen), latents(network, unseen)
    return (
        explained(linear(inside, states, outside), later),
        explained(linear(inside, noise, outside), other),
        explained(nearest(inside, noise, outside), other),
        explained(linear(seen[:, 0], states, unseen[:, 0]), later),
    )


def check_states(network: JEPA, world: World, *, least: float) -> None:
    """A linear map finds every state in the latents, and it is next to a rotation."""
    found, _, _, plain = table(network, world)
    print(f"states: R² {found.tolist()}, mean {found.mean():.3f}, least {found.min():.3f}")
    assert plain.max() < 0.9, "the observations are hardly bent: the test could not fail"
    assert found.min() >= least
    states, _, seen = world.draw(SAMPLES)
    matrix = torch.linalg.lstsq(states[:, 0], latents(network, seen)).solution
    stretch = torch.linalg.svdvals(matrix)
    assert stretch.min() / stretch.max() > 0.85


def test_latents_are_the_states_of_a_gaussian_process_up_to_a_rotation():
    torch.manual_seed(0)
    world = World(mixing(2), nuisance=False)
    network = untrained(world)
    before = table(network, world)[0]
    print(f"before training: R² {before.tolist()}")
    assert before.min() < 0.8  # components of most variance are not the states
    train(network, world)
    check_states(network, world, least=0.95)


def test_noise_and_constants_are_not_encoded():
    torch.manual_seed(0)
    world = World(mixing(2), nuisance=True)
    network = untrained(world)
    _, noise, near, _ = table(network, world)
    assert min(noise.min(), near.min()) > 0.5  # it has most variance: the whitening begins with it
    train(network, world)
    _, noise, near, _ = table(network, world)
    print(f"noise: R² {noise.item():.3f}, of neighbours {near.item():.3f}")
    assert max(noise.max(), near.max()) <= 0.05
    _, _, seen = world.draw(100)
    shifted = seen.clone()
    shifted[..., -1] += 4
    torch.testing.assert_close(latents(network, shifted), latents(network, seen), atol=1e-4, rtol=0)
    check_states(network, world, least=0.9)
