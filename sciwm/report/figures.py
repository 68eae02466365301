"""Line figures of the report: skill against lead time, training curves, all as inline SVG text.

Figures are built with matplotlib's object interface, so no global state is touched. The same
numbers give the same bytes. Text becomes outlines, identical on every machine, and takes the text
colour of the page.
"""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from sciwm.report.labels import INK, Leads, Look, join_words, looks
from sciwm.skill.metrics import (
    HIGHER,
    LOWER,
    NEITHER,
    ONE,
    ZERO,
    better,
    metric_name,
    metric_units,
    short_name,
)

__all__ = [
    "ABOVE",
    "Margins",
    "blank_figure",
    "in_report_style",
    "inline_svg",
    "skill_figure",
    "swatch",
    "training_figures",
]

FONT = 12.5  # figure units are CSS px at the natural width
SIZE = (440.0, 290.0)
_MOST_POINTS = 400  # of a training curve

_STYLE: dict[str, Any] = {
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.labelsize": FONT - 0.5,
    "ytick.labelsize": FONT - 0.5,
    "legend.fontsize": FONT - 0.5,
    "text.parse_math": False,  # names may hold a dollar sign
    "svg.hashsalt": "sciwm",
    "svg.fonttype": "path",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
# a decorator: the user's matplotlibrc must not change a report
in_report_style = matplotlib.style.context(["default", _STYLE])
ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "ncols": 2,
    "frameon": False,
    "labelcolor": INK,
    "borderaxespad": 0.2,
}
"""Look of a legend that stands above the axes."""

_TRAINING = {
    "loss": ("Total loss", "loss"),
    "prediction": ("Prediction loss", "loss"),
    "regularizer": ("Regularizer", "loss"),
    "effective_rank": ("Effective rank of the latents", "dimensions"),
    "smallest_std": ("Smallest standard deviation of a latent", "std"),
    "probe_r2": ("Explained variance of a linear probe", "R²"),
}
_SPLITS: dict[str, dict[str, Any]] = {
    "train": {"color": "#0072B2", "linestyle": "-", "marker": "", "label": "training"},
    "validation": {
        "color": "#D55E00",
        "linestyle": (0, (4, 2)),
        "marker": "o",
        "label": "validation",
    },
}


@dataclass(frozen=True)
class Margins:
    """Room around and between a figure's axes, in px.

    It is set by hand, because matplotlib's layout engines take most of the time.
    """

    left: float = 74.0
    right: float = 10.0
    top: float = 30.0
    bottom: float = 46.0
    across: float = 0.0
    down: float = 0.0


def blank_figure(
    width: float, height: float, *, rows: int = 1, columns: int = 1, margins: Margins = Margins()
) -> tuple[Figure, np.ndarray]:
    """Make a figure of ``width`` × ``height`` px with a grid of axes on no background.

    Returns
    -------
    figure : Figure
    axes : ndarray of Axes, shape (rows, columns)
    """
    m = margins
    figure = Figure(figsize=(width / 72, height / 72), dpi=150)
    panel_width = (width - m.left - m.right - (columns - 1) * m.across) / columns
    panel_height = (height - m.top - m.bottom - (rows - 1) * m.down) / rows
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": m.left / width,
            "right": 1 - m.right / width,
            "top": 1 - m.top / height,
            "bottom": m.bottom / height,
            "wspace": m.across / panel_width,
            "hspace": m.down / panel_height,
        },
    )
    figure.patch.set_alpha(0.0)
    for ax in axes.ravel():
        ax.patch.set_alpha(0.0)
    return figure, axes


def inline_svg(figure: Figure, *, key: str, alt: str) -> str:
    """SVG text of a figure for use inside HTML.

    Its ids are made unique by ``key``; ``alt`` is its label. It has no size of its own, and takes
    the text colour of the page.
    """
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)  # its print_svg draws once where savefig draws twice
    canvas.print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    unneeded = r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->"
    text = re.sub(unneeded, "", text, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg role="img" aria-label="{html.escape(alt)}" {view[0] if view else ""}>'
    text = head + text[text.index(">") + 1 :]
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'href="#', f'href="#{key}-', text).replace("url(#", f"url(#{key}-")
    return re.sub(r"\n\s*", "\n", text.replace(INK, "currentColor")).strip()


@in_report_style
def skill_figure(
    skill: xr.Dataset, *, title: str, units: str, metric: str, leads: Leads, key: str
) -> str:
    """One metric of one variable against lead time, a line per method, 95 % intervals shaded.

    Parameters
    ----------
    skill : Dataset
        ``value``, ``ci_low``, ``ci_high`` with dims ``(method, lead_time)``.
    title, units, metric
        Of the variable, for the labels; ``metric`` decides the limits of the y axis.
    leads : Leads
        From `lead_axis`.
    key : str
        Unique in the page.

    Returns
    -------
    str
        Inline SVG, 440 × 290 px by nature.
    """
    figure, axes = blank_figure(*SIZE)
    ax = axes[0, 0]
    x = np.asarray(leads.values)
    methods = [str(m) for m in skill["method"].values]
    style = looks(methods)
    # the JEPA last, hence on top
    order = sorted(methods, key=lambda name: (name.startswith("jepa"), name == "jepa"))
    for name in order:
        i = methods.index(name)
        row = skill.isel(method=i)
        value, low, high = (row[v].values.astype(float) for v in ("value", "ci_low", "ci_high"))
        if not np.isfinite(value).any():
            continue
        look = style[name]
        dodge = (i - (len(methods) - 1) / 2) * 0.04 * x[0] if len(x) == 1 else 0.0
        line = (0, look.dash) if isinstance(look.dash, tuple) else look.dash
        if len(x) == 1:
            ax.vlines(x + dodge, low, high, color=look.color, linewidth=look.width)
        else:
            ax.fill_between(x, low, high, color=look.color, alpha=0.13, linewidth=0)
        dot = {"marker": look.marker or ("_" if len(x) == 1 else ""), "markersize": 5.0}
        ax.plot(x + dodge, value, color=look.color, linestyle=line, linewidth=look.width, **dot)
    name = short_name(metric)
    unit = metric_units(metric, units)
    ax.set_title(f"{metric_name(metric)}, {title}")
    ax.set_ylabel(f"{name} ({unit})" if unit else name)
    _lead_ticks(ax, leads)
    _value_limits(ax, metric)
    names = join_words([style[m].label for m in methods])
    alt = (
        f"{metric_name(metric)} of {title} against lead time of {leads.text(range(len(x)))}, with"
        f" 95 % intervals, for {names}."
    )
    return inline_svg(figure, key=key, alt=alt)


