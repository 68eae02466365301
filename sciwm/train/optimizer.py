"""What moves the weights: Muon for hidden matrices, AdamW for all else, as one optimiser."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adamw import AdamW, adamw
from torch.optim.optimizer import Optimizer, required

from sciwm.sections import TrainConfig

__all__ = ["Muon", "make_optimizer", "orthogonalize"]

_BETAS, _EPS = (0.9, 0.95), 1e-8  # AdamW's
_MOMENTUM = 0.95  # Muon's
_STEPS, _QUINTIC = 5, (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz steps
_LEAST = 1e-7  # norm below which a gradient counts as none


def make_optimizer(
    hidden: Sequence[Parameter],
    decayed: Sequence[Parameter],
    rest: Sequence[Parameter],
    *,
    settings: TrainConfig,
) -> Optimizer:
    """The optimiser that a configuration asks for.

    With Muon only the hidden matrices decay. With AdamW ``decayed`` does, too.

    Parameters
    ----------
    hidden : sequence of Parameter
        Matrices between hidden layers, ``(out, in)``: what Muon is made for.
    decayed : sequence of Parameter
        Other weights, such as those of the first and the last layer, and of convolutions.
    rest : sequence of Parameter
        Biases and norms; they never decay.
    settings : TrainConfig
        With ``optimizer``, its rates and ``weight_decay``.

    Raises
    ------
    ValueError
        If ``hidden`` holds something other than matrices, and Muon is asked for.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        groups = [
            {"params": [*hidden, *decayed], "weight_decay": decay},
            {"params": [*rest], "weight_decay": 0.0},
        ]
        return AdamW(groups, lr=rate, betas=_BETAS, fused=True)
    matrices = {"params": [*hidden], "lr": settings.muon_rate, "weight_decay": decay}
    others = {"params": [*decayed, *rest], "lr": rate, "weight_decay": 0.0}
    return Muon([matrices | {"kind": "muon"}, others | {"kind": "adamw"}])


class Muon(Optimizer):
    r"""Muon for groups of matrices, AdamW for groups of all else.

    Muon moves a matrix :math:`W` of :math:`r` rows and :math:`c` columns, of gradient :math:`G`, by

    .. math::
        M &\leftarrow 0.95 M + 0.05 G \\
        W &\leftarrow (1 - \eta \lambda) W
            - \eta \sqrt{\max(1, r/c)}\, \mathrm{orth}(0.95 M + 0.05 G)

    `orthogonalize` is orth, so the scale of the gradient does not matter. AdamW is torch's, fused,
    with betas of 0.9 and 0.95. Both decay weights apart from the gradient. Parameters without a
    gradient stay as they are, and so do their averages.

    ``torch.optim.Muon`` is not used, for three reasons. It came with torch 2.9, and this package
    runs with 2.6. It multiplies one matrix at a time in bfloat16, which most CPUs emulate slowly.
    Here matrices of equal shape go together, on a CPU in float32. And it takes matrices only. A
    second optimiser for all else would mean a second schedule, and Lightning's manual loop.

    Parameters
    ----------
    params : iterable of dict
        Groups. Each has ``params``, ``lr`` (:math:`\eta`), ``weight_decay`` (:math:`\lambda`) and
        ``kind``, which is ``"muon"`` or ``"adamw"``.

    Raises
    ------
    ValueError
        If a group lacks one of the four, is of another kind, or gives Muon what is no matrix.

    References
    ----------
    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Loshchilov & Hutter 2019,
    arXiv:1711.05101.

    Examples
    --------
    >>> layer = torch.nn.Linear(4, 3)
    >>> matrices = {"params": [layer.weight], "lr": 0.02, "weight_decay": 0.1, "kind": "muon"}
    >>> others = {"params": [layer.bias], "lr": 1e-3, "weight_decay": 0.0, "kind": "adamw"}
    >>> optimizer = Muon([matrices, others])
    >>> layer(torch.ones(4)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[layer.weight])
    ['momentum']
    """

    def __init__(self, params: Iterable[dict[str, Any]]) -> None:
        # `fused` lets `load_state_dict` bring AdamW's counts of steps to the parameters' device.
        super().__init__(
            params, {"lr": required, "weight_decay": required, "kind": required, "fused": True}
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Check a group and add it; the constructor does so for each.

        Parameters
        ----------
        param_group : dict
            As the constructor takes them.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["kind"] not in ("muon", "adamw"):
            raise ValueError(f"got a group of kind {group['kind']!r}, expected 'muon' or 'adamw'")
        for p in group["params"] if group["kind"] == "muon" else []:
            if p.ndim != 2:
                raise ValueError(
                    f"got a parameter of shape {tuple(p.shape)}, expected a matrix, because Muon"
                    " orthogonalizes it; leave others to a group of kind 'adamw'"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Called first, to compute loss and gradients; its loss is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                move = self._muon if group["kind"] == "muon" else self._adamw
                move(params, [p.grad for p in params], group["lr"], group["weight_decay"])
        return loss

    def _muon(self, matrices: list[Tensor], grads: list[Tensor], rate: float, decay: float) -> None:
        for p in matrices:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in matrices]
        torch._foreach_lerp_(momenta, grads, 1 - _MOMENTUM)
        ahead = torch._foreach_lerp(grads, momenta, _MOMENTUM)
        if decay:
            torch._foreach_mul_(matrices, 1 - rate * decay)
        alike = defaultdict(list)
        for i, p in enumerate(matrices):
            alike[p.shape, p.device, p.dtype].append(i)
        for (shape, *_), places in alike.items():
            updates = orthogonalize(torch.stack([ahead[i] for i in places]))
            scale = math.sqrt(max(1.0, shape[0] / shape[1]))
            moved = [matrices[i] for i in places]
            torch._foreach_add_(moved, list(updates.to(moved[0].dtype)), alpha=-rate * scale)

    def _adamw(self, params: list[Tensor], grads: list[Tensor], rate: float, decay: float) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        states = [self.state[p] for p in params]
        adamw(
            params,
            grads,
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=rate,
            weight_decay=decay,
            eps=_EPS,
            maximize=False,
        )


def orthogonalize(matrices: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "..."]:
    r"""Nearly the orthogonal factor of matrices: singular values become about 1.

    Five Newton-Schulz steps on :math:`X`, turned so that it is wide, after division by its norm:

    .. math:: X \leftarrow 3.4445 X - 4.7750 X X^T X + 2.0315 (X X^T)^2 X

    They do not converge to 1. Their coefficients rise fastest from 0 instead, and singular values
    end between 0.68 and 1.21. Those below 1/600 of the norm end lower, and zero stays zero.

    Parameters
    ----------
    matrices : Tensor
        Multiplied together, in bfloat16 on a GPU that has it, otherwise in float32.

    Returns
    -------
    Tensor
        Of the same shape, in the type that was multiplied in.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    # Products of transposed views take a quarter longer.
    x = (matrices.mT.contiguous() if tall else matrices).float()
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + _LEAST)
    if x.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False):
        x = x.bfloat16()
    one, three, five = _QUINTIC
    for _ in range(_STEPS):
        square = torch.bmm(x, x.mT)
        factor = torch.baddbmm(square, square, square, beta=three, alpha=five)
        x = torch.baddbmm(x, factor, x, beta=one)
    return x.mT if tall else x
