"""How long something takes on a device, and how much memory it needs meanwhile."""

import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Result = TypeVar("Result")


Devices = Collection[torch.device]


def timed(devices: Devices, work: Callable[[], Result]) -> tuple[Result, float]:
    """Do some work on devices to its end; its result, and the seconds it took."""
    _wait(devices)
    start = time.perf_counter()
    result = work()
    _wait(devices)
    return result, time.perf_counter() - start


def peak_bytes(devices: Devices, work: Callable[[], object]) -> int:
    """Most bytes that lived at once of everything that some work made.

    On GPUs their allocators say so, and the peaks of several are added up; elsewhere every
    operation's results are counted as long as they live, which takes time: do not measure both at
    once.
    """
    graphic = [device for device in devices if device.type == "cuda"]
    if not graphic:
        live = LiveBytes()
        with live:
            work()
        return live.peak_bytes
    _wait(graphic)
    before = [torch.cuda.memory_allocated(device) for device in graphic]
    for device in graphic:
        torch.cuda.reset_peak_memory_stats(device)
    work()
    _wait(graphic)
    return sum(map(torch.cuda.max_memory_allocated, graphic)) - sum(before)


class LiveBytes(TorchDispatchMode):
    """A context that counts the bytes of what is computed in it, as long as that lives.

    Attributes:
        peak_bytes: Most that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the storages of its results, each once."""
        given = {_key(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and _key(each) not in given:
                storage = each.untyped_storage()
                self._live[_key(each)] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: pair for key, pair in self._live.items() if not pair[0].expired()}
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._live.values()))
        return result


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _wait(devices: Devices) -> None:
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
