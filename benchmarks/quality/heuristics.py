"""Every token heuristic under four divisions of the same bytes, with really freed memory.

    python -m benchmarks.quality.heuristics --seeds 0 1 2 --json heuristics.jsonl
    python -m benchmarks.quality.heuristics --table heuristics.jsonl

Contexts are cut before the question is known: needles in prose, and prose that goes on. For each
heuristic and seed the caches are measured on fresh calibration prompts in three ways, and 10, 25
and 50 % of the context's bytes are divided equally, by AdaKV (on lost attention mass), and by
`Hull` for the losses of `output_error` and of `divergence`. Reported for each: divergence from the
full cache in nats per future token, and the share of the needles' answer tokens that are right.

Heuristics can be measured in several processes, each with `--heuristics` of its own; `--table`
takes all their files. Its last lines name the winners.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev

from benchmarks.quality.division import full_predictions, try_plan
from benchmarks.rows import Row, report
from kvbudget import Plan, allocate, heuristics, measure_profile, reference_model
from kvbudget.allocator.solvers import AdaKV, Hull, Uniform
from kvbudget.demo.trying import Reader
from kvbudget.heuristics import TokenHeuristic
from kvbudget.prose import built_in_sentences
from kvbudget.trials import Trial, TrialMaker

CONTEXT_TOKENS, FUTURE_TOKENS = 512, 128
BUDGETS = ("10%", "25%", "50%")
DIVISIONS = {
    "Uniform": ("attention_mass", Uniform()),
    "AdaKV": ("attention_mass", AdaKV()),
    "Hull, output_error": ("output_error", Hull()),
    "Hull, divergence": ("divergence", Hull()),
}
DIVERGENCE, RIGHT = "divergence", "right answer tokens"
Kinds = dict[str, list[Trial]]


def make_trials(reader: Reader, sentences: list[str], count: int, seed: int) -> Kinds:
    """So many trials of each kind."""
    maker = TrialMaker(sentences, reader.tokenizer, CONTEXT_TOKENS, FUTURE_TOKENS)
    seeds = range(seed, seed + count)
    return {
        "needles": [maker.needles(each) for each in seeds],
        "text": [maker.text(each) for each in seeds],
    }


def plans(reader: Reader, name: str, known: Kinds) -> Iterator[tuple[str, Plan]]:
    """Every budget under every division, measured for one heuristic."""
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, TokenHeuristic)
    prompts = [trial.ids for kind in known.values() for trial in kind]
    profiles = {
        measure: measure_profile(
            reader.model,
            prompts,
            heuristic,
            measure=measure,
            future_tokens=FUTURE_TOKENS,
            progress=False,
        )
        for measure in ("attention_mass", "output_error", "divergence")
    }
    for budget in BUDGETS:
        for division, (measure, solver) in DIVISIONS.items():
            profile = profiles[measure]
            plan = allocate(profile, budget=budget, context_tokens=CONTEXT_TOKENS, solver=solver)
            yield f"{name} | {division} | {budget}", plan


def run(names: Sequence[str], seeds: Sequence[int], calibration: int, tests: int) -> Iterator[Row]:
    """Measure, divide, run."""
    reader = Reader(*reference_model())
    sentences = built_in_sentences()
    half = len(sentences) // 2
    for seed in seeds:
        known = make_trials(reader, sentences[:half], calibration, 1000 + 100 * seed)
        fresh = make_trials(reader, sentences[half:], tests, 2000 + 100 * seed)
        full = full_predictions(reader, fresh)
        for name in names:
            for case, plan in plans(reader, name, known):
                diverged = []
                for kind, trials in fresh.items():
                    found, right, _ = try_plan(reader, plan, trials, full[kind])
                    diverged.append(found)
                    yield Row(f"{case} | {kind}", DIVERGENCE, found, "nats per token", seed)
                    if kind == "needles":
                        yield Row(case, RIGHT, right, "share", seed)
                yield Row(case, DIVERGENCE, fmean(diverged), "nats per token", seed)


Cells = dict[str, dict[tuple[str, str], list[float]]]


def read_cells(files: Sequence[Path], metric: str) -> Cells:
    """Values over the seeds by heuristic, then by division and budget."""
    cells: Cells = defaultdict(lambda: defaultdict(list))
    for path in files:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            parts = row["case"].split(" | ")
            if row["metric"] == metric and len(parts) == 3:
                cells[parts[0]][parts[1], parts[2]].append(row["value"])
    return cells


def table(files: Sequence[Path]) -> Iterator[str]:
    """Mean and standard deviation over seeds, and who is best where."""
    columns = [(division, budget) for budget in BUDGETS for division in DIVISIONS]
    for metric, best in ((DIVERGENCE, min), (RIGHT, max)):
        cells = read_cells(files, metric)
        yield f"\n{metric}, mean (standard deviation over seeds)\n"
        yield "| heuristic | " + " | ".join(f"{b} {d}" for d, b in columns) + " |"
        yield "|---" * (len(columns) + 1) + "|"
        for name in sorted(cells):
            shown = (
                f"{fmean(v):.3g} ({pstdev(v):.1g})" for v in map(cells[name].get, columns) if v
            )
            yield f"| {name} | " + " | ".join(shown) + " |"
        for column in columns:
            means = {name: fmean(cells[name][column]) for name in cells if cells[name][column]}
            winner = best(means, key=lambda name: means[name])
            yield f"best {metric} at {column[1]} by {column[0]}: {winner} ({means[winner]:.4g})"
        yield from ranks(cells, columns, best is min)


def ranks(cells: Cells, columns: Sequence[tuple[str, str]], low_is_good: bool) -> Iterator[str]:
    """Heuristics by their mean rank over all columns."""
    total: dict[str, float] = defaultdict(float)
    for column in columns:
        means = {name: fmean(cells[name][column]) for name in cells if cells[name][column]}
        for rank, name in enumerate(sorted(means, key=lambda n: means[n], reverse=not low_is_good)):
            total[name] += (rank + 1) / len(columns)
    ordered = sorted(total.items(), key=lambda pair: pair[1])
    yield "mean rank: " + ", ".join(f"{name} {rank:.1f}" for name, rank in ordered)


def main() -> None:
    """Run and print one line per figure, or print the table of earlier runs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--heuristics", nargs="+", help="names; all by default")
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments.add_argument("--calibration", type=int, default=2, help="prompts of each kind")
    arguments.add_argument("--tests", type=int, default=3, help="prompts of each kind")
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--table", type=Path, nargs="+", help="result files to tabulate")
    options = arguments.parse_args()
    if options.table:
        print("\n".join(table(options.table)))
        return
    names = options.heuristics or heuristics.names(TokenHeuristic)
    report(run(names, options.seeds, options.calibration, options.tests), options.json)


if __name__ == "__main__":
    main()
