"""Short keys first."""

from collections.abc import Callable

import torch

from kvbudget.heuristics import KeyNorm, LayerView


def test_the_token_with_the_shortest_key_scores_highest(
    make_view: Callable[..., LayerView],
) -> None:
    view = make_view(tokens=4, head_dim=2, padding=(0, 0))
    view.keys[0, 1] = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-6.0, 8.0], [2.0, 0.0]])
    assert KeyNorm().score(view)[0, 1].tolist() == [-5.0, -1.0, -10.0, -2.0]


def test_norms_of_half_precision_keys_do_not_overflow(
    make_view: Callable[..., LayerView],
) -> None:
    view = make_view(tokens=4, head_dim=2, padding=(0, 0), dtype=torch.float16)
    view.keys[0, 0, 0] = torch.tensor([60_000.0, 60_000.0])
    assert KeyNorm().score(view)[0, 0, 0].item() < -84_000
