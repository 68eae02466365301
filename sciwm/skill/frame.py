"""The skill table as rows, files and coloured text."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

from sciwm.atomic import replacing
from sciwm.skill.metrics import METRICS, cost, is_dimensionless, is_event_metric

__all__ = ["render", "to_frame", "write_skill"]


def _lead_column(skill: xr.Dataset) -> tuple[str, np.ndarray]:
    lead = skill["lead_time"].values
    if np.issubdtype(lead.dtype, np.timedelta64):
        return "lead_hours", lead / np.timedelta64(3_600_000_000_000, "ns")
    name = skill.attrs.get("lead_column", "lead_ps").removeprefix("lead_")
    return f"lead_{skill['lead_time'].attrs.get('units', name)}", lead


def to_frame(skill: xr.Dataset) -> pd.DataFrame:
    """One row for each value of the skill table.

    Parameters
    ----------
    skill : Dataset
        From `evaluate`.

    Returns
    -------
    DataFrame
        Columns ``variable, level, region, lead_hours, method, metric, value, ci_low, ci_high,
        units, num_init`` (``lead_months`` or ``lead_ps`` for such data); ``level`` is NaN (empty in
        CSV) for a variable without levels. With events, a column ``event`` follows, such as
        ``>285``, empty for the variable itself. Regions that mean nothing for a variable, and
        metrics that are not defined for a channel, have no rows.
    """
    column, lead = _lead_column(skill)
    dims = ("channel", "region", "lead_time", "method", "metric")
    sizes = [skill.sizes[d] for d in dims]
    channel, region, when, method, metric = (a.ravel() for a in np.indices(sizes))
    metrics = skill["metric"].values.astype(str)
    unitless = np.array([is_dimensionless(m) for m in metrics])
    event = np.array([""] * skill.sizes["channel"])
    if "event" in skill.coords:
        event = skill["event"].values.astype(str)
    for_events = np.array([is_event_metric(m) for m in metrics])
    frame = pd.DataFrame(
        {
            "variable": skill["variable"].values[channel],
            "level": skill["level"].values[channel],
            **({"event": event[channel]} if event.any() else {}),
            "region": skill["region"].values[region],
            column: lead[when],
            "method": skill["method"].values[method],
            "metric": metrics[metric],
            **{n: skill[n].transpose(*dims).values.ravel() for n in ("value", "ci_low", "ci_high")},
            "units": np.where(unitless[metric], "1", skill["units"].values[channel]),
            "num_init": skill["num_init"].transpose(*dims[:3]).values[channel, region, when],
        }
    )
    defined = (event != "")[channel] == for_events[metric]
    return frame[defined & (frame["num_init"] > 0)].reset_index(drop=True)


def write_skill(skill: xr.Dataset, csv_path: str | Path, nc_path: str | Path) -> None:
    """Write the skill table as CSV and NetCDF, each whole or not at all.

    Parameters
    ----------
    skill : Dataset
        From `evaluate`.
    csv_path, nc_path : path
        Replaced if they exist.
    """
    with replacing(Path(csv_path)) as csv:
        to_frame(skill).to_csv(csv, index=False)
    with replacing(Path(nc_path)) as nc:
        skill.to_netcdf(nc, engine="h5netcdf")


def _digits(values: np.ndarray) -> int:
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size or finite.max() == 0:
        return 2
    return int(np.clip(2 - np.floor(np.log10(finite.max())), 0, 6))


def _title(channel: xr.Dataset, metric: str) -> str:
    level = float(channel["level"])
    name = str(channel["variable"].item()) + ("" if np.isnan(level) else f" at level {level:g}")
    name += str(channel["event"].item()) if "event" in channel.coords else ""
    units = "" if is_dimensionless(metric) else f", {channel['units'].item()}"
    return f"{name}, {metric}{units}"


def _table(part: xr.Dataset, metric: str, *, column: str, leads: np.ndarray) -> Table:
    """Methods × leads of one channel and region."""
    value, low, high = (
        part[n].transpose("method", "lead_time").values for n in ("value", "ci_low", "ci_high")
    )
    small = cost(value, metric)
    digits = _digits(value)
    in_days = column == "lead_hours" and bool((leads % 24 == 0).all())
    region = str(part["region"].item())
    table = Table(title=_title(part, metric) + ("" if region == "all" else f", {region}"))
    table.add_column("method", no_wrap=True)
    unit = column.removeprefix("lead_")
    for lead in leads:
        head = f"{lead / 24:g} d" if in_days else f"{lead:g} {unit}"
        table.add_column(head, justify="right", no_wrap=True)
    for row, method in enumerate(part["method"].values):
        cells = []
        for k in range(len(leads)):
            v, a, b = value[row, k], low[row, k], high[row, k]
            text = f"{v:.{digits}f}" if np.isfinite(v) else "–"
            if np.isfinite(small[row, k]) and small[row, k] <= np.nanmin(small[:, k]):
                text = f"[bold]{text}[/bold]"
            if np.isfinite(a) and np.isfinite(b):
                text += f"\n[dim]{a:.{digits}f}–{b:.{digits}f}[/dim]"
            cells.append(text)
        table.add_row(str(method), *cells)
    return table


def render(skill: xr.Dataset, *, metric: str = "rmse", console: Console | None = None) -> None:
    """Print the skill table: methods × leads for every variable and region.

    The best method of each lead is bold, 95 % intervals are dim.

    Parameters
    ----------
    skill : Dataset
        From `evaluate`.
    metric : str
        One of those it holds. Values are in the units of the data (geopotential in m² s⁻²).
    console : rich Console, optional
        Where to print; the terminal by default.
    """
    held = [str(m) for m in skill["metric"].values]
    if metric not in held:
        hint = "" if metric in METRICS else f" (known: {', '.join(METRICS)})"
        raise ValueError(
            f"got metric {metric!r}, expected one of this table: {', '.join(held)}{hint}"
        )
    console = console or Console()
    column, leads = _lead_column(skill)
    chosen: Any = skill.loc[{"metric": metric}]
    for channel in range(skill.sizes["channel"]):
        for region in range(skill.sizes["region"]):
            part = chosen.isel(channel=channel, region=region)
            of_event = "event" in part.coords and bool(part["event"].item())
            if int(part["num_init"].max()) > 0 and of_event == is_event_metric(metric):
                console.print(_table(part, metric, column=column, leads=leads))
    notices = skill.attrs.get("notices", "")
    summary = (
        f"{skill.attrs.get('num_init', '?')} initial times, 95 % intervals from blocks of"
        f" {skill.attrs.get('block_length', '?')}"
    )
    console.print(summary + (f"; {notices}" if notices else ""), style="dim", markup=False)
