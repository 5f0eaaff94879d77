"""Sums over heads that hold the same token."""

from collections.abc import Callable

import torch

from kvbudget.heuristics import LayerView
from kvbudget.heuristics.columns import sum_by_column


def test_every_place_gets_the_sum_over_the_heads_that_hold_its_column(
    make_view: Callable[..., LayerView],
) -> None:
    view = make_view(kv_heads=3, tokens=9, ragged=True, seed=4)
    mass = torch.arange(view.valid.numel()).view(view.valid.shape)
    found = sum_by_column(view, mass)
    shared = 0
    for row in range(2):
        held = [
            {
                view.positions[row, head, place].item(): place
                for place in view.valid[row, head].nonzero().flatten().tolist()
            }
            for head in range(3)
        ]
        for head in range(3):
            for column, place in held[head].items():
                holding = [other for other in range(3) if column in held[other]]
                shared += len(holding) > 1
                wanted = sum(mass[row, other, held[other][column]].item() for other in holding)
                assert found[row, head, place].item() == wanted
    assert shared > 5
