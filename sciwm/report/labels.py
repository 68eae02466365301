"""Names, units, colours and lead times as the report shows them. Draws nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from sciwm.skill.baselines.by_name import BASELINE_RECORDS

__all__ = ["INK", "Leads", "Look", "join_words", "lead_axis", "looks"]

INK = "#010203"  # stands for the page's text colour; replaced by currentColor in the SVG


@dataclass(frozen=True)
class Look:
    """How one method is drawn and named, the same in every figure."""

    label: str
    color: str
    dash: str | tuple[float, ...]
    marker: str
    width: float = 1.6


# Colour, dash, marker and width of the methods that have looks of their own.
_STYLES: dict[str, tuple[str, str | tuple[float, ...], str, float]] = {
    "jepa": ("#D55E00", "solid", "o", 2.6),
    "jepa_latent": ("#E69F00", (6.0, 2.0), "s", 2.0),
    "supervised": (INK, (3.0, 1.2), "X", 1.6),
    "convnet": ("#332288", "solid", "s", 2.0),
    "convnet_decoder": ("#332288", (1.5, 1.5), "s", 1.6),
    "whitened": ("#117733", (5.0, 1.5), "D", 1.6),
    "local_linear": ("#8C510A", "solid", "v", 1.6),
    "random_encoder": ("#CC79A7", (1.5, 1.5), "D", 1.6),
    "climatology": ("#808080", "solid", "", 2.0),
    "persistence": ("#56B4E9", (6.0, 1.8, 1.5, 1.8), "^", 1.6),
    "damped_persistence": ("#0072B2", (4.0, 2.0), "v", 1.6),
    "lim": ("#009E73", "solid", "P", 1.6),
    "cslim": ("#009E73", (3.0, 1.5), "h", 1.6),
    "two_states": ("#009E73", (6.0, 2.0), "X", 1.6),
    "analogs": ("#8C510A", (2.0, 1.0), "<", 1.6),
}
_LABELS = {name: record.label for name, record in BASELINE_RECORDS.items()} | {
    "jepa": "JEPA (residual readout)",
    "jepa_latent": "JEPA (latent readout)",
    "jepa_ensemble": "JEPA (ensemble)",
    "supervised": "Supervised twin",
    "convnet": "Convolutional network (residual readout)",
    "convnet_decoder": "Convolutional network (own output)",
    "whitened": "Whitened patches, trained dynamics",
    "local_linear": "Linear in the patch, no network",
}
_SPARE = (("#8C7A00", "*"), ("#7B3294", "h"), ("#4D4D4D", ">"), ("#01665E", "p"))


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Label, colour, dash and marker of each method: fixed for known ones, spare ones for others.

    Examples
    --------
    >>> looks(["lim", "my_model"])["my_model"].label
    'My model'
    """
    names = [str(m) for m in methods]
    spare = [m for m in names if m not in _STYLES]
    out = {}
    for m in names:
        text = m.replace("_", " ").strip()
        label = _LABELS.get(m, text[:1].upper() + text[1:])
        if m in _STYLES:
            out[m] = Look(label, *_STYLES[m])
        else:
            color, marker = _SPARE[spare.index(m) % len(_SPARE)]
            out[m] = Look(label, color, (7.0, 1.5, 1.5, 1.5), marker)
    return out


@dataclass(frozen=True)
class Leads:
    """Lead times as plain numbers in the unit people would say them in."""

    values: tuple[float, ...]
    unit: str

    def text(self, positions: Sequence[int]) -> str:
        """Leads at ascending ``positions`` in words: ``"1–3 and 5 days"``."""
        runs: list[list[int]] = []
        for i in positions:
            if runs and i == runs[-1][-1] + 1:
                runs[-1].append(i)
            else:
                runs.append([i])
        numbers = []
        for run in runs:
            words = [f"{self.values[i]:g}" for i in run]
            numbers += [f"{words[0]}–{words[-1]}"] if len(run) > 2 else words
        unit = self.unit[:-1] if numbers == ["1"] and self.unit != "ps" else self.unit
        return f"{join_words(numbers)} {unit}"


def join_words(words: Sequence[str]) -> str:
    """Words with commas and a final "and"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def lead_axis(lead_time: xr.DataArray) -> Leads:
    """Read unit and values of a lead-time coordinate: hours, days, months or ps.

    Parameters
    ----------
    lead_time : DataArray
        1-D: ``timedelta64``, or numbers with ``units`` "months" or "ps".

    Examples
    --------
    >>> lead_axis(xr.DataArray(np.array([24, 48], "timedelta64[h]"), dims="lead_time"))
    Leads(values=(1.0, 2.0), unit='days')
    """
    values = np.atleast_1d(lead_time.values)
    if np.issubdtype(values.dtype, np.timedelta64):
        hours = values / np.timedelta64(3_600_000_000_000, "ns")
        if bool(np.all(hours % 24 == 0)) or float(hours.max()) > 120:
            return Leads(tuple(float(h) / 24 for h in hours), "days")
        return Leads(tuple(float(h) for h in hours), "hours")
    units = str(lead_time.attrs.get("units", ""))
    if units not in ("months", "ps"):
        raise ValueError(
            f"got lead_time of type {values.dtype} with units {units!r}, expected timedelta64, or"
            " numbers in months or ps"
        )
    return Leads(tuple(float(v) for v in values), units)
