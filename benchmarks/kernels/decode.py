"""One decoded token: ragged attention against attention over the full and over a padded cache."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kvbudget.kernels import Prefix, ragged_attention

from .case import HEAD_DIM, KV_HEADS, SEED, TAIL_TOKENS, Case
from .clock import Times, copies_needed, race

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Calls = list[Callable[[], object]]

SCALING = HEAD_DIM**-0.5
# relative error of the whole output, by Frobenius norm, against float64
MOST_ERROR = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
_BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


class Ragged:
    """A cut cache of one layer with a half-filled tail.

    Args:
        case: What is attended to.
        queries: [batch, heads, 1, head_dim].
    """

    def __init__(self, case: Case, queries: Tensor) -> None:
        random = partial(torch.randn, dtype=case.dtype, device=queries.device)
        lengths = case.lengths()
        rows, self.queries = int(lengths.sum()), queries
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        self.offsets = offsets.to(queries.device)
        self.keys, self.values = random(rows, HEAD_DIM), random(rows, HEAD_DIM)
        self.positions = torch.zeros(rows, dtype=torch.int32, device=queries.device)
        tail = (case.batch, KV_HEADS, TAIL_TOKENS, HEAD_DIM)
        self.tail_keys, self.tail_values = random(tail), random(tail)
        self.tail_tokens, self.seen_tokens = TAIL_TOKENS // 2, case.context_tokens + TAIL_TOKENS
        self.lengths = torch.tensor(
            [self.tail_tokens, self.seen_tokens], dtype=torch.int32, device=queries.device
        )
        self.prefix = Prefix(self.keys, self.values, self.offsets, self.positions)

    def attend(self) -> Tensor:
        """What a decode step of the runtime calls, on the device's own counters."""
        return ragged_attention(
            *(self.queries, self.keys, self.values, self.offsets, self.positions),
            *(self.tail_keys, self.tail_values, self.tail_tokens),
            seen_tokens=self.seen_tokens,
            scaling=SCALING,
            prefix=self.prefix,
            lengths=self.lengths,
        )

    def exact(self) -> Tensor:
        """The same cache by cache in float64."""
        heads, group = self.queries.shape[1], self.queries.shape[1] // KV_HEADS
        borders = self.offsets.tolist()
        out = torch.empty(len(self.queries), heads, 1, HEAD_DIM, dtype=torch.float64)
        for pair in range(len(borders) - 1):
            row, head = divmod(pair, KV_HEADS)
            kept, tail = slice(borders[pair], borders[pair + 1]), slice(0, self.tail_tokens)
            keys = torch.cat([self.keys[kept], self.tail_keys[row, head, tail]]).double()
            values = torch.cat([self.values[kept], self.tail_values[row, head, tail]]).double()
            mine = slice(head * group, (head + 1) * group)
            logits = self.queries[row, mine, 0].double() @ keys.T * SCALING
            out[row, mine, 0] = (logits.softmax(-1) @ values).cpu()
        return out


def relative_error(got: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of the truth."""
    difference = got.double().cpu() - exact
    return float(difference.norm() / exact.norm())


def checked_error(case: Case, device: torch.device) -> float:
    """Relative error of one random cache of the case, which must be small.

    Raises:
        AssertionError: It is not: nothing is timed that is wrong.
    """
    torch.manual_seed(SEED)
    ragged = Ragged(case, _queries(case, device))
    error = relative_error(ragged.attend(), ragged.exact())
    assert error <= MOST_ERROR[case.dtype], f"{case}: relative error {error:.2e}"
    return error


def times(case: Case, device: torch.device, with_flex: bool, rounds: int) -> dict[str, Times]:
    """Times of everybody who can run here, by name.

    Args:
        case: What is attended to.
        device: Where.
        with_flex: Whether flex attention takes part, which has to be compiled first.
        rounds: How often everybody is timed.
    """
    torch.manual_seed(SEED)
    queries = _queries(case, device)
    contenders: dict[str, Calls] = {"ragged": _ragged_calls(case, queries)}
    contenders |= dict(_dense_calls("full", case, queries, case.context_tokens, with_flex))
    if not case.is_even:
        longest = int(case.lengths().max()) + TAIL_TOKENS // 2
        contenders |= dict(_dense_calls("padded", case, queries, longest, with_flex))
    return race(contenders, device, rounds)


def kept_bytes(case: Case) -> int:
    """Bytes of keys and values that one call has to read."""
    tail = case.batch * KV_HEADS * (TAIL_TOKENS // 2)
    return (int(case.lengths().sum()) + tail) * case.bytes_per_token


def _queries(case: Case, device: torch.device) -> Tensor:
    heads = KV_HEADS * case.group
    return torch.randn(case.batch, heads, 1, HEAD_DIM, dtype=case.dtype, device=device)


def _ragged_calls(case: Case, queries: Tensor) -> Calls:
    return [Ragged(case, queries).attend for _ in range(copies_needed(kept_bytes(case)))]


def _dense_calls(
    cache: str, case: Case, queries: Tensor, tokens: int, with_flex: bool
) -> Iterator[tuple[str, Calls]]:
    """Attention over a rectangle, without a mask even where it is padded: that is in its favour."""
    shape = (case.batch, KV_HEADS, tokens, HEAD_DIM)
    count = copies_needed(shape[0] * shape[1] * tokens * case.bytes_per_token)
    random = partial(torch.randn, *shape, dtype=case.dtype, device=queries.device)
    pairs = [(random(), random()) for _ in range(count)]
    attention = partial(F.scaled_dot_product_attention, queries, enable_gqa=True)
    for name, backend in _BACKENDS.items():
        calls: Calls = [partial(_with_backend, backend, attention, *pair) for pair in pairs]
        if _runs(calls[0]):
            yield f"{name} over the {cache} cache", calls
    calls = [partial(attention, *pair) for pair in pairs]
    yield f"sdpa over the {cache} cache", calls
    if with_flex:
        flex = _flex(queries.device)
        calls = [partial(flex, queries, *pair, enable_gqa=True) for pair in pairs]
        if _runs(calls[0]):
            yield f"flex over the {cache} cache", calls


def _with_backend(
    backend: SDPBackend, attention: Callable[..., Tensor], keys: Tensor, values: Tensor
) -> Tensor:
    with sdpa_kernel(backend):
        return attention(keys, values)


def _flex(device: torch.device) -> Callable[..., Tensor]:
    # here, because it takes long to import
    from torch.nn.attention.flex_attention import flex_attention

    if device.type != "cuda":
        return flex_attention
    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return compiled


def _runs(call: Callable[[], object]) -> bool:
    """Whether a contender can do this here; not every backend knows every machine."""
    try:
        call()
    except RuntimeError:
        return False
    return True
