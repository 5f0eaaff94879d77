"""Allocation rules as their papers state them, one file each. Import cost: NumPy only.

Where a rule makes caches of a layer equal, ``EqualInLayer`` leaves no exception. The heads of each
layer are merged then, and of an importance per cache each layer takes the mean.

Rules divide tokens, as their papers do: where the tokens of layers differ in bytes, ``bytes`` in
their formulas are those of a token of mean size, and a layer with fewer caches is a smaller part of
the whole. Layers whose heads were merged are the exception: they count alike, whatever their size.
"""

from .ada_kv import AdaKV
from .baklava import BaKlaVa
from .cake import CAKE
from .co_kv import CoKV
from .compress_kv import CompressKV
from .d2o import D2O
from .duo_attention import DuoAttention
from .dynamic_kv import DynamicKV
from .evolkv import EvolKV
from .head_kv import HeadKV
from .kvtuner import KVTuner
from .lava import LAVa
from .lu_kv import LUKV
from .prefix_kv import PrefixKV
from .pyramid_kv import PyramidKV
from .razor_attention import RazorAttention
from .squeeze_attention import SqueezeAttention
from .zigzag_kv import ZigZagKV

__all__ = [
    "CAKE",
    "D2O",
    "LUKV",
    "AdaKV",
    "BaKlaVa",
    "CoKV",
    "CompressKV",
    "DuoAttention",
    "DynamicKV",
    "EvolKV",
    "HeadKV",
    "KVTuner",
    "LAVa",
    "PrefixKV",
    "PyramidKV",
    "RazorAttention",
    "SqueezeAttention",
    "ZigZagKV",
]
