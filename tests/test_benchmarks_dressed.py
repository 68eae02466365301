"""The single forecast with a normal distribution around it, the bar of ensembles."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, stats

from sciwm.regions import region_weights
from tests.scripts import load_benchmark


@pytest.mark.parametrize(("departure", "spread"), [(0.0, 1.0), (2.0, 0.5), (-1.5, 3.0)])
def test_crps_is_the_integral_of_its_definition(departure, spread):
    module = load_benchmark("dressed")

    def squared(x):
        return (stats.norm.cdf(x, departure, spread) - (x >= 0)) ** 2

    ends = (departure - 12 * spread, 0), (0, departure + 12 * spread)
    expected = sum(integrate.quad(squared, *both)[0] for both in ends)
    found = module.normal_crps(xr.DataArray(departure), xr.DataArray(spread))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_errors_are_those_that_the_run_scored(finished_run):
    module = load_benchmark("dressed")
    error = module.errors(finished_run, "test")
    table = pd.read_csv(finished_run / "skill.csv")
    rows = table.query("method == 'jepa' and metric == 'rmse' and region == 'all'")
    assert len(rows)
    for name, one in rows.groupby("variable"):
        weights = region_weights(error[name]).isel(region=0)
        found = np.sqrt((error[name] ** 2).weighted(weights).mean(["init_time", *weights.dims]))
        np.testing.assert_allclose(found, one["value"], rtol=1e-4)
    validation = module.errors(finished_run, "validation")
    assert validation.sizes["init_time"] != error.sizes["init_time"]
