"""Forecasts become scores beside those of baselines. Knows nothing of torch.

In: forecasts and observations, from anybody's store. Out: a table of scores with intervals, and
maps, spectra and rank histograms; of simulations, whether they hold. Read `table` first:
`evaluate`, and the parts it is made of.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "ALL_BASELINES",
    "BASELINES",
    "METRICS",
    "MORE_BASELINES",
    "Analogs",
    "Event",
    "Lim",
    "Lineup",
    "Reference",
    "analog_forecast",
    "area_means",
    "assess",
    "block_counts",
    "bootstrap_interval",
    "climatology_forecast",
    "damped_persistence_forecast",
    "decorrelation_time",
    "diagnose",
    "diagnose_simulations",
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
    "line_up_batches",
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
    "simulation_table",
    "to_frame",
    "write_diagnostics",
    "write_skill",
    "zonal_spectrum",
]

if TYPE_CHECKING:
    from sciwm.regions import region_weights
    from sciwm.skill.alignment import observed_at
    from sciwm.skill.baselines.analogs import Analogs, analog_forecast, fit_analogs
    from sciwm.skill.baselines.by_name import ALL_BASELINES, BASELINES, MORE_BASELINES
    from sciwm.skill.baselines.lim import Lim, fit_lim, lim_forecast
    from sciwm.skill.baselines.simple import (
        Reference,
        climatology_forecast,
        damped_persistence_forecast,
        fit_reference,
        fit_slopes,
        persistence_forecast,
    )
    from sciwm.skill.diagnostics import diagnose, write_diagnostics
    from sciwm.skill.ensemble import ensemble_sums, rank_histogram
    from sciwm.skill.events import Event, event_sums, parse_event
    from sciwm.skill.frame import render, to_frame, write_skill
    from sciwm.skill.lineup import Lineup, line_up, line_up_batches
    from sciwm.skill.metrics import METRICS
    from sciwm.skill.regrid import regrid_forecast
    from sciwm.skill.scores import area_means, mean_over_inits, score_sums
    from sciwm.skill.significance import (
        block_counts,
        bootstrap_interval,
        decorrelation_time,
        diebold_mariano,
        false_discovery,
        paired_difference,
    )
    from sciwm.skill.simulation import diagnose_simulations, simulation_table
    from sciwm.skill.spectra import zonal_spectrum
    from sciwm.skill.table import assess, evaluate, score_lineup
else:
    # By hand, as in sciwm/__init__.py, which says why.
    _HOME = {
        "ALL_BASELINES": "sciwm.skill.baselines.by_name",
        "BASELINES": "sciwm.skill.baselines.by_name",
        "METRICS": "sciwm.skill.metrics",
        "MORE_BASELINES": "sciwm.skill.baselines.by_name",
        "Analogs": "sciwm.skill.baselines.analogs",
        "Event": "sciwm.skill.events",
        "Lim": "sciwm.skill.baselines.lim",
        "Lineup": "sciwm.skill.lineup",
        "Reference": "sciwm.skill.baselines.simple",
        "analog_forecast": "sciwm.skill.baselines.analogs",
        "area_means": "sciwm.skill.scores",
        "assess": "sciwm.skill.table",
        "block_counts": "sciwm.skill.significance",
        "bootstrap_interval": "sciwm.skill.significance",
        "climatology_forecast": "sciwm.skill.baselines.simple",
        "damped_persistence_forecast": "sciwm.skill.baselines.simple",
        "decorrelation_time": "sciwm.skill.significance",
        "diagnose": "sciwm.skill.diagnostics",
        "diagnose_simulations": "sciwm.skill.simulation",
        "diebold_mariano": "sciwm.skill.significance",
        "ensemble_sums": "sciwm.skill.ensemble",
        "evaluate": "sciwm.skill.table",
        "event_sums": "sciwm.skill.events",
        "false_discovery": "sciwm.skill.significance",
        "fit_analogs": "sciwm.skill.baselines.analogs",
        "fit_lim": "sciwm.skill.baselines.lim",
        "fit_reference": "sciwm.skill.baselines.simple",
        "fit_slopes": "sciwm.skill.baselines.simple",
        "lim_forecast": "sciwm.skill.baselines.lim",
        "line_up": "sciwm.skill.lineup",
        "line_up_batches": "sciwm.skill.lineup",
        "mean_over_inits": "sciwm.skill.scores",
        "observed_at": "sciwm.skill.alignment",
        "paired_difference": "sciwm.skill.significance",
        "parse_event": "sciwm.skill.events",
        "persistence_forecast": "sciwm.skill.baselines.simple",
        "rank_histogram": "sciwm.skill.ensemble",
        "region_weights": "sciwm.regions",
        "regrid_forecast": "sciwm.skill.regrid",
        "render": "sciwm.skill.frame",
        "score_lineup": "sciwm.skill.table",
        "score_sums": "sciwm.skill.scores",
        "simulation_table": "sciwm.skill.simulation",
        "to_frame": "sciwm.skill.frame",
        "write_diagnostics": "sciwm.skill.diagnostics",
        "write_skill": "sciwm.skill.frame",
        "zonal_spectrum": "sciwm.skill.spectra",
    }

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'sciwm.skill' has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)

    def __dir__() -> list[str]:
        return sorted(__all__)
