"""The report: one page that parses, loads nothing, reads well, and says what the numbers say."""

import base64
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace

import cftime
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciwm.skill import figures, maps
from sciwm.skill.comparison import compare, summarize
from sciwm.skill.labels import Leads, lead_axis, looks, pretty_units
from sciwm.skill.maps import Field, case_figures, coastlines, truth_at, typical_case
from sciwm.skill.report import write_report

METHODS = ("jepa", "jepa_latent", "random_encoder", "climatology", "persistence", "damped_persistence", "lim")


def skill_table(channels, units, lead_time, *, methods=METHODS, regions=("domain",), metrics=("rmse", "mae", "bias", "acc"), seed=0):
    """Skill that saturates at climatology; the JEPA best at the first two leads, the LIM afterwards."""
    rng = np.random.default_rng(seed)
    lead = np.arange(1, len(lead_time[1]) + 1) / len(lead_time[1])
    scale = np.array([{"m": 110.0, "K": 3.8, "Pa": 800.0}.get(u, 1.0) for u in units])
    rmse = np.stack([_rmse(m, lead) for m in methods])
    shape = (len(methods), len(channels), len(regions), len(lead), len(metrics))
    value = np.empty(shape)
    for k, metric in enumerate(metrics):
        one = {"rmse": rmse, "mae": 0.8 * rmse, "nmse": rmse**2, "bias": 0.02 * (rmse - 0.5), "acc": 1 - rmse**2}[metric]
        factor = scale if metric not in ("acc", "nmse") else np.ones_like(scale)
        value[..., k] = one[:, None, None, :] * factor[None, :, None, None]
    value = value * (1 + 0.01 * rng.standard_normal(shape))
    half = 0.05 * np.abs(value) + 1e-3
    dims = ("method", "channel", "region", "lead_time", "metric")
    return xr.Dataset(
        {"value": (dims, value), "ci_low": (dims, value - half), "ci_high": (dims, value + half), "num_init": (dims, np.full(shape, 355))},
        {"method": list(methods), "channel": list(channels), "region": list(regions), "lead_time": lead_time, "metric": list(metrics),
         "units": ("channel", list(units))},
    )  # fmt: skip


def _rmse(method, lead):
    curves = {
        "jepa": 0.38 + 0.62 * lead,
        "jepa_latent": 0.45 + 0.57 * lead,
        "random_encoder": 0.7 + 0.3 * lead,
        "climatology": np.ones_like(lead),
        "persistence": 0.5 + 0.8 * lead,
        "damped_persistence": 0.48 + 0.53 * lead,
        "lim": 0.46 + 0.5 * lead,
    }
    return curves.get(method, 0.9 + 0.2 * lead)


def hour_leads(*days):
    return ("lead_time", np.array([round(24 * d) for d in days], "timedelta64[h]").astype("timedelta64[ns]"))


def grid_forecast():
    """Forecasts whose error grows from the first initial time to the last; two fields, 30 days, 4 leads."""
    rng = np.random.default_rng(1)
    latitude, longitude = np.arange(30, 60.1, 1.5), np.arange(-20, 14.6, 1.5)
    time = pd.date_range("2008-01-01T12", periods=40, freq="D")
    wave = np.sin(np.deg2rad(6 * longitude)[None, None] + 0.4 * np.arange(40)[:, None, None]) * np.cos(np.deg2rad(3 * latitude))[:, None]
    height = (5600 - 12 * (latitude - 45))[None, :, None] + 120 * wave + 8 * rng.standard_normal((40, 21, 24))
    dims = ("time", "latitude", "longitude")
    coords = {"time": time, "latitude": latitude, "longitude": longitude}
    observed = xr.Dataset({"z500": (dims, height, {"units": "m"}), "u850": (dims, 15 * wave, {"units": "m s-1"})}, coords)
    leads = np.array([1, 2, 3, 5])
    at = np.arange(30)[:, None] + leads
    growth = (1 + np.arange(30))[:, None, None, None] * leads[None, :, None, None]
    noise = rng.standard_normal((30, 4, 21, 24)) * growth
    dims = ("init_time", "lead_time", "latitude", "longitude")
    coords = {
        "init_time": time[:30],
        "lead_time": leads.astype("timedelta64[D]").astype("timedelta64[ns]"),
        "latitude": latitude,
        "longitude": longitude,
    }
    fields = {n: (dims, observed[n].values[at] + 0.5 * noise, observed[n].attrs) for n in ("z500", "u850")}
    return xr.Dataset(fields, coords), observed


