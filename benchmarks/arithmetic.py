"""Arithmetic of a training step: bfloat16 against float32, and what moves the weights.

    OMP_NUM_THREADS=1 python benchmarks/arithmetic.py --threads 1

`sciwm.train.precision` follows the first table, `sciwm.train.optimizer` the second. Environment
variables hide instructions from the kernels, which then run as on an older processor:
`ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI` hides AVX512_BF16, and `ONEDNN_MAX_CPU_ISA=AVX2` with
`ATEN_CPU_CAPABILITY=avx2` all of AVX-512. What `auto` chooses is said of the processor itself.

Times are of the processor, so that a busy machine matters less; with several threads, they are
sums. Every round measures all ways once, in changing order. Ratios are medians over the rounds of
the ratio within a round, to the first way.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from machine import processor
from torch import Tensor, nn
from torch.nn import functional

from sciwm.train.optimizer import Muon
from sciwm.train.precision import resolve_precision

WIDTH, GRID = 96, (12, 24)


class LocalBlock(nn.Module):
    """Depth-wise convolution over a grid of tokens, then a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(WIDTH, WIDTH, 5, groups=WIDTH)
        self.norm, self.up = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to tokens, ``(batch, token, width)``."""
        grid = x.mT.reshape(len(x), WIDTH, *GRID)
        grid = functional.pad(grid, (2, 2, 0, 0), mode="circular")
        grid = functional.pad(grid, (0, 0, 2, 2), mode="replicate")
        y = self.norm(self.mix(grid).flatten(2).mT)
        return x + self.down(functional.gelu(self.up(y)))


def leaf(*shape: int) -> Tensor:
    """Random numbers that take a gradient."""
    return torch.randn(shape).requires_grad_()


def works(small: bool) -> dict[str, Callable[[], Tensor]]:
    """Forward passes that a training step is made of; names say their sizes."""
    n, batch = (64, 2) if small else (4096, 64)
    x, w = leaf(n, 192), leaf(96, 192)
    grid, kernel = leaf(batch, WIDTH, 16, 16), leaf(WIDTH, 1, 5, 5)
    heads = leaf(batch, 4, 256, 24)
    blocks, tokens = nn.Sequential(*(LocalBlock() for _ in range(4))), leaf(batch, 12 * 24, WIDTH)
    return {
        f"matrix product {n}×192 @ 192×96": lambda: functional.linear(x, w),
        f"depth-wise 5×5 convolution of [{batch}, {WIDTH}, 16, 16]": lambda: functional.conv2d(
            grid, kernel, padding=2, groups=WIDTH
        ),
        f"attention, {batch}×4 heads, 256 tokens of 24": lambda: (
            functional.scaled_dot_product_attention(heads, heads, heads)
        ),
        f"four local blocks, {batch}×288 tokens of {WIDTH}": lambda: blocks(tokens),
    }


def once(work: Callable[[], Tensor], *, half: bool) -> None:
    """Forward, in bfloat16 by autocast or not, and backward."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        result = work()
    result.float().sum().backward()


def optimizers(small: bool) -> dict[str, Callable[[], object]]:
    """Steps on equal parameters and gradients: 64 tensors of 367,000 numbers."""
    shapes: list[tuple[int, ...]] = [(96, 192), (192, 96), (96, 64), (96, 1, 5, 5)]
    shapes = [*shapes, (192,), (96,), (96,), (64,)] * (1 if small else 8)

    def parameters() -> list[nn.Parameter]:
        torch.manual_seed(0)
        made = [nn.Parameter(torch.randn(s)) for s in shapes]
        for p in made:
            p.grad = torch.randn_like(p)
        return made

    def ours(matrices_to: str) -> Muon:
        params = parameters()
        hidden = [p for p in params if p.ndim == 2]
        rest = [p for p in params if p.ndim != 2]
        rate = 0.02 if matrices_to == "muon" else 1e-3
        one = {"params": hidden, "lr": rate, "weight_decay": 0.1, "kind": matrices_to}
        return Muon([one, {"params": rest, "lr": 1e-3, "weight_decay": 0.0, "kind": "adamw"}])

    params = parameters()
    groups = [
        {"params": [p for p in params if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim != 2], "weight_decay": 0.0},
    ]
    ways = {
        "torch.optim.AdamW, fused": torch.optim.AdamW(
            groups, lr=1e-3, betas=(0.9, 0.95), fused=True
        ).step,
        "ours, all AdamW": ours("adamw").step,
        "ours, matrices Muon": ours("muon").step,
    }
    if hasattr(torch.optim, "Muon"):
        matrices = [p for p in parameters() if p.ndim == 2]
        ways["torch.optim.Muon, matrices only"] = torch.optim.Muon(matrices, lr=0.02).step
    return ways


def in_turn(
    ways: dict[str, Callable[[], object]], rounds: int, repeat: int = 1
) -> dict[str, list[float]]:
    """Seconds of processor in every round, the mean of some calls; the order turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for work in ways.values():
        work()
    names = list(ways)
    for number in range(rounds):
        for name in [*names[number % len(names) :], *names[: number % len(names)]]:
            began = time.process_time()
            for _ in range(repeat):
                ways[name]()
            found[name].append((time.process_time() - began) / repeat)
    return found


def ratio(found: Sequence[float], reference: Sequence[float]) -> str:
    """Median of the ratios within rounds, and their range."""
    each = [own / other for own, other in zip(found, reference, strict=True)]
    return f"{statistics.median(each):.2f}× [{min(each):.2f}, {max(each):.2f}]"


def main() -> None:
    """Measure, print, write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--out", type=Path, help="Markdown file for the tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    lines = ["| forward and backward | float32, ms | bfloat16, ms | ratio |", "|---|---|---|---|"]
    for name, work in works(options.small).items():
        pair = {
            "float32": lambda work=work: once(work, half=False),
            "bfloat16": lambda work=work: once(work, half=True),
        }
        found = in_turn(pair, options.rounds)
        single, half = (1e3 * statistics.median(times) for times in found.values())
        faster = ratio(found["bfloat16"], found["float32"])
        lines.append(f"| {name} | {single:.1f} | {half:.1f} | {faster} |")
    lines += ["", "| step of an optimiser | ms | ratio |", "|---|---|---|"]
    found = in_turn(optimizers(options.small), options.rounds, repeat=10)
    for name, times in found.items():
        faster = ratio(times, next(iter(found.values())))
        lines.append(f"| {name} | {1e3 * statistics.median(times):.2f} | {faster} |")
    how = f"{options.threads} threads on {processor()}, torch {torch.__version__}"
    lines += ["", f"{how}, {options.rounds} rounds; auto: {resolve_precision('auto', 'cpu')}."]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
