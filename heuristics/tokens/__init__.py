"""Token heuristics: which tokens a cache keeps. One file each."""

from .a2sf import A2SF
from .chunk_kv import ChunkKV
from .corm import Corm
from .critical_kv import CriticalKV
from .expected_attention import ExpectedAttention
from .global_local import GlobalLocal
from .heavy_hitter import HeavyHitter
from .key_diff import KeyDiff
from .key_norm import KeyNorm
from .keyformer import Keyformer
from .kv_crush import Anchor, KVCrush
from .kv_zip import KVZip
from .lag_kv import LagKV
from .lazy_eviction import LazyEviction
from .leverage import Leverage
from .non_causal_attention import NonCausalAttention
from .observation_window import ObservationWindow
from .r_kv import RKV
from .random_order import RandomOrder
from .scissorhands import Scissorhands
from .sink_recent import SinkRecent
from .tova import Tova
from .value_mass import ValueMass
from .window_kv import WindowKV
from .zip_cache import ZipCache

__all__ = [
    "A2SF",
    "RKV",
    "Anchor",
    "ChunkKV",
    "Corm",
    "CriticalKV",
    "ExpectedAttention",
    "GlobalLocal",
    "HeavyHitter",
    "KVCrush",
    "KVZip",
    "KeyDiff",
    "KeyNorm",
    "Keyformer",
    "LagKV",
    "LazyEviction",
    "Leverage",
    "NonCausalAttention",
    "ObservationWindow",
    "RandomOrder",
    "Scissorhands",
    "SinkRecent",
    "Tova",
    "ValueMass",
    "WindowKV",
    "ZipCache",
]
