"""Plain English: sentences of docstrings and of the documentation have at most twenty words."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST = 20
# The log is a record of what was written when; the other two are lists of terms and of changes.
EXEMPT = {"docs/log.md", "CHANGELOG.md"}
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "datasets")
    for path in (ROOT / folder).glob("*.md")
)
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("sciwm", "datasets")
    for path in (ROOT / folder).rglob("*.py")
)
_ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et al|vs|cf|Fig|Eq|approx|no|[A-Z])\.")


def paragraphs(text):
    """Running text of Markdown or of a numpy docstring: no code, tables, headings or formulas."""
    text = re.sub(r"^( *)```.*?^\1```", "\n", text, flags=re.S | re.M)
    text = re.sub(r"<!--.*?-->", "\n", text, flags=re.S)
    part, code = [], False
    for line in [*text.split("\n"), ""]:
        bare = line.strip()
        code = bare.startswith((">>>", "...", ".. math")) or (code and bool(bare))
        listed = re.match(r"([-*+]|\d+\.)\s", bare)
        other = not bare or bare.startswith(("|", "#", ">", "!")) or set(bare) <= set("-=~")
        other = other or re.fullmatch(r"[\w*, ]+ : .+", bare)  # a parameter and its type
        indented = line.startswith("    ") and not part
        if (other or code or listed or indented) and part:
            yield " ".join(part)
            part = []
        if not (other or code or indented):
            part.append(bare[listed.end() :] if listed else bare)


def sentences(text):
    """Pieces that end with a full stop, a question or an exclamation mark."""
    for paragraph in paragraphs(text):
        plain = re.sub(r"`+[^`]*`+", "code", paragraph)
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
        plain = _ABBREVIATIONS.sub(r"\1", plain)
        yield from re.split(r"(?<=[.!?])[)”\"*]*\s+", plain)


def words(sentence):
    return [w for w in sentence.split() if re.search(r"\w", w)]


def too_long(text):
    return [f"{len(words(s))} words: {s}" for s in sentences(text) if len(words(s)) > MOST]


def docstrings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            # Descriptions of parameters are indented below their names: running text, too.
            yield re.sub(r"^ {4,}(?=\S)(?!>>>|\.\.\.)", "", text, flags=re.M)


@pytest.mark.parametrize("page", [p for p in PAGES if p not in EXEMPT])
def test_sentences_of_the_documentation_are_short(page):
    found = too_long((ROOT / page).read_text(encoding="utf-8"))
    assert not found, f"{len(found)} in {page}\n" + "\n".join(found)


@pytest.mark.parametrize("module", MODULES)
def test_sentences_of_docstrings_are_short(module):
    found = [s for text in docstrings(ROOT / module) for s in too_long(text)]
    assert not found, f"{len(found)} in {module}\n" + "\n".join(found)


def test_a_long_sentence_is_seen():
    long = " ".join(["word"] * 21) + "."
    assert too_long(long) == [f"21 words: {long}"]
    assert too_long(f"Short. {long} Short.") == [f"21 words: {long}"]
    assert too_long(f"| {long} |\n\n    {long}\n\n```python\n{long}\n```\n\n# {long}") == []
    assert too_long("`" + "code " * 30 + "` is one word.") == []
    assert too_long("- " + "word " * 15 + "\n- " + "word " * 15) == []
