"""Tile sizes, warps and stages of every Triton program: one table for each generation of chips.

A kind of launch is a member of `Program`; where the best settings depend on the call (few or many
rows, narrow or wide heads), a program has several. To use it in an op's `triton_kernel.py`:

    from ..launches import Program, launch_for

    launch = launch_for(Program.SELECT, scores.device)
    select_kernel[grid](..., BLOCK=launch.tokens, **launch.options)

To add a kind, give `Program` a member and every table below a row of it: first the default, then
two to four alternatives that `tuning.tune` measures. Each must fit the shared memory of its chips
at the largest sizes the kind serves (`SHARED_BYTES`), and `tests/kernels/test_compile.py` compiles
all of them. An op may shrink a tile to its call (`min(launch.rows, ...)`), never enlarge it.
Tests force other settings by `with using({Program.SELECT: Launch(tokens=64)}): ...`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import torch

from .tuned import read_tuned


class Launch(NamedTuple):
    """Settings of one launch; an op reads those that it has a use for.

    Args:
        rows: Rows of a tile (of queries), a power of two.
        tokens: Tokens of a tile, a power of two.
        split_tokens: Tokens that one program works through, a multiple of `tokens`.
        warps: Warps of a program, of 32 threads (64 on AMD).
        stages: Rounds of a loop whose loads are under way at once.
    """

    rows: int = 16
    tokens: int = 64
    split_tokens: int = 256
    warps: int = 4
    stages: int = 2

    @property
    def options(self) -> dict[str, int | bool]:
        """What every launch is told by name; Triton warns where the last is left out."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


class Program(Enum):
    """What is launched; the value is its name in the file of tuned settings."""

    # ragged attention in half precision, by query rows of a KV head and the widest of its heads
    ATTEND_FEW = "attend, at most 16 rows, at most 128 wide"
    ATTEND_FEW_WIDE = "attend, at most 16 rows, at most 256 wide"
    ATTEND_MANY = "attend, more rows, at most 128 wide"
    ATTEND_MANY_WIDE = "attend, more rows, at most 256 wide"
    ATTEND_LATENT = "attend, at most 576 wide"
    ATTEND_FLOAT32 = "attend, float32, at most 256 wide"
    JOIN = "join"
    SHARE = "share noted logits"
    # attention_sums
    SUMS_NORMALISE = "attention sums, normaliser"
    SUMS_JOIN = "attention sums, join"
    SUMS_ADD = "attention sums, add"
    # the others
    LEVELS = "level softmax"
    SELECT = "select top"
    GATHER = "gather kept"
    MOVE = "move rows"


class Generation(Enum):
    """Chips that share a table."""

    AMPERE = "sm_80"
    HOPPER = "sm_90 and newer"
    CDNA3 = "gfx942"


# what one program may use: of sm_80 to sm_120 the smallest, and the LDS of gfx942
SHARED_BYTES = {
    Generation.AMPERE: 99 * 1024,
    Generation.HOPPER: 99 * 1024,
    Generation.CDNA3: 64 * 1024,
}

Table = Mapping[Program, tuple[Launch, ...]]

