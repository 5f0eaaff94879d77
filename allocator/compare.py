"""Solvers side by side on the same profile."""

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .budget import Budget, Tokens
from .comparison_table import table
from .constraint import Constraint
from .files import FilePath, write_whole
from .geometry import Geometry
from .problem import Problem
from .profile import Profile
from .profile_check import ProfileCheck
from .risk import Mean, Risk
from .solution import Solution, refusal
from .solve import check_solver, not_honoured, solve, solver_name
from .solver import Solver
from .status import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFUSED = "REFUSED"
FAILED = "FAILED"
Record = dict[str, str | int | float | None]


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One solver on one budget.

    Args:
        solver: Name of the solver.
        budget: The budget as it was given.
        loss: Total loss; infinite without a plan.
        bound: Proven lower limit on the loss; infinite if infeasible, minus infinity if refused.
        gap: Share of the loss that could at most be saved.
        budget_bytes: The budget in bytes.
        used_bytes: Memory of the chosen levels.
        seconds: Time the solver took.
        status: How the solve ended; ``None`` if the solver cannot honour a constraint or the
            risk, or if it failed.
        note: Why there is no plan; empty if there is one.
        failed: Whether the solver raised an error; ``solve`` shows where.
        solution: The answer, with its levels and its plan; ``None`` without a status.
    """

    solver: str
    budget: str
    loss: float
    bound: float
    gap: float
    budget_bytes: int
    used_bytes: int
    seconds: float
    status: Status | None
    note: str = ""
    failed: bool = False
    solution: Solution | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, budget: Budget, solution: Solution, name: str) -> "ComparisonRow":
        """The row of one solution."""
        return cls(
            solver=name,
            budget=str(budget),
            loss=solution.loss,
            bound=solution.bound,
            gap=solution.gap,
            budget_bytes=solution.problem.budget_bytes,
            used_bytes=solution.used_bytes,
            seconds=solution.seconds,
            status=solution.status,
            note="" if solution.status.has_plan else refusal(solution.problem),
            solution=solution,
        )

    @classmethod
    def without_answer(
        cls, budget: Budget, problem: Problem, name: str, note: str, *, failed: bool
    ) -> "ComparisonRow":
        """The row of a solver that cannot do what is asked, or that failed."""
        return cls(
            solver=name,
            budget=str(budget),
            loss=math.inf,
            bound=-math.inf,
            gap=0.0,
            budget_bytes=problem.budget_bytes,
            used_bytes=0,
            seconds=0.0,
            status=None,
            note=note,
            failed=failed,
        )

    @property
    def has_plan(self) -> bool:
        """Whether the solver found a plan."""
        return self.status is not None and self.status.has_plan

    @property
    def outcome(self) -> str:
        """Name of the status, or ``"REFUSED"``, or ``"FAILED"``."""
        if self.status is not None:
            return self.status.name
        return FAILED if self.failed else REFUSED

    def to_record(self) -> Record:
        """The row as JSON types; without a plan, loss, bound and gap are ``None``."""
        return {
            "solver": self.solver,
            "budget": self.budget,
            "loss": self.loss if self.has_plan else None,
            "bound": self.bound if self.has_plan else None,
            "gap": self.gap if self.has_plan else None,
            "budget_bytes": self.budget_bytes,
            "used_bytes": self.used_bytes,
            "seconds": self.seconds,
            "status": self.outcome,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of a comparison, budget by budget in the order given; prints as a table.

    Args:
        rows: One row per budget and solver.
        model: Name of the model, for headings.
        measure: What the losses are in, for headings.
        check: What plans made from the profile really lost; None if nobody looked.
    """

    rows: tuple[ComparisonRow, ...]
    model: str = ""
    measure: str = ""
    check: ProfileCheck | None = None

    @property
    def bounds(self) -> dict[int, float]:
        """The tightest bound that any solver proved at each budget, by the budget in bytes."""
        proven: dict[int, float] = {}
        for row in self.rows:
            if row.has_plan:
                best = proven.get(row.budget_bytes, -math.inf)
                proven[row.budget_bytes] = max(best, row.bound)
        return proven

    def best_first(self) -> "Comparison":
        """The same rows with the least loss first within each budget, ties to the faster one."""
        place = {row.budget: at for at, row in reversed(list(enumerate(self.rows)))}
        rows = sorted(self.rows, key=lambda row: (place[row.budget], row.loss, row.seconds))
        return replace(self, rows=tuple(rows))

    def to_records(self) -> list[Record]:
        """All rows as JSON types."""
        return [row.to_record() for row in self.rows]

    def plot(self, path: FilePath) -> None:
        """Draw loss against memory, a line per solver above the proven bound.

        Args:
            path: Where to write the picture; ends in ``.png`` or ``.svg``.

        Raises:
            FileNotFoundError: If the folder does not exist.
            IsADirectoryError: If the path is a folder.
            ValueError: If the path ends otherwise, or no row has a plan.
        """
        from .comparison_plot import kind_of, picture

        write_whole(path, picture(self, kind_of(path)))

    def figure(self) -> "Figure":
        """The same picture as a figure of Matplotlib, to be changed or shown in a notebook.

        Raises:
            ValueError: If no row has a plan.
        """
        from .comparison_plot import draw

        return draw(self)

    def __str__(self) -> str:
        """An aligned table, one block per budget."""
        return table(self)


