"""Which needles are found: by depth and length of the context, with the full cache and with plans.

    python -m benchmarks.quality.needle_grid --json needle_grid.jsonl --picture needles.png

Four facts are hidden in prose, the one that is asked for at a given depth. The context is read and
cut before the question is known. An answer counts if it is exact. A plan keeps the same share of
every length; it is made from a profile of other contexts.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import kvbudget as kvb
from benchmarks.rows import Row, report
from kvbudget import Plan, Profile, reference_model
from kvbudget.allocator.solver import Solver
from kvbudget.allocator.solvers import Hull, Uniform
from kvbudget.demo.run import DemoRun, DemoSize
from kvbudget.demo.trying import Reader
from kvbudget.needles import make_needle_prompt
from kvbudget.pictures import NeedleGrid, draw_needles
from kvbudget.prose import built_in_sentences, file_sentences
from kvbudget.trials import Trial

LENGTHS, DEPTHS = (256, 512, 1024, 1536, 2000), (0.0, 0.25, 0.5, 0.75, 1.0)
SOLVERS: tuple[Solver, ...] = (Uniform(), Hull())
SEED, FULL, UNIT = 4000, "full cache", "share of needles"


@dataclass(frozen=True, slots=True)
class Cell:
    """One length and depth.

    Args:
        tokens: Length of the context with its question.
        depth: Share of the context before the needle.
    """

    tokens: int
    depth: float

    def case(self, arm: str) -> str:
        """What a row is called."""
        return f"{arm}, {self.tokens} tokens, depth {self.depth:.0%}"


def needle_trial(reader: Reader, sentences: Sequence[str], cell: Cell, seed: int) -> Trial:
    """A context without its question; the question and its answer are the future."""
    prompt = make_needle_prompt(
        sentences, reader.tokenizer.encode, tokens=cell.tokens, depth=cell.depth, seed=seed
    )
    cut = prompt.text.rindex("\nQuestion:")
    context = reader.tokenizer.encode(prompt.text[:cut])
    question = reader.tokenizer.encode(prompt.text[cut:])
    answer = reader.tokenizer.encode(prompt.answer)
    end = len(question) + len(answer)
    return Trial(context, question + answer, ((len(question), end),))


def arms(profile: Profile, share: str) -> dict[str, dict[int, Plan]]:
    """The plans of each solver for every length."""
    return {
        f"{type(solver).__name__}, {share}": {
            tokens: kvb.allocate(profile, budget=share, context_tokens=tokens, solver=solver)
            for tokens in LENGTHS
        }
        for solver in SOLVERS
    }


def is_found(reader: Reader, trial: Trial, plan: Plan | None) -> bool:
    """Whether the answer is exact, with the full cache or with a plan's."""
    if plan is None:
        expected = reader.predict(trial, reader.read_context(trial))
    else:
        with kvb.budgeted(reader.model, plan) as cache:
            reader.read_context(trial, cache)
            expected = reader.predict(trial, cache)
    ((_, exact),) = reader.said(trial, expected)
    return exact


def run(
    reader: Reader, sentences: Sequence[str], profile: Profile, share: str, samples: int
) -> Iterator[Row]:
    """Try every cell with the full cache and with every plan."""
    plans = arms(profile, share)
    for cell in (Cell(tokens, depth) for tokens in LENGTHS for depth in DEPTHS):
        trials = [needle_trial(reader, sentences, cell, SEED + at) for at in range(samples)]
        for arm in (FULL, *plans):
            plan = None if arm == FULL else plans[arm][cell.tokens]
            found = fmean(is_found(reader, trial, plan) for trial in trials)
            yield Row(cell.case(arm), "found", found, UNIT, SEED)


def grids(rows: Sequence[Row], samples: int) -> list[NeedleGrid]:
    """The rows as grids, one for each cache."""
    found = {row.case: row.value for row in rows}
    names = dict.fromkeys(row.case.split(", depth")[0].rsplit(", ", 1)[0] for row in rows)
    return [
        NeedleGrid(
            name,
            LENGTHS,
            DEPTHS,
            tuple(tuple(found[Cell(n, depth).case(name)] for n in LENGTHS) for depth in DEPTHS),
            samples,
        )
        for name in names
    ]


def noted(rows: Iterator[Row], into: list[Row]) -> Iterator[Row]:
    """The same rows, each put into a list as it comes."""
    for row in rows:
        into.append(row)
        yield row


def measured(reader: Reader, sentences: Sequence[str]) -> Profile:
    """The profile of the demo, which is measured on the first half of the sentences."""
    demo = DemoRun(reader, "the reference model", sentences, DemoSize())
    return replace(demo.measure(), model="the reference model")


def main() -> None:
    """Run, print one line per figure, and draw."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.needle_grid",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--text", type=Path, help="prose to use; the built-in text by default")
    arguments.add_argument("--share", default="10%", help="of the full cache that plans keep")
    arguments.add_argument("--samples", type=int, default=8, help="needles in each cell")
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--picture", type=Path, help="a .png or .svg file to draw into")
    chosen = arguments.parse_args()
    sentences = built_in_sentences() if chosen.text is None else file_sentences(chosen.text)
    reader = Reader(*reference_model())
    profile, fresh = measured(reader, sentences), sentences[len(sentences) // 2 :]
    rows: list[Row] = []
    report(noted(run(reader, fresh, profile, chosen.share, chosen.samples), rows), chosen.json)
    if chosen.picture is not None:
        picture = draw_needles(grids(rows, chosen.samples))
        picture.save(chosen.picture)
        print(picture)


if __name__ == "__main__":
    main()
