"""Three pictures side by side that a reader leafs through.

The controls are selects, buttons and arrow keys in HTML; the frames are data for the page's script.
Without the script, the first frame stays.
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
        Give it buttons for the previous and the next option. The last such choice follows the arrow
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
    """What is seen at one setting of all choices.

    Parameters
    ----------
    panels : sequence of Panel
    text : str
        A sentence on the pictures.
    bars : int
        Which set of colour bars belongs to them.
    """

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
        What it is, for those who cannot see it.
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
        _picture(panel, [group[k] for group in bars], shown, maps)
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


def _picture(panel: Panel, bars: Sequence[str], shown: Frame, maps: MapFrame) -> str:
    """A panel of the first frame over all its colour bars, of which one is seen."""
    image = maps.panel(panel.image, f"{panel.title}. {shown.text}")
    below = "".join(
        f'<div data-group="{i}"{"" if i == shown.bars else " hidden"}>{bar}</div>'
        for i, bar in enumerate(bars)
    )
    return f"<figure><figcaption>{escape(panel.title)}</figcaption>{image}{below}</figure>"


def _control(key: str, choice: Choice, number: int) -> str:
    name = escape(choice.name)
    if len(choice.options) < 2:
        alone = select(key, choice, number, hidden=True)
        return f'<span class="lone">{name}: {escape(choice.options[0])}</span>{alone}'
    label = f'<label for="{key}">{name}</label>'
    chosen = select(key, choice, number)
    if not choice.buttons:
        return f'<span class="control">{label}{chosen}</span>'
    back, on = (
        f'<button type="button" data-choice="{number}" data-step="{step}"'
        f' aria-label="{word} {name.lower()}">{sign}</button>'
        for step, word, sign in ((-1, "Previous", "‹"), (1, "Next", "›"))
    )
    return f'<span class="control">{label}{back}{chosen}{on}</span>'


def select(key: str, choice: Choice, number: int, *, hidden: bool = False) -> str:
    """Give the select element of a choice."""
    options = "".join(
        f'<option value="{i}"{" selected" if i == choice.start else ""}>{escape(option)}</option>'
        for i, option in enumerate(choice.options)
    )
    keys = ' class="keys"' if choice.buttons else ""
    unseen = " hidden" if hidden else ""
    return (
        f'<select id="{key}" data-choice="{number}"{keys} autocomplete="off"{unseen}>'
        f"{options}</select>"
    )


def data_block(key: str, data: object) -> str:
    """Data for the page's script, as an element that no browser runs."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{key}">{text}</script>'
