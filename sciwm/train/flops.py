"""How much arithmetic a training takes."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sciwm.sections import Config
from sciwm.train.module import JEPAModule, rollout_at
from sciwm.train.windows import epoch_of
from sciwm.world.model import WorldModel

__all__ = ["count_flops", "step_flops", "train_flops"]


def count_flops(loss: Callable[[], Tensor]) -> int:
    """Floating-point operations of the matrix products behind a loss and its gradient.

    A product and a sum count as two. Elementwise work (norms, activations, the optimiser) is not
    counted. Attention counts as the two products it is, without causal or padding savings, whatever
    kernel would run it.

    Parameters
    ----------
    loss : callable
        Computes a scalar that has a gradient.

    Examples
    --------
    Forward and the gradient of the weights, 2 · (2 · 7 · 3 · 5):

    >>> layer = torch.nn.Linear(3, 5)
    >>> count_flops(lambda: layer(torch.ones(7, 3)).sum())
    420
    """
    # The fused kernels of a CPU are unknown to the counter: it would count no attention at all.
    aten = torch.ops.aten
    own = {aten.convolution: _convolution, aten.convolution_backward: _convolution_backward}
    counting = FlopCounterMode(display=False, custom_mapping=own)
    with sdpa_kernel(SDPBackend.MATH), counting as counter:
        loss().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def _convolution(
    inside: Sequence[int],
    weight: Sequence[int],
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *more: Any,
    out_shape: Sequence[int],
    **options: Any,
) -> int:
    """Products with the zeros around a field are not counted; torch counts them."""
    found = 2 * inside[0] * weight[0] * weight[1]
    sizes = zip(out_shape[2:], weight[2:], inside[2:], stride, padding, dilation, strict=True)
    for out, taps, size, step, zeros, apart in sizes:
        places = np.add.outer(step * np.arange(out), apart * np.arange(taps)) - zeros
        found *= int(((places >= 0) & (places < size)).sum())
    return int(found)


def _convolution_backward(
    out: Sequence[int], inside: Sequence[int], weight: Sequence[int], *more: Any, **options: Any
) -> int:
    """Each gradient takes as many operations as the convolution; torch forgets about groups."""
    forward = 2 * inside[0] * math.prod(out[2:]) * math.prod(weight)
    return int(forward * sum(more[-1][:2]))


def step_flops(
    world: WorldModel, store: str | Path, config: Config, *, rollout: int | None = None
) -> int:
    """Floating-point operations of one optimiser step, on the first batch of a training store.

    Parameters
    ----------
    world : WorldModel
        From `sciwm.train.fit.build_world`; its weights do not change.
    store : path
        Training store.
    config : Config
        What ``world`` was built with.
    rollout : int, optional
        States predicted in sequence, at most ``objective.rollout``, which is the default.
    """
    rollout = config.objective.rollout if rollout is None else rollout
    return _measure(world, store, config, [rollout])[0]


def train_flops(world: WorldModel, store: str | Path, config: Config) -> int:
    """Floating-point operations of all steps of a training.

    Steps that ``objective.curriculum`` makes shorter count as such.

    Parameters
    ----------
    world, store, config
        As `step_flops` takes them.
    """
    steps = Counter(rollout_at(step, config) for step in range(config.train.steps))
    flops = _measure(world, store, config, list(steps))
    return sum(count * each for count, each in zip(steps.values(), flops, strict=True))


def _measure(
    world: WorldModel, store: str | Path, config: Config, rollouts: Sequence[int]
) -> list[int]:
    """Floating-point operations of a step for each length of the rollout, on the same batch."""
    batch = next(iter(epoch_of(store, config, "train")))
    module = JEPAModule(world, config)
    module.network.train()

    def loss(rollout: int) -> Tensor:
        cut, ratio = module.cut(batch, rollout), config.objective.mask_ratio
        return module.losses(module.network, cut, mask_ratio=ratio)["loss"]

    with torch.random.fork_rng(devices=[]):
        flops = [count_flops(partial(loss, rollout)) for rollout in rollouts]
    module.network.zero_grad(set_to_none=True)
    return flops
