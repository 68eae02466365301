"""Does training on block-shuffled windows cost accuracy? Many orders against a global shuffle.

    python benchmarks/shuffle.py --seeds 5 --out shuffle.md

Block mode shuffles windows among the few blocks of times that fit in memory
(`sciwm.streams.windows.plan_epoch`). This trains the same small network on the same record in many
orders and compares the errors on a second record, which no order has seen.

*Record.* Lorenz's 1996 model with slowly varying forcing stands for 20,000 six-hourly states, 13.7
years: weather that decorrelates within days, an annual cycle, regimes that last about a season, and
a drift over the whole record. Neighbouring windows are alike in their weather and come from the
same season, regime and decade, which is what makes bad shuffles hurt. Windows have 6 states; a
network of two hidden layers sees the first two and forecasts the last. The validation record has
the same annual cycle and drift, other weather and other regimes, like a second member of an
ensemble.

*Training.* Every seed has its own record, first weights and order. Of a seed, all orders share
record and first weights. All orders have the same number of steps, the same batch size (so they see
equally many windows), and the same AdamW with the warm-up and cosine decay of `sciwm.train`. The
learning rate was chosen for the global shuffle (`--tune` repeats that search; `RATES` has its log).
`--schedule constant` is the hard case: no decay averages over the last windows seen, so that the
order shows most. Models of all orders and seeds are trained side by side, as one stack of weights,
which changes nothing but the speed.

*Effective batch size.* n_eff = Σ Var(single window) / Σ Var(batch mean). Sums are over the five
leading principal components of the windows' first states, variances over all windows of the record
and all batches of the run. It is the number of independent draws whose mean scatters as much: n for
a global shuffle, and n / (1 + (n − 1) ρ) if windows of a batch have correlation ρ.
"""

import argparse
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sciwm.streams.sizes import CHOICES
from sciwm.streams.windows import Ordering, Rules, Spacing, Windows, find_windows, plan_epoch

Schedule = Literal["cosine", "constant"]

# As in sciwm/streams/sizes.py: times per block, blocks mixed, times per chunk of the store.
(BLOCK, POOL), CHUNK = CHOICES[0], 32
WINDOW = 6
BATCH = 32
# Chosen by validation loss of the global shuffle, 5 seeds.
# Cosine: 1e-3 0.1431, 3e-3 0.1003, 1e-2 0.0827, 1.5e-2 0.0842, 2e-2 0.0991, 3e-2 0.1531.
# Constant: 1e-3 0.1248, 3e-3 0.1084, 1e-2 0.1671, 1.5e-2 0.2224, 2e-2 0.3173.
RATES = {"cosine": 1e-2, "constant": 3e-3}
YEAR = 1460  # six-hourly times
CELLS = 16
LIMIT = 1.5  # per cent that the default may lose


