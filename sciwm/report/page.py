"""The report: one HTML page that holds all it shows and loads nothing from anywhere."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import xarray as xr

from sciwm.atomic import write_atomically
from sciwm.report.cases import case_section
from sciwm.report.curves import rank_figures, rank_frame, spectrum_figures, spectrum_frame
from sciwm.report.errormaps import error_map_section
from sciwm.report.figures import training_figures
from sciwm.report.labels import lead_axis, looks
from sciwm.report.leads import lead_section, method_legend
from sciwm.report.longrun import longrun_heading, longrun_section
from sciwm.report.ranking import compare, main_method, main_metric, summarize
from sciwm.report.scorecard import has_scorecard, scorecard_frame, scorecard_section
from sciwm.skill.metrics import HIGHER, better, short_name
from sciwm.skill.simulation import simulation_table

__all__ = ["About", "write_report"]

_DIMS = ("method", "channel", "region", "lead_time", "metric")
Section = tuple[str, str, str]  # id, heading, HTML


@dataclass(frozen=True)
class About:
    """What a report says beside its numbers.

    Parameters
    ----------
    title : str
        Heading.
    provenance : dict
        What repeats the run: versions, fingerprint, split dates, seed…
    notes : sequence of str
        Caveats shown under the summary.
    methods : sequence of str
        Paragraphs on how everything was made, e.g. from `describe_scores`.
    config : str
        YAML of the run; empty without one.
    skill_csv : str
        The skill table as CSV, offered for download.
    """

    title: str
    provenance: Mapping[str, str]
    notes: Sequence[str] = ()
    methods: Sequence[str] = ()
    config: str = ""
    skill_csv: str = ""


def write_report(
    out: Path,
    *,
    about: About,
    skill: xr.Dataset,
    forecast: xr.Dataset | None = None,
    observed: xr.Dataset | None = None,
    log: Sequence[dict[str, object]] | None = None,
    diagnostics: xr.Dataset | None = None,
    simulation: xr.Dataset | None = None,
) -> Path:
    """Write the report of a run as one HTML file: no network, and readable without its script.

    Parameters
    ----------
    out : Path
        The file to write; an existing one is replaced when the new one is complete.
    about : About
        Title, texts and provenance.
    skill : Dataset
        Dims ``method, channel, region, lead_time, metric``; variables ``value, ci_low, ci_high,
        num_init``; coordinate ``units(channel)``. A text in ``attrs["leakage"]`` is printed above
        everything.
    forecast, observed : Dataset, optional
        Physical units, dims ``init_time, lead_time, …`` and ``time, …``. If both are given, some
        forecasts are shown beside the truth.
    log : sequence of dict, optional
        Lines of ``log.jsonl``.
    diagnostics : Dataset, optional
        From `diagnose`: maps of error, spectra, rank histograms.
    simulation : Dataset, optional
        From `diagnose_simulations`: mean, spread and annual cycle of long roll-outs.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        If ``skill`` lacks a dimension or variable.
    """
    lacking = [d for d in _DIMS if d not in skill.dims]
    lacking += [v for v in ("value", "ci_low", "ci_high") if v not in skill]
    if lacking:
        raise ValueError(
            f"got a skill table without {', '.join(lacking)}, expected dims {', '.join(_DIMS)} and"
            " value, ci_low, ci_high"
        )
    skill = skill.load()
    sections = _score_sections(skill, about.skill_csv)
    if diagnostics is not None:
        sections += _diagnostic_sections(diagnostics.load(), skill)
    if forecast is not None and observed is not None:
        place = next((i for i, s in enumerate(sections) if s[0] == "spectra"), len(sections))
        sections.insert(place, _case_section(forecast, observed))
    if simulation is not None:
        sections.append(_longrun_section(simulation.load()))
    sections += _background_sections(about, log)
    out = Path(out)
    write_atomically(out, _page(about, skill, sections))
    return out


def _page(about: About, skill: xr.Dataset, sections: Sequence[Section]) -> str:
    folder = files("sciwm.report")
    template, css, script = (
        folder.joinpath(name).read_text("utf-8")
        for name in ("page.html.tmpl", "page.css", "page.js")
    )
    leakage = escape(str(skill.attrs.get("leakage", "")))
    notes = "".join(f"<li>{escape(note)}</li>" for note in about.notes)
    return Template(template).substitute(
        title=escape(about.title),
        css=css,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        summary=escape(summarize(skill)),
        leakage=f'<p class="stamp">Not a fair test: {leakage}.</p>' if leakage else "",
        notes=f"<ul>{notes}</ul>" if notes else "",
        contents="\n".join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _ in sections),
        sections="\n".join(
            f'<section id="{key}"><h2>{name}</h2>\n{body}\n</section>'
            for key, name, body in sections
        ),
    )


def _download(name: str, text: str, what: str) -> str:
    if not text:
        return ""
    data = base64.b64encode(text.encode()).decode()
    return (
        f'<p class="screen"><a download="{name}"'
        f' href="data:text/csv;charset=utf-8;base64,{data}">Download {name}</a>, {what}.</p>'
    )


def _score_sections(skill: xr.Dataset, skill_csv: str) -> list[Section]:
    sections = [("glance", "At a glance", _glance(skill))]
    if has_scorecard(skill):
        table = scorecard_frame(skill).to_csv(index=False)
        link = _download("scorecard.csv", table, "every method against every other")
        sections.append(("card", "Scorecard", scorecard_section(skill, download=link)))
    link = _download("skill.csv", skill_csv, "all numbers below as one table")
    return [*sections, ("skill", "Skill by lead time", lead_section(skill, download=link))]


def _case_section(forecast: xr.Dataset, observed: xr.Dataset) -> Section:
    method = str(forecast.attrs.get("method", ""))
    label = looks([method])[method].label if method else ""
    return "case", "Forecasts beside the truth", case_section(forecast, observed, method=label)


def _longrun_section(simulation: xr.Dataset) -> Section:
    table = simulation_table(simulation).to_csv(index=False)
    link = _download("simulation.csv", table, "the numbers of this table")
    body = longrun_section(simulation, download=link)
    return "longrun", longrun_heading(simulation), body


def _diagnostic_sections(diagnostics: xr.Dataset, skill: xr.Dataset) -> list[Section]:
    sections = []
    if "rmse" in diagnostics:
        against = str(skill.attrs.get("against", "lim"))
        maps = error_map_section(diagnostics, against=against, method=main_method(skill))
        sections.append(("maps", "Maps of error and of skill", maps))
    drawn = spectrum_figures(diagnostics) if "spectrum" in diagnostics else []
    if drawn:
        text = (
            "<p>Variance of the waves round the globe, a mean over latitudes by area, of the"
            " forecasts and of the truth (thin line in the colour of the text). Below 1 in the"
            " lower panel, a forecast is too smooth on that scale; the error alone does not"
            " tell.</p>"
        )
        legend = method_legend(diagnostics, key="spectra")
        table = spectrum_frame(diagnostics).to_csv(index=False)
        link = _download("spectra.csv", table, "all leads of these maps")
        sections.append(("spectra", "Spectra", f"{text}{legend}{_figures(drawn)}{link}"))
    elif "rmse" in diagnostics:
        text = (
            "<p>Left out: waves round the globe need a grid that goes round it, and fields without"
            " missing values.</p>"
        )
        sections.append(("spectra", "Spectra", text))
    if "rank_frequency" in diagnostics:
        text = (
            "<p>How often the truth has which rank among the members, relative to a reliable"
            " ensemble (1, line). U-shaped: the members are too close together; hump-shaped: too"
            " far apart; sloped: biased.</p>"
        )
        drawn = rank_figures(diagnostics)
        table = rank_frame(diagnostics).to_csv(index=False)
        link = _download("rank_histograms.csv", table, "all of these leads")
        sections.append(("ranks", "Rank histograms", f"{text}{_figures(drawn)}{link}"))
    return sections


def _figures(drawings: Sequence[str]) -> str:
    figures = "".join(f"<figure>{svg}</figure>" for svg in drawings)
    return f'<div class="pair">{figures}</div>'


def _background_sections(about: About, log: Sequence[dict[str, object]] | None) -> list[Section]:
    sections = []
    if log:
        sections.append(("training", "Training", _training_section(log)))
    if about.methods:
        paragraphs = "".join(f"<p>{escape(text)}</p>" for text in about.methods)
        body = (
            '<p class="soft">From the configuration, to be pasted.</p>'
            f'<div class="prose">{paragraphs}</div>'
        )
        sections.append(("methods", "Methods", body))
    if about.config:
        yaml = escape(about.config)
        body = f"<details><summary>Show the YAML</summary><pre>{yaml}</pre></details>"
        sections.append(("configuration", "Configuration", body))
    return [*sections, ("provenance", "Provenance", _provenance_section(about.provenance))]


def _glance(skill: xr.Dataset) -> str:
    method = main_method(skill)
    comparisons = [c for c in compare(skill, method) if np.isfinite(c.gain).any()] if method else []
    if not comparisons or method is None:
        return "<p>Nothing to compare.</p>"
    metric = main_metric(skill)
    leads = lead_axis(skill["lead_time"])
    name = short_name(metric)
    kind = f"gain in {name} × 100" if better(metric) == HIGHER else f"reduction of {name} in %"
    head = "".join(f'<th scope="col">{leads.text([k])}</th>' for k in range(len(leads.values)))
    rows = []
    for c in comparisons:
        cells = []
        for gain, clear, rival in zip(c.gain, c.clear, c.rival, strict=True):
            if not np.isfinite(gain):
                cells.append("<td>–</td>")
                continue
            text = ("+" if gain > 0 else "−") + f"{abs(gain):.1f}"
            text = f"<b>{text}</b>" if clear and gain > 0 else text
            name = escape(looks([rival])[rival].label)
            cells.append(f"<td>{text}<small>{name}</small></td>")
        rows.append(f'<tr><th scope="row">{escape(c.channel)}</th>{"".join(cells)}</tr>')
    caption = (
        f"{escape(looks([method])[method].label)} against the best of the other methods, named"
        f" below each number: {escape(kind)}; + is better. Bold: ahead with 95 % intervals apart, a"
        " stricter test than a paired one."
    )
    return (
        f"<p class='soft'>{caption}</p>"
        '<div class="scroll"><table class="narrow">'
        f'<thead><tr><th scope="col">Variable</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _training_section(log: Sequence[dict[str, object]]) -> str:
    steps = [int(str(r["step"])) for r in log if str(r.get("step", "")).isdigit()]
    text = (
        f"<p>{max(steps):,} optimizer steps. A collapse shows as an effective rank or a smallest"
        " standard deviation near zero.</p>"
    )
    return (text if steps else "") + _figures(training_figures(log))


def _provenance_section(provenance: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>'
        for k, v in provenance.items()
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'
