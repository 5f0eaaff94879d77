"""Fisher information of caches, against loops and against a model small enough to differentiate."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, Fisher, LayerView, Lost

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]
Streaming = Callable[[LayerView, int, int], Tensor]


def with_gradient(view: CacheView, samples: int = 3) -> CacheView:
    draw = torch.Generator().manual_seed(9)
    heads, tokens = view.layer.queries.shape[1:3]
    shape = (samples, heads, tokens, view.layer.values.shape[-1])
    return replace(view, gradient=torch.randn(shape, generator=draw))


@pytest.mark.parametrize("lost", Lost)
def test_importance_is_half_the_mean_square_of_what_the_likelihood_loses(
    lost: Lost,
    make_cache_view: MakeCacheView,
    dense_attention: Oracle,
    dense_streaming: Streaming,
) -> None:
    view = with_gradient(make_cache_view(tokens=40, padding=(0, 5), group=3))
    layer, gradient = view.layer, view.gradient
    assert gradient is not None
    attention = dense_attention(layer)
    if lost is Lost.DISTANT:
        attention = attention - dense_streaming(layer, 1, 3)
    values = layer.values.double().nan_to_num(0.0)
    wanted = []
    for kv_head in range(2):
        squares = []
        for row in range(2):
            for token in layer.valid[row, 0].nonzero().flatten().tolist():
                for sample in range(3):
                    change = 0.0
                    for head in range(3 * kv_head, 3 * kv_head + 3):
                        given = attention[row, head, token] @ values[row, kv_head]
                        change += float(gradient[sample, head, token].double() @ given)
                    squares.append(change**2)
        wanted.append(0.5 * sum(squares) / len(squares))
    found = Fisher(lost=lost, sink_tokens=1, recent_tokens=3).importance(view)
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)


def test_it_predicts_the_divergence_of_a_model_that_reads_one_head() -> None:
    """One query sees values v[j]; logits = output * c, so KL(full || nothing) is known."""
    c, tokens = 0.05, 24
    draw = torch.Generator().manual_seed(2)
    values = torch.randn(1, 1, tokens, 8, generator=draw)
    columns = torch.arange(tokens)
    layer = LayerView(
        layer=0,
        keys=torch.zeros(1, 1, tokens, 8),
        values=values,
        valid=torch.ones(1, 1, tokens, dtype=torch.bool),
        positions=columns.view(1, 1, -1),
        queries=torch.zeros(1, 1, tokens, 8),
        query_positions=columns,
        scaling=1.0,
    )
    outputs = values[0, 0].cumsum(0) / torch.arange(1, tokens + 1)[:, None]
    expected = (c * outputs).log_softmax(-1)  # [tokens, labels]
    labels = torch.multinomial(expected.exp(), 4000, replacement=True, generator=draw)
    one_hot = torch.nn.functional.one_hot(labels.T, 8).float()
    gradient = c * (expected.exp() - one_hot)  # of -log p, [samples, tokens, 8]
    view = CacheView(layer, torch.ones(1, tokens, 8), torch.ones(1, 8, 8), gradient.unsqueeze(1))
    nothing = torch.zeros_like(outputs).log_softmax(-1)
    divergence = (expected.exp() * (expected - nothing)).sum(-1).mean()
    found = Fisher(lost=Lost.ALL).importance(view)
    assert found.item() == pytest.approx(divergence.item(), rel=0.05)


def test_a_cache_that_only_serves_the_latest_tokens_loses_nothing_distant(
    make_cache_view: MakeCacheView,
) -> None:
    view = with_gradient(make_cache_view(tokens=40, padding=(0, 0), window=3))
    assert Fisher(sink_tokens=0, recent_tokens=4).importance(view).tolist() == [0.0, 0.0]
    assert (Fisher(lost=Lost.ALL).importance(view) > 0.1).all()


def test_it_asks_for_gradients(make_cache_view: MakeCacheView) -> None:
    assert Fisher.needs_gradient
    with pytest.raises(ValueError, match="`view` must hold `gradient` for Fisher"):
        Fisher().importance(make_cache_view())


def test_a_small_cache_has_to_hold_something() -> None:
    with pytest.raises(ValueError, match="`recent_tokens` must be at least 1"):
        Fisher(recent_tokens=0)
