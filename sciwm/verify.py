"""Verification without a model: scores of any forecast stores, and stores of baselines.

Needs no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

import sciwm
from sciwm.atomic import write_atomically
from sciwm.data.forecast_store import write_forecast
from sciwm.data.open import open_dataset, open_forecast, open_static
from sciwm.regions import land_fraction
from sciwm.report.page import About, write_report
from sciwm.report.prose import describe_grid, describe_scores, variable_names
from sciwm.skill.alignment import locate
from sciwm.skill.baselines.by_name import ALL_BASELINES, BASELINES, LIM_EOFS, fit_baseline
from sciwm.skill.baselines.simple import Reference, fit_reference
from sciwm.skill.frame import render, to_frame
from sciwm.skill.lineup import Lineup, line_up
from sciwm.skill.metrics import is_event_metric
from sciwm.skill.regrid import RegridMethod, regrid_forecast
from sciwm.skill.table import assess, score_lineup
from sciwm.times import times_between

__all__ = [
    "Asked",
    "check_table",
    "evaluate_forecasts",
    "line_up_stores",
    "method_names",
    "open_named",
    "read_mask",
    "report_notes",
    "write_baselines",
    "write_table",
]

_BLOCK = 16_000_000  # values of one block of a baseline that is written
_console = Console()

Period = tuple[str, str]


@dataclass(frozen=True)
class Asked:
    """What is computed of forecast stores; empty fields mean the default.

    Parameters
    ----------
    metrics, regions, events : tuple of str
        As `sciwm.skill.evaluate` takes them.
    baselines : tuple of str, optional
        None means every baseline that can be made and is not among the forecasts.
    mask : str, optional
        Store with a land–sea mask, for the regions ``land`` and ``ocean``. By default it is that of
        the truth.
    regrid : {"linear", "conservative"}, optional
        Bring forecasts on other grids onto that of the truth, as `sciwm.skill.regrid_forecast`
        does, and say so.
    allow_leakage : bool
        Score times that were seen before, too, and say so.
    """

    metrics: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    baselines: tuple[str, ...] | None = None
    mask: str | None = None
    regrid: RegridMethod | None = None
    allow_leakage: bool = False


def evaluate_forecasts(
    forecasts: Sequence[str],
    *,
    truth: str | list[str],
    out: str | Path,
    train: Period | None = None,
    validation: Period | None = None,
    asked: Asked | None = None,
    report: str | Path | None = None,
) -> xr.Dataset:
    """Score forecast stores against a truth store, write the table and print it.

    Parameters
    ----------
    forecasts : sequence of str
        Stores in the WeatherBench 2 layout or with ``init_time`` and ``lead_time``.
    truth : path, glob, URL, or a list of these
        Observations on the same grid; of their levels, those that all forecasts have are used.
    out : path
        The table to write, ``*.csv``.
    train, validation : (first, last), optional
        Times of ``truth``, both included, to fit climatology and baselines on, and to choose the
        LIM's truncation with.
    asked : Asked, optional
        Metrics, regions, events, baselines and how they are made. By default these are the errors
        and, with ``train``, the anomaly correlation. All baselines are made that can be: without
        ``train`` that is persistence.
    report : path, optional
        Page to write with figures of the scores, and of a typical forecast of the first store.

    Returns
    -------
    Dataset
        As `sciwm.skill.evaluate` returns it.

    Raises
    ------
    ValueError
        If stores do not fit together; the message names what differs.
    """
    out, page = Path(out), None if report is None else Path(report)
    check_table(out)
    if validation is not None and train is None:
        raise ValueError(
            "got --validation without --train, expected both or --train alone, because nothing is"
            " chosen without baselines"
        )
    if page is not None and page.suffix != ".html":
        raise ValueError(
            f"got --report {page}, expected a name that ends in .html, because a page is written"
        )
    asked = asked or Asked()
    named = open_named(forecasts)
    first = next(iter(named.values()))
    observed = _shared_levels(open_dataset(truth), list(named.values()))
    reference = _fit(observed, train, validation)
    baselines = asked.baselines
    if baselines is None:
        started = (locate(observed["time"], first["init_time"].values) >= 0).all()
        able = BASELINES if reference is not None else ("persistence",) if started else ()
        baselines = tuple(b for b in able if b not in named)
    default = ("rmse", "mae", "bias", *(["acc"] if reference is not None else []))
    asked = replace(asked, baselines=baselines, metrics=asked.metrics or default)
    lineup = line_up_stores(named, observed, reference, asked)
    wanted: dict[str, Any] = {
        "metrics": asked.metrics,
        "regions": asked.regions,
        "events": asked.events,
    }
    if page is None:
        skill, diagnostics = score_lineup(lineup, **wanted), None
    else:
        skill, diagnostics = assess(lineup, **wanted)
    write_table(skill, out)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        periods = {
            name: " – ".join(block)
            for name, block in (("training block", train), ("validation block", validation))
            if block
        }
        about = About(
            title=f"Forecasts of {', '.join(named)}",
            provenance={
                "forecasts": ", ".join(forecasts),
                "truth": str(truth),
                **periods,
                "sciwm": sciwm.__version__,
            },
            notes=report_notes(skill),
            methods=[_methods(skill, observed, truth, train, validation)],
            skill_csv=out.read_text(encoding="utf-8"),
        )
        write_report(
            page,
            about=about,
            skill=skill,
            forecast=_on_grid(first, observed, asked.regrid),
            observed=observed,
            diagnostics=diagnostics,
        )
        _console.print(
            f"[bold]{page}[/bold]: open it in a browser", highlight=False, soft_wrap=True
        )
    return skill


def open_named(stores: Sequence[str | Path]) -> dict[str, xr.Dataset]:
    """Open forecast stores; what they are called in a table is their key."""
    opened = [open_forecast(str(store)) for store in stores]
    return dict(zip(method_names(stores, opened), opened, strict=True))


def line_up_stores(
    forecasts: Mapping[str, xr.Dataset],
    observed: xr.Dataset,
    reference: Reference | None,
    asked: Asked,
    *,
    lim_eofs: Sequence[int] = LIM_EOFS,
) -> Lineup:
    """Bring stored forecasts together with observations and baselines, of a run or not.

    Parameters
    ----------
    forecasts : mapping of str to Dataset
        From `open_named`.
    observed : Dataset
    reference : Reference or None
    asked : Asked
        Its baselines, metrics, mask, regridding and leakage.
    lim_eofs : sequence of int
        Truncations that the linear inverse model chooses from.
    """
    return line_up(
        {name: _on_grid(ds, observed, asked.regrid) for name, ds in forecasts.items()},
        observed,
        reference=reference,
        baselines=asked.baselines or (),
        metrics=asked.metrics,
        lim_eofs=lim_eofs,
        allow_leakage=asked.allow_leakage,
        mask=None if asked.mask is None else read_mask(asked.mask),
    )


def _on_grid(ds: xr.Dataset, observed: xr.Dataset, regrid: RegridMethod | None) -> xr.Dataset:
    return ds if regrid is None else regrid_forecast(ds, observed, method=regrid)


def _methods(
    skill: xr.Dataset,
    observed: xr.Dataset,
    truth: str | list[str],
    train: Period | None,
    validation: Period | None,
) -> str:
    name = str(observed.attrs.get("title", "")) or (
        Path(truth).name if isinstance(truth, str) else f"{len(truth)} stores"
    )
    grid = describe_grid(observed)
    learnt = f" Climatology and baselines were fitted on {_span(train)}." if train else ""
    learnt += f" Choices were made on {_span(validation)}." if validation else ""
    scored = observed[[n for n in observed.data_vars if n in skill["variable"].values]]
    what = f"{name}, {grid}," if grid else name
    return f"{describe_scores(skill, truth=what, variables=variable_names(scored))}{learnt}"


def _span(period: Period) -> str:
    return period[0] if period[0] == period[1] else f"{period[0]} to {period[1]}"


def write_baselines(
    store: str | list[str],
    *,
    train: Period,
    init: tuple[str, str, str | None],
    lead_times: Sequence[str],
    out: str | Path,
    validation: Period | None = None,
    methods: Sequence[str] = (),
) -> list[Path]:
    """Forecast with baselines only; write a store of each, in the layout of every forecast.

    Parameters
    ----------
    store : path, glob, URL, or a list of these
        Observations.
    train, validation : (first, last)
        As in `evaluate_forecasts`.
    init : (first, last, step)
        Initial times, both included; a step such as ``"5 days"`` or None for all.
    lead_times : sequence of str
        Such as ``["1 day", "5 days"]``.
    out : path
        Folder for ``METHOD.zarr``.
    methods : sequence of str
        Some of `ALL_BASELINES`; `BASELINES` by default.

    Returns
    -------
    list of Path

    Raises
    ------
    ValueError
        If something unknown is asked for, or there is no initial time.
    FileExistsError
        If a store is there already.
    """
    methods = methods or BASELINES
    unknown = [m for m in methods if m not in ALL_BASELINES]
    if unknown:
        raise ValueError(f"got methods {unknown}, expected some of {', '.join(ALL_BASELINES)}")
    observed = open_dataset(store)
    reference = _fit(observed, train, validation)
    assert reference is not None
    step = reference.step
    leads = sorted({int(step.steps(lead)) for lead in lead_times})
    lead_time = step.lead_times(np.array(leads))
    start, end, every = init
    index = times_between(observed["time"], start, end)[:: int(step.steps(every)) if every else 1]
    if not len(index):
        first, last = observed["time"].values[[0, -1]]
        raise ValueError(
            f"got no initial time between {start} and {end}, expected some within {first} … {last}"
        )
    for path in (paths := [Path(out) / f"{m}.zarr" for m in methods]):
        if path.exists():
            raise FileExistsError(
                f"got {path}, which exists already, expected a new name: remove it or choose"
                " another"
            )
    names = [str(n) for n, v in observed.data_vars.items() if "time" in v.dims]
    per_init = len(leads) * sum(
        v.size // v.sizes["time"] for v in observed.data_vars.values() if "time" in v.dims
    )
    size = max(1, _BLOCK // max(1, per_init))
    seen = _seen_periods(reference)
    for method, path in zip(methods, paths, strict=True):
        forecast = fit_baseline(method, reference, observed, lead_time, variables=names).forecast

        parts = (
            observed["time"].isel(time=index[i : i + size]) for i in range(0, len(index), size)
        )
        batches = (
            forecast(part).astype("float32").assign_attrs(observed.attrs).load() for part in parts
        )
        write_forecast(
            batches,
            path,
            total=len(index),
            attrs={"method": method, **seen},
            progress=f"forecast, {method}",
        )
        _console.print(
            f"[bold]{path}[/bold]: {len(index)} initial times, {len(leads)} leads",
            highlight=False,
            soft_wrap=True,
        )
    return paths


def _seen_periods(reference: Reference) -> dict[str, str]:
    """Attributes of a store that say which times its method has seen.

    There are none where times repeat (members) or are simulated.
    """
    if not reference.climatology.fitted:
        return {}
    seen = {
        "training_period": "; ".join("/".join(stretch) for stretch in reference.climatology.fitted)
    }
    if reference.validation is not None:
        seen["validation_period"] = "/".join(
            str(t)[:19] for t in reference.validation["time"].values[[0, -1]]
        )
    return seen


def report_notes(skill: xr.Dataset) -> list[str]:
    """Notices of a skill table as sentences for the report, without what is stamped on it."""
    told = str(skill.attrs.get("notices", "")).replace(
        str(skill.attrs.get("leakage", "")) or "\n", ""
    )
    return [
        f"{note[0].upper()}{note[1:]}."
        for note in (part.strip() for part in told.split("; "))
        if note
    ]


def check_table(out: Path) -> None:
    """Refuse a name that is no table's, before anything is computed."""
    if out.suffix != ".csv":
        raise ValueError(
            f"got --out {out}, expected a name that ends in .csv, because a table is written"
        )


