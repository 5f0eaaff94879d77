"""The layer error of CompressKV, against dense attention."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, CompressKV, LayerView

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]
Streaming = Callable[[LayerView, int, int], Tensor]


def test_importance_is_the_relative_error_of_what_the_layer_writes(
    make_cache_view: MakeCacheView, dense_attention: Oracle, dense_streaming: Streaming
) -> None:
    view = make_cache_view(tokens=40, padding=(0, 6), sinks=True)
    layer = view.layer
    values = layer.values.double().nan_to_num(0.0).repeat_interleave(2, dim=1)

    def written(attention: Tensor) -> Tensor:
        heads = torch.einsum("bhtd,hdo->bto", attention @ values, view.output_weight.double())
        return heads[layer.valid[:, 0]]

    full = written(dense_attention(layer))
    small = written(dense_streaming(layer, 1, 2))
    wanted = float(((small - full).square().sum() / full.square().sum()).sqrt())
    found = CompressKV(sink_tokens=1, recent_tokens=2).importance(view)
    assert found.tolist() == pytest.approx([wanted] * 2, rel=1e-5)


def test_a_layer_that_needs_the_latest_tokens_only_has_no_error(
    make_cache_view: MakeCacheView,
) -> None:
    view = make_cache_view(tokens=40, padding=(0, 0), window=4)
    assert CompressKV(0, 5).importance(view).tolist() == [0.0, 0.0]
    assert CompressKV(0, 3).importance(view).tolist()[0] > 0.01


def test_a_layer_that_writes_nothing_has_no_error(make_cache_view: MakeCacheView) -> None:
    view = make_cache_view()
    silent = replace(view, output_weight=torch.zeros_like(view.output_weight))
    assert CompressKV().importance(silent).tolist() == [0.0, 0.0]


def test_the_scale_of_what_is_written_does_not_matter(make_cache_view: MakeCacheView) -> None:
    view = make_cache_view(tokens=40)
    loud = replace(view, output_weight=view.output_weight * 100)
    torch.testing.assert_close(CompressKV().importance(loud), CompressKV().importance(view))


def test_a_small_cache_has_to_hold_something() -> None:
    with pytest.raises(ValueError, match="`recent_tokens` must be at least 1"):
        CompressKV(recent_tokens=0)
