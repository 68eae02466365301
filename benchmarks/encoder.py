"""What an encoder is for: gaps, noise and fewer latents than cells, in tables.

    python benchmarks/encoder.py gaps CONFIG --out runs/gaps --data.store=FILE
    python benchmarks/encoder.py noise CONFIG --out runs/noise --data.store=FILE
    python benchmarks/encoder.py compression CONFIG --out runs/small --data.store=FILE

*gaps*: networks are trained on whole fields. Then blocks of 4 × 4 cells of the states that
forecasts start from are missing at random, others at every time. *noise*: white noise is added to
all states, in training and where forecasts start. *compression*: a token has a half or a quarter as
many latents as cells.

Readouts are fitted on states with the same gaps or noise, and everything is scored against whole,
clean states. Rows: the JEPA, the supervised twin as it is and trained with the same masks
(``supervised_masked``), frozen whitening with trained dynamics, the readout without any network,
and optimal interpolation into EOFs with a direct linear forecast from two states (``oi_linear``),
whose number of EOFs is chosen on the validation block. Every training is resumable; a second call
goes on.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
import zarr

from sciwm.config import Config, load_config
from sciwm.probe.samples import WHOLE, Part, readout_samples
from sciwm.readout.readout import Readouts, Sample, fit_readouts
from sciwm.run import verbs
from sciwm.run.directory import RunDir, hash_inputs, open_run
from sciwm.run.inputs import lead_steps
from sciwm.run.rivals import method_config, share_store
from sciwm.skill.baselines.eofs import leading_eofs
from sciwm.skill.significance import paired_difference
from sciwm.store.prepare import load_statistics, open_training_store
from sciwm.train.fit import build_world
from sciwm.world.model import WorldModel, load_world
from sciwm.world.rollout import back_of, initial_positions

BLOCK = 4  # cells of a side of what is missing together
EOFS = (20, 40, 60, 80)


@dataclass(frozen=True)
class Asked:
    """What to make: conditions, methods, seeds, the block that is scored, steps on whole fields."""

    conditions: Sequence[float]
    methods: Sequence[str]
    seeds: Sequence[int]
    block: str
    whole_steps: int


@dataclass(frozen=True)
class Row:
    """Squared errors of one method under one condition and seed, ``(init, lead, channel)``."""

    method: str
    condition: float
    seed: int
    squared: xr.DataArray


def with_gaps(store: xr.Dataset, share: float, *, seed: int) -> xr.Dataset:
    """A training store whose states lack blocks of cells; ``whole`` has them all."""
    state = store["state"].values
    rng = np.random.default_rng([seed, int(100 * share)])
    rows, columns = (-(-n // BLOCK) for n in state.shape[-2:])
    gone = np.zeros((len(state), rows * columns), bool)
    count = round(share * rows * columns)
    gone[:, :count] = True
    gone = rng.permuted(gone, axis=1).reshape(len(state), rows, columns)
    gone = gone.repeat(BLOCK, 1).repeat(BLOCK, 2)[:, : state.shape[-2], : state.shape[-1]]
    holes = np.where(gone[:, None], np.float32(np.nan), state)
    whole = store["state"].copy(data=state)
    return store.assign(state=store["state"].copy(data=holes), whole=whole)


def with_noise(clean: RunDir, run: RunDir, amount: float, *, seed: int) -> None:
    """Make the training store of a run that of another, with white noise on its states."""
    inputs = hash_inputs(clean.stage_inputs("prepare"), amount, seed)
    if run.is_fresh("prepare", inputs):
        return
    shutil.rmtree(run.train_store, ignore_errors=True)
    shutil.copytree(clean.train_store.resolve(), run.train_store)
    state = zarr.open_group(run.train_store, mode="r+")["state"]
    rng = np.random.default_rng(seed)
    for start in range(0, state.shape[0], 512):
        part = state[start : start + 512]
        state[start : start + 512] = part + amount * rng.standard_normal(part.shape, np.float32)
    run.record_stage("prepare", inputs, [run.train_store])


def trained(store: RunDir, config: Config, path: Path) -> WorldModel:
    """The world model of a run that is trained, or goes on, on the store of another."""
    run = open_run(path, replace(config, train=replace(config.train, rivals=[])))
    share_store(store, run)
    verbs.train(run, run.read_config())
    return load_world(run.path)


def score(
    world: WorldModel, store: xr.Dataset, config: Config, statistics_of: Path, *, block: str
) -> dict[str, xr.DataArray]:
    """Squared errors on a block of every readout, fitted on the training block."""
    world, leads = replace(world, missing="mask"), lead_steps(config, world.step)

    def samples(which: str, part: Part = WHOLE) -> Iterator[Sample]:
        return readout_samples(
            world,
            store,
            which=which,
            lead_steps=leads,
            part=part,
            progress=f"{which} block",
        )

    readouts = fit_readouts(
        samples("train", Part(config.probe.fraction, config.probe.init_every)),
        samples("validation"),
        lead_steps=leads,
        scope=config.probe.scope,
        strengths=config.probe.strengths,
        area=world.tokenizer.area,
    )
    parts: dict[str, list[np.ndarray]] = {kind: [] for kind in readouts}
    for sample in samples(block):
        for kind, read in readouts.items():
            parts[kind].append(squared(world, read, sample))
    scale = load_statistics(statistics_of).scale
    return {kind: labelled(np.concatenate(found), scale, leads) for kind, found in parts.items()}


def squared(world: WorldModel, read: Readouts, sample: Sample) -> np.ndarray:
    """Area means of squared errors, ``[init, lead, channel]``, standardized."""
    area, out = world.tokenizer.place.area, []
    for lead in range(sample.latents.shape[1]):
        made = read.read_fields(lead, sample.latents[:, lead], sample.initial)
        error = world.tokenizer.fields(made - sample.later[:, lead]).square()
        out.append((error * area).mean((-2, -1)))
    return torch.stack(out, 1).double().numpy()


def labelled(values: np.ndarray, scale: xr.DataArray, leads: Sequence[int]) -> xr.DataArray:
    """Squared errors in physical units, with names."""
    coords = {"lead_time": list(leads), "channel": scale["channel"].values}
    made = xr.DataArray(values, dims=("init_time", "lead_time", "channel"), coords=coords)
    return made * scale.values**2


def oi_linear(
    store: xr.Dataset, leads: Sequence[int], area: np.ndarray, back: int
) -> dict[int, np.ndarray]:
    """Optimal interpolation into EOFs, then a regression on those of two states.

    Initial times are those of networks, which look ``back`` so many states.

    Returns
    -------
    dict
        Squared errors ``[init, lead, channel]``, standardized, for each number of EOFs: of the
        validation block under negative numbers, of the test block under positive ones.
    """
    whole = store.get("whole", store["state"]).values
    seen = store["state"].values
    times, channels = whole.shape[:2]
    weight = np.sqrt(np.broadcast_to(area, whole.shape[1:])).reshape(-1)
    truth = whole.reshape(times, -1) * weight
    given = seen.reshape(times, -1) * weight
    split, segment = store["split"].values, store["segment"].values
    patterns, share = leading_eofs(truth[split == 0], max(EOFS))
    total = float((truth[split == 0] ** 2).sum(1).mean())
    found = {}
    for count in EOFS:
        basis, variance = patterns[:count], share[:count] * total
        rest = total * (1 - share[:count].sum()) / truth.shape[1]
        state = interpolated(given, basis, variance, rest)
        pairs = np.concatenate([state[1:], state[:-1]], axis=1)
        errors: dict[int, list[np.ndarray]] = {1: [], 2: []}
        for lead in leads:
            fit = initial_positions(segment, back=1, label=split, which=0, longest=lead)
            x, y = pairs[fit - 1], truth[fit + lead]
            gram = x.T @ x
            ridge = 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
            slope = np.linalg.solve(gram + ridge, x.T @ y)
            for block, parts in errors.items():
                start = initial_positions(
                    segment, back=max(1, back), label=split, which=block, longest=max(leads)
                )
                wrong = pairs[start - 1] @ slope - truth[start + lead]
                parts.append((wrong**2).reshape(len(start), channels, -1).mean(-1))
        found[-count], found[count] = (np.stack(errors[b], 1) for b in (1, 2))
    return found


def interpolated(
    given: np.ndarray, basis: np.ndarray, variance: np.ndarray, rest: float
) -> np.ndarray:
    """Most likely coefficients of EOFs, of the cells that were observed at each time."""
    out = np.empty((len(given), len(basis)), np.float32)
    for time, values in enumerate(given):
        there = np.isfinite(values)
        part = basis[:, there]
        precision = part @ part.T / rest + np.diag(1 / variance)
        out[time] = np.linalg.solve(precision, part @ values[there] / rest)
    return out


def run_oi(
    world: WorldModel, store: xr.Dataset, config: Config, statistics_of: Path, *, block: str
) -> xr.DataArray:
    """The row ``oi_linear`` beside a network, with the EOFs best on the validation block."""
    leads = lead_steps(config, world.step)
    found = oi_linear(store, leads, world.tokenizer.place.area.numpy(), back_of(world))
    best = min(EOFS, key=lambda n: found[-n].mean())
    scale = load_statistics(statistics_of).scale
    return labelled(found[best if block == "test" else -best], scale, leads)


def gaps(clean: RunDir, config: Config, out: Path, asked: Asked) -> list[Row]:
    """Rows of the table of gaps."""
    rows, store = [], open_training_store(clean.train_store).load()
    unmasked = replace(config.objective, mask_ratio=0.0)
    for seed in asked.seeds:
        worlds = {}
        for method in asked.methods:
            kind = method.removesuffix("_masked")
            own = method_config(config, kind, seed)
            if method in ("supervised", "whitened"):  # as one would train them for whole fields
                fewer = replace(own.train, steps=asked.whole_steps)
                own = replace(own, objective=replace(unmasked, kind=kind), train=fewer)
            worlds[method] = trained(clean, own, out / method / f"seed{seed}")
        for share in asked.conditions:
            seen = with_gaps(store, share, seed=0)
            for method, world in worlds.items():
                rows += kept(
                    out / method / f"seed{seed}" / f"{asked.block}_gaps{share:g}.nc",
                    partial(score, world, seen, config, clean.train_store, block=asked.block),
                    method,
                    share,
                    seed,
                )
            if seed == asked.seeds[0]:
                beside = next(iter(worlds.values()))
                squares = run_oi(beside, seen, config, clean.train_store, block=asked.block)
                rows.append(Row("oi_linear", share, seed, squares))
    return rows


def noise(clean: RunDir, config: Config, out: Path, asked: Asked) -> list[Row]:
    """Rows of the table of noise."""
    rows = []
    whole = open_training_store(clean.train_store)["state"].load()
    for amount in asked.conditions:
        noisy = open_run(out / f"noise{amount:g}" / "prepared", config)
        with_noise(clean, noisy, amount, seed=0)
        store = open_training_store(noisy.train_store).load().assign(whole=whole)
        for seed in asked.seeds:
            for method in asked.methods:
                path = out / f"noise{amount:g}" / method / f"seed{seed}"
                world = trained(noisy, method_config(config, method, seed), path)
                rows += kept(
                    path / f"{asked.block}.nc",
                    partial(score, world, store, config, clean.train_store, block=asked.block),
                    method,
                    amount,
                    seed,
                )
    return rows


def compression(clean: RunDir, config: Config, out: Path, asked: Asked) -> list[Row]:
    """Rows of the table of compression."""
    rows, store = [], open_training_store(clean.train_store).load()
    cells = build_world(config, clean.train_store).tokenizer.num_cells
    for share in asked.conditions:
        model = replace(config.model, latent_dim=max(1, round(share * cells)))
        for seed in asked.seeds:
            for method in asked.methods:
                own = method_config(replace(config, model=model), method, seed)
                path = out / f"latents{share:g}" / method / f"seed{seed}"
                world = trained(clean, own, path)
                rows += kept(
                    path / f"{asked.block}.nc",
                    partial(score, world, store, config, clean.train_store, block=asked.block),
                    method,
                    share,
                    seed,
                )
    return rows


MAKERS = {
    "gaps": (gaps, (0.0, 0.3, 0.5, 0.7, 0.9), "jepa,supervised,supervised_masked,whitened"),
    "noise": (noise, (0.0, 0.3, 1.0), "jepa,supervised,whitened,convnet"),
    "compression": (compression, (1.0, 0.5, 0.25), "jepa,whitened,supervised"),
}


def kept(
    path: Path,
    make: Callable[[], dict[str, xr.DataArray]],
    method: str,
    condition: float,
    seed: int,
) -> list[Row]:
    """Rows of all readouts, made once and then read from a file."""
    if not path.exists():
        xr.Dataset(make()).to_netcdf(path, engine="h5netcdf")
    names = {"residual": method, "local_linear": "local_linear"}
    with xr.open_dataset(path) as found:
        return [
            Row(names.get(str(k), f"{method}_{k}"), condition, seed, v.load())
            for k, v in found.data_vars.items()
        ]


def tables(rows: Sequence[Row], rival_of: str) -> tuple[pd.DataFrame, str]:
    """All numbers, and the same as Markdown: means over seeds, and p-values against the JEPA."""
    groups: dict[tuple[str, float], list[xr.DataArray]] = {}
    for row in rows:
        groups.setdefault((row.method, row.condition), []).append(row.squared)
    means = {key: sum(found) / len(found) for key, found in groups.items()}
    numbers, lines = [], []
    for condition in dict.fromkeys(row.condition for row in rows):
        own = means[rival_of, condition]
        for channel in own["channel"].values.tolist():
            head = " | ".join(f"{n:g}" for n in own["lead_time"].values)
            lines += [f"**{channel}**, {condition:g}", "", f"| RMSE, lead in steps | {head} |"]
            lines += ["|---" * (1 + own.sizes["lead_time"]) + "|"]
            for (method, at), squares in means.items():
                if at != condition:
                    continue
                each = [
                    np.sqrt(s.sel(channel=channel).mean("init_time")) for s in groups[method, at]
                ]
                value = np.mean([e.values for e in each], axis=0)
                spread = (
                    np.std([e.values for e in each], axis=0, ddof=1) if len(each) > 1 else 0 * value
                )
                p = p_values(squares, own).sel(channel=channel).values
                cells = [f"{v:.4g} ± {s:.2g}" for v, s in zip(value, spread, strict=True)]
                if method != rival_of:
                    cells = [
                        c + (f" ({q:.3f})" if np.isfinite(q) else "")
                        for c, q in zip(cells, p, strict=True)
                    ]
                lines.append(f"| {method} | " + " | ".join(cells) + " |")
                for lead, v, s, q in zip(own["lead_time"].values, value, spread, p, strict=True):
                    numbers.append((condition, channel, method, int(lead), v, s, q, len(each)))
            lines.append("")
    names = ["condition", "channel", "method", "lead_steps", "rmse", "std", "p_jepa", "num_seeds"]
    return pd.DataFrame(numbers, columns=names), "\n".join(lines)


def p_values(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Of the paired test with AR(2) errors."""
    first, second = (sums_of(x) for x in (one, other))
    return paired_difference(first, second).p_value.isel(region=0, drop=True)


