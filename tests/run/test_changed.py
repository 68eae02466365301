"""Runs whose later settings change: what comes out is what a new run of these settings gives."""

import json
import shutil

import pandas as pd
import pytest
import xarray as xr

import sciwm
from sciwm.config import load_config
from sciwm.run import verbs
from sciwm.run.compare import compare
from sciwm.run.directory import hash_inputs, open_run
from sciwm.testing import double_well, small_climate

SMALL = [
    "--model.width=8",
    "--model.encoder_width=8",
    "--model.predictor_blocks=1",
    "--train.rivals=[]",
    "--train.steps=6",
    "--train.batch_size=8",
    "--skill.resamples=20",
    "--skill.lim_eofs=[5]",
]


def climate(folder, *more):
    """Settings of a small climate with a land-sea mask."""
    path = folder / "climate.nc"
    ds = small_climate(years=4, grid=(8, 12))
    if not path.exists():
        share = (ds["longitude"] > ds["longitude"].mean()).astype(float)
        ds.assign(lsm=share.broadcast_like(ds["z500"].isel(time=0, drop=True))).to_netcdf(path)
    year = int(ds["time"].dt.year[0])
    blocks = {"train": (0, 1), "validation": (2, 2), "test": (3, 3)}
    return [
        f"--data.store={path}",
        "--data.variables=[z500,t850]",
        "--data.static=[lsm]",
        *(
            f'--data.split.{name}=["{year + first}-01-01", "{year + last}-12-31"]'
            for name, (first, last) in blocks.items()
        ),
        "--data.harmonics=1",
        "--model.patch_size=[4, 4]",
        "--objective.rollout=2",
        '--forecast.lead_times=["1 day", "3 days"]',
        "--forecast.init_every=6",
        *SMALL,
        *more,
    ]


def grid(folder):
    """A JEPA on a grid."""
    return climate(folder)


def twin(folder):
    """A supervised twin on a grid."""
    return climate(folder, "--objective.kind=supervised")


def molecule(folder):
    """A JEPA of trajectories, whose torsions are read out."""
    if not (folder / "trajectory_0.nc").exists():
        ds = double_well(num_trajectories=4, num_frames=150)
        for number in range(4):
            part = ds.isel(time=ds["segment"].values == number).drop_vars("segment")
            part.to_netcdf(folder / f"trajectory_{number}.nc")
    return [
        f"--data.store={folder}/trajectory_*.nc",
        "--data.climatology=constant",
        "--data.split.by=segment",
        "--data.split.train=[0,1]",
        "--data.split.validation=[2]",
        "--data.split.test=[3]",
        "--probe.targets=[phi,psi]",
        '--forecast.lead_times=["1 ps", "5 ps"]',
        "--objective.rollout=1",
        "--objective.lead_steps=[1, 5]",
        *SMALL,
    ]


FIELDS = [
    "--probe.halo=1",
    "--probe.scope=shared",
    "--probe.strengths=[0.1, 1.0]",
    "--forecast.init_every=4",
    "--skill.metrics=[rmse, acc]",
    "--skill.baselines=[persistence, damped_persistence]",
    "--skill.regions=[all, land]",
    "--skill.events=['t850>280']",
    "--skill.resamples=10",
]
SERIES = [
    "--probe.strengths=[0.1, 1.0]",
    "--probe.fraction=0.5",
    "--forecast.init_every=3",
    "--skill.metrics=[nmse]",
    "--skill.baselines=[persistence]",
    "--skill.regions=[phi]",
    "--skill.resamples=10",
]


