"""Kaplan's sea surface temperature anomalies of the tropical Pacific, monthly 1856–1995.

Reconstructed on 12×22 cells of 5°. They are smooth by construction (an analysis in 80 EOFs) and
sparsely observed before about 1950. So they are easy to forecast too well.
"""

from pathlib import Path

import xarray as xr

from sciwm.catalogue import locate

__all__ = ["open"]

TITLE = (
    "Kaplan extended SST v2 anomalies, tropical Pacific, monthly 1856–1995 at 5°,"
    " 30°S–30°N 180–70°W"
)
SIZE = "3 MB, 1680 months, 12×22"
LICENCE = "LDEO / NOAA PSL: name the source; may not be redistributed"
ORIGIN = (
    "Kaplan et al. 1998 (LDEO / NOAA PSL), via github.com/marchtaylor/sinkr at 3f235c07"
    " (data/sst.rda)"
)
SIMULATED = False
HOW_TO_GET = (
    "Kaplan's SST comes from LDEO and NOAA PSL and may not be redistributed, so it is not shipped:"
    " take it from NOAA PSL, or from the R package sinkr (github.com/marchtaylor/sinkr), and write"
    " one netCDF file with the variable ssta"
)
FILES = {
    "kaplan_sst_pacific_monthly_1856_1995.nc": (
        "0886de1f76bc786a4be9cd74fa1536c0461969d559294f6db0b579a23f7596c6"
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
        ``ssta`` (time, latitude, longitude), K, departures from 1951–1980; NaN over land.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message says where it comes from.
    """
    import sciwm

    (file,) = locate(path, FILES, how_to_get=HOW_TO_GET, checksum=checksum)
    return sciwm.open_dataset(str(file))
