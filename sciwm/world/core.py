"""The parts of a world model that know labelled data: states become tokens, and what is known."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from sciwm.climatology import Climatology
from sciwm.model import objectives
from sciwm.model.jepa import JEPA
from sciwm.model.settings import Inputs, ObjectiveSettings, Sizes
from sciwm.model.whitening import Whitening
from sciwm.readout.readout import Readouts
from sciwm.readout.targets import as_components, target_series
from sciwm.store.statistics import Statistics
from sciwm.times import Step, infer_step
from sciwm.tokens.positions import solar_elevation
from sciwm.tokens.record import Known, Tokens
from sciwm.tokens.tokenizer import Tokenizer

__all__ = ["Core", "build_network", "widths_of"]

_HOURLY = 6  # columns of a calendar that knows the hour


@dataclasses.dataclass(frozen=True)
class Core:
    """What a world model consists of; `sciwm.WorldModel` is this and what can be done with it.

    Parameters
    ----------
    step : Step
        Time step of the data.
    network : JEPA
        Encoder, dynamics and objective.
    tokenizer : Tokenizer
        States to tokens.
    statistics : Statistics or None
        Climatology and scale of a grid; None for molecules.
    series_climatology : Climatology or None
        Of the scalar series read out.
    static : Tensor, ``[token, static]``
        Static fields, averaged over each token.
    strides : tuple of int
        Trained strides, in time steps.
    condition_dim : int
        Columns of the calendar.
    context_step : int
        Time steps between the states of a context.
    seed : int
        Of the first weights, of few-label stretches, and of the noise of ensembles.
    missing : {"error", "mask"}
        What becomes of NaNs in the states: refused, or masked.
    readouts : dict
        Ridges by name: ``residual``, ``latent`` and ``local_linear``, and the ``state`` of
        simulations. A twin that forecasts pixels also has its ``decoder``, a model with noise the
        ``spread``. Empty before probing.
    about : dict
        Where it comes from: split dates, versions, fingerprint of the data, configuration.
    """

    step: Step
    network: JEPA
    tokenizer: Tokenizer
    statistics: Statistics | None
    series_climatology: Climatology | None
    static: Tensor
    strides: tuple[int, ...]
    condition_dim: int = 0
    context_step: int = 1
    seed: int = 0
    missing: str = "error"
    readouts: Mapping[str, Readouts] = dataclasses.field(default_factory=dict)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def noise_dim(self) -> int:
        """Random numbers of which the network makes one of many futures; 0 predicts one."""
        return self.network.noise_dim

    @property
    def method(self) -> str:
        """What its forecasts are called: ``jepa``, or the name of the twin."""
        return objectives.OBJECTIVES[self.network.objective.settings.kind].method

    @property
    def kinds(self) -> list[str]:
        """Names of the readouts that each make a forecast: not ``spread``, nor ``state``."""
        return [name for name in self.readouts if name not in ("spread", "state")]

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Tokens, and width of their predicted latents."""
        return self.tokenizer.num_tokens, self.network.rollout_dim

    def tokens(
        self,
        values: Float[Tensor, "batch time *state"],
        valid: Bool[Tensor, "batch time *state"] | None,
        known: Known,
    ) -> Tokens:
        """Windows of standardized states as tokens.

        Parameters
        ----------
        values : Tensor
            States; 0 where missing.
        valid : Tensor or None
            Values that were observed; None when all were, which is faster.
        known : Known
            Of the times of the windows.
        """
        features, cells, some, seen = self.tokenizer.tokenize(values, valid)
        return Tokens(features, cells, known, some, seen)

    def known(
        self,
        condition: Float[Tensor, "batch time condition"],
        lead: Float[Tensor, "batch time"],
    ) -> Known:
        """What is known of some times: the calendar, and of every token its constants and sun.

        Parameters
        ----------
        condition : Tensor
            From `sciwm.store.forcing.conditions`.
        lead : Tensor
            Time steps since the state before.
        """
        times, tokens = {}, {}
        shape, count = condition.shape[:-1], self.tokenizer.num_tokens
        if condition.shape[-1]:
            times["calendar"] = condition
        if self.static.shape[-1]:
            tokens["static"] = self.static.to(condition.device).expand(*shape, count, -1)
        if condition.shape[-1] == _HOURLY:
            year = torch.atan2(condition[..., 0], condition[..., 1]) / (2 * torch.pi)
            day = torch.atan2(condition[..., 4], condition[..., 5]) / (2 * torch.pi)
            position = self.tokenizer.position.to(condition.device)
            tokens["sun"] = solar_elevation(year, day, position)[..., None]
        return Known(lead=lead, times=times, tokens=tokens)

    def states(self, ds: xr.Dataset) -> xr.DataArray:
        """Standardized states of a canonical Dataset, lazily.

        Parameters
        ----------
        ds : Dataset
            From `sciwm.open_dataset`.

        Returns
        -------
        DataArray
            ``(time, channel, latitude, longitude)``, unitless; of a molecule the positions
            ``(time, atom, xyz)`` in nm.

        Raises
        ------
        ValueError
            If variables, grid, atoms or time step are not those of the training data. The message
            names what differs.
        """
        step = infer_step(ds["time"])
        if step != self.step:
            raise ValueError(
                f"got data in steps of {step}, expected {self.step}, the step of the training data"
            )
        if self.statistics is not None:
            return self.statistics.standardize(ds)
        if "positions" not in ds:
            raise ValueError(
                f"got variables {list(ds.data_vars)}, expected 'positions', because the model was"
                " trained on a molecule"
            )
        if ds.sizes["atom"] != self.tokenizer.num_tokens:
            raise ValueError(
                f"got {ds.sizes['atom']} atoms, expected the {self.tokenizer.num_tokens} of the"
                " training data"
            )
        return ds["positions"].transpose("time", "atom", "xyz")

    def series(self, ds: xr.Dataset, targets: Sequence[str]) -> Float[Tensor, "time column"] | None:
        """Anomalies of the scalar series read out, in their units; None when there are none.

        Parameters
        ----------
        ds : Dataset
            Canonical.
        targets : sequence of str
            See `sciwm.readout.targets.target_series`.
        """
        if self.series_climatology is None or not targets:
            return None
        return torch.from_numpy(self.series_columns(as_components(target_series(ds, targets))))

    def series_columns(self, observed: xr.Dataset) -> np.ndarray:
        """Departures of series from their climatology as columns, ``[time, column]``, float32."""
        assert self.series_climatology is not None
        mean = self.series_climatology.at(observed["time"])
        columns = [
            (observed[name] - mean[name]).transpose("time", ...).values for name in mean.data_vars
        ]
        return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1).astype(np.float32)


