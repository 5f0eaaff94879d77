"""What divisions by the importance of caches are worth, with really freed bytes.

    python -m benchmarks.quality.importance --json importance.jsonl

Every cache heuristic weighs the caches of the reference model, and so do the coalitions of
`shapley_importance`. The memory is divided in proportion to each importance, and where a published
rule takes it also by that rule. All run with the same token heuristic on the trials of
`benchmarks.quality.division`, next to equal shares and to the division solved for the measured
divergence. Reported: where each importance is largest and what share of all that is; divergence
from the full cache, in nats per future token, over all kinds of trials and over needles alone.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.quality.division import (
    CONTEXT_TOKENS,
    FUTURE_TOKENS,
    SEED,
    full_predictions,
    make_trials,
    try_plan,
)
from benchmarks.rows import Row, report
from kvbudget import (
    Plan,
    Profile,
    Solver,
    allocate,
    measure_importance,
    measure_profile,
    reference_model,
    solvers,
)
from kvbudget.demo.trying import Reader
from kvbudget.heuristics import (
    CacheHeuristic,
    Fisher,
    Lost,
    ObservationWindow,
    build,
    name_of,
    names,
    settings_of,
)
from kvbudget.prose import built_in_sentences, file_sentences
from kvbudget.runtime import geometry_of
from kvbudget.runtime.coalitions import shapley_importance

BUDGETS = ("10%", "25%", "50%")
RULES: dict[str, type[Solver]] = {
    "baklava": solvers.BaKlaVa,
    "cake": solvers.CAKE,
    "coalitions": solvers.CoKV,
    "compress_kv": solvers.CompressKV,
    "head_kv": solvers.HeadKV,
    "passkey_heads": solvers.DuoAttention,
    "residual_change": solvers.SqueezeAttention,
    "retrieval_heads": solvers.RazorAttention,
}


def importances(reader: Reader, prompts: list[list[int]]) -> Iterator[tuple[str, np.ndarray]]:
    """Every importance there is, [layers, kv_heads], by its name."""
    chosen = {name: build(name) for name in names(CacheHeuristic)}
    for name, heuristic in {**chosen, "fisher of whole outputs": Fisher(lost=Lost.ALL)}.items():
        assert isinstance(heuristic, CacheHeuristic)
        yield name, measure_importance(reader.model, prompts, heuristic)
    each_kind = prompts[:: len(prompts) // 3]
    yield "coalitions", shapley_importance(reader.model, each_kind, future_tokens=FUTURE_TOKENS)


def arms(profile: Profile, found: dict[str, np.ndarray]) -> Iterator[tuple[str, Plan]]:
    """Every budget under every division."""
    token, size = ObservationWindow(), CONTEXT_TOKENS + FUTURE_TOKENS
    for budget in BUDGETS:

        def plan(curves: Profile, solver: Solver, budget: str = budget) -> Plan:
            return allocate(curves, budget=budget, context_tokens=size, solver=solver)

        yield f"{budget} equal shares", plan(profile, solvers.Uniform())
        yield f"{budget} solved for divergence", plan(profile, solvers.Hull())
        for name, importance in found.items():
            shares = Profile.from_importance(
                importance,
                profile.geometry,
                heuristic=name_of(token),
                heuristic_settings=settings_of(token),
            )
            yield f"{budget} in proportion to {name}", plan(shares, solvers.Hull())
            if name in RULES:
                rule = RULES[name](importance=importance)  # type: ignore[call-arg]
                yield f"{budget} {RULES[name].__name__} by {name}", plan(shares, rule)


def run(sentences: list[str], calibration: int, tests: int) -> Iterator[Row]:
    """Weigh, divide, run."""
    reader = Reader(*reference_model())
    half = len(sentences) // 2
    known = make_trials(reader, sentences[:half], calibration, 1000)
    prompts = [trial.ids for kind in known.values() for trial in kind]
    profile = measure_profile(
        reader.model, prompts, ObservationWindow(), future_tokens=FUTURE_TOKENS
    )
    assert profile.geometry == geometry_of(reader.model)
    found = dict(importances(reader, prompts))
    for name, importance in found.items():
        layer, kv_head = np.unravel_index(importance.argmax(), importance.shape)
        case = f"{name}, largest at layer {layer}, KV head {kv_head}"
        yield Row(case, "share of all importance", importance.max() / importance.sum(), "1", SEED)
    fresh = make_trials(reader, sentences[half:], tests, 2000)
    full = full_predictions(reader, fresh)
    for name, plan in arms(profile, found):
        diverged = {
            kind: try_plan(reader, plan, trials, full[kind])[0] for kind, trials in fresh.items()
        }
        yield Row(name, "divergence, all", fmean(diverged.values()), "nats per token", SEED)
        yield Row(name, "divergence, needles", diverged["needles"], "nats per token", SEED)


def main() -> None:
    """Run and print one line per figure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--text", type=Path, help="prose to use; the built-in text by default")
    arguments.add_argument("--calibration", type=int, default=2, help="prompts of each kind")
    arguments.add_argument("--tests", type=int, default=4, help="prompts of each kind")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    sentences = built_in_sentences() if chosen.text is None else file_sentences(chosen.text)
    report(run(sentences, chosen.calibration, chosen.tests), chosen.json)


if __name__ == "__main__":
    main()
