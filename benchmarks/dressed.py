"""CRPS of an ensemble beside the single forecast dressed with one normal distribution.

    python benchmarks/dressed.py runs/members

That is the bar any ensemble should beat: a distribution that knows how wrong forecasts are on
average, and nothing about the day. The variance of every cell, variable and lead is the mean
squared error that the single forecast had in the validation block. It is the same for every initial
time of the test block.
"""

import argparse
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import scoringrules
import xarray as xr

import sciwm
from sciwm.regions import region_weights
from sciwm.run.directory import resolve_run
from sciwm.run.inputs import lead_steps, observations, open_data, scored_positions


def errors(run_path: Path, split: Literal["validation", "test"]) -> xr.Dataset:
    """Single forecast minus observation of a block, ``(init_time, lead_time, …)``."""
    run = resolve_run(run_path)
    config = run.read_config()
    ds, world = open_data(config, run), sciwm.load(run_path)
    index = scored_positions(run, config, ds, split=split)
    batches = [batch["residual"] for batch in world.forecast_batches(ds, index)]
    forecast = xr.concat(batches, "init_time")
    forecast = forecast.drop_vars(["init_time", "lead_time"])
    leads = np.array(lead_steps(config, world.step))
    valid = xr.DataArray(index[:, None] + leads, dims=("init_time", "lead_time"))
    observed = observations(config, ds)[list(forecast.data_vars)].drop_vars("time")
    return forecast - observed.isel(time=valid).load()


def normal_crps(departure: xr.DataArray, spread: xr.DataArray) -> xr.DataArray:
    """CRPS of a normal distribution whose mean is off by ``departure``."""
    return xr.apply_ufunc(scoringrules.crps_normal, 0.0, departure, spread)


def main() -> None:
    """Print the dressed forecast beside the ensemble of ``skill.csv``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    chosen, tested = errors(options.run, "validation"), errors(options.run, "test")
    table = pd.read_csv(options.run / "skill.csv")
    ensemble = table.query("metric == 'crps' and method == 'jepa_ensemble' and region == 'all'")
    for name, error in tested.data_vars.items():
        spread = np.sqrt((chosen[name] ** 2).mean("init_time"))
        weights = region_weights(error).isel(region=0, drop=True)
        dressed = normal_crps(error, spread).weighted(weights).mean(["init_time", *weights.dims])
        own = ensemble[ensemble["variable"] == name]["value"]
        alone, together = (" / ".join(f"{x:.4g}" for x in v) for v in (dressed.values, own))
        print(f"{name}: dressed single forecast {alone}, ensemble {together}")


if __name__ == "__main__":
    main()