def widths_of(static: Tensor, *, condition_dim: int) -> tuple[dict[str, int], dict[str, int]]:
    """Widths of what `Core.known` gives of a time and of a token, by name."""
    times = {"calendar": condition_dim} if condition_dim else {}
    tokens = {"static": static.shape[-1]} if static.shape[-1] else {}
    return times, tokens | ({"sun": 1} if condition_dim == _HOURLY else {})


def build_network(
    tokenizer: Tokenizer,
    sizes: Sizes,
    objective: ObjectiveSettings,
    *,
    known: tuple[dict[str, int], dict[str, int]],
    whitening: Whitening | None = None,
    change: float = 1.0,
    seed: int = 0,
) -> JEPA:
    """Build an untrained network that fits the tokens.

    Encoder and dynamics depend on sizes and seed alone, not on the objective.

    Parameters
    ----------
    tokenizer : Tokenizer
        Gives the number, place and width of the tokens.
    sizes : Sizes
        Of encoder and dynamics.
    objective : ObjectiveSettings
        A JEPA's, or that of a twin.
    known : tuple of dict
        From `widths_of`.
    whitening : Whitening, optional
        What the encoder begins as; zeros, to be filled from a file, without.
    change : float
        See `sciwm.model.settings.Inputs`.
    seed : int
        Of the first weights; the global random numbers are left as they were.
    """
    if whitening is None:
        groups = 1 if tokenizer.alike else tokenizer.num_tokens
        whitening = Whitening.blank(groups=groups, features=tokenizer.num_features)
    inputs = Inputs(tokenizer.place, whitening, tokenizer.num_cells, *known, change)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return objectives.build_network(inputs, sizes, objective)
