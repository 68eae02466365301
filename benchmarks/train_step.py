"""A training step of the JEPA beside a plain one, a rollout in latent space beside one in pixels.

    python benchmarks/train_step.py --out table.md    # about 6 minutes on two cores
    python benchmarks/train_step.py --device cuda --precision bf16 --sizes large card
    python benchmarks/train_step.py --device cuda --precision bf16 --sizes card --batch 64

The plain step is what one would write first, with the same matrices: a depth-wise `nn.Conv2d` with
circular padding, or `nn.MultiheadAttention`, in the same blocks; SIGReg as in its formula, of every
token; AdamW. Its edges are those of a plane that closes on itself, and so are those of the JEPA
here. Every round measures all ways once, in changing order; a ratio is the median over the rounds
of the ratio within a round, to the plain step that mixes tokens in the same way.

The rollout takes 40 steps from 64 initial times. In latent space the context is encoded once and
only the asked leads are decoded. Through pixels, every step is decoded and the result encoded
again: the last state alone, with the latents of the state before kept, or, as a network of pixels
to pixels does it, both states of the context.

The column "of matmul" is the rate of a step's matrix products (`sciwm.train.flops.count_flops`)
over that of one large product, measured in the same run: model FLOP utilisation against what the
machine reaches, not against what its maker states.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import processor
from torch import Tensor, nn

from sciwm.model.jepa import JEPA
from sciwm.model.objectives import build_network
from sciwm.model.settings import Inputs, ObjectiveSettings, Sizes
from sciwm.model.whitening import Whitening
from sciwm.tokens.place import Lattice, Place
from sciwm.tokens.record import Known, Tokens
from sciwm.train.flops import count_flops
from sciwm.train.profile import matmul_rate

HISTORY, ROLLOUT, REACH, CALENDAR = 2, 2, 2, 4
SIGREG = ObjectiveSettings(kind="sigreg")
LEADS, INITIAL_TIMES, STEPS = (1, 4, 20, 40), 64, 40


@dataclass(frozen=True)
class Size:
    """Of a network and its windows."""

    name: str
    width: int
    encoder_width: int
    encoder: int
    predictor: int
    heads: int
    tokens: tuple[int, int]
    cells: int
    batch: int

    @property
    def count(self) -> int:
        return self.tokens[0] * self.tokens[1]


SIZES = {
    "quick": Size("quick", 16, 16, 1, 2, 2, (5, 6), 8, 4),
    "small": Size("small: 1 + 4 blocks, 96 wide, 128 tokens", 96, 32, 1, 4, 4, (8, 16), 8, 32),
    "fine": Size("fine: 1 + 4 blocks, 96 wide, 512 tokens", 96, 32, 1, 4, 4, (16, 32), 8, 16),
    "large": Size("large: 4 + 12 blocks, 512 wide", 512, 512, 4, 12, 8, (32, 64), 32, 16),
    "card": Size("card: 12 + 12 blocks, 768 wide", 768, 768, 12, 12, 12, (32, 64), 32, 16),
}


def network_of(size: Size, mixing: str, settings: ObjectiveSettings = SIGREG) -> JEPA:
    """The network as `sciwm train` builds it, on a plane that closes on itself."""
    torch.manual_seed(0)
    rows, columns = size.tokens
    side = math.isqrt(size.cells)
    patch = (side, size.cells // side)
    place = Place(
        torch.zeros(size.count, 1),
        Lattice(rows, columns, (True, True)),
        Lattice(rows * patch[0], columns * patch[1], (True, True)),
        patch,
        area=torch.ones(rows * patch[0], columns * patch[1]),
    )
    whitening = Whitening(torch.zeros(1, size.cells), torch.eye(size.cells)[None].clone())
    inputs = Inputs(place, whitening, size.cells, times={"calendar": CALENDAR})
    sizes = Sizes(
        width=size.width,
        encoder_width=size.encoder_width,
        encoder_blocks=size.encoder,
        predictor_blocks=size.predictor,
        mixing=mixing,
        encoder_mixing=mixing,
        num_heads=size.heads,
        reach=REACH,
        history=HISTORY,
    )
    return build_network(inputs, sizes, settings)


class PlainBlock(nn.Module):
    """Mix tokens and transform each, with library layers, channels first where they want it."""

    def __init__(self, size: Size, width: int, mixing: str, told: int = 0) -> None:
        super().__init__()
        self.tokens, self.local, side = size.tokens, mixing == "local", 2 * REACH + 1
        if self.local:
            around: dict[str, Any] = {"padding": REACH, "padding_mode": "circular"}
            self.mix: nn.Module = nn.Conv2d(width, width, side, groups=width, **around)
        else:
            self.before = nn.LayerNorm(width)
            self.mix = nn.MultiheadAttention(width, size.heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.modulate = nn.Linear(told, 2 * width) if told else None

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        """Mix and transform."""
        if self.local:
            y = self.mix(x.transpose(1, 2).unflatten(2, self.tokens)).flatten(2).transpose(1, 2)
        else:
            before = self.before(x)
            y = x + self.mix(before, before, before, need_weights=False)[0]
        y = self.norm(y)
        if self.modulate is not None and told is not None:
            scale, shift = self.modulate(told)[:, None].chunk(2, dim=-1)
            y = y * (1 + scale) + shift
        return x + self.down(nn.functional.gelu(self.up(y)))


class Plain(nn.Module):
    """The same step as a first version of it."""

    def __init__(self, size: Size, mixing: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        narrow, width, cells = size.encoder_width, size.width, size.cells
        self.white = nn.Linear(cells, cells, bias=False)
        self.see, self.out = nn.Linear(cells, narrow), nn.Linear(narrow, cells)
        encoder = [PlainBlock(size, narrow, mixing) for _ in range(size.encoder)]
        self.encoder, self.seen = nn.ModuleList(encoder), nn.LayerNorm(narrow)
        self.embed, self.change = nn.Linear(HISTORY * cells, width), nn.Linear(width, cells)
        self.condition = nn.Linear(CALENDAR, 64)
        predictor = [PlainBlock(size, width, mixing, told=64) for _ in range(size.predictor)]
        self.predictor, self.norm = nn.ModuleList(predictor), nn.LayerNorm(width)

    def encode(self, features: Tensor) -> Tensor:
        """Latents of every state."""
        white = self.white(features.flatten(0, 1))
        x = self.see(white)
        for block in self.encoder:
            x = block(x)
        return (white + self.out(self.seen(x))).view_as(features)

    def forward(self, features: Tensor, calendar: Tensor) -> Tensor:
        """Loss of a batch of windows."""
        latents = self.encode(features)
        history, predicted = latents[:, :HISTORY], []
        for k in range(ROLLOUT):
            told = nn.functional.silu(self.condition(calendar[:, HISTORY + k]))
            x = self.embed(history.transpose(1, 2).flatten(2))
            for block in self.predictor:
                x = block(x, told)
            predicted.append(history[:, -1] + self.change(self.norm(x)))
            history = torch.cat([history[:, 1:], predicted[-1][:, None]], dim=1)
        error = (torch.stack(predicted, dim=1) - latents[:, HISTORY:]).square().mean()
        samples = [latents[:, t].flatten(0, 1).float() for t in range(features.shape[1])]
        penalty = torch.stack([self._sigreg(s) for s in samples]).mean()
        return error + SIGREG.strength * penalty

    @staticmethod
    def _sigreg(samples: Tensor) -> Tensor:
        count = SIGREG.num_directions
        direction = torch.randn(samples.shape[1], count, device=samples.device)
        direction = nn.functional.normalize(direction, dim=0)
        node = torch.linspace(0, 3, 17, device=samples.device)
        angle = (samples @ direction)[..., None] * node
        gauss = (-node.square() / 2).exp()
        distance = (angle.cos().mean(0) - gauss).square() + angle.sin().mean(0).square()
        return 2 * torch.trapezoid(distance * gauss, node, dim=-1).mean()


MIXINGS = {"local": "neighbours", "global": "attention"}


def half_precision(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16, if that is the precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


class Ways:
    """The training steps of one size, on the same windows."""

    def __init__(self, size: Size, device: torch.device, precision: str) -> None:
        self.size, self.device = size, device
        self.autocast = half_precision(device, precision)
        random = partial(torch.randn, generator=torch.Generator().manual_seed(1))
        times = HISTORY + ROLLOUT
        self.features = random(size.batch, times, size.count, size.cells).to(device)
        self.calendar = random(size.batch, times, CALENDAR).to(device)
        self.steps: dict[str, Callable[[], Tensor]] = {}
        self.networks: dict[str, nn.Module] = {}
        self.references: dict[str, str] = {}
        for mixing, words in MIXINGS.items():
            jepa = network_of(size, mixing).to(device).train()
            plain = Plain(size, mixing).to(device).train()
            one, other = f"JEPA, {words}", f"plain, {words}"
            self.steps[one] = lambda jepa=jepa: self._jepa(jepa)
            self.steps[other] = lambda plain=plain: plain(self.features, self.calendar)
            self.networks |= {one: jepa, other: plain}
            self.references |= {one: other, other: other}
        adamw = partial(torch.optim.AdamW, lr=1e-4, betas=(0.9, 0.95))
        self.optimizers = {
            name: adamw(net.parameters(), fused=name.startswith("JEPA"))
            for name, net in self.networks.items()
        }

    def _jepa(self, jepa: JEPA) -> Tensor:
        lead = torch.ones(self.features.shape[:2], device=self.device)
        known = Known(lead, {"calendar": self.calendar})
        return jepa.loss(Tokens(self.features, self.features, known))["loss"]

    def step(self, name: str) -> None:
        """Forward, backward, clip, move the weights."""
        network, optimizer = self.networks[name], self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            loss = self.steps[name]()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    def flops(self, name: str) -> int:
        """Of the matrix products of one step."""
        found = count_flops(self.steps[name])
        self.networks[name].zero_grad(set_to_none=True)
        return found


class Rollouts:
    """Forecasts of `STEPS` steps, with the same weights in latent space and through pixels."""

    def __init__(self, size: Size, device: torch.device, precision: str) -> None:
        self.autocast = half_precision(device, precision)
        twin = network_of(size, "local", ObjectiveSettings(kind="supervised"))
        self.twin = twin.to(device).eval()
        random = partial(torch.randn, generator=torch.Generator().manual_seed(1))
        inits = INITIAL_TIMES if size.name != "quick" else 4
        self.context = random(inits, HISTORY, size.count, size.cells).to(device)
        calendar = random(inits, HISTORY + STEPS, CALENDAR).to(device)
        self.known = Known(torch.ones(calendar.shape[:2], device=device), {"calendar": calendar})
        self.ways: dict[str, Callable[[], Tensor]] = {
            "latent space, four leads decoded": self.latent,
            "pixels, last state encoded again": lambda: self.pixels(both=False),
            "pixels, both states encoded again": lambda: self.pixels(both=True),
        }

    @torch.no_grad()
    def latent(self) -> Tensor:
        """Fields at the asked leads."""
        rolled = self.twin.rollout(self.twin.encode(self.context), self.known)
        asked = [latent for k, latent in enumerate(rolled, start=1) if k in LEADS]
        return torch.stack([self._fields(latent) for latent in asked], dim=1)

    @torch.no_grad()
    def pixels(self, *, both: bool) -> Tensor:
        """Fields at the asked leads, every step by way of the fields."""
        states, out = self.context, []
        history = self.twin.encode(states)
        for k in range(STEPS):
            known = self.known[k : k + HISTORY + 1]
            (latent,) = self.twin.rollout(history, known)
            field = self._fields(latent)
            if k + 1 in LEADS:
                out.append(field)
            states = torch.cat([states[:, 1:], field[:, None]], dim=1)
            again = self.twin.encode(states if both else states[:, -1:])
            history = again if both else torch.cat([history[:, 1:], again], dim=1)
        return torch.stack(out, dim=1)

    def _fields(self, latent: Tensor) -> Tensor:
        assert self.twin.objective.head is not None
        return self.twin.objective.head(latent)

    def step(self, name: str) -> None:
        """One whole forecast."""
        with self.autocast:
            self.ways[name]()


def seconds(work: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Time of one call, the mean of some."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeat):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeat


def interleaved(
    names: Sequence[str],
    step: Callable[[str], object],
    device: torch.device,
    rounds: int,
    repeat: int,
) -> dict[str, list[float]]:
    """Seconds of every way in every round; the order turns."""
    for name in names:
        step(name)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in [*names[number % len(names) :], *names[: number % len(names)]]:
            found[name].append(seconds(lambda name=name: step(name), device, repeat))
    return found


def ratio(found: dict[str, list[float]], name: str, reference: str) -> str:
    """How many times faster than the reference, and the range over rounds."""
    each = [other / own for own, other in zip(found[name], found[reference], strict=True)]
    return f"{statistics.median(each):.2f}× [{min(each):.2f}, {max(each):.2f}]"


def main() -> None:
    """Measure, print, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["small", "fine"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=2, help="steps per round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, help="windows of a step, as many as the card holds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    peak = matmul_rate(device, torch.bfloat16 if options.precision == "bf16" else torch.float32)
    lines = [
        "| training step | ms | FLOPs | of matmul | to the plain one |",
        "|---|---|---|---|---|",
    ]
    sizes = [replace(SIZES[s], batch=options.batch or SIZES[s].batch) for s in options.sizes]
    for size in sizes:
        ways = Ways(size, device, options.precision)
        found = interleaved(list(ways.steps), ways.step, device, options.rounds, options.repeat)
        lines.append(f"| **{size.name}, batch {size.batch}** | | | | |")
        for name, times in found.items():
            took, flops = statistics.median(times), ways.flops(name)
            share = f"{flops / took / peak:.0%}"
            faster = ratio(found, name, ways.references[name])
            lines.append(f"| {name} | {1e3 * took:.1f} | {flops:.3g} | {share} | {faster} |")
        print(*lines[-1 - len(found) :], sep="\n", flush=True)
    lines += [
        "",
        f"| {STEPS} steps from {INITIAL_TIMES} initial times | s | latent space is faster |",
        "|---|---|---|",
    ]
    for size in sizes:
        rolls = Rollouts(size, device, options.precision)
        found = interleaved(list(rolls.ways), rolls.step, device, max(3, options.rounds // 2), 1)
        first = next(iter(found))
        lines.append(f"| **{size.name}** | | |")
        for name, times in found.items():
            how = "" if name == first else ratio(found, first, name)
            lines.append(f"| {name} | {statistics.median(times):.2f} | {how} |")
        print(*lines[-1 - len(found) :], sep="\n", flush=True)
    machine = f"{options.threads} threads on {processor()}"
    if device.type == "cuda":
        machine = torch.cuda.get_device_name()
    how = f"{options.precision} bit, torch {torch.__version__}, {options.rounds} rounds"
    lines += ["", f"{machine}, {how}. One large matrix product: {peak / 1e9:,.0f} GFLOP/s."]
    print(lines[-1])
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
