"""Names, units, looks and lead times."""

import numpy as np
import pytest
import xarray as xr
from reports import METHODS

from sciwm.report.labels import Leads, lead_axis, looks
from sciwm.skill.metrics import (
    Metric,
    better,
    is_dimensionless,
    metric_name,
    pretty_units,
    short_name,
)


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


def test_metrics_of_other_tables_are_shown():
    for name in ("fss_50km", "fss_4", "their_score"):
        assert short_name(name) == metric_name(name)
    assert better("fss_50km") == "higher"
    assert is_dimensionless("fss_50km")
    assert (better("their_score"), is_dimensionless("their_score")) == ("lower", False)
    with pytest.raises(ValueError, match="which can only be shown"):
        Metric("theirs", "theirs", None)(xr.DataArray(1.0))
