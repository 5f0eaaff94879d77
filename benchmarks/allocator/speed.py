"""How long each way to divide a budget takes, and how good its plan is.

    python -m benchmarks.allocator.speed --json speed.jsonl --ortools-python PYTHON

Contenders: this library's `Hull`, `Exact` and `LinearProgram` (cvxpy with HiGHS), HiGHS branch and
cut through scipy, and CP-SAT. Every one gets the same random menus, one after the other in the
same run, and as many repeats as fit the limit. Reported: the median time, the spread between the
quartiles of the repeats, the ratio of the medians to that of HiGHS, and how far the plan is above
the best bound proved by anyone. HiGHS and CP-SAT stop at the limit (presolve may overrun it);
cvxpy and CP-SAT are left out where a problem has more than a million levels in all.
"""

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.allocator.contenders import Contender, Timed, contenders
from benchmarks.allocator.menus import Size, random_menu
from benchmarks.rows import Row, report
from kvbudget.allocator import Problem

SIZES = (Size(256, 32), Size(256, 128), Size(1024, 256), Size(100_000, 32))
REFERENCE = "HiGHS MILP"
MOST_VARIABLES = {"cvxpy LP": 10**6, "CP-SAT": 10**6}
"""Building a larger model alone takes them minutes and no limit holds there."""


def repeat(
    contender: Contender, problem: Problem, repeats: int, limit_seconds: float
) -> list[Timed]:
    """Solve again and again, until the repeats or the time are used up."""
    done: list[Timed] = []
    while len(done) < repeats and sum(run.seconds for run in done) < limit_seconds:
        done.append(contender(problem))
    return done


def seconds(runs: Sequence[Timed]) -> float:
    """Median time."""
    return statistics.median(run.seconds for run in runs)


def spread(runs: Sequence[Timed]) -> float:
    """Distance between the quartiles of the time, as a share of its median."""
    times = [run.seconds for run in runs]
    low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return (high - low) / seconds(runs)


def rows(case: str, seed: int, found: dict[str, list[Timed]]) -> Iterator[Row]:
    """All figures of one problem."""
    bound = max(run.bound for runs in found.values() for run in runs)
    for name, runs in found.items():
        label = f"{case}, {name}"
        yield Row(label, "median time", seconds(runs), "s", seed)
        yield Row(label, "spread of time", spread(runs), "1", seed)
        yield Row(label, "time / HiGHS MILP", seconds(runs) / seconds(found[REFERENCE]), "1", seed)
        loss = runs[0].loss
        yield Row(label, "plan found", float(math.isfinite(loss)), "1", seed)
        if math.isfinite(loss):
            yield Row(label, "gap to best bound", max(loss - bound, 0.0) / loss, "1", seed)


def run(
    sizes: Sequence[Size],
    seeds: int,
    repeats: int,
    limit_seconds: float,
    ways: dict[str, Contender],
) -> Iterator[Row]:
    """Solve every problem in every way."""
    for size in sizes:
        variables = size.units * size.levels
        able = [name for name in ways if variables <= MOST_VARIABLES.get(name, variables)]
        for seed in range(seeds):
            problem = random_menu(size, seed)
            found = {name: repeat(ways[name], problem, repeats, limit_seconds) for name in able}
            yield from rows(str(size), seed, found)


def main() -> None:
    """Run and print one line per figure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sizes", type=int, default=len(SIZES), help="how many, small to large")
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=7)
    arguments.add_argument("--limit-seconds", type=float, default=60.0)
    arguments.add_argument("--ortools-python", type=Path, help="a Python that has OR-Tools")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    ways = contenders(chosen.limit_seconds, chosen.ortools_python)
    found = run(SIZES[: chosen.sizes], chosen.seeds, chosen.repeats, chosen.limit_seconds, ways)
    report(found, chosen.json)


if __name__ == "__main__":
    main()
