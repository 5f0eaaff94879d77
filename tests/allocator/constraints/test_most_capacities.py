import numpy as np
import pytest

from kvbudget.allocator import Problem, Profile, Status, solve
from kvbudget.allocator.constraints import EqualInLayer, LeastTokens, MostCapacities, MostTokens
from kvbudget.allocator.solvers.linear_program import LinearProgram
from kvbudget.allocator.solvers.mixed_integer import MixedInteger


def asked(profile: Profile, *constraints: object, budget: str = "60%") -> Problem:
    return Problem.from_profile(
        profile,
        budget=budget,
        context_tokens=100,
        constraints=constraints,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("solver", [LinearProgram(), MixedInteger()], ids=repr)
def test_a_plan_has_no_more(profile: Profile, count: int, solver: LinearProgram) -> None:
    solution = solve(asked(profile, MostCapacities(count)), solver)
    assert len(np.unique(solution.plan.capacity_tokens)) <= count
    free = solve(asked(profile), solver)
    assert len(np.unique(free.plan.capacity_tokens)) > 3
    assert solution.loss > free.loss


def test_a_window_that_is_full_may_share_a_capacity_with_a_level_of_another_layer(
    profile: Profile,
) -> None:
    problem = asked(profile, MostCapacities(1))
    kind = problem.constraints[0].terms(problem).distinct[0].kind
    tokens = problem.origin.capacity_tokens if problem.origin else np.empty(0)
    for one in np.ndindex(kind.shape):
        assert ((kind == kind[one]) == (tokens == tokens[one])).all()


def test_levels_count_where_there_are_no_tokens() -> None:
    problem = Problem([[9.0, 1.0, 0.0]] * 2, [[1, 2, 9], [1, 3, 4]], 6, (MostCapacities(1),))
    assert solve(problem, MixedInteger()).levels.tolist() == [1, 1]
    two = Problem(problem.loss, problem.cost_bytes, 6, (MostCapacities(2),))
    assert solve(two, MixedInteger()).levels.tolist() == [1, 2]


def test_no_capacity_that_all_layers_have_is_infeasible(profile: Profile) -> None:
    # 10 tokens is all that the layer with a window of 16 has in common with the others
    one = solve(asked(profile, MostCapacities(1)), MixedInteger())
    assert (one.plan.capacity_tokens == 10).all()
    solution = solve(asked(profile, MostCapacities(1), LeastTokens(11)), MixedInteger())
    assert solution.status is Status.INFEASIBLE
    assert "capacities of 1" in str(solution)


def test_equal_heads_count_once(profile: Profile) -> None:
    problem = asked(profile, EqualInLayer(), MostCapacities(2), MostTokens(60))
    tokens = solve(problem, MixedInteger()).plan.capacity_tokens
    assert (tokens[:, 0] == tokens[:, 1]).all()
    assert len(np.unique(tokens)) == 2
    assert tokens.max() <= 60


def test_bad_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="`count` must be at least 1, but got count=0"):
        MostCapacities(0)
    with pytest.raises(TypeError, match=r"`count` must be an integer, but got 1\.5"):
        MostCapacities(1.5)  # type: ignore[arg-type]
