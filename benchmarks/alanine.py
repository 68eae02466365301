"""Leave one trajectory out, four times: error of torsion forecasts beside every baseline.

    python benchmarks/alanine.py 'DATA/alanine_dipeptide_450K_heavy_*.nc' --out runs/alanine

trains four models, each scored on a trajectory that neither training nor validation has seen, and
prints the mean over the four of the normalised squared error (climatology = 1) of the sines and
cosines of both torsions. Finished folds are not run again.
"""

import argparse
from pathlib import Path

import pandas as pd

from sciwm import catalogue
from sciwm.config import load_config
from sciwm.run import verbs
from sciwm.run.directory import open_run

FOLDS = 4


def fold_table(store: str, out: Path, fold: int) -> pd.DataFrame:
    """Train and score one fold: the next trajectory chooses, the other two train."""
    held = (fold + 1) % FOLDS
    train = [k for k in range(FOLDS) if k not in (fold, held)]
    overrides = [
        f"--data.store={store}",
        f"--data.split.train={train}",
        f"--data.split.validation=[{held}]",
        f"--data.split.test=[{fold}]",
    ]
    config = load_config(catalogue.config_path("alanine"), overrides)
    run = open_run(out / f"fold{fold}", config)
    verbs.run_all(run, config)
    return pd.read_csv(run.table_file).assign(fold=fold)


def main() -> None:
    """Run the folds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="glob of the four trajectories")
    parser.add_argument("--out", type=Path, default=Path("runs/alanine"))
    options = parser.parse_args()
    table = pd.concat([fold_table(options.store, options.out, fold) for fold in range(FOLDS)])
    scores = table[table["metric"] == "nmse"]
    for region in ("all", "phi", "psi"):
        one = scores[scores["region"] == region]
        print(f"\nnMSE, {region}, mean of {FOLDS} left-out trajectories, by lag in ps")
        means = one.pivot_table(index="method", columns="lead_ps", values="value")
        print(means.round(3).to_string())


if __name__ == "__main__":
    main()
