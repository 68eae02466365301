"""The verbs of the terminal: parse, find the run, call `sciwm.run.verbs`.

Nothing heavy is imported until a verb needs it, so that ``sciwm --help`` answers at once.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciwm.arguments import TAKES_OVERRIDES, build_parser, parse_init, parse_period, split_overrides

if TYPE_CHECKING:
    from sciwm.config import Config
    from sciwm.run.directory import RunDir

__all__ = ["main"]

# Options of `evaluate` that mean nothing without --truth.
_WITH_TRUTH = ["reference", "train", "validation", "metrics", "regions", "events", "baselines"]
_WITH_TRUTH += ["mask", "regrid", "report"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the entry point of ``sciwm``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        0 when done, 2 after an error in what was asked, 130 after Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments, overrides = split_overrides(argv)
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if options.verb is None:
        parser.print_help()
        return 0
    overrides += unknown
    if overrides and options.verb not in TAKES_OVERRIDES:
        parser.error(
            f"got {' '.join(overrides)}, expected no such option, because `sciwm {options.verb}`"
            " takes no configuration"
        )
    if getattr(options, "allow_leakage", False) and getattr(options, "truth", None) is None:
        overrides.append("--skill.allow_leakage=true")  # a run keeps it in its configuration
    try:
        return _COMMANDS[options.verb](options, overrides)
    except KeyboardInterrupt:
        return _interrupted(argv)
    except SystemExit as end:
        # Lightning turns Ctrl-C into an exit after its own shutdown.
        if isinstance(end.__context__, KeyboardInterrupt):
            return _interrupted(argv)
        raise
    except Exception as error:
        if hasattr(options, "traceback") or not _is_expected(error):
            raise
        _complain(f"{error}")
        return 2


def _load(target: str, overrides: list[str]) -> "tuple[Config, Path]":
    """Configuration of a file, a name or a run, and the default run directory."""
    from sciwm import catalogue
    from sciwm.config import load_config
    from sciwm.run.directory import resolve_run

    path = Path(target)
    if path.is_dir():
        return resolve_run(path).read_config(overrides), path
    file = path if path.is_file() else Path(catalogue.config_path(target))
    return load_config(file, overrides), Path("runs") / file.stem


def _open(
    options: argparse.Namespace, target: str, overrides: list[str]
) -> "tuple[RunDir, Config]":
    from sciwm.run.directory import open_run

    if options.out is not None and Path(target).is_dir():
        stores = {
            "forecast": "; --out belongs with --store, to forecast from other data",
            "evaluate": f"; the table is {Path(target) / 'skill.csv'}, and --out belongs with"
            " --truth, to score forecast stores",
        }
        raise ValueError(
            f"got --out {options.out} with the run {target}, expected no --out, because a run keeps"
            f" what is made in its own folder{stores.get(options.verb, '')}; for another run of the"
            f" same configuration, give {Path(target) / 'config.yaml'}"
        )
    config, folder = _load(target, overrides)
    return open_run(options.out or folder, config), config


def _stage(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.verb == "train" and options.profile:
        return _profile(options, overrides)
    run, config = _open(options, options.target, overrides)
    from sciwm.run import verbs

    if options.verb in ("prepare", "run"):
        stage = verbs.prepare if options.verb == "prepare" else verbs.run_all
        stage(run, config, scheduler=options.scheduler, workers=options.workers)
    else:
        getattr(verbs, options.verb)(run, config)
    return 0


def _profile(options: argparse.Namespace, overrides: list[str]) -> int:
    """Measure with any settings, also others than those of the run, which stays as it is."""
    config, folder = _load(options.target, overrides)
    from sciwm.run import verbs
    from sciwm.run.directory import RunDir

    verbs.profile(RunDir(options.out or folder), config)
    return 0


def _demo(options: argparse.Namespace, overrides: list[str]) -> int:
    from sciwm.run import verbs

    folder = options.out or Path("runs/demo_quick" if options.quick else "runs/demo")
    verbs.demo(folder, quick=options.quick)
    return 0


def _check(options: argparse.Namespace, overrides: list[str]) -> int:
    config, _ = _load(options.target, overrides)
    from sciwm.run import verbs

    messages = verbs.check(config)
    for message in messages:
        _complain(message)
    return 2 if messages else 0


def _forecast(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.store is None:
        if options.init or options.lead_times or options.members:
            raise ValueError(
                "got --init, --lead-times or --members without --store, expected all of --store,"
                " --init and --out, or none of them; the members of a run's own forecasts are"
                " --forecast.members"
            )
        return _stage(options, overrides)
    if not (options.init and options.out):
        raise ValueError(
            "got --store without --init or --out, expected e.g. --init 2015-01-01:2015-12-31 --out"
            " fc.zarr"
        )
    if overrides:
        raise ValueError(
            f"got {' '.join(overrides)} with --store, expected none, because the model of"
            f" {options.target} is fixed"
        )
    init = parse_init(options.init)
    leads = [lead.strip() for lead in options.lead_times.split(",")] if options.lead_times else None
    from sciwm.run import verbs
    from sciwm.run.directory import resolve_run

    verbs.forecast_store(
        resolve_run(options.target),
        store=_one_or_many(options.store),
        init=init,
        lead_times=leads,
        members=options.members,
        out=options.out,
    )
    return 0


def _evaluate(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.truth is None:
        given = [_flag(name) for name in _WITH_TRUTH if getattr(options, name)]
        store = options.target[0].rstrip("/").endswith((".zarr", ".nc"))
        if given or store or len(options.target) > 1:
            raise ValueError(
                f"got {' and '.join(given) or 'forecast stores'} without --truth, expected forecast"
                " stores with --truth STORE (and --train START:END or --reference RUN), or one run"
                " to evaluate"
            )
        run, config = _open(options, options.target[0], overrides)
        from sciwm.run import verbs

        with _workers(options):
            verbs.evaluate(run, config)
        return 0
    if overrides:
        raise ValueError(
            f"got {' '.join(overrides)} with --truth, expected none: say --metrics, --regions or"
            " --baselines instead"
        )
    if options.reference is not None and (options.train or options.validation):
        raise ValueError(
            "got --reference and --train or --validation, expected one of them: a run has its own"
            " training years"
        )
    from sciwm import verify

    given = options.baselines
    asked = verify.Asked(
        metrics=tuple(_names(options.metrics)),
        regions=tuple(_names(options.regions, by=";")),
        events=tuple(_names(options.events, by=";")),
        baselines=None if given is None else tuple(_names(given)),
        mask=options.mask,
        regrid=options.regrid,
        allow_leakage=options.allow_leakage,
    )
    common: dict[str, Any] = {
        "truth": _one_or_many(options.truth),
        "out": options.out or Path("skill.csv"),
        "asked": asked,
    }
    if options.reference is not None and options.report is not None:
        raise ValueError(
            "got --report with --reference, expected --train START:END instead: a run has a report"
            " of its own forecasts"
        )
    if options.reference is not None:
        from sciwm.run import verbs
        from sciwm.run.directory import resolve_run

        with _workers(options):
            verbs.evaluate_store(options.target, reference=resolve_run(options.reference), **common)
        return 0
    periods = _periods(options)
    with _workers(options):
        verify.evaluate_forecasts(options.target, **periods, **common, report=options.report)
    return 0


def _baselines(options: argparse.Namespace, overrides: list[str]) -> int:
    needed = ("train", "init", "lead_times", "out")
    absent = [_flag(name) for name in needed if not getattr(options, name)]
    if absent:
        raise ValueError(
            f"got no {' and no '.join(absent)}, expected e.g. --train 2000:2006 --init"
            " 2008-01-01:2008-12-31 --lead-times '1 day, 5 days' --out baselines"
        )
    init, periods = parse_init(options.init), _periods(options)
    from sciwm import verify

    with _workers(options):
        verify.write_baselines(
            _one_or_many(options.target),
            init=init,
            lead_times=_names(options.lead_times),
            methods=_names(options.methods),
            out=options.out,
            **periods,
        )
    return 0


@contextmanager
def _workers(options: argparse.Namespace) -> Iterator[None]:
    """Dask on the cluster, or in the processes, that were asked for; on threads without."""
    if options.scheduler is None and not options.workers:
        yield
        return
    from sciwm.cluster import dask_workers, describe

    with dask_workers(scheduler=options.scheduler, workers=options.workers) as client:
        print(describe(client))
        yield


def _periods(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in ("train", "validation")}
    return {name: parse_period(text, f"--{name}") for name, text in given.items() if text}


def _compare(options: argparse.Namespace, overrides: list[str]) -> int:
    config, folder = _load(options.target, overrides)
    seeds = _names(options.seeds)
    if not all(seed.isdecimal() for seed in seeds):
        raise ValueError(
            f"got --seeds {options.seeds!r}, expected whole numbers of at least 0, such as 0,1,2"
        )
    from sciwm.run.compare import compare

    out = options.out or folder.with_name(f"{folder.name}_compare")
    numbers, methods = [int(seed) for seed in seeds], _names(options.methods)
    compare(config, out=out, seeds=numbers, methods=methods, split=options.split)
    return 0


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _names(text: str | None, *, by: str = ",") -> list[str]:
    return [part.strip() for part in (text or "").split(by) if part.strip()]


def _data(options: argparse.Namespace, overrides: list[str]) -> int:
    from sciwm import catalogue

    rows = {row["name"]: row for row in catalogue.table()}
    if options.action == "list":
        _print_table(list(rows.values()))
        return 0
    if options.name not in rows:
        raise ValueError(
            f"got data set {options.name!r} to {options.action}, expected one of {', '.join(rows)}"
        )
    row = rows[options.name]
    if options.action == "get":
        print(row["what"], row["how_to_get"], sep="\n")
        print(f"origin: {row['origin']}\nlicence: {row['licence']}")
        return 0
    if "make" not in row["verbs"]:
        raise ValueError(
            f"got {options.name} to make, but it is not simulated here: {row['how_to_get']}"
        )
    out = options.out or Path(f"{options.name}.nc")
    if out.exists():
        raise FileExistsError(
            f"got {out}, which exists already, expected a new file: give another one with --out"
        )
    catalogue.load(options.name).make(path=out)
    print(f"wrote {out}")
    return 0


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what", "size", "obtain with")
    for row in rows:
        verb = "make" if "make" in row["verbs"] else "get"
        table.add_row(row["name"], row["what"], row["size"], f"data {verb} {row['name']}")
    table.columns[0].no_wrap = table.columns[3].no_wrap = True
    Console().print(table)


def _one_or_many(paths: list[str]) -> str | list[str]:
    return paths[0] if len(paths) == 1 else paths


def _is_expected(error: Exception) -> bool:
    """Whether an error is about what was asked: raised by sciwm itself, or by the file system."""
    if isinstance(error, OSError) and error.filename is not None:
        return True
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    module = frame.tb_frame.f_globals.get("__name__", "") if frame else ""
    kinds = ValueError | OSError | RuntimeError | ImportError | FloatingPointError
    return module.partition(".")[0] == "sciwm" and isinstance(error, kinds)


def _interrupted(argv: Sequence[str]) -> int:
    command = shlex.join(["sciwm", *argv])
    _complain(f"interrupted; what is finished is kept, continue with: {command}")
    return 130


def _complain(message: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(
        message, style="bold red", markup=False, highlight=False, soft_wrap=True
    )


_COMMANDS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "demo": _demo,
    "check": _check,
    "prepare": _stage,
    "train": _stage,
    "probe": _stage,
    "forecast": _forecast,
    "evaluate": _evaluate,
    "baselines": _baselines,
    "simulate": _stage,
    "report": _stage,
    "compare": _compare,
    "run": _stage,
    "data": _data,
}
