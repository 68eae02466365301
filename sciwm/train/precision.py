"""In which type of numbers a training multiplies matrices."""

import torch

__all__ = ["device_type", "resolve_precision"]

# Lightning's flags of weights in float32, but for float16.
_FLAGS = ("32-true", "bf16-mixed", "32", "bf16")


def device_type() -> str:
    """Type of the device that trains on this machine: that which Lightning takes by itself."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_precision(asked: str, device_type: str) -> str:
    """Lightning's precision flag for a device.

    ``auto`` becomes ``bf16-mixed`` where the processor multiplies bfloat16 faster than float32, and
    ``32-true`` elsewhere. A GPU must have it in hardware. A CPU must have AVX512_BF16, as all with
    AMX do. A training step then takes 0.7 to 0.8 of the time. AVX512 alone does not suffice,
    though oneDNN calls bfloat16 supported there. It is emulated, and slower than float32.
    ARM and Apple's GPUs were not measured and keep float32. `docs/performance.md` has the numbers.

    Parameters
    ----------
    asked : str
        ``train.precision``: ``auto``, or one of Lightning's flags, which is returned as it is.
    device_type : str
        Of the device that trains: ``cpu``, ``cuda``, ``mps``.

    Raises
    ------
    ValueError
        If the flag is unknown, of float16, or of weights that are not float32.

    Examples
    --------
    >>> resolve_precision("auto", "mps")
    '32-true'
    >>> resolve_precision("bf16", "cpu")
    'bf16'
    >>> resolve_precision("16-mixed", "cuda")
    Traceback (most recent call last):
    ...
    ValueError: got train.precision = '16-mixed', expected bf16-mixed or 32-true: ...
    """
    if asked == "auto":
        fast = {"cpu": _cpu_multiplies_bfloat16, "cuda": _gpu_multiplies_bfloat16}
        return "bf16-mixed" if device_type in fast and fast[device_type]() else "32-true"
    if asked in ("16", "16-mixed", "16-true", "transformer-engine-float16"):
        raise ValueError(
            f"got train.precision = {asked!r}, expected bf16-mixed or 32-true: the scaled"
            " gradients of float16 would be clipped as if they were not scaled"
        )
    if asked not in _FLAGS:
        raise ValueError(
            f"got train.precision = {asked!r}, expected auto or one of {', '.join(_FLAGS)}: weights"
            " are kept in float32"
        )
    return asked


def _gpu_multiplies_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the instructions are there and oneDNN, which would use them, is too."""
    # Neither is public, so neither need exist in every release.
    processor = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    onednn = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(processor and onednn and processor() and onednn())
