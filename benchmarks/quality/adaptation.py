"""What a division made anew for each prompt saves, and what it costs.

    python -m benchmarks.quality.adaptation --json adaptation.jsonl

Contexts are cut before the question is known: prose, needles in prose, and key-value tables. For
each budget the reference model runs with equal shares and with the division solved for
divergence; each of them as it is, divided anew within every layer, the same by the prompt alone
(Ada-KV), and divided anew over the whole cache. Reported: divergence from the full cache in nats
per future token, the share of answer tokens that are right, the most bytes held as a share of the
budget, and the processor time of the division as a share of the time in which the context is read.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import ClassVar

import torch

from benchmarks.quality.division import (
    CONTEXT_TOKENS,
    FUTURE_TOKENS,
    SEED,
    full_predictions,
    make_trials,
    right_tokens,
)
from benchmarks.rows import Row, report
from kvbudget import Plan, Profile, allocate, budgeted, measure_profile, reference_model
from kvbudget.allocator.solvers import Hull, Uniform
from kvbudget.demo.trying import Reader, divergence
from kvbudget.heuristics import ObservationWindow
from kvbudget.prose import built_in_sentences, file_sentences
from kvbudget.runtime.adaptation import Adaptation, Global, LayerScores, WithinLayer
from kvbudget.trials import Trial

BUDGETS = ("10%", "25%")


@dataclass(frozen=True, slots=True)
class TimedWithinLayer(Adaptation):
    """Divides within layers and notes the processor time of each division.

    Args:
        inner: What divides.
        seconds: Filled with the time of each division.
    """

    sees_all_layers: ClassVar[bool] = False

    inner: WithinLayer = field(default_factory=WithinLayer)
    seconds: list[float] = field(default_factory=list)

    def divide(self, layers: Sequence[LayerScores]) -> list[torch.Tensor]:
        """Divide as `inner` does."""
        return timed(self.inner, layers, self.seconds)


@dataclass(frozen=True, slots=True)
class TimedGlobal(Adaptation):
    """Divides the whole cache and notes the processor time of each division.

    Args:
        inner: What divides.
        seconds: Filled with the time of each division.
    """

    sees_all_layers: ClassVar[bool] = True

    inner: Global = field(default_factory=Global)
    seconds: list[float] = field(default_factory=list)

    def divide(self, layers: Sequence[LayerScores]) -> list[torch.Tensor]:
        """Divide as `inner` does."""
        return timed(self.inner, layers, self.seconds)


Timed = TimedWithinLayer | TimedGlobal


def timed(
    inner: Adaptation, layers: Sequence[LayerScores], seconds: list[float]
) -> list[torch.Tensor]:
    """Divide, and note how long it took."""
    start = time.process_time()
    divided = inner.divide(layers)
    seconds.append(time.process_time() - start)
    return divided


@dataclass(slots=True)
class Seen:
    """What has been seen of one arm so far, one entry for each trial.

    Args:
        diverged: Divergence from the full cache.
        right: For each answer token, whether it is right.
        held: Most bytes held, as a share of the budget.
        time_share: Time of the division as a share of that of reading the context.
    """

    diverged: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    time_share: list[float] = field(default_factory=list)

    def add(
        self, reader: Reader, plan: Plan, timer: Timed | None, trial: Trial, full: torch.Tensor
    ):
        """Run one trial."""
        with budgeted(reader.model, plan, adapt=timer) as cache:
            start = time.process_time()
            reader.read_context(trial, cache)
            taken = time.process_time() - start
            held = cache.nbytes()
            expected = reader.predict(trial, cache)
            self.held.append(max(held, cache.nbytes()) / plan.budget_bytes)
        if timer is not None:
            # those of the context come first: one of the whole cache, or one of each layer
            layers = 1 if timer.sees_all_layers else plan.geometry.layers
            self.time_share.append(sum(timer.seconds[:layers]) / taken)
            timer.seconds.clear()
        self.diverged.append(divergence(full, expected))
        self.right += right_tokens(trial, expected)

    def rows(self, case: str) -> Iterator[Row]:
        """The figures of this arm."""
        yield Row(case, "divergence", fmean(self.diverged), "nats per token", SEED)
        if self.right:
            yield Row(case, "right answer tokens", fmean(self.right), "share", SEED)
        yield Row(case, "most bytes held / budget", max(self.held), "1", SEED)
        if self.time_share:
            yield Row(case, "time of the division / prefill", median(self.time_share), "1", SEED)


def arms(profile: Profile) -> Iterator[tuple[str, Plan, Timed | None]]:
    """Every budget under each division, as it is and made anew for each prompt."""
    for budget in BUDGETS:
        for name, solver in (("equal shares", Uniform()), ("solved", Hull())):
            plan = allocate(
                profile,
                budget=budget,
                context_tokens=CONTEXT_TOKENS + FUTURE_TOKENS,
                solver=solver,
            )
            yield f"{budget} {name}", plan, None
            yield f"{budget} {name}, within layers", plan, TimedWithinLayer()
            ada_kv = TimedWithinLayer(WithinLayer(trust=1.0))
            yield f"{budget} {name}, within layers by the prompt alone", plan, ada_kv
            yield f"{budget} {name}, whole cache", plan, TimedGlobal()


def run(sentences: list[str], calibration: int, tests: int) -> Iterator[Row]:
    """Measure, divide, run."""
    reader = Reader(*reference_model())
    half = len(sentences) // 2
    known = make_trials(reader, sentences[:half], calibration, 1000)
    prompts = [trial.ids for kind in known.values() for trial in kind]
    profile = measure_profile(
        reader.model, prompts, ObservationWindow(), future_tokens=FUTURE_TOKENS
    )
    fresh = make_trials(reader, sentences[half:], tests, 2000)
    full = full_predictions(reader, fresh)
    for name, plan, timer in arms(profile):
        for kind, trials in fresh.items():
            seen = Seen()
            for trial, reference in zip(trials, full[kind], strict=True):
                seen.add(reader, plan, timer, trial, reference)
            yield from seen.rows(f"{name}, {kind}")


def main() -> None:
    """Run and print one line per figure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--text", type=Path, help="prose to use; the built-in text by default")
    arguments.add_argument("--calibration", type=int, default=4, help="prompts of each kind")
    arguments.add_argument("--tests", type=int, default=6, help="prompts of each kind")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    sentences = built_in_sentences() if chosen.text is None else file_sentences(chosen.text)
    report(run(sentences, chosen.calibration, chosen.tests), chosen.json)


if __name__ == "__main__":
    main()
