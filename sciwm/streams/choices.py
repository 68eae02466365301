"""What a user may choose about a stream: the order of its windows, and how states are read."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr

from sciwm.chunks.cache import Cache

__all__ = ["Mode", "Order", "Reading"]

Mode = Literal["resident", "block"]


@dataclass(frozen=True, eq=False)
class Order:
    """Which windows an epoch has, in which order, and which of them a rank gets.

    Parameters
    ----------
    shuffle : bool
        Without it, windows come in the order of time.
    seed : int
        Seed of the order.
    epochs : int, optional
        Epochs in one iteration; None goes on without end. The next iteration goes on with the next
        epoch.
    every : int, optional
        An epoch takes each ``every``-th window. Its phase changes, so that ``every`` epochs see all
        of them. Default: 1 if all states are in memory, else as many as a window has states.
        Windows that overlap come from the same few blocks and shuffle badly.
    weights : array or DataArray, ``[time]``, optional
        How often windows that start at a time are drawn, relative to each other.
    drop_last : bool, optional
        Leave out an epoch's last short batch; default only when shuffling. A lone short batch is
        always served.
    rank, world_size : int, optional
        Ranks get disjoint windows, equally many each. Default: those of ``torch.distributed`` if
        that runs, else 0 of 1.

    Raises
    ------
    ValueError
        If a number is out of range, or only one of ``rank`` and ``world_size`` is given.
    """

    shuffle: bool = True
    seed: int = 0
    epochs: int | None = 1
    every: int | None = None
    weights: np.ndarray | xr.DataArray | None = None
    drop_last: bool | None = None
    rank: int | None = None
    world_size: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("every", self.every)):
            if value is not None and value < 1:
                raise ValueError(f"got {name} {value}, expected at least 1")
        if (self.rank is None) != (self.world_size is None):
            raise ValueError(
                f"got rank {self.rank} and world_size {self.world_size}, expected both or neither"
            )
        rank, world_size = self.place()
        if not 0 <= rank < world_size:
            raise ValueError(
                f"got rank {rank} of {world_size}, expected a rank below the world size"
            )

    def place(self) -> tuple[int, int]:
        """Rank and number of ranks."""
        if self.rank is not None and self.world_size is not None:
            return self.rank, self.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1


@dataclass(frozen=True)
class Reading:
    """How states are read: in how much memory, by how many threads, as which type.

    Parameters
    ----------
    mode : {"resident", "block"}, optional
        Hold all states, or read ahead; default by ``memory_limit``.
    memory_limit : int
        Bytes for states held ready: blocks, those being read, and batches. States that fit into
        half of it are held as a whole.
    threads : int, optional
        Reading threads; default 4, or as many as there are cores. The order does not depend on
        them.
    dtype : torch.float32 or torch.bfloat16
        Of the values, in the pool and in the batches.
    pin_memory : bool
        Put batches into page-locked memory, for ``batch.to(device, non_blocking=True)``.
    on_error : {"raise", "skip"}
        What becomes of a chunk that is damaged or not there. Either an error names it, or its
        windows are left out of their batches and counted in ``skipped``.
    cache : Cache, optional
        Keeps compressed chunks of a remote Zarr store on local disk.

    Raises
    ------
    ValueError
        If one of them is none of the values above, or memory is to be pinned without a GPU.
    """

    mode: Mode | None = None
    memory_limit: int = 2**30
    threads: int | None = None
    dtype: torch.dtype = torch.float32
    pin_memory: bool = False
    on_error: Literal["raise", "skip"] = "raise"
    cache: Cache | None = None

    def __post_init__(self) -> None:
        if self.mode not in (None, "resident", "block"):
            raise ValueError(f"got mode {self.mode!r}, expected 'resident', 'block' or None")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"got {self.threads} threads, expected at least 1")
        if self.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"got dtype {self.dtype}, expected torch.float32 or torch.bfloat16")
        if self.pin_memory and not torch.cuda.is_available():
            raise ValueError(
                "got pin_memory=True without a GPU, expected False, because only copies to a GPU"
                " gain from it"
            )
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"got on_error {self.on_error!r}, expected 'raise' or 'skip'")
