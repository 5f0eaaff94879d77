"""What a profile expects a token to save."""

from dataclasses import replace

import numpy as np
import torch

from kvbudget.allocator import CacheShape, Geometry, Plan, Profile, allocate
from kvbudget.runtime.adaptation.expected import Expected, expected_of

SHAPES = (CacheShape(2, 4, 4), CacheShape(1, 8, 8))
LEVELS = [0.1, 0.3, 0.5, 1.0]
# the second curve bulges at 0.3, the third is flat from 0.5 on
LOSS = np.array([[[8.0, 4, 2, 0], [10, 9, 2, 0]], [[7, 3, 0, 0], [0, 0, 0, 0]]])


def a_plan(windows: tuple[int | None, ...] = (None, None)) -> Plan:
    """A plan for a layer of two small caches and one of one large cache."""
    geometry = Geometry.of_layers("TinyForCausalLM", SHAPES, "float32", windows)
    profile = Profile.from_importance(
        LOSS[..., 0], geometry, kept_fraction=LEVELS, heuristic="observation_window"
    )
    profile = replace(profile, loss=LOSS, sample_loss=LOSS[None])
    return allocate(profile, budget="50%", context_tokens=100)


def savings(plan: Plan, tokens: int) -> list[np.ndarray]:
    """What each token saves, layer by layer."""
    expected = expected_of(plan, tokens)
    assert expected is not None
    return [each.at(tokens).numpy() for each in expected]


def test_tokens_between_two_levels_save_alike():
    first, second = savings(a_plan(), 10)
    np.testing.assert_allclose(first[0], [2, 2, 2, 1, 1] + [0.4] * 5)
    np.testing.assert_allclose(second[0], [2, 2, 2, 1.5, 1.5] + [0.0] * 5)


def test_curves_are_taken_as_convex():
    first, _ = savings(a_plan(), 10)
    np.testing.assert_allclose(first[1], [2] * 5 + [0.4] * 5)


def test_what_is_saved_in_all_does_not_depend_on_the_length():
    for tokens in (10, 57, 1000):
        above = [each[:, int(0.1 * tokens) :].sum(1) for each in savings(a_plan(), tokens)]
        np.testing.assert_allclose(np.concatenate(above), [8, 10, 7])


def test_a_window_ends_the_curve():
    first, second = savings(a_plan((None, 40)), 100)
    # 50 and 100 tokens are both cut to the 40 of the window
    np.testing.assert_allclose(second[0], [0.2] * 30 + [0.3] * 0 + [0.3] * 10 + [0] * 60, atol=1)
    assert float(second[0, 10:].sum()) == 7.0
    assert len(first[0]) == 100


def test_few_tokens_make_levels_alike():
    for tokens in (1, 2, 3):
        for layer in savings(a_plan(), tokens):
            assert bool((np.diff(layer, axis=1) <= 0).all())


def test_a_plan_without_curves_expects_nothing():
    assert expected_of(replace(a_plan(), curves=None), 10) is None


def test_tokens_behind_the_last_step_save_nothing():
    ends, each = torch.tensor([[2, 5]]), torch.tensor([[9.0, 4.0]], dtype=torch.float64)
    assert Expected(ends, each).at(6).tolist() == [[9, 9, 4, 4, 4, 0]]
    assert Expected(ends, each).worth.tolist() == [2 * 9 + 3 * 4]
