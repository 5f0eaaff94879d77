"""Plans of single choices."""

from dataclasses import replace

import numpy as np
import pytest

from kvbudget.allocator import Hull, Problem, Profile, Uniform, WorstSample, constraints, solve
from kvbudget.allocator.search.plans import check_model, plan_of


@pytest.mark.parametrize("solver", [Hull(), Uniform()], ids=repr)
def test_a_plan_is_certified_as_solve_certifies_it(
    problem: Problem, solver: Hull | Uniform
) -> None:
    solution = solve(problem, solver)
    theirs, mine = solution.plan, plan_of(problem, solution.levels, "mine")
    assert mine.capacity_tokens.tolist() == theirs.capacity_tokens.tolist()
    assert mine.certificate.solver == "mine"
    assert mine.certificate.loss == theirs.certificate.loss
    assert mine.certificate.bound == pytest.approx(theirs.certificate.bound, rel=1e-12)
    assert mine.certificate.gap == pytest.approx(theirs.certificate.gap, abs=1e-12)


def test_a_proven_plan_is_optimal_and_another_one_is_not(problem: Problem) -> None:
    whole = replace(problem, budget_bytes=problem.ceiling_bytes)
    best = np.full(6, 3)
    assert plan_of(whole, best, "mine").certificate.status == "OPTIMAL"
    assert plan_of(whole, best * 0, "mine").certificate.status == "LIMIT_REACHED"


def test_constraints_and_risk_bound_the_loss(profile: Profile) -> None:
    problem = Problem.from_profile(
        profile,
        budget="60%",
        context_tokens=100,
        constraints=(constraints.LeastTokens(25),),
        risk=WorstSample(),
    )
    levels = np.full(6, 1)
    certificate = plan_of(problem, levels, "mine").certificate
    assert certificate.loss == problem.total_loss(levels)
    assert 0 < certificate.bound < certificate.loss


def test_a_problem_without_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Make it with Problem\.from_profile"):
        check_model(Problem([[1.0, 0.0]], [[1, 2]], 2))
