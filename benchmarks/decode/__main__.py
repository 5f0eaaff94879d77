"""Time decoding with a quarter of the cache, in heads of very unequal length, on this CPU.

    python -m benchmarks.decode --json decode.jsonl

Two ratios from the same run: attention alone (the ragged operation against scaled dot product
attention over the full cache, in place and on a copy), and whole steps of a Llama through
transformers (the budgeted cache against DynamicCache, which copies the cache for every token,
against StaticCache, and against a cache that copies nothing). `rounds.py` says how they are timed,
`caches.py` how long contexts are reached.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.rows import Row, report
from kvbudget import heuristics

from . import attention, end_to_end
from .case import Case


def rows(chosen: argparse.Namespace) -> Iterator[Row]:
    """All figures, small contexts first."""
    heuristic = heuristics.get(chosen.heuristic)()
    for context in chosen.contexts:
        for group in chosen.groups:
            for dtype in (torch.float32, torch.bfloat16):
                yield from attention.measure(Case(context, group, dtype), chosen.rounds)
            if not chosen.attention_only:
                yield from end_to_end.measure(Case(context, group), heuristic, chosen.rounds)


def main() -> None:
    """Measure and print one line per figure."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--contexts", type=int, nargs="+", default=[1024, 4096, 16384, 32768])
    arguments.add_argument("--groups", type=int, nargs="+", default=[1, 4])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--heuristic", default="sink_recent", help="chooses what is evicted")
    arguments.add_argument("--attention-only", action="store_true")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    report(rows(chosen), chosen.json)


if __name__ == "__main__":
    main()
