"""Scorecard: every variable, region and lead of one method against another.

A cell is coloured by the difference, and hatched where that may be chance.
"""

import re
from html import escape
from itertools import pairwise

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
        Dims ``method, reference_method, channel, region, lead_time``.

        ``difference`` is in percent, NaN where a value is missing and against itself.
        ``significant`` says whether ``pair_q_value`` in ``skill`` is at most 0.05. Without it, or
        for a metric without squared errors, it says whether the two intervals do not overlap.
        ``attrs["paired"]`` is 1 in the first case.
    """
    metric = main_metric(skill)
    dims = ("method", "channel", "region", "lead_time")
    one = skill.sel(metric=metric)
    value, low, high = (
        one[n].transpose(*dims).astype(float) for n in ("value", "ci_low", "ci_high")
    )
    other = {"method": "reference_method"}
    base, base_low, base_high = (a.rename(other) for a in (value, low, high))
    difference = 100 * (value - base)
    if better(metric) == LOWER:
        difference = difference / abs(base.where(base != 0))
    names = xr.DataArray(skill["method"].values.astype(str), dims="method")
    itself = names == names.rename(other)
    paired = metric in _SQUARED and "pair_q_value" in skill
    sure = skill["pair_q_value"] <= 0.05 if paired else (high < base_low) | (low > base_high)
    order = ("method", "reference_method", *dims[1:])
    found = {
        "difference": difference.where(~itself).transpose(*order),
        "significant": sure.transpose(*order),
    }
    return xr.Dataset(found).assign_attrs(metric=metric, paired=int(paired))


def scorecard_frame(skill: xr.Dataset) -> pd.DataFrame:
    """One row for each cell of every scorecard.

    Columns ``channel, region, lead, lead_unit, method, reference, metric, difference_percent,
    significant``, and ``p_value, q_value`` of the paired test where they were computed.
    """
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
        for name in ("p_value", "q_value"):
            columns[name] = skill[f"pair_{name}"].transpose(*order).values.ravel()
    frame = pd.DataFrame(columns)
    return frame[np.isfinite(frame["difference_percent"])].reset_index(drop=True)


def shade(difference: float, *, higher: bool = False) -> str:
    """Class of a cell's colour, empty where the difference is missing.

    From ``b5``, far better, over ``b1``, ``s0`` and ``w1`` to ``w5``, far worse.

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
        f'<span class="control"><label for="scorecard-{i}">{c.name}</label>'
        f"{select(f'scorecard-{i}', c, i)}</span>"
        for i, c in enumerate(choices)
    )
    higher = better(metric) == HIGHER
    what = f"{short_name(metric)}{' × 100, difference' if higher else ', difference in %'}"
    said = f'<span id="scorecard-said">{escape(f"{labels[a]} against {labels[b]}")}</span>'
    return (
        f"<p>{_explanation(table)}</p>{_legend(higher)}"
        f'<div class="controls" id="scorecard-controls" hidden>{controls}</div>'
        '<div class="scroll"><table class="card" id="scorecard">'
        f'<caption><span class="stay">{escape(what)}: {said}</span></caption>'
        f"{_table(skill, rows, cells[a][b])}</table></div>"
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
    head = '<th scope="col">Variable</th>'
    head += "<th scope=col class=region>Region</th>" if several else ""
    head += "".join(f'<th scope="col">{leads.text([k])}</th>' for k in range(len(leads.values)))
    body = []
    for i, (c, r) in enumerate(rows):
        first = i == 0 or rows[i - 1][0] != c
        title = escape(str(skill["channel"].values[c]))
        row = f'<th scope="row">{title if first else f"<span class=aside>{title}</span>"}</th>'
        if several:
            region = escape(_words(str(skill["region"].values[r])))
            row += f'<th scope="row" class="region">{region}</th>'
        row += "".join(map(_markup, cells[i]))
        body.append(f"<tr{' class=first' if first and several else ''}>{row}</tr>")
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
    between = [f"{low}–{high}" for low, high in pairwise(edges)]
    names = [f"over {edges[-1]}", *between[::-1]]
    better_cells = "".join(f'<li class="b{5 - i}">{n}</li>' for i, n in enumerate(names))
    worse_cells = "".join(f'<li class="w{i + 1}">{n}</li>' for i, n in enumerate(names[::-1]))
    unit = "" if higher else " %"
    return (
        '<div class="key" role="img" aria-label="Colours: blue is better, orange is worse, by 1,'
        f' 3, 7, 15 and 30{unit}; hatched is not significant">'
        f'<span>better by</span><ul>{better_cells}<li class="s0">under {edges[0]}</li>'
        f"{worse_cells}</ul><span>worse by{unit}</span>"
        '<ul><li class="s0 ns">chance?</li></ul></div>'
    )
