"""Where a report takes its losses from, and why some plans have none to redraw with."""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator import Constraint, Plan, Problem, Profile, ProfileCheck
from kvbudget.allocator.certificate import MEAN
from kvbudget.allocator.constraint import coupling_kinds
from kvbudget.allocator.plan_curves import Curves

SHARED = ("geometry", "model", "heuristic", "heuristic_settings", "measure")


@dataclass(frozen=True, slots=True)
class Source:
    """What a report can be drawn from.

    Args:
        plan: The plan.
        profile: The profile it was made from, if it is at hand.
        curves: Losses and constraints; ``None`` where neither file holds them.
        obstacle: Why budgets cannot be tried; ``None`` where they can.
    """

    plan: Plan
    profile: Profile | None
    curves: Curves | None
    obstacle: str | None

    @classmethod
    def of(cls, plan: Plan, profile: Profile | None) -> "Source":
        """The source of a report.

        Raises:
            ValueError: If the profile is not the one that the plan was made from.
        """
        if profile is not None:
            check_same(plan, profile)
        curves = plan.curves or curves_from(plan, profile)
        return cls(plan, profile, curves, obstacle(plan, curves, profile))

    @property
    def check(self) -> ProfileCheck | None:
        """How far the losses can be believed; the profile may have been checked later."""
        return self.plan.check or (None if self.profile is None else self.profile.check)

    @property
    def made_by(self) -> str:
        """How the losses came about."""
        return self.plan.made_by or ("" if self.profile is None else self.profile.made_by)

    @property
    def problem(self) -> Problem | None:
        """The problem that the plan solves; ``None`` where it cannot be stated."""
        if self.curves is None:
            return None
        return self.curves.problem(
            self.plan, context_tokens=self.plan.context_tokens, budget=self.plan.budget_bytes
        )

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints that held, as far as they are known as more than words."""
        return () if self.curves is None else self.curves.constraints


def check_same(plan: Plan, profile: Profile) -> None:
    """Refuse a profile of another model, heuristic or measurement.

    Raises:
        ValueError: Says in what they differ.
    """
    differ = [name for name in SHARED if getattr(plan, name) != getattr(profile, name)]
    if not differ and plan.curves is not None:
        same = np.array_equal(plan.curves.kept_fraction, profile.kept_fraction)
        differ = [] if same and np.array_equal(plan.curves.loss, profile.loss) else ["loss"]
    if differ:
        raise ValueError(
            f"`profile` must be the one that the plan was made from, but they differ in"
            f" {' and '.join(f'`{name}`' for name in differ)}. Leave it out, or allocate from it."
        )


def curves_from(plan: Plan, profile: Profile | None) -> Curves | None:
    """The losses of a profile, where no constraint that is known only in words stands beside."""
    if profile is None or plan.certificate.constraints:
        return None
    return Curves(profile.kept_fraction, profile.loss)


def obstacle(plan: Plan, curves: Curves | None, profile: Profile | None) -> str | None:
    """Why no other budget can be tried in the page, in a sentence or two; ``None`` if it can."""
    if plan.certificate.risk != MEAN:
        return (
            f"This plan was made for the risk {plan.certificate.risk}, and what single prompts"
            " lose does not add up over the caches. For another budget, run kvbudget allocate."
        )
    if curves is None:
        advice = (
            "Make the report with --profile to try budgets."
            if profile is None and not plan.certificate.constraints
            else "For another budget, run kvbudget allocate."
        )
        return (
            "This plan does not hold the losses it was made from: it was made by hand, by an"
            " older version, or with a constraint that files cannot hold. " + advice
        )
    coupling = sorted(kind.__name__ for kind in coupling_kinds(curves.constraints))
    if coupling:
        return (
            f"This plan honours {' and '.join(coupling)}, which ties the caches together, so that"
            " every budget has to be solved anew. For another one, run kvbudget allocate."
        )
    return None
