"""What can be written on the command line: verbs, their options, overrides and initial times."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import sciwm

__all__ = ["TAKES_OVERRIDES", "build_parser", "parse_init", "parse_period", "split_overrides"]

# verb: (line in the overview, example)
_VERBS = {
    "demo": ("simulate turbulence, train on it, score the forecasts", "sciwm demo --out runs/demo"),
    "check": (
        "say what is wrong with a configuration or its data",
        "sciwm check erai_europe --data.store=era.nc",
    ),
    "prepare": (
        "write the training store of standardized anomalies",
        "sciwm prepare erai_europe --out runs/erai",
    ),
    "train": ("train the world model, or continue where it stopped", "sciwm train runs/erai"),
    "probe": ("fit the readouts of fields and indices", "sciwm probe runs/erai"),
    "forecast": (
        "forecast the test block, or any other store",
        "sciwm forecast runs/erai --store era_2015.nc --init 2015-01-01:2015-12-31:1day"
        " --out fc.zarr",
    ),
    "evaluate": (
        "score a run, or forecast stores, against baselines",
        "sciwm evaluate fc.zarr --truth era.nc --train 2000:2006 --out skill.csv",
    ),
    "baselines": (
        "forecast with climatology, persistence and linear models",
        "sciwm baselines era.nc --train 2000:2006 --init 2008-01-01:2008-12-31"
        " --lead-times '1 day, 3 days' --out baselines",
    ),
    "simulate": (
        "roll the model forward for a year, say",
        "sciwm simulate runs/erai --forecast.simulate='365 days'",
    ),
    "report": ("write report.html: skill, maps, curves", "sciwm report runs/erai"),
    "run": (
        "all of prepare … report, skipping what is up to date",
        "sciwm run erai_europe --train.steps=1000 --out runs/erai",
    ),
    "compare": (
        "train and score the JEPA and its twins over seeds, one table",
        "sciwm compare erai_europe --seeds 0,1,2 --methods jepa,supervised --out runs/compare",
    ),
    "data": ("list the data sets of sciwm, make or get one", "sciwm data list"),
}
TAKES_OVERRIDES = set(_VERBS) - {"demo", "baselines", "data"}
_TIME = r"[+-]?\d+(?:\.\d+)?(?:-\d{1,2}(?:-\d{1,2})?)?(?:[T ]\d{2}(?::\d{2}(?::\d{2})?)?)?"
_INIT = re.compile(rf"\s*({_TIME})\s*:\s*({_TIME})\s*(?::\s*(\d+(?:\.\d+)?\s*[A-Za-z]+)\s*)?")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs; `split_overrides` takes out flags of the configuration."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    where = "show where in the code an error arose"
    common.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=where)
    parser = argparse.ArgumentParser(
        prog="sciwm",
        description=sciwm.__doc__ and sciwm.__doc__.splitlines()[0],
        epilog="`sciwm VERB --help` explains a verb. Begin with `sciwm demo`.",
        allow_abbrev=False,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"sciwm {sciwm.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for verb, (line, example) in _VERBS.items():
        epilog = f"example:\n  {example}"
        if verb in TAKES_OVERRIDES:
            flags = "--section.key=value, --seed=1"
            epilog += f"\n\nAny value of the configuration can be given as a flag: {flags}."
        one = verbs.add_parser(
            verb,
            help=line,
            description=f"{line[0].upper()}{line[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            parents=[common],
        )
        _OWN.get(verb, _of_a_run)(one)
        if verb in ("check", "run", "evaluate"):
            _add_leakage(one)
        if verb in ("prepare", "run", "evaluate", "baselines"):
            _add_workers(one, "prepare" if verb in ("prepare", "run") else "compute")
    return parser


_CONFIG = "a YAML file, or the name of one that comes with sciwm (see `sciwm data list`)"
_TRUTH = "the observed data: paths, globs or URLs"


def _of_a_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", metavar="CONFIG-or-RUN", help=f"a run directory, or {_CONFIG}")
    folder = "run directory (default: runs/NAME, after the configuration's name)"
    add("--out", type=Path, metavar="DIR", help=folder)


def _train(parser: argparse.ArgumentParser) -> None:
    _of_a_run(parser)
    instead = "measure a step on this machine instead of training"
    parser.add_argument("--profile", action="store_true", help=instead)


def _demo(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    folders = "run directory (default: runs/demo, or runs/demo_quick with --quick)"
    add("--out", type=Path, metavar="DIR", help=folders)
    add("--quick", action="store_true", help="a minute's worth of it, to see that all works")


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="CONFIG", help=_CONFIG)


def _compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", metavar="CONFIG", help=_CONFIG)
    add("--seeds", default="0,1,2", help="such as 0,1,2 (the default)")
    known = "jepa,supervised,masked_autoencoder,autoencoder,random"
    add("--methods", default=known, help=f"some of {known} (default: all)")
    scored = "block to score: validation to choose by, test (the default) for the result"
    add("--split", choices=["validation", "test"], default="test", help=scored)
    folder = "folder (default: runs/NAME_compare, after the configuration's name)"
    add("--out", type=Path, metavar="DIR", help=folder)


def _data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    actions = "make simulates a data set, get says where one comes from"
    add("action", choices=["list", "make", "get"], help=actions)
    add("name", nargs="?", help="which data set, for make and get")
    file = "for make: where to write it (default: NAME.nc)"
    add("--out", type=Path, metavar="FILE", help=file)


def _forecast(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", metavar="RUN", help=f"a run directory, or {_CONFIG}")
    data = "forecast from these data instead of the run's test block: paths, globs or URLs"
    add("--store", nargs="+", help=data)
    times = "initial times START:END[:STEP], ends included; START/END[/STEP] says the same"
    add("--init", help=times)
    leads = "such as '1 day, 5 days' (default: those of the run)"
    add("--lead-times", metavar="LEADS", help=leads)
    ensemble = "an ensemble of N, of a model trained with model.noise_dim"
    add("--members", type=int, default=0, metavar="N", help=ensemble)
    out = "with --store: the forecast store to write; else the run directory"
    add("--out", type=Path, help=out)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    target = "one run, or forecast stores in WeatherBench 2 layout"
    add("target", nargs="+", metavar="RUN-or-STORE", help=target)
    add("--truth", nargs="+", metavar="STORE", help=_TRUTH)
    run = "run whose training years give climatology and baselines"
    add("--reference", type=Path, metavar="RUN", help=f"with --truth: {run}")
    _add_fit(parser, "with --truth: ")
    add("--metrics", help="with --truth: such as rmse,acc")
    regions = "such as tropics;north:20,90,0,360; a box is NAME:S,N,W,E, and ';' separates"
    add("--regions", help=f"with --truth: {regions}")
    events = "such as 't850>285;tp>0.001', for Brier scores and ROC areas; ';' separates"
    add("--events", help=f"with --truth: {events}")
    mask = "land-sea mask for the regions land and ocean (default: the truth's)"
    add("--mask", metavar="STORE", help=f"with --truth: {mask}")
    add("--baselines", help="with --truth: such as persistence,lim")
    regrid = (
        "with --truth: bring forecasts onto its grid first (default without: refuse other grids);"
        " linear if no method is named"
    )
    methods = ["linear", "conservative"]
    add("--regrid", nargs="?", const="linear", choices=methods, help=regrid)
    page = "with --truth: a page with figures, such as report.html"
    add("--report", type=Path, metavar="FILE", help=page)
    table = "with --truth: the table to write (default: skill.csv); else the run directory"
    add("--out", type=Path, help=table)


def _baselines(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", nargs="+", metavar="STORE", help=_TRUTH)
    _add_fit(parser, "")
    add("--init", help="initial times START:END[:STEP], ends included")
    add("--lead-times", metavar="LEADS", help="such as '1 day, 5 days'")
    default = "climatology,persistence,damped_persistence,lim (these by default)"
    add("--methods", help=f"some of {default},two_states,cslim,analogs")
    add("--out", type=Path, metavar="DIR", help="folder for METHOD.zarr")


_OWN = {
    "demo": _demo,
    "check": _check,
    "train": _train,
    "forecast": _forecast,
    "evaluate": _evaluate,
    "baselines": _baselines,
    "compare": _compare,
    "data": _data,
}


def _add_leakage(parser: argparse.ArgumentParser) -> None:
    leakage = (
        "go on where scored times were seen before (in training, by the climatology, in choices),"
        " and mark the scores"
    )
    parser.add_argument("--allow-leakage", action="store_true", help=leakage)


def _add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    add = parser.add_mutually_exclusive_group().add_argument
    cluster = f"{what} on the Dask cluster at this address, such as tcp://10.0.0.1:8786"
    add("--scheduler", metavar="ADDRESS", help=cluster)
    processes = f"{what} in N processes of this machine"
    add("--workers", type=_positive, default=0, metavar="N", help=processes)


def _add_fit(parser: argparse.ArgumentParser, when: str) -> None:
    add = parser.add_argument
    fitted = f"{when}times to fit climatology and baselines on, ends included"
    add("--train", metavar="START:END", help=fitted)
    chosen = f"{when}times to choose the LIM with (default: blocks of --train in turn)"
    add("--validation", metavar="START:END", help=chosen)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a number of processes, at least 1"
        )
    return int(text)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take out flags with dotted keys, and ``--seed``, with their values, wherever they stand."""
    arguments: list[str] = []
    overrides: list[str] = []
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        name, equals, _ = token.partition("=")
        if not (name.startswith("--") and ("." in name or name == "--seed")):
            arguments.append(token)
            continue
        overrides.append(token)
        if not equals and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return arguments, overrides


