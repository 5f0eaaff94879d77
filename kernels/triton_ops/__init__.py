"""Attention kernels for caches whose heads hold unequal numbers of tokens.

Each folder is one operation: its `__init__` checks the arguments and picks, `reference` is plain
torch (the CPU path and the specification), `triton_kernel` is the same function for CUDA.
"""

from .ragged_attention import Prefix, ragged_attention

__all__ = ["Prefix", "ragged_attention"]
