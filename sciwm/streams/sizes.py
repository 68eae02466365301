"""How much a stream holds in memory: everything, or a pool of blocks."""

import math
import os
from dataclasses import dataclass, replace

from sciwm.streams.choices import Mode, Reading
from sciwm.streams.source import Source
from sciwm.streams.windows import Windows

__all__ = ["AHEAD", "CHOICES", "BlockSizes", "choose_sizes"]

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
    every: int | None,
    reading: Reading,
) -> tuple[Mode, BlockSizes]:
    """Hold everything if that takes at most half of the limit, else the best pool that fits.

    Raises
    ------
    ValueError
        If the smallest pool does not fit; the message says what would.
    """
    threads, limit = reading.threads or min(4, os.cpu_count() or 1), reading.memory_limit
    state = source.state_bytes * reading.dtype.itemsize // 4
    # Those that wait, one in hand, one being made, and two that were freed and that the allocator
    # has not given back.
    length, span = windows.spacing.length, windows.spacing.span(windows.lead_steps[-1])
    batches = (AHEAD + 4) * batch_size * length * state
    chunk = source.reader.chunk
    times = int(windows.touched(source.shape[0]).sum())
    fits = times * state <= limit // 2 and times * state + batches <= limit
    mode = reading.mode or ("resident" if fits else "block")
    if mode == "resident":
        return mode, BlockSizes(chunk, 1, span, 1, threads)
    per_time = len(windows) / times / (every or length)
    # What threads hold beside the pool while they read, in blocks of the pool.
    converted = 0 if reading.dtype.itemsize == 4 else source.state_bytes
    scratch = threads * (source.copies * source.state_bytes + converted) / state
    least = None
    # The last chunk of a block is decoded for the next one, too: with long chunks and small states,
    # take more of them.
    (longest, most_mixed), choices = CHOICES[0], CHOICES
    many = min(8, times // (2 * most_mixed * chunk)) if span else 0
    if many * chunk > longest:
        choices = [(many * chunk, most_mixed), *CHOICES]
    for size, pool in choices:
        block = -(-size // chunk) * chunk
        # A batch may end in the middle of a block, and reach over several if few windows lie in
        # each.
        live = pool + 1 + math.ceil(batch_size / (block * per_time))
        slots = int((limit - batches) // ((block + span) * state))
        if slots - scratch >= live + 1:
            # More blocks read ahead than these would only touch memory.
            slots = min(int(slots - scratch), live + 2 * pool)
            return mode, BlockSizes(block, pool, span, slots, threads)
        needed = live + 1 + scratch
        least = min(least or 2**62, int(batches + needed * (block + span) * state))
    raise ValueError(
        f"got a memory limit of {limit / 2**20:.0f} MiB, expected at least"
        f" {(least or 0) / 2**20:.0f} MiB, because several blocks of {chunk} times (the chunk) of"
        f" {state / 2**20:.3g} MiB each are held; raise memory_limit, or make chunks shorter in"
        " time"
    )
