"""The solver that CONTRIBUTING.md writes works as it stands there."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kvbudget.allocator import Choice, Problem, Solver
from kvbudget.testing import check_solver

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def test_its_solver_passes_the_checks() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"dataclass": dataclass, "np": np, "Choice": Choice, "Problem": Problem}
    exec(block, {**names, "Solver": Solver}, found := {})
    solver = found["FirstCome"]()
    check_solver(solver)
    problem = Problem([[5.0, 0.0], [9.0, 0.0]], [[1, 2], [1, 2]], 3)
    assert solver.choose(problem).levels.tolist() == [1, 0]
