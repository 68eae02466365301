"""A wrong shape or type is an error while tests run, even one that would pass unseen."""

import jaxtyping
import pytest
import torch
from type_checks import unchecked

from sciwm.model.encoder import Whitened
from sciwm.model.loss import pixel_error
from sciwm.model.settings import Inputs, Sizes
from sciwm.model.whitening import Whitening
from sciwm.times import Step
from sciwm.tokens.place import Place
from sciwm.tokens.positions import fourier_features


def test_a_token_function_refuses_a_wrong_number_of_dimensions():
    with pytest.raises(jaxtyping.TypeCheckError, match="'position'"):
        fourier_features(torch.zeros(5))


def test_a_network_refuses_sizes_that_disagree():
    inputs = Inputs(Place(torch.zeros(6, 2)), Whitening.blank(groups=1, features=3), num_cells=3)
    encoder = Whitened(inputs, Sizes())
    assert encoder(torch.zeros(4, 6, 3)).shape == (4, 6, 3)
    with pytest.raises(jaxtyping.TypeCheckError, match="'features'"):
        encoder(torch.zeros(6, 3))  # would be taken for states of three tokens


def test_types_are_checked_too_and_an_int_is_a_float():
    assert Step(6, "hours") == Step(6.0, "hours")
    with pytest.raises(jaxtyping.TypeCheckError, match="'value'"):
        Step("6", "hours")


def test_checks_can_be_lifted():
    wrong = torch.ones(3, 1), torch.zeros(3, 4), torch.ones(3, 4, dtype=torch.bool)
    with pytest.raises(jaxtyping.TypeCheckError, match="'cells'"):
        pixel_error(*wrong)
    with unchecked():
        assert pixel_error(*wrong) == 1
