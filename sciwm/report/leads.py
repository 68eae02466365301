"""Skill by lead time for the report: figures and tables of every metric, variable and region."""

import re
from collections.abc import Sequence
from html import escape

import numpy as np
import xarray as xr

from sciwm.report.figures import skill_figure, swatch
from sciwm.report.labels import Leads, lead_axis, looks
from sciwm.report.ranking import channel_units, metric_order
from sciwm.skill.metrics import cost, metric_name, metric_units, pretty_units

__all__ = ["channel_title", "lead_section", "method_legend"]

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


def channel_title(channel: str, units: str) -> str:
    """Name of a channel in words where it is known; ``z`` in metres is a height."""
    match = re.fullmatch(r"(gh|[ztuvqwr])(\d+)", channel)
    base = match[1] if match and channel not in _NAMES else channel
    name = _NAMES.get("gh" if base == "z" and units == "m" else base)
    if name is None:
        return channel
    level = f" at {match[2]} hPa" if match and base != channel else ""
    return f"{name}{level} ({channel})"


def method_legend(skill: xr.Dataset, *, key: str) -> str:
    """Line and name of every method as an HTML list; ``key`` is unique in the page."""
    marks = "".join(
        f"<li>{swatch(look)}{escape(look.label)}</li>"
        for look in looks(str(m) for m in skill["method"].values).values()
    )
    marks = marks.replace("swatch-", f"{key}-swatch-")
    return f'<ul class="legend" aria-label="Methods">{marks}</ul>'


def lead_section(skill: xr.Dataset, *, download: str = "") -> str:
    """HTML of the skill of every variable; what no metric has a value for is left out.

    Parameters
    ----------
    skill : Dataset
        From `evaluate`.
    download : str
        A link to the table.
    """
    regions = [str(r) for r in skill["region"].values]
    where = f" Region: {escape(regions[0])}." if len(regions) > 1 else ""
    parts = [f"<p>{_sample_text(skill)}{where}</p>", download]
    channels = {
        i: str(c)
        for i, c in enumerate(skill["channel"].values)
        if np.isfinite(skill["value"].isel(channel=i)).any()
    }
    links = "".join(f'<li><a href="#channel{i}">{escape(c)}</a></li>' for i, c in channels.items())
    nav = f'<nav aria-label="Variables"><ul class="sub">{links}</ul></nav>'
    parts.append(nav if len(channels) > 1 else "")
    for i, channel in channels.items():
        units = channel_units(skill)[i]
        event = "event" in skill.coords and bool(str(skill["event"].values[i]))
        title = f"Event {channel}" if event else channel_title(channel, units)
        tail = f"{'' if event else ','} {pretty_units(units)}" if pretty_units(units) else ""
        legend = method_legend(skill, key=f"c{i}")
        one = skill.isel(channel=i)
        metrics = [m for m in metric_order(skill) if np.isfinite(one["value"].sel(metric=m)).any()]
        parts.append(f'<h3 id="channel{i}">{escape(title)}{escape(tail)}</h3>\n{legend}')
        first = one.isel(region=0)
        parts.append(_region_block(first, title=channel, units=units, key=f"c{i}", metrics=metrics))
        for j, region in enumerate(regions[1:], start=1):
            name = f"{channel}, {region}"
            inner = _region_block(
                one.isel(region=j), title=name, units=units, key=f"c{i}r{j}", metrics=metrics[:1]
            )
            parts.append(f"<details><summary>{escape(name)}</summary>{inner}</details>")
    return "\n".join(parts)


def _region_block(
    skill: xr.Dataset, *, title: str, units: str, key: str, metrics: Sequence[str]
) -> str:
    """Figures and tables of one channel in one region: dims ``method, lead_time, metric``."""
    leads = lead_axis(skill["lead_time"])
    figures, tables = [], []
    for metric in metrics:
        one = skill.sel(metric=metric).transpose("method", "lead_time", ...)
        if not np.isfinite(one["value"].values.astype(float)).any():
            continue
        own = f"{key}-{re.sub(r'[^A-Za-z0-9]', '-', metric)}"
        svg = skill_figure(one, title=title, units=units, metric=metric, leads=leads, key=own)
        figures.append(f"<figure>{svg}</figure>")
        tables.append(_table(one, title=title, units=units, metric=metric, leads=leads))
    others = "".join(tables[1:])
    rest = f"<details><summary>Tables of the other metrics</summary>{others}</details>"
    return (
        f'<div class="pair">{"".join(figures)}</div>{"".join(tables[:1])}{rest if others else ""}'
    )


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
            text, least, most = (_number(a[i, k], digits) for a in (value, low, high))
            text = f"<b>{text}</b>" if small[i, k] == best[k] else text
            span = f"<small>[{least}, {most}]</small>" if np.isfinite(low[i, k]) else ""
            cells.append(f"<td>{text}{span}</td>")
        rows.append(f'<tr><th scope="row">{escape(look.label)}</th>{"".join(cells)}</tr>')
    unit = metric_units(metric, units)
    head = "".join(f'<th scope="col">{leads.text([k])}</th>' for k in range(len(leads.values)))
    bold = "; best in bold" if np.isfinite(small).any() else ""
    caption = f"{metric_name(metric)} of {title}{f' ({unit})' if unit else ''}{bold}."
    return (
        '<div class="scroll"><table class="tall">'
        f'<caption><span class="stay">{escape(caption)}</span></caption>'
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
    span = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"Scored over {span} initial times."
