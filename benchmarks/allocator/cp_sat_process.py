"""CP-SAT on one problem, run as a script by a Python that has OR-Tools.

OR-Tools and the HiGHS bindings that cvxpy uses cannot be loaded into one process.

    python cp_sat_process.py problem.npz

The file holds whole-number losses, costs, the budget and a limit in seconds. Prints a JSON object
with the seconds from building the model to the end and the chosen levels, null if there are none.
"""

import json
import sys
import time

import numpy as np
from ortools.sat.python import cp_model


def main() -> None:
    problem = np.load(sys.argv[1])
    loss, cost = problem["loss"], problem["cost_bytes"]
    begin = time.perf_counter()
    model = cp_model.CpModel()
    share = [[model.new_bool_var("") for _ in row] for row in loss]
    for row in share:
        model.add_exactly_one(row)
    flat = [variable for row in share for variable in row]
    spent = cp_model.LinearExpr.weighted_sum(flat, cost.ravel().tolist())
    model.add(spent <= int(problem["budget_bytes"]))
    model.minimize(cp_model.LinearExpr.weighted_sum(flat, loss.ravel().tolist()))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = float(problem["limit_seconds"])
    status = solver.solve(model)
    seconds = time.perf_counter() - begin
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    levels = (
        [max(range(len(row)), key=lambda k: solver.value(row[k])) for row in share]
        if found
        else None
    )
    print(json.dumps({"seconds": seconds, "levels": levels}))


if __name__ == "__main__":
    main()
