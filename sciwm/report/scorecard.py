"""Scorecard: every variable, region and lead of one method against another, coloured by the difference, hatched where it may be chance."""

import re
from html import escape

import numpy as np
import pandas as pd
import xarray as xr

from sciwm.report.browser import Choice, data_block, select
from sciwm.report.errormaps import map_reference
from sciwm.report.labels import lead_axis, looks
from sciwm.report.ranking import main_method, main_metric
from sciwm.skill.metrics import HIGHER, LOWER, better, short_name

__all__ = ["differences", "has_scorecard", "scorecard_frame", "scorecard_section", "shade"]

STEPS = (1.0, 3.0, 7.0, 15.0, 30.0)
"""Differences, in percent, at which the colour changes."""

_SQUARED = frozenset({"rmse", "nmse"})  # what the paired test of squared errors speaks of


def has_scorecard(skill: xr.Dataset) -> bool:
    """Whether there are two methods to compare, by a metric of which more or less is better."""
    return skill.sizes["method"] > 1 and better(main_metric(skill)) in (LOWER, HIGHER)


def differences(skill: xr.Dataset) -> xr.Dataset:
    r"""Compare every method with every other by the main metric.

    .. math:: \Delta = 100 \, \frac{m - m_\mathrm{reference}}{|m_\mathrm{reference}|}

    For metrics of which more is better: 100 times the difference.

    Parameters
    ----------
    skill : Dataset
        From `evaluate`.

    Returns
    -------
    Dataset
        Dims ``method, reference_method, channel, region, lead_time``: ``difference`` in percent,
        NaN where a value is missing and against itself; ``significant``: with ``pair_q_value`` in
        ``skill`` and a squared-error metric, at most 0.05; otherwise whether the intervals of the
        two do not overlap. ``attrs["paired"]`` is 1 in the first case.
    """
    metric = main_metric(skill)
    dims = ("method", "channel", "region", "lead_time")
    one = skill.sel(metric=metric)
    value, low, high = (
        one[n].transpose(*dims).astype(float) for n in ("value", "ci_low", "ci_high")
    )
    base, base_low, base_high = (
        a.rename({"method": "reference_method"}) for a in (value, low, high)
    )
    difference = (
        100 * (value - base) / abs(base.where(base != 0))
        if better(metric) == LOWER
        else 100 * (value - base)
    )
    names = xr.DataArray(skill["method"].values.astype(str), dims="method")
    itself = names == names.rename({"method": "reference_method"})
    paired = metric in _SQUARED and "pair_q_value" in skill
    sure = skill["pair_q_value"] <= 0.05 if paired else (high < base_low) | (low > base_high)
    order = ("method", "reference_method", *dims[1:])
    found = {
        "difference": difference.where(~itself).transpose(*order),
        "significant": sure.transpose(*order),
    }
    return xr.Dataset(found).assign_attrs(metric=metric, paired=int(paired))


def scorecard_frame(skill: xr.Dataset) -> pd.DataFrame:
    """One row for each cell of every scorecard: columns ``channel, region, lead, lead_unit, method, reference, metric, difference_percent,
    significant`` and, where they were computed, ``p_value, q_value`` of the paired test.
    """  # fmt: skip  # noqa: D205
    table = differences(skill)
    order = ("channel", "region", "lead_time", "method", "reference_method")
    sizes = [table.sizes[d] for d in order]
    channel, region, when, method, reference = (a.ravel() for a in np.indices(sizes))
    leads = lead_axis(skill["lead_time"])
    columns = {
        "channel": table["channel"].values[channel],
        "region": table["region"].values[region],
        "lead": np.array(leads.values)[when],
        "lead_unit": leads.unit,
        "method": table["method"].values[method],
        "reference": table["method"].values[reference],
        "metric": table.attrs["metric"],
        "difference_percent": table["difference"].transpose(*order).values.ravel(),
        "significant": table["significant"].transpose(*order).values.ravel(),
    }
    if "pair_q_value" in skill:
        columns |= {
            n: skill[f"pair_{n}"].transpose(*order).values.ravel() for n in ("p_value", "q_value")
        }
    frame = pd.DataFrame(columns)
    return frame[np.isfinite(frame["difference_percent"])].reset_index(drop=True)


def shade(difference: float, *, higher: bool = False) -> str:
    """Class of a cell's colour: ``b5`` far better … ``b1``, ``s0``, ``w1`` … ``w5`` far worse; empty where missing.

    Examples
    --------
    >>> shade(-4.0), shade(0.5), shade(40.0)
    ('b2', 's0', 'w5')
    """
    if not np.isfinite(difference):
        return ""
    step = int(np.searchsorted(STEPS, abs(difference), side="right"))
    return "s0" if step == 0 else f"{'b' if (difference < 0) != higher else 'w'}{step}"


def _cell(difference: float, sure: bool, higher: bool) -> str:
    """Text and class of a cell, as the page's script takes them."""
    if not np.isfinite(difference):
        return "–|"
    text = f"{abs(difference):.0f}" if abs(difference) >= 99.95 else f"{abs(difference):.1f}"
    sign = "" if float(text) == 0 else "+" if difference > 0 else "−"
    return f"{sign}{text}|{shade(difference, higher=higher)}{'' if sure else ' ns'}"


def _markup(cell: str) -> str:
    text, style = cell.split("|")
    unsure = '<span class="aside"> (not significant)</span>' if style.endswith(" ns") else ""
    return f'<td class="{style}">{text}{unsure}</td>' if style else f"<td>{text}</td>"


