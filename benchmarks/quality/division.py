"""How much a solved division saves against equal shares, with really freed bytes.

    python -m benchmarks.quality.division --json division.jsonl

Contexts are cut before the question is known: prose, needles in prose, and key-value tables. For
each budget the same token heuristic runs on the reference model under equal shares and under
divisions solved for each measure. Reported: divergence from the full cache in nats per future
token, the share of answer tokens that are right, and bytes held as a share of those planned.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.rows import Row, report
from kvbudget import Plan, Profile, allocate, budgeted, measure_profile, reference_model
from kvbudget.allocator.solvers import Hull, Uniform
from kvbudget.demo.trying import Reader, divergence
from kvbudget.heuristics import ObservationWindow
from kvbudget.prose import built_in_sentences, file_sentences
from kvbudget.trials import Trial, TrialMaker

CONTEXT_TOKENS, FUTURE_TOKENS, SEED = 768, 256, 0
BUDGETS = ("5%", "10%", "25%", "50%")
MEASURES = ("attention_mass", "output_error", "divergence")


@dataclass(frozen=True, slots=True)
class LookupMaker:
    """Makes key-value tables, then lookups in random order.

    Args:
        reader: Whose tokenizer counts the tokens.
    """

    reader: Reader

    def trial(self, seed: int) -> Trial:
        """One table that fills the context."""
        rng = random.Random(f"lookups {seed}")
        start, table = self._ids("{"), {}
        context = list(start)
        while True:
            key, value = f"key-{rng.randrange(10_000)}", f"{rng.randrange(16**6):06x}"
            pair = self._ids(f'"{key}": "{value}", ')
            if len(context) + len(pair) > CONTEXT_TOKENS - 2:
                break
            context += pair
            table[key] = value
        future, answers = self._ids("}\n"), []
        for key in rng.sample(sorted(table), len(table)):
            asked, answer = self._ids(f'get("{key}") -> "'), self._ids(table[key])
            answers.append((len(future) + len(asked), len(future) + len(asked) + len(answer)))
            future += [*asked, *answer, *self._ids('"\n')]
        fitting = tuple(pair for pair in answers if pair[1] < FUTURE_TOKENS)
        return Trial(context, future[:FUTURE_TOKENS], fitting)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.reader.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def make_trials(
    reader: Reader, sentences: list[str], count: int, seed: int
) -> dict[str, list[Trial]]:
    """So many trials of each kind."""
    maker = TrialMaker(sentences, reader.tokenizer, CONTEXT_TOKENS, FUTURE_TOKENS)
    lookups = LookupMaker(reader)
    seeds = range(seed, seed + count)
    return {
        "text": [maker.text(seed) for seed in seeds],
        "needles": [maker.needles(seed) for seed in seeds],
        "lookups": [lookups.trial(seed) for seed in seeds],
    }


def right_tokens(trial: Trial, expected: torch.Tensor) -> list[bool]:
    """For each answer token whether it is the likeliest one behind the true tokens before it."""
    best = expected.argmax(-1).tolist()
    places = [place for start, end in trial.answers for place in range(start, end)]
    return [best[place - 1] == trial.future[place] for place in places]


def arms(profiles: dict[str, Profile]) -> Iterator[tuple[str, Plan]]:
    """Every budget under equal shares and under the division solved for each measure."""
    size = CONTEXT_TOKENS + FUTURE_TOKENS
    for budget in BUDGETS:
        any_profile = profiles[MEASURES[0]]
        equal = allocate(any_profile, budget=budget, context_tokens=size, solver=Uniform())
        yield f"{budget} equal shares", equal
        for name, profile in profiles.items():
            plan = allocate(profile, budget=budget, context_tokens=size, solver=Hull())
            yield f"{budget} solved for {name}", plan


def full_predictions(
    reader: Reader, fresh: dict[str, list[Trial]]
) -> dict[str, list[torch.Tensor]]:
    """What the model expects with its full cache in each trial."""
    return {
        kind: [reader.predict(trial, reader.read_context(trial)) for trial in trials]
        for kind, trials in fresh.items()
    }


def try_plan(
    reader: Reader, plan: Plan, trials: Sequence[Trial], full: Sequence[torch.Tensor]
) -> tuple[float, float, float]:
    """Mean divergence, share of right answer tokens, and bytes held over the plan's own."""
    diverged, right, held = [], [], []
    for trial, reference in zip(trials, full, strict=True):
        with budgeted(reader.model, plan) as cache:
            reader.read_context(trial, cache)
            held.append(cache.nbytes() / plan.used_bytes)
            expected = reader.predict(trial, cache)
        diverged.append(divergence(reference, expected))
        right += right_tokens(trial, expected)
    return fmean(diverged), fmean(right) if right else float("nan"), fmean(held)


def run(sentences: list[str], calibration: int, tests: int) -> Iterator[Row]:
    """Measure, divide, run."""
    reader = Reader(*reference_model())
    half = len(sentences) // 2
    known = make_trials(reader, sentences[:half], calibration, 1000)
    prompts = [trial.ids for kind in known.values() for trial in kind]
    profiles = {
        name: measure_profile(
            reader.model, prompts, ObservationWindow(), measure=name, future_tokens=FUTURE_TOKENS
        )
        for name in MEASURES
    }
    fresh = make_trials(reader, sentences[half:], tests, 2000)
    full = full_predictions(reader, fresh)
    for kind, trials in fresh.items():
        right = [hit for t, e in zip(trials, full[kind], strict=True) for hit in right_tokens(t, e)]
        if right:
            yield Row(f"full cache, {kind}", "right answer tokens", fmean(right), "share", SEED)
    for name, plan in arms(profiles):
        for kind, trials in fresh.items():
            diverged, right_share, held = try_plan(reader, plan, trials, full[kind])
            yield Row(f"{name}, {kind}", "divergence", diverged, "nats per token", SEED)
            if trials[0].answers:
                yield Row(f"{name}, {kind}", "right answer tokens", right_share, "share", SEED)
            yield Row(f"{name}, {kind}", "bytes held / planned", held, "1", SEED)


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
