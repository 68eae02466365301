"""Sections of the configuration: frozen dataclasses that refuse values out of range.

`sciwm.config` reads them from YAML and is where to import them from.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

from sciwm.times import parse_lead

__all__ = [
    "ADDED_LATER",
    "Config",
    "ConfigError",
    "DataConfig",
    "ForecastConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "ProbeConfig",
    "SkillConfig",
    "SplitConfig",
    "TrainConfig",
]

# Names of parts, one a line: what is added to the tables of `sciwm.model` is added here, too.
Mixing = Literal[
    "none",
    "local",
    "global",
    "both",
]
Dynamics = Literal["history",]
Kind = Literal[
    "sigreg",
    "ema",
    "vicreg",
    "whitened",
    "supervised",
    "masked_autoencoder",
    "autoencoder",
    "convnet",
]

# Keys added later. At its default, which means what was done without it, such a key leaves old runs
# up to date.
ADDED_LATER = {"later": True}


class ConfigError(ValueError):
    """A configuration that cannot be meant: unknown key, wrong type, value out of range."""


def _require(good: bool, key: str, value: object, expected: str) -> None:
    if not good:
        raise ConfigError(f"got {key} = {value!r}, expected {expected}")


def _need(section: str, config: object, name: str, good: object, expected: str) -> None:
    _require(bool(good), f"{section}.{name}", getattr(config, name), expected)


def _need_counts(section: str, config: object, names: str, least: int) -> None:
    for name in names.split():
        good = getattr(config, name) >= least
        _need(section, config, name, good, f"a whole number of at least {least}")


def _parsed(key: str, text: str) -> str:
    """Kind of unit of a positive lead time."""
    try:
        amount, unit = parse_lead(text)
    except ValueError as error:
        raise ConfigError(f"{error}, in {key}") from None
    _require(amount > 0, key, text, f"a positive number of {unit}")
    return unit


@dataclass(frozen=True)
class SplitConfig:
    """Blocks of time for training, choosing and scoring.

    Parameters
    ----------
    by : {"time", "step", "segment"}
        What the other three hold: ``[first, last]`` dates, both included; ``[start, stop)``
        positions; or a list of segment numbers (trajectories, ensemble members).
    train, validation, test : list
        The blocks. A later block that touches an earlier one loses its first steps, as many as a
        window is long.
    """

    by: Literal["time", "step", "segment"] = "time"
    train: list[str | int] = field(default_factory=list)
    validation: list[str | int] = field(default_factory=list)
    test: list[str | int] = field(default_factory=list)

    def __post_init__(self) -> None:
        need = partial(_need, "data.split", self)
        for name in ("train", "validation", "test"):
            block = getattr(self, name)
            numbers = all(isinstance(n, int) for n in block)
            if self.by == "time":
                need(name, len(block) in (0, 2), "[first, last], two dates, both included")
            elif self.by == "step":
                good = not block or (len(block) == 2 and numbers and 0 <= block[0] < block[1])
                need(name, good, "[start, stop], two positions with 0 ≤ start < stop")
            else:
                good = numbers and all(n >= 0 for n in block)
                need(name, good, "a list of segment numbers, counted from 0")


@dataclass(frozen=True)
class DataConfig:
    """Where the data are and how they become standardized anomalies.

    Parameters
    ----------
    store : str or list of str
        Path, glob, URL, or several of them; ``qg`` alone means the simulated turbulence of `sciwm
        demo`.
    variables : list of str
        Canonical names (`sciwm.open_dataset`): ``z500``, ``t2m``, ``sst``…; empty means all with a
        time dimension.
    static : list of str
        Time-independent fields given to the predictor as conditions.
    climatology : {"harmonic", "monthly", "constant"}
        Mean annual cycle subtracted from the states, fitted on the training block.
    harmonics : int
        Annual harmonics of the harmonic climatology.
    climatology_pool : {"none", "longitude", "domain"}
        Which cells share one climatology: none, those of a latitude, or all. Where statistics are
        the same everywhere, a mean of each cell's own is sampling noise.
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
    climatology_pool: Literal["none", "longitude", "domain"] = field(
        default="none", metadata=ADDED_LATER
    )
    missing: Literal["error", "mask"] = "error"
    segments: bool = False
    split: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        need = partial(_need, "data", self)
        need("store", self.store, "a path, glob or URL, or a list of them")
        _need_counts("data", self, "harmonics", 1)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network.

    Parameters
    ----------
    patch_size : list of int
        Cells per token, ``[latitude, longitude]``; grids that do not divide are padded and masked.
        Unused for molecules.
    latent_dim : int
        Latents of a token. 0 takes as many as it has cells; fewer compress, more hold context.
    width, encoder_width : int
        Width of the hidden layers of dynamics and encoder.
    encoder_blocks, predictor_blocks : int
        Residual blocks. The dynamics live in the predictor, so of a given number most belong there.
    mixing, encoder_mixing : {"local", "global", "both", "none"}
        How tokens hear of one another, in the dynamics and in the encoder. ``local`` takes the
        neighbours on the grid, or those near by in a molecule. ``global`` is attention over all
        pairs, ``both`` one after the other. An encoder that mixes can fill gaps. Where there are
        none, it makes neighbours alike and loses what they differ in, so it does not by default.
    dynamics : {"history"}
        What is rolled forward: the last few states.
    reach : int
        Rows and columns of tokens on every side that local mixing sees.
    num_heads : int
        Attention heads; divides both widths.
    mlp_ratio : float
        Hidden width of the feed-forward layers, relative to the width.
    dropout : float
        Dropout in the feed-forward layers while training.
    history : int
        States of a context.
    context_step : int
        Time steps between the states of a context, whatever the lead.
    noise_dim : int
        Random numbers of which the predictor makes one of many futures; 0 predicts a single one.
    whitening_floor : float
        Spread below which a principal component of a patch is not blown up to one. It is in units
        of the standardized states.
    """

    patch_size: list[int] = field(default_factory=lambda: [2, 2])
    latent_dim: int = 0
    width: int = 96
    encoder_width: int = 32
    encoder_blocks: int = 0
    predictor_blocks: int = 4
    mixing: Mixing = "local"
    encoder_mixing: Mixing = "none"
    dynamics: Dynamics = "history"
    reach: int = 2
    num_heads: int = 4
    mlp_ratio: float = 2.0
    dropout: float = 0.0
    history: int = 2
    context_step: int = 1
    noise_dim: int = 0
    whitening_floor: float = 0.6

    def __post_init__(self) -> None:
        need = partial(_need, "model", self)
        good = len(self.patch_size) == 2 and all(n > 0 for n in self.patch_size)
        need("patch_size", good, "[latitude, longitude], two positive counts of cells")
        positive = "width encoder_width predictor_blocks reach num_heads history context_step"
        _need_counts("model", self, positive, 1)
        _need_counts("model", self, "noise_dim latent_dim encoder_blocks", 0)
        attend = ("global", "both")
        divides = not (
            (self.mixing in attend and self.width % self.num_heads)
            or (self.encoder_mixing in attend and self.encoder_width % self.num_heads)
        )
        widths = f"model.width = {self.width} and model.encoder_width = {self.encoder_width}"
        need("num_heads", divides, f"a divisor of {widths}")
        need("mlp_ratio", self.mlp_ratio > 0, "a positive number")
        need("dropout", 0 <= self.dropout < 1, "a fraction in [0, 1)")
        need("whitening_floor", self.whitening_floor >= 0, "a number of at least 0")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What training minimises.

    Parameters
    ----------
    kind : str
        What keeps the latents of a JEPA from collapsing: ``sigreg``, ``ema`` or ``vicreg``. Or what
        takes its place. ``whitened`` trains dynamics on a frozen encoder in closed form.
        ``supervised``, ``masked_autoencoder`` and ``autoencoder`` are pixel-trained twins
        (`sciwm.model.pixels`). ``convnet`` is a plain convolutional network on pixels. For all of
        these, ``strength`` to ``ema_decay`` mean nothing.
    strength : float
        Weight of the regulariser. For SIGReg it is the product of its weight and the sample count;
        40 served every data set here.
    num_directions, rows : int
        Random directions of SIGReg, and tokens drawn at each time to measure it on; 0 takes all.
    ema_decay : float
        Decay of the teacher's moving average (``ema`` only).
    rollout : int
        States predicted in sequence from one context.
    curriculum : float
        Over this fraction of the training, the number of states predicted in sequence grows from 1
        to ``rollout``. Its stages are of equal length; 0 predicts all states from the start. The
        masked autoencoder, which predicts none, knows no stages.
    lead_steps : list of int
        Strides, in time steps, drawn for each window; the lead of one prediction.
    mask_ratio : float
        Fraction of context tokens dropped before the encoder. For the masked autoencoder: fraction
        of the tokens of every state.
    mask : {"blocks", "random"}
        Whether dropped tokens lie in spatial blocks, or are each drawn on its own. The masked
        autoencoder always has the latter.
    input_noise, latent_noise : float
        Standard deviation, while training, of the noise added to the standardized states / to the
        latents of the context. Where data are plenty, none is best.
    anchor : float
        Weight, beside the error in latent space, of the squared error of cells. One linear head
        gives them from predicted latents. 0 learns from latents alone; a twin has none.
    """

    kind: Kind = "sigreg"
    strength: float = 40.0
    num_directions: int = 64
    rows: int = 1024
    ema_decay: float = 0.996
    rollout: int = 4
    lead_steps: list[int] = field(default_factory=lambda: [1])
    mask_ratio: float = 0.0
    mask: Literal["blocks", "random"] = "blocks"
    input_noise: float = 0.0
    latent_noise: float = 0.0
    anchor: float = field(default=0.0, metadata=ADDED_LATER)
    curriculum: float = field(default=0.0, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        need = partial(_need, "objective", self)
        _need_counts("objective", self, "num_directions rollout", 1)
        _need_counts("objective", self, "rows", 0)
        for name in ("strength", "input_noise", "latent_noise", "anchor"):
            need(name, getattr(self, name) >= 0, "a number of at least 0")
        need("ema_decay", 0 <= self.ema_decay < 1, "a fraction in [0, 1)")
        need("curriculum", 0 <= self.curriculum <= 1, "a fraction in [0, 1]")
        need("mask_ratio", 0 <= self.mask_ratio < 1, "a fraction in [0, 1)")
        hides = self.mask_ratio > 0 or self.kind != "masked_autoencoder"
        masked = "a positive fraction, such as 0.75, for a masked autoencoder"
        need("mask_ratio", hides, masked)
        good = self.lead_steps and all(n > 0 for n in self.lead_steps)
        need("lead_steps", good, "a list of positive counts of time steps")


@dataclass(frozen=True)
class TrainConfig:
    """Optimiser, length and bookkeeping of training.

    Parameters
    ----------
    steps, batch_size : int
        Optimiser steps and windows per step.
    optimizer : {"muon", "adamw"}
        Muon for the matrices between hidden layers and AdamW for all else, or AdamW for everything
        (`sciwm.train.optimizer`).
    muon_rate : float
        Muon's peak rate. The scale of the gradient does not matter to it, so the same rate serves
        networks of different size.
    learning_rate : float
        AdamW's peak rate.
    weight_decay : float
        Decay of the weights, relative to their rate. With Muon, only the matrices it moves decay.
    warmup : float
        Fraction of the steps spent warming up.
    clip : float
        Limit of the gradient's norm.
    average_decay : float
        Decay of the moving average of the weights used for everything after training; 0 keeps the
        last weights.
    validate_every, checkpoint_every : int
        Steps between health checks on validation data / between checkpoints.
    rivals : list of str
        Other methods to train beside for the same processor time; each gets its rows in the table
        of the run. Any ``objective.kind``; a molecule leaves out ``convnet``.
    devices : int
        Processes that share a step, one to each GPU, or to some cores of a CPU; each takes
        ``batch_size`` windows.
    threads : int
        CPU threads of the network, in training, probing and forecasting; 0 leaves the choice to
        torch. Small models are fastest with one: threads that wait for each other cost more than
        they bring.
    precision : str
        ``auto``, which is ``bf16-mixed`` where the processor multiplies bfloat16 fast and otherwise
        ``32-true``, or Lightning's flag.
    """

    steps: int = 500
    batch_size: int = 64
    optimizer: Literal["muon", "adamw"] = "muon"
    muon_rate: float = 0.02
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.05
    clip: float = 1.0
    average_decay: float = 0.99
    validate_every: int = 100
    checkpoint_every: int = 100
    rivals: list[str] = field(default_factory=lambda: ["convnet"])
    devices: int = 1
    threads: int = 0
    precision: str = "auto"

    def __post_init__(self) -> None:
        need = partial(_need, "train", self)
        _need_counts("train", self, "steps batch_size validate_every checkpoint_every devices", 1)
        _need_counts("train", self, "threads", 0)
        need("rivals", len(set(self.rivals)) == len(self.rivals), "every method once")
        for name in ("muon_rate", "learning_rate", "clip"):
            need(name, getattr(self, name) > 0, "a positive number")
        need("weight_decay", self.weight_decay >= 0, "a number of at least 0")
        known = get_args(Kind)
        need("rivals", not {*self.rivals} - {*known}, f"some of {', '.join(known)}")
        for name in ("warmup", "average_decay"):
            need(name, 0 <= getattr(self, name) < 1, "a fraction in [0, 1)")


@dataclass(frozen=True)
class ProbeConfig:
    """Ridge readouts of the predicted latents.

    Parameters
    ----------
    scope : {"token", "shared"}
        One ridge per patch, drawn towards one that all share, or one for all patches. (Scalar
        series are always read from all tokens together.)
    strengths : list of float
        Ridge strengths to choose from on the validation block, relative to the mean variance of the
        features.
    halo : int
        Cells around a patch whose anomalies, in the states of the context, the residual readout
        also sees.
    fraction : float
        Share of the training block that readouts are fitted on: one unbroken stretch, placed by the
        seed.
    init_every : int
        Of that share, every how many-th initial time. Those next to one another tell little that is
        new, and each costs a rollout to the longest lead.
    targets : list of str
        Scalar series read out beside (or instead of) the fields: ``nino34``, ``phi``, ``psi``…
    """

    scope: Literal["token", "shared"] = "token"
    strengths: list[float] = field(default_factory=lambda: [10.0**n for n in range(-3, 4)])
    halo: int = 0
    fraction: float = 1.0
    init_every: int = field(default=1, metadata=ADDED_LATER)
    targets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        need = partial(_need, "probe", self)
        good = self.strengths and all(n > 0 for n in self.strengths)
        need("strengths", good, "a list of positive numbers")
        _need_counts("probe", self, "halo", 0)
        _need_counts("probe", self, "init_every", 1)
        need("fraction", 0 < self.fraction <= 1, "a fraction in (0, 1]")


@dataclass(frozen=True)
class ForecastConfig:
    """Which forecasts a run makes of its test block.

    Parameters
    ----------
    lead_times : list of str
        Lead times with units: ``24 hours``, ``5 days``, ``3 months``, ``10 ps``.
    init_every : int
        Time steps between initial times.
    members : int
        Members of a second forecast, an ensemble; 0 makes none. Takes a model with
        ``model.noise_dim``.
    simulate : str
        Length of simulations, such as ``365 days``, that show whether the model holds; none if
        empty.
    simulate_inits : int
        Initial times of simulations, spread over the test block.
    """

    lead_times: list[str] = field(default_factory=lambda: ["1 day", "2 days", "3 days", "5 days"])
    init_every: int = 1
    members: int = 0
    simulate: str = field(default="", metadata=ADDED_LATER)
    simulate_inits: int = field(default=16, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        need = partial(_need, "forecast", self)
        need("lead_times", self.lead_times, "at least one lead time, such as '24 hours'")
        for text in self.lead_times:
            _parsed("forecast.lead_times", text)
        known = {parse_lead(text)[1] for text in self.lead_times}
        kinds = "lead times of one kind: hours and days, months, or ps"
        need("lead_times", len(known) == 1, kinds)
        if self.simulate:
            unit = _parsed("forecast.simulate", self.simulate)
            need("simulate", unit in known, "a length of the kind of forecast.lead_times")
        _need_counts("forecast", self, "init_every simulate_inits", 1)
        alone = self.members == 1
        need("members", not alone, "0, or at least 2, because one member has no spread")
        _need_counts("forecast", self, "members", 0)


@dataclass(frozen=True)
class SkillConfig:
    """How forecasts are scored.

    Parameters
    ----------
    metrics, baselines, regions : list of str
        Names as `sciwm.skill` knows them; empty ``regions`` means the whole domain.
    events : list of str
        Threshold events such as ``t850>285``, scored by their probability.
    lim_eofs : list of int
        EOF truncations of the linear inverse model to choose from on the validation block.
    resamples : int
        Moving-block bootstrap resamples behind the intervals.
    allow_leakage : bool
        Go on where scored times were seen before, or nearly, and say so beside the scores.
    """

    metrics: list[str] = field(default_factory=lambda: ["rmse", "mae", "bias", "acc"])
    baselines: list[str] = field(
        default_factory=lambda: ["climatology", "persistence", "damped_persistence", "lim"]
    )
    regions: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    lim_eofs: list[int] = field(default_factory=lambda: [10, 20, 30, 40, 60, 80])
    resamples: int = 1000
    allow_leakage: bool = False

    def __post_init__(self) -> None:
        need = partial(_need, "skill", self)
        need("metrics", self.metrics, "at least one metric, such as 'rmse'")
        good = self.lim_eofs and all(n > 0 for n in self.lim_eofs)
        need("lim_eofs", good, "a list of positive counts")
        _need_counts("skill", self, "resamples", 1)


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

    def __post_init__(self) -> None:
        noise, kind, members = self.model.noise_dim, self.objective.kind, self.forecast.members
        trainable = not noise or kind in ("sigreg", "ema", "vicreg", "whitened")
        none = f"0 with objective.kind = {kind!r}, because only a JEPA is trained with noise"
        _require(trainable, "model.noise_dim", noise, none)
        without = "0 with model.noise_dim = 0, or a model.noise_dim such as 32"
        _require(noise > 0 or not members, "forecast.members", members, without)
