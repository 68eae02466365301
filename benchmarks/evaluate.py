"""Speed and memory of scoring ten years of global daily forecasts, beside xskillscore's.

    python benchmarks/evaluate.py --data DIR
    python benchmarks/evaluate.py --data DIR --inits 200

The first has 3650 initial times × 10 leads × 121×240 × 3 variables: 12.7 GB in memory. The stores
are written once, a block at a time. Every measurement is a process of its own; ways take turns,
ratios are medians over the rounds. Both ways get the same lazily computed climatology at the
valid times, and compute RMSE, bias and anomaly correlation in one call. xskillscore's correlation
is centred and taken day by day, so only RMSE and bias are compared digit by digit.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

import sciwm

NAMES = {"z500": "m2 s-2", "t850": "K", "msl": "Pa"}
LEADS, GRID, TRAIN, BLOCK = 10, (121, 240), 730, 10


def write_stores(folder: Path, inits: int) -> tuple[Path, Path]:
    """Observations (two years to train on, then what is scored) and forecasts.

    Forecasts are the observed values with noise that grows with the lead.
    """
    truth, forecast = folder / f"truth_{inits}.zarr", folder / f"forecast_{inits}.zarr"
    if forecast.exists():
        return truth, forecast
    days = TRAIN + inits + LEADS
    time_axis = np.datetime64("2000-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    space = {"latitude": np.linspace(90, -90, GRID[0]), "longitude": np.arange(GRID[1]) * 1.5}
    lead = (np.arange(LEADS) + 1).astype("timedelta64[D]").astype("timedelta64[ns]")
    start = {"time": time_axis[TRAIN : TRAIN + inits], "prediction_timedelta": lead, **space}
    unfinished = folder / "part.zarr"
    observed = _create(truth, {"time": time_axis, **space}, (64, *GRID))
    made = _create(unfinished, start, (BLOCK, LEADS, *GRID))
    rng = np.random.default_rng(0)
    season = np.cos(2 * np.pi * np.arange(days) / 365.25).astype("f4")[:, None, None]
    for name in NAMES:
        for first in range(0, days, 64):
            part = slice(first, first + 64)
            noise = rng.standard_normal((min(64, days - first), *GRID), dtype="f4")
            observed[name][part] = _rounded(280 + 10 * season[part] + 5 * noise)
        growth = np.sqrt(np.arange(1, LEADS + 1, dtype="f4"))[:, None, None]
        for first in range(0, inits, BLOCK):
            values = observed[name][TRAIN + first + 1 : TRAIN + first + BLOCK + LEADS]
            count = min(BLOCK, inits - first)
            windows = np.stack([values[i : i + LEADS] for i in range(count)])
            noise = growth * rng.standard_normal((1, *GRID), dtype="f4")
            made[name][first : first + count] = _rounded(windows + 0.1 + noise)
    unfinished.rename(forecast)
    return truth, forecast


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.round(values * 16) / 16


def _create(path: Path, coords: dict[str, np.ndarray], chunks: tuple[int, ...]) -> zarr.Group:
    xr.Dataset(coords=coords).to_zarr(path, mode="w", zarr_format=3, consolidated=False)
    group = zarr.open_group(path, mode="r+")
    shape = tuple(len(v) for v in coords.values())
    for name, units in NAMES.items():
        group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype="float32",
            dimension_names=list(coords),
            attributes={"units": units},
        )
    return group


def score(way: str, truth: Path, forecast: Path) -> dict[str, object]:
    """Scores, seconds and peak memory of one way."""
    observed, ours = sciwm.open_dataset(truth), sciwm.open_forecast(forecast)
    reference = sciwm.skill.fit_reference(observed, train=slice("2000-01-01", "2001-12-15"))
    began = time.perf_counter()
    if way == "sciwm":
        metrics = ["rmse", "bias", "acc"]
        options = {"baselines": (), "metrics": metrics, "resamples": 0}
        skill = sciwm.skill.evaluate({"model": ours}, observed, reference=reference, **options)
        value = skill["value"].isel(method=0, region=0)
        scores = {m: value.sel(metric=m).to_pandas().to_dict("index") for m in metrics}
    else:
        scores = _xskillscore(ours, observed, reference)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    plain = {
        m: {c: [float(x) for x in by_lead.values()] for c, by_lead in s.items()}
        for m, s in scores.items()
    }
    return {"scores": plain, "seconds": seconds, "peak": peak}


def _xskillscore(
    ours: xr.Dataset, observed: xr.Dataset, reference: "sciwm.skill.Reference"
) -> dict[str, dict[str, dict[object, float]]]:
    import dask
    import xskillscore as xs

    init, lead = ours["init_time"], ours["lead_time"]
    days = (lead.values / np.timedelta64(1, "D")).astype(int)
    place = np.searchsorted(observed["time"].values, init.values)[:, None] + days
    at_valid = observed.isel(time=xr.DataArray(place, dims=("init_time", "lead_time")))
    at_valid = at_valid.drop_vars(["time", "segment"], errors="ignore")
    at_valid = at_valid.assign_coords(init_time=init, lead_time=lead).chunk(init_time=BLOCK)
    normal = sciwm.skill.climatology_forecast(reference, observed, init.values, lead.values)
    normal = normal.chunk(init_time=BLOCK)
    weights = np.cos(np.deg2rad(observed["latitude"])) * xr.ones_like(observed["longitude"])
    space = ["latitude", "longitude"]
    rmse = xs.rmse(ours, at_valid, dim=space, weights=weights)
    error = xs.me(ours, at_valid, dim=space, weights=weights)
    acc = xs.pearson_r(ours - normal, at_valid - normal, dim=space, weights=weights)
    rmse, error, acc = dask.compute(
        (rmse**2).mean("init_time") ** 0.5, error.mean("init_time"), acc.mean("init_time")
    )
    found = {"rmse": rmse, "bias": error, "acc": acc}
    return {
        m: {name: dict(enumerate(ds[name].values)) for name in NAMES} for m, ds in found.items()
    }


def measure(way: str, folder: Path, inits: int) -> dict[str, object]:
    """`score` in a process of its own."""
    options = ["--data", str(folder), "--inits", str(inits), "--way", way]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *options]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(out.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for the stores")
    parser.add_argument("--inits", type=int, default=3650)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    truth, forecast = write_stores(options.data, options.inits)
    if options.way:
        print(json.dumps(score(options.way, truth, forecast)))
        return
    seen: dict[str, list[dict[str, object]]] = {"sciwm": [], "xskillscore": []}
    for number in range(options.rounds):
        for way, found in seen.items():
            found.append(measure(way, options.data, options.inits))
            took, peak = found[-1]["seconds"], found[-1]["peak"]
            print(f"round {number + 1}: {way} {took:.0f} s, {peak:.2f} GiB", flush=True)
    for metric in ("rmse", "bias"):
        for name in NAMES:
            a, b = (np.array(seen[w][0]["scores"][metric][name]) for w in seen)
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    size = options.inits * LEADS * np.prod(GRID) * 4 * len(NAMES) / 1e9
    what = f"{options.inits} initial times × {LEADS} leads × {GRID[0]}×{GRID[1]}"
    print(f"\n{what} × {len(NAMES)} variables: {size:.1f} GB of float32\n")
    print("| way | seconds | GB/s | peak memory, GiB | time to sciwm's |\n|---|---|---|---|---|")
    for way, found in seen.items():
        seconds = statistics.median(f["seconds"] for f in found)
        pairs = zip(found, seen["sciwm"], strict=True)
        ratio = statistics.median(f["seconds"] / s["seconds"] for f, s in pairs)
        peak = max(f["peak"] for f in found)
        print(f"| {way} | {seconds:.0f} | {size / seconds:.2f} | {peak:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