def molecule_forecast():
    rng = np.random.default_rng(2)
    time = np.arange(0.0, 200.0)
    angle = np.cumsum(rng.standard_normal(200)) * 0.3
    observed = xr.Dataset(
        {"torsion": (("time", "component"), np.stack([np.sin(angle), np.cos(angle)], 1))},
        {"time": time, "component": ["sin_phi", "cos_phi"]},
    )
    leads = np.array([1.0, 5.0, 10.0, 50.0])
    at = np.arange(140)[:, None] + leads.astype(int)
    values = 0.6 * observed["torsion"].values[at]
    forecast = xr.Dataset(
        {"torsion": (("init_time", "lead_time", "component"), values)}, {"init_time": time[:140], "component": ["sin_phi", "cos_phi"]}
    )
    return forecast.assign_coords(lead_time=("lead_time", leads, {"units": "ps"})), observed


def training_log(steps=500):
    rng = np.random.default_rng(3)
    rows = []
    for step in range(10, steps + 1, 10):
        fall = np.exp(-step / 120)
        row = {
            "step": step,
            "split": "train",
            "loss": 0.4 + fall + 0.02 * rng.standard_normal(),
            "prediction": 0.3 + 0.8 * fall,
            "regularizer": 0.01 + 0.5 * fall**3,
        }
        rows.append(row | {"effective_rank": 60 * (1 - fall), "smallest_std": 0.4 * (1 - fall), "probe_r2": None, "seconds": 0.1 * step})
        if step % 100 == 0:
            rows.append(
                row | {"split": "validation", "loss": row["loss"] + 0.05, "probe_r2": 0.7 - 0.6 * fall, "effective_rank": 55 * (1 - fall)}
            )
    return rows


TITLE = "Winds <of> Europe & $more$"
CONFIG = "seed: 0\ndata:\n  store: <here>\n"
PROVENANCE = {"sciwm": "0.1.0", "Data fingerprint": "ab" * 32, "Test block": "2008-01-01 to 2008-12-31"}


def make_report(out, skill, *, forecast=None, observed=None, log=None, notes=("Simulated data & nothing else.",), skill_csv="a,b\n1,<2>\n"):
    return write_report(
        out,
        title=TITLE,
        skill=skill,
        forecast=forecast,
        observed=observed,
        log=log,
        config=CONFIG,
        provenance=PROVENANCE,
        notes=notes,
        skill_csv=skill_csv,
    )


def leads_of(unit, values):
    return ("lead_time", np.array(values), {"units": unit})


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    forecast, observed = grid_forecast()
    grid = skill_table(["z500", "t850"], ["m", "K"], hour_leads(1, 2, 3, 5))
    months = skill_table(["ssta"], ["K"], leads_of("months", np.arange(1, 13)), regions=("domain", "nino34"), metrics=("acc", "rmse"))
    torsions, angles = molecule_forecast()
    molecule = skill_table(
        ["sin_phi", "cos_$phi"], ["1", "1"], leads_of("ps", [1.0, 10.0, 50.0]), methods=(*METHODS, "markov<200>"), metrics=("nmse",)
    )
    return {
        "grid": make_report(folder / "grid.html", grid, forecast=forecast, observed=observed, log=training_log()),
        "months": make_report(folder / "months.html", months),
        "molecule": make_report(folder / "molecule.html", molecule, forecast=torsions, observed=angles, log=training_log()),
    }


class Page(HTMLParser):
    """Collects what the tests ask about; fails on tags that do not nest."""

    void = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("kind", ["grid", "months", "molecule"])
def test_page_is_well_formed_self_contained_and_labelled(pages, kind):
    text = pages[kind].read_text("utf-8")
    page = Page(text)
    assert len(text.encode()) < 2_000_000
    assert not {"script", "iframe", "object"} & {tag for tag, _ in page.tags}
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            link = attributes.get(name, "#")
            assert link.startswith(("#", "data:")), (tag, link)
            assert not link.startswith("#") or link == "#" or link[1:] in ids
        if attributes.get("role") == "img":
            assert len(attributes["aria-label"]) > 20
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
    assert not re.search(r"@import|url\((?!#)", text)
    drawings = [a for tag, a in page.tags if tag == "svg"]
    assert all(a.get("role") == "img" or a.get("aria-hidden") == "true" for a in drawings)
    assert "<h1>Winds &lt;of&gt; Europe &amp; $more$</h1>" in text
    assert "store: &lt;here&gt;" in text
    assert "markov<200>" not in text.lower()
    assert all(v in text for v in PROVENANCE.values())


