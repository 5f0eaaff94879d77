"""What every solver must hold, whoever wrote it. A new one is tested by being exported."""

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem, Solver, Status, running_minimum, solve, solvers
from kvbudget.testing import Example, SolverCheck, check_solver, solver_checks
from kvbudget.testing.answers import check_solution

SOLVERS = [getattr(solvers, name) for name in solvers.__all__]
FOLDER = Path(solvers.__file__).parent
MODULES = sorted(FOLDER.rglob("[!_]*.py"))

FEWER = {"EvolKV": 4, "KVTuner": 10, "LinearProgram": 15, "MixedInteger": 10, "OptunaSearch": 4}
"""Slow solvers, and how many random problems each of them gets; the others get 40."""

HUGE = 2**62
INF = np.inf


def examples_for(make: type[Solver]) -> int:
    return FEWER.get(make.__name__, 40)


every_solver = pytest.mark.parametrize("make", SOLVERS, ids=lambda make: make.__name__)
every_check = pytest.mark.parametrize(
    ("make", "assert_holds"),
    [(make, check) for make in SOLVERS for check in solver_checks(examples=examples_for(make))],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)


@every_check
def test_every_solver_passes_what_others_run_on_theirs(
    make: type[Solver], assert_holds: SolverCheck
) -> None:
    assert_holds(make())


@st.composite
def costs(draw: st.DrawFn, shape: tuple[int, int]) -> Any:
    """Costs that never fall: ties, zeros, equal menus, or sums up to the largest allowed."""
    rows = [draw(row_of(shape[1], st.integers(0, 9))) for _ in range(shape[0])]
    cost = np.cumsum(rows, axis=1)
    kind = draw(st.sampled_from(["small", "large", "equal", "nothing", "huge"]))
    if kind == "large":
        cost = cost * 999_983 + draw(st.integers(0, 10**12))
    if kind == "equal":
        cost = np.broadcast_to(cost[:1], shape)
    if kind == "nothing":
        cost = np.zeros(shape, dtype=np.int64)
    if kind == "huge":
        room = HUGE // shape[0] - int(cost.max())
        cost = cost + draw(st.integers(room - 2, room))
    return cost


@st.composite
def losses(draw: st.DrawFn, shape: tuple[int, int]) -> Any:
    """Losses as measured, repaired: ties, bumps, late drops, below zero, infinite at first."""
    numbers = draw(
        st.sampled_from(
            [st.integers(0, 9), st.integers(0, 1), st.integers(-9, 9), st.floats(0, 1, width=32)]
        )
    )
    rows = [draw(row_of(shape[1], numbers)) for _ in range(shape[0])]
    loss = running_minimum(np.array(rows, dtype=float) * draw(st.sampled_from([1, 0.1, 1e-9, 1e6])))
    if draw(st.integers(0, 4)) == 0:
        first = [draw(st.integers(0, shape[1] - 1)) for _ in rows]
        loss[np.arange(shape[1]) < np.array(first)[:, None]] = INF
    return loss


