"""CRPS of an ensemble beside the single forecast dressed with one normal distribution, the bar any ensemble should beat.

    python benchmarks/dressed.py runs/members

Every cell, variable and lead gets the mean squared error that the single forecast had in the
validation block for a variance, the same for every initial time of the test block: a distribution
that knows how wrong forecasts are on average, and nothing about the day.
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
    """Single forecast minus observation, ``(init_time, lead_time, …)``, on the initial times of a block."""
    run = resolve_run(run_path)
    config = run.read_config()
    ds, world = open_data(config, run), sciwm.load(run_path)
    index = scored_positions(run, config, ds, split=split)
    forecast = xr.concat(world.forecast_batches(ds, index), "init_time").drop_vars(
        ["init_time", "lead_time"]
    )
    valid = xr.DataArray(
        index[:, None] + np.array(lead_steps(config, world.step)), dims=("init_time", "lead_time")
    )
    return (
        forecast
        - observations(config, ds)[list(forecast.data_vars)]
        .drop_vars("time")
        .isel(time=valid)
        .load()
    )


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
    ensemble = table[
        (table["metric"] == "crps")
        & (table["method"] == "jepa_ensemble")
        & (table["region"] == "all")
    ]
    for name, error in tested.data_vars.items():
        spread = np.sqrt((chosen[name] ** 2).mean("init_time"))
        weights = region_weights(error).isel(region=0, drop=True)
        dressed = normal_crps(error, spread).weighted(weights).mean(["init_time", *weights.dims])
        own = ensemble[ensemble["variable"] == name]["value"]
        print(
            f"{name}: dressed single forecast " + " / ".join(f"{x:.4g}" for x in dressed.values),
            end=", ",
        )
        print("ensemble " + " / ".join(f"{x:.4g}" for x in own))


if __name__ == "__main__":
    main()
