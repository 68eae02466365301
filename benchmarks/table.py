"""Print the scores of a run as Markdown: methods down, leads across, 95 % intervals in brackets.

python benchmarks/table.py runs/erai --metric rmse
"""

import argparse
from pathlib import Path

import pandas as pd

ORDER = [
    "jepa",
    "jepa_latent",
    "convnet",
    "convnet_decoder",
    "whitened",
    "supervised",
    "local_linear",
    "random_encoder",
    "lim",
    "damped_persistence",
    "persistence",
    "climatology",
]


def place(method: str) -> int:
    """Row of a method: known ones first."""
    return ORDER.index(method) if method in ORDER else len(ORDER)


def markdown(table: pd.DataFrame, *, metric: str, region: str) -> str:
    """One table per variable."""
    (lead,) = [c for c in table.columns if c.startswith("lead_")]
    rows = table[(table["metric"] == metric) & (table["region"] == region)]
    parts = []
    for variable, one in rows.groupby("variable", sort=False):
        leads = sorted(one[lead].unique())
        units, count = one["units"].iloc[0], one["num_init"].iloc[0]
        lines = [
            f"**{variable}**, {metric}, {units}, {region}, {count} initial times",
            "",
            f"| {lead} | " + " | ".join(f"{x:g}" for x in leads) + " |",
            "|---" * (len(leads) + 1) + "|",
        ]
        best = one.groupby(lead)["value"].agg("max" if metric in ("acc", "correlation") else "min")
        for method in sorted(one["method"].unique(), key=place):
            cells = []
            for x in leads:
                row = one[(one["method"] == method) & (one[lead] == x)].iloc[0]
                value = f"{row['value']:.4g}"
                value = f"**{value}**" if row["value"] == best[x] else value
                cells.append(f"{value} [{row['ci_low']:.4g}, {row['ci_high']:.4g}]")
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    """Read ``skill.csv`` of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--metric", default="rmse")
    parser.add_argument("--region", default="all")
    options = parser.parse_args()
    table = pd.read_csv(options.run / "skill.csv")
    print(markdown(table, metric=options.metric, region=options.region))


if __name__ == "__main__":
    main()