def row_of(length: int, numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(numbers, min_size=length, max_size=length)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Tiny problems, down to one cache with one level; some are infeasible."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    cost, loss = draw(costs(shape)), draw(losses(shape))
    low, high = sum(cost[:, 0].tolist()), sum(cost[:, -1].tolist())
    plan = [row[draw(st.integers(0, shape[1] - 1))] for row in cost.tolist()]
    exact = sum(plan)
    budgets = st.sampled_from([low, low - 1, high, high - 1, exact, exact - 1])
    budget = draw(st.one_of(budgets, st.integers(low, high + 1)))
    return Problem(loss, cost, max(budget, 0))


# a late drop that one look ahead cannot see, a free step, equal units, and one more than fits
LATE_DROP = Problem([[9.0, 9.0, 0.0], [5.0, 4.0, 3.0]], [[0, 4, 5], [0, 4, 9]], 9)
FREE_STEP = Problem([[9.0, 5.0, 1.0], [8.0, 8.0, 2.0]], [[3, 3, 3], [2, 2, 4]], 6)
TWINS = Problem([[4.0, 1.0, 0.0]] * 3, [[1, 3, 6]] * 3, 8)
LARGEST = Problem([[5.0, 0.0]] * 4, [[0, HUGE // 4]] * 4, HUGE - 1)


@every_solver
def test_a_plan_fits_and_stands_between_its_bound_and_brute_force(make: type[Solver]) -> None:
    @settings(deadline=None, max_examples=examples_for(make))
    @given(problem=problems())
    @example(problem=LATE_DROP)
    @example(problem=FREE_STEP)
    @example(problem=TWINS)
    @example(problem=LARGEST)
    def assert_sound_on(problem: Problem) -> None:
        assert_sound(problem, make())

    assert_sound_on()


def assert_sound(problem: Problem, solver: Solver) -> None:
    solution = solve(problem, solver)
    check_solution(Example("drawn", problem), solution)
    again = Problem(problem.loss.copy(), problem.cost_bytes.copy(), problem.budget_bytes)
    assert solve(again, type(solver)()) == solution


@every_solver
def test_the_smallest_budget_gives_the_lowest_levels(make: type[Solver]) -> None:
    solution = solve(Problem(TWINS.loss, TWINS.cost_bytes, TWINS.floor_bytes), make())
    assert solution.levels.tolist() == [0, 0, 0]
    assert solution.used_bytes == TWINS.floor_bytes


@every_solver
def test_the_largest_budget_removes_all_loss_that_can_be_removed(make: type[Solver]) -> None:
    for extra in (0, 1, 10**15):
        solution = solve(Problem(TWINS.loss, TWINS.cost_bytes, TWINS.ceiling_bytes + extra), make())
        assert solution.loss == 0.0
        assert solution.gap == 0.0
        assert solution.status is Status.OPTIMAL


@every_solver
def test_one_level_leaves_no_choice(make: type[Solver]) -> None:
    solution = solve(Problem([[2.0], [3.0]], [[4], [5]], 9), make())
    assert solution.levels.tolist() == [0, 0]
    assert solution.loss == solution.bound == 5.0
    assert solution.status is Status.OPTIMAL


@every_solver
def test_one_unit_is_solved(make: type[Solver]) -> None:
    assert solve(Problem([[5.0, 3.0, 1.0]], [[1, 2, 3]], 2), make()).levels.tolist() == [1]


@every_solver
def test_levels_of_equal_cost_get_the_lowest_loss(make: type[Solver]) -> None:
    problem = Problem([[9.0, 5.0, 1.0], [4.0, 4.0, 2.0]], [[3, 3, 3], [2, 2, 2]], 5)
    solution = solve(problem, make())
    assert solution.loss == 3.0
    assert solution.status is Status.OPTIMAL


@every_solver
def test_a_budget_that_is_too_small_is_a_status_not_an_error(make: type[Solver]) -> None:
    solution = solve(Problem(TWINS.loss, TWINS.cost_bytes, TWINS.floor_bytes - 1), make())
    assert solution.status is Status.INFEASIBLE
    assert not solution.status.has_plan
    assert solution.levels.shape == (0,)
    assert solution.loss == solution.bound == math.inf
    assert (solution.gap, solution.used_bytes) == (0.0, 0)


@every_solver
def test_a_solver_is_final_and_says_what_it_does(make: type[Solver]) -> None:
    assert issubclass(make, Solver)
    assert not make.__subclasses__()
    assert make.__doc__


def test_the_whole_suite_is_one_call() -> None:
    assert check_solver(solvers.Hull(), examples=3) is None


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_every_module_exports_its_solver_and_names_its_source(module: Path) -> None:
    tree = ast.parse(module.read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert defined & set(solvers.__all__), f"{module.name} exports no solver"
    text = ast.get_docstring(tree) or ""
    assert "Reference:" in text or "Original" in text, f"{module.name} names no source"


def test_every_solver_is_exported_at_its_class_name() -> None:
    assert sorted(solvers.__all__) == sorted({make.__name__ for make in SOLVERS})
    assert len(set(SOLVERS)) == len(SOLVERS) >= 4
