"""One entry for every solver: checks, time, certificate."""

import time
from dataclasses import fields, is_dataclass

import numpy as np

from kvbudget.allocator import solvers
from kvbudget.allocator.coupled.choose import relaxed_bound
from kvbudget.allocator.solvers.hull import Hull

from .arrays import Ints
from .budget import Budget
from .constraint import Constraint, coupling_kinds
from .coupling import lowest_fits, violation
from .measured import measured_total
from .plan import Plan
from .problem import Problem
from .profile import Profile
from .reduction import reduce
from .relaxation import used_bytes
from .risk import Mean, Risk
from .solution import Solution
from .solver import Choice, Solver
from .status import Status
from .terms import terms_of


def solve(problem: Problem, solver: Solver) -> Solution:
    """Solve a problem and certify the answer.

    Whatever the solver proves, the bound is at least that of the convex hulls, so every answer
    says how far from the best it can be at most.

    Args:
        problem: What to solve. Where nothing fits its budget and its constraints, the answer has
            the status ``INFEASIBLE``; that is no error.
        solver: A solver object, such as ``Hull()``.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If the solver cannot honour a constraint or the risk; the message names
            solvers that can.
        RuntimeError: If the solver breaks its contract.
    """
    check_solver(solver)
    if not isinstance(problem, Problem):
        raise TypeError(f"`problem` must be a Problem, but got {problem!r:.60}.")
    check_honoured(problem, solver)
    name = solver_name(solver)
    reduction = reduce(problem)
    if reduction is None or not lowest_fits(reduction.problem):
        return Solution.infeasible(problem, name)
    start = time.perf_counter()
    choice = solver.choose(reduction.problem)
    seconds = time.perf_counter() - start
    if check_status(reduction.problem, choice, name) is Status.INFEASIBLE:
        return Solution.infeasible(problem, name)
    chosen = check_choice(reduction.problem, choice, name)
    levels = reduction.expand(highest_if_free(reduction.problem, chosen))
    levels.flags.writeable = False
    loss = measured_total(problem, levels)
    bound = check_bound(choice.bound, loss, name)
    if not solver.bounds_relaxation:
        bound = max(bound, relaxed_bound(reduction.problem))
    return Solution.of(
        problem,
        levels,
        status=choice.status,
        loss=loss,
        bound=bound,
        used_bytes=used_bytes(problem, levels),
        seconds=seconds,
        solver=name,
    )


def allocate(
    profile: Profile,
    *,
    budget: Budget,
    context_tokens: int,
    batch_size: int = 1,
    solver: Solver = Hull(),  # noqa: B008
    constraints: tuple[Constraint, ...] = (),
    risk: Risk = Mean(),  # noqa: B008
) -> Plan:
    """Divide a memory budget among the caches of a profiled model.

    Args:
        profile: Measured losses of the model's caches.
        budget: Bytes, ``"2GiB"``, ``"25%"`` of the full cache, or ``Tokens(1024)``.
        context_tokens: Longest context to plan for, in tokens.
        batch_size: Sequences that share the budget.
        solver: A solver object.
        constraints: Further limits, from ``kvbudget.constraints``.
        risk: ``Mean()``, ``WorstSample()`` or ``CVaR(level)``: which prompts to plan for.

    Raises:
        InfeasibleBudget: If nothing fits the budget and the constraints.
        TypeError: If an argument has the wrong type.
        ValueError: If the budget cannot be read, a count is below 1, or the solver cannot honour
            a constraint or the risk.
    """
    check_solver(solver)
    problem = Problem.from_profile(
        profile,
        budget=budget,
        context_tokens=context_tokens,
        batch_size=batch_size,
        constraints=constraints,
        risk=risk,
    )
    return solve(problem, solver).plan


def check_solver(solver: object) -> None:
    """Refuse a solver that is not an object of a solver class.

    Raises:
        TypeError: If it is a class, a name, or anything else.
    """
    if isinstance(solver, type):
        raise TypeError(
            f"`solver` must be a solver object, but got the class {solver.__name__}."
            f" Pass {solver.__name__}()."
        )
    if not isinstance(solver, Solver):
        raise TypeError(f"`solver` must be a solver object such as Hull(), but got {solver!r:.60}.")


