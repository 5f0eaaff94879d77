"""Random contexts cut at levels, shared by the tests of reference and kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kvbudget.kernels import Future, LevelStates


@dataclass(frozen=True)
class Call:
    """Arguments of one call of `level_softmax`."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    future: Future
    kept_tokens: tuple[int, ...]
    settings: dict[str, object]

    def run(self, implementation: Callable[..., LevelStates], device: str = "cpu") -> LevelStates:
        settings = {
            name: x.to(device) if isinstance(x, Tensor) else x for name, x in self.settings.items()
        }
        tensors = (x.to(device) for x in self.tensors)
        future = Future(*(x.to(device) for x in self.future))
        states = implementation(*tensors, future, self.kept_tokens, **settings)
        return LevelStates(*(x.cpu() for x in states))


def make_call(
    *,
    kv_heads: int = 2,
    group: int = 2,
    context: int = 30,
    rows: int = 5,
    future: int = 8,
    kept_tokens: tuple[int, ...] = (0, 3, 3, 17, 30),
    head_dim: int = 16,
    value_dim: int = 16,
    dtype: torch.dtype = torch.float32,
    scaling: float = 0.3,
    window: int | None = None,
    softcap: float | None = None,
    sinks: bool = False,
    slopes: bool = False,
    seed: int = 0,
) -> Call:
    """Queries of the last `rows` future tokens but one, over a context in random order."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(dtype)

    heads, behind = kv_heads * group, torch.arange(context, context + future)
    orders = [torch.randperm(context, generator=random) for _ in range(kv_heads)]
    return Call(
        (
            2 * normal(heads, rows, head_dim),
            behind[future - rows - 1 : -1] if rows < future else behind,
            normal(kv_heads, context, head_dim),
            normal(kv_heads, context, value_dim),
            torch.stack(orders),
        ),
        Future(normal(kv_heads, future, head_dim), normal(kv_heads, future, value_dim), behind),
        kept_tokens,
        {
            "scaling": scaling,
            "window": window,
            "softcap": softcap,
            "sinks": normal(heads) if sinks else None,
            "slopes": torch.rand(heads, generator=random) if slopes else None,
        },
    )


def dense(call: Call) -> tuple[Tensor, Tensor]:
    """Logarithm of the normaliser and output of every level by itself, float64."""
    queries, at, keys, *_ = call.tensors
    queries = queries.double().unflatten(0, (len(keys), -1))
    found = [_dense_level(call, queries, at, kept) for kept in call.kept_tokens]
    normaliser, output = (torch.stack(x, 3) for x in zip(*found, strict=True))
    return normaliser, output


def _dense_level(call: Call, queries: Tensor, at: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    _, _, keys, values, positions = call.tensors
    rule, kv_heads = call.settings, len(keys)
    behind = call.future.positions.expand(kv_heads, -1)
    keys = torch.cat([keys[:, :kept], call.future.keys], 1).double()[:, None]
    values = torch.cat([values[:, :kept], call.future.values], 1).double()[:, None]
    distance = (at[:, None] - torch.cat([positions[:, :kept], behind], 1)[:, None])[:, None]
    logits = queries @ keys.mT * rule["scaling"]
    if rule["softcap"] is not None:
        logits = rule["softcap"] * torch.tanh(logits / rule["softcap"])
    if rule["slopes"] is not None:
        logits = logits - rule["slopes"].double().view(kv_heads, -1, 1, 1) * distance
    hidden = distance < 0
    if rule["window"] is not None:
        hidden = hidden | (distance >= rule["window"])
    logits = logits.masked_fill(hidden, -torch.inf)
    whole = logits
    if rule["sinks"] is not None:
        sinks = rule["sinks"].double().view(kv_heads, -1, 1, 1)
        whole = torch.cat([logits, sinks.expand(*logits.shape[:3], 1)], -1)
    normaliser = whole.logsumexp(-1)
    shares = (logits - normaliser.unsqueeze(-1)).exp().nan_to_num(0.0)
    return normaliser, shares @ values


@pytest.fixture(scope="session")
def call() -> Callable[..., Call]:
    """Makes a random call; see `make_call`."""
    return make_call


@pytest.fixture(scope="session")
def dense_levels() -> Callable[[Call], tuple[Tensor, Tensor]]:
    return dense
