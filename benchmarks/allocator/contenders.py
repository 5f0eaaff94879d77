"""Ways to solve a problem that the benchmark of speed compares, each timed from the arrays on."""

import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from kvbudget.allocator import Problem, solve
from kvbudget.allocator.solver import Solver
from kvbudget.allocator.solvers import Exact, Hull, LinearProgram

LOSS_QUANTA = 2**40
"""CP-SAT takes whole numbers only: the largest total loss is counted in so many quanta."""


class Timed(NamedTuple):
    """One solve.

    Args:
        seconds: Time it took.
        loss: What its plan loses, infinite without one.
        bound: What it proved that no plan loses less than, minus infinity if nothing.
    """

    seconds: float
    loss: float
    bound: float


Contender = Callable[[Problem], Timed]


def plan_loss(problem: Problem, levels: np.ndarray[Any, Any]) -> float:
    """Loss of a plan; infinite if it does not fit the budget."""
    at = np.arange(len(problem.loss)), levels
    if int(problem.cost_bytes[at].sum()) > problem.budget_bytes:
        return math.inf
    return math.fsum(problem.loss[at].tolist())


@dataclass(frozen=True, slots=True)
class Ours:
    """A solver of the library."""

    solver: Solver

    def __call__(self, problem: Problem) -> Timed:
        """Solve as any user would."""
        solution = solve(problem, self.solver)
        return Timed(solution.seconds, solution.loss, solution.bound)


@dataclass(frozen=True, slots=True)
class MixedInteger:
    """HiGHS branch and cut through scipy, no gap allowed."""

    limit_seconds: float

    def __call__(self, problem: Problem) -> Timed:
        """Build the model and solve it."""
        units, levels = problem.loss.shape
        begin = time.perf_counter()
        columns = np.arange(units * levels)
        one_level = csr_array((np.ones(len(columns)), columns, np.arange(units + 1) * levels))
        answer: Any = milp(
            problem.loss.ravel(),
            constraints=[
                LinearConstraint(one_level, 1, 1),
                LinearConstraint(problem.cost_bytes.reshape(1, -1), ub=problem.budget_bytes),
            ],
            integrality=np.ones(units * levels),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0, "time_limit": self.limit_seconds},
        )
        seconds = time.perf_counter() - begin
        loss = math.inf
        if answer.x is not None:
            loss = plan_loss(problem, answer.x.reshape(units, levels).argmax(axis=1))
        # its own bound holds within tolerances only, so it is not used
        return Timed(seconds, loss, -math.inf)


@dataclass(frozen=True, slots=True)
class ConstraintProgram:
    """CP-SAT of OR-Tools in another process, on losses rounded to whole numbers."""

    python: Path
    limit_seconds: float

    def __call__(self, problem: Problem) -> Timed:
        """Write the problem, start the other Python, read its answer."""
        scale = LOSS_QUANTA / float(problem.loss.max(axis=1).sum())
        script = Path(__file__).with_name("cp_sat_process.py")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "problem.npz"
            np.savez(
                path,
                loss=np.rint(problem.loss * scale).astype(np.int64),
                cost_bytes=problem.cost_bytes,
                budget_bytes=problem.budget_bytes,
                limit_seconds=self.limit_seconds,
            )
            command = [str(self.python), str(script), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        levels = answer["levels"]
        loss = math.inf if levels is None else plan_loss(problem, np.array(levels))
        return Timed(answer["seconds"], loss, -math.inf)


def contenders(limit_seconds: float, ortools_python: Path | None) -> dict[str, Contender]:
    """All of them by name; CP-SAT only where there is a Python that has it."""
    found: dict[str, Contender] = {
        "HiGHS MILP": MixedInteger(limit_seconds),
        "Hull": Ours(Hull()),
        "Exact": Ours(Exact()),
        "cvxpy LP": Ours(LinearProgram()),
    }
    if ortools_python is not None and has_ortools(ortools_python):
        found["CP-SAT"] = ConstraintProgram(ortools_python, limit_seconds)
    else:
        print("CP-SAT left out: no Python with OR-Tools given by --ortools-python")
    return found


def has_ortools(python: Path) -> bool:
    """Whether a Python can import OR-Tools."""
    command = [str(python), "-c", "import ortools.sat.python.cp_model"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
