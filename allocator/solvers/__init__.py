"""Ways to solve a problem, one file each. Import cost: NumPy only.

The published allocation rules stand in their own folder and are offered here like the others.
"""

from .exact import Exact
from .greedy import Greedy
from .hull import Hull
from .linear_program import LinearProgram
from .mixed_integer import MixedInteger
from .optuna_search import OptunaSearch
from .published import (
    CAKE,
    D2O,
    LUKV,
    AdaKV,
    BaKlaVa,
    CoKV,
    CompressKV,
    DuoAttention,
    DynamicKV,
    EvolKV,
    HeadKV,
    KVTuner,
    LAVa,
    PrefixKV,
    PyramidKV,
    RazorAttention,
    SqueezeAttention,
    ZigZagKV,
)
from .uniform import Uniform

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
    "Exact",
    "Greedy",
    "HeadKV",
    "Hull",
    "KVTuner",
    "LAVa",
    "LinearProgram",
    "MixedInteger",
    "OptunaSearch",
    "PrefixKV",
    "PyramidKV",
    "RazorAttention",
    "SqueezeAttention",
    "Uniform",
    "ZigZagKV",
]
