"""Every objective in one record: what it is called, what is said of it, and how it is built."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from sciwm.model.convnet import ConvNet
from sciwm.model.dynamics import ContextOnly, SlidingHistory, make_dynamics
from sciwm.model.encoder import Cells, Whitened
from sciwm.model.jepa import JEPA
from sciwm.model.latents import LatentPrediction
from sciwm.model.mixing import DistanceMixing
from sciwm.model.pixels import (
    Autoencoding,
    MaskedAutoencoding,
    PixelForecast,
    identity_head,
    linear_head,
)
from sciwm.model.settings import Inputs, ObjectiveSettings, Sizes

__all__ = ["OBJECTIVES", "TWINS", "ObjectiveRecord", "build_network", "randomize"]


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
        `sciwm.model.settings.ObjectiveSettings`.
    build : callable
        From inputs, sizes and settings to an untrained network.
    reads_cells : bool
        Whether the loss compares pixels.
    hides_states : bool
        Whether tokens of every state are hidden, not only of the context.
    needs_grid : bool
        Whether states must have rows and columns.
    """

    name: str
    method: str
    noun: str
    words: str
    build: Callable[[Inputs, Sizes, ObjectiveSettings], JEPA]
    reads_cells: bool = False
    hides_states: bool = False
    needs_grid: bool = False

    def describe(self, settings: ObjectiveSettings, *, predictions: str) -> str:
        """Say what training minimises.

        Parameters
        ----------
        settings : ObjectiveSettings
            With the numbers to name.
        predictions : str
            How many states are predicted, such as "2 predictions in a row".
        """
        return self.words.format(
            predictions=predictions,
            directions=settings.num_directions,
            strength=f"{settings.strength:g}",
            decay=f"{settings.ema_decay:g}",
        )


def _jepa(inputs: Inputs, sizes: Sizes, settings: ObjectiveSettings) -> JEPA:
    encoder = Whitened(inputs, sizes, frozen=settings.kind == "whitened")
    dynamics = make_dynamics(inputs, sizes)
    return JEPA(encoder, dynamics, LatentPrediction(inputs, encoder, settings), sizes)


def _twin(inputs: Inputs, sizes: Sizes, settings: ObjectiveSettings) -> JEPA:
    # The same seed gives it the weights that a JEPA starts with.
    encoder, dynamics = Whitened(inputs, sizes), make_dynamics(inputs, sizes)
    head = linear_head(encoder.latent_dim, inputs)
    if settings.kind == "supervised":
        return JEPA(encoder, dynamics, PixelForecast(inputs, head, settings), sizes)
    return JEPA(encoder, dynamics, Autoencoding(head, settings), sizes)


def _masked(inputs: Inputs, sizes: Sizes, settings: ObjectiveSettings) -> JEPA:
    encoder = Whitened(inputs, sizes)
    decoder = SlidingHistory(inputs, replace(sizes, history=1, noise_dim=0))
    head = linear_head(encoder.latent_dim, inputs)
    still = ContextOnly(sizes.history, encoder.latent_dim)
    return JEPA(encoder, still, MaskedAutoencoding(decoder, head, settings), sizes)


def _convnet(inputs: Inputs, sizes: Sizes, settings: ObjectiveSettings) -> JEPA:
    objective = PixelForecast(inputs, identity_head(inputs), settings)
    return JEPA(Cells(inputs), ConvNet(inputs, sizes), objective, sizes)


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
            _jepa,
        ),
        ObjectiveRecord(
            "ema",
            "jepa",
            _JEPA,
            f"{_LATENT}, with a teacher network that is the moving average of the encoder (decay"
            " {decay}) and provides the targets",
            _jepa,
        ),
        ObjectiveRecord(
            "vicreg",
            "jepa",
            _JEPA,
            f"{_LATENT} plus penalties on the variance and the covariance of the latents (VICReg,"
            " weight {strength})",
            _jepa,
        ),
        ObjectiveRecord(
            "whitened",
            "whitened",
            "latent dynamics on principal components of patches, a frozen encoder in closed form,",
            _LATENT,
            _jepa,
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
            _masked,
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
        ObjectiveRecord(
            "convnet",
            "convnet",
            "a plain residual convolutional network on pixels",
            "the squared error of forecast cells over {predictions}",
            _convnet,
            reads_cells=True,
            needs_grid=True,
        ),
    )
}
TWINS = tuple(name for name, record in OBJECTIVES.items() if record.reads_cells)


def build_network(inputs: Inputs, sizes: Sizes, settings: ObjectiveSettings) -> JEPA:
    """Build the untrained network of an objective."""
    return OBJECTIVES[settings.kind].build(inputs, sizes, settings)


@torch.no_grad()
def randomize(network: nn.Module) -> None:
    """Draw every weight at random, also those that begin as a whitening or at zero.

    What it then encodes and predicts are random features of its input.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm | DistanceMixing):
            module.reset_parameters()
        elif isinstance(module, Whitened):
            nn.init.normal_(module.matrix, std=module.matrix.shape[-2] ** -0.5)
