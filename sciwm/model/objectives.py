"""Every objective in one record: what it is called, what is said of it, and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sciwm.model.jepa import JEPA
from sciwm.model.settings import Inputs, Objective, Sizes
from sciwm.model.twins import Network, Twin

__all__ = ["OBJECTIVES", "TWINS", "ObjectiveRecord", "build_network"]


@dataclass(frozen=True)
class ObjectiveRecord:
    """One way to train a network.

    Parameters
    ----------
    name : str
        Value of ``objective.kind``.
    method, noun : str
        What its forecasts are called in tables and stores, and what the network is.
    words : str
        What training minimises, for the methods section of a paper. Names in braces are numbers of
        `sciwm.model.settings.Objective`.
    build : callable
        From inputs, sizes and objective to an untrained network.
    reads_cells : bool
        Whether the loss compares pixels.
    hides_states : bool
        Whether tokens of every state are hidden, not only of the context.
    """

    name: str
    method: str
    noun: str
    words: str
    build: Callable[[Inputs, Sizes, Objective], Network]
    reads_cells: bool = False
    hides_states: bool = False

    def describe(self, objective: Objective, *, predictions: str) -> str:
        """Say what training minimises.

        Parameters
        ----------
        objective : Objective
            With the numbers to name.
        predictions : str
            How many states are predicted, such as "2 predictions in a row".
        """
        return self.words.format(
            predictions=predictions,
            directions=objective.num_directions,
            strength=f"{objective.strength:g}",
            decay=f"{objective.ema_decay:g}",
        )


def _twin(inputs: Inputs, sizes: Sizes, objective: Objective) -> Twin:
    # The same seed gives it the weights that a JEPA starts with.
    return Twin(JEPA(inputs, sizes, replace(objective, kind="sigreg", anchor=0.0)), objective)


_JEPA = "a joint-embedding predictive architecture"
_LATENT = "the squared error of predicted latents over {predictions}"
_PIXELS = "the squared error of the cells that one linear head gives from "
OBJECTIVES = {
    record.name: record
    for record in (
        ObjectiveRecord(
            "sigreg",
            "jepa",
            _JEPA,
            f"{_LATENT} plus a penalty on the distance of the latents from a standard normal"
            " distribution along {directions} random directions (SIGReg, weight {strength})",
            JEPA,
        ),
        ObjectiveRecord(
            "ema",
            "jepa",
            _JEPA,
            f"{_LATENT}, with a teacher network that is the moving average of the encoder (decay"
            " {decay}) and provides the targets",
            JEPA,
        ),
        ObjectiveRecord(
            "vicreg",
            "jepa",
            _JEPA,
            f"{_LATENT} plus penalties on the variance and the covariance of the latents (VICReg,"
            " weight {strength})",
            JEPA,
        ),
        ObjectiveRecord(
            "supervised",
            "supervised",
            "a network on the backbone of a JEPA, trained to forecast pixels,",
            f"{_PIXELS}predicted latents over {{predictions}}",
            _twin,
            reads_cells=True,
        ),
        ObjectiveRecord(
            "masked_autoencoder",
            "masked_autoencoder",
            "a masked autoencoder on the backbone of a JEPA",
            f"{_PIXELS}the latents of hidden tokens, every state on its own",
            _twin,
            reads_cells=True,
            hides_states=True,
        ),
        ObjectiveRecord(
            "autoencoder",
            "autoencoder",
            "an autoencoder with latent dynamics, on the backbone of a JEPA,",
            f"{_PIXELS}the latents of the context and of the next state",
            _twin,
            reads_cells=True,
        ),
    )
}
TWINS = tuple(name for name, record in OBJECTIVES.items() if record.reads_cells)


def build_network(inputs: Inputs, sizes: Sizes, objective: Objective) -> Network:
    """Build the untrained network of an objective."""
    return OBJECTIVES[objective.kind].build(inputs, sizes, objective)
