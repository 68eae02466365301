"""Simulations in the report: what is drawn, and what is said of worlds that hold or do not."""

import numpy as np
import pytest
import xarray as xr
from reports import hour_leads, make_report, tiny_skill

from sciwm.report.longrun import longrun_figure, longrun_heading, longrun_section

LEADS = (*range(1, 11), *np.arange(14, 365, 7))


def simulation(*, spread=(0.3, 1.0), change=(0.1, 0.95), lost=0, drift=0.5):
    """Two variables: a single simulation and members that have some shares of the truth's."""
    methods = ["jepa", "jepa_ensemble"][: len(spread)]
    size = (len(methods), 2, len(LEADS))
    truth = np.array([4.0, 800.0])[:, None] * np.ones(len(LEADS))
    month = np.arange(1, 13)
    season = 280 - np.array([10.0, -10.0])[:, None] * np.cos(2 * np.pi * (month - 0.5) / 12)
    cycle = np.broadcast_to(season[None, :, None], (len(methods), 2, 2, 12))
    lines = ("method", "channel", "lead_time")
    own = np.ones(size)
    counts = [16, 64][: len(methods)]
    alive = np.array(counts)[:, None] * np.ones(len(LEADS), int)
    alive[:, 30:] -= lost
    blowup = np.full((len(methods), 16), np.nan)
    blowup[:, :lost] = 30 * 24
    fields = {
        "mean": (lines, drift * own),
        "mean_std": (lines, 0.2 * own),
        "spread": (lines, np.array(spread)[:, None, None] * truth),
        "change": (lines, np.array(change)[:, None, None] * truth / 2),
        "training_spread": (lines[1:], truth),
        "training_change": (lines[1:], truth / 2),
        "observed_mean": (lines[1:], 0.1 * own[0]),
        "observed_spread": (lines[1:], truth),
        "training_mean_std": ("channel", [0.25, 100.0]),
        "cycle": (("method", "region", "channel", "month"), 0.5 * (cycle - 280) + 280),
        "training_cycle": (("method", "region", "channel", "month"), cycle),
        "alive": (("method", "lead_time"), alive),
        "blowup": (("method", "init_time"), blowup),
    }
    coords = {
        "method": methods,
        "channel": ["t850", "z<500>"],
        "units": ("channel", ["K", "m2 s-2"]),
        "lead_time": hour_leads(*LEADS),
        "region": ["northern_extratropics", "southern_extratropics"],
        "month": month,
        "num_simulations": ("method", counts),
    }
    return xr.Dataset(fields, coords, {"lead": "hours", "longest": 8760.0, "num_init": 16})


def test_lines_are_the_numbers(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "sciwm.report.longrun.inline_svg", lambda figure, *, key, alt: seen.append(figure) or alt
    )
    one = simulation()
    alt = longrun_figure(one)
    assert "up to one year, and annual cycle, of t850 and z<500>" in alt
    axes = seen[0].axes
    assert len(axes) == 6
    mean, spread, cycle = (
        [line.get_ydata() for line in ax.lines] for ax in (axes[0], axes[1], axes[2])
    )
    assert any(np.allclose(y, one["mean"].values[0, 0]) for y in mean if len(y) == len(LEADS))
    for wanted in (one["spread"].values[1, 0], one["training_spread"].values[0]):
        assert any(np.allclose(y, wanted) for y in spread)
    half = one["cycle"].values[0, 0, 0] - 280
    assert sum(np.allclose(y, half, atol=1e-9) for y in cycle) == 2  # both methods
    assert axes[4].get_title(loc="left") == "z<500>: standard deviation (m² s⁻²)"


def test_what_fades_is_said_to_and_the_ensemble_is_the_one_to_hold():
    text = longrun_section(simulation())
    assert (
        "The single simulations fade towards the mean: they have 30 % of the standard deviation of"
        " the truth, and of its change from state to state 10 %"
    ) in text
    assert "The members hold: they have 100 % of the standard deviation of the truth" in text
    assert "The ensemble is the one to hold." in text
    assert "model.noise_dim" not in text
    alone = longrun_section(simulation(spread=(0.3,), change=(0.1,)))
    assert "train with model.noise_dim, and ask for members with forecast.members" in alone
    assert "members of an ensemble" not in alone


@pytest.mark.parametrize(
    ("spread", "change", "said"),
    [
        (0.95, 0.9, "simulations hold"),
        (0.95, 0.7, "simulations move too slowly"),
        (0.95, 0.2, "simulations stand nearly still, at a fixed error of the climate"),
        (1.0, 1.4, "simulations move too fast"),
        (1.4, 1.0, "simulations spread wider than the truth"),
    ],
)
def test_what_does_not_fade_is_told_from_what_holds(spread, change, said):
    text = longrun_section(simulation(spread=(spread, 0.6), change=(change, 1.0)))
    assert said in text
    assert "fault of training" not in text
    assert "The members fade towards the mean" in text
    assert "one to hold" not in text


def test_drift_seasons_and_blow_ups_are_told():
    text = longrun_section(simulation(lost=3))
    assert "one simulation each, and 4 members of an ensemble" in text
    assert "3 of the 64 members blew up, the first after 30 days" in text
    assert "drifts most in t850 (single simulation): by 2.0 times its standard deviation" in text
    assert "<td>+0.5 K<small>truth ± 0.25</small></td>" in text
    assert "<td>3 of 16</td>" in text
    # Half the annual amplitude, north and south; in the second variable it is next to nothing.
    assert text.count("<td>0.50</td><td>0.50</td>") == 2
    assert text.count("<td>–</td><td>–</td>") == 2
    assert "None of the 16 single simulations blew up." in longrun_section(simulation())
    assert "z<500>" not in text
    assert "z&lt;500&gt;" in text


@pytest.mark.parametrize(
    ("unit", "amount", "said"),
    [("hours", 8784, "One year"), ("hours", 36, "36 hours"), ("months", 24, "24 months")],
)
def test_the_heading_says_how_long(unit, amount, said):
    named = simulation().assign_attrs(lead=unit, longest=float(amount))
    assert longrun_heading(named) == f"{said}, rolled forward"


def test_the_page_has_the_section_and_the_table(tmp_path):
    skill = tiny_skill({"jepa": [0.5, 0.6], "lim": [0.6, 0.7]})
    page = make_report(tmp_path / "r.html", skill, simulation=simulation()).read_text()
    assert '<section id="longrun"><h2>One year, rolled forward</h2>' in page
    assert 'download="simulation.csv"' in page
    assert make_report(tmp_path / "n.html", skill).read_text().count("rolled forward") == 0
