"""The world model as a whole: labelled data become latents, and latents labelled forecasts."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sciwm.readout.features import recent_cells, recent_series
from sciwm.readout.readout import Readouts
from sciwm.store.forcing import conditions
from sciwm.world.core import Core
from sciwm.world.files import read_world, save_world
from sciwm.world.hub import download, is_hub_id, upload
from sciwm.world.rollout import Initial, back_of, initial_positions, predicted_latents, recent
from sciwm.world.simulate import Stretch, plan_course, simulated_latents

__all__ = ["WorldModel", "load", "load_world"]

_VALUES = 2**22  # of the fields of a simulation that are in memory at once
_MOST_LEADS = 64


@dataclasses.dataclass(frozen=True)
class WorldModel(Core):
    """A trained JEPA, or one of its twins, with everything needed to use it on labelled data.

    Made by `sciwm.load`, or by training a run; its parts are those of `sciwm.world.core.Core`.
    """

    def encode(self, ds: xr.Dataset, *, batch_size: int = 256) -> xr.DataArray:
        """Latents of every state.

        Parameters
        ----------
        ds : Dataset
            Canonical, from `sciwm.open_dataset`, with the variables and grid of the training data.
        batch_size : int
            States read and encoded at once.

        Returns
        -------
        DataArray
            ``latents (time, token, latent)``, float32, unitless. Coordinates are ``time`` and, for
            grids, ``token_latitude`` and ``token_longitude`` in degrees; for molecules ``atom``.

        Raises
        ------
        ValueError
            If variables, grid, atoms or time step are not those of the training data.
        """
        state = self.states(ds)
        self.network.eval()
        parts = []
        for start in range(0, state.sizes["time"], batch_size):
            block = np.ascontiguousarray(
                state.isel(time=slice(start, start + batch_size)).values, dtype=np.float32
            )
            values = torch.from_numpy(block)[:, None]
            finite = torch.isfinite(values)
            valid = None if bool(finite.all()) else finite
            features = self.tokenizer.tokenize(torch.nan_to_num(values), valid)[0]
            with torch.no_grad():
                parts.append(self.network.encode(features)[:, 0])
        coords = {"time": ds["time"], **self.tokenizer.coordinates(ds)}
        return xr.DataArray(
            torch.cat(parts).numpy(),
            dims=("time", "token", "latent"),
            coords=coords,
            name="latents",
        )

    def forecast(
        self,
        ds: xr.Dataset,
        *,
        init_times: Any = None,
        lead_times: Any = None,
        readout: str = "residual",
        members: int = 0,
        batch_size: int = 64,
    ) -> xr.Dataset:
        """Forecast from given initial times.

        Parameters
        ----------
        ds : Dataset
            Canonical. It must hold the initial times and the states before them that make up their
            context.
        init_times : array of times, optional
            All that have a context by default.
        lead_times : list of str or array, optional
            Some of the leads that readouts were fitted for: ``["24 hours"]``, or as in
            `Step.lead_times`. All of them by default.
        readout : {"residual", "latent", "local_linear", "decoder"}
            ``residual`` reads predicted latents and the states of the context, ``latent`` predicted
            latents alone. ``local_linear`` reads those states alone, without any network.
            ``decoder`` is the head that a twin was trained with.
        members : int
            Members of an ensemble around the residual readout, of a model trained with
            ``model.noise_dim``. 0 makes one forecast. The same initial time of the same data has
            the same members every time.
        batch_size : int
            Rollouts in memory at once.

        Returns
        -------
        Dataset
            Fields ``(init_time, lead_time, [number], [level], latitude, longitude)`` and scalar
            series ``(init_time, lead_time, [number], [component])``, in the units of the data. NaN
            where the training data were always missing, and in series missing in the context.

        Raises
        ------
        ValueError
            If an initial time is absent or lacks its context, or a lead has no readout. Also if the
            data are not like those of the training.
        """
        wanted = "ensemble" if members else readout
        batches = self.forecast_batches(
            ds,
            self.positions(ds, init_times),
            lead_times=lead_times,
            readouts=[readout],
            members=members,
            batch_size=batch_size,
        )
        parts = [batch[wanted] for batch in batches]
        return xr.concat(parts, dim="init_time", join="exact") if len(parts) > 1 else parts[0]

    def positions(self, ds: xr.Dataset, init_times: Any = None) -> np.ndarray:
        """Positions on the time axis of initial times, in increasing order.

        Parameters
        ----------
        ds : Dataset
            Canonical.
        init_times : array of times, optional
            All that have a full context by default.

        Raises
        ------
        ValueError
            If an initial time is absent or lacks its context, or if times repeat in the data.
        """
        alone = np.zeros(ds.sizes["time"], int)
        segment = ds["segment"].values if "segment" in ds.coords else alone
        able = initial_positions(segment, back=back_of(self))
        if init_times is None:
            if not len(able):
                need = back_of(self) + 1
                raise ValueError(
                    f"got {ds.sizes['time']} time(s), expected at least {need} in a row, the length"
                    " of a context"
                )
            return able
        wanted = np.atleast_1d(np.asarray(init_times))
        position = {t: i for i, t in enumerate(ds["time"].values.tolist())}
        if len(position) < ds.sizes["time"]:
            raise ValueError(
                "got initial times of data whose times repeat from segment to segment, expected"
                " times that name one state each: take one trajectory first,"
                " ds.isel(time=ds.segment == 0)"
            )
        asked = wanted.astype(ds["time"].dtype).tolist()
        found = np.array([position.get(t, -1) for t in asked], dtype=np.int64)
        bad = (found < 0) | ~np.isin(found, able)
        if bad.any():
            why = "the states before it that make up its context are not in the data"
            if found[bad][0] < 0:
                why = "it is not in the data"
            raise ValueError(
                f"got initial time {wanted[bad][0]}, which cannot be started from: {why}"
                f" ({bad.sum()} such of {len(wanted)})"
            )
        return np.sort(found)

    def lead_positions(self, readouts: Readouts, lead_times: Any = None) -> list[int]:
        """Positions of lead times among those of the readouts.

        Parameters
        ----------
        readouts : Readouts
            Fitted for some leads.
        lead_times : str, list of str or array, optional
            As `forecast` takes them; all leads of the readouts by default.

        Raises
        ------
        ValueError
            If a lead has no readout.
        """
        if lead_times is None:
            return list(range(len(readouts.lead_steps)))
        texts = [lead_times] if isinstance(lead_times, str) else lead_times
        leads = [lead if isinstance(lead, str) else np.asarray(lead) for lead in texts]
        steps = [int(self.step.steps(lead)) for lead in leads]
        missing = [s for s in steps if s not in readouts.lead_steps]
        if missing:
            known = ", ".join(str(self.step.value * s) for s in readouts.lead_steps)
            raise ValueError(
                f"got a lead of {missing[0] * self.step.value:g} {self.step.unit}, expected one of"
                f" {known} {self.step.unit}, for which readouts were fitted; name it under"
                " forecast.lead_times of a new run"
            )
        return [readouts.lead_steps.index(s) for s in steps]

    def forecast_batches(
        self,
        ds: xr.Dataset,
        index: np.ndarray,
        *,
        lead_times: Any = None,
        readouts: Sequence[str] = ("residual",),
        members: int = 0,
        batch_size: int = 64,
    ) -> Iterator[dict[str, xr.Dataset]]:
        """Forecasts as `forecast` gives them, by every readout from one rollout, in batches.

        Parameters
        ----------
        ds, lead_times
            As `forecast` takes them.
        index : ndarray of int
            Positions of the initial times on the time axis, in increasing order.
        readouts : sequence of str
            Names among ``self.readouts``, all of the same leads.
        members : int
            Members of an ensemble around the residual readout, called ``ensemble``; 0 makes none.
        batch_size : int
            Rollouts in memory at once; members count.

        Yields
        ------
        dict
            A forecast of some initial times by each readout, and ``ensemble`` with ``members``.

        Raises
        ------
        ValueError
            If a readout is unknown or of other targets, a lead has none, or ``members`` is 1.
        """
        used = self._used(readouts, members)
        leads = self.lead_positions(next(iter(used.values())), lead_times)
        steps = [next(iter(used.values())).lead_steps[i] for i in leads]
        targets = {read.targets for read in used.values()}
        if len(targets) > 1:
            raise ValueError(f"got readouts of other targets: {targets}, expected the same of all")
        series, state = self.series(ds, targets.pop()), self.states(ds)
        at_once = max(1, batch_size // max(1, members))
        # Trajectories may share times; then only their number tells initial times apart.
        segment = ds.coords.get("segment")
        several = segment is not None and bool((segment != segment[0]).any())
        for initial in predicted_latents(
            self, state, index, steps, batch_size=at_once, members=members
        ):
            frame = self._frame(ds["time"], initial.index, steps, several=several)
            source = _Source(self, initial, series, frame["init_time"].values)
            values = {name: source.read(read, leads) for name, read in used.items()}
            out = {name: self._labelled(frame, *values[name]) for name in readouts}
            if members:
                apart = source.spread(self.readouts["spread"], leads)
                around = [
                    None if middle is None or away is None else middle[:, :, None] + away
                    for middle, away in zip(values["residual"], apart, strict=True)
                ]
                numbered = frame.assign_coords(number=np.arange(members))
                out["ensemble"] = self._labelled(numbered, *around)
            yield {name: made.assign_attrs(ds.attrs) for name, made in out.items()}

    def simulate(
        self,
        ds: xr.Dataset,
        init_times: Any = None,
        *,
        length: int | str,
        every: int | str | None = None,
        members: int = 0,
        stride: int | None = None,
        batch_size: int = 64,
    ) -> xr.Dataset:
        """Roll the model forward for long, and read out what its latents say at each time.

        A forecast has a readout of its own for every lead. A simulation has one for all: that of
        a state from its own latents. It may go on beyond the end of the data. All that is known of
        a time follows from the calendar.

        Parameters
        ----------
        ds : Dataset
            Canonical. It must hold the initial times and the states before them that make up their
            context.
        init_times : array of times, optional
            All that have a context by default.
        length : int or str
            Time steps, or a text such as ``"365 days"``.
        every : int or str, optional
            Time steps between the states given back, or a text such as ``"1 day"``. One stride by
            default.
        members : int
            Members of an ensemble, of a model trained with ``model.noise_dim``. 0 makes one
            simulation without noise, which may fade to the mean.
        stride : int, optional
            Time steps of one prediction, one of the trained strides. By default the largest that
            divides ``every``.
        batch_size : int
            Simulations in memory at once; members count.

        Returns
        -------
        Dataset
            Fields and series as of `forecast`, with as many leads as fit into ``length``. They are
            all in memory: `simulate_batches` yields them in parts.

        Raises
        ------
        ValueError
            If an initial time is absent or lacks its context, or ``every`` does not fit the
            strides. Also if the data are not like those of the training, or the model was not
            probed.
        """
        parts: list[list[xr.Dataset]] = []
        for batch in self.simulate_batches(
            ds,
            self.positions(ds, init_times),
            length=length,
            every=every,
            members=members,
            stride=stride,
            batch_size=batch_size,
        ):
            again = bool(parts) and batch["init_time"].identical(parts[-1][-1]["init_time"])
            if not again:
                parts.append([])
            parts[-1].append(batch)
        whole = [xr.concat(part, dim="lead_time", join="exact") for part in parts]
        return xr.concat(whole, dim="init_time", join="exact") if len(whole) > 1 else whole[0]

    def simulate_batches(
        self,
        ds: xr.Dataset,
        index: np.ndarray,
        *,
        length: int | str,
        every: int | str | None = None,
        members: int = 0,
        stride: int | None = None,
        batch_size: int = 64,
    ) -> Iterator[xr.Dataset]:
        """Simulations as `simulate` gives them, in parts that fit into memory.

        Parameters
        ----------
        ds, length, every, members, stride, batch_size
            As `simulate` takes them.
        index : ndarray of int
            Positions of the initial times on the time axis, in increasing order.

        Yields
        ------
        Dataset
            Some leads of a batch of initial times. The next leads follow, then the next initial
            times from the first lead on.

        Raises
        ------
        ValueError
            As of `simulate`.
        """
        if "state" not in self.readouts:
            raise ValueError(
                f"got readouts {sorted(self.readouts)}, expected also 'state', which simulations"
                " are read with: take probes.safetensors away and run `sciwm probe` again"
            )
        course = plan_course(self, length=length, every=every, stride=stride)
        each, state = max(1, members), self.states(ds)
        together = max(1, batch_size // each) * each * int(np.prod(state.shape[1:]))
        segment = ds.coords.get("segment")
        several = segment is not None and bool((segment != segment[0]).any())
        for stretch in simulated_latents(
            self,
            state,
            index,
            course,
            batch_size=batch_size,
            members=members,
            piece=int(np.clip(_VALUES // together, 1, _MOST_LEADS)),
        ):
            frame = self._frame(ds["time"], stretch.index, stretch.steps.tolist(), several=several)
            if members:
                frame = frame.assign_coords(number=np.arange(members))
            values = self._read_states(stretch, single=not members)
            with np.errstate(over="ignore", invalid="ignore"):  # a simulation may blow up
                yield self._labelled(frame, *values).assign_attrs(ds.attrs)

    def _read_states(self, stretch: Stretch, *, single: bool) -> list[Tensor | None]:
        """Fields ``[init, lead, [member], token, cell]`` and series, if any."""
        readouts, lead = self.readouts["state"], stretch.latents.shape[:3]
        flat, found = stretch.latents.flatten(0, 2), []
        fields = readouts.read_fields(0, flat, flat[..., :0]) if readouts.fields else None
        series = None
        if readouts.series and self.series_climatology is not None:
            series = readouts.read_series(0, flat, flat[:, 0, :0])
        for read in (fields, series):
            apart = None if read is None else read.view(*lead, *read.shape[1:])
            found.append(apart[:, :, 0] if apart is not None and single else apart)
        return found

    def _used(self, names: Sequence[str], members: int) -> dict[str, Readouts]:
        """Readouts by name, that of the middle of an ensemble included."""
        kinds = sorted(self.kinds)
        for name in names:
            if name not in kinds:
                known = kinds or "none: run `sciwm probe` first"
                raise ValueError(f"got readout {name!r}, expected one of {known}")
        if members and ("residual" not in names or members < 2):
            raise ValueError(
                f"got members = {members} with readout {', '.join(names)!r}, expected at least 2,"
                " around the residual readout"
            )
        return {name: self.readouts[name] for name in names}

    def _frame(
        self, time: xr.DataArray, index: np.ndarray, steps: Sequence[int], *, several: bool
    ) -> xr.Dataset:
        """A forecast without its values: initial, lead and valid times; of several, the segment."""
        init_time = time.isel(time=index).rename(time="init_time")
        valid_time = self.step.add(init_time.values[:, None], np.array(steps))
        coords: dict[str, Any] = {
            "init_time": init_time.variable,
            "lead_time": self.lead_coordinate(steps),
            "valid_time": (("init_time", "lead_time"), valid_time),
        }
        if several:
            coords["segment"] = init_time["segment"].variable
        return xr.Dataset(coords=coords)

    def _labelled(
        self, frame: xr.Dataset, fields: Tensor | None, series: Tensor | None
    ) -> xr.Dataset:
        """Fields and series, ``[init, lead, [member], ...]``, as a forecast in physical units."""
        out, valid_time = frame.drop_vars("valid_time"), frame["valid_time"].variable
        times = xr.DataArray(valid_time)
        if fields is not None:
            out = out.assign(self._restore(self.tokenizer.fields(fields), times).data_vars)
        if series is not None:
            out = out.assign(self._restore_series(series.numpy(), times).data_vars)
        return out

    def lead_coordinate(self, steps: Sequence[int]) -> xr.Variable:
        """Lead times as a coordinate, with units where the values do not carry them."""
        attrs = {} if self.step.unit == "hours" else {"units": self.step.unit}
        return xr.Variable("lead_time", self.step.lead_times(np.array(steps)), attrs)

    def _restore(
        self, state: Float[Tensor, "init lead *state"], valid_time: xr.DataArray
    ) -> xr.Dataset:
        assert self.statistics is not None
        statistics = self.statistics
        number = ["number"] if state.ndim == 6 else []
        dims = ("init_time", "lead_time", *number, "channel", "latitude", "longitude")
        valid = statistics.valid_fraction.values > 0
        values = np.where(valid, state.numpy(), np.nan).astype(np.float32)
        space = {d: statistics.valid_fraction[d] for d in ("latitude", "longitude")}
        channel = {k: statistics.scale.coords[k] for k in ("channel", "variable", "level")}
        labelled = xr.DataArray(values, dims=dims, coords=space | channel)
        return statistics.restore(labelled, valid_time)

    def _restore_series(self, values: np.ndarray, valid_time: xr.DataArray) -> xr.Dataset:
        assert self.series_climatology is not None
        mean = self.series_climatology.at(valid_time)
        number = ["number"] if values.ndim == 4 else []
        dims = ("init_time", "lead_time", *number, "component")
        out, column = {}, 0
        for name, part in mean.data_vars.items():
            width = part.sizes.get("component", 1)
            block = xr.DataArray(values[..., column : column + width], dims=dims)
            whole = part + (block if "component" in part.dims else block[..., 0])
            out[name] = whole.transpose(*dims, missing_dims="ignore")
            out[name].attrs = part.attrs
            column += width
        return xr.Dataset(out).astype(np.float32)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``model.safetensors``, ``model.json`` and, once probed, ``probes.safetensors``.

        `sciwm.load` reads them.

        Parameters
        ----------
        folder : str or Path
            Made if it does not exist.

        Returns
        -------
        list of Path
            The files written.
        """
        return save_world(self, Path(folder))

    def push_to_hub(
        self, hub_id: str, *, private: bool = False, message: str = "Upload world model"
    ) -> str:
        """Share the model on the Hugging Face Hub.

        It takes ``pip install 'sciwm[hub]'``, and ``hf auth login`` once. The files are those of
        `save`, with a short model card where the repository has none. `sciwm.load` takes the same
        id.

        Parameters
        ----------
        hub_id : str
            ``owner/name``; made if it does not exist.
        private : bool
            Whether a repository that is made is private.
        message : str
            Of the commit.

        Returns
        -------
        str
            Address of the commit.

        Raises
        ------
        ImportError
            Without huggingface_hub.
        ValueError
            If ``hub_id`` is not ``owner/name``.
        """
        return upload(self, hub_id, private=private, message=message)