def write_table(skill: xr.Dataset, out: Path) -> None:
    """Write the skill table as CSV, and print its first metric, and the first one of events."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, to_frame(skill).to_csv(index=False))
    names = [str(m) for m in skill["metric"].values]
    for metric in dict.fromkeys([names[0], *[m for m in names if is_event_metric(m)][:1]]):
        render(skill, metric=metric, console=_console)
    _console.print(f"[bold]{out}[/bold]: with intervals", highlight=False, soft_wrap=True)


def method_names(stores: Sequence[str | Path], opened: Sequence[xr.Dataset]) -> list[str]:
    """What to call forecasts in a table: their attribute ``method``.

    Where that is absent or not unique, they are called as their stores.
    """
    stems = [Path(str(store).rstrip("/")).stem for store in stores]
    names = [str(ds.attrs.get("method", stem)) for ds, stem in zip(opened, stems, strict=True)]
    names = stems if len(set(names)) < len(names) else names
    if len(set(names)) < len(names):
        raise ValueError(
            f"got forecast stores named {names}, expected distinct names, because the table tells"
            " methods apart by them"
        )
    return names


def read_mask(store: str) -> xr.DataArray:
    """The share of land in each cell, from a store with a land–sea mask."""
    fields = open_static(store)
    share = land_fraction(fields)
    if share is None:
        raise ValueError(
            f"got --mask {store} with {list(fields.data_vars)}, expected lsm, land_sea_mask or"
            " sftlf among them"
        )
    return share


def _fit(observed: xr.Dataset, train: Period | None, validation: Period | None) -> Reference | None:
    if train is None:
        return None

    def inside(period: Period) -> np.ndarray:
        mask = np.zeros(observed.sizes["time"], bool)
        mask[times_between(observed["time"], *period)] = True
        return mask

    return fit_reference(
        observed, train=inside(train), validation=None if validation is None else inside(validation)
    )


def _shared_levels(observed: xr.Dataset, forecasts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The observations at the levels of the forecasts.

    A level that only some forecasts have is left to `evaluate` to refuse.
    """
    if "level" not in observed.dims:
        return observed
    wanted = [ds["level"].values for ds in forecasts if "level" in ds.dims]
    levels = [
        v
        for v in observed["level"].values
        if wanted and all(np.isclose(w, v).any() for w in wanted)
    ]
    return observed.sel(level=levels) if levels else observed