def test_page_speaks_in_the_unit_of_the_leads(pages):
    labels = {k: [a["aria-label"] for tag, a in Page(p.read_text("utf-8")).tags if a.get("role") == "img"] for k, p in pages.items()}
    assert "lead time of 1–5 days" in labels["grid"][0]
    assert "lead time of 1–12 months" in labels["months"][0]
    assert "Root-mean-square error" in labels["months"][0]  # RMSE first, whatever the order of the table
    assert "lead time of 1–50 ps" in labels["molecule"][0]
    assert any(a.startswith("Maps of z500") for a in labels["grid"])
    assert not any(a.startswith("Maps") for a in labels["molecule"])
    assert any(a.startswith("Series of sin_phi") for a in labels["molecule"])


def test_table_bolds_the_smallest_error(pages):
    text = pages["grid"].read_text("utf-8")
    table = re.search(r"<caption>Root-mean-square error of z500.*?</table>", text, re.DOTALL)[0]
    rows = [re.findall(r"<td>(.*?)<small>", r) for r in re.findall(r"<tr>(.*?)</tr>", table)[1:]]
    value = np.array([[float(re.sub("<.*?>", "", c)) for c in r] for r in rows])
    bold = np.array([[c.startswith("<b>") for c in r] for r in rows])
    assert value.shape == (len(METHODS), 4)
    np.testing.assert_array_equal(bold, value == value.min(axis=0))


def test_download_holds_the_csv(pages):
    links = [a for tag, a in Page(pages["grid"].read_text("utf-8")).tags if a.get("download") == "skill.csv"]
    assert base64.b64decode(links[0]["href"].split("base64,")[1]).decode() == "a,b\n1,<2>\n"


def test_same_inputs_give_the_same_bytes_whatever_the_matplotlibrc(tmp_path):
    skill = skill_table(["z500"], ["m"], hour_leads(1, 2), metrics=("rmse",))
    first = make_report(tmp_path / "a.html", skill, log=training_log(100)).read_bytes()
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "none"}):
        before = dict(mpl.rcParams)
        second = make_report(tmp_path / "b.html", skill, log=training_log(100)).read_bytes()
        assert dict(mpl.rcParams) == before
    assert first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_incomplete_skill_is_refused(tmp_path):
    skill = skill_table(["z500"], ["m"], hour_leads(1), metrics=("rmse",))
    with pytest.raises(ValueError, match="without metric"):
        make_report(tmp_path / "a.html", skill.isel(metric=0, drop=True))
    with pytest.raises(ValueError, match="without ci_low"):
        make_report(tmp_path / "a.html", skill.drop_vars("ci_low"))


def tiny_skill(values, *, metric="rmse", half=0.01, channels=("z500",)):
    """Skill from ``{method: values by lead}``, the same for each channel."""
    value = np.array([[v] * len(channels) for v in values.values()], dtype=float)[:, :, None, :, None]
    dims = ("method", "channel", "region", "lead_time", "metric")
    leads = hour_leads(*range(1, value.shape[3] + 1))
    coords = {"method": list(values), "channel": list(channels), "region": ["domain"], "lead_time": leads, "metric": [metric]}
    return xr.Dataset({"value": (dims, value), "ci_low": (dims, value - half), "ci_high": (dims, value + half)}, coords)


def test_comparison_matches_hand_computed_gains():
    skill = tiny_skill(
        {"jepa": [1.0, 2.0, np.nan], "lim": [1.25, 1.6, 1.0], "climatology": [2.0, 1.999, 2.0], "jepa_latent": [0.1, 0.1, 0.1]}
    )
    (one,) = compare(skill, "jepa")
    np.testing.assert_allclose(one.gain, [20.0, -25.0, np.nan])
    assert one.rival == ["lim", "lim", "lim"]
    np.testing.assert_array_equal(one.clear, [True, True, False])
    higher = tiny_skill({"jepa": [0.8], "lim": [0.7], "persistence": [0.75]}, metric="acc")
    assert compare(higher, "jepa")[0].rival == ["persistence"]
    assert compare(higher, "jepa")[0].gain[0] == pytest.approx(5.0)
    zero = tiny_skill({"jepa": [-0.5], "lim": [-2.0], "persistence": [1.0]}, metric="bias")
    assert compare(zero, "jepa")[0].rival == ["persistence"]
    assert compare(zero, "jepa")[0].gain[0] == pytest.approx(50.0)


