"""The best plan at every budget: solved once, looked up in microseconds."""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints, same_values
from .budget import Budget, Tokens, parse_budget, to_bytes
from .bytes_text import format_bytes
from .constraint import coupling_kinds
from .errors import InfeasibleBudget
from .files import FilePath, bad_file, read_whole, write_whole
from .frontier import Frontier, trace
from .origin import Origin
from .path_file import pack_path, unpack_problem
from .plan import Plan
from .plan_curves import Curves
from .problem import Problem
from .reduction import reduce
from .risk import Mean
from .solution import Solution, plan_of, refusal
from .status import Status

Record = dict[str, int | float]


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """Every breakpoint of the convex frontier of memory and loss, from the lowest levels up.

    A lookup takes the last breakpoint that fits the budget. What it finds is optimal for the
    bytes it uses, and plans are nested: with less memory no cache keeps more tokens. The bytes
    between two breakpoints stay unspent; ``allocate`` may find a use for them.

    Made by ``solve_path``.

    Args:
        problem: What was solved; its budget is that of the last breakpoint.
        frontier: The breakpoints.
        curves: What plans remember, if the problem can be stated again from it.
    """

    problem: Problem
    frontier: Frontier
    curves: Curves | None

    @classmethod
    def of(cls, problem: Problem) -> "Path":
        """The path of a problem, whatever its budget.

        Raises:
            InfeasibleBudget: If the constraints leave a unit no level.
            ValueError: If a constraint couples units, or the risk is not the mean.
        """
        check_plain(problem)
        reduction = reduce(problem)
        if reduction is None:
            raise InfeasibleBudget(refusal(problem))
        frontier = trace(reduction)
        problem = with_budget(problem, int(frontier.budget_bytes[-1]))
        return cls(problem, frontier, Curves.of(problem))

    @property
    def budget_bytes(self) -> Ints:
        """Bytes at each breakpoint, int64 [points], strictly rising."""
        return self.frontier.budget_bytes

    @property
    def loss(self) -> Floats:
        """Least loss within so many bytes, [points], falling and convex."""
        return self.frontier.loss

    @property
    def kept_fraction(self) -> Floats:
        """Share of the full cache that the bytes of each breakpoint are, [points]."""
        return np.asarray(self.budget_bytes / full_bytes(self.problem), dtype=np.float64)

    def loss_at(self, budget: Budget) -> float:
        """Loss of the frontier at a budget, on the straight line between two breakpoints.

        No plan within the budget loses less; :meth:`plan` loses at most one step more. Infinite
        where no plan fits.

        Raises:
            TypeError: If the budget is of another type.
            ValueError: If it cannot be read.
        """
        return self.frontier.loss_at(self._to_bytes(budget))

    def levels(self, budget: Budget) -> Ints:
        """Level of each unit at the last breakpoint within a budget, int64 [units].

        Raises:
            InfeasibleBudget: If nothing fits the budget.
            TypeError: If the budget is of another type.
            ValueError: If it cannot be read.
        """
        num_bytes = self._to_bytes(budget)
        point = self.frontier.point(num_bytes)
        if point < 0:
            raise InfeasibleBudget(refusal(with_budget(self.problem, num_bytes)))
        return self.frontier.levels(point)

    def solution(self, budget: Budget) -> Solution:
        """The last breakpoint within a budget, with the bound that the frontier proves there.

        Args:
            budget: Bytes, ``"2GiB"``, ``"25%"`` of the full cache, or ``Tokens(1024)``. Where
                nothing fits, the answer has the status ``INFEASIBLE``.

        Raises:
            TypeError: If the budget is of another type.
            ValueError: If it cannot be read.
        """
        start = time.perf_counter()
        num_bytes = self._to_bytes(budget)
        problem = with_budget(self.problem, num_bytes)
        point = self.frontier.point(num_bytes)
        if point < 0:
            return Solution.infeasible(problem, type(self).__name__)
        levels = self.frontier.levels(point)
        levels.flags.writeable = False
        # sums along the frontier are only exact where losses do not cancel, as measured ones
        measured = problem.origin is not None
        loss = float(self.loss[point]) if measured else problem.total_loss(levels)
        bound = min(self._bound(point, num_bytes, loss), loss)
        return Solution.of(
            problem,
            levels,
            status=Status.FEASIBLE,
            loss=loss,
            bound=bound,
            used_bytes=int(self.budget_bytes[point]),
            seconds=time.perf_counter() - start,
            solver=type(self).__name__,
        )

    def _bound(self, point: int, num_bytes: int, loss: float) -> float:
        """Bound at a budget; on a breakpoint, and after the last, it is the loss itself."""
        exact = point == len(self.loss) - 1 or num_bytes == self.budget_bytes[point]
        return loss if exact else self.frontier.bound_at(num_bytes)

    def plan(self, budget: Budget) -> Plan:
        """The plan of the last breakpoint within a budget.

        Args:
            budget: A budget in any form that :func:`allocate` takes.

        Raises:
            InfeasibleBudget: If nothing fits the budget.
            TypeError: If the budget is of another type.
            ValueError: If it cannot be read, or the path was made from arrays.
        """
        return plan_of(self.solution(budget), self.curves)

    def at(self, context_tokens: int) -> "Path":
        """The path for a context of another length; batch size and constraints stay.

        Raises:
            InfeasibleBudget: If the constraints leave a cache no level at this length.
            TypeError: If the length is not an integer.
            ValueError: If the length is below 1, or the path was not made from a profile.
        """
        curves, origin = self._known()
        return Path.of(curves.problem(origin, context_tokens=context_tokens, budget="100%"))

    def to_records(self) -> list[Record]:
        """Every breakpoint as JSON types: the curve of memory and loss."""
        columns = (self.budget_bytes.tolist(), self.kept_fraction.tolist(), self.loss.tolist())
        names = ("budget_bytes", "kept_fraction", "loss")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def save(self, path: FilePath) -> None:
        """Write what the path is made from as a safetensors file; loading solves it again.

        Raises:
            FileNotFoundError: If the folder does not exist.
            IsADirectoryError: If the path is a folder.
            ValueError: If the path was not made from a profile.
        """
        write_whole(path, pack_path(*self._known()))

    @classmethod
    def load(cls, path: FilePath) -> "Path":
        """Read a path that :meth:`save` wrote.

        Raises:
            BadFile: If the file is missing, damaged, foreign or written by a newer version.
        """
        raw = read_whole(path, "path")
        try:
            return cls.of(unpack_problem(raw))
        except (TypeError, ValueError) as error:
            raise bad_file(path, "path", error) from error

    def _to_bytes(self, budget: Budget) -> int:
        """A budget in any form as bytes."""
        origin = self.problem.origin
        if origin is not None:
            return parse_budget(budget, origin.geometry, origin.context_tokens, origin.batch_size)
        if isinstance(budget, Tokens):
            raise ValueError(
                "`budget` must not be in tokens for a path that was made from arrays,"
                f" but got {budget!r}. Give bytes or a share."
            )
        return to_bytes(budget, full_bytes=full_bytes(self.problem), token_bytes=1)

    def _known(self) -> tuple[Curves, Origin]:
        """The curves and the origin, or a refusal."""
        if self.curves is None or self.problem.origin is None:
            raise ValueError(
                "`path` must be made from a profile, with constraints that files can hold, to be"
                " saved or made for another context. Use solve_path(profile)."
            )
        return self.curves, self.problem.origin

    def __len__(self) -> int:
        """Number of breakpoints."""
        return len(self.loss)

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, arrays element by element."""
        return same_values(self, other)

    def __str__(self) -> str:
        """A few lines for people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        """A heading, and the loss at some budgets."""
        origin = self.problem.origin
        about = "units without a model" if origin is None else f"{origin.model or 'unnamed model'}"
        context = "" if origin is None else f", {origin.context_tokens} tokens"
        yield f"Path for {about}{context}: {len(self)} breakpoints"
        lowest, highest = format_bytes(int(self.budget_bytes[0])), self.problem.budget_bytes
        yield f"  {lowest:>12}  loss {self.loss[0]:.4g} (lowest)"
        for share in (10, 25, 50, 75):
            num_bytes = full_bytes(self.problem) * share // 100
            if self.budget_bytes[0] < num_bytes < self.budget_bytes[-1]:
                loss = self.solution(num_bytes).loss
                yield f"  {format_bytes(num_bytes):>12}  loss {loss:.4g} ({share} %)"
        yield f"  {format_bytes(highest):>12}  loss {self.loss[-1]:.4g} (highest)"


def full_bytes(problem: Problem) -> int:
    """Bytes of everything: what shares are shares of."""
    origin = problem.origin
    if origin is None:
        return max(problem.ceiling_bytes, 1)
    return origin.geometry.full_bytes(origin.context_tokens, origin.batch_size)


def with_budget(problem: Problem, budget_bytes: int) -> Problem:
    """The same problem with another budget, without a second check of its arrays."""
    changed = copy.copy(problem)
    object.__setattr__(changed, "budget_bytes", budget_bytes)
    return changed


def check_plain(problem: Problem) -> None:
    """Refuse what only a solver at one budget can honour.

    Raises:
        ValueError: If a constraint couples units, or the risk is not the mean.
    """
    coupling = sorted(kind.__name__ for kind in coupling_kinds(problem.constraints))
    if coupling:
        raise ValueError(
            f"`constraints` must not couple caches in a path, but got {' and '.join(coupling)}."
            " Use allocate or solve at each budget, with a solver that honours them."
        )
    if problem.risk != Mean():
        raise ValueError(
            f"`risk` must be Mean() in a path, but got {problem.risk}."
            " Use allocate or solve at each budget, with a solver that honours it."
        )
