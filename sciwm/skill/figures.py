"""Line figures of the report: skill against lead time, training curves, all as inline SVG text.

Figures are built with matplotlib's object interface, so no global state is touched, and the same numbers give the
same bytes. Text becomes outlines (identical on every machine) and takes the page's own text colour.
"""

import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["Leads", "Look", "inline_svg", "lead_axis", "looks", "pretty_units", "skill_figure", "swatch", "training_figures"]

INK = "#010203"  # stands for the page's text colour; replaced by currentColor in the SVG
FONT = 12.5  # figure units are CSS px at the natural width
SIZE = (440.0, 290.0)
LOWER, HIGHER, ZERO = "lower", "higher", "zero"

_STYLE: dict[str, Any] = {
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.labelsize": FONT - 0.5,
    "ytick.labelsize": FONT - 0.5,
    "legend.fontsize": FONT - 0.5,
    "svg.hashsalt": "sciwm",
    "svg.fonttype": "path",
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor"), INK)
# a decorator: the user's matplotlibrc must not change a report
in_report_style = matplotlib.style.context(["default", _STYLE])

_BETTER = {"bias": ZERO} | dict.fromkeys(("acc", "correlation", "r2", "msess", "skill_score", "explained_variance"), HIGHER)
_METRICS = {
    "rmse": "Root-mean-square error",
    "mae": "Mean absolute error",
    "bias": "Bias (forecast − truth)",
    "acc": "Anomaly correlation",
    "correlation": "Correlation",
    "nmse": "Normalized mean-square error",
    "crps": "CRPS",
    "r2": "Explained variance R²",
}
_DIMENSIONLESS = {"acc", "correlation", "nmse", "r2", "msess", "skill_score", "explained_variance"}
_TRAINING = {
    "loss": ("Total loss", "loss"),
    "prediction": ("Prediction loss", "loss"),
    "regularizer": ("Regularizer", "loss"),
    "effective_rank": ("Effective rank of the latents", "dimensions"),
    "smallest_std": ("Smallest standard deviation of a latent", "std"),
    "probe_r2": ("Explained variance of a linear probe", "R²"),
}


@dataclass(frozen=True)
class Look:
    """How one method is drawn and named, the same in every figure."""

    label: str
    color: str
    dash: str | tuple[float, ...]
    marker: str
    width: float = 1.6


_LOOKS = {
    "jepa": Look("JEPA (residual readout)", "#D55E00", "solid", "o", 2.6),
    "jepa_latent": Look("JEPA (latent readout)", "#E69F00", (6.0, 2.0), "s", 2.0),
    "random_encoder": Look("Random encoder", "#CC79A7", (1.5, 1.5), "D"),
    "climatology": Look("Climatology", "#808080", "solid", "", 2.0),
    "persistence": Look("Persistence", "#56B4E9", (6.0, 1.8, 1.5, 1.8), "^"),
    "damped_persistence": Look("Damped persistence", "#0072B2", (4.0, 2.0), "v"),
    "lim": Look("Linear inverse model", "#009E73", "solid", "P"),
    "supervised": Look("Supervised twin", INK, (3.0, 1.2), "X"),
}
_SPARE = (("#8C7A00", "*"), ("#7B3294", "h"), ("#8C510A", "<"), ("#4D4D4D", ">"), ("#01665E", "p"))


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Label, colour, dash and marker of each method: fixed for the known ones, spare ones for others in order.

    Examples
    --------
    >>> looks(["lim", "my_model"])["my_model"].label
    'My model'
    """
    names = [str(m) for m in methods]
    spare = [m for m in names if m not in _LOOKS]
    out = {m: _LOOKS[m] for m in names if m in _LOOKS}
    for i, m in enumerate(spare):
        color, marker = _SPARE[i % len(_SPARE)]
        text = m.replace("_", " ").strip()
        out[m] = Look(text[:1].upper() + text[1:], color, (7.0, 1.5, 1.5, 1.5), marker)
    return {m: out[m] for m in names}


@dataclass(frozen=True)
class Leads:
    """Lead times as plain numbers in the unit people would say them in."""

    values: tuple[float, ...]
    unit: str

    def text(self, positions: Sequence[int]) -> str:
        """Leads at ``positions`` in words: ``"1, 2 and 3 days"``."""
        numbers = [f"{self.values[i]:g}" for i in positions]
        unit = self.unit.removesuffix("s") if numbers == ["1"] and self.unit != "ps" else self.unit
        return f"{join_words(numbers)} {unit}"


def join_words(words: Sequence[str]) -> str:
    """Words with commas and a final "and"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def lead_axis(lead_time: xr.DataArray) -> Leads:
    """Read unit and values of a lead-time coordinate: hours, days, months or ps.

    Parameters
    ----------
    lead_time : DataArray
        1-D: ``timedelta64``, or numbers with ``units`` "months" or "ps".

    Examples
    --------
    >>> lead_axis(xr.DataArray(np.array([24, 48], "timedelta64[h]"), dims="lead_time"))
    Leads(values=(1.0, 2.0), unit='days')
    """
    values = np.atleast_1d(lead_time.values)
    if np.issubdtype(values.dtype, np.timedelta64):
        hours = values / np.timedelta64(3_600_000_000_000, "ns")
        days = bool(np.all(hours % 24 == 0)) or float(hours.max()) > 120
        return Leads(tuple(float(h) / (24 if days else 1) for h in hours), "days" if days else "hours")
    units = str(lead_time.attrs.get("units", ""))
    if units not in ("months", "ps"):
        raise ValueError(f"got lead_time of type {values.dtype} with units {units!r}, expected timedelta64, or numbers in months or ps")
    return Leads(tuple(float(v) for v in values), units)


def pretty_units(units: str) -> str:
    """Units with raised exponents.

    Examples
    --------
    >>> pretty_units("m2 s-2")
    'm² s⁻²'
    """
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    text = re.sub(r"(?<=[A-Za-z])(?:\*\*|\^)?(-?\d+)", lambda m: m[1].translate(raised), units.strip())
    return "" if text in ("1", "dimensionless") else text


def better(metric: str) -> str:
    """Which values of a metric are good: "lower", "higher" or those near "zero"."""
    return _BETTER.get(metric, LOWER)


def metric_name(metric: str) -> str:
    """Name of a metric in words."""
    return _METRICS.get(metric, metric.replace("_", " "))


def metric_units(metric: str, units: str) -> str:
    """Units in which a metric of a variable in ``units`` is given; empty if it has none."""
    return "" if metric in _DIMENSIONLESS else pretty_units(units)


def blank_figure(width: float, height: float, *, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """Figure of ``width`` × ``height`` px with a grid of axes, in the report's style."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.patch.set_alpha(0.0)
    for ax in axes.ravel():
        ax.patch.set_alpha(0.0)
    return figure, axes


def inline_svg(figure: Figure, *, key: str, alt: str) -> str:
    """SVG text of a figure for use inside HTML: ids made unique by ``key``, no size, page colours, ``alt`` as its label."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg role="img" aria-label="{html.escape(alt)}" {view[0] if view else ""}>'
    text = head + text[text.index(">") + 1 :]
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'href="#', f'href="#{key}-', text).replace("url(#", f"url(#{key}-")
    return re.sub(r"\n\s*", "\n", text.replace(INK, "currentColor")).strip()


@in_report_style
def skill_figure(skill: xr.Dataset, *, title: str, units: str, metric: str, leads: Leads, key: str) -> str:
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
    for i, name in sorted(enumerate(methods), key=lambda pair: (pair[1].startswith("jepa"), pair[1] == "jepa")):
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
            ax.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0)
        dot = {"marker": look.marker or ("_" if len(x) == 1 else ""), "markersize": 5.0}
        ax.plot(x + dodge, value, color=look.color, linestyle=line, linewidth=look.width, **dot)
    name = f"{metric.upper() if len(metric) <= 4 else metric_name(metric)}"
    unit = metric_units(metric, units)
    ax.set_title(f"{metric_name(metric)}, {title}")
    ax.set_ylabel(f"{name} ({unit})" if unit else name)
    _lead_ticks(ax, leads)
    _value_limits(ax, metric)
    names = join_words([style[m].label for m in methods])
    alt = f"{metric_name(metric)} of {title} against lead time of {leads.text(range(len(x)))}, with 95 % intervals, for {names}."
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
    if better(metric) == LOWER and low > -0.2 * abs(high):
        ax.set_ylim(0, high)
    elif better(metric) == HIGHER:
        ax.set_ylim(min(low, 0.0), 1.0)
    if better(metric) != LOWER:
        ax.axhline(0, color=INK, linewidth=0.8, alpha=0.6)


