"""Series of indices and torsions beside the truth."""

import cftime
import numpy as np
import xarray as xr

from sciwm.report.fields import match_fields
from sciwm.report.series import series_figure


def test_series_of_an_index_in_a_model_calendar(drawn):
    time = np.array([cftime.Datetime360Day(2000 + m // 12, m % 12 + 1, 16) for m in range(24)])
    observed = xr.Dataset({"nino34": ("time", np.arange(24.0), {"units": "K"})}, {"time": time})
    lead = ("lead_time", np.array([3]), {"units": "months"})
    values = np.arange(20.0)[:, None, None] + 3
    forecast = xr.Dataset(
        {"index": (("init_time", "lead_time", "component"), values)},
        {"init_time": time[:20], "lead_time": lead, "component": ["nino34"]},
    )
    (field,), remarks = match_fields(forecast, observed)
    assert remarks == []
    text = series_figure(field, picked=[0], key="a")
    assert text == "Series of nino34, forecast and truth by valid time, at lead 3 months."
    truth, drawn_forecast = (line.get_ydata() for line in drawn[0].axes[0].lines)
    np.testing.assert_array_equal(truth, drawn_forecast)
    assert "hours since 1970" in drawn[0].axes[0].get_xlabel()
    legend = drawn[0].axes[0].get_legend().get_window_extent()
    assert legend.x0 < 0.1 * drawn[0].bbox.width, "a phone shows the left end of the figure"
    assert legend.y1 <= drawn[0].axes[0].get_window_extent().y1 + 60
