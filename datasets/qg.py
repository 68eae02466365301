r"""Simulated: two-layer quasi-geostrophic turbulence on a doubly periodic beta plane.

A sheared flow of two layers keeps producing eddies that stir, merge and drift. It is the simplest
weather that nobody can forecast for ever. It is made here in seconds, without any download.

.. math::
    \partial_t q_i + J(\psi_i, q_i) + U_i \partial_x q_i + Q_i \partial_x \psi_i = -\delta_{i2} r
    \nabla^2 \psi_2, \qquad q_i = \nabla^2 \psi_i + F_i (\psi_{3-i} - \psi_i)

with :math:`F_1 = r_d^{-2} / (1 + \delta)`, :math:`F_2 = \delta F_1`, :math:`Q_i = \beta \pm F_i
(U_1 - U_2)`. The model is that of Phillips (1954). The solver is pseudo-spectral in space and
third-order Adams-Bashforth in time. Beyond 0.65 of the Nyquist wavenumber, an exponential filter
dealiases and dissipates enstrophy.

The streamfunctions are saved rather than the vorticities. Each is the other's linear transform, so
both hold the same information. Streamfunctions are what a pressure chart shows, and they are
smooth, so that a small latent state can hold them.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciwm.atomic import replacing

__all__ = ["Flow", "energy", "enstrophy", "integrate", "invert", "make", "potential_vorticity"]

TITLE = "Two-layer quasi-geostrophic turbulence, daily, 32×32, 11 members of 450 days"
LICENCE = "made by this code, under its licence"
ORIGIN = "simulated here by a pseudo-spectral solver of Phillips' two-layer model"
SIZE = "41 MB, made in 6 to 10 s on two free cores"
SIMULATED = True
HOW_TO_GET = "make it with `sciwm data make qg`"

# With no, one, two past rates.
_ADAMS_BASHFORTH = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12))
_FIRST_YEAR, _LAST_YEAR = 2001, 2261  # datetime64[ns] ends in 2262


@dataclass(frozen=True)
class Flow:
    r"""Physical constants and grid of the flow; by default, of an energetic ocean current.

    Parameters
    ----------
    nx : int
        Grid points along each side.
    length : float
        Side of the square, m.
    beta : float
        Northward gradient of the Coriolis parameter, m⁻¹ s⁻¹.
    deformation_radius : float
        First internal deformation radius :math:`r_d`, m.
    depth_ratio : float
        Depth of the upper layer over that of the lower one, :math:`\delta`.
    shear : float
        Eastward mean flow of the upper layer (the lower one has none), m s⁻¹: the energy source.
    drag : float
        Linear bottom drag :math:`r`, s⁻¹: the energy sink.
    time_step : float
        s.
    filtered : bool
        Apply the exponential filter.
    """

    nx: int = 32
    length: float = 5e5
    beta: float = 1.5e-11
    deformation_radius: float = 15e3
    depth_ratio: float = 0.25
    shear: float = 0.05
    drag: float = 1e-6
    time_step: float = 7200.0
    filtered: bool = True

    @property
    def stretching(self) -> tuple[float, float]:
        """:math:`F_1, F_2` in m⁻²."""
        upper = self.deformation_radius**-2 / (1 + self.depth_ratio)
        return upper, self.depth_ratio * upper


class _Operators(NamedTuple):
    """Everything diagonal in wavenumber space; complex, so that no product has to convert it."""

    gradient: Tensor  # [2, 1, ky, kx]: derivatives along x and y
    rotated: Tensor  # [2, 1, ky, kx]: streamfunction to velocities u and v
    inverse: Tensor  # [layer, layer, ky, kx]: potential vorticity to streamfunction
    forward: Tensor  # [layer, layer, ky, kx]: streamfunction to potential vorticity
    linear: Tensor  # [layer, layer, ky, kx]: rate by mean flow, mean vorticity gradients and drag
    damp: Tensor  # one step of the filter


def _operators(flow: Flow, dtype: torch.dtype) -> _Operators:
    n, f1, f2 = flow.nx, *flow.stretching
    unit = 2 * math.pi / flow.length
    ky = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) * unit)[:, None].expand(n, n // 2 + 1)
    kx = (torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64) * unit)[None, :].expand(n, n // 2 + 1)
    k2 = kx**2 + ky**2
    determinant = k2 * (k2 + f1 + f2)
    determinant[0, 0] = math.inf  # the mean streamfunction is zero
    upper, lower, zero = torch.full_like(k2, f1), torch.full_like(k2, f2), torch.zeros_like(k2)
    inverse = -_matrix(k2 + f2, upper, lower, k2 + f1) / determinant
    gradients = [flow.beta + f1 * flow.shear, flow.beta - f2 * flow.shear]
    mean_gradient = torch.tensor(gradients, dtype=torch.float64).reshape(2, 1, 1, 1)
    advection = -1j * kx * (_matrix(zero + flow.shear, zero, zero, zero) + mean_gradient * inverse)
    drag = torch.stack([torch.zeros_like(inverse[0]), flow.drag * k2 * inverse[1]])
    excess = (k2.sqrt() * flow.length / n - 0.65 * math.pi).clamp(min=0)
    complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    matrices = (
        1j * torch.stack([kx, ky]).unsqueeze(1),
        1j * torch.stack([-ky, kx]).unsqueeze(1),
        inverse,
        _matrix(-k2 - f1, upper, lower, -k2 - f2),
        advection + drag,
        torch.exp(-23.6 * excess**4) if flow.filtered else torch.ones_like(k2),
    )
    return _Operators(*(matrix.to(complex_dtype) for matrix in matrices))


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b]), torch.stack([c, d])])


def _mix(matrix: Tensor, spectrum: Tensor) -> Tensor:
    """Apply a layer-by-layer matrix at every wavenumber of ``[..., layer, ky, kx]``."""
    return matrix[:, 0] * spectrum[..., 0:1, :, :] + matrix[:, 1] * spectrum[..., 1:2, :, :]


def _tendency(qh: Tensor, flow: Flow, ops: _Operators) -> Tensor:
    """Rate of change of the potential vorticity: two batched transforms for everything."""
    shape = (2, *(1,) * (qh.ndim - 3), 1, *qh.shape[-2:])
    velocity = ops.rotated.reshape(shape) * _mix(ops.inverse, qh)
    fields = torch.fft.irfft2(torch.cat([velocity, qh.unsqueeze(0)]), s=(flow.nx, flow.nx))
    flux = torch.fft.rfft2(fields[:2] * fields[2])
    return _mix(ops.linear, qh) - (ops.gradient.reshape(shape) * flux).sum(0)


def potential_vorticity(psi: Tensor, flow: Flow) -> Tensor:
    """Potential vorticity anomalies, s⁻¹, of streamfunctions, m² s⁻¹: ``[..., layer, y, x]``."""
    ops = _operators(flow, psi.dtype)
    return torch.fft.irfft2(_mix(ops.forward, torch.fft.rfft2(psi)), s=(flow.nx, flow.nx))


def invert(vorticity: Tensor, flow: Flow) -> Tensor:
    """Streamfunctions with zero mean, m² s⁻¹, of potential vorticity anomalies, s⁻¹.

    Both are ``[..., layer, y, x]``.
    """
    ops = _operators(flow, vorticity.dtype)
    return torch.fft.irfft2(_mix(ops.inverse, torch.fft.rfft2(vorticity)), s=(flow.nx, flow.nx))


def _weights(flow: Flow, like: Tensor) -> Tensor:
    """Fractions of the depth taken by the two layers, shaped ``[layer, 1, 1]``."""
    share = flow.depth_ratio / (1 + flow.depth_ratio)
    return torch.tensor([share, 1 - share], dtype=like.dtype).reshape(2, 1, 1)


def energy(psi: Tensor, flow: Flow) -> Tensor:
    r"""Kinetic and available potential energy per unit mass, m² s⁻², of ``psi [..., layer, y, x]``.

    .. math:: E = -\tfrac12 \langle \textstyle\sum_i h_i \psi_i q_i \rangle

    with the layers' fractions :math:`h_i` of the depth. Conserved by the flow without shear, drag
    and filter.
    """
    product = _weights(flow, psi) * psi * potential_vorticity(psi, flow)
    return -0.5 * product.sum(-3).mean((-1, -2))


def enstrophy(psi: Tensor, flow: Flow) -> Tensor:
    r"""Potential enstrophy, s⁻², of ``psi [..., layer, y, x]``.

    .. math:: Z = \tfrac12 \langle \textstyle\sum_i h_i q_i^2 \rangle
    """
    return 0.5 * (_weights(flow, psi) * potential_vorticity(psi, flow) ** 2).sum(-3).mean((-1, -2))


def integrate(psi: Tensor, flow: Flow, *, num_steps: int, save_every: int) -> Iterator[Tensor]:
    """Yield the streamfunctions after every ``save_every`` of ``num_steps`` time steps.

    Parameters
    ----------
    psi : Tensor, ``[..., layer, y, x]``
        Initial streamfunctions of the two layers, m² s⁻¹; float32 or float64, which sets the
        precision.
    flow : Flow
        The flow.
    num_steps, save_every : int
        Length and interval, in time steps.

    Raises
    ------
    FloatingPointError
        If the flow blows up, because the time step is too long.
    """
    ops = _operators(flow, psi.dtype)
    qh = _mix(ops.forward, torch.fft.rfft2(psi))
    past: list[Tensor] = []
    for step in range(1, num_steps + 1):
        rate = _tendency(qh, flow, ops)
        rates = [rate, *past]
        weighted = zip(_ADAMS_BASHFORTH[len(past)], rates, strict=True)
        change = sum(weight * r for weight, r in weighted)
        past = rates[:2]
        qh = (qh + flow.time_step * change) * ops.damp
        if step % save_every == 0:
            now = torch.fft.irfft2(_mix(ops.inverse, qh), s=(flow.nx, flow.nx))
            if not torch.isfinite(now).all():
                raise FloatingPointError(
                    f"got a flow that blew up within {step} steps of {flow.time_step:g} s, expected"
                    " a shorter `time_step` or a weaker shear"
                )
            yield now


def _initial(flow: Flow, seeds: list[int]) -> Tensor:
    """Random equivalent-barotropic eddies ``[member, layer, y, x]``.

    They are near the equilibrium's size and strength.
    """
    n = flow.nx
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.stack([torch.randn(n, n, generator=g) for g in generators])
    k2 = -(_operators(flow, torch.float32).gradient ** 2).real.sum((0, 1))
    smooth = torch.exp(-k2 * (flow.deformation_radius / 0.65) ** 2)
    upper = torch.fft.irfft2(torch.fft.rfft2(noise) * smooth, s=(n, n))
    upper = upper - upper.mean((-1, -2), keepdim=True)
    upper = upper * (6.0 * flow.deformation_radius * flow.shear / upper.std((-1, -2), keepdim=True))
    return torch.stack([upper, 0.3 * upper], dim=1)


def _dates(member: int, num_times: int, save_every_hours: int) -> np.ndarray:
    """Times of one member, from a 1 January after the previous one's end: all times differ."""
    years = math.ceil((num_times + 1) * save_every_hours / (24 * 365))
    first = _FIRST_YEAR + member * years
    if first + years > _LAST_YEAR:
        raise ValueError(
            f"got {member + 1} members of {num_times} times every {save_every_hours} hours,"
            f" expected them to end before {_LAST_YEAR}, because each has its own years; ask for"
            " fewer members or times"
        )
    hours = (np.arange(num_times) * save_every_hours).astype("timedelta64[h]")
    return np.asarray(np.datetime64(f"{first}-01-01", "ns") + hours.astype("timedelta64[ns]"))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Single-threaded tensor operations.

    Members are shared out over Python threads instead, which never wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _simulate(
    flow: Flow,
    seeds: list[int],
    *,
    num_times: int,
    every: int,
    spinup: int,
    tick: Callable[[], None],
) -> np.ndarray:
    """Streamfunctions of some members, ``[member, time, layer, y, x]``."""
    out = np.empty((len(seeds), num_times, 2, flow.nx, flow.nx), "float32")
    steps = every * (num_times + spinup)
    with torch.no_grad():
        saves = integrate(_initial(flow, seeds), flow, num_steps=steps, save_every=every)
        for position, psi in enumerate(saves):
            tick()
            if position >= spinup:
                out[:, position - spinup] = psi.numpy()
    return out


