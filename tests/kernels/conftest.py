"""Random ragged caches and a sound interpreter, shared by the tests of the kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Arguments of one call of `ragged_attention`, and the buffers its mass is added to."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int]
    settings: dict[str, object]
    mass: Tensor
    tail_mass: Tensor

    def run(self, attention: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Output, mass and tail mass; the case's own buffers stay as they are."""
        mass, tail_mass = self.mass.clone(), self.tail_mass.clone()
        out = attention(*self.tensors, **self.settings, mass=mass, tail_mass=tail_mass)
        return out, mass, tail_mass

    def to(self, device: str) -> Case:
        moved = tuple(x.to(device) if isinstance(x, Tensor) else x for x in self.tensors)
        settings = {
            name: x.to(device) if isinstance(x, Tensor) else x for name, x in self.settings.items()
        }
        return Case(moved, settings, self.mass.to(device), self.tail_mass.to(device))


def make_case(
    sizes: Sequence[int],
    *,
    kv_heads: int = 2,
    group: int = 1,
    new: int = 1,
    tail_tokens: int = 1,
    head_dim: int = 16,
    value_dim: int = 16,
    dtype: torch.dtype = torch.float32,
    scaling: float = 0.2,
    window: int | None = None,
    softcap: float | None = None,
    slopes: bool = False,
    sinks: bool = False,
    first_seen: torch.dtype | None = None,
    gaps: int = 3,
    free: Sequence[int] | None = None,
    shuffled: bool = False,
    seed: int = 0,
) -> Case:
    """One token per row at random rising positions; all that must not be read is NaN.

    `sizes` are the segments' lengths, `len(sizes) / kv_heads` the batch, `gaps` the number of
    positions that even the longest segment has lost, `first_seen` the dtype of these bounds,
    `free` the rows behind each segment, `shuffled` whether the rows of a segment lie in any order.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(dtype)

    batch, spare = len(sizes) // kv_heads, 2
    room = [size + more for size, more in zip(sizes, free or [0] * len(sizes), strict=True)]
    offsets, rows = torch.tensor([0, *room]).cumsum(0), sum(room)
    ends = offsets[:-1] + torch.tensor(sizes)
    before_tail = max(0, max(sizes) + gaps, new - tail_tokens)
    kept = [torch.randperm(before_tail, generator=random)[:n] for n in sizes]
    positions = torch.zeros(rows + spare)
    for start, columns in zip(offsets, kept, strict=False):
        ordered = columns if shuffled else columns.sort().values
        positions[start : start + len(columns)] = ordered
    keys, values = normal(rows + spare, head_dim), normal(rows + spare, value_dim)
    tail_keys = normal(batch, kv_heads, tail_tokens + spare, head_dim)
    tail_values = normal(batch, kv_heads, tail_tokens + spare, value_dim)
    for flat in (keys, values):
        flat[rows:] = float("nan")
        for end, behind in zip(ends, offsets[1:], strict=True):
            flat[end:behind] = float("nan")
    for tail in (tail_keys, tail_values):
        tail[:, :, tail_tokens:] = float("nan")
    # from before the first column to behind the query itself
    bounds = torch.randint(-2, before_tail + tail_tokens + 1, (batch, new), generator=random)
    return Case(
        tensors=(
            normal(batch, kv_heads * group, new, head_dim),
            keys,
            values,
            offsets,
            positions.int(),
            tail_keys,
            tail_values,
            tail_tokens,
        ),
        settings={
            "seen_tokens": before_tail + tail_tokens,
            "scaling": scaling,
            "window": window,
            "softcap": softcap,
            "slopes": torch.rand(kv_heads * group, generator=random) if slopes else None,
            "sinks": normal(kv_heads * group) if sinks else None,
            "first_seen": None if first_seen is None else bounds.to(first_seen),
            "ends": None if free is None else ends,
        },
        mass=torch.rand(rows + spare, generator=random),
        tail_mass=torch.rand(batch, kv_heads, tail_tokens + spare, generator=random),
    )


@pytest.fixture(scope="session")
def case() -> Callable[..., Case]:
    """Makes a random call; see `make_case`."""
    return make_case


@pytest.fixture(autouse=True)
def repaired_interpreter(monkeypatch):
    """Where kernels run in Triton's interpreter, mends what some of its versions get wrong."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    product, patch_tensor = (
        interpreter.InterpreterBuilder.create_dot,
        interpreter._patch_lang_tensor,
    )

    def widened(tile):
        """Version 3.9 multiplies tiles of bfloat16 as whole numbers of the same bits."""
        if tile.dtype.scalar != tl.bfloat16:
            return tile
        data = interpreter._convert_float(tile.data, tl.bfloat16, tl.float32, None)
        return interpreter.TensorHandle(data.view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return product(self, widened(a), widened(b), *rest)

    def patched(tensor, scope):
        """Version 3.6 takes an array of one number for a number, which newer numpy refuses."""
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


@pytest.fixture
def poisoned_memory(monkeypatch):
    """What is allocated holds NaN until it is written."""
    empty = torch.empty

    def poisoned(*shape, **options):
        made = empty(*shape, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)
