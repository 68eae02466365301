"""Peak memory of a stream beyond that of its imports, in a process of its own; prints MiB.

python benchmarks/stream_memory.py STORE --memory-limit 536870912 --stride 6 --batches 400
"""

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path


def status(name: str) -> float:
    """A line of ``/proc/self/status``, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def peak(
    store: Path, *, memory_limit: int, stride: int, batches: int, xbatcher: bool = False
) -> float:
    """MiB that a fresh process takes for serving so many batches."""
    numbers = {"--memory-limit": memory_limit, "--stride": stride, "--batches": batches}
    command = [sys.executable, "-W", "ignore", __file__, str(store)]
    command += [str(x) for pair in numbers.items() for x in pair]
    command += ["--xbatcher"] if xbatcher else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Serve batches and print the peak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--memory-limit", type=int, default=2**30)
    parser.add_argument("--stride", type=int, default=6)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--xbatcher", action="store_true", help="xbatcher without workers instead")
    options = parser.parse_args()
    import torch
    import xarray as xr
    import zarr  # noqa: F401 (part of the imports)
    from stream_designs import stack, xbatcher_map

    import sciwm

    torch.set_num_threads(1)
    sciwm.stream  # noqa: B018 (loaded when first named)
    before = status("VmRSS")
    if options.xbatcher:
        opened = partial(xr.open_zarr, options.store, chunks=None)
        dataset = xbatcher_map(opened, 6, options.stride, stack)
        loader = torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)
    else:
        order = sciwm.Order(every=options.stride, epochs=None)
        reading = sciwm.Reading(mode="block", memory_limit=options.memory_limit)
        loader = sciwm.stream(options.store, window=6, batch_size=32, order=order, reading=reading)
    batches = iter(loader)
    for _ in range(options.batches):
        next(batches)
    print(f"{status('VmHWM') - before:.1f}")


if __name__ == "__main__":
    main()