def run(path, overrides):
    config = load_config("", overrides)
    made = open_run(path, config)
    verbs.run_all(made, config)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Finished runs by kind, each with the folder of its data; do not change them."""
    made = {}

    def finish(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind.__name__)
            made[kind] = (run(folder / "run", kind(folder)), folder)
        return made[kind]

    return finish


@pytest.mark.parametrize(
    ("kind", "later"),
    [(grid, FIELDS), (molecule, SERIES), (twin, FIELDS)],
    ids=["grid", "molecule", "twin"],
)
def test_changed_settings_give_what_a_new_run_gives(kind, later, finished, tmp_path):
    first, folder = finished(kind)
    shutil.copytree(first.path, tmp_path / "changed")
    settings = [*kind(folder), *later]
    changed, fresh = run(tmp_path / "changed", settings), run(tmp_path / "fresh", settings)
    weights = {r.weights_file.read_bytes() for r in (first, changed, fresh)}
    assert len(weights) == 1
    before, *tables = (pd.read_csv(r.table_file) for r in (first, changed, fresh))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert set(tables[0]["metric"]) != set(before["metric"])
    assert set(tables[0]["method"]) != set(before["method"])  # other baselines
    names = [sorted(p.name for p in r.forecasts_folder.iterdir()) for r in (changed, fresh)]
    assert names[0] == names[1]
    halo = {model.readouts["residual"].halo for model in both_of(changed)}
    assert halo == {1 if kind is not molecule else 0}


def test_a_forecast_that_fails_leaves_the_old_ones(finished, tmp_path, monkeypatch):
    first, folder = finished(grid)
    shutil.copytree(first.path, tmp_path / "run")
    (tmp_path / "run" / "forecasts" / "theirs.zarr").mkdir()
    before = sorted((tmp_path / "run" / "forecasts").iterdir())

    def fails(*_, **__):
        raise OSError("the disk is gone")

    monkeypatch.setattr("sciwm.world.model.predicted_latents", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        run(tmp_path / "run", [*grid(folder), "--forecast.init_every=4"])
    assert sorted((tmp_path / "run" / "forecasts").iterdir()) == before
    assert (tmp_path / "run" / "forecast.zarr" / "zarr.json").exists()


def test_a_model_of_an_older_format_is_trained_again(finished, tmp_path, capsys):
    first, _ = finished(grid)
    shutil.copytree(first.path, tmp_path / "run")
    made, config = open_run(tmp_path / "run", first.read_config()), first.read_config()
    stages = json.loads(made.stages_file.read_text())
    older = (config.model, config.objective, config.train, config.seed)
    stages["train"]["inputs"] = hash_inputs(made.stage_inputs("prepare"), *older)
    made.stages_file.write_text(json.dumps(stages))
    about = json.loads(made.model_file.read_text())
    made.model_file.write_text(json.dumps(about | {"format": 2}))
    with pytest.raises(ValueError, match=r"in format 2, expected 3; .*run `sciwm train` again"):
        sciwm.load(made.path)
    verbs.train(made, config)
    assert sciwm.load(made.path).seed == config.seed
    assert made.weights_file.read_bytes() == first.weights_file.read_bytes()


def both_of(made):
    """The trained model of a run, and the untrained one beside it."""
    return sciwm.load(made.path), sciwm.load(made.path / "random_encoder")


def test_a_twin_is_called_what_it_is(finished, tmp_path):
    made, folder = finished(twin)
    with xr.open_zarr(made.forecast_store) as ds:
        assert ds.attrs["method"] == "supervised"
    assert {p.name for p in made.forecasts_folder.iterdir()} == {
        "supervised_latent.zarr",
        "supervised_decoder.zarr",
        "local_linear.zarr",
        "random_encoder.zarr",
    }
    page = made.report_file.read_text()
    assert "trained to forecast pixels" in page
    assert "joint-embedding" not in page
    assert "Supervised twin" in page
    year = int(small_climate(years=4)["time"].dt.year[0]) + 3
    out = tmp_path / "later.zarr"
    init = (f"{year}-03-01", f"{year}-03-05", None)
    verbs.forecast_store(made, store=str(folder / "climate.nc"), init=init, out=out)
    with xr.open_zarr(out) as ds:
        assert ds.attrs["method"] == "supervised"


def test_a_molecule_has_a_methods_section_of_its_own(finished):
    page = finished(molecule)[0].report_file.read_text()
    text = page[page.index("The forecast model is") : page.index("were compared with")]
    assert "one token for each atom" in text
    assert "the distances between all pairs" in page
    for word in ("patch", "anomal", "cells"):
        assert word not in text, word


def test_a_region_without_a_mask_is_refused_before_any_training(tmp_path):
    ds = small_climate(years=4, grid=(8, 12))
    overrides = climate(tmp_path, "--skill.regions=[land]")
    ds.to_netcdf(tmp_path / "bare.nc")
    bare = [o for o in overrides if not o.startswith("--data.st")]
    config = load_config("", [*bare, f"--data.store={tmp_path / 'bare.nc'}"])
    with pytest.raises(ValueError, match="land"):
        compare(config, out=tmp_path / "refused", seeds=[0], methods=["jepa"])
    assert not (tmp_path / "refused" / "jepa").exists()
    (problem,) = verbs.check(config)
    assert "land" in problem


@pytest.fixture
def counted(monkeypatch):
    """How often initial times were rolled forward by each network, and forecast by baselines."""
    from sciwm.skill.baselines import by_name
    from sciwm.world import rollout

    rolled, made = {}, {}
    plain_roll, plain_fit = rollout.predicted_latents, by_name.fit_baseline

    def roll(world, state, index, *args, **options):
        weights = sum(float(w.detach().double().sum()) for w in world.network.parameters())
        key = (weights, world.network.objective.settings.kind)
        if int(index[0]) >= 3 * 365:  # the test block
            rolled[key] = rolled.get(key, 0) + len(index)
        yield from plain_roll(world, state, index, *args, **options)

    def fit(name, *args, **options):
        fitted = plain_fit(name, *args, **options)
        forecast = fitted.forecast

        def count(init):
            made[name] = made.get(name, 0) + init.size
            return forecast(init)

        object.__setattr__(fitted, "forecast", count)
        return fitted

    monkeypatch.setattr("sciwm.world.model.predicted_latents", roll)
    monkeypatch.setattr("sciwm.probe.samples.predicted_latents", roll)
    monkeypatch.setattr("sciwm.skill.lineup.fit_baseline", fit)
    return rolled, made


def test_a_run_rolls_each_network_once_and_makes_each_baseline_once(tmp_path, counted):
    rolled, made = counted
    done = run(tmp_path / "grid", climate(tmp_path, "--model.noise_dim=4", "--forecast.members=3"))
    with xr.open_zarr(done.forecast_store) as ds:
        inits = ds.sizes["time"]
    assert inits > 20
    assert len(rolled) == 2  # trained and untrained
    assert set(rolled.values()) == {inits}
    assert set(made) == {"climatology", "persistence", "damped_persistence", "lim"}
    assert set(made.values()) == {inits}


def test_a_comparison_rolls_each_network_once_and_makes_each_baseline_once(tmp_path, counted):
    rolled, made = counted
    config = load_config("", climate(tmp_path, "--skill.regions=[all, land]"))
    methods = ["jepa", "supervised", "random"]
    frame = compare(config, out=tmp_path / "out", seeds=[0], methods=methods)
    assert set(frame["region"].dropna()) == {"all", "land"}
    inits = set(rolled.values())
    assert len(inits) == 1
    # Each of the three, and each as an encoder alone, whose context needs no rolling.
    assert len(rolled) == 6
    assert set(made.values()) == inits
