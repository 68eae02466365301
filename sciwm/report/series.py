"""Series of a scalar by valid time, forecast beside the truth, as inline SVG text."""

from collections.abc import Sequence

import numpy as np

from sciwm.report.fields import Field, truth_at
from sciwm.report.figures import ABOVE, Margins, blank_figure, in_report_style, inline_svg
from sciwm.report.labels import INK, lead_axis
from sciwm.skill.metrics import pretty_units
from sciwm.times import numeric_time

__all__ = ["series_figure"]

_MOST_POINTS = 120  # initial times in a series


@in_report_style
def series_figure(field: Field, *, picked: Sequence[int], key: str) -> str:
    """Forecasts of a scalar series at a few leads against the truth, by valid time.

    The first 120 initial times are drawn.
    """
    leads = lead_axis(field.forecast["lead_time"])
    part = field.forecast.isel(init_time=slice(0, _MOST_POINTS))
    at = truth_at(field.observed, part["init_time"], part["lead_time"])
    times = field.observed["time"].values
    around = times[np.unique(at[at >= 0])[[0, -1]]] if (at >= 0).any() else None
    truth = np.asarray(field.observed.values, float)
    forecast = part.transpose("init_time", "lead_time").values
    height = 210 * len(picked) + 42
    figure, axes = blank_figure(1000, height, rows=len(picked), margins=Margins(top=52, down=60))
    units = pretty_units(field.units)
    for ax, lead in zip(axes[:, 0], picked, strict=True):
        there = np.flatnonzero(at[:, lead] >= 0)
        when = times[at[there, lead]]
        x = when if when.dtype.kind in "fiuM" else numeric_time(when)
        ax.plot(x, truth[at[there, lead]], color=INK, linewidth=1.0, alpha=0.7, label="truth")
        ax.plot(x, forecast[there, lead], color="#D55E00", linewidth=2.0, label="forecast")
        if around is not None:
            ax.set_xlim(*(around if around.dtype.kind in "fiuM" else numeric_time(around)))
        ax.set_title(f"{field.name}, lead {leads.text([lead])}", pad=30 if ax is axes[0, 0] else 8)
        ax.set_ylabel(f"{field.name} ({units})" if units and units != "1" else field.name)
        ax.grid(color=INK, alpha=0.12, linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
    # legend and label at the left, the end that a phone shows
    axes[0, 0].legend(bbox_to_anchor=(-0.006, 0.99), **ABOVE)
    hours = " (hours since 1970)" if times.dtype == object else ""
    unit = " (ps)" if leads.unit == "ps" else hours
    axes[-1, 0].set_xlabel(f"Valid time{unit}", loc="left")
    alt = f"Series of {field.name}, forecast and truth by valid time, at lead {leads.text(picked)}."
    return inline_svg(figure, key=key, alt=alt)
