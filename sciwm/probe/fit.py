"""Readouts of a world model, fitted on the blocks of its training store."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import xarray as xr
from torch import nn

from sciwm.probe.samples import Part, readout_samples
from sciwm.probe.spread import fit_spread
from sciwm.probe.state import fit_state
from sciwm.readout.readout import Readouts, fit_readouts
from sciwm.readout.ridge import Ridge
from sciwm.sections import ProbeConfig
from sciwm.world.model import WorldModel

__all__ = ["fit_probes", "head_readouts"]


def fit_probes(
    world: WorldModel,
    store: xr.Dataset,
    *,
    probe: ProbeConfig,
    lead_steps: Sequence[int],
    progress: str = "",
) -> WorldModel:
    """The same world model with readouts of some leads, and of states as they are (``state``).

    A twin that forecasts pixels also keeps its own head, as ``decoder``. A model with noise also
    has the ``spread`` of its members.

    Parameters
    ----------
    world : WorldModel
        Trained or untrained.
    store : Dataset
        From `sciwm.store.prepare.open_training_store`.
    probe : ProbeConfig
        Scope, strengths, and share of the training block to fit on. Strengths are chosen on the
        whole validation block.
    lead_steps : sequence of int
        Leads in time steps.
    progress : str
        Text beside a progress bar; none if empty.

    Raises
    ------
    ValueError
        If the training or the validation block is too short for the leads.
    """
    asked: dict[str, Any] = {"lead_steps": lead_steps, "halo": probe.halo}
    part = Part(probe.fraction, probe.init_every)
    readouts = fit_readouts(
        readout_samples(world, store, which="train", part=part, progress=progress, **asked),
        readout_samples(world, store, which="validation", **asked),
        lead_steps=lead_steps,
        scope=probe.scope,
        strengths=probe.strengths,
        area=world.tokenizer.area,
    )
    head = world.network.objective.head
    if head is not None and world.tokenizer.num_outputs:
        groups = world.tokenizer.num_tokens if probe.scope == "token" else 1
        fields = head_readouts(head, groups=groups, leads=len(lead_steps))
        readouts["decoder"] = Readouts(fields, (), tuple(lead_steps), probe.scope)
    readouts["state"] = fit_state(world, store, probe=probe)
    if world.noise_dim:
        readouts["spread"] = fit_spread(
            world,
            store,
            probe=probe,
            lead_steps=lead_steps,
            residual=readouts["residual"],
            state=readouts["state"],
        )
    given: dict[str, Any] = {"halo": probe.halo, "targets": tuple(probe.targets)}
    named = {kind: dataclasses.replace(each, **given) for kind, each in readouts.items()}
    return dataclasses.replace(world, readouts=named)


def head_readouts(head: nn.Linear, *, groups: int, leads: int) -> tuple[Ridge, ...]:
    """A linear head that was trained with its network, in the form of readouts.

    All tokens and leads have the same.

    Parameters
    ----------
    head : Linear
        From the latent of a token to its cells.
    groups : int
        Tokens that have a readout each, or 1 for one of all.
    leads : int
        Readouts to return.
    """
    weight, offset = head.weight.detach().T, head.bias.detach()
    # Copies: files of weights take no two tensors of the same memory.
    return tuple(
        Ridge(weight.repeat(groups, 1, 1), offset.repeat(groups, 1), 0.0) for _ in range(leads)
    )
