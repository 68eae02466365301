"""The turbulence obeys its equations: conservation laws, linear waves, independence of members."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from sciwm import catalogue
from sciwm.data.open import fingerprint, open_dataset
from sciwm.times import infer_step

qg = catalogue.load("qg")


def last(psi, flow, *, days):
    """State after some days."""
    num_steps = round(days * 86400 / flow.time_step)
    return list(qg.integrate(psi, flow, num_steps=num_steps, save_every=num_steps))[-1]


def smooth(flow, *, seed=0, speed=0.1):
    """Large random eddies without anything near the grid scale, [layer, y, x]."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.fft.rfft2(
        torch.randn(2, flow.nx, flow.nx, generator=generator, dtype=torch.float64)
    )
    spectrum[:, :, 5:] = 0
    spectrum[:, 5:-4] = 0
    spectrum[:, 0, 0] = 0
    psi = torch.fft.irfft2(spectrum, s=(flow.nx, flow.nx))
    return psi / psi.std() * speed * flow.length / (2 * math.pi * 3)


def test_inversion_is_the_inverse_of_the_operator():
    flow = qg.Flow()
    psi = smooth(flow)
    assert torch.allclose(
        qg.invert(qg.potential_vorticity(psi, flow), flow), psi, rtol=1e-10, atol=1e-8
    )


def test_potential_vorticity_is_laplacian_plus_stretching():
    flow = qg.Flow(nx=64)
    x = torch.arange(64, dtype=torch.float64) * flow.length / 64
    k = 2 * math.pi * 3 / flow.length
    wave = torch.sin(k * x).expand(64, 64)
    psi = torch.stack([5 * wave, 2 * wave])
    f1 = 1 / flow.deformation_radius**2 / (1 + flow.depth_ratio)
    q1 = (-(k**2) * 5 + f1 * (2 - 5)) * wave
    q2 = (-(k**2) * 2 + f1 * flow.depth_ratio * (5 - 2)) * wave
    assert torch.allclose(
        qg.potential_vorticity(psi, flow),
        torch.stack([q1, q2]),
        rtol=0,
        atol=1e-10 * float(q1.abs().max()),
    )


def test_energy_is_kinetic_plus_potential():
    flow = qg.Flow()
    psi = smooth(flow)
    dx = flow.length / flow.nx
    share = torch.tensor([0.2, 0.8], dtype=torch.float64)
    k = torch.fft.fftfreq(flow.nx, dx, dtype=torch.float64) * 2 * math.pi
    spectrum = torch.fft.fft2(psi)
    u, v = (
        torch.fft.ifft2(1j * wavenumber * spectrum).real for wavenumber in (k[:, None], k[None, :])
    )
    kinetic = 0.5 * ((u**2 + v**2).mean((1, 2)) * share).sum()
    potential = 0.5 * 0.2 * flow.stretching[0] * ((psi[0] - psi[1]) ** 2).mean()
    assert float(qg.energy(psi, flow)) == pytest.approx(float(kinetic + potential), rel=1e-9)


def test_free_flow_conserves_energy_and_enstrophy():
    flow = qg.Flow(nx=64, shear=0.0, drag=0.0, filtered=False, time_step=900.0)
    before = smooth(flow)
    after = last(before, flow, days=2)  # before filaments reach the grid scale
    assert float((after - before).std() / before.std()) > 0.3, "the test flow hardly moved"
    assert float(qg.energy(after, flow) / qg.energy(before, flow)) == pytest.approx(1, abs=1e-5)
    assert float(qg.enstrophy(after, flow) / qg.enstrophy(before, flow)) == pytest.approx(
        1, abs=5e-5
    )


def test_drag_takes_energy_and_shear_gives_it():
    calm, sheared = qg.Flow(shear=0.0, drag=1e-5), qg.Flow(drag=0.0)
    psi = smooth(calm, speed=0.02)
    assert float(qg.energy(last(psi, calm, days=20), calm)) < 0.8 * float(qg.energy(psi, calm))
    assert float(qg.energy(last(psi, sheared, days=60), sheared)) > 1.5 * float(
        qg.energy(psi, sheared)
    )


@pytest.mark.parametrize(("mode", "barotropic"), [((1, 0), True), ((2, 3), True), ((1, 2), False)])
def test_small_waves_travel_at_rossby_speed(mode, barotropic):
    flow = qg.Flow(shear=0.0, drag=0.0, time_step=14400.0)
    kx, ky = (2 * math.pi * m / flow.length for m in mode)
    grid = torch.arange(flow.nx, dtype=torch.float64) * flow.length / flow.nx
    wave = torch.cos(kx * grid[None, :] + ky * grid[:, None])
    # the baroclinic mode carries no net transport: opposite layers, weighted by depth
    psi = 1e-3 * torch.stack([wave, wave if barotropic else -flow.depth_ratio * wave])
    days = 20 if barotropic else 200
    after = last(psi, flow, days=days)
    turn = torch.fft.fft2(after[0])[mode[1], mode[0]] / torch.fft.fft2(psi[0])[mode[1], mode[0]]
    k2 = kx**2 + ky**2 + (0 if barotropic else sum(flow.stretching))
    expected = flow.beta * kx / k2 * days * 86400  # westward: the phase grows
    assert math.remainder(float(turn.angle()) - expected, 2 * math.pi) == pytest.approx(0, abs=0.02)
    assert float(turn.abs()) == pytest.approx(1, abs=0.01)


