"""The layer preference of CAKE, against the formula written with loops."""

import math
from collections.abc import Callable

import pytest
from torch import Tensor

from kvbudget.heuristics import CacheView, Cake, LayerView

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]


def naive_preference(rule: Cake, view: CacheView, attention: Tensor) -> float:
    found = []
    for row in range(len(attention)):
        real = view.layer.valid[row, 0].nonzero().flatten().tolist()
        window = min(rule.window, len(real) // 2)
        asking, outside = real[-window:], real[:-window]
        entropy = variance = 0.0
        for head in attention[row]:
            for key in outside:
                shares = [float(head[query, key]) for query in asking]
                mean = sum(shares) / window
                entropy -= sum(share * math.log(share) for share in shares if share > 0)
                variance += sum((share - mean) ** 2 for share in shares) / window
        found.append(entropy ** (1 / rule.tau1) * variance ** (1 / rule.tau2))
    return sum(found) / len(found)


@pytest.mark.parametrize("rule", [Cake(), Cake(window=5), Cake(1.6, 0.4, 4), Cake(0.5, 2.0, 2)])
def test_importance_equals_the_formula_written_with_loops(
    rule: Cake, make_cache_view: MakeCacheView, dense_attention: Oracle
) -> None:
    view = make_cache_view(kv_heads=3, tokens=20, padding=(0, 7), softcap=6.0, sinks=True)
    wanted = naive_preference(rule, view, dense_attention(view.layer))
    assert rule.importance(view).tolist() == pytest.approx([wanted] * 3, rel=1e-4)


def test_a_layer_that_sees_nothing_outside_the_window_gets_nothing(
    make_cache_view: MakeCacheView,
) -> None:
    view = make_cache_view(tokens=20, padding=(0, 0), window=1)
    assert Cake(window=5).importance(view).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"tau1": 0.0}, "tau1"), ({"tau2": math.inf}, "tau2"), ({"window": 1}, "window")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be .*at least .*, but got {name}="):
        Cake(**settings)  # type: ignore[arg-type]