def solver_name(solver: Solver) -> str:
    """Name of a solver, with the settings that differ from the defaults."""
    if not is_dataclass(solver):
        return type(solver).__name__
    settings = [(f.name, getattr(solver, f.name)) for f in fields(solver) if f.repr]
    plain = {f.name: repr(f.default) for f in fields(solver)}
    # by their text, because a field may hold an array
    changed = [f"{name}={value!r:.60}" for name, value in settings if repr(value) != plain[name]]
    return type(solver).__name__ + (f"({', '.join(changed)})" if changed else "")


def asked_of_solvers(problem: Problem) -> set[type[Constraint] | type[Risk]]:
    """Classes of the coupling constraints and of the risk that a solver must honour."""
    risk = set() if problem.risk == Mean() else {type(problem.risk)}
    return risk | coupling_kinds(problem.constraints)


def not_honoured(problem: Problem, solver: Solver) -> list[str]:
    """Names of those that a solver cannot honour."""
    return sorted(kind.__name__ for kind in asked_of_solvers(problem) - solver.honours)


def check_honoured(problem: Problem, solver: Solver) -> None:
    """Refuse a solver that cannot honour what a problem asks for.

    Raises:
        ValueError: If there is such a thing; the message names solvers that can.
    """
    missing = not_honoured(problem, solver)
    if missing:
        asked = asked_of_solvers(problem)
        able = [name for name in solvers.__all__ if asked <= getattr(solvers, name).honours]
        raise ValueError(
            f"`solver` must honour {' and '.join(missing)}, but got {solver_name(solver)}."
            f" Solvers that can: {', '.join(able) or 'none'}."
        )


def check_status(problem: Problem, choice: Choice, name: str) -> Status:
    """Return the status of a solver's answer, which must be one it can have.

    Raises:
        RuntimeError: If the solver broke its contract.
    """
    if not isinstance(choice, Choice) or not isinstance(choice.status, Status):
        raise RuntimeError(
            f"{name} broke its contract: choose must return Choice(levels, status, bound), but "
            f"returned {choice!r:.60}."
        )
    terms = terms_of(problem)
    if not choice.status.has_plan and not terms.distinct and not terms.custom:
        raise RuntimeError(f"{name} broke its contract: it found no plan, but the lowest fits.")
    return choice.status


def check_choice(problem: Problem, choice: Choice, name: str) -> Ints:
    """Return the levels of a solver's answer if they are one level per unit that fit.

    Raises:
        RuntimeError: If the solver broke its contract.
    """
    units, num_levels = problem.loss.shape
    levels = np.array(choice.levels)
    if levels.shape != (units,) or levels.dtype.kind not in "iu":
        raise RuntimeError(
            f"{name} broke its contract: levels must be {units} integers,"
            f" but are {levels.dtype} of shape {levels.shape}."
        )
    if levels.min() < 0 or levels.max() >= num_levels:
        raise RuntimeError(
            f"{name} broke its contract: levels must be in 0..{num_levels - 1},"
            f" but are in {levels.min()}..{levels.max()}."
        )
    levels = levels.astype(np.int64)
    used = used_bytes(problem, levels)
    if used > problem.budget_bytes:
        raise RuntimeError(
            f"{name} broke its contract: it uses {used:,} bytes of {problem.budget_bytes:,}."
        )
    broken = violation(problem, levels)
    if broken:
        raise RuntimeError(f"{name} broke its contract: {broken}.")
    return levels


def highest_if_free(problem: Problem, levels: Ints) -> Ints:
    """The highest levels if they fit and lose no more, else the given ones, int64 [units].

    Where memory is free nothing should be evicted, though it was measured to lose nothing.
    """
    highest = np.full_like(levels, problem.loss.shape[1] - 1)
    fits = problem.ceiling_bytes <= problem.budget_bytes and not violation(problem, highest)
    return highest if fits and problem.total_loss(highest) <= problem.total_loss(levels) else levels


def check_bound(bound: float, loss: float, name: str) -> float:
    """Return a solver's bound if the loss of its own answer does not refute it.

    Raises:
        RuntimeError: If the bound is NaN or clearly above the loss.
    """
    if not bound <= loss + 1e-9 * abs(loss):
        raise RuntimeError(
            f"{name} broke its contract: its bound {bound} is above the loss {loss} of its answer."
        )
    return bound
