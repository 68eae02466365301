"""What the benchmarks say of the machine they ran on."""

import os
import platform
from pathlib import Path

__all__ = ["processor"]


def processor() -> str:
    """Number of cores, and name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in info.read_text().splitlines()] if info.exists() else []
    models = [value.strip() for key, _, value in lines if key.strip() == "model name"]
    name = models[0] if models else platform.processor()
    return f"{len(models) or os.cpu_count()} cores of {name}"
