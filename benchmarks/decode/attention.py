"""Attention alone: the ragged operation against scaled dot product attention over everything."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.rows import Row
from kvbudget.kernels import Prefix, ragged_attention

from .case import HEAD_DIM, KV_HEADS, SEED, Case
from .rounds import Contender, compare

TAIL = 32


class Layer:
    """Random full and ragged caches of one layer, and the contenders."""

    def __init__(self, case: Case, lengths: Tensor) -> None:
        def random(*shape: int) -> Tensor:
            return torch.randn(*shape).to(case.dtype)

        self.case = case
        self.full = tuple(random(1, KV_HEADS, case.context_tokens, HEAD_DIM) for _ in range(2))
        self.queries = random(1, KV_HEADS * case.group, 1, HEAD_DIM)
        self.new = random(1, KV_HEADS, 1, HEAD_DIM)
        rows = int(lengths.sum())
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        positions = torch.zeros(rows, dtype=torch.int32)
        self.flat = (random(rows, HEAD_DIM), random(rows, HEAD_DIM), offsets, positions)
        self.tail = tuple(random(1, KV_HEADS, TAIL, HEAD_DIM) for _ in range(2))
        self.prefix = Prefix(*self.flat)

    def copying(self) -> Tensor:
        """What transformers' DynamicCache and its attention do for one token."""
        keys, values = (torch.cat([kept, self.new], -2) for kept in self.full)
        rows = self.queries.view(1, KV_HEADS, self.case.group, HEAD_DIM)
        return F.scaled_dot_product_attention(rows, keys, values)

    def in_place(self) -> Tensor:
        """The same without the copy: one token overwritten."""
        for kept in self.full:
            kept[:, :, -1:] = self.new
        rows = self.queries.view(1, KV_HEADS, self.case.group, HEAD_DIM)
        return F.scaled_dot_product_attention(rows, *self.full)

    def ragged(self) -> Tensor:
        """One token written to a half-filled tail, then ragged attention."""
        for tail in self.tail:
            tail[:, :, TAIL // 2 - 1 : TAIL // 2] = self.new
        return ragged_attention(
            self.queries,
            *self.flat,
            *self.tail,
            TAIL // 2,
            seen_tokens=self.case.context_tokens,
            scaling=HEAD_DIM**-0.5,
            prefix=self.prefix,
        )


def check(layer: Layer) -> None:
    """Refuse to time an operation that is wrong: on the full cache it must equal the other.

    Raises:
        AssertionError: It does not.
    """
    keys, values = (kept.flatten(0, 2) for kept in layer.full)
    rows = layer.case.context_tokens
    offsets = torch.arange(0, KV_HEADS * rows + 1, rows)
    empty = layer.new[:, :, :0]
    got = ragged_attention(
        layer.queries,
        keys,
        values,
        offsets,
        torch.zeros(len(keys), dtype=torch.int32),
        empty,
        empty,
        0,
        seen_tokens=rows,
        scaling=HEAD_DIM**-0.5,
    )
    wanted = F.scaled_dot_product_attention(layer.queries, *layer.full, enable_gqa=True)
    tolerance = 1e-5 if layer.case.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)


@torch.no_grad()
def measure(case: Case, rounds: int) -> Iterator[Row]:
    """Time the attention of one token in all layers."""
    torch.manual_seed(SEED)
    layers = [Layer(case, torch.tensor(lengths)) for lengths in case.capacities()]
    check(layers[0])

    def through(attend: Callable[[Layer], Tensor]) -> Callable[[], None]:
        def decode() -> None:
            for layer in layers:
                attend(layer)

        return decode

    tokens = max(1, 16384 // case.context_tokens)
    ours, in_place, copying = (
        Contender(name, through(attend), tokens)
        for name, attend in (
            ("attention", Layer.ragged),
            ("full attention in place", Layer.in_place),
            ("full attention on a copy", Layer.copying),
        )
    )
    yield from compare(str(case), ours, [in_place, copying], rounds)