def parse_init(text: str, option: str = "--init") -> tuple[str, str, str | None]:
    """Initial times ``START:END[:STEP]``, both ends included.

    Parameters
    ----------
    text : str
        Dates, ISO times or picoseconds; ``START/END[/STEP]`` says the same. ``STEP`` has a unit:
        ``5 days``.
    option : str
        Where it was written, for errors.

    Examples
    --------
    >>> parse_init("2008-01-01T12:00:2008-02-01T12:00:5 days")
    ('2008-01-01T12:00', '2008-02-01T12:00', '5 days')
    >>> parse_init("2008-01-01/2008-12-31")
    ('2008-01-01', '2008-12-31', None)

    Raises
    ------
    ValueError
        If it is not of this form, or names a date of no calendar or a step of 0.
    """
    start, end, every = _init_parts(text, option)
    for time in (start, end):
        _check_date(text, time, option)
    if every:
        from sciwm.times import parse_lead

        try:
            amount, _ = parse_lead(every)
        except ValueError as error:
            raise ValueError(f"{error} (the step of {option} {text!r})") from None
        if not amount > 0:
            raise ValueError(
                f"got {option} {text!r} with a step of {every}, expected a positive one, such as '5"
                " days', or none for every time"
            )
    return start, end, every


def parse_period(text: str, option: str) -> tuple[str, str]:
    """Times ``START:END``, both ends included, as `parse_init` reads them.

    Examples
    --------
    >>> parse_period("2000:2006", "--train")
    ('2000', '2006')

    Raises
    ------
    ValueError
        If it is not of this form.
    """
    start, end, every = parse_init(text, option)
    if every:
        raise ValueError(
            f"got {option} {text!r} with a step, expected START:END, such as '2000:2006'"
        )
    return start, end


