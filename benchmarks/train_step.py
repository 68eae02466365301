"""A training step of the JEPA beside a plain one, a rollout in latent space beside one in pixels.

    python benchmarks/train_step.py --out table.md    # about 6 minutes on two cores
    python benchmarks/train_step.py --device cuda --precision bf16 --sizes vit_b

The plain step is what one would write first: `torch.nn.TransformerEncoder` for encoder and
predictor with the same widths, depths and tokens, every state encoded whole, SIGReg as in its
formula, AdamW. Its dropout is that of the JEPA, or 0, for which PyTorch has a faster attention:
both are measured, and ratios are to the faster. Every round measures all ways once, in changing
order; a ratio is the median over the rounds of the ratio within a round.

The rollout takes 40 steps from 64 initial times. In latent space the context is encoded once and
only the asked leads are decoded. Through pixels, every step is decoded and the result encoded
again: the last state alone, with the latents of the state before kept, or, as a network of pixels
to pixels does it, both states of the context.

The column "of matmul" is the rate of a step's matrix products (`sciwm.train.flops.count_flops`)
over that of one large product, measured in the same run: model FLOP utilisation against what the
machine reaches, not against what its maker states.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from machine import processor
from torch import Tensor, nn

from sciwm.model.jepa import JEPA
from sciwm.model.settings import Inputs, Objective, Sizes
from sciwm.model.twins import Twin
from sciwm.tokens.masks import block_mask
from sciwm.train.flops import count_flops
from sciwm.train.profile import matmul_rate

MASK, HISTORY, ROLLOUT, DIRECTIONS, STRENGTH = 0.5, 2, 2, 256, 40.0
LEADS, INITIAL_TIMES, STEPS = (1, 4, 20, 40), 64, 40


@dataclass(frozen=True)
class Size:
    """Of a network and its windows."""

    name: str
    width: int
    encoder: int
    predictor: int
    heads: int
    tokens: tuple[int, int]
    cells: int
    batch: int
    dropout: float = 0.1

    @property
    def count(self) -> int:
        return self.tokens[0] * self.tokens[1]


SIZES = {
    "quick": Size("quick", 16, 2, 1, 2, (2, 3), 8, 4),
    "small": Size("small: 2 + 2 blocks of 96, 56 tokens", 96, 2, 2, 4, (7, 8), 27, 64),
    "deep": Size("deep: 12 + 2 blocks of 96, 56 tokens", 96, 12, 2, 4, (7, 8), 27, 16),
    "vit_b": Size("ViT-B: 12 + 6 blocks of 768, 512 tokens", 768, 12, 6, 12, (16, 32), 256, 16),
}


def position(size: Size) -> Tensor:
    """Unit vectors of a grid of tokens that covers the globe."""
    rows, columns = size.tokens
    latitude = torch.linspace(-80, 80, rows).deg2rad().repeat_interleave(columns)
    longitude = (torch.arange(columns) * 360 / columns).deg2rad().repeat(rows)
    x, y = latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin()
    return torch.stack([x, y, latitude.sin()], dim=-1)


def jepa_of(size: Size) -> JEPA:
    """The network as `sciwm train` builds it."""
    torch.manual_seed(0)
    inputs = Inputs(position(size), size.cells, condition_dim=4, local_dim=0, cells=size.cells)
    sizes = Sizes(
        token_dim=size.width,
        encoder_blocks=size.encoder,
        predictor_blocks=size.predictor,
        num_heads=size.heads,
        dropout=size.dropout,
        history=HISTORY,
    )
    return JEPA(inputs, sizes, Objective(strength=STRENGTH, num_directions=DIRECTIONS))


class Plain(nn.Module):
    """The same step as a first version of it: library layers, every token of every state."""

    def __init__(self, size: Size, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        width = size.width

        def encoder(blocks: int) -> nn.Module:
            layer = nn.TransformerEncoderLayer(
                width,
                size.heads,
                4 * width,
                dropout=dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            norm = nn.LayerNorm(width)
            return nn.TransformerEncoder(layer, blocks, norm=norm, enable_nested_tensor=False)

        self.embed, self.place = nn.Linear(size.cells, width), nn.Linear(3, width)
        self.encoder, self.project = encoder(size.encoder), nn.Linear(width, width)
        self.age = nn.Parameter(torch.randn(HISTORY, 1, width) * 0.02)
        self.condition = nn.Linear(4, width)
        self.predictor, self.change = encoder(size.predictor), nn.Linear(width, width)
        self.register_buffer("position", position(size))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Loss of a batch of windows."""
        batch, times, tokens, _ = features.shape
        states = self.encoder((self.embed(features) + self.place(self.position)).flatten(0, 1))
        latents = self.project(states).view(batch, times, tokens, -1)
        history, predicted = latents[:, :HISTORY], []
        for k in range(ROLLOUT):
            known = self.condition(condition[:, HISTORY + k])[:, None, None]
            context = history + self.place(self.position) + self.age + known
            out = self.predictor(context.flatten(1, 2))[:, -tokens:]
            predicted.append(history[:, -1] + self.change(out))
            history = torch.cat([history[:, 1:], predicted[-1][:, None]], dim=1)
        error = (torch.stack(predicted, dim=1) - latents[:, HISTORY:]).square().mean()
        samples = [latents[:, t].flatten(0, 1).float() for t in range(times)]
        penalty = torch.stack([self._sigreg(s) for s in samples]).mean()
        return error + STRENGTH * penalty

    @staticmethod
    def _sigreg(samples: Tensor) -> Tensor:
        direction = torch.randn(samples.shape[1], DIRECTIONS, device=samples.device)
        direction = nn.functional.normalize(direction, dim=0)
        node = torch.linspace(0, 3, 17, device=samples.device)
        angle = (samples @ direction)[..., None] * node
        gauss = (-node.square() / 2).exp()
        distance = (angle.cos().mean(0) - gauss).square() + angle.sin().mean(0).square()
        return 2 * torch.trapezoid(distance * gauss, node, dim=-1).mean()


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
        self.condition = random(size.batch, times, 4).to(device)
        self.lead = torch.ones(size.batch, device=device)
        self.jepa = jepa_of(size).to(device).train()
        self.steps: dict[str, Callable[[], Tensor]] = {
            f"JEPA, {MASK:.0%} of the context's tokens dropped": lambda: self._jepa(MASK),
            "JEPA, every token": lambda: self._jepa(0.0),
        }
        self.networks: dict[str, nn.Module] = dict.fromkeys(self.steps, self.jepa)
        for dropout in (size.dropout, 0.0):
            plain = Plain(size, dropout).to(device).train()
            name = f"plain, dropout {dropout:g}"
            self.networks[name] = plain
            self.steps[name] = lambda plain=plain: plain(self.features, self.condition)
        adamw = partial(torch.optim.AdamW, lr=1e-4, betas=(0.9, 0.95))
        self.optimizers = {
            name: adamw(net.parameters(), fused=name.startswith("JEPA"))
            for name, net in self.networks.items()
        }

    def _jepa(self, ratio: float) -> Tensor:
        visible = None
        if ratio:
            places, states = self.jepa.position.cpu(), self.size.batch * HISTORY
            visible = block_mask(places, batch=states, ratio=ratio).to(self.device)
        return self.jepa.loss(
            self.features,
            None,
            condition=self.condition,
            lead_steps=self.lead,
            visible=visible,
        )["loss"]

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
        self.twin = Twin(jepa_of(size), Objective("supervised")).to(device).eval()
        random = partial(torch.randn, generator=torch.Generator().manual_seed(1))
        inits = INITIAL_TIMES if size.name != "quick" else 4
        self.context = random(inits, HISTORY, size.count, size.cells).to(device)
        self.condition = random(inits, STEPS, 4).to(device)
        self.lead = torch.ones(inits, device=device)
        self.ways: dict[str, Callable[[], Tensor]] = {
            "latent space, four leads decoded": self.latent,
            "pixels, last state encoded again": lambda: self.pixels(both=False),
            "pixels, both states encoded again": lambda: self.pixels(both=True),
        }

    @torch.no_grad()
    def latent(self) -> Tensor:
        """Fields at the asked leads."""
        history = self.twin.encode(self.context, None)
        rolled = self.twin.rollout(history, None, conditions=self.condition, lead_steps=self.lead)
        asked = [latent for k, latent in enumerate(rolled, start=1) if k in LEADS]
        return torch.stack([self.twin.head(latent) for latent in asked], dim=1)

    @torch.no_grad()
    def pixels(self, *, both: bool) -> Tensor:
        """Fields at the asked leads, every step by way of the fields."""
        states, out = self.context, []
        history = self.twin.encode(states, None)
        for k in range(STEPS):
            now = self.condition[:, k : k + 1]
            (latent,) = self.twin.rollout(history, None, conditions=now, lead_steps=self.lead)
            field = self.twin.head(latent)
            if k + 1 in LEADS:
                out.append(field)
            states = torch.cat([states[:, 1:], field[:, None]], dim=1)
            again = self.twin.encode(states if both else states[:, -1:], None)
            history = again if both else torch.cat([history[:, 1:], again], dim=1)
        return torch.stack(out, dim=1)

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