def test_summary_says_what_the_numbers_say():
    mixed = summarize(tiny_skill({"jepa": [1.0, 1.99, 3.0], "lim": [2.0, 2.0, 2.0]}, channels=("z500", "t850")))
    assert "better RMSE than every other method in 4 of 6 variable–lead pairs (z500 at 1 and 2 days; t850 at 1 and 2 days)" in mixed
    assert "clearly so (95 % intervals apart) in 2 of them" in mixed
    assert "worse with non-overlapping 95 % intervals in 2" in mixed
    everywhere = summarize(tiny_skill({"jepa": [1.0, 1.0], "lim": [1.005, 1.005]}))
    assert "in all 2 lead times (z500 at every lead), but the 95 % intervals overlap in every one of them." in everywhere
    never = summarize(tiny_skill({"jepa": [3.0, 2.001], "climatology": [2.0, 2.0]}))
    assert never == (
        "JEPA (residual readout) is not ahead of the best other method in RMSE at any of the 2 lead times; "
        "it is worse with non-overlapping 95 % intervals in 1."
    )
    assert summarize(tiny_skill({"lim": [1.0], "climatology": [2.0]})).startswith("Only baselines")
    theirs = summarize(tiny_skill({"lim": [1.0], "graphcast": [0.5]}))
    assert theirs.startswith("Graphcast has a better RMSE than every other method")
    assert "no other method" in summarize(tiny_skill({"jepa_latent": [1.0]}))


