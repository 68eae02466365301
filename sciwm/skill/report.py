"""The run's report: one HTML page that holds its figures, tables and data and loads nothing from anywhere."""

import base64
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import xarray as xr

from sciwm.skill.comparison import channel_units, compare, cost, main_method, main_metric, metric_order, summarize
from sciwm.skill.figures import skill_figure, swatch, training_figures
from sciwm.skill.labels import HIGHER, Leads, better, lead_axis, looks, metric_name, metric_units, pretty_units, short_name
from sciwm.skill.maps import case_figures

__all__ = ["write_report"]

_DIMS = ("method", "channel", "region", "lead_time", "metric")
_NAMES = {
    "z": "Geopotential",
    "gh": "Geopotential height",
    "t": "Temperature",
    "u": "Eastward wind",
    "v": "Northward wind",
    "q": "Specific humidity",
    "t2m": "2 m temperature",
    "d2m": "2 m dew point",
    "u10": "10 m eastward wind",
    "v10": "10 m northward wind",
    "msl": "Mean sea-level pressure",
    "sp": "Surface pressure",
    "sst": "Sea-surface temperature",
    "ssta": "Sea-surface temperature anomaly",
    "tp": "Precipitation",
}


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
    notes: Sequence[str] = (),
    skill_csv: str = "",
) -> Path:
    """Write the report of a run as one self-contained HTML file: no script, no network.

    Parameters
    ----------
    out : Path
        The file to write; an existing one is replaced when the new one is complete.
    title : str
        Heading.
    skill : Dataset
        Dims ``method, channel, region, lead_time, metric``; variables ``value, ci_low, ci_high, num_init``; coordinate ``units(channel)``;
        ``attrs["leakage"]``, if not empty, is printed above everything.
    forecast, observed : Dataset or None
        Physical units, dims ``init_time, lead_time, …`` and ``time, …``; a typical forecast is drawn if both are given.
    log : list of dict or None
        Lines of ``log.jsonl``.
    config : str
        YAML of the run; empty without one.
    provenance : dict
        What repeats the run: versions, fingerprint, split dates, seed…
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
    lacking = [d for d in _DIMS if d not in skill.dims] + [v for v in ("value", "ci_low", "ci_high") if v not in skill]
    if lacking:
        raise ValueError(f"got a skill table without {', '.join(lacking)}, expected dims {', '.join(_DIMS)} and value, ci_low, ci_high")
    skill = skill.load()
    sections = [("glance", "At a glance", _glance(skill)), ("skill", "Skill by lead time", _skill_section(skill, skill_csv))]
    if forecast is not None and observed is not None:
        sections.append(("case", "Forecasts beside the truth", _case_section(forecast, observed)))
    if log:
        sections.append(("training", "Training", _training_section(log)))
    if config:
        body = f"<details><summary>Show the YAML</summary><pre>{escape(config)}</pre></details>"
        sections.append(("configuration", "Configuration", body))
    sections.append(("provenance", "Provenance", _provenance_section(provenance)))
    template = Template(files("sciwm.skill").joinpath("report.html.tmpl").read_text("utf-8"))
    page = template.substitute(
        title=escape(title),
        css=files("sciwm.skill").joinpath("report.css").read_text("utf-8"),
        summary=escape(summarize(skill)),
        leakage=f'<p class="stamp">Not a fair test: {escape(leakage)}.</p>' if (leakage := skill.attrs.get("leakage")) else "",
        notes="<ul>" + "".join(f"<li>{escape(n)}</li>" for n in notes) + "</ul>" if notes else "",
        contents="\n".join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _ in sections),
        sections="\n".join(f'<section id="{key}"><h2>{name}</h2>\n{body}\n</section>' for key, name, body in sections),
    )
    out = Path(out)
    partial = out.with_name(out.name + ".partial")
    partial.write_text(page, "utf-8")
    partial.replace(out)
    return out


def _channel_title(channel: str, units: str) -> str:
    """Name of a channel in words where it is known; ``z`` in metres is a height."""
    match = re.fullmatch(r"(gh|[ztuvqwr])(\d+)", channel)
    base = match[1] if match and channel not in _NAMES else channel
    name = _NAMES.get("gh" if base == "z" and units == "m" else base)
    if name is None:
        return channel
    return f"{name} at {match[2]} hPa ({channel})" if match and base != channel else f"{name} ({channel})"


def _glance(skill: xr.Dataset) -> str:
    method = main_method(skill)
    comparisons = compare(skill, method) if method else []
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
            cells.append(f"<td>{f'<b>{text}</b>' if clear and gain > 0 else text}<small>{escape(looks([rival])[rival].label)}</small></td>")
        rows.append(f'<tr><th scope="row">{escape(c.channel)}</th>{"".join(cells)}</tr>')
    caption = (
        f"{escape(looks([method])[method].label)} against the best of the other methods, named below each number: {escape(kind)}; "
        "+ is better. Bold: ahead with 95 % intervals apart, a stricter test than a paired one."
    )
    return (
        f"<p class='soft'>{caption}</p>"
        f'<div class="scroll"><table class="narrow"><thead><tr><th scope="col">Variable</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _skill_section(skill: xr.Dataset, skill_csv: str) -> str:
    methods = [str(m) for m in skill["method"].values]
    legend = "".join(f"<li>{swatch(look)}{escape(look.label)}</li>" for look in looks(methods).values())
    regions = [str(r) for r in skill["region"].values]
    parts = [f"<p>{_sample_text(skill)}{f' Region: {escape(regions[0])}.' if len(regions) > 1 else ''}</p>"]
    if skill_csv:
        data = base64.b64encode(skill_csv.encode()).decode()
        link = f'<a download="skill.csv" href="data:text/csv;charset=utf-8;base64,{data}">Download skill.csv</a>'
        parts.append(f'<p class="screen">{link}, all numbers below as one table.</p>')
    channels = [str(c) for c in skill["channel"].values]
    links = "".join(f'<li><a href="#channel{i}">{escape(c)}</a></li>' for i, c in enumerate(channels))
    parts.append(f'<nav aria-label="Variables"><ul class="sub">{links}</ul></nav>' if len(channels) > 1 else "")
    for i, channel in enumerate(channels):
        units = channel_units(skill)[i]
        title = _channel_title(channel, units)
        tail = f", {pretty_units(units)}" if pretty_units(units) else ""
        one = skill.isel(channel=i)
        body = [_region_block(one.isel(region=0), title=channel, units=units, key=f"c{i}", metrics=metric_order(skill))]
        for j, region in enumerate(regions[1:], start=1):
            inner = _region_block(
                one.isel(region=j), title=f"{channel}, {region}", units=units, key=f"c{i}r{j}", metrics=metric_order(skill)[:1]
            )
            body.append(f"<details><summary>{escape(channel)}, {escape(region)}</summary>{inner}</details>")
        marks = legend.replace("swatch-", f"c{i}-swatch-")
        heading = f'<h3 id="channel{i}">{escape(title)}{escape(tail)}</h3>\n<ul class="legend" aria-label="Methods">{marks}</ul>'
        parts.append(heading + "\n" + "\n".join(body))
    return "\n".join(parts)


def _region_block(skill: xr.Dataset, *, title: str, units: str, key: str, metrics: Sequence[str]) -> str:
    """Figures and tables of one channel in one region: dims ``method, lead_time, metric``."""
    leads = lead_axis(skill["lead_time"])
    figures, tables = [], []
    for metric in metrics:
        one = skill.sel(metric=metric).transpose("method", "lead_time", ...)
        if not np.isfinite(one["value"].values.astype(float)).any():
            continue
        svg = skill_figure(one, title=title, units=units, metric=metric, leads=leads, key=f"{key}-{re.sub(r'[^A-Za-z0-9]', '-', metric)}")
        figures.append(f"<figure>{svg}</figure>")
        tables.append(_table(one, title=title, units=units, metric=metric, leads=leads))
    rest = f"<details><summary>Tables of the other metrics</summary>{''.join(tables[1:])}</details>" if tables[1:] else ""
    return f'<div class="pair">{"".join(figures)}</div>{"".join(tables[:1])}{rest}'


def _table(skill: xr.Dataset, *, title: str, units: str, metric: str, leads: Leads) -> str:
    """Methods × leads, value over its interval, the best of a column bold."""
    value, low, high = (skill[v].values.astype(float) for v in ("value", "ci_low", "ci_high"))
    seen = np.abs(value[np.isfinite(value)])
    typical = float(np.median(seen)) if seen.size else 0.0
    digits = int(np.clip(2 - np.floor(np.log10(typical)), 0, 6)) if typical > 0 else 2
    small = np.round(cost(value, metric), digits)
    best = np.nanmin(np.where(np.isfinite(small), small, np.inf), axis=0)
    style = looks(str(m) for m in skill["method"].values)
    rows = []
    for i, look in enumerate(style.values()):
        cells = []
        for k in range(value.shape[1]):
            if not np.isfinite(value[i, k]):
                cells.append("<td>–</td>")
                continue
            text = _number(value[i, k], digits)
            text = f"<b>{text}</b>" if small[i, k] == best[k] else text
            span = f"<small>[{_number(low[i, k], digits)}, {_number(high[i, k], digits)}]</small>" if np.isfinite(low[i, k]) else ""
            cells.append(f"<td>{text}{span}</td>")
        rows.append(f'<tr><th scope="row">{escape(look.label)}</th>{"".join(cells)}</tr>')
    unit = metric_units(metric, units)
    head = "".join(f'<th scope="col">{leads.text([k])}</th>' for k in range(len(leads.values)))
    bold = "; best in bold" if np.isfinite(small).any() else ""
    caption = f"{metric_name(metric)} of {title}{f' ({unit})' if unit else ''}{bold}."
    return (
        f'<div class="scroll"><table class="tall"><caption>{escape(caption)}</caption>'
        f'<thead><tr><th scope="col">Method</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _number(value: float, digits: int) -> str:
    text = f"{abs(value):.{digits}f}"
    return f"−{text}" if value < 0 and float(text) else text


def _sample_text(skill: xr.Dataset) -> str:
    if "num_init" not in skill:
        return ""
    counts = skill["num_init"].values
    counts = counts[np.isfinite(counts.astype(float)) & (counts > 0)]
    if not counts.size:
        return ""
    least, most = int(counts.min()), int(counts.max())
    return f"Scored over {least:,} initial times." if least == most else f"Scored over {least:,} to {most:,} initial times."


def _case_section(forecast: xr.Dataset, observed: xr.Dataset) -> str:
    figures, remarks = case_figures(forecast, observed)
    text = "".join(f"<p>{escape(r)}</p>" for r in remarks)
    return text + "".join(f'<figure class="wide"><div class="scroll">{svg}</div></figure>' for svg in figures)


def _training_section(log: Sequence[dict[str, object]]) -> str:
    steps = [int(str(r["step"])) for r in log if str(r.get("step", "")).isdigit()]
    figures = "".join(f"<figure>{svg}</figure>" for svg in training_figures(log))
    text = f"<p>{max(steps):,} optimizer steps. A collapse shows as an effective rank or a smallest standard deviation near zero.</p>"
    return (text if steps else "") + f'<div class="pair">{figures}</div>'


def _provenance_section(provenance: dict[str, str]) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>' for k, v in provenance.items())
    return f'<table class="facts"><tbody>{rows}</tbody></table>'
