"""How much a stream holds in memory: everything, or a pool of blocks."""

import math
import os
from dataclasses import dataclass, replace
from typing import Literal

from sciwm.streams.source import Source
from sciwm.streams.windows import Windows

__all__ = ["AHEAD", "CHOICES", "BlockSizes", "Mode", "choose_sizes"]

Mode = Literal["resident", "block"]
AHEAD = 2  # batches assembled before they are asked for
# Times per block and blocks mixed, from the best down. Larger blocks decode fewer chunks twice,
# more blocks shuffle better.
CHOICES = [
    (512, 16),
    (256, 16),
    (256, 8),
    (128, 8),
    (64, 8),
    (32, 8),
    (16, 8),
    (8, 8),
    (4, 8),
    (2, 8),
    (1, 8),
    (1, 4),
    (1, 2),
    (1, 1),
]


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of a pool.

    Parameters
    ----------
    block : int
        Times per block, a multiple of the stored chunk.
    pool : int
        Blocks mixed in a batch.
    span : int
        Times a window reaches beyond its first.
    slots : int
        Blocks held at most: those that fit into the memory limit, if fewer are not enough.
    threads : int
        Reading threads.
    """

    block: int
    pool: int
    span: int
    slots: int
    threads: int

    def with_order(self, block: int, pool: int) -> "BlockSizes":
        """The same with blocks and pool of a stream that is resumed."""
        return replace(
            self,
            block=block,
            pool=pool,
            slots=max(1, self.slots * (self.block + self.span) // (block + self.span)),
        )


def choose_sizes(
    source: Source,
    windows: Windows,
    *,
    batch_size: int,
    stride: int | None,
    mode: Mode | None,
    memory_limit: int,
    item: int,
    threads: int | None,
) -> tuple[Mode, BlockSizes]:
    """Hold everything if that takes at most half of the limit, else the best pool that fits.

    Raises
    ------
    ValueError
        If the smallest pool does not fit; the message says what would.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"got {threads} threads, expected at least 1")
    threads = threads or min(4, os.cpu_count() or 1)
    state = source.state_bytes * item // 4
    # Those that wait, one in hand, one being made, and two that were freed and that the allocator
    # has not given back.
    batches = (AHEAD + 4) * batch_size * windows.length * state
    span = windows.lead_steps[-1] * (windows.length - 1)
    chunk = source.reader.chunk
    times = int(windows.touched(source.shape[0]).sum())
    fits = times * state <= memory_limit // 2 and times * state + batches <= memory_limit
    mode = mode or ("resident" if fits else "block")
    if mode == "resident":
        return mode, BlockSizes(chunk, 1, span, 1, threads)
    per_time = len(windows) / times / (windows.length if stride is None else stride)
    least = None
    # The last chunk of a block is decoded for the next one, too: with long chunks and small states,
    # take more of them.
    many = min(8, times // (2 * CHOICES[0][1] * chunk)) if span else 0
    choices = [(many * chunk, CHOICES[0][1]), *CHOICES] if many * chunk > CHOICES[0][0] else CHOICES
    for size, pool in choices:
        block = -(-size // chunk) * chunk
        # A batch may end in the middle of a block, and reach over several if few windows lie in
        # each.
        live = pool + 1 + math.ceil(batch_size / (block * per_time))
        scratch = (
            threads
            * (source.copies * source.state_bytes + (source.state_bytes if item != 4 else 0))
            / state
        )
        slots = int((memory_limit - batches) // ((block + span) * state))
        needed = live + 1 + scratch
        if slots - scratch >= live + 1:
            # More blocks read ahead than these would only touch memory.
            return mode, BlockSizes(
                block, pool, span, min(int(slots - scratch), live + 2 * pool), threads
            )
        least = min(least or 2**62, int(batches + needed * (block + span) * state))
    raise ValueError(
        f"got a memory limit of {memory_limit / 2**20:.0f} MiB, expected at least"
        f" {(least or 0) / 2**20:.0f} MiB, because several blocks of {chunk} times (the chunk) of"
        f" {state / 2**20:.3g} MiB each are held; raise memory_limit, or make chunks shorter in"
        " time"
    )