@in_report_style
def swatch(look: Look) -> str:
    """Small SVG of a method's line and marker, for legends in HTML."""
    figure = Figure(figsize=(46 / 72, 14 / 72))
    figure.patch.set_alpha(0.0)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_axis_off()
    line = (0, look.dash) if isinstance(look.dash, tuple) else look.dash
    ax.plot([0, 1], [0, 0], color=look.color, linestyle=line, linewidth=look.width)
    ax.plot([0.5], [0], color=look.color, marker=look.marker, markersize=5.5)
    ax.set_xlim(-0.05, 1.05)
    key = "swatch-" + re.sub(r"\W", "-", look.label.lower())
    return inline_svg(figure, key=key, alt="").replace('role="img" aria-label=""', 'aria-hidden="true" class="swatch"')


@in_report_style
def training_figures(log: Sequence[dict[str, object]]) -> list[str]:
    """Losses and health of the latents by optimiser step, training against validation.

    Parameters
    ----------
    log : sequence of dict
        Lines of ``log.jsonl``: ``step``, ``split`` and any of loss, prediction, regularizer, effective_rank,
        smallest_std, probe_r2.

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
        figure, axes = blank_figure(*SIZE)
        ax = axes[0, 0]
        style = {"train": ("#0072B2", "-", "", "training"), "validation": ("#D55E00", (0, (4, 2)), "o", "validation")}
        for split, (step, value) in curves.items():
            color, line, marker, name = style[split]
            marker = "o" if len(step) == 1 else marker
            ax.plot(step, value, color=color, linestyle=line, marker=marker, markersize=4.0, linewidth=1.8, label=name)
        ax.set_title(title, pad=26)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=2, frameon=False, labelcolor=INK, borderaxespad=0.2)
        values = np.concatenate([c[1] for c in curves.values()])
        if label == "loss" and values.min() > 0 and values.max() > 20 * values.min():
            ax.set_yscale("log")
        elif quantity != "probe_r2" and values.min() >= 0:
            ax.set_ylim(0, values.max() * 1.08 or 1.0)
        ax.set_xlabel("Optimizer step")
        ax.set_ylabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(color=INK, alpha=0.12, linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        ends = "; ".join(f"{style[s][3]} ends at {c[1][-1]:.3g}" for s, c in curves.items())
        out.append(inline_svg(figure, key=f"log-{quantity}", alt=f"{title} by optimizer step: {ends}."))
    return out


def _curve(log: Sequence[dict[str, object]], quantity: str, split: str, most: int = 400) -> np.ndarray:
    """Read steps and values, shape (2, points), finite only, thinned to ``most`` points and the last one."""
    rows = [(r.get("step"), r.get(quantity)) for r in log if r.get("split") == split]
    pairs = np.array([r for r in rows if all(isinstance(v, int | float) for v in r)], dtype=float).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) > most:
        keep = np.unique(np.linspace(0, len(pairs) - 1, most).round().astype(int))
        pairs = pairs[keep]
    return np.asarray(pairs.T)
