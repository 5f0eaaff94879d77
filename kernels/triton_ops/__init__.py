"""Attention kernels for caches whose heads hold unequal numbers of tokens.

Each folder is one operation: its `__init__` checks the arguments and picks, `reference` is plain
torch (the CPU path and the specification), `triton_kernel` is the same function for CUDA.
"""

from .attention_sums import attention_sums
from .gather_kept import gather_kept
from .level_softmax import Future, LevelStates, level_softmax
from .move_rows import move_rows
from .ragged_attention import Prefix, ragged_attention
from .select_top import select_top

__all__ = [
    "Future",
    "LevelStates",
    "Prefix",
    "attention_sums",
    "gather_kept",
    "level_softmax",
    "move_rows",
    "ragged_attention",
    "select_top",
]
