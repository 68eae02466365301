"""The report: one page that parses, loads nothing, reads well, and says what the numbers say."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from reports import (
    METHODS,
    PROVENANCE,
    diagnostics_table,
    grid_forecast,
    hour_leads,
    leads_of,
    make_report,
    molecule_forecast,
    skill_table,
    tiny_skill,
    training_log,
)

from sciwm.report.curves import spectrum_frame
from sciwm.report.scorecard import scorecard_frame


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    forecast, observed = grid_forecast()
    grid = skill_table(["z500", "t850"], ["m", "K"], hour_leads(1, 2, 3, 5))
    months = skill_table(
        ["ssta"],
        ["K"],
        leads_of("months", np.arange(1, 13)),
        regions=("domain", "nino34"),
        metrics=("acc", "rmse"),
    )
    torsions, angles = molecule_forecast()
    molecule = skill_table(
        ["sin_phi", "cos_$phi"],
        ["1", "1"],
        leads_of("ps", [1.0, 10.0, 50.0]),
        methods=(*METHODS, "markov<200>"),
        metrics=("nmse",),
    )
    return {
        "grid": make_report(
            folder / "grid.html",
            grid,
            forecast=forecast,
            observed=observed,
            log=training_log(),
            diagnostics=diagnostics_table(),
        ),
        "months": make_report(folder / "months.html", months),
        "molecule": make_report(
            folder / "molecule.html",
            molecule,
            forecast=torsions,
            observed=angles,
            log=training_log(),
        ),
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
    assert not {"iframe", "object"} & {tag for tag, _ in page.tags}
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
    tags = {kind: Page(page.read_text("utf-8")).tags for kind, page in pages.items()}
    labels = {
        kind: [a["aria-label"] for _, a in found if a.get("role") == "img"]
        for kind, found in tags.items()
    }
    assert labels["grid"][0].startswith("Colours: blue is better")
    assert "lead time of 1–5 days" in labels["grid"][1]
    assert "lead time of 1–12 months" in labels["months"][1]
    # RMSE first, whatever the order of the table
    assert "Root-mean-square error" in labels["months"][1]
    assert "lead time of 1–50 ps" in labels["molecule"][1]
    assert any(a.startswith("Forecast, 1 day. z500 from") for a in labels["grid"])
    assert not any(a.startswith("Forecast,") for a in labels["molecule"])
    assert any(a.startswith("Series of sin_phi") for a in labels["molecule"])


def test_table_bolds_the_smallest_error(pages):
    text = pages["grid"].read_text("utf-8")
    caption = "<caption><span class=.stay.>Root-mean-square error of z500"
    table = re.search(rf"{caption}.*?</table>", text, re.DOTALL)[0]
    rows = [re.findall(r"<td>(.*?)<small>", r) for r in re.findall(r"<tr>(.*?)</tr>", table)[1:]]
    value = np.array([[float(re.sub("<.*?>", "", c)) for c in r] for r in rows])
    bold = np.array([[c.startswith("<b>") for c in r] for r in rows])
    assert value.shape == (len(METHODS), 4)
    np.testing.assert_array_equal(bold, value == value.min(axis=0))


def test_download_holds_the_csv(pages):
    tags = Page(pages["grid"].read_text("utf-8")).tags
    links = [a for _, a in tags if a.get("download") == "skill.csv"]
    assert base64.b64decode(links[0]["href"].split("base64,")[1]).decode() == "a,b\n1,<2>\n"


def test_only_the_script_of_the_page_may_run(pages):
    text = pages["grid"].read_text("utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"eval\(|Function\(|fetch\(|XMLHttp|import\(|innerHTML", script)
    assert not re.search(r"\son[a-z]+=", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))


def test_every_table_can_be_downloaded(pages):
    skill = skill_table(["z500", "t850"], ["m", "K"], hour_leads(1, 2, 3, 5))
    tags = Page(pages["grid"].read_text("utf-8")).tags
    links = {a["download"]: a["href"].split("base64,")[1] for _, a in tags if a.get("download")}
    assert set(links) == {"skill.csv", "scorecard.csv", "spectra.csv", "rank_histograms.csv"}
    held = {name: base64.b64decode(data).decode() for name, data in links.items()}
    assert held["scorecard.csv"] == scorecard_frame(skill).to_csv(index=False)
    spectra = pd.read_csv(io.StringIO(held["spectra.csv"]))
    pd.testing.assert_frame_equal(spectra, spectrum_frame(diagnostics_table()))


def test_sections_follow_what_is_known(pages, tmp_path):
    def sections(path):
        return re.findall(r'<section id="(\w+)">', path.read_text("utf-8"))

    background = ["methods", "configuration", "provenance"]
    everything = ["glance", "card", "skill", "maps", "case", "spectra", "ranks", "training"]
    assert sections(pages["grid"]) == [*everything, *background]
    assert sections(pages["months"]) == ["glance", "card", "skill", *background]
    regional = diagnostics_table()[["rmse", "bias"]]
    skill = tiny_skill({"jepa": [1.0], "lim": [2.0]})
    page = make_report(tmp_path / "a.html", skill, diagnostics=regional)
    assert sections(page) == ["glance", "card", "skill", "maps", "spectra", *background]
    said = "Left out: waves round the globe need a grid that goes round it"
    assert said in page.read_text("utf-8")
    without = diagnostics_table(("jepa", "lim")).drop_vars("rank_frequency")
    assert "ranks" not in sections(make_report(tmp_path / "b.html", skill, diagnostics=without))
    series = diagnostics_table().drop_vars(["rmse", "bias", "spectrum", "observed_spectrum"])
    assert "maps" not in sections(make_report(tmp_path / "c.html", skill, diagnostics=series))


def test_channels_of_events_and_unknown_metrics_are_coped_with(tmp_path):
    skill = skill_table(
        ["t850", "t850>285", "empty"], ["K", "K", "K"], hour_leads(1, 3), regions=("all", "tropics")
    )
    skill = skill.reindex(metric=["rmse", "mae", "bias", "acc", "brier", "fss"])
    skill["value"].loc[{"channel": "t850>285"}] = np.nan
    for name in ("value", "ci_low", "ci_high"):
        skill[name].loc[{"channel": "t850>285", "metric": "brier"}] = 0.25
        skill[name].loc[{"channel": "empty"}] = np.nan
    text = make_report(tmp_path / "a.html", skill).read_text("utf-8")
    assert "t850&gt;285" in text
    assert "Brier" in text or "brier" in text
    assert 'id="channel2"' not in text
    body = re.search(r'<section id="glance">.*?</section>', text, re.DOTALL)[0]
    assert "&gt;285" not in body
    Page(text)


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


def test_report_without_anything_to_compare(tmp_path):
    only = tiny_skill({"lim": [1.0, np.nan]})
    text = make_report(tmp_path / "a.html", only, notes=(), skill_csv="").read_text("utf-8")
    assert "Nothing to compare" in text
    assert "Download" not in text
    assert "<td>–</td>" in text
    equal = tiny_skill({"jepa": [1.0, np.nan], "lim": [1.0, 1.0]})
    text = make_report(tmp_path / "b.html", equal).read_text("utf-8")
    assert "−0.0" in text or "+0.0" in text
    nothing = tiny_skill({"jepa": [np.nan], "lim": [np.nan]})
    text = make_report(tmp_path / "c.html", nothing).read_text("utf-8")
    assert "<figure>" not in text