def sums_of(squares: xr.DataArray) -> xr.DataArray:
    """Squared errors as sums that tests take."""
    parts = [xr.ones_like(squares), squares]
    named = xr.concat(parts, xr.Variable("statistic", ["weight", "squared_error"]))
    return named.expand_dims(region=["all"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and write ``encoder.csv`` and ``encoder.md``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(MAKERS))
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=json.loads, default=[0, 1, 2])
    parser.add_argument("--conditions", type=json.loads, help="such as [0.5,0.7]")
    parser.add_argument("--methods", help="such as jepa,whitened; the first is tested against")
    parser.add_argument("--whole-steps", type=int, help="steps of trainings without gaps")
    parser.add_argument("--block", choices=["test", "validation"], default="test")
    asked, flags = parser.parse_known_args(arguments)
    config = load_config(asked.config, flags)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    clean = open_run(asked.out / "prepared", config)
    verbs.prepare(clean, config)
    make, conditions, methods = MAKERS[asked.what]
    wanted = Asked(
        asked.conditions or conditions,
        (asked.methods or methods).split(","),
        asked.seeds,
        asked.block,
        asked.whole_steps or config.train.steps,
    )
    rows = make(clean, config, asked.out, wanted)
    frame, text = tables(rows, wanted.methods[0])
    frame.to_csv(asked.out / "encoder.csv", index=False)
    (asked.out / "encoder.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
