"""Small synthetic worlds with known answers: for our tests and our users'.

They have the canonical form that `sciwm.open_dataset` returns and are made in well under a second.
Their best possible forecast is known in closed form. So a test can ask not only whether a method
runs but whether it is right.
"""

import json
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["DAMPING_DAYS", "DAMPING_MONTHS", "double_well", "small_climate", "small_months"]

DAMPING_DAYS = 6.0
"""e-folding time of every wave of `small_climate`, days."""
DAMPING_MONTHS = 8.0
"""e-folding time of every wave of `small_months`, months."""

# name: units, standard name, mean, amplitude of the annual cycle, spread of the anomalies
_VARIABLES: dict[str, tuple[str, str, float, float, float]] = {
    "z500": ("m2 s-2", "geopotential", 54000.0, 1500.0, 900.0),
    "gh500": ("m", "geopotential_height", 5500.0, 150.0, 90.0),
    "t850": ("K", "air_temperature", 278.0, 8.0, 3.5),
    "t2m": ("K", "air_temperature", 285.0, 10.0, 3.0),
    "msl": ("Pa", "air_pressure_at_mean_sea_level", 101500.0, 300.0, 700.0),
    "u850": ("m s-1", "eastward_wind", 5.0, 3.0, 6.0),
    "v850": ("m s-1", "northward_wind", 0.0, 1.0, 5.0),
    "sst": ("K", "sea_surface_temperature", 291.0, 3.0, 0.8),
    "ssta": ("K", "sea_surface_temperature_anomaly", 0.0, 0.0, 0.8),
}
_NOISE = 0.05  # unpredictable part, relative to the spread


