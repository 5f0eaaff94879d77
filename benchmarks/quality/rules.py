"""Every solver and every published rule on the reference model, at equal budgets.

    python -m benchmarks.quality.rules --json rules.jsonl

The caches' losses are measured once (text, needles in prose, key-value tables; the question comes
after the context). Each solver then divides the same bytes. Reported for each: predicted loss over
that of equal shares, bytes used over the budget's, and with `--measured` the divergence of the
plan from the full cache on fresh prompts, over that of equal shares in the same run.

A rule whose own signal is another measurement than these losses gets the substitute that its
docstring names, so the figures rank rules as they are here, not their papers.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.quality.division import (
    CONTEXT_TOKENS,
    FUTURE_TOKENS,
    SEED,
    make_trials,
    try_plan,
)
from benchmarks.rows import Row, report
from kvbudget import Problem, Profile, Solution, measure_profile, reference_model, solve, solvers
from kvbudget.demo.trying import Reader
from kvbudget.heuristics import ObservationWindow
from kvbudget.prose import built_in_sentences, file_sentences
from kvbudget.trials import Trial

BUDGETS = ("10%", "25%", "50%")


def solved(profile: Profile, budget: str) -> dict[str, Solution]:
    """The answer of every solver, equal shares first."""
    size = CONTEXT_TOKENS + FUTURE_TOKENS
    problem = Problem.from_profile(profile, budget=budget, context_tokens=size)
    names = ["Uniform", *(name for name in solvers.__all__ if name != "Uniform")]
    return {name: solve(problem, getattr(solvers, name)()) for name in names}


def predicted(budget: str, found: dict[str, Solution]) -> Iterator[Row]:
    """Loss and bytes of every solver."""
    equal = found["Uniform"]
    for name, solution in found.items():
        case = f"{budget} {name}"
        yield Row(case, "predicted loss", solution.loss / equal.loss, "x equal shares", SEED)
        used = solution.used_bytes / solution.problem.budget_bytes
        yield Row(case, "bytes used", used, "share of the budget", SEED)
        yield Row(case, "gap", solution.gap, "share of the loss", SEED)


class Runner:
    """Runs plans on fresh prompts.

    Args:
        reader: The model and its tokenizer.
        trials: Prompts.
    """

    def __init__(self, reader: Reader, trials: list[Trial]) -> None:
        self.reader, self.trials = reader, trials
        self.full = [reader.predict(trial, reader.read_context(trial)) for trial in trials]

    def divergence(self, solution: Solution) -> float:
        """Mean divergence from the full cache, in nats per token."""
        return try_plan(self.reader, solution.plan, self.trials, self.full)[0]


def measured(budget: str, found: dict[str, Solution], runner: Runner) -> Iterator[Row]:
    """Divergence of every solver's plan."""
    equal = runner.divergence(found["Uniform"])
    yield Row(f"{budget} Uniform", "divergence", equal, "nats per token", SEED)
    for name, solution in found.items():
        ratio = runner.divergence(solution) / equal
        yield Row(f"{budget} {name}", "measured divergence", ratio, "x equal shares", SEED)


def run(sentences: list[str], calibration: int, tests: int) -> Iterator[Row]:
    """Measure the losses, divide, and if asked run the plans."""
    reader = Reader(*reference_model())
    half = len(sentences) // 2
    known = make_trials(reader, sentences[:half], calibration, 1000)
    prompts = [trial.ids for kind in known.values() for trial in kind]
    profile = measure_profile(
        reader.model, prompts, ObservationWindow(), future_tokens=FUTURE_TOKENS
    )
    found = {budget: solved(profile, budget) for budget in BUDGETS}
    for budget in BUDGETS:
        yield from predicted(budget, found[budget])
    if tests:
        fresh = make_trials(reader, sentences[half:], tests, 2000)
        runner = Runner(reader, [trial for kind in fresh.values() for trial in kind])
        for budget in BUDGETS:
            yield from measured(budget, found[budget], runner)


def main() -> None:
    """Read the arguments and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, nargs="*", help="text files; built-in text if none")
    parser.add_argument("--calibration", type=int, default=8, help="prompts of each kind")
    parser.add_argument("--measured", type=int, default=0, help="fresh prompts of each kind to run")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    sentences = built_in_sentences()
    if arguments.texts:
        sentences = [s for path in arguments.texts for s in file_sentences(path)]
    report(run(sentences, arguments.calibration, arguments.measured), arguments.json)


if __name__ == "__main__":
    main()
