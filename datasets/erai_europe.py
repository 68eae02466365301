"""ERA-Interim over Europe: z500, t850, msl once a day at 12 UTC, 2000–2008, 21×24 cells of 1.5°."""

from pathlib import Path

import xarray as xr

from sciwm.catalogue import locate

__all__ = ["open"]

TITLE = "ERA-Interim Europe, daily 12 UTC 2000–2008: z500, t850, msl at 1.5°, 60–30°N 20°W–14.5°E"
SIZE = "8 MB, 3288 days, 21×24"
LICENCE = "ECMWF: name the source; may not be redistributed"
ORIGIN = "ECMWF ERA-Interim, via github.com/lemuscanovas/synoptReg at 7d9c101 (inst/extdata)"
SIMULATED = False
HOW_TO_GET = (
    "ERA-Interim comes from ECMWF and may not be redistributed, so it is not shipped: take it from"
    " ECMWF, or from the R package synoptReg (github.com/lemuscanovas/synoptReg), and write one"
    " netCDF file with z500, t850 and msl"
)
FILES = {
    "erai_europe_daily_2000_2008.nc": (
        "5a325c53e7a4eca511218364eda1be61ac9a5a2ad248ee875d77bdcf1b787c1e"
    )
}


def open(path: str | Path, *, checksum: bool = False) -> xr.Dataset:
    """Open the file lazily, in canonical form.

    Parameters
    ----------
    path : path
        The file, or the folder it lies in.
    checksum : bool
        Check first that it is the very file of our results.

    Returns
    -------
    Dataset
        ``z500`` (m2 s-2), ``t850`` (K), ``msl`` (Pa): (time, latitude, longitude).

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message says where it comes from.
    """
    import sciwm

    (file,) = locate(path, FILES, how_to_get=HOW_TO_GET, checksum=checksum)
    return sciwm.open_dataset(str(file))
