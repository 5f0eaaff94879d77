"""Lead budgeted caches through long random lives, and compare every forward with dense attention.

    python -m benchmarks.runtime.soak --steps 50000 --seed 0 --json soak.jsonl

Prompts, turns, drafts that are taken back, copies, other budgets, other rows, saving and loading
come in random order. After every forward the logits must equal those of dense attention over the
tokens that were held, no byte may lie above the budget, and nothing may have been evicted that
would have fitted. A step is a token decoded by itself; other forwards come on top.

The first fault ends the run, and says how to see it again: `--seed S --life L --until N`.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.rows import Row, report
from benchmarks.runtime.soak_dense import Dense, build_model
from benchmarks.runtime.soak_life import HEURISTICS, ROWS, Life
from benchmarks.runtime.soak_operations import live

LIVES = len(ROWS) * len(HEURISTICS)
SAID_EVERY = 1000


class Progress:
    """Prints a line every thousand steps."""

    def __init__(self) -> None:
        self._said, self._start = 0, time.process_time()

    def __call__(self, life: Life) -> None:
        """Say how far a life has come."""
        if life.steps // SAID_EVERY == self._said:
            return
        self._said = life.steps // SAID_EVERY
        seconds = time.process_time() - self._start
        print(
            f"life {life.number}: {life.steps} steps, {life.worst.forwards} forwards, "
            f"worst difference {life.worst.difference:.2e}, {seconds:.0f} s of processor time",
            flush=True,
        )


def soak(seed: int, steps: int, lives: list[int]) -> Iterator[Row]:
    """Lead lives of so many steps together."""
    model = build_model()
    dense, counts, finished = Dense(model), Counter[str](), list[Life]()
    for place, number in enumerate(lives):
        life = Life(seed, number)
        share = steps * (place + 1) // len(lives) - steps * place // len(lives)
        live(model, dense, life, share, Progress())
        finished.append(life)
        counts += life.counts
        yield Row(_name(life), "worst difference", life.worst.difference, "of spread", seed)
    every = f"{len(lives)} lives"
    yield Row(every, "tokens decoded", sum(life.steps for life in finished), "1", seed)
    worst = [life.worst for life in finished]
    yield Row(every, "forwards compared", sum(each.forwards for each in worst), "1", seed)
    yield Row(every, "of them evicting", sum(each.evicting for each in worst), "1", seed)
    yield Row(every, "worst difference", max(each.difference for each in worst), "of spread", seed)
    yield Row(every, "most held / budget", max(each.held_share for each in worst), "1", seed)
    for operation, count in sorted(counts.items()):
        yield Row(every, operation, count, "times", seed)


def _name(life: Life) -> str:
    return f"life {life.number}, {life.rows} row(s), {life.heuristic}"


def main() -> None:
    """Lead all lives, or one again up to a step."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=50_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--life", type=int, help="only this one")
    arguments.add_argument("--until", type=int, help="how far that one is led")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    lives = list(range(LIVES)) if chosen.life is None else [chosen.life]
    steps = chosen.steps if chosen.until is None else chosen.until
    report(soak(chosen.seed, steps, lives), chosen.json)


if __name__ == "__main__":
    main()
