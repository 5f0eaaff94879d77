"""What every registered heuristic holds, whoever wrote it."""

from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvbudget import heuristics
from kvbudget.heuristics import (
    CacheHeuristic,
    CacheView,
    LayerView,
    TokenHeuristic,
    checked_importance,
    checked_scores,
)

BATCH, KV_HEADS, GROUP, TOKENS, HEAD_DIM, HIDDEN = 3, 2, 3, 96, 8, 24
PADDING = (0, 5, 11)
KINDS = [
    {},
    {"window": 9},
    {"softcap": 3.0},
    {"sinks": torch.linspace(-1, 2, KV_HEADS * GROUP)},
]
PER_PLACE = ("keys", "values", "valid", "positions", "past_attention", "recent_attention_mass")

token_heuristics = pytest.mark.parametrize("name", heuristics.names(TokenHeuristic))
cache_heuristics = pytest.mark.parametrize("name", heuristics.names(CacheHeuristic))
kinds = pytest.mark.parametrize("kind", KINDS, ids=["full", "window", "softcap", "sinks"])


def layer_view(new: int = TOKENS, padding: Sequence[int] = PADDING, **changes: Any) -> LayerView:
    """Three left-padded sequences; ``new`` below the tokens leaves the rest to past attention."""
    draw = torch.Generator().manual_seed(5)
    shape = (len(padding), KV_HEADS, TOKENS)
    columns = torch.arange(TOKENS).expand(shape).contiguous()
    past = torch.rand(shape, generator=draw)
    view = LayerView(
        layer=1,
        keys=torch.randn(*shape, HEAD_DIM, generator=draw),
        values=torch.randn(*shape, HEAD_DIM, generator=draw),
        valid=columns >= torch.tensor(padding).view(-1, 1, 1),
        positions=columns,
        queries=torch.randn(len(padding), KV_HEADS * GROUP, new, HEAD_DIM, generator=draw),
        query_positions=torch.arange(TOKENS - new, TOKENS),
        scaling=0.5,
        past_attention=past if new < TOKENS else None,
        recent_attention_mass=past / 2 if new < TOKENS else None,
        recent_queries=4 if new < TOKENS else 0,
    )
    return replace(view, **changes)


def decoding_view(**changes: Any) -> LayerView:
    """One new query over caches that hold different columns."""
    view = layer_view(new=1)
    held = torch.rand(view.valid.shape, generator=torch.Generator().manual_seed(6)) < 0.6
    held[..., -1] = True
    return replace(view, valid=view.valid & held, **changes)


def no_query_view(**changes: Any) -> LayerView:
    """Nothing but what was gathered since the last eviction."""
    return layer_view(new=0, **changes)


views = pytest.mark.parametrize("make", [layer_view, decoding_view, no_query_view])


def cache_view(**changes: Any) -> CacheView:
    draw = torch.Generator().manual_seed(7)
    return CacheView(
        layer=layer_view(**changes),
        residual=torch.randn(BATCH, TOKENS, HIDDEN, generator=draw),
        output_weight=torch.randn(KV_HEADS * GROUP, HEAD_DIM, HIDDEN, generator=draw),
    )


def assert_near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def scores_of(name: str, view: LayerView) -> Tensor:
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, TokenHeuristic)
    return checked_scores(heuristic, view)


def importance_of(name: str, view: CacheView) -> Tensor:
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, CacheHeuristic)
    return checked_importance(heuristic, view)


def rows_of(view: LayerView, rows: slice) -> LayerView:
    """Some sequences of the batch."""
    return changed(view, lambda _, tensor: tensor[rows], (*PER_PLACE, "queries"))


def without_padding(view: LayerView, pads: int) -> LayerView:
    """One left-padded sequence as it would be without its padding."""
    names = ("keys", "values", "valid", "queries")
    return replace(
        view,
        **{name: getattr(view, name)[:, :, pads:] for name in names},
        positions=view.positions[:, :, pads:] - pads,
        query_positions=view.query_positions[pads:] - pads,
    )


def changed(
    view: LayerView, change: Callable[[str, Tensor], Tensor], names: Sequence[str]
) -> LayerView:
    tensors = {name: getattr(view, name) for name in names}
    new: dict[str, Any] = {
        name: change(name, each) for name, each in tensors.items() if each is not None
    }
    return replace(view, **new)