def test_report_without_anything_to_compare(tmp_path):
    text = make_report(tmp_path / "a.html", tiny_skill({"lim": [1.0, np.nan]}), notes=(), skill_csv="").read_text("utf-8")
    assert "Nothing to compare" in text
    assert "Download" not in text
    assert "<td>–</td>" in text
    text = make_report(tmp_path / "b.html", tiny_skill({"jepa": [1.0, np.nan], "lim": [1.0, 1.0]})).read_text("utf-8")
    assert "−0.0" in text or "+0.0" in text
    text = make_report(tmp_path / "c.html", tiny_skill({"jepa": [np.nan], "lim": [np.nan]})).read_text("utf-8")
    assert "<figure>" not in text


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are when written."""
    seen = []

    def keep(figure, *, key, alt):
        seen.append(figure)
        return alt

    monkeypatch.setattr(figures, "inline_svg", keep)
    monkeypatch.setattr(maps, "inline_svg", keep)
    return seen


def test_axes_start_at_zero_and_carry_units(drawn):
    skill = skill_table(["z500"], ["m2 s-2"], hour_leads(0.25, 0.5, 1.0), metrics=("rmse", "acc", "bias"))
    leads = lead_axis(skill["lead_time"])
    for metric in ("rmse", "acc", "bias"):
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
    top = rmse.lines[-1]
    np.testing.assert_allclose(top.get_ydata(), skill["value"].sel(metric="rmse").isel(method=0).values.ravel())


def test_single_lead_shows_intervals(drawn):
    skill = tiny_skill({"jepa": [1.0], "climatology": [2.0]}).isel(channel=0, region=0, metric=0)
    figures.skill_figure(skill, title="z", units="m", metric="rmse", leads=lead_axis(skill["lead_time"]), key="a")
    bars = [c.get_segments()[0][:, 1] for c in drawn[0].axes[0].collections]
    np.testing.assert_allclose(sorted(map(tuple, bars)), [(0.99, 1.01), (1.99, 2.01)])


def test_training_curves_skip_what_is_missing_and_keep_the_last_point(drawn):
    log = [
        {"step": i, "split": "train", "loss": 10.0 ** -(i / 500), "probe_r2": None, "smallest_std": float("nan")} for i in range(1, 1001)
    ]
    log += [{"step": 1000, "split": "validation", "loss": 0.5}]
    assert figures.training_figures(log) == ["Total loss by optimizer step: training ends at 0.01; validation ends at 0.5."]
    ax = drawn[0].axes[0]
    assert ax.get_yscale() == "log"
    assert len(ax.lines[0].get_xdata()) == 400
    assert ax.lines[0].get_xdata()[-1] == 1000


def times_of(values, **coords):
    return xr.DataArray(values, dims="time", coords={"time": values} | {k: ("time", v) for k, v in coords.items()})


def inits_of(values, **coords):
    return xr.DataArray(values, dims="init_time", coords={k: ("init_time", v) for k, v in coords.items()})


def test_truth_is_found_for_hours_months_and_picoseconds():
    days = pd.date_range("2000-02-27", periods=4, freq="D").values
    lead = xr.DataArray(np.array([24, 72], "timedelta64[h]").astype("timedelta64[ns]"), dims="lead_time")
    np.testing.assert_array_equal(truth_at(times_of(days), inits_of(days[:2]), lead), [[1, 3], [2, -1]])
    noleap = np.array([cftime.DatetimeNoLeap(2000, 2, 27), cftime.DatetimeNoLeap(2000, 2, 28), cftime.DatetimeNoLeap(2000, 3, 1)])
    np.testing.assert_array_equal(truth_at(times_of(noleap), inits_of(noleap[:2]), lead), [[1, -1], [2, -1]])
    # the middle of months: 31 January and 29 February are valid a month apart, whatever the day
    months = np.array(["2000-01-31", "2000-02-29", "2000-03-31"], "datetime64[ns]")
    lead = xr.DataArray([1, 2], dims="lead_time", attrs={"units": "months"})
    np.testing.assert_array_equal(truth_at(times_of(months), inits_of(months), lead), [[1, 2], [2, -1], [-1, -1]])
    middle = np.array([cftime.Datetime360Day(1999, 12, 16), cftime.Datetime360Day(2000, 1, 16)])
    np.testing.assert_array_equal(truth_at(times_of(middle), inits_of(middle[:1]), lead), [[1, -1]])
    lead = xr.DataArray([0.2, 0.4], dims="lead_time", attrs={"units": "ps"})
    ps = np.tile(np.arange(4) * 0.2, 2)
    piece = np.repeat([0, 1], 4)
    found = truth_at(times_of(ps, segment=piece), inits_of(ps[[0, 6]], segment=piece[[0, 6]]), lead)
    np.testing.assert_array_equal(found, [[1, 2], [7, -1]])
    with pytest.raises(ValueError, match="segment"):
        truth_at(times_of(ps), inits_of(ps[:1]), lead)


def test_typical_case_has_the_median_error():
    forecast, observed = grid_forecast()
    forecast = forecast.isel(init_time=slice(0, 29))
    at = np.arange(29)[:, None] + np.array([1, 2, 3, 5])
    weight = np.cos(np.deg2rad(observed["latitude"].values))[:, None] * np.ones(24)
    square = (forecast["z500"].values - observed["z500"].values[at]) ** 2
    error = np.sqrt((square * weight).sum(axis=(2, 3)) / weight.sum())
    relative = (error / error.mean(axis=0)).mean(axis=1)
    expected = int(np.abs(relative - np.median(relative)).argmin())
    assert typical_case(Field("z500", "m", forecast["z500"], observed["z500"])) == expected
    assert 10 < expected < 20
    late = observed["z500"].isel(time=slice(0, 2))
    assert typical_case(Field("z500", "m", forecast["z500"], late)) is None


def test_maps_share_colours_and_state_the_error(drawn):
    forecast, observed = grid_forecast()
    labels, remarks = case_figures(forecast[["z500"]].isel(init_time=[4]), observed)
    assert "Initial time 2008-01-05 12:00" in remarks[0]
    assert labels == ["Maps of z500 forecast from 2008-01-05 12:00, the truth and the error, at 1, 3 and 5 days."]
    panels = [a for a in drawn[0].axes if a.images]
    assert len(panels) == 9
    assert len({a.images[0].get_clim() for a in panels if "Error" not in a.get_title("left")}) == 1
    low, high = panels[2].images[0].get_clim()
    assert low == -high
    difference = forecast["z500"].values[4, 0] - observed["z500"].values[5]
    np.testing.assert_allclose(panels[2].images[0].get_array(), difference)
    weight = np.cos(np.deg2rad(observed["latitude"].values))
    rmse = np.sqrt(np.average((difference**2).mean(axis=1), weights=weight))
    assert panels[2].get_title("left") == f"Error, RMSE {rmse:.3g} m"
    assert panels[1].get_title("left") == "Truth, 2008-01-06 12:00"


def test_levels_members_and_missing_truth_are_handled(drawn):
    forecast, observed = grid_forecast()
    level = {"level": [500.0]}
    members = xr.concat([forecast["z500"] - 1, forecast["z500"] + 1], dim="number").expand_dims(level)
    world = xr.Dataset(
        {"z": members.transpose("init_time", "lead_time", "number", "level", ...), "q": forecast["u850"], "mask": forecast["latitude"]}
    )
    labels, remarks = case_figures(world.isel(init_time=slice(0, 3)), observed)
    assert len(labels) == 1
    assert "Maps of z500" in labels[0]
    assert remarks[0] == "Not drawn, because the observed data have no such field: q."
    stacked = xr.Dataset({"z": observed["z500"].expand_dims(level)})
    assert len(case_figures(world[["z"]].isel(init_time=slice(0, 3)), stacked)[0]) == 1
    labels, remarks = case_figures(forecast, observed.isel(time=slice(0, 2)))
    assert labels == []
    assert "no maps" in remarks[0]
    many = xr.merge([forecast["z500"].rename(f"x{i}") for i in range(6)])
    truth = xr.merge([observed["z500"].rename(f"x{i}") for i in range(6)])
    labels, remarks = case_figures(many.isel(init_time=slice(0, 2)), truth)
    assert len(labels) == 4
    assert remarks[-1].startswith("2 further")


def test_uneven_global_grids_and_land_are_drawn(drawn, monkeypatch):
    latitude = np.array([-85.0, -50.0, -20.0, 0.0, 20.0, 50.0, 85.0])
    longitude = np.arange(0.0, 360.0, 30.0)
    time = np.array([cftime.Datetime360Day(2000, 1, d) for d in (1, 2, 3)])
    field = np.broadcast_to(latitude[:, None] + 0 * longitude, (3, 7, 12)).copy()
    field[:, 0, :] = np.nan
    coords = {"time": time, "latitude": latitude, "longitude": longitude}
    observed = xr.Dataset({"sst": (("time", "latitude", "longitude"), field, {"units": "K"})}, coords)
    lead = np.array([1], "timedelta64[D]").astype("timedelta64[ns]")
    forecast = observed.isel(time=[0, 1]).rename(time="init_time").expand_dims(lead_time=lead, axis=1)
    monkeypatch.setattr(maps, "coastlines", lambda: [np.array([[10.0, 0.0], [20.0, 5.0]]), np.array([[-40.0, 0.0], [-30.0, 5.0]])])
    case_figures(forecast, observed)
    image = drawn[0].axes[0].images[0].get_array()
    assert image.shape == (7, 12)
    assert np.ma.masked_invalid(image).mask[0].all()
    assert len(drawn[0].axes[0].collections[0].get_segments()) == 1 + 1  # 40–30°W lies at 320–330
    case_figures(forecast, observed.assign_attrs(coastlines="none"))
    assert drawn[1].axes[0].collections[0].get_segments() == []


def test_monthly_maps_name_months(drawn):
    time = pd.date_range("1999-11-16", periods=4, freq="31D").values
    coords = {"time": time, "latitude": [-5.0, 0.0, 5.0], "longitude": [200.0, 210.0]}
    observed = xr.Dataset({"ssta": (("time", "latitude", "longitude"), np.random.default_rng(0).standard_normal((4, 3, 2)))}, coords)
    forecast = observed.isel(time=[0, 1]).rename(time="init_time").expand_dims(lead_time=[1, 2], axis=1)
    forecast["lead_time"].attrs["units"] = "months"
    labels, remarks = case_figures(forecast, observed)
    assert remarks[0].startswith("Initial time 1999-1")
    assert drawn[0].axes[1].get_title("left") in ("Truth, 1999-12", "Truth, 2000-01")
    assert "at 1 and 2 months" in labels[0]


def test_coastlines_only_from_data_already_there(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cartopy", None)
    assert coastlines() == []
    cartopy, io = ModuleType("cartopy"), ModuleType("cartopy.io")
    line = SimpleNamespace(coords=[(0.0, 1.0), (2.0, 3.0)])
    io.shapereader = SimpleNamespace(Reader=lambda path: SimpleNamespace(geometries=lambda: [line]))
    cartopy.config = {"pre_existing_data_dir": "", "data_dir": tmp_path}
    monkeypatch.setitem(sys.modules, "cartopy", cartopy)
    monkeypatch.setitem(sys.modules, "cartopy.io", io)
    assert coastlines() == []
    file = tmp_path / "shapefiles/natural_earth/physical/ne_110m_coastline.shp"
    file.parent.mkdir(parents=True)
    file.touch()
    np.testing.assert_array_equal(coastlines()[0], [[0, 1], [2, 3]])


def test_series_of_an_index_in_a_model_calendar(drawn):
    time = np.array([cftime.Datetime360Day(2000 + m // 12, m % 12 + 1, 16) for m in range(24)])
    observed = xr.Dataset({"nino34": ("time", np.arange(24.0), {"units": "K"})}, {"time": time})
    lead = ("lead_time", np.array([3]), {"units": "months"})
    values = np.arange(20.0)[:, None, None] + 3
    forecast = xr.Dataset(
        {"index": (("init_time", "lead_time", "component"), values)}, {"init_time": time[:20], "lead_time": lead, "component": ["nino34"]}
    )
    assert case_figures(forecast, observed)[0] == ["Series of nino34, forecast and truth by valid time, at lead 3 months."]
    truth, drawn_forecast = (line.get_ydata() for line in drawn[0].axes[0].lines)
    np.testing.assert_array_equal(truth, drawn_forecast)
    assert "hours since 1970" in drawn[0].axes[0].get_xlabel()


def test_ambiguous_times_are_said_rather_than_drawn(drawn):
    forecast, observed = molecule_forecast()
    labels, remarks = case_figures(forecast, xr.concat([observed, observed], dim="time"))
    assert labels == []
    assert remarks[0].startswith("No forecast is drawn: got observed times that repeat")


def test_labels():
    assert pretty_units("kg m-2 s-1") == "kg m⁻² s⁻¹"
    assert pretty_units("m**2 s**-2") == "m² s⁻²"
    assert pretty_units("1") == ""
    assert Leads((1.0, 2.0, 3.0, 5.0, 7.0), "days").text([0, 1, 3, 4]) == "1, 2, 5 and 7 days"
    assert Leads((1.0,), "months").text([0]) == "1 month"
    assert lead_axis(xr.DataArray(np.array([6, 36], "timedelta64[h]"), dims="lead_time")) == Leads((6.0, 36.0), "hours")
    assert lead_axis(xr.DataArray(np.array([6, 126], "timedelta64[h]"), dims="lead_time")) == Leads((0.25, 5.25), "days")
    with pytest.raises(ValueError, match="months or ps"):
        lead_axis(xr.DataArray([1, 2], dims="lead_time"))
    names = [*METHODS, "a", "b"]
    look = looks(names)
    assert len({(v.color, v.dash, v.marker) for v in look.values()}) == len(names)
    assert len({v.label for v in look.values()}) == len(names)


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def browse(page, tmp_path):
    """The page's DOM after its scripts, and what the browser wrote to its console."""
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
    quiet += (
        "--hide-scrollbars",
        "--disable-component-update",
        "--disable-sync",
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
    )
    command = [CHROMIUM, *quiet, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_browser_shows_the_page_without_errors_or_sideways_scrolling(pages, tmp_path):
    frames = "".join(
        f'<iframe src="{p.as_uri()}" style="width:{w}px;height:900px;border:0"></iframe>' for p in pages.values() for w in (390, 1280)
    )
    width = "(f => f.contentDocument.documentElement)(f)"
    measure = f"[...document.querySelectorAll('iframe')].map(f => {width}.scrollWidth + '/' + {width}.clientWidth).join(' ')"
    probe = tmp_path / "probe.html"
    probe.write_text(
        f"<body>{frames}<p id=w></p><script>onload = () => {{ console.log('seen'); w.textContent = {measure} }}</script></body>"
    )
    dom, console = browse(probe, tmp_path)
    widths = re.search(r'<p id="w">(.*?)</p>', dom)[1].split()
    assert widths == ["390/390", "1280/1280"] * 3  # width of the content / of the window
    assert [line for line in console if "seen" not in line] == []
    assert len(console) == 1  # the console is really being listened to
