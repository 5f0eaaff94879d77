"""How the bytes are divided over the caches."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from kvbudget import Adaptation, Plan, Solver, allocate, budgeted, solvers
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.solver_choice import solver_for
from kvbudget.heuristics import (
    CacheHeuristic,
    Corm,
    LayerView,
    ResidualChange,
    RunningHeuristic,
    SinkRecent,
    TokenHeuristic,
)
from kvbudget.trials import Trial

from .calibration import Calibration

# what the runtime keeps in every cache whatever the score
PROTECTED_TOKENS = 20


class Division(ABC):
    """A way to divide bytes over caches."""

    __slots__ = ()

    @property
    def adapt(self) -> Adaptation | None:
        """What divides the plan's bytes anew once a prompt has been read, if anything does."""
        return None

    @abstractmethod
    def plan(self, known: Calibration, heuristic: TokenHeuristic, kept: int, trial: Trial) -> Plan:
        """Plan for one prompt.

        Args:
            known: What was measured beforehand.
            heuristic: Which tokens are kept.
            kept: Share of the context's bytes that all caches may use together, in %.
            trial: The prompt.
        """


@dataclass(frozen=True, slots=True)
class Equal(Division):
    """The same for every cache, or an adaptation of that which sees the prompt alone.

    Args:
        adaptation: Divides the bytes anew for each prompt.
    """

    adaptation: Adaptation | None = None

    @property
    def adapt(self) -> Adaptation | None:
        """The adaptation."""
        return self.adaptation

    def plan(self, known: Calibration, heuristic: TokenHeuristic, kept: int, trial: Trial) -> Plan:
        """Any profile will do: equal shares do not look at it."""
        profile, tokens = known.profile(SinkRecent()), len(trial.context)
        budget = f"{kept}%"
        plan = allocate(profile, budget=budget, context_tokens=tokens, solver=solvers.Uniform())
        return replace(plan, curves=None)


@dataclass(frozen=True, slots=True)
class Solved(Division):
    """By a solver, for the measured divergence of this heuristic's tokens.

    Args:
        solver: The solver; of what it takes into account.
        constraints: Further limits.
    """

    solver: Solver = solvers.Hull()  # noqa: RUF009
    constraints: tuple[Constraint, ...] = ()

    def plan(self, known: Calibration, heuristic: TokenHeuristic, kept: int, trial: Trial) -> Plan:
        """Solve; where limits couple caches with a solver that honours them."""
        return allocate(
            known.profile(heuristic),
            budget=f"{kept}%",
            context_tokens=len(trial.context),
            solver=solver_for(self.constraints) if self.constraints else self.solver,
            constraints=self.constraints,
        )


@dataclass(frozen=True, slots=True)
class ByRule(Division):
    """By a published rule and the importance that it takes, measured once.

    Args:
        rule: Class of the rule.
        importance: Weighs the caches.
    """

    rule: type[solvers.BaKlaVa] | type[solvers.SqueezeAttention] | type[solvers.RazorAttention]
    importance: CacheHeuristic

    def plan(self, known: Calibration, heuristic: TokenHeuristic, kept: int, trial: Trial) -> Plan:
        """What the rule searches by is the measured divergence."""
        rule = self.rule(importance=known.importance(self.importance))
        return Solved(rule).plan(known, heuristic, kept, trial)


@dataclass(frozen=True, slots=True)
class SqueezedPerPrompt(Division):
    """SqueezeAttention's layer shares by how each layer changes the residuals of this prompt."""

    def plan(self, known: Calibration, heuristic: TokenHeuristic, kept: int, trial: Trial) -> Plan:
        """Weigh the layers on the context alone."""
        importance = known.weigh(ResidualChange(), [trial.context])
        rule = solvers.SqueezeAttention(importance=importance)
        # the rule does not look at the losses; any profile does
        return Solved(rule).plan(known, SinkRecent(), kept, trial)


@dataclass(frozen=True, slots=True)
class Demanded(Division):
    """What CORM keeps by itself, cache by cache, without any budget.

    Args:
        window: Latest queries one of which must have given a token at least even attention, and
            newest tokens that are kept anyway.
    """

    window: int

    def plan(self, known: Calibration, heuristic: TokenHeuristic, kept: int, trial: Trial) -> Plan:
        """Count in a first reading; the next one keeps as many. `kept` does not matter."""
        counter = _Counter(window=self.window)
        plan = Equal().plan(known, heuristic, 100, trial)
        nearly = Equal().plan(known, heuristic, 97, trial)
        with budgeted(known.reader.model, nearly, counter) as cache:
            known.reader.read_context(trial, cache)
        capacity = torch.cat(counter.wanted).numpy().astype(np.int64)
        plan = replace(plan, capacity_tokens=np.minimum(capacity, plan.context_tokens))
        return replace(plan, budget_bytes=plan.used_bytes)


@dataclass(frozen=True, slots=True)
class _Counter(RunningHeuristic):
    base: Corm = Corm()  # noqa: RUF009
    window: int = 64
    wanted: list[Tensor] = field(default_factory=list)

    def observe(self, view: LayerView) -> Tensor:
        return self.base.observe(view)

    def score(self, view: LayerView) -> Tensor:
        score = self.base.score(view)
        stays = (score > -self.window) | (view.age() < self.window)
        count = (stays & view.valid).sum(dim=-1).clamp(min=PROTECTED_TOKENS)
        # layers are cut in order, each once
        self.wanted.append(count)
        return score