@pytest.mark.parametrize("name", heuristics.names())
def test_it_is_a_frozen_value_that_works_without_arguments(name: str) -> None:
    cls = heuristics.get(name)
    assert is_dataclass(cls)
    assert not hasattr(cls(), "__dict__")
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    for field in fields(cls):
        with pytest.raises(FrozenInstanceError):
            setattr(cls(), field.name, 1)


@token_heuristics
@views
@kinds
def test_scores_are_one_finite_float32_per_place(
    name: str, make: Callable[..., LayerView], kind: dict[str, Any]
) -> None:
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, TokenHeuristic)
    scores = heuristic.score(make(**kind))
    assert scores.shape == (BATCH, KV_HEADS, TOKENS)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


@token_heuristics
@views
def test_scores_distinguish_tokens(name: str, make: Callable[..., LayerView]) -> None:
    view = make()
    scores = scores_of(name, view)
    for row in range(BATCH):
        for head in range(KV_HEADS):
            assert len(scores[row, head][view.valid[row, head]].unique()) > 5


@token_heuristics
@views
def test_the_same_view_gives_the_same_scores_and_is_left_alone(
    name: str, make: Callable[..., LayerView]
) -> None:
    view = make(sinks=torch.zeros(KV_HEADS * GROUP), softcap=4.0)
    names = [field.name for field in fields(view) if isinstance(getattr(view, field.name), Tensor)]
    before = {each: getattr(view, each).clone() for each in names}
    first = scores_of(name, view)
    assert torch.equal(first, scores_of(name, view))
    assert all(torch.equal(getattr(view, each), before[each]) for each in names)


@token_heuristics
@views
@kinds
def test_a_sequence_scores_the_same_alone_and_in_a_batch(
    name: str, make: Callable[..., LayerView], kind: dict[str, Any]
) -> None:
    view = make(**kind)
    together = scores_of(name, view)
    for row in range(BATCH):
        alone = scores_of(name, rows_of(view, slice(row, row + 1)))
        assert_near(alone[0], together[row])


@token_heuristics
@kinds
def test_padding_does_not_change_the_scores_of_real_tokens(name: str, kind: dict[str, Any]) -> None:
    view = layer_view(**kind)
    together = scores_of(name, view)
    for row, pads in enumerate(PADDING):
        one = rows_of(view, slice(row, row + 1))
        bare = without_padding(one, pads)
        assert_near(scores_of(name, bare)[0], together[row, :, pads:])


@token_heuristics
@views
def test_what_stands_at_empty_places_and_where_they_are_changes_nothing(
    name: str, make: Callable[..., LayerView]
) -> None:
    view = make()
    wanted = scores_of(name, view)
    order = (~view.valid).int().argsort(dim=-1, stable=True)  # held tokens move to the front
    junk = {"positions": -3, "valid": False}

    def packed(field: str, tensor: Tensor) -> Tensor:
        empty = ~view.valid
        if tensor.dim() == 3:
            return tensor.masked_fill(empty, junk.get(field, 0.0)).gather(-1, order)
        spread = order.unsqueeze(-1).expand(-1, -1, -1, tensor.shape[-1])
        return tensor.masked_fill(empty.unsqueeze(-1), torch.nan).gather(2, spread)

    found = scores_of(name, changed(view, packed, PER_PLACE))
    assert_near(found, wanted.gather(-1, order))


@token_heuristics
@views
def test_kv_heads_with_their_groups_can_change_places(
    name: str, make: Callable[..., LayerView]
) -> None:
    view = make(sinks=torch.linspace(-1, 2, KV_HEADS * GROUP))
    wanted = scores_of(name, view)
    swapped = changed(view, lambda _, each: each.flip(1), PER_PLACE)
    heads = torch.arange(KV_HEADS * GROUP).view(KV_HEADS, GROUP).flip(0).flatten()
    assert view.sinks is not None
    swapped = replace(swapped, queries=view.queries[:, heads], sinks=view.sinks[heads])
    assert_near(scores_of(name, swapped), wanted.flip(1))


@token_heuristics
@views
def test_a_group_of_equal_query_heads_counts_like_one(
    name: str, make: Callable[..., LayerView]
) -> None:
    view = make()
    one = replace(view, queries=view.queries[:, ::GROUP])
    many = replace(view, queries=one.queries.repeat_interleave(GROUP, dim=1))
    assert_near(scores_of(name, many), scores_of(name, one))