_EVERYWHERE: dict[Program, tuple[Launch, ...]] = {
    Program.JOIN: (Launch(16), Launch(16, warps=2), Launch(16, warps=8)),
    Program.SHARE: (Launch(tokens=256), Launch(tokens=512), Launch(tokens=128)),
    Program.SUMS_NORMALISE: (
        Launch(64, 64, 512),
        Launch(64, 128, 512),
        Launch(128, 64, 512, warps=8),
        Launch(64, 32, 1024),
    ),
    Program.SUMS_JOIN: (Launch(256), Launch(128), Launch(512)),
    Program.SUMS_ADD: (
        Launch(64, 64),
        Launch(64, 128),
        Launch(128, 64, warps=8),
        Launch(64, 32),
    ),
    Program.LEVELS: (
        Launch(64, 64, 1024),
        Launch(64, 32, 1024),
        Launch(64, 64, 512, warps=8),
    ),
    Program.SELECT: (
        Launch(tokens=4096, warps=8),
        Launch(tokens=2048, warps=8),
        Launch(tokens=2048, warps=4),
    ),
    Program.GATHER: (Launch(tokens=64), Launch(tokens=32), Launch(tokens=128)),
    Program.MOVE: (Launch(tokens=32), Launch(tokens=16), Launch(tokens=64)),
}
_AMPERE = _EVERYWHERE | {
    Program.ATTEND_FEW: (
        Launch(16, 64, 256),
        Launch(16, 64, 512, stages=3),
        Launch(16, 32, 256, stages=3),
        Launch(16, 64, 256, warps=2),
    ),
    Program.ATTEND_FEW_WIDE: (
        Launch(16, 32, 256),
        Launch(16, 32, 512, warps=8),
        Launch(16, 64, 256, stages=1),
    ),
    Program.ATTEND_MANY: (
        Launch(64, 64, 256),
        Launch(64, 32, 512),
        Launch(32, 64, 256),
    ),
    Program.ATTEND_MANY_WIDE: (
        Launch(64, 32, 256, warps=8),
        Launch(64, 32, 512),
        Launch(32, 32, 256),
    ),
    Program.ATTEND_LATENT: (
        Launch(16, 32, 256, warps=8),
        Launch(32, 32, 256, warps=8, stages=1),
        Launch(16, 16, 256),
    ),
    Program.ATTEND_FLOAT32: (
        Launch(16, 32, 256),
        Launch(16, 16, 256),
        Launch(16, 32, 512, warps=8),
    ),
}
_HOPPER = _AMPERE | {
    Program.ATTEND_FEW: (
        Launch(16, 64, 256),
        Launch(16, 64, 256, stages=3),
        Launch(16, 64, 128),
        Launch(16, 128, 256, warps=8),
        Launch(16, 64, 256, warps=2),
    ),
}
_CDNA3 = _EVERYWHERE | {
    Program.ATTEND_FEW: (
        Launch(16, 32, 256),
        Launch(16, 64, 256),
        Launch(16, 32, 512),
        Launch(16, 32, 256, warps=2),
    ),
    Program.ATTEND_FEW_WIDE: (
        Launch(16, 16, 256),
        Launch(16, 32, 256),
        Launch(16, 16, 512),
    ),
    Program.ATTEND_MANY: (
        Launch(64, 32, 256),
        Launch(32, 32, 256),
        Launch(64, 64, 512),
    ),
    Program.ATTEND_MANY_WIDE: (
        Launch(32, 32, 256),
        Launch(64, 32, 256),
        Launch(32, 16, 512),
    ),
    Program.ATTEND_LATENT: (
        Launch(16, 16, 256),
        Launch(16, 16, 512),
        Launch(16, 16, 256, stages=1),
    ),
    Program.ATTEND_FLOAT32: (
        Launch(16, 16, 256),
        Launch(16, 16, 256, warps=8),
        Launch(16, 16, 512),
    ),
}

TABLES: Mapping[Generation, Table] = {
    Generation.AMPERE: _AMPERE,
    Generation.HOPPER: _HOPPER,
    Generation.CDNA3: _CDNA3,
}

_NOTHING: Mapping[Program, Launch] = MappingProxyType({})
_FORCED: ContextVar[Mapping[Program, Launch]] = ContextVar("_FORCED", default=_NOTHING)


def launch_for(program: Program, device: torch.device) -> Launch:
    """The settings to launch a program with on a device.

    Those forced by `using`, else those that `tuning.tune` found on this GPU, else the table's.
    The interpreter's tensors lie on the CPU, which takes the newest table.
    """
    forced = _FORCED.get().get(program)
    return _chosen(device)[program] if forced is None else forced


@contextmanager
def using(choices: Mapping[Program, Launch]) -> Iterator[None]:
    """Launch some programs with other settings, in this thread, until the block ends.

    A program that `choices` has no settings for keeps those it has.
    """
    outer = _FORCED.get()
    token = _FORCED.set({**outer, **choices} if outer else choices)
    try:
        yield
    finally:
        _FORCED.reset(token)


def generation_of(device: torch.device) -> Generation:
    """Which table serves a device."""
    if device.type != "cuda":
        return Generation.HOPPER
    if torch.version.hip:
        return Generation.CDNA3
    major, _ = torch.cuda.get_device_capability(device)
    return Generation.HOPPER if major >= 9 else Generation.AMPERE


def forget_choices() -> None:
    """Look at the tables and at the file of tuned settings again at the next launch."""
    _chosen.cache_clear()


@cache
def _chosen(device: torch.device) -> dict[Program, Launch]:
    table = TABLES[generation_of(device)]
    chosen = {program: choices[0] for program, choices in table.items()}
    if device.type == "cuda":
        found = read_tuned(torch.cuda.get_device_name(device))
        for program, choices in table.items():
            # a choice that the table no longer offers is forgotten
            chosen[program] = next(
                (x for x in choices if list(x) == found.get(program.value)), choices[0]
            )
    return chosen