def _init_parts(text: str, option: str) -> tuple[str, str, str | None]:
    if "/" in text:
        parts = [part.strip() for part in text.split("/")]
        times_fit = len(parts) in (2, 3) and all(re.fullmatch(_TIME, part) for part in parts[:2])
        if times_fit and (len(parts) == 2 or re.fullmatch(r"\d+(?:\.\d+)?\s*[A-Za-z]+", parts[2])):
            return parts[0], parts[1], parts[2] if len(parts) == 3 else None
    elif match := _INIT.fullmatch(text):
        return match[1], match[2], match[3]
    raise ValueError(
        f"got {option} {text!r}, expected START:END or START:END:STEP, such as"
        " '2008-01-01:2008-12-31:5 days'"
    )


def _check_date(text: str, time: str, option: str) -> None:
    """Refuse what is in no calendar; 30 February is, in that of 360 days."""
    date, *clock = re.split("[T ]", time)
    month, day = [*map(int, date.lstrip("+-").split("-")[1:]), 1, 1][:2]
    given = [int(part) for part in ":".join(clock).split(":") if part]
    hour, minute, second = [*given, 0, 0, 0][:3]
    days = 31 if month in (1, 3, 5, 7, 8, 10, 12) else 30
    if not (1 <= month <= 12 and 1 <= day <= days and hour < 24 and minute < 60 and second < 60):
        raise ValueError(
            f"got {time!r} in {option} {text!r}, which is no date of any calendar, expected one"
            " such as 2008-12-31 or 2008-12-31T18:00"
        )