def _lead_ticks(ax: Axes, leads: Leads) -> None:
    x = leads.values
    ax.set_xlabel(f"Lead time ({leads.unit})")
    if len(x) == 1:
        ax.set_xlim(0.8 * x[0], 1.2 * x[0])
    else:
        ax.set_xlim(0, max(x) * 1.02)
    if len(x) <= 8 and min(np.diff(x), default=1.0) > 0.06 * max(x):
        ax.set_xticks(x, [f"{v:g}" for v in x])
    ax.grid(color=INK, alpha=0.12, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _value_limits(ax: Axes, metric: str) -> None:
    low, high = ax.get_ylim()
    side = better(metric)
    if side in (LOWER, NEITHER, ONE) and low > -0.2 * abs(high):
        ax.set_ylim(0, max(high, 1.05) if side == ONE else high)
    elif side == HIGHER:
        ax.set_ylim(min(low, 0.0), 1.0)
    if side in (HIGHER, ZERO, ONE):
        ax.axhline(
            1 if side == ONE else 0.5 if metric == "roc_area" else 0,
            color=INK,
            linewidth=0.8,
            alpha=0.6,
        )


@in_report_style
def swatch(look: Look) -> str:
    """Small SVG of a method's line and marker, for legends in HTML."""
    figure, axes = blank_figure(46, 14, margins=Margins(0, 0, 0, 0))
    ax = axes[0, 0]
    ax.set_axis_off()
    line = (0, look.dash) if isinstance(look.dash, tuple) else look.dash
    ax.plot([0, 1], [0, 0], color=look.color, linestyle=line, linewidth=look.width)
    ax.plot([0.5], [0], color=look.color, marker=look.marker, markersize=5.5)
    ax.set_xlim(-0.05, 1.05)
    key = "swatch-" + re.sub(r"\W", "-", look.label.lower())
    return inline_svg(figure, key=key, alt="").replace(
        'role="img" aria-label=""', 'aria-hidden="true" class="swatch"'
    )


@in_report_style
def training_figures(log: Sequence[dict[str, object]]) -> list[str]:
    """Losses and health of the latents by optimiser step, training against validation.

    Parameters
    ----------
    log : sequence of dict
        Lines of ``log.jsonl``: ``step``, ``split`` and any of loss, prediction, regularizer,
        effective_rank, smallest_std, probe_r2.

    Returns
    -------
    list of str
        Inline SVG of each quantity that the log holds, in that order.
    """
    out = []
    for quantity, (title, label) in _TRAINING.items():
        curves = {s: _curve(log, quantity, s) for s in ("train", "validation")}
        curves = {s: c for s, c in curves.items() if c.size}
        if not curves:
            continue
        figure, axes = blank_figure(*SIZE, margins=Margins(top=52))
        ax = axes[0, 0]
        for split, (step, value) in curves.items():
            style = _SPLITS[split] | ({"marker": "o"} if len(step) == 1 else {})
            ax.plot(step, value, **style, markersize=4.0, linewidth=1.8)
        ax.set_title(title, pad=26)
        ax.legend(bbox_to_anchor=(-0.02, 0.99), **ABOVE)
        values = np.concatenate([c[1] for c in curves.values()])
        if label == "loss" and values.min() > 0 and values.max() > 20 * values.min():
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        else:
            ax.set_ylim(min(0.0, values.min()), 1.0 if quantity == "probe_r2" else None)
        ax.set_xlim(left=0)
        ax.set_xlabel("Optimizer step")
        ax.set_ylabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(color=INK, alpha=0.12, linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        ends = [f"{_SPLITS[s]['label']} ends at {c[1][-1]:.3g}" for s, c in curves.items()]
        alt = f"{title} by optimizer step: {'; '.join(ends)}."
        out.append(inline_svg(figure, key=f"log-{quantity}", alt=alt))
    return out


def _curve(log: Sequence[dict[str, object]], quantity: str, split: str) -> np.ndarray:
    """Finite steps and values, shape (2, points), thinned to 400 points with the last one."""
    rows = [(r.get("step"), r.get(quantity)) for r in log if r.get("split") == split]
    numbers = [r for r in rows if all(isinstance(v, int | float) for v in r)]
    pairs = np.array(numbers, dtype=float).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) > _MOST_POINTS:
        pairs = pairs[np.linspace(0, len(pairs) - 1, _MOST_POINTS).round().astype(int)]
    return np.asarray(pairs.T)
