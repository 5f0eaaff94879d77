"""Cache heuristics: how much each cache deserves. One file each."""

from .baklava import Baklava, HeadInput, HeadWeight, LayerScore, Reduction
from .cake import Cake
from .compress_kv import CompressKV
from .fisher import Fisher, Lost
from .head_kv import HeadKV
from .passkey_heads import PasskeyHeads
from .residual_change import ResidualChange
from .retrieval_heads import RetrievalHeads

__all__ = [
    "Baklava",
    "Cake",
    "CompressKV",
    "Fisher",
    "HeadInput",
    "HeadKV",
    "HeadWeight",
    "LayerScore",
    "Lost",
    "PasskeyHeads",
    "Reduction",
    "ResidualChange",
    "RetrievalHeads",
]
