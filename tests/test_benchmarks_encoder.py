"""What an encoder is for: gaps, noise and few latents are made as said; whole states are scored."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciwm.config import dump_config
from tests.run.test_compare import settings
from tests.scripts import load_benchmark


@pytest.fixture(scope="module")
def module():
    return load_benchmark("encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "tiny.yaml").write_text(dump_config(settings(folder)))
    return folder


def made(module, folder, what, *flags):
    """The table of a call, and the folder it was written to."""
    out = folder / what
    common = [what, str(folder / "tiny.yaml"), "--out", str(out), "--seeds", "[0]"]
    module.main([*common, *flags])
    return pd.read_csv(out / "encoder.csv"), out


def test_gaps_are_whole_blocks_of_the_share_asked_for(module):
    rng = np.random.default_rng(0)
    state = xr.DataArray(
        rng.normal(size=(20, 2, 8, 12)).astype("f4"), dims=("time", "channel", "lat", "lon")
    )
    seen = module.with_gaps(xr.Dataset({"state": state}), 0.5, seed=0)
    gone = np.isnan(seen["state"].values)
    assert gone.mean() == pytest.approx(0.5)
    blocks = gone.reshape(20, 2, 2, 4, 3, 4).mean(axis=(3, 5))
    assert set(np.unique(blocks)) == {0.0, 1.0}
    assert (gone[:, 0] == gone[:, 1]).all()
    assert len({g.tobytes() for g in gone}) > 10  # others at every time
    np.testing.assert_array_equal(seen["whole"].values, state.values)


def test_interpolation_finds_the_coefficients_of_what_it_sees(module):
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(40, 3)))[0].T
    wanted = rng.normal(size=(6, 3)) * [3, 2, 1]
    fields = wanted @ basis
    fields[:, ::3] = np.nan
    found = module.interpolated(fields, basis, np.array([9.0, 4.0, 1.0]), 1e-6)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_gaps_make_forecasts_worse_and_rows_are_kept(module, folder):
    flags = ["--objective.mask_ratio=0.5", "--objective.mask=random", "--conditions", "[0,0.5]"]
    table, out = made(module, folder, "gaps", *flags)
    rows = table.pivot_table(index="method", columns="condition", values="rmse")
    assert {"jepa", "supervised", "supervised_masked", "whitened", "oi_linear"} <= set(rows.index)
    assert (rows.loc["local_linear", 0.5] > 1.02 * rows.loc["local_linear", 0.0]).all()
    assert np.isfinite(rows.values).all()
    files = {p: p.stat().st_mtime_ns for p in out.rglob("test_gaps*.nc")}
    again, _ = made(module, folder, "gaps", *flags)
    assert files == {p: p.stat().st_mtime_ns for p in out.rglob("test_gaps*.nc")}
    pd.testing.assert_frame_equal(again, table)


def test_noise_is_added_to_states_but_not_to_what_is_scored(module, folder):
    flags = ["--conditions", "[0,1]", "--methods", "jepa,whitened"]
    table, _ = made(module, folder, "noise", *flags)
    rows = table.pivot_table(index="method", columns="condition", values="rmse")
    ratio = rows[1.0] / rows[0.0]
    assert (ratio > 1.02).all()
    # Were the noise in what is scored, too, its variance of 1 would be in every error.
    assert (ratio < 1.4).all()


def test_fewer_latents_are_fewer_and_validation_is_another_block(module, folder):
    flags = ["--conditions", "[0.25]", "--methods", "jepa,whitened"]
    table, out = made(module, folder, "compression", *flags)
    with xr.open_dataset(out / "latents0.25" / "jepa" / "seed0" / "test.nc") as ds:
        assert ds["residual"].sizes["init_time"] > 50
    other, _ = made(module, folder, "compression", *flags, "--block", "validation")
    assert not np.allclose(other["rmse"], table["rmse"])
    assert other["p_jepa"].notna().any()
