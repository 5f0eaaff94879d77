"""Does the sum of measured losses predict what the running model loses?

    python -m benchmarks.quality.additivity --plans 20 --json additivity.jsonl

Random plans from 5 % to 60 % of the full cache, and plans solved for the same budgets, run on fresh
prompts with really freed bytes. Reported for each kind of plan: rank correlation of predicted and
measured divergence, and the quantiles of their ratio.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.quality.division import CONTEXT_TOKENS, FUTURE_TOKENS, make_trials
from benchmarks.rows import Row, report
from kvbudget import Plan, Profile, allocate, budgeted, measure_profile, reference_model
from kvbudget.allocator import Certificate
from kvbudget.demo.trying import Reader, divergence
from kvbudget.heuristics import ObservationWindow
from kvbudget.prose import built_in_sentences
from kvbudget.trials import Trial

SEED = 0


def random_plan(profile: Profile, share: float, draw: np.random.Generator) -> Plan:
    """Levels drawn at random around a share of the context, and the loss they predict."""
    geometry, context = profile.geometry, CONTEXT_TOKENS + FUTURE_TOKENS
    shape = (geometry.layers, geometry.kv_heads)
    wanted = np.clip(share * draw.lognormal(0.0, 0.7, shape), 0.0, 1.0)
    levels = np.abs(profile.kept_fraction - wanted[..., None]).argmin(-1)[..., None]
    menu = geometry.capacity_tokens(profile.kept_fraction, context)
    capacity = np.take_along_axis(menu, levels, -1)[..., 0]
    loss = float(np.take_along_axis(profile.loss, levels, -1).sum())
    return Plan(
        capacity_tokens=capacity,
        context_tokens=context,
        batch_size=1,
        budget_bytes=int(capacity.sum()) * geometry.bytes_per_token,
        certificate=Certificate("random", "FEASIBLE", loss, 0.0, 1.0),
        geometry=geometry,
        model=profile.model,
        heuristic=profile.heuristic,
        heuristic_settings=profile.heuristic_settings,
        measure=profile.measure,
    )


def solved_plan(profile: Profile, share: float) -> Plan:
    """The best division of a share of the full cache."""
    context = CONTEXT_TOKENS + FUTURE_TOKENS
    return allocate(profile, budget=f"{share:.2%}", context_tokens=context)


def measured(
    reader: Reader, plan: Plan, trials: Sequence[Trial], full: Sequence[torch.Tensor]
) -> float:
    """Mean divergence of the running model over all trials, in nats per token."""
    found = []
    for trial, reference in zip(trials, full, strict=True):
        with budgeted(reader.model, plan) as cache:
            reader.read_context(trial, cache)
            found.append(divergence(reference, reader.predict(trial, cache)))
    return fmean(found)


def summary(kind: str, pairs: Sequence[tuple[float, float]]) -> Iterator[Row]:
    """Rank correlation and ratio quantiles of (predicted, measured) pairs."""
    predicted, found = np.array(pairs).T
    yield Row(kind, "Spearman", float(spearmanr(predicted, found).statistic), "1", SEED)
    for share, value in zip(
        (10, 50, 90), np.quantile(predicted / found, (0.1, 0.5, 0.9)), strict=True
    ):
        yield Row(kind, f"predicted / measured, {share} % quantile", float(value), "1", SEED)


def run(plans: int, calibration: int, tests: int) -> Iterator[Row]:
    """Measure a profile, draw and solve plans, run them all on fresh prompts."""
    reader = Reader(*reference_model())
    sentences = built_in_sentences()
    half = len(sentences) // 2
    known = make_trials(reader, sentences[:half], calibration, 1000)
    prompts = [trial.ids for kind in known.values() for trial in kind]
    profile = measure_profile(
        reader.model, prompts, ObservationWindow(), future_tokens=FUTURE_TOKENS
    )
    profile = replace(profile, model="the reference model")
    fresh = make_trials(reader, sentences[half:], tests, 2000)
    trials = [trial for kind in fresh.values() for trial in kind]
    full = [reader.predict(trial, reader.read_context(trial)) for trial in trials]
    draw = np.random.default_rng(SEED)
    shares = np.linspace(0.05, 0.6, plans)
    made = {
        "random plans": [random_plan(profile, share, draw) for share in shares],
        "solved plans": [solved_plan(profile, share) for share in shares],
    }
    for kind, several in made.items():
        pairs = [(plan.loss, measured(reader, plan, trials, full)) for plan in several]
        for plan, (predicted, found) in zip(several, pairs, strict=True):
            name = f"{kind}, {plan.kept_fraction.mean():.1%} kept"
            yield Row(name, "predicted divergence", predicted, "nats per token", SEED)
            yield Row(name, "measured divergence", found, "nats per token", SEED)
        yield from summary(kind, pairs)


def main() -> None:
    """Run and print one line per figure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--plans", type=int, default=20, help="plans of each kind")
    arguments.add_argument("--calibration", type=int, default=4, help="prompts of each kind")
    arguments.add_argument("--tests", type=int, default=3, help="prompts of each kind")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    report(run(chosen.plans, chosen.calibration, chosen.tests), chosen.json)


if __name__ == "__main__":
    main()
