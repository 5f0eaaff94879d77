"""The main job: profile a model, divide three budgets in two ways, generate with each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from kvbudget.allocator import Plan, Profile, allocate
from kvbudget.allocator.solver import Solver
from kvbudget.allocator.solvers import Hull, Uniform
from kvbudget.heuristics import ObservationWindow
from kvbudget.runtime import budgeted, measure_profile
from kvbudget.trials import Trial, TrialMaker

from .result import FULL, Row, make_row
from .trying import Reader, Tally, divergence, full_cache_bytes

BUDGETS = ("10%", "25%", "50%")
SHOWN = ("25%", "Hull")
CALIBRATION_SEED, TEST_SEED = 1_000, 2_000


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How much the demo does.

    Args:
        context_tokens: Longest sequence, context and future together.
        future_tokens: Tokens that follow the cut.
        calibration: Contexts to measure on.
        tests: Contexts to test on, never seen while measuring.
        new_tokens: Tokens to generate for the speed.
        generations: Generations for the speed.
    """

    context_tokens: int = 1000
    future_tokens: int = 96
    calibration: int = 8
    tests: int = 12
    new_tokens: int = 24
    generations: int = 2


Name = tuple[str, str]
Step = Callable[[], None]
FULL_NAME: Name = ("100%", FULL)


@dataclass(frozen=True, slots=True)
class Example:
    """One question, as every cache answered it.

    Args:
        right: The right answer.
        answers: The answer of each row, in the order of the rows.
    """

    right: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Everything the demo found.

    Args:
        rows: The full cache first, then every budget and solver.
        example: One question and all answers to it.
        shown_plan: The plan that is written and drawn.
        profile: The profile that is written.
    """

    rows: tuple[Row, ...]
    example: Example
    shown_plan: Plan
    profile: Profile


@dataclass(frozen=True, slots=True)
class DemoRun:
    """One model, one text, one size.

    Args:
        reader: The model to run.
        name: What to call it.
        sentences: Prose; the first half is measured on, the second half tested on.
        size: How much to do.
    """

    reader: Reader
    name: str
    sentences: Sequence[str]
    size: DemoSize

    def measure(self) -> Profile:
        """Profile the model on calibration contexts."""
        trials = self._maker(self.sentences[: len(self.sentences) // 2]).mixed(
            self.size.calibration, CALIBRATION_SEED
        )
        profile = measure_profile(
            self.reader.model,
            [trial.ids for trial in trials],
            ObservationWindow(),
            future_tokens=self.size.future_tokens,
        )
        return replace(profile, model=self.name)

    def plan(self, profile: Profile) -> dict[Name, Plan]:
        """Divide every budget with every solver."""
        solvers: tuple[Solver, ...] = (Uniform(), Hull())
        return {
            (budget, type(solver).__name__): allocate(
                profile, budget=budget, context_tokens=self.size.context_tokens, solver=solver
            )
            for budget in BUDGETS
            for solver in solvers
        }

    def test(self, profile: Profile, plans: Mapping[Name, Plan], step: Step) -> DemoResult:
        """Run every test trial with the full cache and with every plan.

        Args:
            profile: What the plans were made from.
            plans: Plans by budget and solver.
            step: Called after each of `steps(plans)` pieces of work.
        """
        tallies = {name: Tally() for name in (FULL_NAME, *plans)}
        trials = self._maker(self.sentences[len(self.sentences) // 2 :]).mixed(
            self.size.tests, TEST_SEED
        )
        for trial in trials:
            self._try(trial, plans, tallies, step)
        for trial in trials[: self.size.generations]:
            self._time(trial, plans, tallies, step)
        geometry = profile.geometry
        full_bytes = geometry.full_bytes(self.size.context_tokens)
        asked = trials[0]
        right = asked.future[slice(*asked.answers[0])]
        return DemoResult(
            rows=tuple(
                make_row(name[0], plans.get(name), full_bytes, tally)
                for name, tally in tallies.items()
            ),
            example=Example(
                right=str(self.reader.tokenizer.decode(right)),
                answers=tuple(tally.answers[0] for tally in tallies.values()),
            ),
            shown_plan=plans[SHOWN],
            profile=profile,
        )

    def steps(self, plans: Mapping[Name, Plan]) -> int:
        """How often `test` calls its `step`."""
        return (self.size.tests + self.size.generations) * (1 + len(plans))

    def _try(
        self,
        trial: Trial,
        plans: Mapping[Name, Plan],
        tallies: Mapping[Name, Tally],
        step: Step,
    ) -> None:
        """Compare what is expected of one future with the full cache and with every plan."""
        cache = self.reader.read_context(trial)
        full = self.reader.predict(trial, cache)
        self._note(trial, tallies[FULL_NAME], full, full, full_cache_bytes(cache))
        step()
        for name, plan in plans.items():
            with budgeted(self.reader.model, plan) as budgeted_cache:
                self.reader.read_context(trial, budgeted_cache)
                expected = self.reader.predict(trial, budgeted_cache)
                self._note(trial, tallies[name], full, expected, budgeted_cache.nbytes())
            step()

    def _note(
        self, trial: Trial, tally: Tally, full: Tensor, expected: Tensor, held_bytes: int
    ) -> None:
        tally.divergence.append(divergence(full, expected))
        tally.held_bytes = max(tally.held_bytes, held_bytes)
        for answer, exact in self.reader.said(trial, expected):
            tally.answers.append(answer)
            tally.correct.append(exact)

    def _time(
        self,
        trial: Trial,
        plans: Mapping[Name, Plan],
        tallies: Mapping[Name, Tally],
        step: Step,
    ) -> None:
        """Generate behind one context with the full cache and with every plan."""
        cache = self.reader.read_context(trial)
        tallies[FULL_NAME].tokens_per_second.append(self._speed(trial, cache))
        step()
        for name, plan in plans.items():
            with budgeted(self.reader.model, plan) as budgeted_cache:
                self.reader.read_context(trial, budgeted_cache)
                tallies[name].tokens_per_second.append(self._speed(trial, budgeted_cache))
                tallies[name].held_bytes = max(tallies[name].held_bytes, budgeted_cache.nbytes())
            step()

    def _speed(self, trial: Trial, cache: Any) -> float:
        return self.reader.generate(trial, cache, self.size.new_tokens)[1]

    def _maker(self, sentences: Sequence[str]) -> TrialMaker:
        context = self.size.context_tokens - self.size.future_tokens
        return TrialMaker(sentences, self.reader.tokenizer, context, self.size.future_tokens)
