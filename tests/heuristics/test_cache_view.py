"""Attention outputs of a whole layer, against dense attention; and what a probe repeats."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, LayerView
from kvbudget.heuristics.cache_view import check_small_cache, mean_over

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]
Streaming = Callable[[LayerView, int, int], Tensor]
PER_SEQUENCE = ("keys", "values", "valid", "positions", "queries")
KINDS = [
    {},
    {"window": 3},
    {"softcap": 4.0, "sinks": True},
    {"slopes": True},
    {"kv_heads": 1, "group": 3},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_equal_dense_attention_times_repeated_values(
    kind: dict[str, Any],
    dtype: torch.dtype,
    make_cache_view: MakeCacheView,
    dense_attention: Oracle,
) -> None:
    view = make_cache_view(dtype=dtype, **kind)
    layer = view.layer
    values = layer.values.double().nan_to_num(0.0).repeat_interleave(layer.group, dim=1)
    wanted = dense_attention(layer) @ values
    for chunk in (1, 5, 256):
        found = view.outputs(chunk)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_outputs_at_padding_are_zero_though_the_values_there_are_nan(
    make_cache_view: MakeCacheView,
) -> None:
    outputs = make_cache_view(padding=(0, 4)).outputs()
    assert torch.equal(outputs[1, :, :4], torch.zeros(4, 4, 6))
    assert outputs.isfinite().all()


def test_a_view_without_the_queries_of_all_tokens_is_refused(
    make_cache_view: MakeCacheView,
) -> None:
    view = make_cache_view()
    last = replace(
        view.layer,
        queries=view.layer.queries[:, :, -2:],
        query_positions=view.layer.query_positions[-2:],
    )
    with pytest.raises(ValueError, match="one query per token, but got 2 queries for 12 tokens"):
        replace(view, layer=last)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(2, 3), (0, 4), (1, 1), (40, 90)])
def test_streaming_outputs_equal_dense_attention_over_first_and_latest_tokens(
    kind: dict[str, Any],
    sizes: tuple[int, int],
    make_cache_view: MakeCacheView,
    dense_streaming: Streaming,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = make_cache_view(tokens=44, padding=(0, 5), **kind)
    layer = view.layer
    values = layer.values.double().nan_to_num(0.0).repeat_interleave(layer.group, dim=1)
    wanted = dense_streaming(layer, *sizes) @ values
    for chunk in (7, 256):
        monkeypatch.setattr("kvbudget.heuristics.cache_view.ROWS_PER_CHUNK", chunk)
        found = view.streaming_outputs(*sizes)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_streaming_outputs_show_what_full_attention_hides_in_its_rounding(
    make_cache_view: MakeCacheView,
) -> None:
    """All attention goes to a distant token; what is left of it still has to sum to 1."""
    view = make_cache_view(tokens=48, padding=(0, 0), kv_heads=1, group=1)
    keys = torch.full_like(view.layer.keys, -5.0)
    keys[:, :, 20] = 100.0
    loud = replace(view.layer, keys=keys, queries=torch.full_like(view.layer.queries, 10.0))
    values = torch.ones_like(loud.values)
    outputs = replace(view, layer=replace(loud, values=values)).streaming_outputs(1, 2)
    torch.testing.assert_close(outputs, torch.ones_like(outputs))


def test_a_short_sequence_beside_a_long_one_streams_fewer_tokens(
    make_cache_view: MakeCacheView,
) -> None:
    view = make_cache_view(tokens=64, padding=(0, 48))
    alone = replace(view.layer, **{name: getattr(view.layer, name)[1:] for name in PER_SEQUENCE})
    found = replace(view, layer=alone, residual=view.residual[1:]).streaming_outputs(2, 6)
    assert torch.equal(found[0], view.streaming_outputs(2, 6)[1])
    torch.testing.assert_close(
        found, replace(view, layer=alone, residual=view.residual[1:]).streaming_outputs(0, 2)
    )


def test_projecting_adds_up_the_heads(make_cache_view: MakeCacheView) -> None:
    view = make_cache_view(padding=(0, 0))
    outputs = view.outputs()
    wanted = torch.einsum("bhtd,hdo->bto", outputs.double(), view.output_weight.double())
    torch.testing.assert_close(view.project(outputs).double(), wanted, rtol=1e-5, atol=1e-5)


def test_copies_are_the_real_tokens_whose_source_is_real(make_cache_view: MakeCacheView) -> None:
    source = [-1, -1, -1, -1, -1, -1, 2, 3, 4, -1, 0, 1]
    view = replace(make_cache_view(padding=(0, 3)), copied_from=torch.tensor(source))
    wanted = [[6, 7, 8, 10, 11], [7, 8]]
    assert [row.nonzero().flatten().tolist() for row in view.copies()] == wanted


def test_lookups_are_the_copies_whose_successor_goes_on_with_the_same_copy(
    make_cache_view: MakeCacheView,
) -> None:
    source = [-1, -1, -1, -1, -1, -1, 2, 3, 0, 1, 2, -1]
    view = replace(make_cache_view(padding=(0, 1)), copied_from=torch.tensor(source))
    assert [row.nonzero().flatten().tolist() for row in view.lookups()] == [[6, 8, 9], [6, 9]]


def test_a_view_that_is_no_probe_has_no_copies(make_cache_view: MakeCacheView) -> None:
    with pytest.raises(ValueError, match="`view` must hold `copied_from`, but it has none"):
        make_cache_view().lookups()


@pytest.mark.parametrize(
    "given",
    [{"copied_from": torch.zeros(5, dtype=torch.int64)}, {"gradient": torch.ones(2, 4, 5, 6)}],
)
def test_entries_for_other_tokens_than_the_views_are_refused(
    given: dict[str, Tensor], make_cache_view: MakeCacheView
) -> None:
    (name,) = given
    with pytest.raises(ValueError, match=f"`{name}` must hold one entry per token, 12, but got 5"):
        replace(make_cache_view(), **given)


def test_the_mean_over_tokens_leaves_out_what_does_not_count() -> None:
    per_token = torch.tensor([[[1.0, 2.0, 3.0]], [[torch.nan, 5.0, 7.0]]])
    counted = torch.tensor([[True, False, True], [False, True, False]])
    assert mean_over(per_token, counted).tolist() == [3.0]
    assert mean_over(per_token[:, 0], counted).item() == 3.0
    assert mean_over(per_token, torch.zeros_like(counted)).tolist() == [0.0]


@pytest.mark.parametrize(("sizes", "name"), [((-1, 2), "sink_tokens"), ((0, 0), "recent_tokens")])
def test_a_small_cache_that_holds_nothing_is_refused(sizes: tuple[int, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least"):
        check_small_cache(*sizes)
