"""Readouts of every lead: fitted while latents stream by, applied to forecasts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from sciwm.readout.features import field_features, series_features
from sciwm.readout.ridge import Moments, Ridge, choose_strength, fit_pooled, fit_ridge

__all__ = ["KINDS", "Readouts", "Sample", "fit_readouts"]

# What each kind reads: predicted latents, states of the context, or both.
KINDS = {"residual": "both", "latent": "latents", "local_linear": "states"}

Reads = Literal["both", "latents", "states"]


class Sample(NamedTuple):
    """Initial times: their predicted latents, and what was observed later, standardized.

    Fields or series may be 0 wide.

    Parameters
    ----------
    latents : Tensor, ``[sample, lead, token, dim]``
        Predicted latents.
    initial : Tensor, ``[sample, token, recent cell]``
        States of the whole context, newest first, from `recent_cells`.
    later : Tensor, ``[sample, lead, token, cell]``
        States at the leads.
    initial_series : Tensor, ``[sample, feature]``
        Of the scalar series, from `recent_series`.
    later_series : Tensor, ``[sample, lead, target]``
        Anomalies of the scalar series at the leads.
    members : Tensor, ``[sample, member, lead, token, dim]``, optional
        Predicted latents of an ensemble.
    """

    latents: Tensor
    initial: Tensor
    later: Tensor
    initial_series: Tensor
    later_series: Tensor
    members: Tensor | None = None


@dataclass(frozen=True)
class Readouts:
    """Ridges of one kind, of every lead.

    Kinds are ``residual``, ``latent`` and ``local_linear``, and the head of a twin (``decoder``).
    Others are the ``spread`` of an ensemble, and the ``state`` of simulations. The last has the
    single lead 0.

    Parameters
    ----------
    fields, series : tuple of Ridge
        One per lead; empty where there is nothing to read out.
    lead_steps : tuple of int
        Leads in time steps.
    scope : {"token", "shared"}
        Scope of the field readouts.
    halo : int
        Cells around a patch that the residual readout sees beside it.
    targets : tuple of str
        The scalar series read out, as in ``probe.targets``.
    reads : {"both", "latents", "states"}
        Predicted latents, states of the context, or both.
    """

    fields: tuple[Ridge, ...]
    series: tuple[Ridge, ...]
    lead_steps: tuple[int, ...]
    scope: Literal["token", "shared"]
    halo: int = 0
    targets: tuple[str, ...] = ()
    reads: Reads = "latents"

    def read_fields(
        self,
        lead: int,
        latents: Float[Tensor, "sample token dim"],
        initial: Float[Tensor, "sample token recent"],
    ) -> Float[Tensor, "sample token cell"]:
        """Standardized anomalies of every patch at one lead.

        Parameters
        ----------
        lead : int
            Position of the lead among ``lead_steps``.
        latents : Tensor
            Predicted latents of that lead.
        initial : Tensor
            From `recent_cells`; may be 0 wide for a readout that does without.
        """
        features = field_features(*self._read(latents, initial), scope=self.scope)
        return self.fields[lead](features).reshape(latents.shape[0], latents.shape[1], -1)

    def read_series(
        self,
        lead: int,
        latents: Float[Tensor, "sample token dim"],
        initial: Float[Tensor, "sample recent"],
    ) -> Float[Tensor, "sample target"]:
        """Anomalies of the scalar series at one lead, in their units.

        Parameters
        ----------
        lead : int
            Position of the lead among ``lead_steps``.
        latents : Tensor
            Predicted latents of that lead.
        initial : Tensor
            From `recent_series`; may be 0 wide for a readout that does without.
        """
        return self.series[lead](series_features(*self._read(latents, initial)))[:, 0]

    def _read(self, latents: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """What this kind reads of both; the rest is 0 wide."""
        return (
            latents[..., :0] if self.reads == "states" else latents,
            initial[..., :0] if self.reads == "latents" else initial,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Weights by name, for a safetensors file."""
        named = {}
        for part, ridges in (("fields", self.fields), ("series", self.series)):
            for lead, ridge in zip(self.lead_steps, ridges, strict=False):
                named[f"{part}.{lead}.weight"] = ridge.weight.contiguous()
                named[f"{part}.{lead}.offset"] = ridge.offset.contiguous()
                named[f"{part}.{lead}.strength"] = torch.tensor(ridge.strength, dtype=torch.float64)
        return named

    @classmethod
    def from_tensors(
        cls,
        named: Mapping[str, Tensor],
        *,
        lead_steps: Sequence[int],
        scope: Literal["token", "shared"],
        halo: int,
        targets: Sequence[str],
        reads: Reads,
    ) -> "Readouts":
        """Inverse of `tensors`."""

        def ridges(part: str) -> tuple[Ridge, ...]:
            if f"{part}.{lead_steps[0]}.weight" not in named:
                return ()
            keys = [f"{part}.{lead}." for lead in lead_steps]
            return tuple(
                Ridge(named[k + "weight"], named[k + "offset"], float(named[k + "strength"]))
                for k in keys
            )

        fields, series = ridges("fields"), ridges("series")
        return cls(fields, series, tuple(lead_steps), scope, halo, tuple(targets), reads)


