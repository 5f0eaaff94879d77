"""The public names of the package."""

import kvbudget as kvb

PUBLIC = {
    *("reference_model", "measure_profile", "measure_importance", "Profile", "Problem", "Solution"),
    *("solve", "allocate", "compare", "Comparison", "solvers", "Plan", "budgeted", "heuristics"),
    *("check_profile", "ProfileCheck", "shapley_importance"),
    *("Geometry", "Tokens", "Path", "solve_path", "Solver", "Choice"),
    *("search", "search_plans", "search_front", "constraints", "Mean", "WorstSample", "CVaR"),
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


def test_every_error_is_one_of_ours():
    errors = (kvb.InfeasibleBudget, kvb.UnsupportedModel, kvb.BadFile, kvb.WrongModel)
    assert all(issubclass(error, kvb.KVBudgetError) for error in errors)
