"""The table of a comparison: numbers by hand from made-up errors."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciwm.run.tally import Scored, fit_name, tally, to_markdown
from sciwm.skill.significance import paired_difference

COLUMNS = ["method", "readout", "labels", "channel", "region", "lead_hours", "metric"]
COLUMNS += ["value", "std", "lowest", "highest", "num_seeds", "units"]
LEADS = {"lead_column": "lead_hours", "leads": [24.0, 72.0]}
STATISTICS = ["weight", "error", "squared_error", "forecast_anomaly", "observed_anomaly"]


def sums(squared, dim, names):
    """Sums of one channel and region; squared errors are ``squared [name, init, lead]``."""
    values = np.zeros((*squared.shape, 1, 1, len(STATISTICS)))
    values[..., 0] = 2.0
    values[..., 2] = 2.0 * squared[..., None, None]
    dims = (dim, "init_time", "lead_time", "channel", "region", "statistic")
    coords = {
        dim: names,
        "init_time": np.arange(squared.shape[1]),
        "lead_time": [1, 3],
        "channel": ["t"],
        "region": ["all"],
    }
    return xr.DataArray(values, dims=dims, coords=coords | {"statistic": STATISTICS})


@pytest.fixture
def made():
    random = np.random.default_rng(0)
    fits = [fit_name("residual", 1), fit_name("latent", 1), fit_name("residual", 0.1)]
    runs = [(method, seed) for method in ("jepa", "supervised") for seed in (0, 1)]
    errors = {run: random.gamma(2.0, size=(3, 60, 2)) for run in runs}
    lim = random.gamma(2.5, size=(1, 60, 2))
    facts = {"train_flops": 1e9, "probe_r2": 0.5}
    scored = [
        Scored(m, s, sums(e, "fit", fits), facts | {"train_seconds": 10.0 + s})
        for (m, s), e in errors.items()
    ]
    return errors, lim, tally(scored, sums(lim, "method", ["lim"]), **LEADS, units={"t": "K"})


def test_errors_and_their_spread_over_seeds(made):
    errors, lim, frame = made
    assert list(frame.columns) == COLUMNS
    rmse = frame[frame["metric"] == "rmse"].set_index(["method", "readout", "labels", "lead_hours"])
    own = np.array([np.sqrt(errors["jepa", s][2, :, 1].mean()) for s in (0, 1)])
    row = rmse.loc[("jepa", "residual", 0.1, 72.0)]
    assert row["value"] == pytest.approx(own.mean())
    assert row["std"] == pytest.approx(own.std(ddof=1))
    assert [row["lowest"], row["highest"]] == pytest.approx(sorted(own))
    assert row["num_seeds"] == 2
    assert row["units"] == "K"
    baseline = frame[(frame["method"] == "lim") & (frame["lead_hours"] == 24.0)]
    assert baseline["value"].item() == pytest.approx(np.sqrt(lim[0, :, 0].mean()))
    assert baseline["readout"].item() == ""


def test_tests_are_of_the_seed_means(made):
    errors, lim, frame = made
    mean = {m: (errors[m, 0][:1] + errors[m, 1][:1]) / 2 for m in ("jepa", "supervised")}
    a, b, c = (sums(e, "method", ["x"]) for e in (mean["jepa"], mean["supervised"], lim))
    for metric, other in (("p_lim", c), ("p_supervised", b)):
        got = frame[(frame["method"] == "jepa") & (frame["metric"] == metric)]["value"].to_numpy()
        np.testing.assert_allclose(got, paired_difference(a, other).p_value.values.ravel())
    assert frame[(frame["method"] == "supervised") & (frame["metric"] == "p_supervised")].empty


def test_readouts_of_the_same_network_are_tested_against_by_name():
    random = np.random.default_rng(3)
    fits = [fit_name(readout, 1) for readout in ("residual", "decoder", "local_linear")]
    errors = {m: random.gamma(2.0, size=(3, 60, 2)) for m in ("jepa", "convnet")}
    scored = [
        Scored("jepa", 0, sums(errors["jepa"], "fit", [fits[0], "latent 1", fits[2]]), {}),
        Scored("convnet", 0, sums(errors["convnet"], "fit", [fits[0], fits[1], "latent 1"]), {}),
    ]
    two = random.gamma(2.5, size=(1, 60, 2))
    baselines = sums(two, "method", ["two_states"])
    frame = tally(scored, baselines, **LEADS, units={"t": "K"})
    own = sums(errors["jepa"][:1], "method", ["x"])
    rivals = {
        "two_states": two,
        "local_linear": errors["jepa"][2:],
        "convnet": errors["convnet"][:1],
        "convnet_decoder": errors["convnet"][1:2],
    }
    for rival, squared in rivals.items():
        rows = frame[(frame["method"] == "jepa") & (frame["metric"] == f"p_{rival}")]
        expected = paired_difference(own, sums(squared, "method", ["x"])).p_value.values.ravel()
        np.testing.assert_allclose(rows["value"].to_numpy(), expected)
    assert not frame["metric"].isin(["p_supervised", "p_supervised_decoder", "p_lim"]).any()


def test_facts_have_their_mean(made):
    _, _, frame = made
    seconds = frame[(frame["method"] == "jepa") & (frame["metric"] == "train_seconds")].iloc[0]
    assert seconds["value"] == 10.5
    assert seconds["units"] == "s"
    assert frame[frame["metric"] == "parameters"].empty


def test_it_reads_well(made):
    errors, _, frame = made
    text = to_markdown(frame)
    lines = text.splitlines()
    for title in ("RMSE of t, K", "Cost and health", "p-values against lim"):
        assert f"## {title}" in lines
    assert "## p-values against supervised" in lines
    assert "| | 24 | 72 |" in lines
    own = [np.sqrt(errors["jepa", s][0, :, 0].mean()) for s in (0, 1)]
    assert f"{np.mean(own):.3f} ± {np.std(own, ddof=1):.3f}" in text
    assert text.count("**") == 4  # the best of each lead
    assert "| jepa, 10 % |" in text
    assert "| jepa_latent |" in text


def test_numbers_have_the_decimals_of_their_spread(made):
    _, _, frame = made
    skill = frame[frame["metric"] == "rmse"].tail(2)
    tests = frame[frame["metric"] == "p_lim"].head(2)
    names = ["parameters", "train_flops"]
    facts = pd.DataFrame({"method": "jepa", "metric": names, "num_seeds": 2, "units": "1"})
    shown = pd.concat([skill, tests, facts], ignore_index=True)
    shown["value"] = [1046.94, 2.0171, 4e-4, 0.0301, 606624.0, 2.138e13]
    shown["std"] = [2.61, 0.0028, np.nan, np.nan, 0.0, 0.0]
    text = to_markdown(shown)
    for cell in ("1,046.9 ± 2.6", "2.017 ± 0.003", "< .001", "0.030", "606,624", "2.14e+13"):
        assert f" {cell} " in text.replace("**", "")


def test_one_seed_has_no_spread(made):
    errors, lim, _ = made
    one = [Scored("jepa", 0, sums(errors["jepa", 0][:1], "fit", [fit_name("residual", 1)]), {})]
    frame = tally(one, sums(lim, "method", ["lim"]), **LEADS, units={})
    assert frame["std"].isna().all()
    assert "±" not in to_markdown(frame)
    assert set(frame["metric"]) == {"rmse", "p_lim"}