@dataclass(frozen=True)
class Draw:
    """One way to order windows: a row of the table."""

    order: Ordering
    stride: int
    block: int = BLOCK
    pool: int = POOL

    @property
    def name(self) -> str:
        """As printed."""
        what = {
            "global": "global shuffle",
            "none": "sequential",
            "block": f"block {self.block} × pool {self.pool}",
        }[self.order]
        return what + (", default" if self == DEFAULT else "")

    @property
    def read(self) -> float:
        """Times decoded per time of the record.

        A block is read with the windows that reach beyond it, in whole chunks.
        """
        return -(-(self.block + WINDOW - 1) // CHUNK) * CHUNK / self.block


DEFAULT = Draw("block", WINDOW)
REFERENCE = Draw("global", 1)
FAIR = Draw("global", WINDOW)
SEQUENTIAL = Draw("none", 1)
DRAWS = [
    REFERENCE,
    FAIR,
    SEQUENTIAL,
    Draw("none", WINDOW),
    DEFAULT,
    Draw("block", WINDOW, 256, 32),
    Draw("block", WINDOW, 1024, 8),
    Draw("block", WINDOW, 256, 8),
    Draw("block", 1),
    Draw("block", 1, 256, 32),
    Draw("block", 1, 256, 8),
]
QUICK = [REFERENCE, FAIR, SEQUENTIAL, Draw("block", WINDOW, 128, 4)]


@dataclass(frozen=True)
class Result:
    """What the orders gave.

    Parameters
    ----------
    draws : list of Draw
    loss : ndarray, ``[draw, seed]``
        Mean squared error on the validation record, in variances of the forecast change.
    effective : ndarray, ``[draw, seed]``
        Effective batch size.
    steps, num_times : int
        Optimiser steps of every model, and times of the record.
    """

    draws: list[Draw]
    loss: np.ndarray
    effective: np.ndarray
    steps: int
    num_times: int

    def excess(self, draw: Draw, reference: Draw = REFERENCE) -> tuple[float, float]:
        """Loss relative to another order's, minus 1.

        Ratio of the means over seeds, and standard deviation of the seeds' own ratios.
        """
        loss, base = self.loss[self.draws.index(draw)], self.loss[self.draws.index(reference)]
        spread = float((loss / base).std(ddof=1)) if len(loss) > 1 else math.nan
        return loss.mean() / base.mean() - 1, spread


def slow_forcing(num_times: int, rng: np.random.Generator, members: int) -> np.ndarray:
    """Forcing ``[time, member, cell]``: members share annual cycle and drift, not regimes."""
    place = 2 * np.pi * np.arange(CELLS) / CELLS
    time = np.arange(num_times)[:, None]
    annual = 4 * np.cos(2 * np.pi * time / YEAR - place)
    drift = 3 * (time / num_times - 0.5) * (1 + np.sin(2 * place))
    # Regimes: six fixed patterns, entered at random, left after 90 days in the mean; half a week to
    # change over.
    patterns = 3 * rng.standard_normal((6, CELLS))
    shift = rng.random((num_times, members)) < 1 / 360
    shift[0] = True
    last = np.maximum.accumulate(np.where(shift, time, 0))
    regime = patterns[np.take_along_axis(rng.integers(6, size=(num_times, members)), last, axis=0)]
    kernel = np.hanning(16) / np.hanning(16).sum()

    def smooth(x: np.ndarray) -> np.ndarray:
        return np.convolve(np.pad(x, (8, 7), mode="edge"), kernel, mode="valid")

    regime = np.apply_along_axis(smooth, 0, regime)
    return 8 + (annual + drift)[:, None] + regime


def make_records(num_times: int, seed: int) -> np.ndarray:
    """States ``[train or validation, time, cell]``, centred and scaled by cell, float32."""
    rng = np.random.default_rng([seed, 1996])
    spin, step = 200, 0.05
    forcing = slow_forcing(num_times + spin, rng, 2)
    noise = 0.1 * math.sqrt(step) * rng.standard_normal(forcing.shape)
    left, left2, right = (np.roll(np.arange(CELLS), k) for k in (1, 2, -1))

    def tendency(x: np.ndarray, f: np.ndarray) -> np.ndarray:
        return (x[:, right] - x[:, left2]) * x[:, left] - x + f

    states = np.empty_like(forcing)
    x = rng.standard_normal((2, CELLS))
    for t, f in enumerate(forcing):
        k1 = tendency(x, f)
        k2 = tendency(x + step / 2 * k1, f)
        k3 = tendency(x + step / 2 * k2, f)
        k4 = tendency(x + step * k3, f)
        x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4) + noise[t]
        states[t] = x
    states = (states + 0.7 * forcing)[spin:].swapaxes(0, 1)
    return ((states - states[0].mean(0)) / states[0].std(0)).astype(np.float32)


