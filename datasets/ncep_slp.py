"""NCEP/NCAR Reanalysis 1: daily mean sea-level pressure, North Atlantic, 2001–2010, 17×33 cells."""

from pathlib import Path

import xarray as xr

from sciwm.catalogue import locate

__all__ = ["open"]

TITLE = "NCEP/NCAR sea-level pressure, daily means 2001–2010 at 2.5°, 30–70°N 70°W–10°E"
SIZE = "16 MB, 3652 days, 17×33"
LICENCE = "NOAA, public; packed in climate4R.datasets (LGPL-3)"
ORIGIN = "NCEP/NCAR Reanalysis 1, NOAA PSL, as packed in the R package climate4R.datasets"
SIMULATED = False
HOW_TO_GET = (
    "take daily means of sea-level pressure of NCEP/NCAR Reanalysis 1 from NOAA PSL (psl.noaa.gov),"
    " cut to 30–70°N 70°W–10°E, as one netCDF file"
)
FILES = {
    "ncep_slp_natlantic_daily_2001_2010.nc": (
        "f38a5bd006fa6c9084f4be040c87f82cc18dc05a00863f19a78653f65d3f7a53"
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
        ``msl`` (Pa): (time, latitude, longitude).

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message says where it comes from.
    """
    import sciwm

    (file,) = locate(path, FILES, how_to_get=HOW_TO_GET, checksum=checksum)
    return sciwm.open_dataset(str(file))
