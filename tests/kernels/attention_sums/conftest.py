"""Random calls of attention sums, shared by the tests of reference and kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """Arguments of one call of `attention_sums`."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    settings: dict[str, object]

    def run(self, implementation: Callable[..., Tensor], device: str = "cpu") -> Tensor:
        settings = {
            name: x.to(device) if isinstance(x, Tensor) else x for name, x in self.settings.items()
        }
        return implementation(*(x.to(device) for x in self.tensors), **settings).cpu()


def make_call(
    *,
    batch: int = 2,
    kv_heads: int = 2,
    group: int = 2,
    tokens: int = 40,
    new: int = 7,
    head_dim: int = 16,
    dtype: torch.dtype = torch.float32,
    scaling: float = 0.3,
    held: float = 0.7,
    padding: int = 0,
    ahead: int = 5,
    window: int | None = None,
    softcap: float | None = None,
    sinks: bool = False,
    slopes: bool = False,
    seed: int = 0,
) -> Call:
    """Caches with unequal columns; what stands at empty places is NaN, its position nonsense.

    `held` is the share of places that hold a token, `padding` the number of first places that do
    not in the second sequence, `ahead` how many of the newest columns only queries have.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(dtype)

    shape, heads = (batch, kv_heads, tokens), kv_heads * group
    end = tokens + tokens // 2 + ahead
    drawn = [torch.randperm(end - ahead, generator=random) for _ in range(batch * kv_heads)]
    positions = torch.stack([each[:tokens].sort().values for each in drawn]).view(shape)
    valid = torch.rand(shape, generator=random) < held
    valid[1:, :, :padding] = False
    positions = positions.masked_fill(~valid, -7)
    keys = normal(*shape, head_dim).masked_fill(~valid[..., None], float("nan"))
    queries = 2 * normal(batch, heads, new, head_dim)
    return Call(
        (queries, keys, valid, positions, torch.arange(end - new, end)),
        {
            "scaling": scaling,
            "window": window,
            "softcap": softcap,
            "sinks": normal(heads) if sinks else None,
            "slopes": torch.rand(heads, generator=random) if slopes else None,
        },
    )


def make_prompt(*, tokens: int = 50, padding: int = 3, **options: object) -> Call:
    """Queries at every column of a prompt, the second sequence left-padded."""
    call = make_call(tokens=tokens, new=tokens, held=2.0, padding=padding, **options)
    queries, keys, valid, positions, _ = call.tensors
    columns = torch.arange(tokens)
    return Call((queries, keys, valid, columns.expand(positions.shape), columns), call.settings)


def dense(call: Call) -> Tensor:
    """The sums from whole rows of attention, float64."""
    queries, keys, valid, positions, query_positions = call.tensors
    rule = call.settings
    group = queries.shape[1] // keys.shape[1]
    clean = keys.double().masked_fill(~valid[..., None], 0.0).repeat_interleave(group, 1)
    logits = queries.double() @ clean.mT * rule["scaling"]
    if rule["softcap"] is not None:
        logits = rule["softcap"] * torch.tanh(logits / rule["softcap"])
    distance = query_positions[:, None] - positions[:, :, None, :]
    seen = valid[:, :, None, :] & (distance >= 0)
    if rule["window"] is not None:
        seen = seen & (distance < rule["window"])
    if rule["slopes"] is not None:
        slopes = rule["slopes"].double()[:, None, None]
        logits = logits - slopes * distance.double().repeat_interleave(group, 1)
    logits = logits.masked_fill(~seen.repeat_interleave(group, 1), -torch.inf)
    if rule["sinks"] is not None:
        column = rule["sinks"].double().view(-1, 1, 1).expand(*logits.shape[:3], 1)
        logits = torch.cat([logits, column], -1)
    shares = logits.softmax(-1).nan_to_num(0.0)[..., : valid.shape[-1]]
    return shares.unflatten(1, (-1, group)).mean(2).sum(2)


@pytest.fixture(scope="session")
def call() -> Callable[..., Call]:
    """Makes a random call; see `make_call`."""
    return make_call


@pytest.fixture(scope="session")
def prompt() -> Callable[..., Call]:
    """Makes a random prompt; see `make_prompt`."""
    return make_prompt


@pytest.fixture(scope="session")
def dense_sums() -> Callable[[Call], Tensor]:
    return dense