class _Source:
    """What values are read from at some initial times: latents, and the states up to them."""

    def __init__(
        self,
        world: WorldModel,
        initial: Initial,
        series: Float[Tensor, "time column"] | None,
        init_time: np.ndarray,
    ) -> None:
        self.world, self.initial = world, initial
        self.cells: dict[int, Tensor] = {}
        self.begin = None
        if series is not None:
            condition = torch.from_numpy(conditions(init_time, world.step))
            self.begin = recent_series(series[recent(initial.index, world)], condition)

    def around(self, halo: int) -> Float[Tensor, "init token cell"]:
        """Cells of every patch and of its surroundings."""
        if halo not in self.cells:
            self.cells[halo] = recent_cells(self.world.tokenizer, self.initial.states, halo)
        return self.cells[halo]

    def read(self, readouts: Readouts, leads: Sequence[int]) -> list[Tensor | None]:
        """Fields ``[init, lead, token, cell]`` and series ``[init, lead, column]``, if any."""
        latents = self.initial.latents
        fields, series = None, None
        if readouts.fields:
            cells = self.around(readouts.halo)
            each = [readouts.read_fields(i, latents[:, k], cells) for k, i in enumerate(leads)]
            fields = torch.stack(each, 1)
        if readouts.series and self.begin is not None:
            each = [readouts.read_series(i, latents[:, k], self.begin) for k, i in enumerate(leads)]
            series = torch.stack(each, 1)
        return [fields, series]

    def spread(self, readouts: Readouts, leads: Sequence[int]) -> list[Tensor | None]:
        """What members add: fields ``[init, lead, member, token, cell]``, and series as columns."""
        away = self.initial.members - self.initial.latents[:, None]
        shape, flat = away.shape[:2], away.flatten(0, 1)
        parts = [(i, flat[:, k]) for k, i in enumerate(leads)]
        fields, series = None, None
        if readouts.fields:
            each = [readouts.read_fields(i, part, part[..., :0]) for i, part in parts]
            fields = torch.stack([e.view(*shape, *e.shape[1:]) for e in each], 1)
        if readouts.series and self.begin is not None:
            each = [readouts.read_series(i, part, part[:, 0, :0]) for i, part in parts]
            series = torch.stack([e.view(*shape, *e.shape[1:]) for e in each], 1)
        return [fields, series]


