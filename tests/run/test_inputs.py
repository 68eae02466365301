"""What baselines learn is what the states of a run were made with."""

import dataclasses

import numpy as np
import xarray as xr

from sciwm.run import verbs
from sciwm.run.directory import RunDir
from sciwm.run.inputs import open_data, reference_of
from sciwm.skill.baselines.simple import climatology_forecast
from sciwm.store.prepare import load_statistics


def test_baselines_share_the_pooled_climatology_of_the_states(finished_run):
    run = RunDir(finished_run)
    config = run.read_config()
    assert config.data.climatology_pool == "domain"
    ds = open_data(config)
    reference = reference_of(run)
    train = ds.isel(time=np.flatnonzero(ds.segment.isin([0, 1])))
    area = np.cos(np.deg2rad(ds.latitude))
    mean = train.astype("float64").weighted(area).mean()
    scale, normal = float(train.psi1.std()), reference.climatology.coefficients
    for name in ("psi1", "psi2"):
        np.testing.assert_allclose(normal[name], float(mean[name]), atol=1e-12 * scale)
    own = load_statistics(run.train_store).climatology.coefficients
    xr.testing.assert_identical(normal.psi1.variable, own.psi1.variable)
    for part, segments in ((reference.anomaly, [0, 1]), (reference.validation, [2])):
        there = ds.isel(time=np.flatnonzero(ds.segment.isin(segments)))
        expected = there.psi1.values - float(mean.psi1)
        np.testing.assert_allclose(part.psi1.values, expected, atol=1e-5 * scale)
    leads = reference.step.lead_times(np.array([2]))
    init = ds.time[ds.segment == 3][[4, 8]]
    forecast = climatology_forecast(reference, ds, init, leads).psi2
    np.testing.assert_allclose(forecast, float(mean.psi2), atol=1e-12 * scale)


def test_check_advises_to_pool_where_means_of_cells_are_noise(finished_run, capsys):
    config = RunDir(finished_run).read_config()
    assert verbs.check(config) == []
    advice = "looks like sampling noise: try data.climatology_pool: domain"
    assert advice not in " ".join(capsys.readouterr().out.split())
    alone = dataclasses.replace(config.data, climatology_pool="none")
    assert verbs.check(dataclasses.replace(config, data=alone)) == []
    assert advice in " ".join(capsys.readouterr().out.split())
