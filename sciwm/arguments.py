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
        (
            "sciwm forecast runs/erai --store era_2015.nc --init 2015-01-01:2015-12-31:1day --out"
            " fc.zarr"
        ),
    ),
    "evaluate": (
        "score a run, or forecast stores, against baselines",
        "sciwm evaluate fc.zarr --truth era.nc --train 2000:2006 --out skill.csv",
    ),
    "baselines": (
        "forecast with climatology, persistence and linear models",
        (
            "sciwm baselines era.nc --train 2000:2006 --init 2008-01-01:2008-12-31 --lead-times '1"
            " day, 3 days' --out baselines"
        ),
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
TAKES_OVERRIDES = {
    "check",
    "prepare",
    "train",
    "probe",
    "forecast",
    "evaluate",
    "report",
    "run",
    "compare",
}
_TIME = r"[+-]?\d+(?:\.\d+)?(?:-\d{1,2}(?:-\d{1,2})?)?(?:[T ]\d{2}(?::\d{2}(?::\d{2})?)?)?"
_INIT = re.compile(rf"\s*({_TIME})\s*:\s*({_TIME})\s*(?::\s*(\d+(?:\.\d+)?\s*[A-Za-z]+)\s*)?")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs; overrides of the configuration are split off before (`split_overrides`)."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument(
        "--traceback",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show where in the code an error arose",
    )
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
            epilog += (
                "\n\nAny value of the configuration can be given as a flag: --section.key=value,"
                " --seed=1."
            )
        one = verbs.add_parser(
            verb,
            help=line,
            description=f"{line[0].upper()}{line[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            parents=[common],
        )
        _add_arguments(one, verb)
    return parser