def load_world(folder: Path) -> WorldModel:
    """Read what `WorldModel.save` wrote; see `load`."""
    return WorldModel(**read_world(folder))


def load(path: str | Path, *, revision: str | None = None) -> WorldModel:
    """Load a world model from a run directory or from the Hugging Face Hub.

    No code from it is executed.

    Parameters
    ----------
    path : str or Path
        Folder with ``model.safetensors`` and ``model.json``, and ``probes.safetensors`` if it is to
        forecast. Or the id of a model on the Hub: ``hf://owner/name``, or ``owner/name`` where
        there is no folder ``owner``. The Hub needs ``pip install 'sciwm[hub]'``.
    revision : str, optional
        Branch, tag or commit on the Hub; name a commit to be sure of the same weights.

    Returns
    -------
    WorldModel
        In evaluation mode.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message says which verb writes it. Also if the Hub has no such
        model or cannot be reached.
    ValueError
        If the files are damaged, do not belong together, or were written by an incompatible
        version. Also if a folder comes with a ``revision``.
    ImportError
        For the Hub, without huggingface_hub.
    """
    if isinstance(path, str) and is_hub_id(path):
        return load_world(download(path, revision=revision))
    if revision is not None:
        raise ValueError(
            f"got revision {revision!r} with the folder {path}, expected it for a model on the Hub"
            " only"
        )
    return load_world(Path(path))
