"""How the time of Hull and Exact grows with the number of caches and of levels.

    python -m benchmarks.allocator.scaling --json scaling.jsonl --plot scaling.png

Random menus, solved by both in turn; reported are the median time over several seeds and the share
that was proved optimal.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.allocator.menus import Size, random_menu
from benchmarks.rows import Row, report
from kvbudget.allocator import Solution, Status, solve
from kvbudget.allocator.solver import Solver
from kvbudget.allocator.solvers import Exact, Hull

CACHES = (64, 256, 1024, 4096, 16_384, 65_536)
LEVELS = (8, 16, 32, 64, 128, 256, 512)
FIXED = Size(256, 64)
SOLVERS: tuple[Solver, ...] = (Hull(), Exact())


@dataclass(frozen=True, slots=True)
class Point:
    """One size solved by one solver.

    Args:
        axis: What grows along the series: "caches" or "levels".
        number: How many of them.
        solver: Name of the solver.
        seconds: Median time.
        proved: Share of the problems with a proof.
    """

    axis: str
    number: int
    solver: str
    seconds: float
    proved: float


def sizes() -> Iterator[tuple[str, int, Size]]:
    """Both series: the axis, the number along it, and the size."""
    for caches in CACHES:
        yield "caches", caches, Size(caches, FIXED.levels)
    for levels in LEVELS:
        yield "levels", levels, Size(FIXED.units, levels)


def measure(seeds: int) -> Iterator[Point]:
    """Time both solvers along both series."""
    for axis, number, size in sizes():
        found: dict[Solver, list[Solution]] = {solver: [] for solver in SOLVERS}
        # turn by turn, so that a busy moment of the machine meets both
        for problem in [random_menu(size, seed) for seed in range(seeds)]:
            for solver in SOLVERS:
                found[solver].append(solve(problem, solver))
        for solver, solutions in found.items():
            median = statistics.median(solution.seconds for solution in solutions)
            proved = statistics.fmean(solution.status is Status.OPTIMAL for solution in solutions)
            yield Point(axis, number, type(solver).__name__, median, proved)


def rows(points: Sequence[Point]) -> Iterator[Row]:
    """The figures of all points."""
    for point in points:
        other = FIXED.levels if point.axis == "caches" else FIXED.units
        fixed = "levels" if point.axis == "caches" else "caches"
        case = f"{point.number:,} {point.axis}, {other} {fixed}, {point.solver}"
        yield Row(case, "median time", point.seconds, "s", 0)
        yield Row(case, "proved optimal", point.proved, "share", 0)


def draw(points: Sequence[Point], path: Path) -> None:
    """Two panels of time over size, both axes logarithmic; lines differ without colour too."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    styles = {"Hull": ("0.0", "o", "-"), "Exact": ("0.45", "s", "--")}
    titles = {"caches": f"{FIXED.levels} levels each", "levels": f"{FIXED.units} caches"}
    for panel, (axis, title) in zip(panels, titles.items(), strict=True):
        for solver, (shade, marker, dash) in styles.items():
            line = [point for point in points if (point.axis, point.solver) == (axis, solver)]
            numbers = [point.number for point in line]
            times = [1000 * point.seconds for point in line]
            panel.loglog(numbers, times, color=shade, marker=marker, linestyle=dash, label=solver)
        panel.set(title=title, xlabel=f"{axis} (number)")
        panel.set_xticks(numbers, [f"{number:,}" for number in numbers], rotation=30)
        panel.minorticks_off()
        panel.grid(which="major", color="0.88")
    panels[0].set_ylabel("median time (ms)")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=160)


def main() -> None:
    """Run, print one line per figure, and draw."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=7)
    arguments.add_argument("--plot", type=Path)
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    points = list(measure(chosen.seeds))
    report(rows(points), chosen.json)
    if chosen.plot is not None:
        draw(points, chosen.plot)


if __name__ == "__main__":
    main()