@token_heuristics
@views
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_nothing_on_the_way_to_float32_scores(
    name: str, make: Callable[..., LayerView], dtype: torch.dtype
) -> None:
    half = changed(make(), lambda _, each: each.to(dtype), ("keys", "values", "queries"))
    same = changed(half, lambda _, each: each.float(), ("keys", "values", "queries"))
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, TokenHeuristic)
    assert heuristic.score(half).dtype == torch.float32
    assert_near(scores_of(name, half), scores_of(name, same))


@token_heuristics
@views
def test_scores_stay_on_the_device_of_the_view(name: str, make: Callable[..., LayerView]) -> None:
    view = make(sinks=torch.zeros(KV_HEADS * GROUP))
    names = [field.name for field in fields(view) if isinstance(getattr(view, field.name), Tensor)]
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, TokenHeuristic)
    # a tensor made on the CPU cannot be mixed with one on the meta device
    elsewhere = changed(view, lambda _, each: each.to("meta"), names)
    assert heuristic.score(elsewhere).device.type == "meta"


@token_heuristics
def test_only_a_heuristic_that_watches_attention_depends_on_it(name: str) -> None:
    view = decoding_view()
    watched = changed(view, lambda _, each: each.flip(-1), ("past_attention",))
    watched = changed(watched, lambda _, each: each.flip(-1), ("recent_attention_mass",))
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, TokenHeuristic)
    differs = not torch.equal(scores_of(name, view), scores_of(name, watched))
    assert differs == heuristic.watches_attention


@cache_heuristics
@kinds
def test_importance_is_one_positive_float32_per_cache(name: str, kind: dict[str, Any]) -> None:
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, CacheHeuristic)
    importance = heuristic.importance(cache_view(**kind))
    assert importance.shape == (KV_HEADS,)
    assert importance.dtype == torch.float32
    assert importance.isfinite().all()
    assert (importance > 0).all()
    assert importance[0] != importance[1]


@cache_heuristics
def test_the_same_view_gives_the_same_importance_and_is_left_alone(name: str) -> None:
    view = cache_view(softcap=4.0)
    before = (view.residual.clone(), view.layer.keys.clone(), view.layer.queries.clone())
    assert torch.equal(importance_of(name, view), importance_of(name, view))
    after = (view.residual, view.layer.keys, view.layer.queries)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@cache_heuristics
def test_a_prompt_twice_weighs_like_once(name: str) -> None:
    view = cache_view(padding=PADDING)
    one = replace(view, layer=rows_of(view.layer, slice(1, 2)), residual=view.residual[1:2])
    twice = replace(
        one,
        layer=changed(one.layer, lambda _, each: torch.cat([each, each]), (*PER_PLACE, "queries")),
        residual=torch.cat([one.residual, one.residual]),
    )
    assert_near(importance_of(name, twice), importance_of(name, one))


@cache_heuristics
def test_padding_does_not_change_importance(name: str) -> None:
    view = cache_view()
    pads = PADDING[2]
    padded = replace(view, layer=rows_of(view.layer, slice(2, 3)), residual=view.residual[2:])
    alone = replace(
        padded, layer=without_padding(padded.layer, pads), residual=padded.residual[:, pads:]
    )
    assert_near(importance_of(name, alone), importance_of(name, padded))


@cache_heuristics
def test_caches_with_their_query_heads_can_change_places(name: str) -> None:
    view = cache_view()
    heads = torch.arange(KV_HEADS * GROUP).view(KV_HEADS, GROUP).flip(0).flatten()
    layer = changed(view.layer, lambda _, each: each.flip(1), PER_PLACE)
    swapped = replace(
        view,
        layer=replace(layer, queries=layer.queries[:, heads]),
        output_weight=view.output_weight[heads],
    )
    assert_near(importance_of(name, swapped), importance_of(name, view).flip(0))


@cache_heuristics
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32_importance(name: str, dtype: torch.dtype) -> None:
    view = cache_view()

    def at(layer_dtype: torch.dtype) -> CacheView:
        names = ("keys", "values", "queries")
        return CacheView(
            layer=changed(view.layer, lambda _, each: each.to(dtype).to(layer_dtype), names),
            residual=view.residual.to(dtype).to(layer_dtype),
            output_weight=view.output_weight.to(dtype).to(layer_dtype),
        )

    found = importance_of(name, at(dtype))
    assert found.dtype == torch.float32
    assert_near(found, importance_of(name, at(torch.float32)))
