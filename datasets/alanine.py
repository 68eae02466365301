"""Simulated: alanine dipeptide (ACE-ALA-NME) in implicit solvent.

It is the smallest molecule with an interesting torsion. At 450 K the torsion φ changes wells every
150 ps or so. At 300 K it never does within 80 ns. Heavy atoms only, centred, not rotated;
int16-packed at 10⁻⁴ nm.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciwm.catalogue import locate

__all__ = ["make", "open"]

TITLE = (
    "alanine dipeptide, 4 trajectories at 450 K (54 ns, 1 ps) and one at 300 K (40 ns, 2 ps),"
    " 10 heavy atoms"
)
SIZE = "5 MB, 74,332 frames"
LICENCE = "made by this code, free to share"
ORIGIN = (
    "simulated with OpenMM 8.6.1: amber14 (ff14SB), OBC2 implicit solvent,"
    " LangevinMiddle 2 fs, 1 ps⁻¹"
)
SIMULATED = True
HOW_TO_GET = (
    "make it with `sciwm data make alanine` (needs `pip install sciwm[md]`; 15 ns take a few"
    " minutes on one core)"
)
# SHA-256 by number of the trajectory, by temperature.
_SUMS = {
    450: [
        "bbcbe6f392666f3af5b431b663d4d26f51465c2401a516a3dc44f115e45b13a6",
        "5c3b63829eca18fc3b568c29f2f9525306a052dc05cd384b6b944d6880512ed4",
        "cd43345d728843c24f0db179108c804b2a4d6d5efc59c9dc929cbf7c9acf76d9",
        "6640977f0345d4c4a5402d1f59801a8a4e04c6fd25ca8f7f47eeb25536f59a66",
    ],
    300: [
        "5df2789c044a76c416f0a328c749798437fc937e49372bfd77ed3056474cfc4d",
    ],
}
FILES = {
    temperature: {
        f"alanine_dipeptide_{temperature}K_heavy_{number}.nc": checksum
        for number, checksum in enumerate(checksums)
    }
    for temperature, checksums in _SUMS.items()
}

_PHI = (("ACE", "C"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "C"))
_PSI = (("ALA", "N"), ("ALA", "CA"), ("ALA", "C"), ("NME", "N"))
# residue, atom, element, the three atoms it is placed from, bond length (nm), angle and torsion
# (degrees)
_HEAVY: tuple[tuple[str, str, str, tuple[int, int, int] | None, float, float, float], ...] = (
    ("ACE", "CH3", "C", None, 0.0, 0.0, 0.0),
    ("ACE", "C", "C", None, 0.1522, 0.0, 0.0),
    ("ACE", "O", "O", (3, 0, 1), 0.1229, 120.4, 180.0),
    ("ALA", "N", "N", None, 0.1335, 116.6, 0.0),
    ("ALA", "CA", "C", (0, 1, 3), 0.1449, 121.9, 180.0),
    ("ALA", "CB", "C", (1, 3, 4), 0.1526, 109.7, 158.0),
    ("ALA", "C", "C", (1, 3, 4), 0.1522, 110.3, -80.0),
    ("ALA", "O", "O", (3, 4, 6), 0.1229, 120.4, -100.0),
    ("NME", "N", "N", (3, 4, 6), 0.1335, 116.6, 80.0),
    ("NME", "C", "C", (4, 6, 8), 0.1449, 121.9, 180.0),
)
_BONDS = ((0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9))
_TIME_STEP_FS, _FRICTION_PER_PS, _EQUILIBRATION_PS = 2.0, 1.0, 100.0


def open(path: str | Path, *, temperature: int = 450, checksum: bool = False) -> xr.Dataset:
    """Open all trajectories of one temperature lazily, in canonical form, one segment each.

    Parameters
    ----------
    path : path
        The folder with the files, or one file (also one from `make`).
    temperature : {450, 300}
        K; which of the reference trajectories to take from a folder.
    checksum : bool
        Check first that they are the very files of our results.

    Returns
    -------
    Dataset
        ``positions`` (time, atom, xyz), nm; ``phi``, ``psi`` (time,), rad.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message says how to make it.
    ValueError
        If there are no trajectories of that temperature.
    """
    import sciwm

    if temperature not in FILES:
        raise ValueError(
            f"got temperature {temperature} K, expected one of {', '.join(map(str, FILES))}; `make`"
            " simulates others"
        )
    files = locate(path, FILES[temperature], how_to_get=HOW_TO_GET, checksum=checksum)
    return sciwm.open_dataset([str(file) for file in files])


def make(
    *,
    path: str | Path | None = None,
    temperature: float = 450.0,
    nanoseconds: float = 15.0,
    save_every_ps: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Simulate one trajectory with OpenMM and return (and write) its heavy atoms.

    Runs on OpenMM's Reference platform with the native generalised-Born force. For 22 atoms that is
    many times faster than the CPU platform, whose threads would wait for each other. Trajectories
    with different seeds are independent.

    Parameters
    ----------
    path : path, optional
        netCDF file to write, packed into int16.
    temperature : float
        K.
    nanoseconds : float
        Length, after 100 ps of equilibration.
    save_every_ps : float
        Time between frames, ps.
    seed : int
        Seed of velocities and of the thermostat.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Dataset
        As the reference files: ``positions`` (time, atom, xyz), nm, centred, not rotated, and
        ``phi``, ``psi`` (time,), rad. Also ``mass``, ``atomic_number``, ``residue``, ``bonds``;
        ``time`` in ps.

    Raises
    ------
    ModuleNotFoundError
        If OpenMM is not installed.
    FileExistsError
        If ``path`` exists.
    """
    if path is not None and Path(path).exists():
        raise FileExistsError(
            f"got path {path}, which exists, expected a new one; delete it to make it again"
        )
    try:
        import openmm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "got no OpenMM, expected it for making molecular trajectories: `pip install sciwm[md]`"
        ) from error
    topology, start, system = _system()
    heavy = np.array([atom.index for atom in topology.atoms() if atom.element.symbol != "H"])
    frames = _simulate(
        system,
        start,
        heavy,
        temperature=temperature,
        num_frames=round(nanoseconds * 1000 / save_every_ps),
        stride=round(save_every_ps * 1000 / _TIME_STEP_FS),
        seed=seed,
        progress=progress,
    )
    attrs = {
        "temperature_K": temperature,
        "save_interval_ps": save_every_ps,
        "seed": seed,
        "software": f"OpenMM {openmm.__version__}",
    }
    trajectory = _dataset(topology, frames, save_every_ps=save_every_ps, attrs=attrs)
    if path is not None:
        chunks = (min(5000, len(frames)), len(heavy), 3)
        packed: dict[str, Any] = {"dtype": "int16", "_FillValue": -32768, "scale_factor": 1e-4}
        packed |= {"zlib": True, "complevel": 4, "shuffle": True}
        encoding = {"positions": {**packed, "chunksizes": chunks}, "phi": packed, "psi": packed}
        trajectory.to_netcdf(path, encoding=encoding)
    return trajectory


