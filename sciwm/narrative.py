"""What a run did, in sentences for the methods section of a paper, from its configuration."""

from collections.abc import Mapping, Sequence

import xarray as xr

from sciwm.sections import Config
from sciwm.skill.labels import join_words
from sciwm.skill.prose import describe_grid, variable_names

__all__ = ["describe_data", "describe_model"]

_OBJECTIVES = {
    "sigreg": (
        "a penalty on the distance of the latents from a standard normal distribution along {directions} random directions (SIGReg, "
        "weight {strength:g})"
    ),
    "ema": "a teacher network that is the moving average of the encoder (decay {decay:g}) and provides the targets",
    "vicreg": "penalties on the variance and the covariance of the latents (VICReg, weight {strength:g})",
}
_BLOCKS = {"train": "a training block", "validation": "a validation block", "test": "a test block"}
_CLIMATOLOGIES = {
    "harmonic": "a mean annual cycle of {harmonics} harmonics",
    "monthly": "calendar-month means",
    "constant": "the mean",
}


def describe_data(config: Config, data: xr.Dataset, split: Mapping[str, Sequence[str]]) -> str:
    """Paragraph on the data: set, variables, grid, step of the climatology, blocks.

    Parameters
    ----------
    config : Config
    data : Dataset
        Canonical.
    split : mapping of str to (first, last)
        Dates of the blocks ``train``, ``validation`` and ``test``.
    """
    title = str(data.attrs.get("title", "")).rstrip(".")
    store = config.data.store if isinstance(config.data.store, str) else f"{len(config.data.store)} stores"
    what = f"The data set is “{title}”" if title else f"The data are those of {store.rstrip('/').rsplit('/', 1)[-1]}"
    grid = describe_grid(data)
    parts = [f"{what}; its variables are {join_words(variable_names(data))}{f', on {grid}' if grid else ''}."]
    blocks = [f"{_BLOCKS[name]} ({_date(block[0])} to {_date(block[1])})" for name, block in split.items() if len(block) == 2]
    if blocks:
        whole = ", each of whole members or trajectories" if config.data.split.by == "segment" else ""
        parts.append(f"The record was split into {join_words(blocks)}{whole}.")
    normal = _CLIMATOLOGIES[config.data.climatology].format(harmonics=config.data.harmonics)
    parts.append(f"States are anomalies from {normal}, divided by their standard deviation, both of the training block.")
    return " ".join(parts)


def describe_model(config: Config, parameters: int) -> str:
    """Paragraph on the model: sizes, objective, training, readouts.

    Parameters
    ----------
    config : Config
    parameters : int
        Of the network.

    Examples
    --------
    >>> describe_model(Config(), 500_000).split(".")[0]
    'The forecast model is a joint-embedding predictive architecture with 500,000 parameters'
    """
    m, o, t, p = config.model, config.objective, config.train, config.probe
    objective = _OBJECTIVES[o.kind].format(directions=o.num_directions, strength=o.strength, decay=o.ema_decay)
    strides = f"{join_words([str(s) for s in o.lead_steps])} time step{'s' if max(o.lead_steps) > 1 else ''}"
    past = f"{m.history} successive states" if m.history > 1 else "one state"
    ahead = f"{o.rollout} predictions in a row" if o.rollout > 1 else "one prediction"
    if o.curriculum and o.rollout > 1:
        ahead += f" (one at first, all after {100 * o.curriculum * (o.rollout - 1) / o.rollout:.0f} % of the steps)"
    noise = f", with noise of standard deviation {o.input_noise:g} added to the input" if o.input_noise else ""
    masked = f", {100 * o.mask_ratio:.0f} % of the tokens of the context masked" if o.mask_ratio else ""
    anchor = f", plus {o.anchor:g} times the squared error of the cells that one linear head gives from them" if o.anchor else ""
    scope = "patch by patch, drawn towards a shared one" if p.scope == "token" else "one for all patches"
    own = "in the residual readout beside their own values up to the initial time and by season"
    series = f"; scalar series ({join_words(p.targets)}) are read from all tokens together, {own}" if p.targets else ""
    return (
        f"The forecast model is a joint-embedding predictive architecture with {parameters:,} parameters. A transformer encoder "
        f"({m.encoder_blocks} blocks, width {m.token_dim}, {m.num_heads} heads) turns each state into tokens of patches of "
        f"{m.patch_size[0]} × {m.patch_size[1]} cells, and a predictor ({m.predictor_blocks} blocks) advances them from {past} "
        f"by strides of {strides}. Training minimised the squared error of predicted latents over {ahead} "
        f"plus {objective}{anchor}{noise}{masked}: {t.steps:,} steps of AdamW (learning rate {t.learning_rate:g}, weight "
        f"decay {t.weight_decay:g}, batches of {t.batch_size}, dropout {m.dropout:g}), seed {config.seed}. Forecasts are read from the "
        f"predicted latents, and in the residual readout from the anomalies of the patch in the states of the context too, by ridge "
        f"regressions of each lead ({scope}), fitted on the training block, with strengths chosen on the validation block{series}."
    )


def _date(text: str) -> str:
    return str(text)[:16].replace("T", " ").removesuffix(" 00:00")
