"""What the members of an ensemble add to its middle, read out of their latents.

It is made as large as the errors were on the validation block.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sciwm.probe.samples import readout_samples
from sciwm.readout.readout import Readouts, Sample
from sciwm.readout.ridge import Ridge
from sciwm.sections import ProbeConfig
from sciwm.world.model import WorldModel

__all__ = ["fit_spread"]

_MEMBERS = 16
_PRIOR = 30  # initial times that the factor of a channel is worth beside that of a cell


def fit_spread(
    world: WorldModel,
    store: xr.Dataset,
    *,
    probe: ProbeConfig,
    lead_steps: Sequence[int],
    residual: Readouts,
    state: Readouts,
) -> Readouts:
    r"""Readouts that turn differences of latents into differences of fields, member by member.

    .. math:: \hat y_m = \mathrm{residual}(z_0, x) + s\,W (z_m - z_0) - b, \qquad
        s^2 = (n s^2_\mathrm{cell} + 30 s^2_\mathrm{channel}) / (n + 30)

    with the latents :math:`z_m` of a member and :math:`z_0` of the future without noise. Noise
    predicts nothing, so the residual readout of a member's own latents would shrink what it adds.
    Hence ``W`` is that of ``state``, fitted on latents of states as they were.

    The other numbers come from ``n`` initial times of the validation block. With ``s``, the members
    vary there as much as the residual readout errs. It is a compromise between what a cell and what
    its whole channel ask for at a lead. ``b`` takes off the members' mean. One readout for all
    patches (scope ``shared``) has a factor per channel.

    Parameters
    ----------
    world : WorldModel
        Trained with ``model.noise_dim``.
    store : Dataset
        From `sciwm.store.prepare.open_training_store`.
    probe : ProbeConfig
        Halo and scope.
    lead_steps : sequence of int
        Leads in time steps.
    residual : Readouts
        The residual readouts of these leads.
    state : Readouts
        From `sciwm.probe.state.fit_state`.

    Returns
    -------
    Readouts
        Latent-only, of differences of latents.
    """
    # Differences of latents have no offset.
    fields, series = (
        tuple(replace(r, offset=torch.zeros_like(r.offset)) for r in part)
        for part in (state.fields, state.series)
    )
    decoder = replace(state, fields=fields, series=series)
    asked: dict[str, Any] = {"lead_steps": lead_steps, "halo": probe.halo, "members": _MEMBERS}
    samples = readout_samples(world, store, which="validation", **asked)
    of_fields, of_series = _gather(samples, decoder, residual, leads=len(lead_steps))
    tokenizer = world.tokenizer
    area, alone = tokenizer.area[:, None].double(), torch.ones(1, 1)
    fields = tuple(
        _calibrated(r, found, group=tokenizer.channel, weight=area) for r, found in of_fields
    )
    series = tuple(
        _calibrated(r, found, group=torch.arange(found.mean.shape[1]), weight=alone)
        for r, found in of_series
    )
    return Readouts(fields, series, tuple(lead_steps), probe.scope)


@dataclass
class _Found:
    """Sums over samples: members' mean departure and variance, squared error of the residual."""

    count: int
    mean: Float[Tensor, "group target"]
    variance: Float[Tensor, "group target"]
    squared_error: Float[Tensor, "group target"]

    def add(
        self,
        departure: Float[Tensor, "sample member group target"],
        error: Float[Tensor, "sample group target"],
    ) -> None:
        self.count += len(error)
        self.mean = self.mean + departure.double().mean(1).sum(0)
        self.variance = self.variance + departure.double().var(1).sum(0)
        self.squared_error = self.squared_error + error.double().square().sum(0)


def _gather(
    samples: Iterable[Sample], decoder: Readouts, residual: Readouts, *, leads: int
) -> tuple[list[tuple[Ridge, _Found]], list[tuple[Ridge, _Found]]]:
    nothing = torch.zeros(1, 1)  # takes the shape of what is added
    fields = [_Found(0, nothing, nothing, nothing) for _ in range(leads if decoder.fields else 0)]
    series = [_Found(0, nothing, nothing, nothing) for _ in range(leads if decoder.series else 0)]
    for sample in samples:
        assert sample.members is not None
        for lead in range(leads):
            middle = sample.latents[:, lead]
            away = sample.members[:, :, lead] - middle[:, None]
            flat = away.flatten(0, 1)
            if fields:
                forecast = residual.read_fields(lead, middle, sample.initial)
                departure = decoder.read_fields(0, flat, flat[..., :0]).view(*away.shape[:3], -1)
                fields[lead].add(departure, forecast - sample.later[:, lead])
            if series:
                forecast = residual.read_series(lead, middle, sample.initial_series)
                added = decoder.read_series(0, flat, flat[:, 0, :0])
                error = forecast - sample.later_series[:, lead]
                series[lead].add(added.view(*away.shape[:2], 1, -1), error[:, None])
    return [(decoder.fields[0], f) for f in fields], [(decoder.series[0], f) for f in series]


def _calibrated(ridge: Ridge, found: _Found, *, group: Tensor, weight: Tensor) -> Ridge:
    """The decoder scaled so that members depart as much as forecasts erred, and not in the mean.

    In the sum over each ``group`` of targets the two are equal exactly.
    """
    groups, count = len(ridge.weight), found.count
    error = _by_group((found.squared_error * weight).sum(0), group)
    variance = _by_group((found.variance * weight).sum(0), group)
    square = _ratio(error, variance)[group]
    if groups > 1:
        own = _ratio(found.squared_error, found.variance)
        square = (count * own + _PRIOR * square) / (count + _PRIOR)
    scale = square.expand(groups, -1).sqrt().float()
    offset = -(found.mean / count).float() * scale
    if groups == 1:
        offset = offset.mean(0, keepdim=True)
    return Ridge(ridge.weight * scale[:, None], offset, ridge.strength)


def _ratio(error: Tensor, variance: Tensor) -> Tensor:
    """Of squared error to variance; 0 where members do not depart at all."""
    return torch.where(variance > 0, error / variance.clamp_min(1e-30), 0.0)


def _by_group(values: Float[Tensor, " target"], group: Tensor) -> Float[Tensor, " group"]:
    return torch.zeros(int(group.max()) + 1, dtype=values.dtype).index_add(0, group, values)
