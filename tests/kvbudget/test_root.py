"""The public names of the package."""

import subprocess
import sys

import kvbudget as kvb

PUBLIC = {
    *("reference_model", "measure_profile", "measure_importance", "Profile", "Problem", "Solution"),
    *("solve", "allocate", "compare", "Comparison", "solvers", "Plan", "budgeted", "heuristics"),
    *("check_profile", "ProfileCheck", "shapley_importance"),
    *("BudgetedCache", "CacheShape", "geometry_of", "Adaptation", "WithinLayer", "Global"),
    *("device_bytes", "device_limits", "save_report"),
    *("Geometry", "Tokens", "Path", "solve_path", "Solver", "Choice"),
    *("search", "search_plans", "search_front", "constraints", "Mean", "WorstSample", "CVaR"),
    *("evaluate", "Evaluation", "evaluation"),
    "pictures",
    "testing",
    *("KVBudgetError", "InfeasibleBudget", "UnsupportedModel", "BadFile", "WrongModel"),
}


def test_the_public_names_are_these():
    assert set(kvb.__all__) == PUBLIC


def test_a_name_is_the_same_object_everywhere():
    import kvbudget.allocator
    import kvbudget.heuristics

    assert kvb.Plan is kvbudget.allocator.Plan
    assert kvb.solvers is kvbudget.allocator.solvers
    assert kvb.heuristics is kvbudget.heuristics
    assert kvb.solve is kvbudget.allocator.solve


def test_the_kit_needs_no_import_of_its_own():
    program = "import kvbudget as kvb; print(kvb.testing.check_heuristic.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"check_heuristic"]


def test_every_error_is_one_of_ours():
    errors = (kvb.InfeasibleBudget, kvb.UnsupportedModel, kvb.BadFile, kvb.WrongModel)
    assert all(issubclass(error, kvb.KVBudgetError) for error in errors)
