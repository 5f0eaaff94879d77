"""Random views of one layer, and attention written out densely as their oracle."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, CutView, LayerView, TokenHeuristic, observed

POISON = float("nan")


def _make_view(
    *,
    seed: int = 0,
    batch: int = 2,
    kv_heads: int = 2,
    group: int = 2,
    tokens: int = 12,
    new: int | None = None,
    head_dim: int = 8,
    value_dim: int = 6,
    padding: Sequence[int] = (0, 3),
    ragged: bool = False,
    dtype: torch.dtype = torch.float32,
    window: int | None = None,
    softcap: float | None = None,
    sinks: bool = False,
    slopes: bool = False,
    **fields: object,
) -> LayerView:
    """A view with left padding, or one whose KV heads hold different columns (ragged).

    What stands in keys and values at invalid places is NaN.
    """
    draw = torch.Generator().manual_seed(seed)
    shape = (batch, kv_heads, tokens)
    new = tokens if new is None else new
    columns = torch.arange(tokens).expand(shape)
    end = tokens
    if ragged:
        end = 3 * tokens
        drawn = [torch.randperm(end, generator=draw)[:tokens] for _ in range(batch * kv_heads)]
        columns = torch.stack(drawn).sort(dim=-1).values.view(shape)
        valid = torch.rand(shape, generator=draw) < 0.7
        valid[..., -1] = True
        columns = columns.masked_fill(~valid, -7)
    else:
        valid = columns >= torch.tensor(padding)[:batch].view(batch, 1, 1)
    keys = torch.randn(*shape, head_dim, generator=draw).masked_fill(~valid[..., None], POISON)
    values = torch.randn(*shape, value_dim, generator=draw).masked_fill(~valid[..., None], POISON)
    queries = 2 * torch.randn(batch, kv_heads * group, new, head_dim, generator=draw)
    return LayerView(
        layer=0,
        keys=keys.to(dtype),
        values=values.to(dtype),
        valid=valid,
        positions=columns,
        queries=queries.to(dtype),
        query_positions=torch.arange(end - new, end),
        scaling=head_dim**-0.5,
        window=window,
        softcap=softcap,
        sinks=torch.randn(kv_heads * group, generator=draw) if sinks else None,
        slopes=torch.rand(kv_heads * group, generator=draw) if slopes else None,
        **fields,  # type: ignore[arg-type]
    )


def _dense_attention(view: LayerView) -> Tensor:
    """Softmax attention of every query head, [batch, heads, new, tokens], float64."""
    valid = view.valid[..., None]
    keys = view.keys.double().masked_fill(~valid, 0.0).repeat_interleave(view.group, dim=1)
    logits = view.queries.double() @ keys.transpose(-1, -2) * view.scaling
    if view.softcap is not None:
        logits = view.softcap * torch.tanh(logits / view.softcap)
    distance = view.query_positions.view(1, 1, -1, 1) - view.positions[:, :, None, :]
    if view.slopes is not None:
        by_head = distance.double().repeat_interleave(view.group, dim=1)
        logits = logits - view.slopes.double().view(1, -1, 1, 1) * by_head
    seen = view.valid[:, :, None, :] & (distance >= 0)
    if view.window is not None:
        seen = seen & (distance < view.window)
    logits = logits.masked_fill(~seen.repeat_interleave(view.group, dim=1), -torch.inf)
    if view.sinks is not None:
        sink = view.sinks.double().view(1, -1, 1, 1).expand(*logits.shape[:3], 1)
        logits = torch.cat([logits, sink], dim=-1)
    return logits.softmax(dim=-1).nan_to_num(0.0)[..., : view.keys.shape[2]]


def _show(heuristic: TokenHeuristic, view: LayerView, *blocks: int) -> LayerView:
    """The view with the state after its queries were shown in blocks of these lengths.

    Tokens behind a block's newest query are not there yet when it is shown. Without lengths all
    queries are one block.
    """
    lengths = blocks or (view.new,)
    assert sum(lengths) == view.new
    state, start = view.state, 0
    for length in lengths:
        rows = slice(start, start + length)
        columns = view.query_positions[rows]
        there = view.valid & (view.positions <= columns[-1]) if length else view.valid
        part = replace(
            view,
            queries=view.queries[:, :, rows],
            query_positions=columns,
            valid=there,
            state=state,
        )
        state = observed(heuristic, part).state
        start += length
    return replace(view, state=state)


def _dense_streaming(view: LayerView, sink_tokens: int, recent_tokens: int) -> Tensor:
    """Attention when a query sees first and latest tokens only, as ``_dense_attention``."""
    full = _dense_attention(view)
    kept = torch.zeros_like(full)
    for row in range(len(full)):
        real = view.valid[row, 0].nonzero().flatten().tolist()
        small = sink_tokens + recent_tokens
        allowed = min(max(len(real) // 8, 1), small)
        sinks = allowed * sink_tokens // small
        for query, column in enumerate(real):
            behind = real[: query + 1]
            for seen in {*behind[:sinks], *behind[sinks - allowed :]}:
                kept[row, :, column, seen] = full[row, :, column, seen]
    learned = (1 - full.sum(dim=-1, keepdim=True)) if view.sinks is not None else 0.0
    return kept / (kept.sum(dim=-1, keepdim=True) + learned).clamp_min(1e-300)


def _make_cache_view(*, hidden: int = 20, seed: int = 0, **fields: object) -> CacheView:
    layer = _make_view(seed=seed, **fields)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(seed + 1)
    batch, _, tokens = layer.valid.shape
    residual = torch.randn(batch, tokens, hidden, generator=draw)
    return CacheView(
        layer=layer,
        residual=residual.masked_fill(~layer.valid.any(1)[..., None], POISON),
        output_weight=torch.randn(
            layer.queries.shape[1], layer.values.shape[-1], hidden, generator=draw
        ),
    )


def _make_cut_view(
    *,
    seed: int = 0,
    kv_heads: int = 2,
    group: int = 2,
    context: int = 20,
    future: int = 6,
    head_dim: int = 8,
    value_dim: int = 6,
    hidden: int = 30,
    kept_tokens: tuple[int, ...] = (1, 4, 10, 20),
    dtype: torch.dtype = torch.float32,
    window: int | None = None,
    softcap: float | None = None,
    sinks: bool = False,
    slopes: bool = False,
) -> CutView:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    order = [torch.randperm(context, generator=draw) for _ in range(kv_heads)]
    return CutView(
        queries=2 * normal(kv_heads * group, future, head_dim),
        keys=normal(kv_heads, context, head_dim),
        values=normal(kv_heads, context, value_dim),
        positions=torch.stack(order) + 3,
        future_keys=normal(kv_heads, future, head_dim),
        future_values=normal(kv_heads, future, value_dim),
        query_positions=torch.arange(future) + context + 3,
        kept_tokens=kept_tokens,
        scaling=head_dim**-0.5,
        window=window,
        softcap=softcap,
        sinks=normal(kv_heads * group) if sinks else None,
        slopes=torch.rand(kv_heads * group, generator=draw) if slopes else None,
        output_weight=normal(kv_heads * group, value_dim, hidden).float(),
        residual_norm=1 + torch.rand(future, generator=draw),
        gradient=normal(2, kv_heads * group, future, value_dim).float(),
        divergence=_stand_in,
    )


def _stand_in(kv_head: int, change: Tensor) -> Tensor:
    """In place of a run of the model: something that tells heads, query heads and tokens apart."""
    group, future = change.shape[1:3]
    worth = torch.arange(1, group + 1, device=change.device)[:, None] * torch.arange(
        1, future + 1, device=change.device
    )
    return (kv_head + 1) * (change.double().square().sum(-1) * worth).sum((1, 2))


def _brute_cuts(view: CutView) -> tuple[Tensor, Tensor]:
    """Kept mass [heads, future, levels] and delta [heads, future, levels, value_dim], float64.

    Every level is a dense softmax of its own over the kept and the future tokens.
    """
    heads, future, _ = view.queries.shape
    kept = torch.zeros(heads, future, view.levels, dtype=torch.float64)
    delta = torch.zeros(*kept.shape, view.values.shape[-1], dtype=torch.float64)
    for head in range(heads):
        for row in range(future):
            full, output = _dense_row(view, head, row, view.context)
            for level, tokens in enumerate(view.kept_tokens):
                kept[head, row, level] = 1 - full[tokens : view.context].sum()
                delta[head, row, level] = _dense_row(view, head, row, tokens)[1] - output
    return kept, delta


def _dense_row(view: CutView, head: int, row: int, tokens: int) -> tuple[Tensor, Tensor]:
    kv_head = head // (view.queries.shape[0] // view.keys.shape[0])
    keys = torch.cat([view.keys[kv_head, :tokens], view.future_keys[kv_head]]).double()
    values = torch.cat([view.values[kv_head, :tokens], view.future_values[kv_head]]).double()
    positions = torch.cat([view.positions[kv_head, :tokens], view.query_positions])
    logits = keys @ view.queries[head, row].double() * view.scaling
    if view.softcap is not None:
        logits = view.softcap * torch.tanh(logits / view.softcap)
    own = view.query_positions[row]
    if view.slopes is not None:
        logits = logits - view.slopes[head].double() * (own - positions)
    logits[positions > own] = -torch.inf
    if view.window is not None:
        logits[positions <= own - view.window] = -torch.inf
    if view.sinks is not None:
        logits = torch.cat([logits, view.sinks[head : head + 1].double()])
    shares = logits.softmax(dim=-1)[: len(keys)]
    return shares, shares @ values


@pytest.fixture(scope="session")
def make_view() -> Callable[..., LayerView]:
    return _make_view


@pytest.fixture(scope="session")
def make_cache_view() -> Callable[..., CacheView]:
    return _make_cache_view


@pytest.fixture(scope="session")
def make_cut_view() -> Callable[..., CutView]:
    return _make_cut_view


@pytest.fixture(scope="session")
def dense_attention() -> Callable[[LayerView], Tensor]:
    return _dense_attention


@pytest.fixture(scope="session")
def show() -> Callable[..., LayerView]:
    return _show


@pytest.fixture(scope="session")
def brute_cuts() -> Callable[[CutView], tuple[Tensor, Tensor]]:
    return _brute_cuts


@pytest.fixture(scope="session")
def dense_streaming() -> Callable[[LayerView, int, int], Tensor]:
    return _dense_streaming
