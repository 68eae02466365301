import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from sciwm.streams.recycle import Recycled


def test_memory_in_use_is_never_given_out_again():
    memory, rng = Recycled(most=4), np.random.default_rng(0)
    held: list[tuple[torch.Tensor, float]] = []
    for number in range(200):
        tensor = memory.take((3, 5), torch.float32)
        tensor.fill_(number)
        # Views of all kinds keep the memory, as tensors of a batch do.
        kept = (tensor, tensor[1:], tensor.reshape(-1), tensor.T, tensor.detach(), tensor[:, 2])[
            number % 6
        ]
        held.append((kept, float(number)))
        if len(held) > 5:
            held.pop(int(rng.integers(5)))
        assert all(bool((t == value).all()) for t, value in held)


def test_numpy_view_keeps_the_memory():
    memory = Recycled(most=4)
    array = memory.take((4,), torch.float32).numpy()
    array[:] = 7
    memory.take((4,), torch.float32).fill_(0)
    assert (array == 7).all()


def test_memory_comes_back_once_the_last_tensor_is_gone():
    memory = Recycled(most=2)
    tensors = [memory.take((8,), torch.float32) for _ in range(3)]
    places = {t.data_ptr() for t in tensors}
    assert len(places) == 3
    del tensors
    again = [memory.take((8,), torch.float32) for _ in range(2)]
    assert {t.data_ptr() for t in again} < places


def test_no_more_pieces_wait_than_asked_for():
    memory = Recycled(most=2)
    tensors = [memory.take((8,), torch.float32) for _ in range(9)]
    del tensors
    gc.collect()
    assert len(memory._free) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_may_change_from_call_to_call(dtype):
    memory = Recycled(most=4)
    for shape in ((2, 3), (1, 3), (2, 3), (4, 3, 2)):
        tensor = memory.take(shape, dtype)
        assert tensor.shape == shape
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()


def test_pieces_may_come_back_in_another_thread_and_after_the_memory_itself():
    memory = Recycled(most=4)
    held = [memory.take((8,), torch.float32)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert len(memory._free) == 1
    last = memory.take((8,), torch.float32).fill_(3)
    gone = weakref.ref(memory)
    del memory
    gc.collect()
    assert gone() is None
    assert bool((last == 3).all())
