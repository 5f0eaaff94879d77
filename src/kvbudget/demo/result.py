"""What the demo found out: one row for each cache."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import fmean, median

from kvbudget.allocator import Plan

from .trying import Tally

FULL = "full cache"


@dataclass(frozen=True, slots=True)
class Row:
    """One cache.

    Args:
        budget: Share of the full cache, as text.
        solver: What divided it; `full cache` for the model's own.
        budget_bytes: Bytes allowed.
        plan_bytes: Bytes that the plan comes to when every cache is full.
        held_bytes: Most bytes that the live storages of keys and values held.
        predicted_loss: Sum of the profile's losses under the plan, in the profile's unit.
        bound: Proven limit on the predicted loss of every plan in the budget.
        gap: `(predicted_loss - bound) / predicted_loss`.
        divergence: Measured, from the full cache, in nats per future token.
        needle_accuracy: Share of questions answered exactly.
        questions: How many were asked.
        tokens_per_second: Speed of generation, prompt not counted.
    """

    budget: str
    solver: str
    budget_bytes: int
    plan_bytes: int
    held_bytes: int
    predicted_loss: float
    bound: float
    gap: float
    divergence: float
    needle_accuracy: float
    questions: int
    tokens_per_second: float

    def to_record(self) -> dict[str, object]:
        """The fields under their names."""
        return asdict(self)


def make_row(budget: str, plan: Plan | None, full_bytes: int, tally: Tally) -> Row:
    """Sum up what was seen of one cache; no plan means the full cache."""
    certificate = None if plan is None else plan.certificate
    return Row(
        budget=budget,
        solver=FULL if certificate is None else certificate.solver,
        budget_bytes=full_bytes if plan is None else plan.budget_bytes,
        plan_bytes=full_bytes if plan is None else plan.used_bytes,
        held_bytes=tally.held_bytes,
        predicted_loss=0.0 if certificate is None else certificate.loss,
        bound=0.0 if certificate is None else certificate.bound,
        gap=0.0 if certificate is None else certificate.gap,
        divergence=fmean(tally.divergence),
        needle_accuracy=fmean(tally.correct),
        questions=len(tally.correct),
        tokens_per_second=median(tally.tokens_per_second),
    )


def hull_advantage(rows: Iterable[Row]) -> dict[str, float]:
    """For each budget, how many times the divergence of Uniform is that of Hull."""
    by_name = {(row.budget, row.solver): row.divergence for row in rows}
    return {
        budget: by_name[budget, "Uniform"] / value
        for (budget, solver), value in by_name.items()
        if solver == "Hull" and value > 0 and (budget, "Uniform") in by_name
    }
