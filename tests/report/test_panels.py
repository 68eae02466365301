"""Map panels: which cells are shown where, axes, coastlines."""

import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np

from sciwm.report.panels import coastlines, map_frame

GLOBE = (np.linspace(-88.0, 88.0, 45), np.arange(0.0, 360.0, 4.0))


def test_even_grids_are_shown_cell_by_cell_and_fine_ones_thinned():
    whole = map_frame(*GLOBE, key="a", lines=[])
    field = np.random.default_rng(0).normal(size=(3, 45, 90))
    np.testing.assert_array_equal(whole.cells(field), field)
    thin = map_frame(*GLOBE, key="a", lines=[], most_cells=1000)
    assert 700 < thin.cells(field)[0].size <= 1300
    assert thin.rows[0] == 0
    assert thin.columns[-1] == 89


def test_uneven_latitudes_take_the_nearest_cell():
    latitude = np.array([-85.0, -50.0, -20.0, 0.0, 20.0, 50.0, 85.0])
    frame = map_frame(latitude, np.arange(0.0, 360.0, 30.0), key="a", lines=[])
    expected = [latitude[np.abs(latitude - v).argmin()] for v in np.linspace(-85, 85, 7)]
    np.testing.assert_array_equal(latitude[frame.rows], expected)


def test_coastlines_are_shifted_into_the_map_and_clipped():
    lines = [
        np.array([[10.0, 0.0], [20.0, 5.0]]),
        np.array([[-40.0, 0.0], [-30.0, 5.0]]),
        np.array([[10.0, 95.0], [20.0, 99.0]]),
    ]
    frame = map_frame(*GLOBE, key="a", lines=lines)
    (path,) = re.findall(r'class="coast" clip-path="url\(#a-clip\)" d="([^"]*)"', frame.overlay)
    points = np.array([[float(v) for v in p.split()] for p in re.split("[ML]", path)[1:]])
    west, east, left, wide = -2.0, 358.0, 38.0, 340.0 - 38.0 - 6.0
    degrees = np.array([10.0, 20.0, 320.0, 330.0])  # 40–30°W lies at 320–330
    expected = left + (degrees - west) / (east - west) * wide
    np.testing.assert_allclose(np.sort(points[:, 0]), expected, atol=0.06)
    assert '<clipPath id="a-clip">' in frame.definition()


def test_axes_are_in_degrees_on_the_earth_only():
    europe = map_frame(np.arange(30.0, 61.0, 1.5), np.arange(-20.0, 15.0, 1.5), key="a", lines=[])
    texts = re.findall(r">([^<>]*)</text>", europe.overlay)
    assert {"30°N", "60°N", "20°W", "0°", "10°E"} <= set(texts)
    assert "180°" in re.findall(r">([^<>]*)</text>", map_frame(*GLOBE, key="a", lines=[]).overlay)
    plane = map_frame(np.linspace(-1, 1, 32), np.arange(0, 360, 11.25), key="a", lines=None)
    assert "<text" not in plane.overlay
    assert plane.height == 340.0 - 38.0 - 6.0  # square cells


def test_a_panel_is_labelled_and_names_cannot_break_out():
    panel = map_frame(*GLOBE, key="a", lines=[]).panel("AAAA", 'error of "x" <b>')
    assert 'role="img" aria-label="error of &quot;x&quot; &lt;b&gt;"' in panel
    assert 'href="data:image/png;base64,AAAA"' in panel


def test_coastlines_only_from_data_already_there(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cartopy", None)
    assert coastlines() == []
    cartopy, io = ModuleType("cartopy"), ModuleType("cartopy.io")
    line = SimpleNamespace(coords=[(0.0, 1.0), (2.0, 3.0)])
    io.shapereader = SimpleNamespace(Reader=lambda path: SimpleNamespace(geometries=lambda: [line]))
    cartopy.config = {"pre_existing_data_dir": "", "data_dir": tmp_path}
    monkeypatch.setitem(sys.modules, "cartopy", cartopy)
    monkeypatch.setitem(sys.modules, "cartopy.io", io)
    assert coastlines() == []
    file = tmp_path / "shapefiles/natural_earth/physical/ne_110m_coastline.shp"
    file.parent.mkdir(parents=True)
    file.touch()
    np.testing.assert_array_equal(coastlines()[0], [[0, 1], [2, 3]])
