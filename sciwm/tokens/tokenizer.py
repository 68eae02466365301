"""What turns states into tokens: all that knows a grid from a molecule."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from sciwm.tokens.grid import GridTokenizer
from sciwm.tokens.molecule import MoleculeTokenizer
from sciwm.tokens.place import Place

__all__ = ["Tokenizer", "fit_tokenizer", "read_tokenizer"]


@runtime_checkable
class Tokenizer(Protocol):
    """Cuts states of one kind into tokens, and knows where they are.

    Parameters
    ----------
    kind : str
        Its name in files.
    num_tokens, num_features, num_cells : int
        Tokens of a state, features of a token, and cells of a token. The cells are its first
        features.
    num_outputs : int
        Cells of a token that readouts of fields give; 0 where there are no fields.
    position : Tensor, ``[token, axis]``
        Points whose distances say which tokens are near.
    area : Tensor, ``[token]``
        Share of each token in a mean over the domain.
    channel : Tensor, int, ``[output]``
        Channel of each output.
    alike : bool
        Whether cells mean the same for all tokens, up to where they are.
    noise_scale : float
        Input noise of 1, in the units of the states.
    place : Place
        What a network is told of where tokens are.
    """

    kind: str
    num_tokens: int
    num_features: int
    num_cells: int
    num_outputs: int
    alike: bool
    noise_scale: float
    place: Place
    position: Tensor
    area: Tensor
    channel: Tensor

    def tokenize(
        self, values: Float[Tensor, "*lead state"], valid: Bool[Tensor, "*lead state"] | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Features, cells, tokens that hold data and cells that were observed.

        They are those of `sciwm.tokens.record.Tokens`.
        """
        ...

    def outputs(self, values: Float[Tensor, "*lead state"]) -> Float[Tensor, "*lead token output"]:
        """What readouts of fields are to give."""
        ...

    def surroundings(
        self, values: Float[Tensor, "*lead state"], halo: int
    ) -> Float[Tensor, "*lead token feature"]:
        """Outputs of each token, and of ``halo`` cells around it."""
        ...

    def fields(self, outputs: Float[Tensor, "*lead token output"]) -> Float[Tensor, "*lead state"]:
        """Inverse of `outputs`."""
        ...

    def means(self, planes: Float[Tensor, " plane *state"]) -> Float[Tensor, "token plane"]:
        """Means of constant fields over each token."""
        ...

    def coordinates(self, ds: xr.Dataset) -> dict[str, Any]:
        """Coordinates of the dimension ``token``, for latents of the states of ``ds``."""
        ...

    def settings(self) -> dict[str, Any]:
        """What can be written as JSON; with `tensors`, all that `read_tokenizer` needs."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Numbers by name."""
        ...


_KINDS = {kind.kind: kind for kind in (GridTokenizer, MoleculeTokenizer)}


def fit_tokenizer(store: xr.Dataset, *, patch_size: tuple[int, int]) -> Tokenizer:
    """The tokenizer for the states of a training store.

    Parameters
    ----------
    store : Dataset
        From `sciwm.store.prepare.open_training_store`.
    patch_size : tuple of int
        Cells per token of a grid, ``(latitude, longitude)``; molecules have none.
    """
    return _KINDS[str(store.attrs["kind"])].fit(store, patch_size=patch_size)


def read_tokenizer(
    kind: str, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Tokenizer:
    """The tokenizer whose ``settings()`` and ``tensors()`` were written.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind not in _KINDS:
        raise ValueError(f"got tokens of kind {kind!r}, expected one of {', '.join(_KINDS)}")
    return _KINDS[kind].read(settings, tensors)
