"""Spectra and rank histograms as figures and as tables."""

import numpy as np
import pytest
import xarray as xr
from reports import diagnostics_table

from sciwm.report.curves import rank_figures, rank_frame, spectrum_figures, spectrum_frame


def test_a_spectrum_and_its_ratio_are_drawn_at_the_first_and_the_last_lead(drawn):
    table = diagnostics_table()
    texts = spectrum_figures(table)
    assert len(texts) == 4
    assert texts[1].startswith("Power of t850 at a lead of 5 days by zonal wavenumber.")
    top, bottom = drawn[1].axes
    last = table.sel(channel="t850").isel(lead_time=-1)
    observed = last["observed_spectrum"].values[1:]
    jepa = last["spectrum"].loc[{"method": "jepa"}].values[1:]
    np.testing.assert_allclose(top.lines[0].get_ydata(), jepa)
    np.testing.assert_allclose(top.lines[-1].get_ydata(), observed)
    np.testing.assert_allclose(bottom.lines[0].get_ydata(), jepa / observed)
    half = slice(len(observed) // 2, None)
    share = 100 * jepa[half].sum() / observed[half].sum()
    assert f"JEPA (residual readout) {share:.0f} %" in texts[1]


def test_what_has_no_spectrum_is_left_out(drawn):
    table = diagnostics_table()
    table["observed_spectrum"].loc[{"channel": "t850"}] = np.nan
    assert len(spectrum_figures(table)) == 2
    table["spectrum"].loc[{"method": "lim"}] = np.nan
    assert "Linear inverse model" not in spectrum_figures(table)[0]


def test_rank_histograms_are_drawn_for_ensembles_only(drawn):
    table = diagnostics_table()
    texts = rank_figures(table)
    assert len(texts) == 4
    assert all("Members" in t for t in texts)
    bars = [b.get_height() for b in drawn[0].axes[0].patches]
    expected = table["rank_frequency"].loc[{"method": "members", "channel": "t850"}]
    np.testing.assert_allclose(bars, expected.isel(lead_time=0))


def test_tables_hold_the_same_numbers():
    table = diagnostics_table()
    spectra = spectrum_frame(table)
    assert set(spectra["method"]) == {"jepa", "lim", "members", "observed"}
    row = spectra.query("channel == 't850' and lead == 5 and method == 'observed'")
    expected = table["observed_spectrum"].sel(channel="t850").isel(lead_time=-1)
    np.testing.assert_allclose(row["power"], expected)
    assert set(spectra["units"]) == {"(K)^2", "(m s-1)^2"}
    ranks = rank_frame(table)
    assert set(ranks["method"]) == {"members"}
    assert ranks.groupby(["channel", "lead"])["frequency"].mean().values == pytest.approx(1.0)
    single = rank_frame(table.isel(lead_time=[0]))
    assert len(single) == 2 * table.sizes["rank"]
    assert isinstance(table, xr.Dataset)
