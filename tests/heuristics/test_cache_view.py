"""Attention outputs of a whole layer, against dense attention."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, LayerView

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "kind", [{}, {"window": 3}, {"softcap": 4.0, "sinks": True}, {"kv_heads": 1, "group": 3}]
)
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
