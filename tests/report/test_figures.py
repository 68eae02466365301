"""Line figures: axes, units, intervals, training curves."""

import numpy as np
from reports import hour_leads, skill_table, tiny_skill

from sciwm.report import figures
from sciwm.report.labels import lead_axis


def test_axes_start_at_zero_and_carry_units(drawn):
    metrics = ("rmse", "acc", "bias")
    skill = skill_table(["z500"], ["m2 s-2"], hour_leads(0.25, 0.5, 1.0), metrics=metrics)
    leads = lead_axis(skill["lead_time"])
    for metric in metrics:
        one = skill.isel(channel=0, region=0).sel(metric=metric)
        figures.skill_figure(one, title="z500", units="m2 s-2", metric=metric, leads=leads, key="a")
    rmse, acc, bias = (f.axes[0] for f in drawn)
    assert rmse.get_ylim()[0] == 0
    assert rmse.get_ylabel() == "RMSE (m² s⁻²)"
    assert rmse.get_xlabel() == "Lead time (hours)"
    assert list(rmse.get_xticks()) == [6, 12, 24]
    assert acc.get_ylim()[1] == 1
    assert acc.get_ylabel() == "ACC"
    assert bias.get_ylabel() == "Bias (m² s⁻²)"
    expected = skill["value"].sel(metric="rmse").isel(method=0).values.ravel()
    np.testing.assert_allclose(rmse.lines[-1].get_ydata(), expected)


def test_no_skill_is_drawn_where_it_is(drawn):
    skill = tiny_skill({"jepa": [0.8, 0.7], "lim": [0.75, 0.6]}).isel(channel=0, region=0, metric=0)
    leads = lead_axis(skill["lead_time"])
    for metric, line, label in (
        ("roc_area", 0.5, "ROC area"),
        ("acc", 0.0, "ACC"),
        ("fss_5", 0.0, "FSS, 5 × 5 cells"),
    ):
        figures.skill_figure(skill, title="t", units="K", metric=metric, leads=leads, key="a")
        ax = drawn[-1].axes[0]
        assert ax.lines[-1].get_ydata() == [line, line]
        assert ax.get_ylabel() == label


def test_single_lead_shows_intervals(drawn):
    skill = tiny_skill({"jepa": [1.0], "climatology": [2.0]}).isel(channel=0, region=0, metric=0)
    leads = lead_axis(skill["lead_time"])
    figures.skill_figure(skill, title="z", units="m", metric="rmse", leads=leads, key="a")
    bars = [c.get_segments()[0][:, 1] for c in drawn[0].axes[0].collections]
    np.testing.assert_allclose(sorted(map(tuple, bars)), [(0.99, 1.01), (1.99, 2.01)])


def test_training_curves_skip_what_is_missing_and_keep_the_last_point(drawn):
    missing = {"probe_r2": None, "smallest_std": float("nan")}
    log = [
        {"step": i, "split": "train", "loss": 10.0 ** -(i / 500), **missing} for i in range(1, 1001)
    ]
    log += [{"step": 1000, "split": "validation", "loss": 0.5}]
    assert figures.training_figures(log) == [
        "Total loss by optimizer step: training ends at 0.01; validation ends at 0.5."
    ]
    ax = drawn[0].axes[0]
    assert ax.get_yscale() == "log"
    assert len(ax.lines[0].get_xdata()) == 400
    assert ax.lines[0].get_xdata()[-1] == 1000
