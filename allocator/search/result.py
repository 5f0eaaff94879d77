"""What a search found."""

from dataclasses import dataclass, replace

from kvbudget.allocator.bytes_text import format_bytes
from kvbudget.allocator.plan import Plan
from kvbudget.allocator.problem import Problem

from .plans import plan_of
from .trial_record import Outcome, TrialRecord

CALLED = (Outcome.MEASURED, Outcome.PRUNED, Outcome.FAILED)
"""How trials end that called the objective."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All trials of a search, the best of them, and those that nothing beats.

    Args:
        problem: What was searched.
        solver: Name of the search.
        records: Trials in the order they began, from all processes and runs.
        notes: Sentences on what earlier runs left, for the reader.
    """

    problem: Problem
    solver: str
    records: tuple[TrialRecord, ...]
    notes: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """How many trials called the objective; those that repeat a plan take its value.

        Calls that ended in an error belong to no trial and are not counted.
        """
        return sum(record.outcome in CALLED for record in self.records)

    @property
    def measured(self) -> tuple[TrialRecord, ...]:
        """Trials that were measured to the end, without those that repeat the plan of another.

        Raises:
            ValueError: If there are none.
        """
        found = tuple(record for record in self.records if record.outcome is Outcome.MEASURED)
        if not found:
            raise ValueError(
                f"`objective` must give a number for at least one plan, but {len(self.records)}"
                " trials gave none. Measure a single plan first."
            )
        return found

    @property
    def best(self) -> TrialRecord:
        """The trial with the lowest value; of equal ones that with the least predicted loss.

        Raises:
            ValueError: If none was measured to the end.
        """
        return min(self.measured, key=lambda record: (record.value, record.loss, record.number))

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """Trials with a lower value than all that need no more memory, by rising memory.

        Of equal ones it holds that with the least predicted loss.

        Raises:
            ValueError: If none was measured to the end.
        """
        front: list[TrialRecord] = []
        for record in sorted(
            self.measured, key=lambda record: (record.used_bytes, record.value, record.loss)
        ):
            if not front or record.value < front[-1].value:
                front.append(record)
        return tuple(front)

    @property
    def plan(self) -> Plan:
        """The plan of the best trial.

        Raises:
            ValueError: If none was measured to the end, or the problem was made from arrays.
        """
        return plan_of(self.problem, self.best.levels, self.solver)

    def plan_of(self, record: TrialRecord) -> Plan:
        """The plan of one trial, with the memory it uses as its budget.

        Args:
            record: A trial of this search that fits the budget.

        Raises:
            ValueError: If the problem was made from arrays.
        """
        exact = replace(self.problem, budget_bytes=record.used_bytes)
        return plan_of(exact, record.levels, self.solver)

    def to_records(self) -> list[dict[str, str | int | float | None]]:
        """All trials as JSON types."""
        return [record.to_record() for record in self.records]

    def __str__(self) -> str:
        """Lines on the trials, the best plan and the front."""
        ended = [record.outcome for record in self.records]
        counts = [f"{ended.count(each)} {each.name.lower()}" for each in Outcome if each in ended]
        lines = [
            f"{self.solver}: {counted(len(ended), 'trial')},"
            f" {counted(self.calls, 'call')} of the objective:"
            f" {', '.join(counts).replace('_', ' ')}",
            *(f"  {note}" for note in self.notes),
        ]
        if Outcome.MEASURED in ended:
            lines += ["  best plan:", row(self.best)]
            lines += ["  front, no plan with less memory has a lower value:"]
            lines += [row(record) for record in self.front]
        return "\n".join(lines)


def counted(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def row(record: TrialRecord) -> str:
    """The line of a plan."""
    return (
        f"    {format_bytes(record.used_bytes):>10}  value {record.value:.6g},"
        f" predicted loss {record.loss:.6g} (trial {record.number})"
    )
