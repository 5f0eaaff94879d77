"""The answer to a problem, with its certificate."""

import math
from dataclasses import dataclass, field

import numpy as np

from .arrays import Ints, same_values
from .bytes_text import format_bytes, format_pair
from .certificate import Certificate, percent
from .constraint_json import describe
from .coupling import violation
from .errors import InfeasibleBudget
from .origin import Origin
from .plan import Plan
from .plan_curves import Curves
from .problem import Problem
from .reduction import reduce
from .solver import CLOSED
from .status import Status


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Chosen levels, what they lose, and a limit that no choice can go below.

    Args:
        status: How the solve ended. ``INFEASIBLE`` has no levels.
        levels: Level of each unit, int64 [units]; empty if infeasible.
        loss: Total loss, in the unit of the problem's loss; infinite if infeasible.
        bound: Proven lower limit on the loss of every choice; infinite if infeasible.
        gap: ``(loss - bound) / loss``: the share of the loss that could at most be saved. 0 if
            the choice is optimal, and if infeasible. Losses below 0 are taken by magnitude.
        used_bytes: Memory of the chosen levels; 0 if infeasible.
        seconds: Time the solver took, without the checks around it. Not compared.
        solver: Name of the solver.
        problem: What was solved.
    """

    status: Status
    levels: Ints
    loss: float
    bound: float
    gap: float
    used_bytes: int
    seconds: float = field(compare=False)
    solver: str
    problem: Problem

    @classmethod
    def of(
        cls,
        problem: Problem,
        levels: Ints,
        *,
        status: Status,
        loss: float,
        bound: float,
        used_bytes: int,
        seconds: float,
        solver: str,
    ) -> "Solution":
        """The answer with its gap, and with the status that the gap proves.

        Args:
            problem: What was solved.
            levels: Level of each unit, int64 [units].
            status: How the search ended.
            loss: Total loss of the levels.
            bound: Proven lower limit on the loss of every choice; at most ``loss`` but for
                rounding.
            used_bytes: Memory of the levels.
            seconds: Time the solver took.
            solver: Name of the solver.
        """
        gap = relative_gap(loss, bound)
        return cls(
            status=judge(status, gap),
            levels=levels,
            loss=loss,
            bound=bound if gap else loss,
            gap=gap,
            used_bytes=used_bytes,
            seconds=seconds,
            solver=solver,
            problem=problem,
        )

    @classmethod
    def infeasible(cls, problem: Problem, solver: str) -> "Solution":
        """The answer to a problem whose lowest levels do not fit."""
        return cls(
            status=Status.INFEASIBLE,
            levels=np.empty(0, dtype=np.int64),
            loss=math.inf,
            bound=math.inf,
            gap=0.0,
            used_bytes=0,
            seconds=0.0,
            solver=solver,
            problem=problem,
        )

    @property
    def plan(self) -> Plan:
        """The plan for the model behind the problem.

        Raises:
            InfeasibleBudget: If no plan fits the budget.
            ValueError: If the problem was not made from a profile.
        """
        return plan_of(self, Curves.of(self.problem) if self.status.has_plan else None)

    def __eq__(self, other: object) -> bool:
        """Whether every field but the time is equal."""
        return same_values(self, other)

    def __str__(self) -> str:
        """A few lines for people."""
        if not self.status.has_plan:
            return f"No solution: {refusal(self.problem)}"
        budget = format_bytes(self.problem.budget_bytes)
        return (
            f"{self.solver}: {self.status.name}. {self.status.value}\n"
            f"  loss    {self.loss:.6g}, at least {self.bound:.6g} (gap {percent(self.gap)})\n"
            f"  memory  {format_bytes(self.used_bytes)} of {budget}\n"
            f"  time    {1000 * self.seconds:.1f} ms"
        )


def relative_gap(loss: float, bound: float) -> float:
    """Return ``(loss - bound) / loss`` by magnitude, 0 where only rounding is left."""
    scale = max(abs(loss), abs(bound))
    if loss - bound <= CLOSED * scale:
        return 0.0
    return (loss - bound) / scale


def judge(status: Status, gap: float) -> Status:
    """Status of an answer: optimal exactly if the gap is closed."""
    if gap == 0.0:
        return Status.OPTIMAL
    return Status.FEASIBLE if status is Status.OPTIMAL else status


def plan_of(solution: Solution, curves: Curves | None) -> Plan:
    """The plan of a solution.

    Args:
        solution: The chosen levels.
        curves: What the plan shall remember of the problem.

    Raises:
        InfeasibleBudget: If no plan fits the budget.
        ValueError: If the problem was not made from a profile.
    """
    if not solution.status.has_plan:
        raise InfeasibleBudget(refusal(solution.problem))
    origin = solution.problem.origin
    if origin is None:
        raise ValueError(
            "`problem` must come from Problem.from_profile to give a plan,"
            " but was made from arrays. Use the solution's levels."
        )
    capacity = np.take_along_axis(origin.capacity_tokens, solution.levels[:, None], axis=1)
    return Plan(
        capacity_tokens=origin.geometry.on_grid(capacity[:, 0]),
        context_tokens=origin.context_tokens,
        batch_size=origin.batch_size,
        budget_bytes=solution.problem.budget_bytes,
        certificate=certify(solution),
        geometry=origin.geometry,
        model=origin.model,
        heuristic=origin.heuristic,
        heuristic_settings=origin.heuristic_settings,
        measure=origin.measure,
        made_by=origin.made_by,
        check=origin.check,
        curves=curves,
    )


def certify(solution: Solution) -> Certificate:
    """What a solution proves, without its problem."""
    return Certificate(
        solver=solution.solver,
        status=solution.status.name,
        loss=solution.loss,
        bound=solution.bound,
        gap=solution.gap,
        risk=repr(solution.problem.risk),
        constraints=tuple(map(describe, solution.problem.constraints)),
    )


def refusal(problem: Problem) -> str:
    """Say that no plan fits, what the smallest one needs, and what to do."""
    reduction = reduce(problem)
    if reduction is None:
        asked = constraints_text(problem)
        return f"No plan meets {asked}: a cache is left without a level. Loosen them."
    lowest = np.zeros(len(reduction.problem.loss), dtype=np.int64)
    fault = violation(reduction.problem, lowest)
    needed = reduction.problem.floor_bytes
    if needed <= problem.budget_bytes:
        budget = format_bytes(problem.budget_bytes)
        why = f" (the smallest plan fails, as {fault})" if fault else ""
        return (
            f"No plan within {budget} meets {constraints_text(problem)}{why}."
            " Raise the budget or loosen them."
        )
    budget, floor = format_pair(problem.budget_bytes, needed)
    text = f"No plan fits {budget}: the smallest"
    if problem.floor_bytes <= problem.budget_bytes:
        text += f" under {constraints_text(problem)}"
    text += f" needs {floor} ({smallest(problem, reduction.expand(lowest))})."
    return text + advice(problem)


def advice(problem: Problem) -> str:
    """What to do about a budget below the smallest plan."""
    if problem.origin is not None and 0 < problem.budget_bytes <= 100:
        return f" Did you mean '{problem.budget_bytes}%'?"
    if problem.floor_bytes <= problem.budget_bytes:
        return " Raise the budget or loosen the constraints."
    return " Raise the budget or measure a profile with a smaller level."


def constraints_text(problem: Problem) -> str:
    """The constraints in words."""
    return " and ".join(map(describe, problem.constraints)) or "the losses"


def smallest(problem: Problem, levels: Ints) -> str:
    """Describe the lowest levels: ``"24 caches at 21 tokens"``."""
    origin: Origin | None = problem.origin
    if origin is None:
        return f"{len(problem.loss)} units at their lowest level"
    tokens_of = origin.capacity_tokens[np.arange(len(levels)), levels]
    low, high = tokens_of.min(), tokens_of.max()
    tokens = f"{low} to {high} tokens" if low < high else f"{low} token{'s' if low > 1 else ''}"
    caches = origin.geometry.caches
    context = f"of {origin.context_tokens}"
    return f"{caches} cache{'s' if caches > 1 else ''} at {tokens} {context}"
