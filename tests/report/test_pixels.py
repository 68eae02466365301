"""Images of fields: a decoder that is not ours reads back what was written."""

import numpy as np
import pytest
from reports import decoded

from sciwm.report.pixels import BETTER_WORSE, diverging_scale, field_scale, png_base64, size_scale


@pytest.mark.parametrize("smooth", [True, False])
def test_a_png_holds_the_colours_of_its_numbers(smooth):
    # The filtered image is smaller for a smooth field, the plain one for noise.
    random = np.random.default_rng(0)
    slope = np.add.outer(np.arange(21), np.arange(34))
    indices = (slope if smooth else random.integers(0, 64, (21, 34))).astype("uint8")
    colors = random.integers(0, 256, (63, 3)).astype("uint8")
    found = decoded(png_base64(indices, colors))
    there = indices < 63
    np.testing.assert_array_equal(found[there][:, :3], colors[indices[there]])
    assert (found[there][:, 3] == 255).all()
    assert (found[~there][:, 3] == 0).all()


def test_north_is_up_and_missing_is_transparent():
    field = np.array([[0.0, 1.0, 2.0], [np.nan, 3.0, 4.0]])  # south first
    scale = field_scale(field)
    found = decoded(scale.png(field))
    assert found[0, 0, 3] == 0
    np.testing.assert_array_equal(found[1, 0, :3], scale.colors[0])
    np.testing.assert_array_equal(found[0, 2, :3], scale.colors[-1])
    assert decoded(scale.bar()).shape == (1, 63, 4)


def test_scales_are_symmetric_where_zero_means_something():
    both = field_scale(np.linspace(-2.0, 1.5, 101))
    assert both.low == -both.high
    one = field_scale(np.linspace(250.0, 300.0, 101))
    assert 250 <= one.low < one.high <= 300
    error = diverging_scale(np.linspace(-1.0, 3.0, 1001))
    assert error.low == -error.high
    assert error.indices(np.zeros((1, 1)))[0, 0] == 31  # white, in the middle
    assert size_scale(np.linspace(2.0, 5.0, 11)).low == 0
    judged = diverging_scale(np.array([-1.0, 1.0]), judged=True).colors
    for k, expected in ((0, BETTER_WORSE[0]), (31, BETTER_WORSE[5]), (-1, BETTER_WORSE[-1])):
        assert "#" + "".join(f"{c:02x}" for c in judged[k]) == expected


@pytest.mark.parametrize("value", [np.nan, 7.0, 0.0])
def test_constant_and_missing_fields_have_a_scale(value):
    values = np.full((2, 2), value)
    for scale in (field_scale(values), diverging_scale(values), size_scale(values)):
        assert scale.low < scale.high
        decoded(scale.png(values))