def ratio(found: dict[str, list[float]], name: str, references: Sequence[str]) -> str:
    """How many times faster than the fastest of the references, and the range over rounds."""
    each = [min(found[r][i] for r in references) / own for i, own in enumerate(found[name])]
    return f"{statistics.median(each):.2f}× [{min(each):.2f}, {max(each):.2f}]"


def main() -> None:
    """Measure, print, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["small", "deep"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=2, help="steps per round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    peak = matmul_rate(device, torch.bfloat16 if options.precision == "bf16" else torch.float32)
    lines = [
        "| training step | ms | FLOPs | of matmul | to the faster plain one |",
        "|---|---|---|---|---|",
    ]
    for size in (SIZES[s] for s in options.sizes):
        ways = Ways(size, device, options.precision)
        found = interleaved(list(ways.steps), ways.step, device, options.rounds, options.repeat)
        plain = [n for n in found if n.startswith("plain")]
        lines.append(f"| **{size.name}, batch {size.batch}** | | | | |")
        for name, times in found.items():
            took, flops = statistics.median(times), ways.flops(name)
            share, faster = f"{flops / took / peak:.0%}", ratio(found, name, plain)
            lines.append(f"| {name} | {1e3 * took:.1f} | {flops:.3g} | {share} | {faster} |")
        print(*lines[-1 - len(found) :], sep="\n", flush=True)
    lines += [
        "",
        f"| {STEPS} steps from {INITIAL_TIMES} initial times | s | latent space is faster |",
        "|---|---|---|",
    ]
    for size in (SIZES[s] for s in options.sizes):
        rolls = Rollouts(size, device, options.precision)
        found = interleaved(list(rolls.ways), rolls.step, device, max(3, options.rounds // 2), 1)
        first = next(iter(found))
        lines.append(f"| **{size.name}** | | |")
        for name, times in found.items():
            how = "" if name == first else ratio(found, first, [name])
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
