"""Attention first, effect on the output second."""

from collections.abc import Callable

import pytest
import torch

from kvbudget.heuristics import CriticalKV, LayerView, ObservationWindow
from kvbudget.heuristics.tokens import critical_kv

MakeView = Callable[..., LayerView]


EPSILON = 0.05


def naive_selection(view: LayerView, row: int, head: int, capacity: int) -> set[int]:
    """Held tokens that two stages keep, by index among the held."""
    held = view.valid[row, head]
    base = ObservationWindow(5, 3).score(view)[row, head, held].double()
    values = view.values[row, head, held].double()
    if view.output_weight is None:
        norms = values.abs().sum(dim=-1)
    else:
        group = view.output_weight[head * view.group : (head + 1) * view.group].double()
        norms = torch.stack([(values @ one).abs().sum(dim=-1) for one in group]).mean(dim=0)
    kept = base.argsort(descending=True, stable=True)[: capacity // 2].tolist()
    weighted = (base + EPSILON) * norms
    weighted[kept] = torch.inf
    return set(weighted.argsort(descending=True, stable=True)[:capacity].tolist())


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_at_every_capacity_the_best_are_those_of_the_two_stages(
    projected: bool, ragged: bool, make_view: MakeView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(critical_kv, "TOKENS_PER_CHUNK", 7)
    weight = torch.randn(4, 6, 10, generator=torch.Generator().manual_seed(1))
    view = make_view(tokens=30, ragged=ragged, seed=2, output_weight=weight if projected else None)
    scores = CriticalKV(window=5, kernel=3, epsilon=EPSILON).score(view)
    for row in range(2):
        for head in range(2):
            order = scores[row, head, view.valid[row, head]].argsort(descending=True).tolist()
            for capacity in range(1, len(order) + 1):
                wanted = naive_selection(view, row, head, capacity)
                assert set(order[:capacity]) == wanted


def test_a_value_that_the_projection_swallows_goes_late(make_view: MakeView) -> None:
    weight = torch.zeros(4, 6, 3)
    weight[:, 0] = 1.0
    view = make_view(tokens=20, padding=(0, 0), output_weight=weight)
    view.values[:, :, 4, 0] = 0.0
    scores = CriticalKV(window=2, kernel=1, share=0.0).score(view)
    assert (scores[:, :, 4] == -20).all()


def test_a_projection_in_half_precision_is_used_in_float32(make_view: MakeView) -> None:
    weight = torch.randn(4, 6, 10).bfloat16()
    half = make_view(tokens=20, output_weight=weight)
    full = make_view(tokens=20, output_weight=weight.float())
    assert torch.equal(CriticalKV().score(half), CriticalKV().score(full))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.5}, "`share` must be between 0 and 1, but got share=1.5."),
        ({"epsilon": -1.0}, "`epsilon` must be at least 0, but got epsilon=-1.0."),
        ({"window": 0}, "`window` must be at least 1, but got window=0."),
        ({"kernel": 4}, "`kernel` must be odd and at least 1, but got kernel=4."),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        CriticalKV(**settings)
    assert str(error.value) == message
