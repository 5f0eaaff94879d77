"""Does the sum of measured losses predict what the running model loses?

    python -m benchmarks.quality.additivity --measures divergence --json additivity.jsonl

For each measure a profile of the reference model is checked on fresh prompts with really freed
bytes: half of the plans solved for 5 % to 60 % of the full cache, half drawn at random around the
same shares. Reported for each kind of plan and for all: rank correlation of predicted and measured
divergence, the slope between them, quantiles of their ratio, and how many are within a factor of 2.
The last rows of a measure are its cost: seconds for the profile over seconds of plain forward
passes over the same prompts.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.division import FUTURE_TOKENS, make_trials
from benchmarks.rows import Row, report
from kvbudget import ProfileCheck, check_profile, measure_profile, reference_model
from kvbudget.demo.trying import Reader
from kvbudget.heuristics import ObservationWindow, measures
from kvbudget.heuristics.measures import Divergence, Measure
from kvbudget.prose import built_in_sentences

QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def of_kind(check: ProfileCheck, is_solved: bool) -> ProfileCheck:
    """The solved plans of a check, or the others."""
    chosen = [index for index, solved in enumerate(check.is_solved) if solved is is_solved]
    return replace(
        check,
        predicted=tuple(check.predicted[index] for index in chosen),
        measured=tuple(check.measured[index] for index in chosen),
        kept_fraction=tuple(check.kept_fraction[index] for index in chosen),
        is_solved=(is_solved,) * len(chosen),
    )


def summary(name: str, check: ProfileCheck, seed: int) -> Iterator[Row]:
    """The figures of a check."""
    yield Row(name, "plans", len(check.predicted), "1", seed)
    yield Row(name, "Spearman", check.spearman, "1", seed)
    yield Row(name, "slope", check.slope, "1", seed)
    yield Row(name, "within a factor of 2", check.within_two, "share", seed)
    for share, value in zip(QUANTILES, np.quantile(check.ratio, QUANTILES), strict=True):
        yield Row(name, f"predicted / measured, {share:.0%} quantile", float(value), "1", seed)


def plain_seconds(reader: Reader, prompts: Sequence[list[int]]) -> float:
    """Seconds of one plain forward pass over each prompt."""
    begin = time.perf_counter()
    with torch.inference_mode():
        for ids in prompts:
            reader.model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
    return time.perf_counter() - begin


def run(
    chosen: Sequence[Measure], plans: int, calibration: int, tests: int, seed: int
) -> Iterator[Row]:
    """Measure profiles, then run plans on fresh prompts."""
    reader = Reader(*reference_model())
    sentences = built_in_sentences()
    half = len(sentences) // 2
    known = make_trials(reader, sentences[:half], calibration, 1000 + 100 * seed)
    fresh = make_trials(reader, sentences[half:], tests, 2000 + 100 * seed)
    prompts = [trial.ids for kind in known.values() for trial in kind]
    fresh_prompts = [trial.ids for kind in fresh.values() for trial in kind]
    plain_seconds(reader, prompts[:1])
    for measure in chosen:
        plain = plain_seconds(reader, prompts)
        begin = time.perf_counter()
        profile = measure_profile(
            reader.model,
            prompts,
            ObservationWindow(),
            measure=measure,
            future_tokens=FUTURE_TOKENS,
        )
        cost = (time.perf_counter() - begin) / plain
        checked = check_profile(
            reader.model,
            profile,
            fresh_prompts,
            plans=plans,
            future_tokens=FUTURE_TOKENS,
            seed=seed,
        )
        check = checked.check
        assert check is not None, "check_profile stores one"
        name = repr(measure)
        for row in zip(
            check.is_solved, check.kept_fraction, check.predicted, check.measured, strict=True
        ):
            solved, kept, predicted, found = row
            plan = f"{name}, {'solved' if solved else 'random'}, {kept:.1%} kept"
            yield Row(plan, "predicted divergence", predicted, "nats per token", seed)
            yield Row(plan, "measured divergence", found, "nats per token", seed)
        yield from summary(f"{name}, solved", of_kind(check, True), seed)
        yield from summary(f"{name}, random", of_kind(check, False), seed)
        yield from summary(f"{name}, all", check, seed)
        yield Row(name, "profile / plain forward passes", cost, "1", seed)


def main() -> None:
    """Run and print one line per figure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--measures", nargs="+", default=["divergence"])
    arguments.add_argument("--without-reruns", action="store_true", help="second order alone, too")
    arguments.add_argument("--plans", type=int, default=60, help="half solved, half at random")
    arguments.add_argument("--calibration", type=int, default=4, help="prompts of each kind")
    arguments.add_argument("--tests", type=int, default=3, help="prompts of each kind")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    chosen: list[Measure] = [measures.build(name) for name in options.measures]
    if options.without_reruns:
        chosen.append(Divergence(rerun_passes=0.0))
    rows = run(chosen, options.plans, options.calibration, options.tests, options.seed)
    report(rows, options.json)


if __name__ == "__main__":
    main()