def draw_starts(draw: Draw, windows: Windows, seed: int, num: int) -> np.ndarray:
    """First times of the first ``num`` windows, over as many epochs as it takes.

    As in the loader, every epoch ends with a whole batch.
    """
    parts: list[np.ndarray] = []
    rules = Rules(seed, draw.order, draw.block, draw.pool, every=draw.stride)
    while sum(map(len, parts)) < num:
        plan = plan_epoch(windows, rules, epoch=len(parts))
        parts.append(plan.starts[: len(plan) // BATCH * BATCH])
    return np.concatenate(parts)[:num]


def effective_batch(states: np.ndarray, starts: np.ndarray) -> float:
    """Effective batch size, as the module defines it, of windows in the order they are drawn."""
    first = states[: len(states) - WINDOW + 1]
    centred = first - first.mean(0)
    features = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -5:]
    means = features[starts].reshape(-1, BATCH, features.shape[1]).mean(1)
    return float((features**2).mean(0).sum() / (means**2).mean(0).sum())


def examples(states: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs ``[start, 2 · cell]`` and targets ``[start, cell]`` of all windows.

    Inputs are the first two states, targets the change from the first to the last.
    """
    n = len(states) - WINDOW + 1
    inputs = np.concatenate([states[:n], 4 * (states[1 : n + 1] - states[:n])], axis=1)
    return torch.from_numpy(inputs), torch.from_numpy(states[WINDOW - 1 :] - states[:n])


def first_weights(seed: int, sizes: list[int]) -> list[torch.Tensor]:
    """Weights and biases of one network."""
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for fan_in, fan_out in pairwise(sizes):
        weights += [
            torch.randn(fan_in, fan_out, generator=generator) / math.sqrt(fan_in),
            torch.zeros(1, fan_out),
        ]
    return weights


def forward(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Outputs ``[model, sample, cell]`` of a stack of networks."""
    for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = torch.nn.functional.gelu(torch.baddbmm(bias, x, weight))
    return torch.baddbmm(weights[-1], x, weights[-2])


def pace(step: int, steps: int, schedule: Schedule) -> float:
    """Learning rate relative to the largest.

    Warm-up over a twentieth of the steps, then a half cosine or no change.
    """
    warm = max(1, steps // 20)
    if schedule == "constant":
        return min((step + 1) / warm, 1.0)
    part = max(0, step - warm) / max(1, steps - warm)
    return min((step + 1) / warm, 1e-3 + 0.5 * (1 + math.cos(math.pi * part)))


def train(
    records: list[np.ndarray],
    starts: np.ndarray,
    *,
    schedule: Schedule = "cosine",
    rate: float | None = None,
    hidden: int = 128,
) -> np.ndarray:
    """Train a network for every draw and seed, and score it.

    Parameters
    ----------
    records : list of ndarray, ``[train or validation, time, cell]``
        One for each seed.
    starts : ndarray, ``[draw, seed, step · batch]``
        Windows in the order of training.
    schedule : {"cosine", "constant"}
        What the learning rate does after the warm-up.
    rate : float, optional
        Largest learning rate; by default the one chosen for the schedule.
    hidden : int
        Width of both hidden layers.

    Returns
    -------
    ndarray, ``[draw, seed]``
        Validation loss.
    """
    num_draws, num_seeds, num = starts.shape
    steps, rate = num // BATCH, rate or RATES[schedule]
    pairs = [examples(r[0]) for r in records]
    inputs, targets = torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])
    offset = np.arange(num_seeds)[:, None] * len(pairs[0][0])
    by_step = (starts + offset).reshape(-1, steps, BATCH).swapaxes(0, 1)
    rows = torch.from_numpy(by_step.reshape(steps, -1).copy())
    nets = [first_weights(s, [2 * CELLS, hidden, hidden, CELLS]) for s in range(num_seeds)]
    layers = zip(*nets, strict=True)
    weights = [torch.stack(list(w) * num_draws).requires_grad_() for w in layers]
    optimizer = torch.optim.AdamW(
        weights, lr=rate, betas=(0.9, 0.95), weight_decay=1e-2, fused=True
    )
    models = num_draws * num_seeds
    for step in track(range(steps), description=f"training, {schedule} rate {rate:g}"):
        optimizer.param_groups[0]["lr"] = rate * pace(step, steps, schedule)
        x, y = (v.index_select(0, rows[step]).view(models, BATCH, -1) for v in (inputs, targets))
        # Summed over models, so that each has the gradient of its own mean.
        loss = (forward(weights, x) - y).square().mean((1, 2)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return validate(weights, records, num_draws)


@torch.no_grad()
def validate(weights: list[torch.Tensor], records: list[np.ndarray], num_draws: int) -> np.ndarray:
    """Loss ``[draw, seed]`` over every window of the validation records.

    Relative to the variance of the target.
    """
    loss = np.empty((num_draws, len(records)))
    for seed, record in enumerate(records):
        inputs, targets = examples(record[1])
        scale = targets.var(0, correction=0).mean()
        for draw in range(num_draws):
            one = [w[draw * len(records) + seed].unsqueeze(0) for w in weights]
            error = forward(one, inputs.unsqueeze(0))[0] - targets
            loss[draw, seed] = float(error.square().mean() / scale)
    return loss


def compare(
    draws: list[Draw],
    *,
    seeds: int,
    steps: int,
    num_times: int,
    schedule: Schedule = "cosine",
    rate: float | None = None,
) -> Result:
    """Train in all orders."""
    records = [make_records(num_times, s) for s in track(range(seeds), description="records")]
    windows = find_windows(
        np.zeros(num_times, np.int8), np.zeros(num_times), which="train", spacing=Spacing(WINDOW)
    )
    starts = np.stack(
        [[draw_starts(d, windows, s, steps * BATCH) for s in range(seeds)] for d in draws]
    )
    states = [record[0] for record in records]
    effective = [list(map(effective_batch, states, of_draw)) for of_draw in starts]
    loss = train(records, starts, schedule=schedule, rate=rate)
    return Result(draws, loss, np.array(effective), steps, num_times)


def tune(schedule: Schedule, *, seeds: int, steps: int, num_times: int) -> None:
    """Print the loss of the global shuffle for several learning rates."""
    same = {"seeds": seeds, "steps": steps, "num_times": num_times, "schedule": schedule}
    for rate in (1e-3, 3e-3, 1e-2, 1.5e-2, 2e-2, 3e-2):
        result = compare([REFERENCE], rate=rate, **same)
        print(f"{rate:g}: {result.loss.mean():.4f}")


def rows(result: Result) -> list[list[str]]:
    """Cells of the table, heading first."""
    to_global = ["to global, stride 1", "to global, own stride"]
    table = [["order", "stride", "loss", *to_global, f"n_eff of {BATCH}", "read"]]
    for number, draw in enumerate(result.draws):
        cells = [draw.name, str(draw.stride), f"{result.loss[number].mean():.4f}"]
        for base in (REFERENCE, REFERENCE if draw.stride == 1 else FAIR):
            mean, spread = result.excess(draw, base)
            cells.append("–" if draw == base else f"{100 * mean:+.1f} ± {100 * spread:.1f} %")
        cells += [
            f"{result.effective[number].mean():.1f}",
            f"{draw.read:.2f} ×" if draw.order == "block" else "",
        ]
        table.append(cells)
    return table


def markdown(result: Result) -> str:
    """The table."""
    head, *body = rows(result)
    lines = [
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
        *("| " + " | ".join(row) + " |" for row in body),
    ]
    return "\n".join(lines) + "\n"


def show(result: Result, console: Console) -> None:
    """The table on the terminal, and what the default costs."""
    head, *body = rows(result)
    seeds = result.loss.shape[1]
    steps = f"{result.steps} steps of {BATCH}, {seeds} seeds"
    table = Table(title=f"{result.num_times} times, windows of {WINDOW}, {steps}")
    for number, name in enumerate(head):
        table.add_column(name, no_wrap=number == 0)
    for row in body:
        table.add_row(*row)
    console.print(table)
    if DEFAULT in result.draws:
        cost = 100 * result.excess(DEFAULT)[0]
        console.print(
            f"The default's loss is {cost:+.1f} % off a global shuffle's:"
            f" {'within' if cost <= LIMIT else 'NOT within'} {LIMIT} %."
        )


def main() -> None:
    """Train, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument(
        "--schedule",
        choices=["cosine", "constant"],
        default="cosine",
        help="learning rate after the warm-up",
    )
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds, four orders, two seeds: does it run?"
    )
    parser.add_argument(
        "--tune", action="store_true", help="search the learning rate of the global shuffle instead"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tune:
        tune(options.schedule, seeds=options.seeds, steps=options.steps, num_times=20_000)
        return
    schedule = options.schedule
    if options.quick:
        result = compare(QUICK, schedule=schedule, seeds=2, steps=300, num_times=3000)
    else:
        size = {"seeds": options.seeds, "steps": options.steps, "num_times": 20_000}
        result = compare(DRAWS, schedule=schedule, **size)
    show(result, Console())
    if options.out:
        options.out.write_text(markdown(result), encoding="utf-8")


if __name__ == "__main__":
    main()
