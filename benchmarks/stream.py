"""Batches of windows per second: `sciwm.stream` beside xbatcher, xarray and the machine's limit.

    pip install 'sciwm[bench]'
    python benchmarks/stream.py --data DIR --out table.md

writes its data to DIR (2.5 GB, kept and used again) and prints one table; about 10 minutes on two
cores. Every round measures all designs once, in changing order, and takes the ratio to the best
reference of the same round, so that other work on the machine counts for both. Medians over the
rounds are printed. The first windows of every design are compared with the store. Interrupted
(Ctrl-C), it prints what the whole rounds gave. How the limit is measured is described in
`stream_designs.limit`.
"""

import argparse
import importlib.util
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import stream_memory
import torch
from machine import processor
from rich.console import Console
from rich.table import Table
from stream_sections import Section, make_sections
from stream_stores import FIELDS, QUICK, Sizes, SlowFileSystem, Stores, write_stores

HEADINGS = (
    "design",
    "reuse",
    "value",
    "ratio [range]",
    "bar",
    "of the limit",
    "CPU ms",
    "first batch",
)


@dataclass(frozen=True)
class Row:
    """A line of the table, as text; the columns are HEADINGS."""

    section: str
    cells: tuple[str, ...]


def main() -> None:
    """Write the data, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for the data")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="sections whose title contains this")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small data, one round, a few batches: checks values, measures nothing",
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    began = time.perf_counter()
    stores = Stores(options.data, QUICK if options.quick else Sizes())
    for word in write_stores(stores):
        _say(word, began)
    wanted = options.only or ""
    if options.quick:
        SlowFileSystem.delay = 0.003
    sections = [s for s in make_sections(stores, quick=options.quick) if wanted in s.title]
    rounds = 1 if options.quick else options.rounds
    rounds = run_rounds(sections, rounds, began)
    rows = [row for section in sections for row in section_rows(section)]
    if wanted in "Memory":
        _say("memory", began)
        rows += memory_rows(stores, quick=options.quick)
    about = describe(stores, rounds, time.perf_counter() - began)
    show(rows, about)
    if options.out:
        options.out.write_text(markdown(rows, about))
    if any(design.failed for section in sections for design in section.designs):
        sys.exit("some designs failed")


def run_rounds(sections: list[Section], rounds: int, began: float) -> int:
    """Measure everything so many times, or until interrupted; return the number of whole rounds."""
    for number in range(rounds):
        try:
            for section in sections:
                _say(f"round {number + 1} of {rounds}: {section.title}", began)
                measure(section, number)
        except KeyboardInterrupt:
            if not number:
                raise
            for design in (d for section in sections for d in section.designs):
                del design.seen[number:]
            return number
    return rounds


def _say(word: str, began: float) -> None:
    print(f"{time.perf_counter() - began:5.0f} s  {word}", file=sys.stderr, flush=True)


def measure(section: Section, number: int) -> None:
    """Measure every design of a section once, and check the values of the first windows.

    Each round starts with another design.
    """
    first = number % len(section.designs)
    for design in section.designs[first:] + section.designs[:first]:
        if design.failed:
            continue
        try:
            found = design.measure(number)
        except (ValueError, OSError) as error:
            design.failed = f"{type(error).__name__}: {error}"
            continue
        if section.truth is not None and found.index is not None:
            expected = section.truth(found.index)
            tolerance = 1e-5 * float(np.abs(expected).max())
            if not np.allclose(found.values, expected, rtol=1e-5, atol=tolerance):
                raise AssertionError(
                    f"{design.name} in '{section.title}' returned wrong values in round {number}"
                )
        design.seen.append(found)


def section_rows(section: Section) -> Iterator[Row]:
    """Medians over the rounds."""
    references = [d.rates() for d in section.designs if d.role == "reference" and not d.failed]
    best = np.max(references, axis=0)
    limits = next((d.rates() for d in section.designs if d.role == "limit"), None)
    for design in section.designs:
        if design.failed:
            cells = (design.name, section.reuse, "failed: " + design.failed, *[""] * 5)
            yield Row(section.title, cells)
            continue
        rates = design.rates()
        if section.steps:
            added = 100 * (best / rates - 1)
            value, ratio = f"{1000 / np.median(rates):.1f} ms", _spread(added, "+.1f", " %")
            bar = "" if design.bar is None else _bar(float(np.median(added)), design.bar, "≤", " %")
            yield Row(section.title, (design.name, section.reuse, value, ratio, bar, "", "", ""))
            continue
        ratios = rates / best
        ratio = "" if design.role == "limit" else _spread(ratios, ".3g", "×")
        bar = "" if design.bar is None else _bar(float(np.median(ratios)), design.bar, "≥", "×")
        share = ""
        if limits is not None and design.role != "limit":
            part = float(np.median(rates / limits))
            share = f"{part:.2f}"
            if design.limit_bar is not None:
                share += f" ({_bar(part, design.limit_bar, '≥', '')})"
        cpu = f"{np.median([1000 * m.cpu / m.windows for m in design.seen]):.3g}"
        firsts = [m.first for m in design.seen if m.first is not None]
        first = f"{np.median(firsts):.2f} s" if firsts else ""
        rate = f"{np.median(rates):,.0f} /s"
        yield Row(section.title, (design.name, section.reuse, rate, ratio, bar, share, cpu, first))


def memory_rows(stores: Stores, *, quick: bool) -> Iterator[Row]:
    """Peaks of fresh processes beyond their imports, by memory limit and by length of the store."""
    title, mebi = "Memory: peak beyond imports", 2**20
    if quick:
        used = stream_memory.peak(stores.longer, memory_limit=32 * mebi, stride=6, batches=4)
        yield Row(title, ("stream(path), memory_limit 32 MiB", "1", f"{used:.0f} MiB", *[""] * 5))
        return
    for limit in (256, 512, 1024):
        used = stream_memory.peak(stores.fields, memory_limit=limit * mebi, stride=6, batches=400)
        name = f"stream(path), memory_limit {limit} MiB"
        ratio, bar = f"{used / limit:.2f}× the limit", _bar(used / limit, 1.2, "≤", "×")
        yield Row(title, (name, "1", f"{used:.0f} MiB", ratio, bar, *[""] * 3))
    longer = stream_memory.peak(stores.longer, memory_limit=limit * mebi, stride=6, batches=400)
    name = f"the same with {limit} MiB, store 10 times as long"
    ratio, bar = f"{longer / used:.2f}× the shorter", _bar(longer / used, 1.1, "≤", "×")
    yield Row(title, (name, "1", f"{longer:.0f} MiB", ratio, bar, *[""] * 3))
    if _version("xbatcher"):
        options = {"memory_limit": 0, "stride": 6, "batches": 10}
        used = stream_memory.peak(stores.fields, **options, xbatcher=True)
        yield Row(title, ("xbatcher, 0 workers", "1", f"{used:.0f} MiB", *[""] * 5))


def _spread(values: np.ndarray, style: str, unit: str) -> str:
    low, middle, high = (format(v, style) for v in (values.min(), np.median(values), values.max()))
    return f"{middle}{unit} [{low}, {high}]"


def _bar(value: float, bar: float, sign: str, unit: str) -> str:
    met = value >= bar if sign == "≥" else value <= bar
    return f"{sign} {bar:g}{unit} {'met' if met else 'MISSED'}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def describe(stores: Stores, rounds: int, seconds: float) -> list[str]:
    """What was measured, on what."""
    names = ("torch", "xarray", "zarr", "dask", "numcodecs", "xbatcher")
    packages = ", ".join(f"{p} {_version(p)}" for p in names if _version(p))
    grid, sizes = "×".join(map(str, stores.sizes.grid)), stores.sizes
    missing = "insitubatch is not installed here: it needs Python ≥ 3.12."
    return [
        f"{processor()}, Python {platform.python_version()}, {packages}.",
        (
            f"{sizes.times} times of {len(FIELDS)} variables on {grid} points, float32 in chunks of"
            f" 32 times, Blosc-zstd 3: {stores.ratio():.2f} times smaller than in memory."
        ),
        (
            f"Batches of 32 windows of 6 times. Medians of {rounds} rounds; {seconds / 60:.0f}"
            " minutes in all."
        ),
        (
            "Ratios are to the best xbatcher row of the same round, or to the first row where there"
            " is none; in brackets the lowest and highest round."
        ),
        (
            "Reuse is the number of windows that share a decoded step. The limit is stride × (time"
            " to decode a step) + (time to gather a window), by two threads that do nothing else;"
            " shares are of the limit."
        ),
        "CPU ms and value per window; the first batch counts from opening the data.",
        *([] if importlib.util.find_spec("insitubatch") else [missing]),
    ]


def show(rows: list[Row], about: list[str]) -> None:
    """Print the table."""
    table = Table(*HEADINGS, title="Streaming windows", header_style="bold")
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_section()
            table.add_row(f"[bold]{section}[/bold]")
        table.add_row(*(cell.replace("[", r"\[") for cell in row.cells))
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(table)
    console.print("\n".join(about), markup=False)


def markdown(rows: list[Row], about: list[str]) -> str:
    """The same in Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines.append(f"| **{section}** |" + " |" * (len(HEADINGS) - 1))
        lines.append("| " + " | ".join(row.cells) + " |")
    return "\n".join([*lines, "", *(f"{line}  " for line in about), ""])


if __name__ == "__main__":
    main()
