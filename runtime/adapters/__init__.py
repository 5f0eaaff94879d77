"""Stand-ins for attention modules that compute their attention themselves."""

from .adapter import Adapter, Attend
from .bloom import BloomAdapter
from .code_gen import CodeGenAdapter
from .falcon import FalconAdapter
from .gpt_j import GPTJAdapter
from .gpt_neo import GPTNeoAdapter
from .gpt_neox_japanese import GPTNeoXJapaneseAdapter
from .mpt import MptAdapter
from .replacing import adapters_installed, adapters_removed
from .xglm import XGLMAdapter

__all__ = [
    "Adapter",
    "Attend",
    "BloomAdapter",
    "CodeGenAdapter",
    "FalconAdapter",
    "GPTJAdapter",
    "GPTNeoAdapter",
    "GPTNeoXJapaneseAdapter",
    "MptAdapter",
    "XGLMAdapter",
    "adapters_installed",
    "adapters_removed",
]
