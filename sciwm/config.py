"""One frozen dataclass tree, one YAML file: everything a run depends on.

Only this module (and `sciwm.cli`) reads YAML. Unknown keys are refused with the nearest known one.
"""

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Config",
    "DataConfig",
    "ForecastConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "ProbeConfig",
    "SkillConfig",
    "SplitConfig",
    "TrainConfig",
]


@dataclass(frozen=True)
class SplitConfig:
    """Blocks of time for training, choosing and scoring.

    Parameters
    ----------
    by : {"time", "step", "segment"}
        What the other three hold: ``[first, last]`` dates, both included; ``[start, stop)`` positions; or a list of
        segment numbers (trajectories, ensemble members).
    train, validation, test : list
        The blocks. A later block that touches an earlier one loses its first steps, as many as a window is long.
    """

    by: Literal["time", "step", "segment"] = "time"
    train: list[str | int] = field(default_factory=list)
    validation: list[str | int] = field(default_factory=list)
    test: list[str | int] = field(default_factory=list)


@dataclass(frozen=True)
class DataConfig:
    """Where the data are and how they become standardized anomalies.

    Parameters
    ----------
    store : str or list of str
        Path, glob, URL, or several of them; ``qg`` alone means the simulated turbulence of `sciwm demo`.
    variables : list of str
        Canonical names (`sciwm.open_dataset`): ``z500``, ``t2m``, ``sst``…; empty means all with a time dimension.
    static : list of str
        Time-independent fields given to the predictor as conditions.
    climatology : {"harmonic", "monthly", "constant"}
        Mean annual cycle subtracted from the states, fitted on the training block.
    harmonics : int
        Annual harmonics of the harmonic climatology.
    missing : {"error", "mask"}
        What to do with NaNs: refuse them, or carry a mask to the tokens.
    segments : bool
        Split the record at gaps in time instead of refusing them.
    split : SplitConfig
        Training, validation and test blocks.
    """

    store: str | list[str] = "qg"
    variables: list[str] = field(default_factory=list)
    static: list[str] = field(default_factory=list)
    climatology: Literal["harmonic", "monthly", "constant"] = "harmonic"
    harmonics: int = 3
    missing: Literal["error", "mask"] = "error"
    segments: bool = False
    split: SplitConfig = field(default_factory=SplitConfig)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network.

    Parameters
    ----------
    patch_size : list of int
        Cells per token, ``[latitude, longitude]``; grids that do not divide are padded and masked. Unused for molecules.
    token_dim : int
        Width of a latent token.
    encoder_blocks, predictor_blocks : int
        Transformer blocks.
    num_heads : int
        Attention heads; divides ``token_dim``.
    mlp_ratio : float
        Hidden width of the feed-forward layers, relative to ``token_dim``.
    dropout : float
        Dropout in both networks while training.
    history : int
        States the predictor sees.
    """

    patch_size: list[int] = field(default_factory=lambda: [3, 3])
    token_dim: int = 96
    encoder_blocks: int = 2
    predictor_blocks: int = 2
    num_heads: int = 4
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    history: int = 2


@dataclass(frozen=True)
class ObjectiveConfig:
    """What training minimises.

    Parameters
    ----------
    kind : {"sigreg", "ema", "vicreg"}
        What keeps the latents from collapsing.
    strength : float
        Weight of the regulariser. For SIGReg it is the product of its weight and the sample count, about 10.
    num_directions : int
        Random directions of SIGReg.
    ema_decay : float
        Decay of the teacher's moving average (``ema`` only).
    rollout : int
        States predicted in sequence from one context.
    lead_steps : list of int
        Strides, in time steps, drawn for each window; the lead of one prediction.
    mask_ratio : float
        Fraction of context tokens dropped before the encoder, in spatial blocks.
    input_noise, latent_noise : float
        Standard deviation of the noise added to the standardized states / to predicted latents fed back.
    """

    kind: Literal["sigreg", "ema", "vicreg"] = "sigreg"
    strength: float = 10.0
    num_directions: int = 64
    ema_decay: float = 0.996
    rollout: int = 2
    lead_steps: list[int] = field(default_factory=lambda: [1])
    mask_ratio: float = 0.0
    input_noise: float = 0.1
    latent_noise: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """Optimiser, length and bookkeeping of training.

    Parameters
    ----------
    steps, batch_size : int
        Optimiser steps and windows per step.
    learning_rate, weight_decay, warmup, clip : float
        AdamW's peak rate and decay, fraction of the steps spent warming up, gradient-norm limit.
    average_decay : float
        Decay of the moving average of the weights used for everything after training; 0 keeps the last weights.
    validate_every, checkpoint_every : int
        Steps between health checks on validation data / between checkpoints.
    threads : int
        CPU threads of the network; 0 leaves the choice to torch.
    precision : str
        Lightning's precision flag, e.g. ``32-true`` or ``bf16-mixed``.
    """

    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: float = 0.05
    clip: float = 1.0
    average_decay: float = 0.99
    validate_every: int = 100
    checkpoint_every: int = 100
    threads: int = 0
    precision: str = "32-true"


@dataclass(frozen=True)
class ProbeConfig:
    """Ridge readouts of the predicted latents.

    Parameters
    ----------
    scope : {"token", "shared", "global"}
        One ridge per patch, one for all patches, or one from all tokens together (indices, torsions).
    strengths : list of float
        Ridge strengths to choose from on the validation block, relative to the mean variance of the features.
    halo : int
        Cells around a patch whose initial anomalies the residual readout also sees.
    targets : list of str
        Scalar series read out beside (or instead of) the fields: ``nino34``, ``phi``, ``psi``…
    """

    scope: Literal["token", "shared", "global"] = "token"
    strengths: list[float] = field(default_factory=lambda: [1e-3, 1e-2, 1e-1, 1.0, 10.0])
    halo: int = 0
    targets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ForecastConfig:
    """Which forecasts a run makes of its test block.

    Parameters
    ----------
    lead_times : list of str
        Lead times with units: ``24 hours``, ``5 days``, ``3 months``, ``10 ps``.
    init_every : int
        Time steps between initial times.
    """

    lead_times: list[str] = field(default_factory=lambda: ["1 day", "2 days", "3 days", "5 days"])
    init_every: int = 1


@dataclass(frozen=True)
class SkillConfig:
    """How forecasts are scored.

    Parameters
    ----------
    metrics, baselines, regions : list of str
        Names as `sciwm.skill` knows them; empty ``regions`` means the whole domain.
    lim_eofs : list of int
        EOF truncations of the linear inverse model to choose from on the validation block.
    resamples : int
        Moving-block bootstrap resamples behind the intervals.
    """

    metrics: list[str] = field(default_factory=lambda: ["rmse", "mae", "bias", "acc"])
    baselines: list[str] = field(default_factory=lambda: ["climatology", "persistence", "damped_persistence", "lim"])
    regions: list[str] = field(default_factory=list)
    lim_eofs: list[int] = field(default_factory=lambda: [10, 20, 30, 40, 60, 80])
    resamples: int = 1000


@dataclass(frozen=True)
class Config:
    """Everything a run depends on; one YAML file.

    Parameters
    ----------
    seed : int
        Seed of every random choice.
    data, model, objective, train, probe, forecast, skill
        See the classes of the same names.
    """

    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    skill: SkillConfig = field(default_factory=SkillConfig)
