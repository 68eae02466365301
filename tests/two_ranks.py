"""Two processes that form a gloo group, for what must be the same on one rank and on two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing


def run_on_two_ranks(work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Return what ``work(rank, *arguments)`` gives in each process.

    ``work`` must be a function of a module.
    """
    torch.multiprocessing.spawn(_process, (work, folder, arguments), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


def _process(rank: int, work: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    try:
        torch.save(work(rank, *arguments), folder / f"rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()