def _place(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, length: float, angle: float, torsion: float
) -> np.ndarray:
    """Position at ``length`` from c with the angle (b, c, ·) and torsion (a, b, c, ·), degrees."""
    theta, phi = np.radians(angle), np.radians(torsion)
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    side = np.cos(phi) * np.cross(normal, along) + np.sin(phi) * normal
    return np.asarray(c + length * (-np.cos(theta) * along + np.sin(theta) * side))


def _system() -> tuple[Any, np.ndarray, Any]:
    """Topology with hydrogens, starting positions (nm) and forces."""
    import openmm
    from openmm import app, unit

    topology = app.Topology()
    chain = topology.addChain("A")
    residues = {name: topology.addResidue(name, chain) for name in ("ACE", "ALA", "NME")}
    bend = np.radians(180 - 116.6)
    fixed = {
        0: np.zeros(3),
        1: np.array([0.1522, 0, 0]),
        3: np.array([0.1522 + 0.1335 * np.cos(bend), 0.1335 * np.sin(bend), 0]),
    }
    where: dict[int, np.ndarray] = dict(fixed)
    for index, (_, _, _, parents, length, angle, torsion) in enumerate(_HEAVY):
        if parents is not None:
            a, b, c = (where[parent] for parent in parents)
            where[index] = _place(a, b, c, length, angle, torsion)
    atoms = [
        topology.addAtom(atom, app.Element.getBySymbol(element), residues[residue])
        for residue, atom, element, *_ in _HEAVY
    ]
    for i, j in _BONDS:
        topology.addBond(atoms[i], atoms[j])
    positions = np.array([where[i] for i in range(len(_HEAVY))])
    modeller = app.Modeller(topology, positions * unit.nanometer)
    field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
    state = random.getstate()
    random.seed(0)  # OpenMM draws the hydrogens' first positions from it
    modeller.addHydrogens(field, platform=openmm.Platform.getPlatformByName("Reference"))
    random.setstate(state)
    system = field.createSystem(
        modeller.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
    )
    _native_solvent(system)
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)), system


def _native_solvent(system: Any) -> None:
    """Swap the interpreted generalised-Born force of the force field for OpenMM's native one.

    It has the same energy and is many times faster.
    """
    import openmm

    for position in reversed(range(system.getNumForces())):
        slow = system.getForce(position)
        if not isinstance(slow, openmm.CustomGBForce):
            continue
        native = openmm.GBSAOBCForce()
        native.setSolventDielectric(78.5)
        native.setSoluteDielectric(1.0)
        native.setNonbondedMethod(openmm.GBSAOBCForce.NoCutoff)
        for particle in range(slow.getNumParticles()):
            charge, reduced_radius, scaled_radius = slow.getParticleParameters(particle)
            # the force field stores radius − 0.009 nm, and the screening factor multiplied by it
            native.addParticle(charge, reduced_radius + 0.009, scaled_radius / reduced_radius)
        system.removeForce(position)
        system.addForce(native)


