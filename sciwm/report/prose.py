"""What a run did and how it was scored, in sentences for the methods section of a paper."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from sciwm.report.labels import Leads, join_words, lead_axis
from sciwm.report.leads import channel_title
from sciwm.sections import Config
from sciwm.skill.baselines.by_name import BASELINE_RECORDS
from sciwm.skill.metrics import metric_name

__all__ = [
    "describe_data",
    "describe_grid",
    "describe_model",
    "describe_rollout",
    "describe_scores",
    "variable_names",
]

_BASELINES = {name: record.words for name, record in BASELINE_RECORDS.items()} | {
    "random_encoder": "a network of random weights, with the same readouts",
    "local_linear": "the same readouts of the states of the context, without any network",
    "convnet": "a plain residual convolutional network on pixels, trained for the same processor"
    " time, with the same readouts",
    "convnet_decoder": "that network's own output",
    "whitened": "the same dynamics on principal components of patches",
}
_BLOCKS = {"train": "a training block", "validation": "a validation block", "test": "a test block"}
_CLIMATOLOGIES = {
    "harmonic": "a mean annual cycle of {harmonics} harmonics",
    "monthly": "calendar-month means",
    "constant": "the mean",
}
_POOLED = {
    "none": "",
    "longitude": ", one for each latitude",
    "domain": ", one for the whole domain",
}
_SCORES = re.compile(r"\b(crps|seeps|roc|rmse|brier)\b")


def describe_scores(skill: xr.Dataset, *, truth: str = "", variables: Sequence[str] = ()) -> str:
    """One paragraph on the verification: sample, scores, baselines, intervals, tests.

    Parameters
    ----------
    skill : Dataset
        From `evaluate`; what its attributes do not say is left out.
    truth : str
        What the forecasts were compared with, e.g. ``"ERA5"``.
    variables : sequence of str
        The variables in words; the names of the channels by default.

    Examples
    --------
    >>> lead = np.array([1, 2], "m8[D]").astype("m8[ns]")
    >>> dims = ("method", "channel", "region", "lead_time", "metric")
    >>> coords = {
    ...     "method": ["model", "climatology"],
    ...     "channel": ["t850"],
    ...     "region": ["all"],
    ...     "lead_time": lead,
    ...     "metric": ["rmse"],
    ... }
    >>> table = xr.Dataset(
    ...     {"value": (dims, np.ones((2, 1, 1, 2, 1)))}, coords, {"num_init": 90, "resamples": 0}
    ... )
    >>> describe_scores(table, truth="ERA5").split(",")[0]
    'Forecasts of t850 at lead times of 1 and 2 days were compared with ERA5 at 90 initial times'
    """
    attrs = skill.attrs
    leads = lead_axis(skill["lead_time"])
    names = list(variables) or [str(c) for c in skill["channel"].values]
    count = attrs.get("num_init", 0)
    first, last = (str(attrs.get(f"{end}_init", ""))[:16] for end in ("first", "last"))
    when = f" at {count:,} initial times" if count else ""
    when += f" from {first} to {last}".replace("T", " ") if count and first and last else ""
    base = f" were compared with {truth}" if truth else " were verified"
    parts = [
        f"Forecasts of {join_words(names)} at lead times of {_each(leads)}{base}{when}, the same"
        " for every method."
    ]
    metrics = [_SCORES.sub(_proper, metric_name(str(m)).lower()) for m in skill["metric"].values]
    parts.append(
        f"The scores are {join_words(metrics)}, of fields weighted by the cosine of latitude,"
        " averaged over initial times."
    )
    regions = [str(r).replace("_", " ") for r in skill["region"].values]
    if len(regions) > 1:
        parts.append(f"They were computed for the regions {join_words(regions)}.")
    held = [_BASELINES[str(m)] for m in skill["method"].values if str(m) in _BASELINES]
    if held:
        fitted = ", fitted on the training period alone" if held != ["persistence"] else ""
        parts.append(f"The forecasts are set beside {join_words(held)}{fitted}.")
    if attrs.get("lim"):
        parts.append(
            "The linear inverse model was chosen on data not used for verification"
            f" ({attrs['lim']})."
        )
    if attrs.get("resamples"):
        block = attrs.get("block_length", 1)
        parts.append(
            "Intervals are 95 % percentile intervals of a circular moving-block bootstrap over"
            f" initial times ({attrs['resamples']:,} resamples, blocks of {block})."
        )
    if "pair_q_value" in skill or np.isfinite(skill.get("q_value", xr.DataArray(np.nan))).any():
        parts.append(
            "Differences between methods were tested with a paired t test of the area-mean squared"
            " errors whose effective sample size is that of an AR(2) model of the differences, and"
            " controlled for a false discovery rate of 5 % (Benjamini and Hochberg 1995)."
        )
    if attrs.get("leakage"):
        parts.append(f"This was not a fair test: {attrs['leakage']}.")
    return " ".join(parts)


def _proper(name: re.Match[str]) -> str:
    """Write a name of a score as a name."""
    return "Brier" if name[0] == "brier" else name[0].upper()


def _each(leads: Leads) -> str:
    numbers = [f"{v:g}" for v in leads.values]
    if len(numbers) > 10:
        return f"{numbers[0]} to {numbers[-1]} {leads.unit} ({len(numbers)} of them)"
    return f"{join_words(numbers)} {leads.unit}" if len(numbers) > 1 else leads.text([0])


def variable_names(data: xr.Dataset) -> list[str]:
    """Variables of a canonical Dataset in words, levels included."""
    out = []
    for name, array in data.data_vars.items():
        if "time" not in array.dims:
            continue
        title = channel_title(str(name), str(array.attrs.get("units", "")))
        levels = [f"{v:g}" for v in array["level"].values] if "level" in array.dims else []
        if title != name and title[1:2].islower():
            title = title[0].lower() + title[1:]
        out.append(f"{title} at levels {join_words(levels)}" if levels else title)
    return out


def describe_grid(data: xr.Dataset) -> str:
    """Words for the grid of a Dataset: size, spacing and extent; empty without one.

    Examples
    --------
    >>> describe_grid(
    ...     xr.Dataset(coords={"latitude": [30.0, 31.5, 33.0], "longitude": [-3.0, -1.5, 0.0, 1.5]})
    ... )
    'a grid of 3 × 4 points (1.5° × 1.5°, 30°N to 33°N, 3°W to 1.5°E)'
    """
    if not {"latitude", "longitude"} <= set(data.coords):
        return ""
    latitude, longitude = (data[d].values.astype(float) for d in ("latitude", "longitude"))
    if data.attrs.get("coastlines") == "none":  # not the Earth: degrees are labels only
        return f"a grid of {len(latitude)} × {len(longitude)} points"
    steps = [float(np.median(np.diff(a))) if len(a) > 1 else 0.0 for a in (latitude, longitude)]
    around = len(longitude) > 1 and abs(steps[1] * len(longitude) - 360) < 0.01 * 360
    rows = " to ".join(_degrees(v, "N", "S") for v in latitude[[0, -1]])
    columns = " to ".join(_degrees((v + 180) % 360 - 180, "E", "W") for v in longitude[[0, -1]])
    return (
        f"a grid of {len(latitude)} × {len(longitude)} points ({steps[0]:.3g}° × {steps[1]:.3g}°,"
        f" {rows}, {'all longitudes' if around else columns})"
    )


def _degrees(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):.4g}°{positive if value > 0 else negative if value < 0 else ''}"


def describe_data(
    config: Config, data: xr.Dataset, split: Mapping[str, Sequence[str]], *, atoms: int = 0
) -> str:
    """Paragraph on the data: set, variables, grid, step of the climatology, blocks.

    Parameters
    ----------
    config : Config
    data : Dataset
        Canonical.
    split : mapping of str to (first, last)
        Dates of the blocks ``train``, ``validation`` and ``test``.
    atoms : int
        Of a molecule; 0 for fields.
    """
    title = str(data.attrs.get("title", "")).rstrip(".")
    store = config.data.store
    if title:
        what = f"The data set is “{title}”"
    elif isinstance(store, str):
        what = f"The data are those of {store.rstrip('/').rsplit('/', 1)[-1]}"
    else:
        what = f"The data are those of {len(store)} stores"
    where = f", on {grid}" if (grid := describe_grid(data)) else ""
    parts = [f"{what}; its variables are {join_words(variable_names(data))}{where}."]
    blocks = [
        f"{_BLOCKS[name]} ({_date(block[0])} to {_date(block[1])})"
        for name, block in split.items()
        if len(block) == 2
    ]
    if blocks:
        segments = config.data.split.by == "segment"
        whole = ", each of whole members or trajectories" if segments else ""
        parts.append(f"The record was split into {join_words(blocks)}{whole}.")
    if atoms:
        parts.append(
            f"States are the distances between all pairs of the {atoms} atoms, standardized pair by"
            " pair with mean and standard deviation of the training block."
        )
        return " ".join(parts)
    normal = _CLIMATOLOGIES[config.data.climatology].format(harmonics=config.data.harmonics)
    parts.append(
        f"States are anomalies from {normal}{_POOLED[config.data.climatology_pool]}, divided by"
        " their standard deviation, both of the training block."
    )
    return " ".join(parts)


def describe_rollout(config: Config) -> str:
    """Say how many states are predicted in a row while training.

    Examples
    --------
    >>> describe_rollout(Config())
    '4 predictions in a row'
    """
    o = config.objective
    words = f"{o.rollout} predictions in a row" if o.rollout > 1 else "one prediction"
    if o.curriculum and o.rollout > 1:
        share = 100 * o.curriculum * (o.rollout - 1) / o.rollout
        words += f" (one at first, all after {share:.0f} % of the steps)"
    return words


def describe_model(
    config: Config, parameters: int, *, noun: str, minimised: str, atoms: int = 0
) -> str:
    """Paragraph on the model: sizes, objective, training, readouts.

    Parameters
    ----------
    config : Config
    parameters : int
        Of the network.
    noun, minimised : str
        What the network is, and what its training minimised.
    atoms : int
        Of a molecule; 0 for fields.

    Examples
    --------
    >>> words = {"noun": "a plain network", "minimised": "the squared error"}
    >>> describe_model(Config(), 500_000, **words).split(".")[0]
    'The forecast model is a plain network with 500,000 parameters'
    """
    m, o, t = config.model, config.objective, config.train
    extras = ""
    if o.anchor:
        extras += (
            f", plus {o.anchor:g} times the squared error of the cells that one linear head gives"
            " from them"
        )
    if o.input_noise:
        extras += f", with noise of standard deviation {o.input_noise:g} added to the input"
    if o.mask_ratio:
        hidden = "every state" if o.kind == "masked_autoencoder" else "the context"
        extras += f", {100 * o.mask_ratio:.0f} % of the tokens of {hidden} masked"
    tokens = f"patches of {m.patch_size[0]} × {m.patch_size[1]} cells"
    if atoms:
        tokens = "one token for each atom, which holds its distances to all atoms"
    return (
        f"The forecast model is {noun} with {parameters:,} parameters. Each state becomes"
        f" {tokens if atoms else f'tokens of {tokens}'}. {_network(config)}"
        f" Training minimised {minimised}{extras}: {t.steps:,} steps of {_optimizer(config)},"
        f" batches of {t.batch_size}, dropout {m.dropout:g}, seed {config.seed}."
        f" {_readouts(config, atoms)}"
    )


def _optimizer(config: Config) -> str:
    t = config.train
    adam, decay = f"AdamW (learning rate {t.learning_rate:g}", f", weight decay {t.weight_decay:g})"
    if t.optimizer == "adamw":
        return adam + decay
    if config.objective.kind == "convnet":
        return f"{adam})"  # it has no hidden matrices
    muon = f"Muon (hidden matrices, learning rate {t.muon_rate:g}{decay}"
    return f"{muon} and {adam})"


def _network(config: Config) -> str:
    """Sentences on encoder and dynamics."""
    m = config.model
    if config.objective.kind == "convnet":
        return "Four residual blocks of width 48 turn the last fields into the next."
    dim = f"{m.latent_dim} latents" if m.latent_dim else "as many latents as it has values"
    encoder = f"An encoder turns each token into {dim}: its whitening"
    if m.encoder_blocks and config.objective.kind != "whitened":
        encoder += f", corrected by {m.encoder_blocks} block(s) of width {m.encoder_width}"
    mixed = {
        "local": "their neighbours",
        "global": "all others",
        "both": "neighbours and all",
        "none": "nobody",
    }
    return f"{encoder}. {_dynamics(config)} In a block, tokens hear of {mixed[m.mixing]}."


def _dynamics(config: Config) -> str:
    m, o = config.model, config.objective
    past = f"{m.history} successive states" if m.history > 1 else "one state"
    blocks = f"A predictor ({m.predictor_blocks} blocks of width {m.width})"
    if o.kind == "masked_autoencoder":
        return f"{blocks} fills in what is hidden; forecasts start from {past}."
    strides = join_words([str(s) for s in o.lead_steps])
    strides += " time steps" if max(o.lead_steps) > 1 else " time step"
    return f"{blocks} advances them from {past} by strides of {strides}."


def _readouts(config: Config, atoms: int) -> str:
    p = config.probe
    by_patch = p.scope == "token"
    scope = "patch by patch, drawn towards a shared one" if by_patch else "one for all patches"
    fitted = "fitted on the training block, with strengths chosen on the validation block"
    series = (
        f"calar series ({join_words(p.targets)}) are read from all tokens together, in the"
        " residual readout beside their own values up to the initial time"
        f"{'' if atoms else ' and by season'}"
    )
    if atoms:
        return f"S{series}, by ridge regressions of each lead, {fitted}."
    return (
        "Forecasts are read from the predicted latents, and in the residual readout from the"
        " anomalies of the patch in the states of the context too, by ridge regressions of each"
        f" lead ({scope}), {fitted}{f'; s{series}' if p.targets else ''}."
    )


def _date(text: str) -> str:
    return str(text)[:16].replace("T", " ").removesuffix(" 00:00")
