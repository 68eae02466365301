"""The report: one HTML page that holds its figures, tables, data and script and loads nothing from anywhere."""

import base64
import hashlib
from collections.abc import Sequence
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
from sciwm.report.ranking import compare, main_method, main_metric, summarize
from sciwm.report.scorecard import has_scorecard, scorecard_frame, scorecard_section
from sciwm.skill.metrics import HIGHER, better, short_name

__all__ = ["write_report"]

_DIMS = ("method", "channel", "region", "lead_time", "metric")
Section = tuple[str, str, str]  # id, heading, HTML


def write_report(
    out: Path,
    *,
    title: str,
    skill: xr.Dataset,
    forecast: xr.Dataset | None,
    observed: xr.Dataset | None,
    log: list[dict[str, object]] | None,
    config: str,
    provenance: dict[str, str],
    diagnostics: xr.Dataset | None = None,
    methods: Sequence[str] = (),
    notes: Sequence[str] = (),
    skill_csv: str = "",
) -> Path:
    """Write the report of a run as one self-contained HTML file: no network, and readable without its script.

    Parameters
    ----------
    out : Path
        The file to write; an existing one is replaced when the new one is complete.
    title : str
        Heading.
    skill : Dataset
        Dims ``method, channel, region, lead_time, metric``; variables ``value, ci_low, ci_high,
        num_init``; coordinate ``units(channel)``; ``attrs["leakage"]``, if not empty, is printed
        above everything.
    forecast, observed : Dataset or None
        Physical units, dims ``init_time, lead_time, …`` and ``time, …``; if both are given, some
        forecasts are shown beside the truth.
    log : list of dict or None
        Lines of ``log.jsonl``.
    config : str
        YAML of the run; empty without one.
    provenance : dict
        What repeats the run: versions, fingerprint, split dates, seed…
    diagnostics : Dataset, optional
        From `diagnose`: maps of error, spectra, rank histograms.
    methods : sequence of str
        Paragraphs on how everything was made, e.g. from `describe_scores`.
    notes : sequence of str
        Caveats shown under the summary.
    skill_csv : str
        The skill table as CSV, offered for download.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        If ``skill`` lacks a dimension or variable.
    """
    lacking = [d for d in _DIMS if d not in skill.dims] + [
        v for v in ("value", "ci_low", "ci_high") if v not in skill
    ]
    if lacking:
        raise ValueError(
            f"got a skill table without {', '.join(lacking)}, expected dims {', '.join(_DIMS)} and"
            " value, ci_low, ci_high"
        )
    skill = skill.load()
    sections = _score_sections(skill, skill_csv)
    if diagnostics is not None:
        sections += _diagnostic_sections(diagnostics.load(), skill)
    if forecast is not None and observed is not None:
        place = next((i for i, s in enumerate(sections) if s[0] == "spectra"), len(sections))
        label = (
            looks([method])[method].label
            if (method := str(forecast.attrs.get("method", "")))
            else ""
        )
        sections.insert(
            place,
            ("case", "Forecasts beside the truth", case_section(forecast, observed, method=label)),
        )
    sections += _background_sections(log, methods, config, provenance)
    page = _page(title, summarize(skill), str(skill.attrs.get("leakage", "")), notes, sections)
    out = Path(out)
    write_atomically(out, page)
    return out