def _add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    config = "a YAML file, or the name of one that comes with sciwm (see `sciwm data list`)"
    if verb == "demo":
        folders = "run directory (default: runs/demo, or runs/demo_quick with --quick)"
        parser.add_argument("--out", type=Path, metavar="DIR", help=folders)
        parser.add_argument(
            "--quick", action="store_true", help="a minute's worth of it, to see that all works"
        )
    elif verb == "check":
        parser.add_argument("target", metavar="CONFIG", help=config)
    elif verb == "compare":
        parser.add_argument("target", metavar="CONFIG", help=config)
        parser.add_argument("--seeds", default="0,1,2", help="such as 0,1,2 (the default)")
        known = "jepa,supervised,masked_autoencoder,autoencoder,random"
        parser.add_argument("--methods", default=known, help=f"some of {known} (default: all)")
        scored = "block to score: validation to choose by, test (the default) for the result"
        parser.add_argument("--split", choices=["validation", "test"], default="test", help=scored)
        parser.add_argument(
            "--out",
            type=Path,
            metavar="DIR",
            help="folder (default: runs/NAME_compare, after the configuration's name)",
        )
    elif verb == "data":
        parser.add_argument(
            "action",
            choices=["list", "make", "get"],
            help="make simulates a data set, get says where one comes from",
        )
        parser.add_argument("name", nargs="?", help="which data set, for make and get")
        parser.add_argument(
            "--out",
            type=Path,
            metavar="FILE",
            help="for make: where to write it (default: NAME.nc)",
        )
    elif verb == "forecast":
        parser.add_argument("target", metavar="RUN", help=f"a run directory, or {config}")
        parser.add_argument(
            "--store",
            nargs="+",
            help="forecast from these data instead of the run's test block: paths, globs or URLs",
        )
        parser.add_argument(
            "--init",
            help="initial times START:END[:STEP], ends included; START/END[/STEP] says the same",
        )
        parser.add_argument(
            "--lead-times",
            metavar="LEADS",
            help="such as '1 day, 5 days' (default: those of the run)",
        )
        parser.add_argument(
            "--members",
            type=int,
            default=0,
            metavar="N",
            help="an ensemble of N, of a model trained with model.noise_dim",
        )
        parser.add_argument(
            "--out",
            type=Path,
            help="with --store: the forecast store to write; else the run directory",
        )
    elif verb == "evaluate":
        parser.add_argument(
            "target",
            nargs="+",
            metavar="RUN-or-STORE",
            help="one run, or forecast stores in WeatherBench 2 layout",
        )
        parser.add_argument(
            "--truth", nargs="+", metavar="STORE", help="the observed data: paths, globs or URLs"
        )
        parser.add_argument(
            "--reference",
            type=Path,
            metavar="RUN",
            help="with --truth: run whose training years give climatology and baselines",
        )
        _add_fit(parser, "with --truth: ")
        parser.add_argument("--metrics", help="with --truth: such as rmse,acc")
        parser.add_argument(
            "--regions",
            help=(
                "with --truth: such as tropics;north:20,90,0,360; a box is NAME:S,N,W,E, and ';'"
                " separates"
            ),
        )
        parser.add_argument(
            "--events",
            help=(
                "with --truth: such as 't850>285;tp>0.001', for Brier scores and ROC areas; ';'"
                " separates"
            ),
        )
        parser.add_argument(
            "--mask",
            metavar="STORE",
            help=(
                "with --truth: land-sea mask for the regions land and ocean (default: the truth's)"
            ),
        )
        parser.add_argument("--baselines", help="with --truth: such as persistence,lim")
        regrid = (
            "with --truth: bring forecasts onto its grid first (default without: refuse other"
            " grids); linear if no method is named"
        )
        parser.add_argument(
            "--regrid", nargs="?", const="linear", choices=["linear", "conservative"], help=regrid
        )
        parser.add_argument(
            "--report",
            type=Path,
            metavar="FILE",
            help="with --truth: a page with figures, such as report.html",
        )
        parser.add_argument(
            "--out",
            type=Path,
            help="with --truth: the table to write (default: skill.csv); else the run directory",
        )
    elif verb == "baselines":
        parser.add_argument(
            "target", nargs="+", metavar="STORE", help="the observed data: paths, globs or URLs"
        )
        _add_fit(parser, "")
        parser.add_argument("--init", help="initial times START:END[:STEP], ends included")
        parser.add_argument("--lead-times", metavar="LEADS", help="such as '1 day, 5 days'")
        parser.add_argument(
            "--methods",
            help=(
                "some of climatology,persistence,damped_persistence,lim (these by"
                " default),cslim,analogs"
            ),
        )
        parser.add_argument("--out", type=Path, metavar="DIR", help="folder for METHOD.zarr")
    else:
        parser.add_argument("target", metavar="CONFIG-or-RUN", help=f"a run directory, or {config}")
        parser.add_argument(
            "--out",
            type=Path,
            metavar="DIR",
            help="run directory (default: runs/NAME, after the configuration's name)",
        )
    if verb == "train":
        parser.add_argument(
            "--profile",
            action="store_true",
            help="measure a step on this machine instead of training",
        )
    if verb in ("check", "run", "evaluate"):
        seen = (
            "go on where scored times were seen before (in training, by the climatology, in"
            " choices), and mark the scores"
        )
        parser.add_argument("--allow-leakage", action="store_true", help=seen)
    if verb in ("prepare", "run", "evaluate", "baselines"):
        what = "compute" if verb in ("evaluate", "baselines") else "prepare"
        where = parser.add_mutually_exclusive_group()
        where.add_argument(
            "--scheduler",
            metavar="ADDRESS",
            help=f"{what} on the Dask cluster at this address, such as tcp://10.0.0.1:8786",
        )
        where.add_argument(
            "--workers",
            type=_positive,
            default=0,
            metavar="N",
            help=f"{what} in N processes of this machine",
        )


def _add_fit(parser: argparse.ArgumentParser, when: str) -> None:
    parser.add_argument(
        "--train",
        metavar="START:END",
        help=f"{when}times to fit climatology and baselines on, ends included",
    )
    parser.add_argument(
        "--validation",
        metavar="START:END",
        help=f"{when}times to choose the LIM with (default: blocks of --train in turn)",
    )


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
        If it is not of this form, names a date of no calendar, or a step that is not positive.
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
    month, day = [*(int(part) for part in date.lstrip("+-").split("-")[1:]), 1, 1][:2]
    hour, minute, second = [*(int(part) for part in ":".join(clock).split(":") if part), 0, 0, 0][
        :3
    ]
    days = 31 if month in (1, 3, 5, 7, 8, 10, 12) else 30
    if not (1 <= month <= 12 and 1 <= day <= days and hour < 24 and minute < 60 and second < 60):
        raise ValueError(
            f"got {time!r} in {option} {text!r}, which is no date of any calendar, expected one"
            " such as 2008-12-31 or 2008-12-31T18:00"
        )