def small_climate(
    *,
    years: int = 3,
    calendar: str = "standard",
    grid: tuple[int, int] = (8, 12),
    variables: tuple[str, ...] = ("z500", "t850"),
    seed: int = 0,
    missing: bool = False,
    periodic: bool = False,
    step_hours: int = 24,
) -> xr.Dataset:
    r"""Make a small climate: an annual cycle plus damped travelling waves driven by white noise.

    Every wave's complex amplitude obeys :math:`a(t+\Delta) = e^{-\Delta/T - i\omega\Delta} a(t) +
    \epsilon`, with :math:`T` = `DAMPING_DAYS`. The same waves, shifted in phase, make all
    variables. The waves move, so a linear model beats damped persistence by far. At lead
    :math:`\tau`, the best possible forecast of the anomalies has the normalised mean squared error
    :math:`1 - e^{-2\tau/T}`. Noise adds 0.25 %.

    Parameters
    ----------
    years : int
        Whole years from 1 January 2001.
    calendar : str
        ``standard`` gives ``datetime64``; ``noleap``, ``360_day``, … give ``cftime``.
    grid : (int, int)
        Latitudes and longitudes.
    variables : tuple of str
        Any of z500, gh500, t850, t2m, msl, u850, v850, sst, ssta.
    seed : int
        Seed of all random numbers.
    missing : bool
        Put NaNs into a fixed corner of the domain (land) and at 1 % of the other values.
    periodic : bool
        A global grid, on which the waves close, instead of a region from 20°W, 30°N in steps of 3°.
        Longitudes around the globe say so themselves. The attribute ``periodic`` of coordinates is
        for planes, as in ``datasets/qg.py``.
    step_hours : int
        Time step; divides 24 or is a multiple of it.

    Returns
    -------
    Dataset
        Dims (time, latitude, longitude), float32, dask-backed, with the coordinate
        ``segment(time)``.

    Examples
    --------
    >>> ds = small_climate(years=1)
    >>> dict(ds.sizes), list(ds)
    ({'time': 365, 'latitude': 8, 'longitude': 12}, ['z500', 't850'])
    """
    rng = np.random.default_rng(seed)
    latitudes, longitudes = grid
    time = _dates("2001-01-01", f"{2001 + years:04d}-01-01", f"{step_hours}h", calendar)
    if periodic:
        south, west, height, width = -90 + 90 / latitudes, 0.0, 180 / latitudes, 360 / longitudes
    else:
        south, west, height, width = 30.0, -20.0, 3.0, 3.0
    latitude = south + height * np.arange(latitudes)
    longitude = west + width * np.arange(longitudes)
    x = 2 * np.pi * np.arange(longitudes) / longitudes
    y = np.pi * (np.arange(latitudes) + 0.5) / latitudes
    zonal, meridional = (part.ravel() for part in np.meshgrid([1, 2, 3], [0, 1, 2], indexing="ij"))
    # A wave passes the domain in 12 days.
    turn = np.exp(-step_hours / 24 * (1 / DAMPING_DAYS + 1j * 2 * np.pi * zonal / 12))
    amplitude = _autoregression(rng, turn, len(time)) / (1 + meridional)
    pattern = np.cos(meridional[:, None, None] * y[:, None]) * np.exp(1j * zonal[:, None, None] * x)
    annual = np.cos(2 * np.pi * (_year_phase(time) - 0.55))
    fields = _fields(rng, amplitude, pattern, annual, variables)
    if missing:
        for field in fields.values():
            field[rng.random(field.shape) < 0.01] = np.nan
            field[:, : max(1, latitudes // 3), : max(1, longitudes // 4)] = np.nan
    return _canonical(fields, time, latitude, longitude, title="synthetic climate (simulated)")


def small_months(
    *,
    years: int = 40,
    grid: tuple[int, int] = (6, 10),
    variable: str = "sst",
    seed: int = 0,
) -> xr.Dataset:
    r"""Make a monthly record of sea surface temperature with land.

    It has slow standing and moving waves of four to two years' period. Built like `small_climate`:
    the best possible forecast of the anomalies has the normalised mean squared error
    :math:`1 - e^{-2\tau/T}` with :math:`T` = `DAMPING_MONTHS`.

    Parameters
    ----------
    years : int
        Whole years from January 1951.
    grid : (int, int)
        Latitudes and longitudes, in steps of 5° around the equator and from 180°.
    variable : {"sst", "ssta"}
        With an annual cycle, or without.
    seed : int
        Seed of all random numbers.

    Returns
    -------
    Dataset
        One variable (time, latitude, longitude), K, float32, dask-backed. NaN over land, which is
        the north-eastern corner; times are the first days of the months.

    Examples
    --------
    >>> ds = small_months(years=2)
    >>> int(ds.sst.isnull().isel(time=0).sum())
    4
    """
    rng = np.random.default_rng(seed)
    latitudes, longitudes = grid
    time = _dates("1951-01-01", f"{1951 + years}-01-01", "MS", "standard")
    latitude = 5.0 * (np.arange(latitudes) - (latitudes - 1) / 2)
    longitude = 180.0 + 5 * np.arange(longitudes)
    x, y = (np.pi * (np.arange(n) + 0.5) / n for n in (longitudes, latitudes))
    zonal, meridional = (part.ravel() for part in np.meshgrid([1, 2], [0, 1], indexing="ij"))
    turn = np.exp(-1 / DAMPING_MONTHS - 1j * 2 * np.pi * zonal / 48)
    amplitude = _autoregression(rng, turn, len(time)) / (1 + meridional)
    pattern = np.cos(meridional[:, None, None] * y[:, None]) * np.exp(1j * zonal[:, None, None] * x)
    annual = np.cos(2 * np.pi * (_year_phase(time) - 0.2))
    fields = _fields(rng, amplitude, pattern, annual, (variable,))
    fields[variable][:, -max(1, latitudes // 3) :, -max(1, longitudes // 4) :] = np.nan
    return _canonical(fields, time, latitude, longitude, title="synthetic ocean (simulated)")


def _dates(start: str, end: str, freq: str, calendar: str) -> np.ndarray:
    cftime = calendar != "standard"
    dates = xr.date_range(
        start, end, freq=freq, calendar=calendar, use_cftime=cftime, inclusive="left"
    )
    return np.asarray(dates.values)


def _year_phase(time: np.ndarray) -> np.ndarray:
    from sciwm.times import calendar_fields

    return calendar_fields(time)[0]


def _autoregression(rng: np.random.Generator, turn: np.ndarray, num_times: int) -> np.ndarray:
    """Complex first-order autoregressions of unit variance, ``[time, wave]``, steady at once."""
    real, imaginary = (rng.standard_normal((num_times, len(turn))) for _ in range(2))
    noise = (real + 1j * imaginary) / np.sqrt(2)
    kick = np.sqrt(1 - np.abs(turn) ** 2)
    out: np.ndarray = noise.copy()
    for i in range(1, num_times):
        out[i] = turn * out[i - 1] + kick * noise[i]
    return out


def _fields(
    rng: np.random.Generator,
    amplitude: np.ndarray,
    pattern: np.ndarray,
    annual: np.ndarray,
    variables: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Physical fields: mean, annual cycle, waves with a phase by variable, white noise."""
    unknown = [name for name in variables if name not in _VARIABLES]
    if unknown:
        raise ValueError(f"got variables {unknown}, expected some of {', '.join(_VARIABLES)}")
    power = np.var(amplitude, axis=0)[:, None, None] * np.abs(pattern) ** 2
    size = np.sqrt(0.5 * power.sum(0).mean())
    out = {}
    for position, name in enumerate(variables):
        _, _, mean, cycle, spread = _VARIABLES[name]
        turned = amplitude * np.exp(-1j * position * np.pi / 3)
        waves = np.einsum("tw,wyx->tyx", turned, pattern).real / size
        waves += _NOISE * rng.standard_normal(waves.shape)
        poleward = np.linspace(0.5, 1.0, pattern.shape[1])[:, None]
        field = mean + cycle * annual[:, None, None] * poleward + spread * waves
        out[name] = field.astype("float32")
    return out


def _canonical(
    fields: dict[str, np.ndarray],
    time: np.ndarray,
    latitude: np.ndarray,
    longitude: np.ndarray,
    *,
    title: str,
) -> xr.Dataset:
    dims = ("time", "latitude", "longitude")
    data: dict[str, Any] = {}
    for name, field in fields.items():
        units, standard_name = _VARIABLES[name][:2]
        attrs = {"units": units, "standard_name": standard_name}
        original = {"name": name, "attrs": attrs, "dims": dims, "difference": name == "ssta"}
        data[name] = (dims, field, {**attrs, "original": json.dumps(original)})
    north = {"units": "degrees_north", "standard_name": "latitude"}
    east = {"units": "degrees_east", "standard_name": "longitude"}
    coords: dict[str, Any] = {
        "time": ("time", time, {"standard_name": "time"}),
        "latitude": ("latitude", latitude, north),
        "longitude": ("longitude", longitude, east),
    }
    # What `sciwm.open_dataset` keeps of a grid.
    grid = {}
    for name in ("latitude", "longitude", "time"):
        _, values, attrs = coords[name]
        grid[name] = {"dim": name, "coordinate": name, "attrs": attrs, "dtype": str(values.dtype)}
    west = float(longitude[0])
    grid["latitude"] |= {"descending": False}
    grid["longitude"] |= {"descending": False, "west": west, "first": west, "cyclic": False}
    about = {"title": title, "simulated": "true", "original_grid": json.dumps(grid)}
    ds = xr.Dataset(data, coords, about).chunk({"time": 256})
    return ds.assign_coords(segment=("time", np.zeros(len(time), "int32")))


_ATOMS = ("ACE0-C", "ALA1-N", "ALA1-CA", "ALA1-C", "NME2-N")
_DIFFUSION = 0.3  # of both torsions, rad² per ps
_NUMBERS, _MASSES = (6, 7, 6, 6, 7), (12.011, 14.007, 12.011, 12.011, 14.007)
_LENGTHS, _ANGLES = (0.1335, 0.1449, 0.1522, 0.1335), np.radians([121.9, 110.3, 116.6])


def double_well(
    *, num_trajectories: int = 3, num_frames: int = 2000, step_ps: float = 1.0, seed: int = 0
) -> xr.Dataset:
    r"""Make molecule-like trajectories: five atoms in a chain, whose torsion φ hops between wells.

    φ and ψ follow overdamped Langevin dynamics in :math:`U(\phi, \psi) / kT = 2 \cos 2\phi + 0.5
    \sin\phi - 1.5 \cos(\psi - 2)`. φ stays tens of ps in the wells at −90° (the deeper) and 90°. ψ
    forgets within a few ps. Bond lengths and angles jitter, the molecule tumbles as a whole, and
    its centroid is at the origin.

    Parameters
    ----------
    num_trajectories, num_frames : int
        Independent trajectories, one segment each, and frames of each.
    step_ps : float
        Time between frames, ps.
    seed : int
        Seed of all random numbers.

    Returns
    -------
    Dataset
        ``positions`` (time, atom, xyz), float32 nm. ``phi``, ``psi`` (time,), rad in [−π, π],
        computed from the exact positions. Also ``mass``, ``atomic_number``, ``residue``, ``bonds``;
        ``time`` in ps starts anew in every segment.

    Examples
    --------
    >>> ds = double_well(num_trajectories=2, num_frames=100)
    >>> dict(ds.positions.sizes)
    {'time': 200, 'atom': 5, 'xyz': 3}
    """
    rng = np.random.default_rng(seed)
    torsions = _langevin(rng, num_trajectories, num_frames, step_ps)
    positions = _chain(rng, torsions)
    positions -= positions.mean(axis=-2, keepdims=True)
    turns = _tumbling(rng, num_trajectories, num_frames, step_ps)
    positions = np.einsum("stij,staj->stai", turns, positions)
    positions = positions.reshape(-1, len(_ATOMS), 3)
    dims, labels = ("time", "atom", "xyz"), {"units": "nm", "long_name": "atom positions, centred"}
    data: dict[str, Any] = {"positions": (dims, positions.astype("float32"), labels)}
    for name, four, which in (("phi", slice(4), "first"), ("psi", slice(1, None), "last")):
        angle = _torsion(positions[:, four]).astype("float32")
        labels = {"units": "rad", "long_name": f"torsion of the {which} four atoms"}
        data[name] = ("time", angle, labels)
    data |= {
        "mass": ("atom", np.array(_MASSES, "float32"), {"units": "Da"}),
        "atomic_number": ("atom", np.array(_NUMBERS, "int32")),
        "residue": ("atom", np.array([0, 1, 1, 1, 2], "int32")),
        "bonds": (("bond", "pair"), np.array([[0, 1], [1, 2], [2, 3], [3, 4]], "int32")),
    }
    frames = step_ps * (1 + np.arange(num_frames, dtype="float64"))
    coords = {
        "time": ("time", np.tile(frames, num_trajectories), {"units": "ps"}),
        "atom": ("atom", np.array(_ATOMS)),
        "xyz": ("xyz", np.array(["x", "y", "z"])),
    }
    title = "synthetic double well (simulated)"
    about = {"title": title, "simulated": "true", "temperature_K": 300.0}
    ds = xr.Dataset(data, coords, about)
    segment = np.repeat(np.arange(num_trajectories, dtype="int32"), num_frames)
    return ds.chunk({"time": num_frames}).assign_coords(segment=("time", segment))


def _langevin(
    rng: np.random.Generator, num_trajectories: int, num_frames: int, step_ps: float
) -> np.ndarray:
    """Torsions φ and ψ, ``[trajectory, frame, 2]``, rad: Euler-Maruyama at 0.1 ps or finer."""
    substeps = max(1, int(np.ceil(step_ps / 0.1)))
    drift = _DIFFUSION * step_ps / substeps
    kicks = np.sqrt(2 * drift) * rng.standard_normal((num_frames, substeps, 2, num_trajectories))
    phi = np.where(rng.random(num_trajectories) < 0.5, -np.pi / 2, np.pi / 2)
    psi = np.full(num_trajectories, 2.0)
    out = np.empty((num_trajectories, num_frames, 2))
    for frame in range(num_frames):
        for kick_phi, kick_psi in kicks[frame]:
            phi = phi + drift * (4 * np.sin(2 * phi) - 0.5 * np.cos(phi)) + kick_phi
            psi = psi - drift * 1.5 * np.sin(psi - 2) + kick_psi
        out[:, frame, 0], out[:, frame, 1] = phi, psi
    return out


def _chain(rng: np.random.Generator, torsions: np.ndarray) -> np.ndarray:
    """Positions of the chain, ``[trajectory, frame, atom, 3]``.

    Each atom is placed from the three before it (NeRF).
    """
    shape = torsions.shape[:2]
    length = np.array(_LENGTHS) * (1 + 0.02 * rng.standard_normal((*shape, 4)))
    angle = _ANGLES + 0.03 * rng.standard_normal((*shape, 3))
    zero = np.zeros(shape)
    first = np.zeros((*shape, 3))
    second = np.stack([length[..., 0], zero, zero], axis=-1)
    bend = np.stack([-np.cos(angle[..., 0]), np.sin(angle[..., 0]), zero], axis=-1)
    atoms = [first, second, second + length[..., 1, None] * bend]
    for i in range(2):
        a, b, c = atoms[-3:]
        along = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
        normal = np.cross(b - a, along)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        theta, torsion = angle[..., i + 1, None], torsions[..., i, None]
        side = np.cos(torsion) * np.cross(normal, along) + np.sin(torsion) * normal
        atoms.append(c + length[..., i + 2, None] * (-np.cos(theta) * along + np.sin(theta) * side))
    return np.stack(atoms, axis=-2)


def _tumbling(
    rng: np.random.Generator, num_trajectories: int, num_frames: int, step_ps: float
) -> np.ndarray:
    """Rotation matrices of a molecule that tumbles at random, ``[trajectory, frame, 3, 3]``."""
    out = np.empty((num_trajectories, num_frames, 3, 3))
    out[:, 0] = np.linalg.qr(rng.standard_normal((num_trajectories, 3, 3)))[0]
    # A rotation, not a reflection: chirality stays.
    out[:, 0] *= np.linalg.det(out[:, 0])[:, None, None]
    spin = 0.2 * np.sqrt(step_ps) * rng.standard_normal((num_trajectories, num_frames, 3))
    half = np.cross(np.eye(3), spin[:, :, None, :]) / 2
    # Cayley transform: an exact rotation.
    turn = np.linalg.solve(np.eye(3) - half, np.eye(3) + half)
    for frame in range(1, num_frames):
        out[:, frame] = turn[:, frame] @ out[:, frame - 1]
    return out


def _torsion(atoms: np.ndarray) -> np.ndarray:
    """Torsion angle of four atoms ``[..., 4, 3]``, rad in [−π, π], IUPAC sign."""
    b = np.diff(atoms, axis=-2)
    left, right = np.cross(b[..., 0, :], b[..., 1, :]), np.cross(b[..., 1, :], b[..., 2, :])
    sine = np.linalg.norm(b[..., 1, :], axis=-1) * (b[..., 0, :] * right).sum(-1)
    return np.asarray(np.arctan2(sine, (left * right).sum(-1)))