def test_single_precision_follows_double_for_days_and_keeps_statistics():
    flow = qg.Flow()
    start = qg._initial(flow, [1, 2, 3, 4])
    single, double = last(start, flow, days=5), last(start.double(), flow, days=5)
    assert float((single - double).std() / double.std()) < 1e-3
    runs = [
        torch.stack(list(qg.integrate(x, flow, num_steps=960, save_every=60)))
        for x in (start, start.double())
    ]
    energies = [float(qg.energy(run[6:].double(), flow).mean()) for run in runs]
    assert energies[0] == pytest.approx(energies[1], rel=0.05)


def test_members_do_not_depend_on_their_number_or_on_threads(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    options = {"num_times": 4, "spinup_days": 1, "progress": False}
    few, many = (qg.make(num_members=n, **options) for n in (1, 3))
    assert few.psi1.values == pytest.approx(many.psi1.values[:4], rel=1e-4, abs=1.0)
    assert many.identical(qg.make(num_members=3, **options))
    other = qg.make(num_members=1, seed=1, **options)
    assert abs(np.corrcoef(other.psi1.values.ravel(), few.psi1.values.ravel())[0, 1]) < 0.5
    a, b = (many.psi1.values[many.segment.values == member].ravel() for member in (0, 2))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.5


def test_energy_is_steady_when_saving_starts():
    world = qg.make(num_members=4, num_times=24, save_every_hours=120, progress=False)
    psi = torch.tensor(np.stack([world.psi1.values, world.psi2.values], axis=1))
    energies = qg.energy(psi, qg.Flow()).reshape(4, 24).mean(0)
    assert float(energies[:12].mean() / energies[12:].mean()) == pytest.approx(1, abs=0.12)


def test_world_is_canonical():
    slow = qg.Flow(nx=16, shear=0.005, time_step=43200.0)
    world = qg.make(num_members=2, num_times=400, spinup_days=0, flow=slow, progress=False)
    assert world.psi1.dims == ("time", "latitude", "longitude")
    assert world.psi1.dtype == np.float32
    assert world.psi1.chunks is not None
    assert world.psi1.attrs["units"] == "m2 s-1"
    assert world.get_index("time").is_unique
    assert world.get_index("time").is_monotonic_increasing
    assert world.segment.values.tolist() == [0] * 400 + [1] * 400
    assert str(infer_step(world.time)) == "24 hours"
    weights = np.cos(np.radians(world.latitude))
    assert float(weights.min() / weights.max()) > 0.9998
    assert float(world.longitude[-1]) + 360 / 16 == 360
    assert abs(float(world.psi1.mean(("latitude", "longitude")).max())) < 1
    assert world.attrs["simulated"] == "true"
    assert world.latitude.attrs["periodic"] == world.longitude.attrs["periodic"] == 1


@pytest.mark.parametrize("name", ["world.zarr", "world.nc"])
def test_writing_and_reading_back(tmp_path, name):
    path = tmp_path / name
    world = qg.make(path=path, num_members=2, num_times=3, spinup_days=0, progress=False)
    zarr = {"engine": "zarr", "consolidated": False}
    with xr.open_dataset(path, **(zarr if path.suffix == ".zarr" else {})) as back:
        assert back.psi2.values == pytest.approx(world.psi2.values)
        assert back.segment.values.tolist() == [0, 0, 0, 1, 1, 1]
    opened = open_dataset(path)
    assert opened.latitude.attrs["periodic"] == opened.longitude.attrs["periodic"] == 1
    bare = world.assign_coords(latitude=world.latitude.drop_attrs())
    assert fingerprint(open_dataset(bare)) == fingerprint(opened)
    with pytest.raises(FileExistsError, match="exists, expected a new one"):
        qg.make(path=path, num_members=1, num_times=1)


@pytest.mark.parametrize("name", ["world.zarr", "world.nc"])
def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch, name):
    path, write = tmp_path / name, "to_zarr" if name.endswith("zarr") else "to_netcdf"
    whole = getattr(xr.Dataset, write)

    def interrupt(self, target, **options):
        whole(self, target, **options)
        assert target.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, write, interrupt)
        with pytest.raises(KeyboardInterrupt):
            qg.make(path=path, num_members=1, num_times=2, spinup_days=0, progress=False)
    assert list(tmp_path.iterdir()) == []
    qg.make(path=path, num_members=1, num_times=2, spinup_days=0, progress=False)
    assert list(tmp_path.iterdir()) == [path]


def test_threads_are_restored(monkeypatch):
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    qg.make(num_members=1, num_times=2, spinup_days=0, progress=True)
    assert seen == [1, before]


def test_impossible_requests_are_refused():
    whole = "save_every_hours=3, expected a whole number of time steps of 7200 s"
    with pytest.raises(ValueError, match=whole):
        qg.make(save_every_hours=3, progress=False)
    with pytest.raises(ValueError, match="expected them to end before 2261"):
        qg.make(num_members=300, progress=False)
    flow = qg.Flow(time_step=86400.0)
    with pytest.raises(FloatingPointError, match="expected a shorter `time_step`"):
        qg.make(num_members=1, num_times=60, spinup_days=0, flow=flow, progress=False)
