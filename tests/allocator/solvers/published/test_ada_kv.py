import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import AdaKV


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), layer_tokens=st.integers(3, 18))
def test_without_a_safeguard_no_division_inside_a_layer_keeps_more_mass(
    seed: int,
    layer_tokens: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
) -> None:
    loss = mass(seed, layers=2, kv_heads=3, tokens=6)
    problem = on_tokens(loss, 2 * layer_tokens)
    kept = kept_tokens(problem, AdaKV(alpha=0.0, window_tokens=0))
    assert kept.sum(axis=1).tolist() == [layer_tokens] * 2
    for layer in range(2):
        best = min(
            sum(loss[layer, head, n - 1] for head, n in enumerate(split))
            for split in itertools.product(range(1, 7), repeat=3)
            if sum(split) == layer_tokens
        )
        assert sum(loss[layer, h, n - 1] for h, n in enumerate(kept[layer])) == pytest.approx(best)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), window=st.integers(0, 4), won=st.integers(0, 12))
def test_the_winners_are_the_top_of_the_concatenated_weights_beyond_the_window(
    seed: int,
    window: int,
    won: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
) -> None:
    loss = mass(seed, layers=1, kv_heads=4, tokens=9)[0]
    weights = -np.diff(loss, prepend=1.0, axis=1)
    held = max(window, 1)
    outside = weights[:, held:]
    top = np.argsort(-outside.ravel())[:won] // outside.shape[1]
    kept = kept_tokens(on_tokens(loss[None], 4 * held + won), AdaKV(0.0, window))
    assert kept.ravel().tolist() == (held + np.bincount(top, minlength=4)).tolist()


def test_the_safeguard_mixes_winners_and_equal_parts() -> None:
    # all of the first cache's 40 steps beat those of the second
    curves = [np.arange(40, -1, -1.0) * 2, np.arange(40, -1, -1.0)]
    problem = Problem(np.array(curves), [np.arange(41)] * 2, 40)
    assert AdaKV(alpha=0.5).choose(problem).levels.tolist() == [20, 20]


def test_alpha_between_its_ends(
    on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    line = np.arange(40, 0, -1.0) - 1
    problem = on_tokens([[line * 2, line]], 42)
    for alpha, kept in ((0.0, [40, 2]), (0.2, [36, 6]), (0.5, [31, 11]), (1.0, [21, 21])):
        # the winners are 40 and 2, the equal part is 21
        rounded = kept_tokens(problem, AdaKV(alpha, window_tokens=0)).ravel()
        exact = (1 - alpha) * np.array([40, 2]) + alpha * 21
        assert rounded.tolist() == kept
        assert abs(rounded - exact).max() < 1


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), alpha=st.floats(0, 1), each=st.integers(3, 36))
def test_layers_are_equal_to_the_token_however_much_they_differ(
    seed: int,
    alpha: float,
    each: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
) -> None:
    loss = mass(seed, layers=3, kv_heads=3) * np.array([1e6, 1.0, 1e-6])[:, None, None]
    kept = kept_tokens(on_tokens(loss, 3 * each), AdaKV(alpha, window_tokens=1))
    assert kept.sum(axis=1).tolist() == [each] * 3


def test_a_layer_that_is_full_gives_the_rest_to_the_others(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    problem = on_tokens(mass(5), 46, windows=(None, 3, None))
    kept = kept_tokens(problem, AdaKV(0.0, 0))
    assert kept.sum(axis=1).tolist() == [20, 6, 20]


@pytest.mark.parametrize("setting", [{"alpha": 1.1}, {"alpha": -0.1}, {"window_tokens": -1}])
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        AdaKV(**setting)