def compare(
    profile: Profile,
    *,
    budgets: Iterable[Budget],
    solvers: Iterable[Solver],
    context_tokens: int,
    batch_size: int = 1,
    constraints: tuple[Constraint, ...] = (),
    risk: Risk = Mean(),  # noqa: B008
) -> Comparison:
    """Solve every budget with every solver.

    Before the clock starts, every class of solvers solves a problem of two caches, so that no
    time is charged to whoever is the first to import a library.

    Args:
        profile: Measured losses of a model's caches.
        budgets: Budgets in any form :func:`allocate` takes. One that is too small gives rows
            with the status ``INFEASIBLE``.
        solvers: Solver objects. One that cannot honour a constraint or the risk, or that fails,
            gives rows without a status, which say so. Of several with the same name the later
            ones are numbered.
        context_tokens: Longest context to plan for, in tokens.
        batch_size: Sequences that share the budget.
        constraints: Further limits, from ``kvbudget.constraints``.
        risk: ``Mean()``, ``WorstSample()`` or ``CVaR(level)``: which prompts to plan for.

    Raises:
        TypeError: If a single budget or solver is given instead of several, or one is of the
            wrong type.
        ValueError: If a budget cannot be read, a count is below 1, or a constraint does not fit
            the model.
    """
    if isinstance(budgets, str | int | Tokens) or not isinstance(budgets, Iterable):
        raise TypeError(f"`budgets` must be a list of budgets, but got {budgets!r:.60}.")
    if not isinstance(solvers, Iterable):
        raise TypeError(f"`solvers` must be a list of solvers, but got {solvers!r:.60}.")
    chosen = tuple(solvers)
    for solver in chosen:
        check_solver(solver)
    asked = tuple(budgets)
    problems = [
        Problem.from_profile(
            profile,
            budget=budget,
            context_tokens=context_tokens,
            batch_size=batch_size,
            constraints=constraints,
            risk=risk,
        )
        for budget in asked
    ]
    warm_up(chosen)
    names = distinct_names(chosen)
    rows = [
        compare_one(budget, problem, solver, name)
        for budget, problem in zip(asked, problems, strict=True)
        for solver, name in zip(chosen, names, strict=True)
    ]
    return Comparison(
        tuple(rows), model=profile.model, measure=profile.measure, check=profile.check
    )


def distinct_names(solvers: tuple[Solver, ...]) -> list[str]:
    """Names of solvers; a name that comes again is numbered: settings may not show in it."""
    seen: Counter[str] = Counter()
    names = []
    for solver in solvers:
        name = solver_name(solver)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return names


def compare_one(budget: Budget, problem: Problem, solver: Solver, name: str) -> ComparisonRow:
    """Solve a problem, or say why the solver did not."""
    kinds = not_honoured(problem, solver)
    if kinds:
        note = f"cannot honour {' and '.join(kinds)}"
        return ComparisonRow.without_answer(budget, problem, name, note, failed=False)
    # one faulty solver must not cost the answers of the others
    try:
        return ComparisonRow.of(budget, solve(problem, solver), name)
    except Exception as error:
        note = f"{type(error).__name__}: {error}"
        return ComparisonRow.without_answer(budget, problem, name, note, failed=True)


def warm_up(solvers: Iterable[Solver]) -> None:
    """Let every class of solver, with its defaults, solve a problem of two caches.

    Defaults, because the settings may hold a costly objective or a storage.
    """
    geometry = Geometry("", 1, 2, 1, 1, "float32", (None,))
    profile = Profile.from_importance([[2.0, 1.0]], geometry, kept_fraction=(0.25, 0.5, 1.0))
    problem = Problem.from_profile(profile, budget="70%", context_tokens=4)
    for make in dict.fromkeys(type(each) for each in solvers):
        # one made for a certain model may not know this one, and need not
        with suppress(Exception):
            make().choose(problem)