def scorecard_section(skill: xr.Dataset, *, download: str = "") -> str:
    """HTML of the scorecard; the reader chooses the method and the reference.

    Parameters
    ----------
    skill : Dataset
        From `evaluate`; channels without a value of the main metric are left out.
    download : str
        A link to `scorecard_frame` as CSV.
    """
    table = differences(skill)
    metric = table.attrs["metric"]
    methods = [str(m) for m in skill["method"].values]
    labels = [look.label for look in looks(methods).values()]
    reference = map_reference(methods, str(skill.attrs.get("against", "lim")))
    shown = main_method(skill) or next(m for m in methods if m != reference)
    if shown == reference:
        reference = next(m for m in methods if m != shown)
    a, b = methods.index(shown), methods.index(reference)
    seen = table["difference"].notnull().any(("method", "reference_method", "lead_time"))
    rows = [(int(c), int(r)) for c, r in np.argwhere(seen.values)]
    cells = _all_cells(table, rows)
    choices = (Choice("Method", labels, start=a), Choice("Reference", labels, start=b))
    controls = "".join(
        '<span class="control"><label'
        f' for="scorecard-{i}">{c.name}</label>{select(f"scorecard-{i}", c, i)}</span>'
        for i, c in enumerate(choices)
    )
    what = (
        f"{short_name(metric)} × 100, difference"
        if better(metric) == HIGHER
        else f"{short_name(metric)}, difference in %"
    )
    return (
        f"<p>{_explanation(table)}</p>{_legend(better(metric) == HIGHER)}"
        f'<div class="controls" id="scorecard-controls" hidden>{controls}</div><div'
        ' class="scroll"><table class="card" id="scorecard">'
        f'<caption><span class="stay">{escape(what)}: <span'
        f' id="scorecard-said">{escape(f"{labels[a]} against {labels[b]}")}</span></span>'
        f"</caption>{_table(skill, rows, cells[a][b])}</table></div>"
        f"{download}{data_block('scorecard-data', {'labels': labels, 'cells': cells})}"
    )


def _all_cells(table: xr.Dataset, rows: list[tuple[int, int]]) -> list[list[list[list[str]]]]:
    """Cells by method, reference, row and lead."""
    higher = better(table.attrs["metric"]) == HIGHER
    values, sure = table["difference"].values, table["significant"].values.astype(bool)

    def card(m: int, o: int) -> list[list[str]]:
        return [
            [
                _cell(float(v), bool(s), higher)
                for v, s in zip(values[m, o, c, r], sure[m, o, c, r], strict=True)
            ]
            for c, r in rows
        ]

    count = len(values)
    return [[card(m, o) for o in range(count)] for m in range(count)]


def _table(skill: xr.Dataset, rows: list[tuple[int, int]], cells: list[list[str]]) -> str:
    """Head and body of one scorecard."""
    leads = lead_axis(skill["lead_time"])
    several = skill.sizes["region"] > 1
    head = f'<th scope="col">Variable</th>{"<th scope=col class=region>Region</th>" if several else ""}'
    head += "".join(f'<th scope="col">{leads.text([k])}</th>' for k in range(len(leads.values)))
    body = []
    for i, (c, r) in enumerate(rows):
        first = i == 0 or rows[i - 1][0] != c
        title = escape(str(skill["channel"].values[c]))
        name = f'<th scope="row">{title if first else f"<span class=aside>{title}</span>"}</th>'
        region = (
            f'<th scope="row" class="region">{escape(_words(str(skill["region"].values[r])))}</th>'
            if several
            else ""
        )
        body.append(
            f"<tr{' class=first' if first and several else ''}>{name}{region}{''.join(map(_markup, cells[i]))}</tr>"
        )
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"


def _words(region: str) -> str:
    return re.sub(r"_+", " ", region)


def _explanation(table: xr.Dataset) -> str:
    metric = short_name(table.attrs["metric"])
    sign = "Positive" if better(table.attrs["metric"]) == HIGHER else "Negative"
    if table.attrs["paired"]:
        test = (
            "Hatched: not significant, in a paired test of the squared errors that allows for their"
            " autocorrelation; of the cells without hatching in one card, on average at most 5 %"
            " are false discoveries."
        )
    else:
        test = (
            "Hatched: the two 95 % intervals overlap, which is no proof of equality; no paired test"
            " of this comparison was made."
        )
    return f"{sign} and blue: the method has the better {metric} than the reference. {test}"


def _legend(higher: bool) -> str:
    edges = [f"{e:g}" for e in STEPS]
    names = [
        f"over {edges[-1]}",
        *(f"{low}–{high}" for low, high in zip(edges[-2::-1], edges[:0:-1], strict=True)),
    ]
    better_cells = "".join(f'<li class="b{5 - i}">{n}</li>' for i, n in enumerate(names))
    worse_cells = "".join(f'<li class="w{i + 1}">{n}</li>' for i, n in enumerate(names[::-1]))
    unit = "" if higher else " %"
    return (
        '<div class="key" role="img" aria-label="Colours: blue is better, orange is worse, by 1,'
        f' 3, 7, 15 and 30{unit}; hatched is not significant"><span>better'
        f' by</span><ul>{better_cells}<li class="s0">under'
        f' {edges[0]}</li>{worse_cells}</ul><span>worse by{unit}</span><ul><li class="s0'
        ' ns">chance?</li></ul></div>'
    )
