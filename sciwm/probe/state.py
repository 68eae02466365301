"""What a latent says of its own state: the readout that simulations are read with."""

import xarray as xr

from sciwm.probe.samples import state_samples
from sciwm.readout.readout import Readouts, fit_readouts
from sciwm.sections import ProbeConfig
from sciwm.world.model import WorldModel

__all__ = ["fit_state"]


def fit_state(world: WorldModel, store: xr.Dataset, *, probe: ProbeConfig) -> Readouts:
    """Readout of a state from its own latents, whatever the lead they were predicted for.

    Readouts of a lead shrink what cannot be predicted. This one does not: latents as wide as those
    of observed states become fields as wide as those. So it tells what the latents do. A roll-out
    that fades or grows is seen to.

    Parameters
    ----------
    world : WorldModel
        Trained or untrained.
    store : Dataset
        From `sciwm.store.prepare.open_training_store`.
    probe : ProbeConfig
        Scope, strengths, and share of the training block to fit on.

    Returns
    -------
    Readouts
        Of the single lead 0, from latents alone.
    """
    return fit_readouts(
        state_samples(world, store, which="train", fraction=probe.fraction),
        state_samples(world, store, which="validation"),
        lead_steps=(0,),
        scope=probe.scope,
        strengths=probe.strengths,
        area=world.tokenizer.area,
    )["latent"]
