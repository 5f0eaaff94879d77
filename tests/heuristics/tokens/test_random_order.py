"""A fair sample of the tokens."""

from collections.abc import Callable
from dataclasses import replace

import torch

from kvbudget.heuristics import LayerView, RandomOrder

MakeView = Callable[..., LayerView]


def test_scores_are_uniform_and_each_head_layer_and_seed_has_its_own(make_view: MakeView) -> None:
    view = make_view(tokens=2000, new=0, batch=1, padding=(0,))
    scores = RandomOrder().score(view)[0]
    shares = scores.histc(10, 0, 1) / scores.numel()
    torch.testing.assert_close(shares, torch.full((10,), 0.1), atol=0.02, rtol=0)
    drawn = [
        scores[0],
        scores[1],
        RandomOrder(seed=1).score(view)[0, 0],
        RandomOrder().score(replace(view, layer=3))[0, 0],
    ]
    between = torch.stack(drawn).corrcoef()
    torch.testing.assert_close(between, torch.eye(4), atol=0.08, rtol=0)


def test_a_token_keeps_its_number_while_others_come_and_go(make_view: MakeView) -> None:
    short, long = (make_view(tokens=tokens, new=0, padding=(0, 3)) for tokens in (12, 30))
    numbers = RandomOrder().score(long)
    assert torch.equal(RandomOrder().score(short), numbers[..., :12])
    held = torch.rand(2, 2, 30) < 0.5
    held[0, :, 0] = held[1, :, 3] = True  # the first tokens of the sequences
    evicted = replace(long, valid=long.valid & held)
    assert torch.equal(RandomOrder().score(evicted), numbers)


def test_more_padding_changes_no_number(make_view: MakeView) -> None:
    view = make_view(padding=(0, 3))
    moved = replace(view, positions=view.positions + 7)
    assert torch.equal(RandomOrder().score(moved), RandomOrder().score(view))


def test_what_survives_many_evictions_is_a_fair_sample(make_view: MakeView) -> None:
    view = make_view(tokens=100, new=0, batch=1, kv_heads=4000, group=1, padding=(0,))
    numbers = RandomOrder().score(view)[0]
    held = torch.zeros(4000, 100, dtype=torch.bool)
    for end in range(20, 101, 5):  # five tokens come, five go
        held[:, end - 20 if end == 20 else end - 5 : end] = True
        ranked = numbers.masked_fill(~held, -1.0).argsort(dim=-1, descending=True)
        held = torch.zeros_like(held).scatter_(1, ranked[:, :20], True)
    # standard error 0.0063
    torch.testing.assert_close(held.float().mean(0), torch.full((100,), 0.2), atol=0.03, rtol=0)
