"""README and documentation say what is true: Python blocks run, command lines name what exists."""

import doctest
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from sciwm.arguments import build_parser, split_overrides
from sciwm.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.exists()]
SHELL = {"bash", "console", "sh", "shell"}


class Block(NamedTuple):
    language: str
    code: str
    line: int


def blocks(text: str) -> list[Block]:
    """Fenced code blocks, but those after a comment ``<!-- not run: why -->``."""
    skip = r"(?P<skip><!-- not run:[^>]*-->\s*\n)?"
    fence = r"^(?P<fence>```+)(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=fence)\s*$"
    pattern = re.compile(skip + fence, re.M | re.S)
    return [
        Block(match["language"], match["code"], text.count("\n", 0, match.start("code")) + 1)
        for match in pattern.finditer(text)
        if not match["skip"]
    ]


def commands(text: str) -> list[list[str]]:
    """Words of each ``sciwm`` and ``make`` command in shell blocks.

    Prompts, variables and comments are taken off.
    """
    found = []
    for block in blocks(text):
        if block.language not in SHELL:
            continue
        for line in re.sub(r"\\\n\s*", " ", block.code).splitlines():
            if block.language == "console" and not line.startswith("$"):
                continue
            for part in re.split(r"&&|\|", line.removeprefix("$").strip()):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words.pop(0)
                if words and words[0].rpartition("/")[2] in {"sciwm", "make"}:
                    found.append([words[0].rpartition("/")[2], *words[1:]])
    return found


def complaint(words: list[str]) -> str | None:
    """What is wrong with one command, without running it."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"no target {unknown} in the Makefile" if unknown else None
    arguments, overrides = split_overrides(words[1:])
    try:
        build_parser().parse_args(arguments)
        load_config("", overrides)
    except SystemExit as end:
        return None if end.code in (0, None) else "the parser refuses it"
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page, tmp_path, monkeypatch, request):
    """In order, in one namespace, in an empty folder.

    Where a page asks for ``runs/demo``, the folder has a finished run.
    """
    monkeypatch.chdir(tmp_path)
    all_blocks = blocks(page.read_text(encoding="utf-8"))
    python = [block for block in all_blocks if block.language == "python"]
    if any("runs/demo" in block.code for block in python):
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "demo").symlink_to(request.getfixturevalue("finished_run"))
    namespace = {"__name__": "__readme__"}
    for block in python:
        source = "\n" * (block.line - 1) + block.code
        exec(compile(source, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sessions_print_what_they_show(page):
    """Blocks of ``>>>`` lines, errors included."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    wrong = [
        f"{shlex.join(words)}: {why}"
        for words in commands(page.read_text(encoding="utf-8"))
        if (why := complaint(words))
    ]
    assert not wrong, "\n".join(wrong)


SAMPLE = """
```bash
make demo            # comment
make demo DEMO=--quick && sciwm report runs/demo
FOO=1 .venv/bin/sciwm run tiny \\
    --train.steps=3
```
<!-- not run: needs a cluster -->
```bash
sciwm fly
```
```console
$ sciwm data list
sciwm output
```
```python
x = 1
```
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_is_left_to_fill_in(page):
    assert "@@" not in page.read_text(encoding="utf-8")


def test_blocks_and_commands_are_found():
    assert [block.language for block in blocks(SAMPLE)] == ["bash", "console", "python"]
    assert commands(SAMPLE) == [
        ["make", "demo"],
        ["make", "demo", "DEMO=--quick"],
        ["sciwm", "report", "runs/demo"],
        ["sciwm", "run", "tiny", "--train.steps=3"],
        ["sciwm", "data", "list"],
    ]
    assert all(complaint(words) is None for words in commands(SAMPLE))
    python = blocks(SAMPLE)[-1]
    assert SAMPLE.splitlines()[python.line - 1] == "x = 1"


@pytest.mark.parametrize(
    "line",
    ["make cake", "sciwm fly", "sciwm run", "sciwm run tiny --train.step=3", "sciwm demo --fast"],
)
def test_a_wrong_command_is_seen(line, capsys):
    assert complaint(shlex.split(line))


def test_help_is_a_command_too(capsys):
    assert complaint(["sciwm", "--help"]) is None