def fit_readouts(
    train: Iterable[Sample],
    validation: Iterable[Sample],
    *,
    lead_steps: Sequence[int],
    scope: Literal["token", "shared"] = "token",
    strengths: Sequence[float],
    area: Float[Tensor, " token"],
) -> dict[str, Readouts]:
    """Fit residual, latent-only and state-only readouts of every lead in one pass over each block.

    Parameters
    ----------
    train, validation : iterable of Sample
        Batches of any size; only their moments are kept.
    lead_steps : sequence of int
        Leads in time steps.
    scope : {"token", "shared"}
        See `sciwm.readout.features.field_features`.
    strengths : sequence of float
        Ridge strengths; every lead takes the one with the smallest error on the validation block.
    area : Tensor
        Area of each token, which weighs its error in that choice.

    Returns
    -------
    dict
        ``residual``, ``latent`` and ``local_linear`` `Readouts`. One that would have nothing to
        read is left out.

    Raises
    ------
    ValueError
        If a block holds no samples.
    """
    learnt, widths = _gather(train, scope, "training")
    held, _ = _gather(validation, scope, "validation")
    readouts: dict[str, Readouts] = {}
    for kind, reads in KINDS.items():
        ridges: dict[str, tuple[Ridge, ...]] = {}
        for part, moments in learnt.items():
            latents, chosen = widths[part], []
            parts = {"latents": slice(0, latents), "states": slice(latents, None)}
            used = parts.get(reads, slice(None))
            if not moments[0].x[:, used].shape[1]:
                continue
            # The latents of all tokens are a hundred times as many as the values of an index; those
            # of one are as many as its cells.
            first = latents if part == "series" and kind == "residual" else None
            for fitting, choosing in zip(moments, held[part], strict=True):
                one, other = fitting.select(used), choosing.select(used)
                if part == "fields" and scope == "token":
                    weight = area.double()[:, None].expand(-1, one.y.shape[1])
                    chosen.append(fit_pooled(one, other, strengths, weight=weight))
                else:
                    chosen.append(choose_strength(fit_ridge(one, strengths, first=first), other))
            ridges[part] = tuple(chosen)
        if ridges:
            fields, series = (ridges.get(part, ()) for part in ("fields", "series"))
            common = tuple(lead_steps), scope
            readouts[kind] = Readouts(fields, series, *common, reads=cast(Reads, reads))
    return readouts


def _gather(
    samples: Iterable[Sample], scope: Literal["token", "shared"], name: str
) -> tuple[dict[str, list[Moments]], dict[str, int]]:
    """Moments of fields and of series at every lead, and how many of their features are latents."""
    moments: dict[str, list[Moments]] = {}
    widths: dict[str, int] = {}
    for sample in samples:
        widths = {
            "fields": sample.latents.shape[3],
            "series": sample.latents.shape[2] * sample.latents.shape[3],
        }
        for lead in range(sample.latents.shape[1]):
            latents = sample.latents[:, lead]
            if sample.later.shape[-1]:
                later = sample.later[:, lead]
                x = field_features(latents, sample.initial, scope=scope)
                y = later if scope == "token" else later.flatten(0, 1)[:, None]
                _add(moments, "fields", lead, x, y)
            if sample.later_series.shape[-1]:
                x = series_features(latents, sample.initial_series)
                _add(moments, "series", lead, x, sample.later_series[:, lead][:, None])
    if not moments:
        raise ValueError(
            f"got no {name} windows to fit readouts on, expected some: the {name} block must be"
            " longer than the history, the gap and the longest lead together"
        )
    return moments, widths


def _add(moments: dict[str, list[Moments]], part: str, lead: int, x: Tensor, y: Tensor) -> None:
    leads = moments.setdefault(part, [])
    if len(leads) == lead:
        leads.append(Moments.zeros(groups=x.shape[1], features=x.shape[2], targets=y.shape[2]))
    leads[lead].add(x, y)
