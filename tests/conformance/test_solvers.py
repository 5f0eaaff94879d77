"""What every solver must hold, whoever wrote it. A new one is tested by being exported."""

import ast
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem, Solution, Solver, Status, hull_bound, solve, solvers

SOLVERS = [getattr(solvers, name) for name in solvers.__all__]
FOLDER = Path(solvers.__file__).parent

every_solver = pytest.mark.parametrize("solver", [make() for make in SOLVERS], ids=repr)


def best_loss(problem: Problem) -> float:
    """Least loss of all plans that fit, by trying every one."""
    units, num_levels = problem.loss.shape
    best = math.inf
    for levels in itertools.product(range(num_levels), repeat=units):
        at = np.arange(units), np.array(levels)
        if problem.cost_bytes[at].sum() <= problem.budget_bytes:
            best = min(best, float(problem.loss[at].sum()))
    return best


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Tiny problems with ties, flat stretches, free upgrades and bumps, some infeasible."""
    units, num_levels = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    numbers = st.integers(0, 9)
    row = st.lists(numbers, min_size=num_levels, max_size=num_levels)
    rows = st.lists(row, min_size=units, max_size=units)
    cost = np.cumsum(draw(rows), axis=1)
    scale = draw(st.sampled_from([1.0, 0.1, 1e-9, 1e6]))
    drop = np.cumsum(draw(rows), axis=1)
    loss = (drop[:, -1:] - drop) * scale
    budget = draw(st.integers(0, int(cost[:, -1].sum()) + 2))
    return Problem(loss, cost, budget)


# a late drop that one look ahead cannot see, a free upgrade, and two equal units
LATE_DROP = Problem([[9.0, 9.0, 0.0], [5.0, 4.0, 3.0]], [[0, 4, 5], [0, 4, 9]], 9)
FREE_UPGRADE = Problem([[9.0, 5.0, 1.0], [8.0, 8.0, 2.0]], [[3, 3, 3], [2, 2, 4]], 6)
TWINS = Problem([[4.0, 1.0, 0.0]] * 3, [[1, 3, 6]] * 3, 8)


def check(problem: Problem, solution: Solution) -> None:
    """Assert everything that holds for one honest answer."""
    if problem.floor_bytes > problem.budget_bytes:
        assert solution.status is Status.INFEASIBLE
        return
    at = np.arange(len(problem.loss)), solution.levels
    optimum = best_loss(problem)
    slack = 1e-9 * optimum
    assert problem.cost_bytes[at].sum() == solution.used_bytes <= problem.budget_bytes
    assert solution.loss == pytest.approx(problem.loss[at].sum())
    assert solution.loss >= optimum - slack
    assert solution.bound <= optimum + slack
    assert solution.bound <= solution.loss
    assert solution.bound >= hull_bound(problem) - slack
    if solution.status is Status.OPTIMAL:
        assert solution.loss == pytest.approx(optimum)


@every_solver
@settings(deadline=None, max_examples=40)
@given(problem=problems())
@example(problem=LATE_DROP)
@example(problem=FREE_UPGRADE)
@example(problem=TWINS)
def test_a_plan_fits_and_stands_between_its_bound_and_brute_force(
    solver: Solver, problem: Problem
) -> None:
    check(problem, solve(problem, solver))


@every_solver
@settings(deadline=None, max_examples=15)
@given(problem=problems())
def test_the_same_problem_gets_the_same_levels(solver: Solver, problem: Problem) -> None:
    copy = Problem(problem.loss.copy(), problem.cost_bytes.copy(), problem.budget_bytes)
    assert solve(problem, solver) == solve(copy, type(solver)())


@every_solver
def test_the_smallest_budget_gives_the_lowest_levels(solver: Solver) -> None:
    loss, cost = TWINS.loss, TWINS.cost_bytes
    solution = solve(Problem(loss, cost, TWINS.floor_bytes), solver)
    assert solution.levels.tolist() == [0, 0, 0]
    assert solution.used_bytes == TWINS.floor_bytes


@every_solver
def test_the_largest_budget_removes_all_loss_that_can_be_removed(solver: Solver) -> None:
    for extra in (0, 1, 10**15):
        solution = solve(Problem(TWINS.loss, TWINS.cost_bytes, TWINS.ceiling_bytes + extra), solver)
        assert solution.loss == 0.0
        assert solution.gap == 0.0
        assert solution.status is Status.OPTIMAL


@every_solver
def test_one_level_leaves_no_choice(solver: Solver) -> None:
    solution = solve(Problem([[2.0], [3.0]], [[4], [5]], 9), solver)
    assert solution.levels.tolist() == [0, 0]
    assert solution.loss == solution.bound == 5.0
    assert solution.status is Status.OPTIMAL


@every_solver
def test_one_unit_is_solved(solver: Solver) -> None:
    problem = Problem([[5.0, 3.0, 1.0]], [[1, 2, 3]], 2)
    assert solve(problem, solver).levels.tolist() == [1]


@every_solver
def test_units_that_tie_get_the_same_answer_in_every_run(solver: Solver) -> None:
    solutions = [solve(TWINS, solver) for _ in range(3)]
    assert all(solution == solutions[0] for solution in solutions)
    check(TWINS, solutions[0])


@every_solver
def test_levels_of_equal_cost_get_the_lowest_loss(solver: Solver) -> None:
    problem = Problem([[9.0, 5.0, 1.0], [4.0, 4.0, 2.0]], [[3, 3, 3], [2, 2, 2]], 5)
    solution = solve(problem, solver)
    assert solution.loss == 3.0
    assert solution.status is Status.OPTIMAL


@every_solver
def test_a_budget_that_is_too_small_is_a_status_not_an_error(solver: Solver) -> None:
    solution = solve(Problem(TWINS.loss, TWINS.cost_bytes, TWINS.floor_bytes - 1), solver)
    assert solution.status is Status.INFEASIBLE
    assert not solution.status.has_plan
    assert solution.levels.shape == (0,)
    assert solution.loss == solution.bound == math.inf
    assert (solution.gap, solution.used_bytes) == (0.0, 0)


@every_solver
def test_no_loss_at_all_is_optimal(solver: Solver) -> None:
    solution = solve(Problem(np.zeros((3, 2)), [[1, 5]] * 3, 9), solver)
    assert (solution.loss, solution.gap) == (0.0, 0.0)
    assert solution.status is Status.OPTIMAL


@every_solver
def test_a_solver_leaves_the_problem_as_it_was(solver: Solver) -> None:
    before = Problem(TWINS.loss.copy(), TWINS.cost_bytes.copy(), TWINS.budget_bytes)
    solve(TWINS, solver)
    assert before == TWINS


@every_solver
def test_a_larger_problem_is_certified(solver: Solver) -> None:
    rng = np.random.default_rng(7)
    cost = np.cumsum(rng.integers(1, 10**6, (60, 12)), axis=1)
    loss = np.sort(rng.exponential(size=(60, 12)), axis=1)[:, ::-1]
    problem = Problem(loss, cost, int(cost.sum() // 12))
    solution = solve(problem, solver)
    assert solution.used_bytes <= problem.budget_bytes
    assert 0 < solution.bound <= solution.loss
    assert solution.gap == pytest.approx((solution.loss - solution.bound) / solution.loss)


@pytest.mark.parametrize("make", SOLVERS)
def test_a_solver_is_a_final_frozen_value_that_needs_no_arguments(make: type[Solver]) -> None:
    assert issubclass(make, Solver)
    assert make() == make()
    assert not make.__subclasses__()
    assert make.__doc__


@pytest.mark.parametrize("module", sorted(FOLDER.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_every_module_exports_its_solver_and_names_its_source(module: Path) -> None:
    tree = ast.parse(module.read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert defined & set(solvers.__all__), f"{module.name} exports no solver"
    text = ast.get_docstring(tree) or ""
    assert "Reference:" in text or "Original" in text, f"{module.name} names no source"


def test_every_solver_is_exported_at_its_class_name() -> None:
    assert sorted(solvers.__all__) == sorted({make.__name__ for make in SOLVERS})
    assert len(set(SOLVERS)) == len(SOLVERS) >= 4
