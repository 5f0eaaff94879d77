"""What the machine can do at best: the ceilings that the kernels are held against."""

from __future__ import annotations

import platform

import torch

from .clock import race

BLOCK_BYTES = 4 << 30


def copy_bandwidth(device: torch.device, nbytes: int = BLOCK_BYTES) -> float:
    """Bytes per second of a copy within the device, read and written counted."""
    source = torch.ones(nbytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    median = race({"copy": [lambda: target.copy_(source)]}, device)["copy"].median
    return 2 * nbytes / (median / 1e3)


def about(device: torch.device) -> dict[str, str]:
    """Name of the machine and versions of what runs there."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type != "cuda":
        return {"device": f"CPU ({platform.machine()})", **versions}
    # here, because a machine without a GPU may have none
    import triton

    return {"device": torch.cuda.get_device_name(), **versions, "triton": triton.__version__}
