"""Simulated: global atmosphere with SPEEDY physics (T31L8), six-hourly, 24×48 cells of 7.5°."""

from pathlib import Path

import xarray as xr

from sciwm.catalogue import locate

__all__ = ["open"]

TITLE = "SPEEDY atmosphere, 4800 six-hourly states: z500, t850, u850, v850, global at 7.5°"
SIZE = "31 MB, 4800 states, 24×48"
LICENCE = "made with an Apache-2.0 model; free to share"
ORIGIN = (
    "simulated with jcm 3.0.0 (PyPI, Apache-2.0), climatological SST, after 180 days of spin-up"
)
SIMULATED = True
HOW_TO_GET = (
    "it was simulated with jcm (T31L8, SPEEDY physics, climatological SST, 2×2 block means); the"
    " file is not shipped with the package"
)
FILES = {
    "sim_speedy_6h_7p5deg.nc": "d2ba3344cda199f097a450bde14507bb9b21e2ee9ada55a7de5ad8ce3713387c"
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
        ``z500`` or ``gh500`` (geopotential height, m), ``t850`` (K), ``u850``, ``v850`` (m s-1):
        (time, latitude, longitude).

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message says where it comes from.
    """
    import sciwm

    (file,) = locate(path, FILES, how_to_get=HOW_TO_GET, checksum=checksum)
    return sciwm.open_dataset(str(file))