def make(
    *,
    path: str | Path | None = None,
    num_members: int = 11,
    num_times: int = 450,
    save_every_hours: int = 24,
    spinup_days: int = 100,
    seed: int = 0,
    flow: Flow | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Simulate independent members and return (and write) them, labelled.

    Every member starts from its own random eddies, drawn from ``(seed, member)``. It is a segment
    of its own, dated in years of its own; use some for training, others for scoring. Python
    threads, one for each core, share the members.

    The plane is Cartesian and doubly periodic. It is labelled as a channel around the equator:
    longitude 0…360 (periodic), latitude within one degree. So cosine weights equal 1 to within
    0.02 %. The attribute ``periodic = 1`` of both coordinates says that opposite edges meet.

    Parameters
    ----------
    path : path, optional
        Where to write: ``.zarr`` or ``.nc``.
    num_members, num_times : int
        Segments, and states saved of each.
    save_every_hours : int
        Time between states.
    spinup_days : int
        Discarded beginning; 100 days reach a steady energy from these initial eddies.
    seed : int
        Seed of all members.
    flow : Flow, optional
        Physical constants and grid.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Dataset
        ``psi1``, ``psi2`` (time, latitude, longitude): streamfunctions of the upper and lower
        layer, m² s⁻¹, float32, chunked by member.

    Raises
    ------
    ValueError
        If ``save_every_hours`` is not a whole number of time steps, or the members need too many
        years.
    FileExistsError
        If ``path`` exists.

    Examples
    --------
    >>> world = make(num_members=2, num_times=3, spinup_days=1, progress=False)
    >>> dict(world.sizes)
    {'time': 6, 'latitude': 32, 'longitude': 32}
    """
    from rich.progress import Progress

    flow = flow or Flow()
    if path is not None and Path(path).exists():
        raise FileExistsError(
            f"got path {path}, which exists, expected a new one; delete it to make it again"
        )
    every = round(save_every_hours * 3600 / flow.time_step)
    if every < 1 or abs(every * flow.time_step - save_every_hours * 3600) > 1e-6:
        raise ValueError(
            f"got save_every_hours={save_every_hours}, expected a whole number of time steps of"
            f" {flow.time_step:g} s"
        )
    members = range(num_members)
    time = np.concatenate([_dates(member, num_times, save_every_hours) for member in members])
    seeds = [np.random.SeedSequence((seed, member)).generate_state(1)[0] for member in members]
    threads = min(os.cpu_count() or 1, num_members)
    shards = [shard.tolist() for shard in np.array_split(seeds, threads)]
    spinup = math.ceil(spinup_days * 24 / save_every_hours)
    length = {"num_times": num_times, "every": every, "spinup": spinup}
    with (
        Progress(disable=not progress, transient=True) as bar,
        ThreadPoolExecutor(threads) as pool,
        _one_thread_each(),
    ):
        task = bar.add_task("simulating turbulence", total=(num_times + spinup) * threads)
        tick = partial(bar.advance, task)
        jobs = [pool.submit(_simulate, flow, shard, **length, tick=tick) for shard in shards]
        psi = np.concatenate([job.result() for job in jobs])
    world = _dataset(psi, time, flow=flow, seed=seed, spinup_days=spinup_days)
    if path is not None:
        with replacing(Path(path)) as unfinished:
            if unfinished.suffix == ".zarr":
                world.to_zarr(unfinished, consolidated=False)
            else:
                world.to_netcdf(unfinished)
    return world


def _dataset(
    psi: np.ndarray, time: np.ndarray, *, flow: Flow, seed: int, spinup_days: int
) -> xr.Dataset:
    """Label streamfunctions ``[member, time, layer, y, x]``."""
    members, times, _, n, _ = psi.shape
    dims = ("time", "latitude", "longitude")
    note = (
        "label only: the plane is Cartesian and doubly periodic, see length_m in the attributes"
        " of the Dataset"
    )

    def variable(layer: int, name: str) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
        field = psi[:, :, layer].reshape(members * times, n, n)
        return dims, field, {"units": "m2 s-1", "long_name": f"streamfunction of the {name} layer"}

    apart = "dates only tell members apart; there are no seasons"
    plane = {"note": note, "periodic": 1}  # a number, since netCDF knows no truth values
    north = {"units": "degrees_north", "standard_name": "latitude", **plane}
    east = {"units": "degrees_east", "standard_name": "longitude", **plane}
    coords = {
        "time": ("time", time, {"standard_name": "time", "note": apart}),
        "latitude": ("latitude", (np.arange(n) + 0.5) * 2 / n - 1, north),
        "longitude": ("longitude", np.arange(n) * 360 / n, east),
    }
    attrs = {
        "title": f"SIMULATED (not observed): {TITLE.split(',')[0]}",
        "source": "sciwm datasets/qg.py",
        "simulated": "true",
        "coastlines": "none",
        "seed": seed,
        "spinup_days": spinup_days,
        "length_m": flow.length,
        "flow": json.dumps(asdict(flow)),
    }
    data = {"psi1": variable(0, "upper"), "psi2": variable(1, "lower")}
    numbers = np.repeat(np.arange(members, dtype="int32"), times)
    segment = ("time", numbers, {"long_name": "ensemble member"})
    return xr.Dataset(data, coords, attrs).chunk({"time": times}).assign_coords(segment=segment)
