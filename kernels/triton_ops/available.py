"""Whether there is a Triton to launch kernels with."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec


@cache
def triton_is_installed() -> bool:
    """Whether Triton can be imported; the answer does not import it."""
    return find_spec("triton") is not None
