"""The world model as a whole: what turns labelled data into latents and back into labelled forecasts."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from sciwm.climatology import Climatology
from sciwm.config import Config
from sciwm.model.jepa import JEPA
from sciwm.model.twins import TWINS, Network, Twin
from sciwm.probe.features import recent_cells, recent_series
from sciwm.probe.readout import Readouts
from sciwm.probe.targets import as_components, target_series
from sciwm.store.forcing import conditions
from sciwm.store.statistics import Statistics
from sciwm.times import Step, infer_step
from sciwm.tokens.grid import GridTokenizer
from sciwm.tokens.molecule import MoleculeTokenizer
from sciwm.tokens.positions import fourier_features, solar_elevation
from sciwm.world.rollout import initial_positions, predicted_latents, recent

__all__ = ["WorldModel", "build_network"]

ReadoutKind = Literal["residual", "latent", "decoder"]


@dataclasses.dataclass(frozen=True)
class WorldModel:
    """A trained JEPA, or one of its twins, with everything needed to use it on labelled data.

    Made by `sciwm.load`, or by training a run.

    Parameters
    ----------
    config : Config
        What it was trained with.
    step : Step
        Time step of the data.
    network : JEPA or Twin
        Encoder and predictor.
    tokenizer : GridTokenizer or MoleculeTokenizer
        States to tokens.
    statistics : Statistics or None
        Climatology and scale of a grid; None for molecules.
    series_climatology : Climatology or None
        Of the scalar series read out.
    static : Tensor, ``[token, static]``
        Static fields, averaged over each token.
    readouts : dict
        ``residual`` and ``latent`` `Readouts`, of a twin that forecasts pixels also its
        ``decoder``; empty before probing.
    about : dict
        Where it comes from: split dates, versions, fingerprint of the data.
    """

    config: Config
    step: Step
    network: Network
    tokenizer: GridTokenizer | MoleculeTokenizer
    statistics: Statistics | None
    series_climatology: Climatology | None
    static: Tensor
    readouts: dict[str, Readouts] = dataclasses.field(default_factory=dict)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def strides(self) -> tuple[int, ...]:
        """Trained strides, in time steps."""
        return tuple(self.config.objective.lead_steps)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Tokens, and width of their predicted latents."""
        network = self.network
        return self.tokenizer.num_tokens, (
            network.rollout_dim if isinstance(network, Twin) else self.config.model.token_dim
        )

    def tokenize(
        self, values: Float[Tensor, "batch time *state"], valid: Bool[Tensor, "batch time *state"]
    ) -> tuple[Float[Tensor, "batch time token feature"], Bool[Tensor, "batch time token"] | None]:
        """Token features, and which tokens hold data; None when all do."""
        features, usable = self.tokenizer(values, valid)
        return features, None if bool(usable.all()) else usable

    def cells(
        self, values: Float[Tensor, "batch time *state"], valid: Bool[Tensor, "batch time *state"]
    ) -> tuple[Float[Tensor, "batch time token cell"], Bool[Tensor, "batch time token cell"]]:
        """Values of every token's cells, and which of them were observed (padding never is)."""
        cells = self.tokenizer.patches(values)
        if isinstance(self.tokenizer, MoleculeTokenizer):
            return cells, torch.ones_like(cells, dtype=torch.bool)
        return cells, self.tokenizer.patches(valid.to(values.dtype)) > 0

    def local_conditions(
        self, condition: Float[Tensor, "*lead condition"]
    ) -> Float[Tensor, "*lead token local"] | None:
        """Static fields and, for steps below a day, the sun's elevation, of every token at the times of ``condition``."""
        parts = []
        lead, tokens = condition.shape[:-1], self.tokenizer.num_tokens
        if self.static.shape[-1]:
            parts.append(self.static.to(condition.device).expand(*lead, tokens, -1))
        if condition.shape[-1] == 6:
            year = torch.atan2(condition[..., 0], condition[..., 1]) / (2 * torch.pi)
            day = torch.atan2(condition[..., 4], condition[..., 5]) / (2 * torch.pi)
            parts.append(solar_elevation(year, day, self.tokenizer.position)[..., None])
        return torch.cat(parts, dim=-1) if parts else None

    def states(self, ds: xr.Dataset) -> xr.DataArray:
        """Standardized states of a canonical Dataset, lazily: ``(time, channel, latitude, longitude)`` or ``(time, atom, xyz)``.

        Raises
        ------
        ValueError
            If variables, grid, atoms or time step are not those of the training data; the message
            names what differs.
        """
        step = infer_step(ds["time"])
        if step != self.step:
            raise ValueError(
                f"got data in steps of {step}, expected {self.step}, the step of the training data"
            )
        if self.statistics is not None:
            return self.statistics.standardize(ds)
        if "positions" not in ds:
            raise ValueError(
                f"got variables {list(ds.data_vars)}, expected 'positions', because the model was"
                " trained on a molecule"
            )
        if ds.sizes["atom"] != self.tokenizer.num_tokens:
            raise ValueError(
                f"got {ds.sizes['atom']} atoms, expected the {self.tokenizer.num_tokens} of the"
                " training data"
            )
        return ds["positions"].transpose("time", "atom", "xyz")

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
            ``latents (time, token, latent)``, float32, with ``time`` and, for grids,
            ``token_latitude`` and ``token_longitude``.
        """
        state = self.states(ds)
        self.network.eval()
        parts = []
        for start in range(0, state.sizes["time"], batch_size):
            block = np.ascontiguousarray(
                state.isel(time=slice(start, start + batch_size)).values, dtype=np.float32
            )
            values = torch.from_numpy(block)[:, None]
            features, valid = self.tokenize(torch.nan_to_num(values), torch.isfinite(values))
            with torch.no_grad():
                parts.append(self.network.encode(features, valid)[:, 0])
        coords: dict[str, Any] = {"time": ds["time"]}
        if isinstance(self.tokenizer, GridTokenizer):
            x, y, z = self.tokenizer.position.T.numpy()
            coords["token_latitude"] = ("token", np.rad2deg(np.arcsin(np.clip(z, -1, 1))))
            coords["token_longitude"] = ("token", np.rad2deg(np.arctan2(y, x)))
        else:
            coords["atom"] = ("token", ds["atom"].values)
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
        readout: ReadoutKind = "residual",
        members: int = 0,
        batch_size: int = 64,
    ) -> xr.Dataset:
        """Forecast from given initial times.

        Parameters
        ----------
        ds : Dataset
            Canonical; must hold the initial times and the states before them that make up their
            context.
        init_times : array of times, optional
            All that have a context by default.
        lead_times : list of str or array, optional
            Some of the leads that readouts were fitted for, which is the default: ``["24 hours"]``
            or as in `Step.lead_times`.
        readout : {"residual", "latent", "decoder"}
            Whether the readout also sees the states of the context, or predicted latents alone; or
            the head a twin was trained with.
        members : int
            Members of an ensemble around the residual readout, of a model trained with
            ``model.noise_dim``; 0 makes one forecast. The same initial time of the same data has
            the same members every time.
        batch_size : int
            Rollouts in memory at once.

        Returns
        -------
        Dataset
            ``(init_time, lead_time, [number], [level], latitude, longitude)`` in physical units,
            canonical names; scalar series ``(init_time, lead_time, [number], [component])``. NaN
            where the training data were always missing, and in series that are missing in the
            context.

        Raises
        ------
        ValueError
            If an initial time is absent or lacks its context, or a lead has no readout.
        """
        index = self.positions(ds, init_times)
        parts = list(
            self.forecast_batches(
                ds,
                index,
                lead_times=lead_times,
                readout=readout,
                members=members,
                batch_size=batch_size,
            )
        )
        return xr.concat(parts, dim="init_time", join="exact") if len(parts) > 1 else parts[0]

    def positions(self, ds: xr.Dataset, init_times: Any = None) -> np.ndarray:
        """Positions on the time axis of initial times, all that have a full context by default."""
        segment = (
            ds["segment"].values if "segment" in ds.coords else np.zeros(ds.sizes["time"], int)
        )
        able = initial_positions(segment, history=self.network.history, strides=self.strides)
        if init_times is None:
            if not len(able):
                need = (self.network.history - 1) * max(self.strides) + 1
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
        found = np.array(
            [position.get(t, -1) for t in wanted.astype(ds["time"].dtype).tolist()], dtype=np.int64
        )
        bad = (found < 0) | ~np.isin(found, able)
        if bad.any():
            why = (
                "it is not in the data"
                if found[bad][0] < 0
                else "the states before it that make up its context are not in the data"
            )
            raise ValueError(
                f"got initial time {wanted[bad][0]}, which cannot be started from: {why}"
                f" ({bad.sum()} such of {len(wanted)})"
            )
        return np.sort(found)

    def lead_positions(self, readouts: Readouts, lead_times: Any = None) -> list[int]:
        """Positions of lead times among those of the readouts."""
        if lead_times is None:
            return list(range(len(readouts.lead_steps)))
        texts = [lead_times] if isinstance(lead_times, str) else lead_times
        steps = [
            (
                int(self.step.steps(lead))
                if isinstance(lead, str)
                else int(self.step.steps(np.asarray(lead)))
            )
            for lead in texts
        ]
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
        readout: ReadoutKind = "residual",
        members: int = 0,
        batch_size: int = 64,
    ) -> Iterator[xr.Dataset]:
        """Forecasts as `forecast` gives them, ``batch_size // max(1, members)`` initial times at a time, to bound memory."""
        kinds = sorted(set(self.readouts) - {"spread"})
        if readout not in kinds:
            raise ValueError(
                f"got readout {readout!r}, expected one of"
                f" {kinds or 'none: run `sciwm probe` first'}"
            )
        if members and (readout != "residual" or members < 2):
            raise ValueError(
                f"got members = {members} with readout {readout!r}, expected at least 2, around the"
                " residual readout"
            )
        readouts, spread = self.readouts[readout], self.readouts.get("spread") if members else None
        leads = self.lead_positions(readouts, lead_times)
        steps = [readouts.lead_steps[i] for i in leads]
        series = self.series(ds)
        state = self.states(ds)
        at_once = max(1, batch_size // max(1, members))

        def around_each(middle: list[Tensor], apart: list[Tensor]) -> list[Tensor]:
            return [
                m[:, None] + a.view(len(m), members, *a.shape[1:])
                for m, a in zip(middle, apart, strict=True)
            ]

        # Trajectories may share times; then only their number tells initial times apart.
        trajectories = "segment" in ds.coords and bool((ds["segment"] != ds["segment"][0]).any())
        for initial in predicted_latents(
            self, state, index, steps, batch_size=at_once, members=members
        ):
            init_time = ds["time"].isel(time=initial.index).rename(time="init_time")
            valid_time = xr.DataArray(
                self.step.add(init_time.values[:, None], np.array(steps)),
                dims=("init_time", "lead_time"),
            )
            coords = {"init_time": init_time.variable, "lead_time": self.lead_coordinate(steps)}
            if trajectories:
                coords["segment"] = init_time["segment"].variable
            if members:
                coords["number"] = xr.Variable("number", np.arange(members))
            away = (initial.members - initial.latents[:, None]).flatten(0, 1)
            out = xr.Dataset(coords=coords)
            if (
                readouts.fields
                and self.statistics is not None
                and isinstance(self.tokenizer, GridTokenizer)
            ):
                seen = recent_cells(self.tokenizer, initial.states, self.config.probe.halo)
                cells = [
                    readouts.read_fields(i, initial.latents[:, k], seen)
                    for k, i in enumerate(leads)
                ]
                if spread is not None:
                    cells = around_each(
                        cells,
                        [
                            spread.read_fields(i, away[:, k], away[:, k, :, :0])
                            for k, i in enumerate(leads)
                        ],
                    )
                out = out.assign(
                    self._restore(
                        self.tokenizer.fields(torch.stack(cells, 1)), valid_time
                    ).data_vars
                )
            if readouts.series and series is not None:
                condition = torch.from_numpy(conditions(init_time.values, self.step))
                begin = recent_series(
                    torch.from_numpy(series.values[recent(initial.index, self)]), condition
                )
                values = [
                    readouts.read_series(i, initial.latents[:, k], begin)
                    for k, i in enumerate(leads)
                ]
                if spread is not None:
                    values = around_each(
                        values,
                        [
                            spread.read_series(i, away[:, k], away[:, k, 0, :0])
                            for k, i in enumerate(leads)
                        ],
                    )
                out = out.assign(
                    self._restore_series(torch.stack(values, 1).numpy(), valid_time).data_vars
                )
            yield out.assign_attrs(ds.attrs)

    def lead_coordinate(self, steps: Sequence[int]) -> xr.Variable:
        """Lead times as a coordinate, with units where the values do not carry them."""
        attrs = {} if self.step.unit == "hours" else {"units": self.step.unit}
        return xr.Variable("lead_time", self.step.lead_times(np.array(steps)), attrs)

    def series(self, ds: xr.Dataset) -> xr.DataArray | None:
        """Anomalies of the scalar series read out, ``(time, column)``, float32; None when there are none."""
        if self.series_climatology is None:
            return None
        observed = as_components(target_series(ds, self.config.probe.targets))
        return xr.DataArray(self.series_columns(observed), dims=("time", "column"))

    def series_columns(self, observed: xr.Dataset) -> np.ndarray:
        """Departures of series from their climatology, side by side, ``[time, column]``, float32."""
        assert self.series_climatology is not None
        mean = self.series_climatology.at(observed["time"])
        columns = [
            (observed[name] - mean[name]).transpose("time", ...).values for name in mean.data_vars
        ]
        return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1).astype(np.float32)

    def _restore(
        self, state: Float[Tensor, "init lead *state"], valid_time: xr.DataArray
    ) -> xr.Dataset:
        assert self.statistics is not None
        statistics = self.statistics
        dims = (
            "init_time",
            "lead_time",
            *(["number"] if state.ndim == 6 else []),
            "channel",
            "latitude",
            "longitude",
        )
        seen = statistics.valid_fraction.values > 0
        values = np.where(seen, state.numpy(), np.nan).astype(np.float32)
        space = {d: statistics.valid_fraction[d] for d in ("latitude", "longitude")}
        channel = {k: statistics.scale.coords[k] for k in ("channel", "variable", "level")}
        return statistics.restore(
            xr.DataArray(values, dims=dims, coords=space | channel), valid_time
        )

    def _restore_series(self, values: np.ndarray, valid_time: xr.DataArray) -> xr.Dataset:
        assert self.series_climatology is not None
        mean = self.series_climatology.at(valid_time)
        out, column = {}, 0
        for name, part in mean.data_vars.items():
            width = part.sizes.get("component", 1)
            dims = (
                "init_time",
                "lead_time",
                *(["number"] if values.ndim == 4 else []),
                "component",
            )
            block = xr.DataArray(values[..., column : column + width], dims=dims)
            out[name] = (part + (block if "component" in part.dims else block[..., 0])).transpose(
                *dims, missing_dims="ignore"
            )
            out[name].attrs = part.attrs
            column += width
        return xr.Dataset(out).astype(np.float32)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``model.safetensors``, ``model.json`` and, once probed, ``probes.safetensors``; see `sciwm.load`."""
        from sciwm.world.files import save_world

        return save_world(self, Path(folder))

    def push_to_hub(
        self, hub_id: str, *, private: bool = False, message: str = "Upload world model"
    ) -> str:
        """Share the model on the Hugging Face Hub (``pip install 'sciwm[hub]'``, then ``hf auth login`` once).

        The files are those of `save`, with a short model card where the repository has none.
        `sciwm.load` takes the same id.

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
        from sciwm.world.hub import upload

        return upload(self, hub_id, private=private, message=message)


def build_network(
    config: Config,
    *,
    tokenizer: GridTokenizer | MoleculeTokenizer,
    condition_dim: int,
    local_dim: int,
) -> Network:
    """An untrained network that fits the tokens; encoder and predictor depend on sizes and ``config.seed`` alone."""
    molecule = isinstance(tokenizer, MoleculeTokenizer)
    position = tokenizer.position if molecule else fourier_features(tokenizer.position)
    sizes = {k: v for k, v in dataclasses.asdict(config.model).items() if k != "patch_size"}
    names = ("strength", "num_directions", "ema_decay", "latent_noise")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        kind = config.objective.kind
        backbone = JEPA(
            position=position,
            feature_dim=tokenizer.feature_dim,
            condition_dim=condition_dim,
            local_dim=local_dim,
            **sizes,
            **{name: getattr(config.objective, name) for name in names},
            kind="sigreg" if kind in TWINS else kind,
            anchor=0.0 if kind in TWINS else config.objective.anchor,
            cells=tokenizer.cells,
        )
        return Twin(backbone, kind=kind, cells=tokenizer.cells) if kind in TWINS else backbone
