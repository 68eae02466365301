"""Samples to fit readouts on: predicted latents, and what was observed later."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from rich.progress import track

from sciwm.readout.features import recent_cells, recent_series
from sciwm.readout.readout import Sample
from sciwm.readout.targets import stored_series
from sciwm.store.split import LABELS
from sciwm.world.model import WorldModel
from sciwm.world.rollout import back_of, initial_positions, predicted_latents, recent

__all__ = ["WHOLE", "Part", "readout_samples", "state_samples", "stretch"]

_BATCH = 128  # initial times at once; an eighth of it beside members


class Part(NamedTuple):
    """Some of the initial times of a block.

    Parameters
    ----------
    fraction : float
        Share of them: a `stretch`, placed by the seed of the model.
    every : int
        Of the stretch, every how many-th; at least two are left.
    """

    fraction: float = 1.0
    every: int = 1


WHOLE = Part()


def readout_samples(
    world: WorldModel,
    store: xr.Dataset,
    *,
    which: str,
    lead_steps: Sequence[int],
    halo: int = 0,
    part: Part = WHOLE,
    members: int = 0,
    progress: str = "",
) -> Iterator[Sample]:
    """Go through one block of a training store.

    Parameters
    ----------
    world : WorldModel
        Trained or untrained.
    store : Dataset
        From `sciwm.store.prepare.open_training_store`. Where its states have gaps or noise, a
        variable ``whole`` like it can hold those to be read out.
    which : {"train", "validation", "test"}
        Block; context and all leads lie inside it.
    lead_steps : sequence of int
        Leads in time steps.
    halo : int
        Cells around each patch that a residual readout also sees.
    part : Part
        Initial times to go through; all by default.
    members : int
        Members of an ensemble to predict beside.
    progress : str
        Text beside a progress bar; none if empty.

    Yields
    ------
    Sample
        A batch of initial times, in their order.
    """
    label, segment = store["split"].values, store["segment"].values
    longest = max(lead_steps)
    index = initial_positions(
        segment,
        back=back_of(world),
        label=label,
        which=LABELS[which],
        longest=longest,
    )
    index = stretch(index, part.fraction, seed=world.seed)
    index = index[:: min(part.every, max(1, len(index) - 1))]
    state, batch_size = store["state"], _BATCH // 8 if members else _BATCH
    series = _anomalies(world, store)
    condition = torch.from_numpy(store["condition"].values)
    batches = predicted_latents(
        world, state, index, lead_steps, batch_size=batch_size, members=members
    )
    if progress:
        count = -(-len(index) // batch_size)
        batches = iter(track(batches, description=progress, total=count, transient=True))
    leads, wanted = np.array(lead_steps), store.get("whole", state)
    for initial in batches:
        count = len(initial.index)
        begin, later_series = torch.zeros(count, 0), torch.zeros(count, len(leads), 0)
        if series is not None:
            begin = recent_series(series[recent(initial.index, world)], condition[initial.index])
            later_series = series[initial.index[:, None] + leads]
        first = int(initial.index.min())
        last = int(initial.index.max()) + longest + 1
        later = _outputs(world, wanted, first, last, initial.index[:, None] - first + leads)
        cells = recent_cells(world.tokenizer, initial.states, halo)
        yield Sample(initial.latents, cells, later, begin, later_series, initial.members)


def state_samples(
    world: WorldModel, store: xr.Dataset, *, which: str, fraction: float = 1.0
) -> Iterator[Sample]:
    """Go through one block of a training store, state by state.

    Samples hold the latents of every state as it was, and the state itself, at the single lead 0.

    Parameters
    ----------
    world, store, which, fraction
        As `readout_samples` takes them.

    Yields
    ------
    Sample
        A batch of states, in their order.
    """
    index = np.flatnonzero(store["split"].values == LABELS[which])
    index = stretch(index, fraction, seed=world.seed)
    series = _anomalies(world, store)
    world.network.eval()
    for start in range(0, len(index), _BATCH):
        part = index[start : start + _BATCH]
        block = store["state"].isel(time=part).values
        values = torch.from_numpy(np.ascontiguousarray(block, dtype=np.float32))
        valid = torch.isfinite(values)
        values = torch.where(valid, values, 0.0)
        features = world.tokenizer.tokenize(values, None if bool(valid.all()) else valid)[0]
        with torch.no_grad():
            latents = world.network.encode(features[:, None])
        nothing = torch.zeros(len(part), world.tokenizer.num_tokens, 0)
        cells = world.tokenizer.outputs(values)
        now = torch.zeros(len(part), 0) if series is None else series[part]
        yield Sample(latents, nothing, cells[:, None], now, now[:, None])


def _outputs(
    world: WorldModel, state: xr.DataArray, first: int, last: int, index: np.ndarray
) -> torch.Tensor:
    """What readouts of fields are to give at positions after ``first``, ``[init, lead, ...]``."""
    if not world.tokenizer.num_outputs:
        return torch.zeros(*index.shape, world.tokenizer.num_tokens, 0)
    block = torch.from_numpy(state.isel(time=slice(first, last)).values)
    return world.tokenizer.outputs(torch.nan_to_num(block))[torch.from_numpy(index)]


def stretch(index: np.ndarray, fraction: float, *, seed: int) -> np.ndarray:
    """An unbroken part of some positions, at a random place.

    In practice few labels are one season that was observed. Every hundredth day would know the
    climate of all years.

    Parameters
    ----------
    index : ndarray of int
        Positions.
    fraction : float
        Share of them, in (0, 1]; at least two are returned, as a fit needs them.
    seed : int
        Of the place.

    Examples
    --------
    >>> part = stretch(np.arange(100), 0.1, seed=0)
    >>> len(part), bool((np.diff(part) == 1).all())
    (10, True)
    """
    count = min(len(index), max(2, round(fraction * len(index))))
    start = int(np.random.default_rng(seed).integers(len(index) - count + 1))
    return index[start : start + count]


def _anomalies(world: WorldModel, store: xr.Dataset) -> torch.Tensor | None:
    observed = stored_series(store)
    if observed is None or world.series_climatology is None:
        return None
    return torch.from_numpy(world.series_columns(observed))
