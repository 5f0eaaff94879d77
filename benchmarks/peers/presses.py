"""Every press of kvpress that can run on the shipped model, with its authors' defaults.

Where a press wraps another, the pair is that of kvpress' own evaluation; where that has none, it
is SnapKV, which most wrappers are written for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import kvpress as kp

from benchmarks.peers.not_run import NOT_RUN

Make = Callable[[float], Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One press.

    Args:
        make: Makes it for a share of the pairs to remove.
        eager: Whether it needs the attention weights.
        smallest: Least share of the cache that it can keep.
        prompts: Most prompts of a kind that it is tried on.
    """

    make: Make
    eager: bool = field(default=False, kw_only=True)
    smallest: float = field(default=0.0, kw_only=True)
    prompts: int = field(default=1000, kw_only=True)


def snap(removed: float) -> Any:
    """The press most wrappers are tried with."""
    return kp.SnapKVPress(removed)


def expected(removed: float, **settings: Any) -> Any:
    """The press that kvpress' evaluation wraps beside SnapKV."""
    return kp.ExpectedAttentionPress(removed, **settings)


def snap_think(removed: float) -> Any:
    """SnapKV, then half of the key channels as in kvpress' evaluation: a quarter of the bytes."""
    share = 1 - (1 - removed) / 0.75
    return kp.ComposedPress([snap(share), kp.ThinKPress(key_channel_compression_ratio=0.5)])


def seeded_random(removed: float) -> Any:
    """Random scores of one seed, so that a run can be repeated."""
    return kp.RandomPress(removed, seed=0)


SCORERS: dict[str, Entry] = {
    "CAPKV": Entry(kp.CapPress),
    "Compactor": Entry(kp.CompactorPress),
    "CriticalKV (ExpectedAttention)": Entry(
        lambda removed: kp.CriticalKVPress(expected(removed, use_vnorm=False))
    ),
    "CriticalKV (SnapKV)": Entry(lambda removed: kp.CriticalKVPress(snap(removed))),
    "CurDKV": Entry(kp.CURPress),
    "ExpectedAttention": Entry(expected),
    "KeyDiff": Entry(kp.KeyDiffPress),
    "Knorm": Entry(kp.KnormPress),
    "LagKV": Entry(kp.LagKVPress),
    "LeverageScore": Entry(kp.LeverageScorePress),
    "NonCausalAttention": Entry(kp.NonCausalAttnPress),
    "ObservedAttention (H2O)": Entry(kp.ObservedAttentionPress, eager=True),
    "Random": Entry(seeded_random),
    "SnapKV": Entry(snap),
    "StreamingLLM": Entry(kp.StreamingLLMPress),
    "TOVA": Entry(kp.TOVAPress),
}

WRAPPERS: dict[str, Entry] = {
    "Block (KeyDiff)": Entry(lambda removed: kp.BlockPress(kp.KeyDiffPress(removed))),
    "ChunkKV (SnapKV)": Entry(lambda removed: kp.ChunkKVPress(snap(removed), chunk_length=20)),
    "EntropyGatedChunkKV (SnapKV)": Entry(
        lambda removed: kp.EntropyGatedChunkKVPress(snap(removed))
    ),
    "KeyRerotation (SnapKV)": Entry(lambda removed: kp.KeyRerotationPress(snap(removed))),
    "KVCompose, structured": Entry(lambda removed: kp.KVComposePress(compression_ratio=removed)),
    "Merging (Knorm)": Entry(lambda removed: kp.MergingPress(kp.KnormPress(removed))),
    "Merging (SnapKV)": Entry(lambda removed: kp.MergingPress(snap(removed))),
    "PyramidKV": Entry(kp.PyramidKVPress),
    "SnapKV + ThinK": Entry(snap_think),
}

MASKING: dict[str, Entry] = {
    "AdaKV (ExpectedAttention)": Entry(lambda removed: kp.AdaKVPress(expected(removed))),
    "AdaKV (ExpectedAttention, epsilon 0.01)": Entry(
        lambda removed: kp.AdaKVPress(expected(removed, epsilon=1e-2))
    ),
    "AdaKV (KeyDiff)": Entry(lambda removed: kp.AdaKVPress(kp.KeyDiffPress(removed))),
    "AdaKV (SnapKV)": Entry(lambda removed: kp.AdaKVPress(snap(removed))),
    "CriticalAdaKV (ExpectedAttention)": Entry(
        lambda removed: kp.CriticalAdaKVPress(expected(removed, use_vnorm=False))
    ),
    "CriticalAdaKV (SnapKV)": Entry(lambda removed: kp.CriticalAdaKVPress(snap(removed))),
    "KVCompose, unstructured": Entry(
        # slow, and it leaves both readings of the context in the cache
        lambda removed: kp.KVComposePress(structured=False, compression_ratio=removed),
        prompts=1,
    ),
    "KVgrad": Entry(kp.KVgradPress),
    "KVzip": Entry(kp.KVzipPress),
    "KVzip+": Entry(lambda removed: kp.KVzipPress(removed, kvzip_plus_normalization=True)),
}

BASES = {"BasePress", "ScorerPress"}
FITTED = {"DuoAttentionPress", "ExpectedAttentionStatsPress"}


def unaccounted() -> set[str]:
    """Presses of the installed kvpress that are neither run nor left out with a reason."""
    every = {name for name in kp.__all__ if name.endswith("Press")}
    entries = (*SCORERS.values(), *WRAPPERS.values(), *MASKING.values())
    run = {type(entry.make(0.5)).__name__ for entry in entries}
    return every - BASES - FITTED - run - set(NOT_RUN)
