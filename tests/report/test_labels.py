"""Names, units, looks and lead times."""

import numpy as np
import pytest
import xarray as xr
from reports import METHODS

from sciwm.report.labels import Leads, lead_axis, looks
from sciwm.skill.metrics import pretty_units


def test_labels():
    assert pretty_units("kg m-2 s-1") == "kg m⁻² s⁻¹"
    assert pretty_units("m**2 s**-2") == "m² s⁻²"
    assert pretty_units("1") == ""
    assert Leads((1.0, 2.0, 3.0, 5.0, 7.0), "days").text([0, 1, 3, 4]) == "1, 2, 5 and 7 days"
    assert Leads((1.0,), "months").text([0]) == "1 month"
    short, long = (xr.DataArray(np.array([6, h], "m8[h]"), dims="lead_time") for h in (36, 126))
    assert lead_axis(short) == Leads((6.0, 36.0), "hours")
    assert lead_axis(long) == Leads((0.25, 5.25), "days")
    with pytest.raises(ValueError, match="months or ps"):
        lead_axis(xr.DataArray([1, 2], dims="lead_time"))
    names = [*METHODS, "a", "b"]
    look = looks(names)
    assert len({(v.color, v.dash, v.marker) for v in look.values()}) == len(names)
    assert len({v.label for v in look.values()}) == len(names)
