"""Forecast verification: scores, baselines, intervals, reports. Knows nothing of torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciwm.skill.alignment import observed_at
    from sciwm.skill.analogs import Analogs, analog_forecast, fit_analogs
    from sciwm.skill.baselines import (
        Reference,
        climatology_forecast,
        damped_persistence_forecast,
        fit_reference,
        fit_slopes,
        persistence_forecast,
    )
    from sciwm.skill.diagnostics import diagnose, write_diagnostics
    from sciwm.skill.ensemble import ENSEMBLE_METRICS, ensemble_sums, rank_histogram
    from sciwm.skill.events import EVENT_METRICS, Event, event_sums, parse_event
    from sciwm.skill.frame import render, to_frame, write_skill
    from sciwm.skill.lim import Lim, fit_lim, lim_forecast
    from sciwm.skill.lineup import Lineup, line_up
    from sciwm.skill.methods import ALL_BASELINES, BASELINES, MORE_BASELINES
    from sciwm.skill.regions import region_weights
    from sciwm.skill.regrid import regrid_forecast
    from sciwm.skill.scores import METRICS, area_means, mean_over_inits, score_sums
    from sciwm.skill.significance import (
        block_counts,
        bootstrap_interval,
        decorrelation_time,
        diebold_mariano,
        false_discovery,
        paired_difference,
    )
    from sciwm.skill.spectra import zonal_spectrum
    from sciwm.skill.table import evaluate, score_lineup

_HOME = {
    "ALL_BASELINES": "methods",
    "Analogs": "analogs",
    "BASELINES": "methods",
    "ENSEMBLE_METRICS": "ensemble",
    "EVENT_METRICS": "events",
    "Event": "events",
    "METRICS": "scores",
    "Lim": "lim",
    "Lineup": "lineup",
    "MORE_BASELINES": "methods",
    "Reference": "baselines",
    "analog_forecast": "analogs",
    "area_means": "scores",
    "block_counts": "significance",
    "bootstrap_interval": "significance",
    "climatology_forecast": "baselines",
    "damped_persistence_forecast": "baselines",
    "decorrelation_time": "significance",
    "diagnose": "diagnostics",
    "diebold_mariano": "significance",
    "ensemble_sums": "ensemble",
    "evaluate": "table",
    "event_sums": "events",
    "false_discovery": "significance",
    "fit_analogs": "analogs",
    "fit_lim": "lim",
    "fit_reference": "baselines",
    "fit_slopes": "baselines",
    "lim_forecast": "lim",
    "line_up": "lineup",
    "mean_over_inits": "scores",
    "observed_at": "alignment",
    "parse_event": "events",
    "paired_difference": "significance",
    "persistence_forecast": "baselines",
    "rank_histogram": "ensemble",
    "region_weights": "regions",
    "regrid_forecast": "regrid",
    "render": "frame",
    "score_lineup": "table",
    "score_sums": "scores",
    "to_frame": "frame",
    "write_diagnostics": "diagnostics",
    "write_skill": "frame",
    "zonal_spectrum": "spectra",
}

__all__ = [
    "ALL_BASELINES",
    "BASELINES",
    "ENSEMBLE_METRICS",
    "EVENT_METRICS",
    "METRICS",
    "MORE_BASELINES",
    "Analogs",
    "Event",
    "Lim",
    "Lineup",
    "Reference",
    "analog_forecast",
    "area_means",
    "block_counts",
    "bootstrap_interval",
    "climatology_forecast",
    "damped_persistence_forecast",
    "decorrelation_time",
    "diagnose",
    "diebold_mariano",
    "ensemble_sums",
    "evaluate",
    "event_sums",
    "false_discovery",
    "fit_analogs",
    "fit_lim",
    "fit_reference",
    "fit_slopes",
    "lim_forecast",
    "line_up",
    "mean_over_inits",
    "observed_at",
    "paired_difference",
    "parse_event",
    "persistence_forecast",
    "rank_histogram",
    "region_weights",
    "regrid_forecast",
    "render",
    "score_lineup",
    "score_sums",
    "to_frame",
    "write_diagnostics",
    "write_skill",
    "zonal_spectrum",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sciwm.skill' has no attribute {name!r}")
    return getattr(import_module(f"sciwm.skill.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
