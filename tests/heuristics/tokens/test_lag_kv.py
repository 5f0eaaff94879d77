"""Tokens against the ranges of the partition that follows."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import LagKV, LayerView

MakeView = Callable[..., LayerView]


def spread_shares(vectors: Tensor, following: Tensor) -> list[float]:
    """Softmax over a partition of the deviation of each token's channels, scaled by the next."""
    low, high = following.amin(dim=0), following.amax(dim=0)
    deviations = [((vector - low) / (high - low)).std() for vector in vectors]
    return torch.stack(deviations).softmax(dim=0).tolist()


def naive_order(keys: Tensor, values: Tensor, lag: int, sinks: int) -> list[int]:
    """Held tokens from the one to keep longest, by index among the held."""
    held = len(keys)
    lag = min(lag, max(1, (held - sinks) // 2))
    full = max(0, held - sinks) // lag
    ranked = []
    for part in range(full - 1):
        here = slice(sinks + part * lag, sinks + (part + 1) * lag)
        following = slice(here.stop, here.stop + lag)
        both = zip(
            spread_shares(keys[here], keys[following]),
            spread_shares(values[here], values[following]),
            strict=True,
        )
        shares = [(key + value) / 2 for key, value in both]
        for rank, token in enumerate(sorted(range(lag), key=shares.__getitem__)):
            ranked.append((rank, shares[token], here.start + token))
    compared = {token for _, _, token in ranked}
    first = list(range(min(sinks, held)))
    newest_first = [token for token in reversed(range(sinks, held)) if token not in compared]
    return first + newest_first + [token for _, _, token in sorted(ranked, reverse=True)]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("lag", "sinks"), [(5, 4), (3, 0), (7, 2), (2, 1), (40, 4), (4, 50)])
@pytest.mark.parametrize("tokens", [1, 9, 41])
def test_the_order_is_the_one_written_out_by_partition(
    ragged: bool, lag: int, sinks: int, tokens: int, make_view: MakeView
) -> None:
    view = make_view(ragged=ragged, tokens=tokens, padding=(0, tokens // 4), head_dim=6)
    scores = LagKV(lag, sinks).score(view)
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head]
            keys, values = (each[row, head, held].double() for each in (view.keys, view.values))
            found = scores[row, head, held].argsort(descending=True, stable=True).tolist()
            assert found == naive_order(keys, values, lag, sinks)


def test_every_partition_has_the_same_ranks(make_view: MakeView) -> None:
    scores = LagKV(lag=8, sinks=4).score(make_view(tokens=40, padding=(0, 0)))
    ranks = (scores[0, 0, 4:28] * 8).floor().view(3, 8).sort(dim=-1).values
    assert torch.equal(ranks, torch.arange(8.0).expand(3, 8))


def test_a_channel_that_never_changes_is_left_out_of_the_comparison(make_view: MakeView) -> None:
    view = make_view(tokens=30, padding=(0, 0))
    view.keys[..., 0] = 7.0
    assert LagKV(lag=8, sinks=2).score(view).isfinite().all()


def test_a_cache_shorter_than_two_partitions_is_cut_into_halves(make_view: MakeView) -> None:
    view = make_view(tokens=91, padding=(0, 0))
    scores, halves = LagKV().score(view), LagKV(lag=43).score(view)
    assert torch.equal(scores, halves)
    order = scores[0, 0].argsort(descending=True).tolist()
    assert order[:48] == [0, 1, 2, 3, *range(90, 46, -1)]
    assert sorted(order[48:]) == list(range(4, 47))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lag": 0}, "`lag` must be at least 1, but got lag=0."),
        ({"sinks": -1}, "`sinks` must be at least 0, but got sinks=-1."),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        LagKV(**settings)
    assert str(error.value) == message