def _page(
    title: str, summary: str, leakage: str, notes: Sequence[str], sections: Sequence[Section]
) -> str:
    source = {
        name: files("sciwm.report").joinpath(name).read_text("utf-8")
        for name in ("page.html.tmpl", "page.css", "page.js")
    }
    script = source["page.js"]
    return Template(source["page.html.tmpl"]).substitute(
        title=escape(title),
        css=source["page.css"],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        summary=escape(summary),
        leakage=f'<p class="stamp">Not a fair test: {escape(leakage)}.</p>' if leakage else "",
        notes="<ul>" + "".join(f"<li>{escape(n)}</li>" for n in notes) + "</ul>" if notes else "",
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
        link = _download(
            "scorecard.csv",
            scorecard_frame(skill).to_csv(index=False),
            "every method against every other",
        )
        sections.append(("card", "Scorecard", scorecard_section(skill, download=link)))
    link = _download("skill.csv", skill_csv, "all numbers below as one table")
    return [*sections, ("skill", "Skill by lead time", lead_section(skill, download=link))]


def _diagnostic_sections(diagnostics: xr.Dataset, skill: xr.Dataset) -> list[Section]:
    sections = []
    if "rmse" in diagnostics:
        against = str(skill.attrs.get("against", "lim"))
        sections.append(
            (
                "maps",
                "Maps of error and of skill",
                error_map_section(diagnostics, against=against, method=main_method(skill)),
            )
        )
    drawn = spectrum_figures(diagnostics) if "spectrum" in diagnostics else []
    if drawn:
        link = _download(
            "spectra.csv",
            spectrum_frame(diagnostics).to_csv(index=False),
            "all leads of these maps",
        )
        text = (
            "<p>Variance of the waves round the globe, a mean over latitudes by area, of the"
            " forecasts and of the truth (thin line in the colour of the text). Below 1 in the"
            " lower panel, a forecast is too smooth on that scale; the error alone does not"
            " tell.</p>"
        )
        body = (
            f"{text}{method_legend(diagnostics, key='spectra')}<div"
            f' class="pair">{_figures(drawn)}</div>{link}'
        )
        sections.append(("spectra", "Spectra", body))
    elif "rmse" in diagnostics:
        text = (
            "<p>Left out: waves round the globe need a grid that goes round it, and fields without"
            " missing values.</p>"
        )
        sections.append(("spectra", "Spectra", text))
    if "rank_frequency" in diagnostics:
        link = _download(
            "rank_histograms.csv", rank_frame(diagnostics).to_csv(index=False), "all of these leads"
        )
        text = (
            "<p>How often the truth has which rank among the members, relative to a reliable"
            " ensemble (1, line). U-shaped: the members are too close together; hump-shaped: too"
            " far apart; sloped: biased.</p>"
        )
        sections.append(
            (
                "ranks",
                "Rank histograms",
                f'{text}<div class="pair">{_figures(rank_figures(diagnostics))}</div>{link}',
            )
        )
    return sections


def _figures(drawings: Sequence[str]) -> str:
    return "".join(f"<figure>{svg}</figure>" for svg in drawings)


def _background_sections(
    log: list[dict[str, object]] | None,
    methods: Sequence[str],
    config: str,
    provenance: dict[str, str],
) -> list[Section]:
    sections = []
    if log:
        sections.append(("training", "Training", _training_section(log)))
    if methods:
        paragraphs = "".join(f"<p>{escape(text)}</p>" for text in methods)
        sections.append(
            (
                "methods",
                "Methods",
                (
                    '<p class="soft">From the configuration, to be pasted.</p><div'
                    f' class="prose">{paragraphs}</div>'
                ),
            )
        )
    if config:
        body = f"<details><summary>Show the YAML</summary><pre>{escape(config)}</pre></details>"
        sections.append(("configuration", "Configuration", body))
    return [*sections, ("provenance", "Provenance", _provenance_section(provenance))]


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
            cells.append(
                f"<td>{f'<b>{text}</b>' if clear and gain > 0 else text}<small>{escape(looks([rival])[rival].label)}</small></td>"
            )
        rows.append(f'<tr><th scope="row">{escape(c.channel)}</th>{"".join(cells)}</tr>')
    caption = (
        f"{escape(looks([method])[method].label)} against the best of the other methods, named"
        f" below each number: {escape(kind)}; + is better. Bold: ahead with 95 % intervals apart, a"
        " stricter test than a paired one."
    )
    return (
        f"<p class='soft'>{caption}</p>"
        '<div class="scroll"><table class="narrow"><thead><tr><th'
        f' scope="col">Variable</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _training_section(log: Sequence[dict[str, object]]) -> str:
    steps = [int(str(r["step"])) for r in log if str(r.get("step", "")).isdigit()]
    text = (
        f"<p>{max(steps):,} optimizer steps. A collapse shows as an effective rank or a smallest"
        " standard deviation near zero.</p>"
    )
    return (text if steps else "") + f'<div class="pair">{_figures(training_figures(log))}</div>'


def _provenance_section(provenance: dict[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>'
        for k, v in provenance.items()
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'
