"""The table of a comparison: methods over seeds beside baselines, as rows and as Markdown.

Knows nothing of torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from sciwm.skill.scores import area_means, mean_over_inits, rmse
from sciwm.skill.significance import paired_difference

__all__ = ["Scored", "fit_name", "split_fit", "tally", "to_markdown"]

FACTS = {
    "parameters": "1",
    "backbone_parameters": "1",
    "train_flops": "1",
    "train_seconds": "s",
    "processor_seconds": "s",
    "probe_r2": "1",
    "effective_rank": "1",
}
_COLUMNS = ["method", "readout", "labels", "channel", "region", "lead", "metric"]
_COLUMNS += ["value", "std", "lowest", "highest", "num_seeds", "units"]
# Of what is tested against, the method and the readout.
_RIVALS = {
    "lim": ("lim", ""),
    "two_states": ("two_states", ""),
    "local_linear": ("jepa", "local_linear"),
    "whitened": ("whitened", "residual"),
    "supervised": ("supervised", "residual"),
    "supervised_decoder": ("supervised", "decoder"),
    "convnet": ("convnet", "residual"),
    "convnet_decoder": ("convnet", "decoder"),
}
_DIMS = ("seed", "fit", "channel", "region", "lead_time")


@dataclass(frozen=True)
class Scored:
    """What one method and seed came to.

    Parameters
    ----------
    method : str
    seed : int
    sums : DataArray
        From `sciwm.skill.score_sums`, dims ``(fit, init_time, lead_time, channel, region,
        statistic)``; ``fit`` as `fit_name` has it.
    facts : mapping of str to float
        Some of ``parameters``, ``backbone_parameters``, ``train_flops``, ``train_seconds``,
        ``processor_seconds``, ``probe_r2`` (of the encoded validation states), ``effective_rank``
        (centred).
    """

    method: str
    seed: int
    sums: xr.DataArray
    facts: Mapping[str, float]


def fit_name(readout: str, labels: float) -> str:
    """Name a readout and the share of the training years it was fitted on.

    Examples
    --------
    >>> fit_name("residual", 0.1), split_fit("residual 0.1")
    ('residual 0.1', ('residual', 0.1))
    """
    return f"{readout} {labels:g}"


def split_fit(fit: str) -> tuple[str, float]:
    """Inverse of `fit_name`."""
    readout, _, labels = fit.partition(" ")
    return readout, float(labels)


def tally(
    scored: Sequence[Scored],
    baselines: xr.DataArray,
    *,
    lead_column: str,
    leads: Sequence[float],
    units: Mapping[str, str],
) -> pd.DataFrame:
    """One row for each number of the comparison.

    Parameters
    ----------
    scored : sequence of Scored
        All on the same initial times.
    baselines : DataArray
        Sums of the baselines, with the dim ``method`` instead of ``fit``.
    lead_column : str
        ``lead_hours``, ``lead_months`` or ``lead_ps``.
    leads : sequence of float
        Lead times in that unit.
    units : mapping of str to str
        Units of each channel.

    Returns
    -------
    DataFrame
        Columns ``method, readout, labels, channel, region``, the lead column, ``metric, value, std,
        lowest, highest, num_seeds, units``. ``labels`` is the share of the training years behind
        the readout.

        - ``rmse`` is in physical units, [0, ∞), 0 is perfect. ``value`` is the mean over seeds;
          ``std``, ``lowest`` and ``highest`` are over seeds, too. ``std`` is of the sample, NaN for
          one seed.
        - ``p_lim``, ``p_two_states``, ``p_local_linear`` and ``p_`` of other methods are of paired
          tests with AR(2) errors, in [0, 1]. ``p_convnet`` is about its residual readout,
          ``p_convnet_decoder`` about its own output. What is tested are squared errors of each
          initial time, means over seeds. The values say how sure a difference is for other initial
          times, not for other seeds.
        - The facts of `Scored` have no channel.
    """
    methods = list(dict.fromkeys(s.method for s in scored))
    stacks = {m: _stack([s for s in scored if s.method == m]) for m in methods}
    rows = []
    for name in baselines["method"].values:
        sums = baselines.loc[{"method": [name]}].rename(method="fit").expand_dims(seed=[0])
        rows += _skill_rows(str(name), sums, leads, units)
    for method in methods:
        rows += _skill_rows(method, stacks[method], leads, units)
        for rival in _RIVALS:
            rows += _test_rows(method, rival, stacks, baselines, leads)
        rows += _fact_rows([s for s in scored if s.method == method])
    return pd.DataFrame(rows, columns=_COLUMNS).rename(columns={"lead": lead_column})


def _stack(scored: Sequence[Scored]) -> xr.DataArray:
    sums = [s.sums for s in scored]
    return xr.concat(sums, "seed", coords="minimal", compat="override", join="exact")


def _skill_rows(
    method: str, sums: xr.DataArray, leads: Sequence[float], units: Mapping[str, str]
) -> list[dict[str, object]]:
    values = rmse(mean_over_inits(area_means(sums))).transpose(*_DIMS)
    rows = []
    for fit, channel, region, lead in np.ndindex(*values.shape[1:]):
        over = values.values[:, fit, channel, region, lead]
        if np.isfinite(over).all():
            name = str(values["channel"].values[channel])
            row = {
                "method": method,
                **_readout(str(values["fit"].values[fit])),
                "channel": name,
                "region": str(values["region"].values[region]),
                "lead": leads[lead],
                "metric": "rmse",
                **_over_seeds(over),
                "units": units.get(name, ""),
            }
            rows.append(row)
    return rows


def _readout(fit: str) -> dict[str, object]:
    if " " not in fit:  # a baseline
        return {"readout": "", "labels": np.nan}
    readout, labels = split_fit(fit)
    return {"readout": readout, "labels": labels}


def _over_seeds(values: np.ndarray) -> dict[str, object]:
    spread = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    return {
        "value": float(values.mean()),
        "std": spread,
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "num_seeds": len(values),
    }


def _test_rows(
    method: str,
    rival: str,
    stacks: Mapping[str, xr.DataArray],
    baselines: xr.DataArray,
    leads: Sequence[float],
) -> list[dict[str, object]]:
    fit, (source, readout) = fit_name("residual", 1), _RIVALS[rival]
    own = stacks[method].sel(fit=fit, drop=True).mean("seed")
    theirs = fit_name(readout, 1)
    if rival in baselines["method"].values:
        other = baselines.loc[{"method": rival}].drop_vars("method")
    elif source in stacks and rival != method and theirs in stacks[source]["fit"].values:
        other = stacks[source].sel(fit=theirs, drop=True).mean("seed")
    else:
        return []
    p_value = paired_difference(own, other).p_value.transpose(*_DIMS[2:])
    rows = []
    for channel, region, lead in np.ndindex(*p_value.shape):
        value = float(p_value.values[channel, region, lead])
        if np.isfinite(value):
            row = {
                "method": method,
                **_readout(fit),
                "channel": str(p_value["channel"].values[channel]),
                "region": str(p_value["region"].values[region]),
                "lead": leads[lead],
                "metric": f"p_{rival}",
                "value": value,
                "num_seeds": stacks[method].sizes["seed"],
                "units": "1",
            }
            rows.append(row)
    return rows


def _fact_rows(scored: Sequence[Scored]) -> list[dict[str, object]]:
    rows = []
    for fact, units in FACTS.items():
        values = np.array([s.facts[fact] for s in scored if fact in s.facts])
        if len(values):
            own = {"method": scored[0].method, "metric": fact}
            rows.append({**own, **_over_seeds(values), "units": units})
    return rows


def to_markdown(frame: pd.DataFrame, *, split: str = "test") -> str:
    """Write the table of `tally` for reading: RMSE, label efficiency, tests, cost and health.

    It is of the first region. Numbers over several seeds are ``mean ± standard deviation``. The
    smallest RMSE of a lead is bold.
    """
    lead = next(c for c in frame.columns if c.startswith("lead_"))
    skill = frame[frame["metric"] == "rmse"]
    region = skill["region"].iloc[0]
    skill = skill[skill["region"] == region]
    seeds = int(frame["num_seeds"].max())
    title = "# Comparison" if split == "test" else f"# Comparison on the {split} block"
    about = f"Region {region}, {seeds} seed(s). Leads in {lead.removeprefix('lead_')}."
    lines = [title, "", about, ""]
    for channel, part in skill.groupby("channel", sort=False):
        full = part[part["labels"].isna() | (part["labels"] == 1)]
        names = [_label(m, r) for m, r in zip(full["method"], full["readout"], strict=True)]
        title = f"## RMSE of {channel}, {part['units'].iloc[0]}"
        lines += [title, "", *_grid(full.assign(name=names), "name", lead, bold=True), ""]
    few = skill[(skill["readout"] == "residual") & (skill["labels"] < 1)]
    few = few.sort_values("labels", ascending=False, kind="stable")
    for channel, part in few.groupby("channel", sort=False):
        shares = zip(part["method"], part["labels"], strict=True)
        names = [f"{method}, {share * 100:g} %" for method, share in shares]
        title = (
            f"## RMSE of {channel}, {part['units'].iloc[0]}, with residual readouts fitted on a"
            " stretch of the training years"
        )
        lines += [title, "", *_grid(part.assign(name=names), "name", lead), ""]
    tests = frame[frame["metric"].str.startswith("p_") & (frame["region"] == region)]
    for metric, part in tests.groupby("metric", sort=False):
        named = part.assign(name=part["method"] + ", " + part["channel"])
        title = f"## p-values against {metric.removeprefix('p_')}"
        lines += [title, "", *_grid(named, "name", lead, write=_p_value), ""]
    facts = frame[frame["metric"].isin(list(FACTS))]
    return "\n".join([*lines, "## Cost and health", "", *_grid(facts, "method", "metric"), ""])


def _label(method: str, readout: str) -> str:
    if readout == "local_linear":
        return readout
    return method if readout in ("", "residual") else f"{method}_{readout}"


def _number(value: float, std: float) -> str:
    """Write four figures of the value, and as many decimals of its spread: ``2.017 ± 0.003``.

    With a spread, there is one decimal at least. Values from 1e8 on have three figures.
    """
    if value >= 1e8:
        return f"{value:.3g}" + (f" ± {std:.1g}" if std > 0 else "")
    decimals = max(int(std > 0), 3 - int(np.floor(np.log10(abs(value))))) if value else 0
    return f"{value:,.{decimals}f}" + (f" ± {std:,.{decimals}f}" if std > 0 else "")


def _p_value(value: float, std: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}"


def _grid(
    part: pd.DataFrame,
    row: str,
    column: str,
    *,
    bold: bool = False,
    write: Callable[[float, float], str] = _number,
) -> list[str]:
    columns = list(dict.fromkeys(part[column]))
    best = part.groupby(column)["value"].min()
    heads = [f"{c:g}" if isinstance(c, float) else str(c) for c in columns]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for name, own in part.groupby(row, sort=False):
        cells = []
        for key in columns:
            found = own[own[column] == key]
            if found.empty:
                cells.append("–")
                continue
            value, std = found["value"].iloc[0], found["std"].iloc[0]
            text = write(value, std)
            cells.append(f"**{text}**" if bold and value <= best[key] else text)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
