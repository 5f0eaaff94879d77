"""The layer score of SqueezeAttention, against the formula written with loops."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, LayerView, ResidualChange

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]


def test_importance_is_one_minus_the_mean_cosine(
    make_cache_view: MakeCacheView, dense_attention: Oracle
) -> None:
    view = make_cache_view(kv_heads=3, padding=(0, 3), softcap=5.0)
    layer, attention = view.layer, dense_attention(view.layer)
    values, weight = layer.values.double().nan_to_num(0.0), view.output_weight.double()
    turned = []
    for row in range(2):
        for token in layer.valid[row, 0].nonzero().flatten().tolist():
            before = view.residual[row, token].double()
            after = before.clone()
            for head in range(6):
                after += attention[row, head, token] @ values[row, head // 2] @ weight[head]
            turned.append(1 - float(before @ after / (before.norm() * after.norm())))
    wanted = sum(turned) / len(turned)
    assert ResidualChange().importance(view).tolist() == pytest.approx([wanted] * 3, rel=1e-5)


def test_only_what_points_elsewhere_counts(make_cache_view: MakeCacheView) -> None:
    view = make_cache_view(padding=(0, 0))
    silent = replace(view, output_weight=torch.zeros_like(view.output_weight))
    assert ResidualChange().importance(silent).tolist() == pytest.approx([0, 0], abs=1e-6)
    along = replace(view, residual=view.project(view.outputs()))
    assert ResidualChange().importance(along).tolist() == pytest.approx([0, 0], abs=1e-6)
    against = replace(view, residual=-0.5 * view.project(view.outputs()))
    assert ResidualChange().importance(against).tolist() == pytest.approx([2, 2])
