import numpy as np
import pytest

from kvbudget.allocator import Geometry, Origin, Problem, Profile
from kvbudget.allocator.sharing.token_weights import TokenWeights


def entropy_of(weights: list[float]) -> float:
    shares = np.array(weights) / sum(weights)
    return float(-(shares * np.log(shares)).sum())


def test_on_single_tokens_entropy_and_variance_are_those_of_the_weights() -> None:
    problem = Problem([[10.0, 4.0, 1.0, 0.0]], [[7, 10, 13, 16]], 16)
    weights = TokenWeights.of(problem)
    assert weights.entropy() == pytest.approx([entropy_of([6, 3, 1])])
    assert weights.variance() == pytest.approx([np.var([0.6, 0.3, 0.1])])


def test_a_wide_step_is_that_many_tokens_of_equal_weight() -> None:
    coarse = Problem([[10.0, 4.0, 0.0]], [[0, 1, 4]], 4)
    assert TokenWeights.of(coarse).entropy() == pytest.approx(
        [entropy_of([6, 4 / 3, 4 / 3, 4 / 3])]
    )
    spread = [0.6, *[0.4 / 3] * 3]
    assert TokenWeights.of(coarse).variance() == pytest.approx([np.var(spread)])


def test_caches_of_a_layer_can_be_joined() -> None:
    geometry = Geometry("A", 1, 2, 1, 1, "float16", (None,))
    origin = Origin.of(Profile.from_importance([[3, 1]], geometry, kept_fraction=[0.5, 1]), 2, 1)
    problem = Problem([[4.0, 1.0], [2.0, 1.0]], [[0, 1], [0, 1]], 2, origin=origin)
    joined = TokenWeights.of(problem).joined(problem)
    assert joined.entropy() == pytest.approx([entropy_of([3, 1])])


@pytest.mark.parametrize(
    "problem",
    [
        Problem([[1.0, 1.0]], [[0, 4]], 4),
        Problem([[2.0, 1.0]], [[4, 4]], 4),
        Problem([[2.0]], [[0]], 4),
        Problem([[5e-324, 0.0]], [[0, 2**61]], 4),
    ],
)
def test_without_tokens_or_loss_nothing_is_spread(problem: Problem) -> None:
    weights = TokenWeights.of(problem)
    assert weights.entropy().tolist() == weights.variance().tolist() == [0.0]


def test_the_scale_of_the_loss_does_not_matter() -> None:
    loss = np.array([[10.0, 4.0, 1.0, 0.0], [8.0, 8.0, 7.0, 2.0]])
    cost = [[0, 1, 2, 3]] * 2
    plain = TokenWeights.of(Problem(loss, cost, 3))
    for scale in (1e-290, 1e280):
        scaled = TokenWeights.of(Problem(loss * scale, cost, 3))
        assert scaled.entropy() == pytest.approx(plain.entropy())
        assert scaled.variance() == pytest.approx(plain.variance())


def test_a_step_that_costs_nothing_is_no_token() -> None:
    free = Problem([[20.0, 10.0, 4.0, 1.0, 0.0]], [[2, 2, 3, 4, 5]], 5)
    plain = Problem([[10.0, 4.0, 1.0, 0.0]], [[2, 3, 4, 5]], 5)
    assert TokenWeights.of(free).entropy() == pytest.approx(TokenWeights.of(plain).entropy())
    assert TokenWeights.of(free).variance() == pytest.approx(TokenWeights.of(plain).variance())
