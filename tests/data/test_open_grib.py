"""GRIB files open like any other store, where cfgrib is installed."""

from pathlib import Path

import numpy as np
import pytest

from sciwm.data.open import open_dataset, to_original

eccodes = pytest.importorskip("eccodes", reason="GRIB needs the extra sciwm[grib]")
pytest.importorskip("cfgrib", reason="GRIB needs the extra sciwm[grib]")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:cfgrib", "ignore::FutureWarning:cfgrib"
)


def _write(path: Path, day: int, name: str, kind: str, level: int, values: np.ndarray) -> None:
    message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib1")
    keys = {"Ni": 6, "Nj": 3}
    keys |= {"latitudeOfFirstGridPointInDegrees": 60, "latitudeOfLastGridPointInDegrees": 0}
    keys |= {"longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 300}
    keys |= {"iDirectionIncrementInDegrees": 60, "jDirectionIncrementInDegrees": 30}
    keys |= {"date": 20010100 + day, "time": 0}
    keys |= {"typeOfLevel": kind, "level": level, "shortName": name}
    for key, value in keys.items():
        eccodes.codes_set(message, key, value)
    eccodes.codes_set_values(message, values.ravel())
    with path.open("ab") as file:
        eccodes.codes_write(message, file)
    eccodes.codes_release(message)


def test_grib_with_levels_and_surface_fields(tmp_path: Path) -> None:
    path = tmp_path / "era5.grib"
    base = np.arange(18.0).reshape(3, 6)
    for day in range(1, 5):
        for level in (500, 850):
            _write(path, day, "z", "isobaricInhPa", level, base + level + 100 * day)
        _write(path, day, "2t", "surface", 0, 280 + base + day)
        _write(path, day, "msl", "surface", 0, 100000 + base)
    ds = open_dataset(path)
    assert set(ds.data_vars) == {"z", "t2m", "msl"}
    assert ds["z"].dims == ("time", "level", "latitude", "longitude")
    assert ds["level"].values.tolist() == [500.0, 850.0]
    np.testing.assert_allclose(ds["t2m"][2], 283 + base[::-1], atol=1e-2)
    chosen = open_dataset(path, variables=["z850", "t2m"])
    np.testing.assert_allclose(chosen["z850"][0], 950 + base[::-1], atol=1e-2)
    assert to_original(chosen)["z"].sizes["isobaricInhPa"] == 1


def test_damaged_grib_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.grib").write_bytes(b"GRIB" + bytes(60))
    with pytest.raises(ValueError, match=r"bad\.grib.*damaged"):
        open_dataset(tmp_path / "bad.grib")
