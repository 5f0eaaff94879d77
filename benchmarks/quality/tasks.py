"""What the shipped model can still do within plans, task by task, with really freed bytes.

    python -m benchmarks.quality.tasks --json tasks.jsonl

All tasks of `kvbudget evaluate` on books that no training has seen (`--data`, or `--text` for
another text), and prose of a second text (`--more-prose`, WikiText-2 say). The divisions are equal
shares, and the one solved for losses that were measured on other texts. Times are ratios to the
full cache in the same process.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.reference_model.texts import data_folder, held_out_books
from benchmarks.rows import Row, report
from kvbudget import Evaluation, Plan, Profile, allocate, evaluate, measure_profile, reference_model
from kvbudget.allocator.solvers import Hull, Uniform
from kvbudget.evaluation import EvaluationRow, tasks
from kvbudget.heuristics import ObservationWindow
from kvbudget.prose import built_in_sentences, read_text
from kvbudget.trials import TrialMaker

BUDGETS = ("10%", "25%")
CALIBRATION_SEED, FUTURE_TOKENS = 1000, 128
BOOK_CHARS = 200_000


def measured(context_tokens: int, prompts: int) -> Profile:
    """Losses of the shipped model's caches, on Python's own reference."""
    model, tokenizer = reference_model()
    size = context_tokens - FUTURE_TOKENS
    maker = TrialMaker(built_in_sentences(), tokenizer, size, FUTURE_TOKENS)
    trials = maker.mixed(prompts, CALIBRATION_SEED)
    ids = [trial.ids for trial in trials]
    return measure_profile(model, ids, ObservationWindow(), future_tokens=FUTURE_TOKENS)


def divided(profile: Profile, context_tokens: int) -> dict[str, Plan]:
    """Every budget in two divisions, by name."""
    return {
        f"{budget} {type(solver).__name__}": allocate(
            profile, budget=budget, context_tokens=context_tokens, solver=solver
        )
        for budget in BUDGETS
        for solver in (Uniform(), Hull())
    }


def books(data: str | None) -> str:
    """A piece of each held-out book, in an order that is the same every time."""
    pieces = [book[:BOOK_CHARS] for book in held_out_books(data_folder(data))]
    random.Random(0).shuffle(pieces)
    return "\n".join(pieces)


def figures(found: Evaluation, suffix: str) -> Iterator[Row]:
    """One row for each figure."""
    full: dict[str, EvaluationRow] = {}
    for row in found.rows:
        first = full.setdefault(row.task, row)
        case = f"{row.task}{suffix}, {row.cache}"
        unit = "perplexity" if row.unit == "perplexity" else "share"
        yield Row(case, "score", row.score, unit, found.seed)
        yield Row(case, "held", row.held_bytes, "bytes", found.seed)
        yield Row(case, "allowed", row.asked_bytes, "bytes", found.seed)
        yield Row(case, "peak", row.peak_bytes, "bytes", found.seed)
        if row is first:
            continue
        if row.divergence is not None:
            yield Row(case, "divergence", row.divergence, "nats per token", found.seed)
        prefill = row.prefill_seconds / first.prefill_seconds
        yield Row(case, "prefill time", prefill, "of the full cache's", found.seed)
        if row.token_seconds is not None and first.token_seconds is not None:
            token = row.token_seconds / first.token_seconds
            yield Row(case, "time per token", token, "of the full cache's", found.seed)


def run(chosen: argparse.Namespace) -> Iterator[Row]:
    """Measure on one text, run on others."""
    plans = divided(measured(chosen.context, chosen.calibration), chosen.context)
    text = books(chosen.data) if chosen.text is None else read_text(chosen.text)
    size = {"context_tokens": chosen.context, "samples": chosen.samples, "seed": chosen.seed}
    model, tokenizer = reference_model()
    for known in (False, True):
        # what is asked for by name can be read twice: the others would only repeat themselves
        wanted = list(tasks.BUILT_IN) if not known else [tasks.SingleNeedle(), tasks.KeyValues()]
        for task in wanted:
            found = evaluate(
                model, tokenizer, plans, tasks=[task], text=text, question_known=known, **size
            )
            yield from figures(found, ", question known" if known else "")
    if chosen.more_prose is not None:
        other = read_text(chosen.more_prose)
        found = evaluate(model, tokenizer, plans, tasks=[tasks.Prose()], text=other, **size)
        yield from figures(found, f" of {chosen.more_prose.stem}")


def main() -> None:
    """Run and print one line per figure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", help="folder of gutenberg.jsonl.xz; its last books are used")
    arguments.add_argument("--text", type=Path, help="another text to hide things in")
    arguments.add_argument("--more-prose", type=Path, help="a second text for the prose task")
    arguments.add_argument("--context", type=int, default=1024, help="tokens of each sample")
    arguments.add_argument("--samples", type=int, default=4, help="contexts of each task")
    arguments.add_argument("--calibration", type=int, default=8, help="prompts to measure on")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    report(run(chosen), chosen.json)


if __name__ == "__main__":
    main()
