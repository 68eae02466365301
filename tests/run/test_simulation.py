"""Simulations in a run: worlds with known ends, and a stage that is made once."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from sciwm import testing
from sciwm.config import (
    Config,
    ConfigError,
    ForecastConfig,
    ModelConfig,
    ObjectiveConfig,
    ProbeConfig,
    load_config,
)
from sciwm.model.jepa import JEPA
from sciwm.probe.state import fit_state
from sciwm.run import verbs
from sciwm.run.directory import open_run
from sciwm.run.inputs import config_problems
from sciwm.run.simulation import started_from
from sciwm.skill import fit_reference
from sciwm.skill.simulation import diagnose_simulations, simulation_table
from sciwm.store.prepare import open_training_store
from sciwm.train.fit import build_world
from tests.worlds import store

NOISE = 64


class Linear(nn.Module):
    """Every latent decays or grows by a factor a step; noise keeps the variance of a decay at 1."""

    history, noise_dim = 1, NOISE

    def __init__(self, tokens, dim, *, factor):
        super().__init__()
        self.out_dim, self.factor = dim, factor
        ways = torch.randn(tokens, dim, NOISE, generator=torch.Generator().manual_seed(1))
        self.ways = nn.functional.normalize(ways, dim=-1)

    def start(self, context, known):
        return context[:, -1]

    def step(self, memory, known):
        after = self.factor * memory
        if known.noise is not None:
            drawn = torch.einsum("tdn,bn->btd", self.ways, known.noise)
            after = after + (1 - self.factor**2) ** 0.5 * drawn
        return after, after


@pytest.fixture(scope="module")
def ds():
    return testing.small_climate(years=3, periodic=True)


@pytest.fixture(scope="module")
def linear(ds, tmp_path_factory):
    """A world model whose latents are the cells, with dynamics to be chosen."""
    path = store(ds, tmp_path_factory.mktemp("globe"))
    settings = Config(
        model=ModelConfig(patch_size=[4, 4], history=1),
        objective=ObjectiveConfig(kind="convnet"),
        probe=ProbeConfig(strengths=[0.001]),
    )
    made = build_world(settings, path)

    def with_factor(factor):
        n = made.network
        dynamics = Linear(made.tokenizer.num_tokens, made.tokenizer.num_cells, factor=factor)
        return dataclasses.replace(
            made, network=JEPA(n.encoder, dynamics, n.objective, n.sizes), readouts=state
        )

    state = {"state": fit_state(made, open_training_store(path), probe=settings.probe)}
    return with_factor


def judged(world, ds, *, members, length="365 days"):
    index = np.array([660, 800, 940, 1090])
    first = ds.time.values < ds.time.values[657]
    return diagnose_simulations(
        {"jepa": world.simulate_batches(ds, index, length=length, members=members)},
        ds,
        reference=fit_reference(ds, train=first, harmonics=1),
        every=1,
    )


def test_a_stable_world_keeps_its_variance_with_noise_and_fades_without(linear, ds):
    kept = simulation_table(judged(linear(0.85), ds, members=4))
    np.testing.assert_allclose(kept["spread_ratio"], 1.0, atol=0.12)
    assert (kept["drift"].abs() < 2 * kept["truth_mean_std"]).all()
    np.testing.assert_allclose(kept.filter(like="cycle_ratio"), 1.0, atol=0.1)
    assert (kept["simulations"] == 16).all()
    faded = simulation_table(judged(linear(0.85), ds, members=0))
    assert (faded["spread_ratio"] < 0.1).all()
    assert (faded["change_ratio"] < 0.05).all()
    assert not faded["blown_up"].any()
    # What is left is the climatology.
    np.testing.assert_allclose(faded.filter(like="cycle_ratio"), 1.0, atol=0.02)


def test_an_unstable_world_blows_up_when_its_largest_anomaly_passes_the_limit(linear, ds):
    found = judged(linear(1.1), ds, members=0, length="120 days")
    assert found["alive"].values[0, 0] == 4
    assert found["alive"].values[0, -1] == 0
    store_limit, days = 20.0, found["blowup"].values[0] / 24
    climate = fit_reference(ds, train=ds.time.values < ds.time.values[657], harmonics=1)
    area = np.cos(np.deg2rad(ds.latitude))
    expected = []
    for at in (660, 800, 940, 1090):
        steps = []
        for name in ("z500", "t850"):
            a = climate.anomaly[name]
            scale = float((a**2).weighted(area).mean() ** 0.5)
            limit = max(store_limit * scale, 2 * float(abs(a).max()))
            here = ds[name][at] - climate.climatology.at(ds.time[[at]])[name][0]
            steps.append(np.log(limit / float(abs(here).max())) / np.log(1.1))
        expected.append(np.ceil(min(steps)))
    np.testing.assert_allclose(days, expected, atol=1)


SMALL = [
    "--model.patch_size=[4,4]",
    "--model.width=16",
    "--model.encoder_width=16",
    "--model.predictor_blocks=1",
    "--model.reach=1",
    "--model.noise_dim=4",
    "--train.batch_size=8",
    "--train.steps=2",
    "--train.optimizer=adamw",
    "--train.rivals=[]",
    "--skill.resamples=20",
    "--skill.lim_eofs=[5]",
    "--skill.baselines=[climatology]",
    "--data.harmonics=1",
    '--data.split.train=["2001-01-01", "2002-09-30"]',
    '--data.split.validation=["2002-10-01", "2003-03-31"]',
    '--data.split.test=["2003-04-01", "2003-12-31"]',
    '--forecast.lead_times=["1 day"]',
    "--forecast.init_every=30",
    "--forecast.members=2",
]
LONG = ["--forecast.simulate=60 days", "--forecast.simulate_inits=3"]


def test_a_run_simulates_once_and_leaves_its_forecasts_alone(ds, tmp_path, capsys):
    """Asked for later, nothing but the simulation and the report is made."""
    ds.drop_vars("segment").to_netcdf(tmp_path / "globe.nc")
    target = [f"--data.store={tmp_path / 'globe.nc'}", *SMALL]
    run = open_run(tmp_path / "run", load_config("", target))
    verbs.run_all(run, run.read_config())
    assert not run.simulation_file.exists()
    assert "rolled forward" not in run.report_file.read_text()
    with pytest.raises(ValueError, match=r"forecast.simulate = '', expected a length"):
        verbs.simulate(run, run.read_config())
    forecast = run.stage_inputs("forecast")

    asked = load_config("", [*target, *LONG])
    with pytest.raises(FileNotFoundError, match="sciwm simulate"):
        verbs.report(run, asked)
    capsys.readouterr()
    verbs.run_all(open_run(run.path, asked), asked)
    said = capsys.readouterr().out
    done = ["prepare", "train", "probe", "forecast", "evaluate"]
    assert all(f"{stage}: up to date" in said for stage in done)
    assert "9 simulations of 60 days from 3 initial times, none of them blown up" in said
    assert run.stage_inputs("forecast") == forecast
    with xr.open_dataset(run.simulation_file) as found:
        assert found.method.values.tolist() == ["jepa", "jepa_ensemble"]
        assert found.num_simulations.values.tolist() == [3, 6]
        assert found.attrs["longest"] == 60 * 24
        first, last = found.init_time.values[[0, -1]]
        assert (first > np.datetime64("2003-04-01"), last) == (True, ds.time.values[-1])
        assert np.isfinite(found["spread"]).all()
    assert "60 days, rolled forward" in run.report_file.read_text()

    verbs.run_all(run, asked)
    said = capsys.readouterr().out
    assert all(f"{stage}: up to date" in said for stage in [*done, "simulate", "report"])


def test_initial_times_of_the_validation_block_where_the_test_block_is_short(ds, tmp_path):
    ds.drop_vars("segment").to_netcdf(tmp_path / "globe.nc")
    short = '--data.split.test=["2003-12-20", "2003-12-31"]'
    target = [f"--data.store={tmp_path / 'globe.nc'}", *SMALL, *LONG, short]
    run = open_run(tmp_path / "run", load_config("", target))
    verbs.prepare(run, run.read_config())
    labels = open_training_store(run.train_store)["split"].values

    def blocks(count):
        own = dataclasses.replace(run.read_config().forecast, simulate_inits=count)
        index = started_from(run, dataclasses.replace(run.read_config(), forecast=own), ds)
        assert len(index) == count
        return set(labels[index].tolist())

    assert blocks(4) == {2}
    assert blocks(40) == {1, 2}


def test_lengths_that_mean_nothing_are_refused(ds):
    with pytest.raises(ConfigError, match=r"in forecast\.simulate"):
        ForecastConfig(simulate="a year")
    with pytest.raises(ConfigError, match=r"of the kind of forecast\.lead_times"):
        ForecastConfig(simulate="12 months")
    with pytest.raises(ConfigError, match=r"forecast\.simulate_inits"):
        ForecastConfig(simulate_inits=0)
    odd = Config(forecast=ForecastConfig(simulate="36 hours"))
    assert "multiple of the data's step" in "; ".join(config_problems(odd, ds))
    still = ObjectiveConfig(kind="masked_autoencoder", mask_ratio=0.75)
    none = Config(objective=still, forecast=ForecastConfig(simulate="30 days"))
    assert "has no dynamics" in "; ".join(config_problems(none, ds))
