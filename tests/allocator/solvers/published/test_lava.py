from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import AdaKV, LAVa


def entropies(loss: np.ndarray) -> np.ndarray:
    """Entropy of the weights beyond the first token of each layer, over that of equal ones."""
    weights = -np.diff(loss, axis=-1).reshape(len(loss), -1)
    shares = weights / weights.sum(axis=1, keepdims=True)
    return -(shares * np.log(shares)).sum(axis=1) / np.log(shares.shape[1])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_layers_share_in_proportion_to_the_entropy_of_their_weights(
    seed: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
) -> None:
    loss = mass(seed, layers=3, kv_heads=2, tokens=40)
    kept = kept_tokens(on_tokens(loss, 6 * 16), LAVa(window_tokens=4))
    share = entropies(loss) / entropies(loss).sum()
    # 6 windows of 4, and 72 tokens by entropy
    assert kept.sum(axis=1) == pytest.approx(8 + 72 * share, abs=2)


def test_given_shares_are_exact_and_heads_compete_as_in_ada_kv(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    loss = mass(2, layers=2, kv_heads=3, tokens=30)
    rule = LAVa(alpha=0.25, window_tokens=2, importance=[3.0, 1.0])
    kept = kept_tokens(on_tokens(loss, 12 + 40), rule)
    assert kept.sum(axis=1).tolist() == [6 + 30, 6 + 10]
    for layer, tokens in ((0, 36), (1, 16)):
        alone = kept_tokens(on_tokens(loss[layer : layer + 1], tokens), AdaKV(0.25, 2))
        assert abs(kept[layer] - alone).max() <= 1


def test_the_safeguard_follows_the_layers_own_budget(
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
    round_by_hand: Callable[..., list[int]],
) -> None:
    line = np.arange(60, 0, -1.0) - 1
    # in both layers the first cache wins everything beyond one token
    problem = on_tokens([[line * 2, line]] * 2, 4 + 80)
    kept = kept_tokens(problem, LAVa(alpha=0.5, window_tokens=0, importance=[3.0, 1.0]))
    layers = [Fraction(62), Fraction(22)]
    won = [[min(total - 1, 60), total - min(total - 1, 60)] for total in layers]
    wanted = [(w + total / 2) / 2 for total, pair in zip(layers, won, strict=True) for w in pair]
    assert kept.ravel().tolist() == round_by_hand(wanted)


def test_equal_weights_have_the_largest_entropy_and_get_most() -> None:
    flat, steep = np.arange(20, -1, -1.0), 2.0 ** -np.arange(21.0)
    problem = Problem([flat, steep], [np.arange(21)] * 2, 20)
    shares = np.diff(-steep) / np.diff(-steep).sum()
    entropy = -(shares * np.log(shares)).sum() / np.log(20)
    levels = LAVa().choose(problem).levels
    assert levels.tolist() == [20 - round(20 * entropy / (1 + entropy)), levels[1]]
    assert levels.sum() == 20


def test_entropy_is_relative_to_the_number_of_tokens() -> None:
    long, short = np.arange(20, -1, -1.0), np.minimum(np.arange(20, -1, -1.0) - 10, 10)
    problem = Problem([long, np.maximum(short, 0.0)], [range(21), [*range(11), *[10] * 10]], 16)
    assert LAVa().choose(problem).levels.tolist() == [8, 8]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`alpha` must be within"):
        LAVa(alpha=2.0)
