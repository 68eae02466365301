"""Memory of batches, used again once nothing refers to it: fresh pages cost as much as filling."""

import math
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["Recycled"]


class Recycled:
    """Uninitialised tensors whose memory comes back by itself.

    Memory returns when the last tensor that shares it is gone, in whatever thread that happens. Any
    view of a tensor shares its memory, too. At most ``most`` pieces wait to be used again.

    Examples
    --------
    >>> memory = Recycled(most=1)
    >>> first = memory.take((2, 3), torch.float32)
    >>> place = first.data_ptr()
    >>> view = first[1:]
    >>> del first
    >>> memory.take((2, 3), torch.float32).data_ptr() == place  # the view is still there
    False
    >>> del view
    >>> memory.take((2, 3), torch.float32).data_ptr() == place
    True
    """

    def __init__(self, *, most: int) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=most)

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor with any content."""
        size = math.prod(shape) * dtype.itemsize
        try:
            piece = self._free.pop()
        except IndexError:
            piece = np.empty(0, np.uint8)
        if piece.size != size:  # the last batch of an epoch may be smaller
            piece = np.empty(size, np.uint8)
        lent = piece.view()
        weakref.finalize(lent, self._free.append, piece).atexit = False
        return torch.from_numpy(lent).view(dtype).view(*shape)
