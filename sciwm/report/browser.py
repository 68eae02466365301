"""Three pictures side by side that a reader leafs through: selects, buttons and arrow keys in HTML, frames as data for the page's script.

Without the script the frame that is there from the start stays.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from sciwm.report.panels import MapFrame

__all__ = ["Choice", "Frame", "Panel", "browser", "data_block", "select"]


@dataclass(frozen=True)
class Choice:
    """Something the reader chooses.

    Parameters
    ----------
    name : str
        What the control is called.
    options : sequence of str
    start : int
        Option that is shown first.
    buttons : bool
        Give it buttons for the previous and the next option; the last such choice follows the arrow
        keys, too.
    """

    name: str
    options: Sequence[str]
    start: int = 0
    buttons: bool = False


@dataclass(frozen=True)
class Panel:
    """One picture: base64 of its PNG, and what stands above it."""

    image: str
    title: str


@dataclass(frozen=True)
class Frame:
    """What is seen at one setting of all choices: pictures, a sentence on them, and which set of colour bars belongs to them."""

    panels: Sequence[Panel]
    text: str
    bars: int


def browser(
    key: str,
    *,
    label: str,
    maps: MapFrame,
    choices: Sequence[Choice],
    frames: Mapping[tuple[int, ...], Frame],
    bars: Sequence[Sequence[str]],
) -> str:
    """HTML of a browser of maps.

    Parameters
    ----------
    key : str
        Unique in the page.
    label : str
        What it is, for who cannot see it.
    maps : MapFrame
        From `map_frame`; its definition must be in the page.
    choices : sequence of Choice
    frames : mapping of tuple of int to Frame
        By the positions of the options.
    bars : sequence of sequence of str
        Sets of colour bars, one for each picture.
    """
    start = tuple(c.start for c in choices)
    shown = frames[start]
    controls = "".join(_control(f"{key}-{i}", choice, i) for i, choice in enumerate(choices))
    pictures = "".join(
        f"<figure><figcaption>{escape(panel.title)}</figcaption>{maps.panel(panel.image, f'{panel.title}. {shown.text}')}"
        + "".join(
            f'<div data-group="{i}"{"" if i == shown.bars else " hidden"}>{group[k]}</div>'
            for i, group in enumerate(bars)
        )
        + "</figure>"
        for k, panel in enumerate(shown.panels)
    )
    images: dict[str, int] = {}
    packed = {
        ",".join(map(str, position)): [
            f.text,
            f.bars,
            *((images.setdefault(p.image, len(images)), p.title) for p in f.panels),
        ]
        for position, f in frames.items()
    }
    return (
        f'<div class="browser" id="{key}" role="group" tabindex="0" aria-label="{escape(label)}">'
        f'<div class="controls" hidden>{controls}</div><div class="trio">{pictures}</div>'
        f'<p class="said" aria-live="polite">{escape(shown.text)}</p></div>'
        + data_block(f"{key}-data", {"images": list(images), "frames": packed})
    )


def _control(key: str, choice: Choice, number: int) -> str:
    if len(choice.options) < 2:
        return (
            f'<span class="lone">{escape(choice.name)}:'
            f" {escape(choice.options[0])}</span>{select(key, choice, number, hidden=True)}"
        )
    parts = [f'<label for="{key}">{escape(choice.name)}</label>', select(key, choice, number)]
    if choice.buttons:
        what = escape(choice.name.lower())
        parts.insert(
            1,
            f'<button type="button" data-choice="{number}" data-step="-1" aria-label="Previous'
            f' {what}">‹</button>',
        )
        parts.append(
            f'<button type="button" data-choice="{number}" data-step="1" aria-label="Next'
            f' {what}">›</button>'
        )
    return f'<span class="control">{"".join(parts)}</span>'


def select(key: str, choice: Choice, number: int, *, hidden: bool = False) -> str:
    """Give the select element of a choice."""
    options = "".join(
        f'<option value="{i}"{" selected" if i == choice.start else ""}>{escape(option)}</option>'
        for i, option in enumerate(choice.options)
    )
    keys = ' class="keys"' if choice.buttons else ""
    return (
        f'<select id="{key}" data-choice="{number}"{keys}'
        f' autocomplete="off"{" hidden" if hidden else ""}>{options}</select>'
    )


def data_block(key: str, data: object) -> str:
    """Data for the page's script, as an element that no browser runs."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{key}">{text}</script>'
