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
from sciwm.model.settings import Inputs, Objective, Sizes
from sciwm.model.twins import Network
from sciwm.readout.readout import Readouts
from sciwm.readout.targets import as_components, target_series
from sciwm.store.statistics import Statistics
from sciwm.times import Step, infer_step
from sciwm.tokens.grid import GridTokenizer
from sciwm.tokens.molecule import MoleculeTokenizer
from sciwm.tokens.positions import fourier_features, solar_elevation

__all__ = ["Core", "build_network"]


@dataclasses.dataclass(frozen=True)
class Core:
    """What a world model consists of; `sciwm.WorldModel` is this and what can be done with it.

    Parameters
    ----------
    step : Step
        Time step of the data.
    network : JEPA or Twin
        Encoder and predictor.
    tokenizer : GridTokenizer or MoleculeTokenizer
        States to tokens.
    statistics : Statistics or None
        Climatology and scale of a grid; None for molecules.
    series_climatology : Climatology or None
        Of the scalar series read out.
    static : Tensor, ``[token, static]``
        Static fields, averaged over each token.
    strides : tuple of int
        Trained strides, in time steps.
    seed : int
        Of the first weights, of few-label stretches, and of the noise of ensembles.
    missing : {"error", "mask"}
        What becomes of NaNs in the states: refused, or masked.
    readouts : dict
        Ridges by name: ``residual`` and ``latent``. A twin that forecasts pixels also has its
        ``decoder``, a model with noise the ``spread``. Empty before probing.
    about : dict
        Where it comes from: split dates, versions, fingerprint of the data, configuration.
    """

    step: Step
    network: Network
    tokenizer: GridTokenizer | MoleculeTokenizer
    statistics: Statistics | None
    series_climatology: Climatology | None
    static: Tensor
    strides: tuple[int, ...]
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
        return objectives.OBJECTIVES[self.network.objective.kind].method

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Tokens, and width of their predicted latents."""
        return self.tokenizer.num_tokens, self.network.rollout_dim

    def tokenize(
        self, values: Float[Tensor, "batch time *state"], valid: Bool[Tensor, "batch time *state"]
    ) -> tuple[Float[Tensor, "batch time token feature"], Bool[Tensor, "batch time token"] | None]:
        """Token features of standardized states, and which tokens hold data; None when all do."""
        features, valid_tokens = self.tokenizer(values, valid)
        return features, None if bool(valid_tokens.all()) else valid_tokens

    def cells(
        self, values: Float[Tensor, "batch time *state"], valid: Bool[Tensor, "batch time *state"]
    ) -> tuple[Float[Tensor, "batch time token cell"], Bool[Tensor, "batch time token cell"]]:
        """Values of every token's cells, and which of them were observed (padding never is)."""
        cells = self.tokenizer.patches(values)
        if isinstance(self.tokenizer, MoleculeTokenizer):
            return cells, torch.ones_like(cells, dtype=torch.bool)
        return cells, self.tokenizer.patches(valid.to(values.dtype)) > 0

    def local_conditions(
        self, condition: Float[Tensor, "... condition"]
    ) -> Float[Tensor, "... token local"] | None:
        """What is known of every token at the times of ``condition``; None when nothing is.

        That is static fields and, for steps below a day, the sine of the sun's elevation.
        """
        parts = []
        lead, tokens = condition.shape[:-1], self.tokenizer.num_tokens
        if self.static.shape[-1]:
            parts.append(self.static.to(condition.device).expand(*lead, tokens, -1))
        if condition.shape[-1] == 6:
            year = torch.atan2(condition[..., 0], condition[..., 1]) / (2 * torch.pi)
            day = torch.atan2(condition[..., 4], condition[..., 5]) / (2 * torch.pi)
            parts.append(solar_elevation(year, day, self.tokenizer.position)[..., None])
        return torch.cat(parts, dim=-1) if parts else None

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


def build_network(
    tokenizer: GridTokenizer | MoleculeTokenizer,
    sizes: Sizes,
    objective: Objective,
    *,
    condition_dim: int,
    local_dim: int,
    seed: int,
) -> Network:
    """Build an untrained network that fits the tokens.

    Encoder and predictor depend on sizes and seed alone, not on the objective.

    Parameters
    ----------
    tokenizer : GridTokenizer or MoleculeTokenizer
        Gives the number, position and width of the tokens.
    sizes : Sizes
        Of encoder and predictor.
    objective : Objective
        A JEPA's, or that of a twin.
    condition_dim, local_dim : int
        Widths of a time's conditions, and of a token's conditions at a time.
    seed : int
        Of the first weights; the global random numbers are left as they were.
    """
    molecule = isinstance(tokenizer, MoleculeTokenizer)
    position = tokenizer.position if molecule else fourier_features(tokenizer.position)
    inputs = Inputs(position, tokenizer.feature_dim, condition_dim, local_dim, tokenizer.cells)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return objectives.build_network(inputs, sizes, objective)
