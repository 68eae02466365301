"""The report in a headless Chromium: leafing, choosing, downloading, on a phone and on a desk."""

import re

import numpy as np
import pytest
from chromium import CHROMIUM, Chromium
from reports import (
    diagnostics_table,
    grid_forecast,
    hour_leads,
    leads_of,
    make_report,
    molecule_forecast,
    skill_table,
    training_log,
)

from sciwm.report.curves import rank_frame, spectrum_frame
from sciwm.report.scorecard import differences, scorecard_frame

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


def skill():
    table = skill_table(
        ["z500", "u850"], ["m", "m s-1"], hour_leads(1, 2, 3, 5), regions=("all", "tropics")
    )
    shape = (7, 7, 2, 2, 4)
    q_value = np.random.default_rng(0).uniform(0, 0.1, shape)
    dims = ("method", "reference_method", "channel", "region", "lead_time")
    table = table.assign(pair_p_value=(dims, q_value), pair_q_value=(dims, q_value))
    return table.assign_coords(reference_method=table["method"].values)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    forecast, observed = grid_forecast()
    months = skill_table(
        ["ssta"],
        ["K"],
        leads_of("months", np.arange(1, 13)),
        regions=("all", "nino34"),
        metrics=("acc", "rmse"),
    )
    torsions, angles = molecule_forecast()
    molecule = skill_table(
        ["sin_phi", "cos_phi"], ["1", "1"], leads_of("ps", [1.0, 10.0, 50.0]), metrics=("nmse",)
    )
    return {
        "grid": make_report(
            folder / "grid.html",
            skill(),
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def page(browser, pages):
    browser.events.clear()
    browser.open(pages["grid"])
    yield browser
    assert browser.complaints() == []


def state(page, key):
    """What a browser of maps shows: its sentence, titles, labels and images."""
    return page.run(f"""(root => ({{
            said: root.querySelector('.said').textContent,
            titles: [...root.querySelectorAll('figcaption')].map(e => e.textContent),
            labels: [...root.querySelectorAll('svg.map')].map(e => e.getAttribute('aria-label')),
            images: [...root.querySelectorAll('image')].map(e => e.getAttribute('href')),
            bars: [...root.querySelectorAll('.bar')].filter(e => e.offsetParent)
                .map(e => e.textContent),
            disabled: [...root.querySelectorAll('button')].map(e => e.disabled),
        }}))(document.getElementById('{key}'))""")


def choose(page, key, value):
    change = "e.dispatchEvent(new Event('change', {bubbles: true}))"
    page.run(f"(e => {{ e.value = '{value}'; {change}; }})(document.getElementById('{key}'))")


def test_the_case_browser_steps_by_buttons_and_keys(page):
    first = state(page, "case-browser")
    assert first["titles"][0] == "Forecast, 1 day"
    page.run(
        "document.querySelector('#case-browser button[aria-label=\"Next lead time\"]').click()"
    )
    second = state(page, "case-browser")
    assert second["titles"][0] == "Forecast, 2 days"
    assert all(a != b for a, b in zip(first["images"], second["images"], strict=True))
    assert "2 days ahead" in second["said"]
    assert second["labels"][0] == f"Forecast, 2 days. {second['said']}"
    page.run("document.getElementById('case-browser').focus()")
    page.press("ArrowLeft")
    assert state(page, "case-browser") == first
    for _ in range(9):
        page.press("ArrowRight")
    last = state(page, "case-browser")
    assert last["titles"][0] == "Forecast, 5 days"
    assert last["disabled"][-1]
    assert (
        page.run("document.getElementById('case-browser-2').selectedOptions[0].textContent")
        == "5 days"
    )


def test_the_case_browser_goes_to_other_times_and_variables(page):
    first = state(page, "case-browser")
    page.run(
        "document.querySelector('#case-browser button[aria-label=\"Next initial time\"]').click()"
    )
    later = state(page, "case-browser")
    assert first["titles"][1] != later["titles"][1]
    assert re.match(r"z500 from 2008-\d\d-\d\d 12:00, 1 day ahead", later["said"])
    choose(page, "case-browser-0", 1)
    other = state(page, "case-browser")
    assert other["said"].startswith("u850 from")
    assert len(first["bars"]) == len(other["bars"]) == 3
    assert "z500, forecast and truth (m)" in first["bars"][0]
    assert "u850, forecast and truth (m s⁻¹)" in other["bars"][0]
    # the pictures are really decoded and drawn
    width = (
        "e => new Promise(r => { const i = new Image(); i.onload = () => r(i.width); i.src ="
        " e.getAttribute('href'); })"
    )
    widths = page.run(f"Promise.all([...document.querySelectorAll('image')].map({width}))")
    assert set(widths) == {24, 12}


def test_maps_of_error_change_with_the_method(page):
    first = state(page, "error-maps")
    choose(page, "error-maps-1", 2)
    second = state(page, "error-maps")
    assert first["said"].startswith("JEPA (residual readout), t850, 1 day")
    assert second["said"].startswith("Members, t850, 1 day")
    assert first["images"][0] != second["images"][0]
    assert first["bars"] == second["bars"]
    choose(page, "error-maps-2", 2)
    assert state(page, "error-maps")["bars"] != first["bars"]
    # the other browser has not moved
    assert state(page, "case-browser")["titles"][0] == "Forecast, 1 day"


def test_the_scorecard_follows_the_selects(page):
    table = differences(skill())

    def shown():
        style = (
            "getComputedStyle(c).backgroundColor, getComputedStyle(c).backgroundImage !== 'none'"
        )
        row = f"r => [...r.querySelectorAll('td')].map(c => [c.firstChild.textContent, {style}])"
        return page.run(f"[...document.querySelectorAll('#scorecard tbody tr')].map({row})")

    before = shown()
    choose(page, "scorecard-0", 3)  # climatology
    choose(page, "scorecard-1", 4)  # persistence
    after = shown()
    assert before != after
    said = "document.getElementById('scorecard-said').textContent"
    assert page.run(said) == "Climatology against Persistence"
    difference = table["difference"].values[3, 4].reshape(4, 4)
    sure = table["significant"].values[3, 4].reshape(4, 4)
    for i in range(4):
        for k in range(4):
            text, color, hatched = after[i][k]
            assert text == f"{difference[i, k]:+.1f}".replace("-", "−")
            assert hatched == (not sure[i, k])
            red, _, blue = (int(v) for v in re.findall(r"\d+", color)[:3])
            assert abs(difference[i, k]) < 1 or (blue > red) == (difference[i, k] < 0)
    choose(page, "scorecard-1", 3)
    assert {c[0] for row in shown() for c in row} == {"–"}
    assert "choose two different methods" in page.run(said)


def test_each_link_downloads_its_table(page, tmp_path):
    page.call(
        "Browser.setDownloadBehavior",
        behavior="allow",
        downloadPath=str(tmp_path),
        eventsEnabled=True,
    )
    names = page.run("[...document.querySelectorAll('a[download]')].map(a => a.download)")
    tables = {
        "skill.csv": "a,b\n1,<2>\n",
        "scorecard.csv": scorecard_frame(skill()).to_csv(index=False),
        "spectra.csv": spectrum_frame(diagnostics_table()).to_csv(index=False),
        "rank_histograms.csv": rank_frame(diagnostics_table()).to_csv(index=False),
    }
    assert set(names) == set(tables)
    for name, text in tables.items():
        page.run(f"document.querySelector('a[download=\"{name}\"]').click()")
        while page.wait_for("Browser.downloadProgress")["state"] != "completed":
            pass
        assert (tmp_path / name).read_bytes().decode() == text


@pytest.mark.parametrize("kind", ["grid", "months", "molecule"])
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_hangs_over_the_edge_and_nobody_complains(browser, pages, kind, width):
    browser.events.clear()
    browser.open(pages[kind], width=width)
    for opened in (False, True):
        browser.run(
            f"document.querySelectorAll('details').forEach(d => d.open = {str(opened).lower()})"
        )
        assert browser.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert browser.run("document.querySelector('.controls')?.hidden ?? false") is False
    browser.run("console.error('heard')")
    # the console is really being listened to
    assert [e["args"][0]["value"] for e in browser.complaints()] == ["heard"]


def test_without_its_script_the_page_still_shows_everything(browser, pages):
    browser.events.clear()
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["grid"])
        assert browser.run("document.querySelectorAll('.controls:not([hidden])').length") == 0
        shown = state(browser, "case-browser")
        assert shown["titles"][0] == "Forecast, 1 day"
        assert all(href.startswith("data:image/png") for href in shown["images"])
        assert browser.run("document.querySelectorAll('#scorecard td').length") == 16
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_printed_page_has_the_state_of_the_browser_and_no_controls(page, tmp_path):
    choose(page, "case-browser-2", 3)
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert state(page, "case-browser")["titles"][0] == "Forecast, 5 days"
        controls = "[...document.querySelectorAll('.controls, nav')]"
        assert page.run(f"{controls}.filter(e => e.offsetParent).length") == 0
        page.print_pdf(tmp_path / "page.pdf")
        assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    finally:
        page.call("Emulation.setEmulatedMedia", media="")
