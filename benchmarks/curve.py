"""Draw errors of a run against lead time, as a file for a page.

python benchmarks/curve.py runs/demo --channel psi1 --out docs/figures/demo.svg
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr

from sciwm.report.labels import lead_axis, looks
from sciwm.skill.metrics import metric_name

mpl.use("svg")
from matplotlib import pyplot as plt


def draw(skill: xr.Dataset, methods: list[str], *, channel: str, metric: str) -> plt.Figure:
    """Curves with 95 % intervals."""
    part = (
        skill[["value", "ci_low", "ci_high"]]
        .sel(channel=channel, metric=metric)
        .isel(region=0, drop=True)
    )
    leads, style = lead_axis(part["lead_time"]), looks(methods)
    x = np.asarray(leads.values)
    plt.rcParams |= {"svg.hashsalt": "sciwm", "svg.fonttype": "none"}
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    known = part["method"].values.tolist()
    for name in methods:
        row, look = part.isel(method=known.index(name)), style[name]
        line = (0, look.dash) if isinstance(look.dash, tuple) else look.dash
        axes.fill_between(
            x, row["ci_low"].values, row["ci_high"].values, color=look.color, alpha=0.13, lw=0
        )
        drawn = {"color": look.color, "linestyle": line, "linewidth": look.width}
        axes.plot(
            x, row["value"].values, marker=look.marker, markersize=5, label=look.label, **drawn
        )
    axes.set_xlabel(f"Lead time ({leads.unit})")
    axes.set_ylabel(f"{metric_name(metric)} ({part['units'].item()})")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def main() -> None:
    """Read ``skill.nc`` of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--channel", required=True)
    parser.add_argument("--metric", default="rmse")
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    with xr.open_dataset(asked.run / "skill.nc") as opened:
        skill = opened.load()
    methods = asked.methods or [str(m) for m in skill["method"].values]
    figure = draw(skill, methods, channel=asked.channel, metric=asked.metric)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(asked.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
