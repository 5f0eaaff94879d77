"""Solvers side by side on the same profile."""

from collections.abc import Iterable
from dataclasses import dataclass

from .budget import Budget, Tokens
from .bytes_text import format_bytes
from .problem import Problem
from .profile import Profile
from .solution import Solution
from .solve import check_solver, solve
from .solver import Solver
from .status import Status

HEADINGS = ("solver", "budget", "loss", "bound", "gap", "memory", "of", "time", "status")
Record = dict[str, str | int | float | None]


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One solver on one budget.

    Args:
        solver: Name of the solver.
        budget: The budget as it was given.
        loss: Total loss; infinite if infeasible.
        bound: Proven lower limit on the loss; infinite if infeasible.
        gap: Share of the loss that could at most be saved.
        budget_bytes: The budget in bytes.
        used_bytes: Memory of the chosen levels.
        seconds: Time the solver took.
        status: How the solve ended.
    """

    solver: str
    budget: str
    loss: float
    bound: float
    gap: float
    budget_bytes: int
    used_bytes: int
    seconds: float
    status: Status

    @classmethod
    def of(cls, budget: Budget, solution: Solution) -> "ComparisonRow":
        """The row of one solution."""
        return cls(
            solver=solution.solver,
            budget=str(budget),
            loss=solution.loss,
            bound=solution.bound,
            gap=solution.gap,
            budget_bytes=solution.problem.budget_bytes,
            used_bytes=solution.used_bytes,
            seconds=solution.seconds,
            status=solution.status,
        )

    def to_record(self) -> Record:
        """The row as JSON types; without a plan, loss, bound and gap are ``None``."""
        has_plan = self.status.has_plan
        return {
            "solver": self.solver,
            "budget": self.budget,
            "loss": self.loss if has_plan else None,
            "bound": self.bound if has_plan else None,
            "gap": self.gap if has_plan else None,
            "budget_bytes": self.budget_bytes,
            "used_bytes": self.used_bytes,
            "seconds": self.seconds,
            "status": self.status.name,
        }

    def cells(self) -> tuple[str, ...]:
        """The row as text, one cell per heading."""
        numbers = (f"{self.loss:.6g}", f"{self.bound:.6g}", f"{100 * self.gap:.2g} %")
        return (
            self.solver,
            self.budget,
            *(numbers if self.status.has_plan else ("-", "-", "-")),
            format_bytes(self.used_bytes) if self.status.has_plan else "-",
            format_bytes(self.budget_bytes),
            f"{1000 * self.seconds:.1f} ms",
            self.status.name,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of a comparison, budget by budget in the order given; prints as a table.

    Args:
        rows: One row per budget and solver.
    """

    rows: tuple[ComparisonRow, ...]

    def to_records(self) -> list[Record]:
        """All rows as JSON types."""
        return [row.to_record() for row in self.rows]

    def __str__(self) -> str:
        """An aligned table with a heading."""
        lines = [HEADINGS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(align(line, widths) for line in lines)


def compare(
    profile: Profile,
    *,
    budgets: Iterable[Budget],
    solvers: Iterable[Solver],
    context_tokens: int,
    batch_size: int = 1,
) -> Comparison:
    """Solve every budget with every solver.

    Args:
        profile: Measured losses of a model's caches.
        budgets: Budgets in any form :func:`allocate` takes. One that is too small gives rows
            with the status ``INFEASIBLE``.
        solvers: Solver objects.
        context_tokens: Longest context to plan for, in tokens.
        batch_size: Sequences that share the budget.

    Raises:
        TypeError: If a single budget or solver is given instead of several, or one is of the
            wrong type.
        ValueError: If a budget cannot be read or a count is below 1.
    """
    if isinstance(budgets, str | int | Tokens) or not isinstance(budgets, Iterable):
        raise TypeError(f"`budgets` must be a list of budgets, but got {budgets!r:.60}.")
    if not isinstance(solvers, Iterable):
        raise TypeError(f"`solvers` must be a list of solvers, but got {solvers!r:.60}.")
    chosen = tuple(solvers)
    for solver in chosen:
        check_solver(solver)
    rows = []
    for budget in budgets:
        problem = Problem.from_profile(
            profile, budget=budget, context_tokens=context_tokens, batch_size=batch_size
        )
        rows += [ComparisonRow.of(budget, solve(problem, solver)) for solver in chosen]
    return Comparison(tuple(rows))


def align(cells: tuple[str, ...], widths: list[int]) -> str:
    """One line of a table: text to the left, numbers to the right."""
    names = {"solver", "budget", "status"}
    padded = (
        cell.ljust(width) if heading in names else cell.rjust(width)
        for heading, cell, width in zip(HEADINGS, cells, widths, strict=True)
    )
    return "  ".join(padded).rstrip()
