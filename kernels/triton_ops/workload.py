"""What a model asks of the kernels: calls of the size that it will make, for measuring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from .attention_sums import attention_sums
from .gather_kept import gather_kept
from .level_softmax import Future, level_softmax
from .move_rows import move_rows
from .ragged_attention import Prefix, ragged_attention
from .select_top import select_top

Call = Callable[[], object]


@dataclass(frozen=True)
class Workload:
    """The sizes of a model's attention and of what it is used for; a layer of Llama 3 8B.

    Args:
        batch: Sequences.
        kv_heads: KV heads of a layer.
        group: Query heads of a KV head.
        head_dim: Width of a key.
        value_dim: Width of a value.
        kept_tokens: What a KV head keeps.
        prompt_tokens: What it was read from.
        chunk_tokens: New tokens that are attended at once while a prompt is read on.
        window_tokens: Last queries that tokens are scored by.
        tail_tokens: Newest tokens that wait for the next eviction.
        dtype: Of keys and values.

    Raises:
        ValueError: If a size is below 1, or more is kept or scored by than was read.
    """

    batch: int = 1
    kv_heads: int = 8
    group: int = 4
    head_dim: int = 128
    value_dim: int = 128
    kept_tokens: int = 2048
    prompt_tokens: int = 8192
    chunk_tokens: int = 64
    window_tokens: int = 32
    tail_tokens: int = 32
    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        """Check the sizes."""
        for field in fields(self):
            size = getattr(self, field.name)
            if isinstance(size, int) and size < 1:
                raise ValueError(f"`{field.name}` must be at least 1, but got {size}.")
        for name in ("kept_tokens", "window_tokens"):
            tokens = getattr(self, name)
            if tokens > self.prompt_tokens:
                raise ValueError(
                    f"`{name}` must be at most the {self.prompt_tokens} prompt_tokens, but got "
                    f"{tokens}."
                )

    def calls(self, device: torch.device) -> Iterator[Call]:
        """One call after the other of each operation, which may be made again and again."""
        yield self._attention(1, device, is_noted=False)
        yield self._attention(1, device, is_noted=True)
        yield self._attention(self.chunk_tokens, device, is_noted=False)
        tokens = (self.batch, self.kv_heads, self.prompt_tokens)
        columns = torch.arange(self.prompt_tokens, device=device).expand(tokens)
        valid = torch.ones(tokens, dtype=torch.bool, device=device)
        keys, values = self._random(device, *tokens, self.head_dim), self._values(device, *tokens)
        scores = torch.rand(tokens, device=device).flatten(0, 1)
        newest = columns[0, 0, -self.window_tokens :]
        queries = self._queries(self.window_tokens, device)
        scaling = self.head_dim**-0.5
        yield partial(attention_sums, queries, keys, valid, columns, newest, scaling=scaling)
        levels = [self.prompt_tokens * eighths // 8 for eighths in range(9)]
        last = slice(-self.window_tokens, None)
        future = Future(keys[0, :, last], values[0, :, last], newest)
        context = (keys[0], values[0], columns[0], future, levels)
        yield partial(level_softmax, queries[0], newest, *context, scaling=scaling)
        counts = torch.full((len(scores),), self.kept_tokens, device=device)
        yield partial(select_top, scores, counts)
        keep = select_top(scores, counts).view(tokens)
        flat = self._random(device, self._rows, self.head_dim), self._values(device, self._rows)
        starts = torch.arange(len(scores), device=device) * self.kept_tokens
        yield partial(gather_kept, keep, keys, values, *flat, starts)
        # from the first half of what a KV head keeps to the second
        count = min(self.tail_tokens, self.kept_tokens // 2)
        moved = starts[:, None] + torch.arange(count, device=device)
        sources, targets = moved.flatten(), (moved + self.kept_tokens // 2).flatten()
        yield partial(move_rows, *flat, sources, targets)

    @property
    def _rows(self) -> int:
        return self.batch * self.kv_heads * self.kept_tokens

    def _random(self, device: torch.device, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=self.dtype, device=device)

    def _values(self, device: torch.device, *shape: int) -> Tensor:
        return self._random(device, *shape, self.value_dim)

    def _queries(self, new: int, device: torch.device) -> Tensor:
        return self._random(device, self.batch, self.kv_heads * self.group, new, self.head_dim)

    def _attention(self, new: int, device: torch.device, *, is_noted: bool) -> Call:
        keys, values = (
            self._random(device, self._rows, self.head_dim),
            self._values(device, self._rows),
        )
        segments = self.batch * self.kv_heads
        offsets = torch.arange(segments + 1, device=device) * self.kept_tokens
        columns = torch.arange(self.kept_tokens, dtype=torch.int32, device=device).repeat(segments)
        tail = (self.batch, self.kv_heads, max(self.tail_tokens, new))
        return partial(
            ragged_attention,
            *(self._queries(new, device), keys, values, offsets, columns),
            *(self._random(device, *tail, self.head_dim), self._values(device, *tail), tail[2]),
            seen_tokens=self.prompt_tokens + tail[2],
            scaling=self.head_dim**-0.5,
            mass=torch.zeros(self._rows, device=device) if is_noted else None,
            prefix=Prefix(keys, values, offsets, columns),
        )