def _simulate(
    system: Any,
    start: np.ndarray,
    heavy: np.ndarray,
    *,
    temperature: float,
    num_frames: int,
    stride: int,
    seed: int,
    progress: bool,
) -> np.ndarray:
    """Heavy-atom positions after equilibration, ``[frame, atom, 3]``, nm."""
    import openmm
    from openmm import unit
    from rich.progress import track

    step = _TIME_STEP_FS / 1000
    integrator = openmm.LangevinMiddleIntegrator(temperature, _FRICTION_PER_PS, step)
    integrator.setRandomNumberSeed(seed + 1)  # 0 would mean a random seed
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start * unit.nanometer)
    openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(temperature, seed + 1)
    integrator.step(round(_EQUILIBRATION_PS * 1000 / _TIME_STEP_FS))
    frames = np.empty((num_frames, len(heavy), 3))
    shown = {"description": "simulating alanine dipeptide", "transient": True}
    for frame in track(range(num_frames), disable=not progress, **shown):
        integrator.step(stride)
        positions = context.getState(getPositions=True).getPositions(asNumpy=True)
        frames[frame] = positions.value_in_unit(unit.nanometer)[heavy]
    return frames


def _torsion(atoms: np.ndarray) -> np.ndarray:
    """Torsion angle of four atoms ``[frame, 4, 3]``, rad in [−π, π]."""
    first, middle, last = np.moveaxis(np.diff(atoms, axis=1), 1, 0)
    left, right = np.cross(first, middle), np.cross(middle, last)
    sine = np.linalg.norm(middle, axis=-1) * (first * right).sum(-1)
    return np.asarray(np.arctan2(sine, (left * right).sum(-1)))


def _dataset(
    topology: Any, frames: np.ndarray, *, save_every_ps: float, attrs: dict[str, Any]
) -> xr.Dataset:
    from openmm import unit

    atoms = [atom for atom in topology.atoms() if atom.element.symbol != "H"]
    position = {(atom.residue.name, atom.name): i for i, atom in enumerate(atoms)}
    order = {atom.index: i for i, atom in enumerate(atoms)}
    bonds = [
        [order[a.index], order[b.index]]
        for a, b in topology.bonds()
        if a.index in order and b.index in order
    ]
    phi, psi = (_torsion(frames[:, [position[atom] for atom in four]]) for four in (_PHI, _PSI))
    centred = frames - frames.mean(axis=1, keepdims=True)
    note = "heavy-atom positions minus their centroid, not rotated"
    masses = [atom.element.mass.value_in_unit(unit.dalton) for atom in atoms]
    numbers = [atom.element.atomic_number for atom in atoms]
    residues = [atom.residue.index for atom in atoms]
    names = [f"{atom.residue.name}{atom.residue.index}-{atom.name}" for atom in atoms]
    labels = {
        "phi": {"units": "rad", "long_name": "backbone torsion phi (ACE C, ALA N, CA, C)"},
        "psi": {"units": "rad", "long_name": "backbone torsion psi (ALA N, CA, C, NME N)"},
    }
    dims, labelled = ("time", "atom", "xyz"), {"units": "nm", "long_name": note}
    data = {
        "positions": (dims, centred.astype("float32"), labelled),
        "phi": ("time", phi.astype("float32"), labels["phi"]),
        "psi": ("time", psi.astype("float32"), labels["psi"]),
        "mass": ("atom", np.array(masses, "float32"), {"units": "Da"}),
        "atomic_number": ("atom", np.array(numbers, "int32")),
        "residue": ("atom", np.array(residues, "int32")),
        "bonds": (("bond", "pair"), np.array(bonds, "int32")),
    }
    coords = {
        "time": ("time", (np.arange(len(frames)) + 1) * save_every_ps, {"units": "ps"}),
        "atom": ("atom", np.array(names)),
        "xyz": ("xyz", np.array(["x", "y", "z"])),
    }
    fixed = {
        "title": "alanine dipeptide (ACE-ALA-NME), implicit solvent MD (simulated)",
        "force_field": "amber14-all.xml (ff14SB) + implicit/obc2.xml as native GBSAOBCForce"
        " (OBC2, dielectric 1/78.5)",
        "integrator": "LangevinMiddleIntegrator",
        "friction_per_ps": _FRICTION_PER_PS,
        "timestep_fs": _TIME_STEP_FS,
        "constraints": "HBonds",
        "equilibration_ps": _EQUILIBRATION_PS,
        "simulated": "true",
    }
    return xr.Dataset(data, coords, {**fixed, **attrs})
