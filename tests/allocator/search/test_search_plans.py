"""Searching plans for a measured number."""

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest

from kvbudget.allocator import (
    Hull,
    InfeasibleBudget,
    Plan,
    Problem,
    Profile,
    WorstSample,
    constraints,
    solve,
)
from kvbudget.allocator.search import (
    CmaEs,
    LayerGroups,
    NsgaII,
    Outcome,
    Parameters,
    Sampler,
    ShareAndRatio,
    Tpe,
    search_front,
    search_plans,
)
from kvbudget.allocator.solvers.optuna_search import OptunaSearch
from kvbudget.allocator.solvers.published.evolkv import EvolKV

Objective = Callable[[Plan], float]


def test_the_plan_with_the_lowest_measured_value_is_chosen(
    deep: Problem, objective: Objective
) -> None:
    search = OptunaSearch(objective=objective, trials=30)
    result = search_plans(deep, search)
    values = [objective(result.plan_of(record)) for record in result.records]
    assert [record.value for record in result.records] == values
    assert result.best.value == min(values) == objective(result.plan)
    solution = solve(deep, search)
    assert solution.plan.capacity_tokens.tolist() == result.plan.capacity_tokens.tolist()
    assert solution.loss == result.best.loss


def test_a_search_finds_what_the_predicted_loss_does_not_know(
    deep: Problem, objective: Objective
) -> None:
    best = search_plans(deep, OptunaSearch(objective=objective, trials=30)).best
    assert best.value < 0.9 * objective(solve(deep, Hull()).plan)


@pytest.mark.parametrize("parameters", [ShareAndRatio(), LayerGroups(group_size=2)], ids=repr)
def test_the_plan_of_the_hull_is_measured_first(
    problem: Problem, objective: Objective, parameters: Parameters
) -> None:
    result = search_plans(problem, OptunaSearch(objective, parameters, trials=1))
    (record,) = result.records
    assert record.levels.tolist() == solve(problem, Hull()).levels.tolist()
    assert record.outcome is Outcome.MEASURED


def test_the_starts_of_the_parameters_follow(deep: Problem, objective: Objective) -> None:
    result = search_plans(deep, OptunaSearch(objective, ShareAndRatio(), trials=3))
    assert (("share", 0.0), ("ratio", 1.0)) in [record.parameters for record in result.records]


@pytest.mark.parametrize("sampler", [Tpe(3), CmaEs(), NsgaII(4)], ids=repr)
def test_equal_searches_make_equal_trials(
    deep: Problem, objective: Objective, sampler: Sampler
) -> None:
    results = [
        search_plans(deep, OptunaSearch(objective, sampler=sampler, trials=15, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert results[0].records == results[1].records
    assert results[0].records != results[2].records


def test_a_plan_is_measured_once(problem: Problem, objective: Objective) -> None:
    seen: list[bytes] = []

    def counted(plan: Plan) -> float:
        seen.append(plan.capacity_tokens.tobytes())
        return objective(plan)

    result = search_plans(problem, OptunaSearch(counted, trials=40))
    assert len(result.records) == 40
    assert len(seen) == len(set(seen)) < 40
    assert result.calls == len(seen) == len(result.measured)
    values = {record.levels.tobytes(): record.value for record in result.measured}
    repeated = [record for record in result.records if record.outcome is Outcome.REPEATED]
    assert len(repeated) == 40 - len(seen)
    assert all(record.value == values[record.levels.tobytes()] for record in repeated)
    assert f"40 trials, {len(seen)} calls of the objective" in str(result)


def test_a_front_counts_calls_too(problem: Problem, objective: Objective) -> None:
    seen: list[Plan] = []
    result = search_front(
        problem, OptunaSearch(lambda plan: seen.append(plan) or objective(plan), trials=30)
    )  # type: ignore[func-returns-value]
    assert len(result.records) == 30 > result.calls == len(seen)


def test_every_measured_plan_fits_and_carries_its_certificate(problem: Problem) -> None:
    def check(plan: Plan) -> float:
        assert plan.used_bytes <= plan.budget_bytes == problem.budget_bytes
        assert 0 < plan.certificate.bound <= plan.certificate.loss
        assert plan.certificate.solver == "OptunaSearch(trials=20)"
        return plan.loss

    result = search_plans(problem, OptunaSearch(check, trials=20))
    assert all(record.value == record.loss for record in result.records)


def test_without_an_objective_the_search_stops_at_a_proven_plan() -> None:
    result = search_plans(Problem([[9.0, 5.0, 1.0]] * 2, [[1, 2, 3]] * 2, 4), OptunaSearch())
    assert len(result.records) == 1


def test_values_that_are_no_numbers_are_failed_trials(
    problem: Problem, objective: Objective
) -> None:
    calls: list[int] = []

    def sometimes(plan: Plan) -> float:
        calls.append(1)
        return math.nan if len(calls) % 2 else objective(plan)

    result = search_plans(problem, OptunaSearch(sometimes, trials=10))
    outcomes = [record.outcome for record in result.records]
    assert len(outcomes) == 10
    assert outcomes[0] is Outcome.FAILED
    assert math.isnan(result.records[0].value)
    assert Outcome.MEASURED in outcomes


def test_a_search_that_never_gets_a_number_says_so(problem: Problem) -> None:
    search = OptunaSearch(lambda plan: math.nan, trials=3)
    assert len(search_plans(problem, search).records) == 3
    with pytest.raises(ValueError, match=r"`objective` must give a number .* 3 trials gave none"):
        solve(problem, search)


def test_an_infinite_value_is_a_value(problem: Problem, objective: Objective) -> None:
    hull = solve(problem, Hull()).plan.capacity_tokens.tolist()

    def overflowing(plan: Plan) -> float:
        return math.inf if plan.capacity_tokens.tolist() == hull else objective(plan)

    result = search_plans(problem, OptunaSearch(overflowing, trials=15))
    assert result.records[0].value == math.inf
    assert result.records[0].to_record()["value"] is None
    assert math.isfinite(result.best.value)


@pytest.mark.parametrize("answer", [None, "4 nats", [1.0]])
def test_an_objective_that_gives_no_number_is_refused(problem: Problem, answer: object) -> None:
    with pytest.raises(TypeError, match="`objective` must return a number or yield numbers"):
        search_plans(problem, OptunaSearch(lambda plan: answer))  # type: ignore[arg-type, return-value]


def test_an_error_in_the_objective_reaches_the_caller(problem: Problem) -> None:
    def broken(plan: Plan) -> float:
        raise ZeroDivisionError("of the user")

    with pytest.raises(ZeroDivisionError, match="of the user"):
        solve(problem, OptunaSearch(broken))


def test_hopeless_plans_are_given_up_early(deep: Problem, objective: Objective) -> None:
    steps: list[int] = []

    def better_and_better(plan: Plan) -> Iterator[float]:
        for step in range(4):
            steps.append(step)
            yield objective(plan) + 1 / (step + 1)

    result = search_plans(deep, OptunaSearch(better_and_better, trials=30))
    outcomes = [record.outcome for record in result.records]
    assert {Outcome.MEASURED, Outcome.PRUNED} <= set(outcomes)
    assert len(steps) < 4 * 30
    assert result.best.value == pytest.approx(objective(result.plan) + 1 / 4)
    pruned = [record for record in result.records if record.outcome is Outcome.PRUNED]
    assert all(record.value > result.best.value for record in pruned)
    assert Outcome.PRUNED not in outcomes[:5]


def test_an_estimate_that_is_no_number_ends_a_trial(problem: Problem, objective: Objective) -> None:
    calls: list[str] = []

    def stumbles(plan: Plan) -> Iterator[float]:
        calls.append("first")
        yield math.nan if len(calls) == 1 else objective(plan)
        calls.append("second")
        yield objective(plan)

    result = search_plans(problem, OptunaSearch(stumbles, trials=2))
    assert [record.outcome for record in result.records] == [Outcome.FAILED, Outcome.MEASURED]
    assert calls == ["first", "first", "second"]


def test_an_objective_that_yields_nothing_failed(problem: Problem) -> None:
    def silent(plan: Plan) -> Iterator[float]:
        yield from ()

    (record,) = search_plans(problem, OptunaSearch(silent, trials=1)).records
    assert record.outcome is Outcome.FAILED


def test_the_last_estimate_counts_and_a_plan_that_was_given_up_is_never_the_best(
    deep: Problem,
) -> None:
    def falling_then_final(plan: Plan) -> Iterator[float]:
        yield -float(plan.capacity_tokens.sum())
        yield float(plan.capacity_tokens[0, 0])

    result = search_plans(deep, OptunaSearch(falling_then_final, trials=30))
    assert Outcome.PRUNED in {record.outcome for record in result.records}
    assert result.best.value == result.plan.capacity_tokens[0, 0] > 0


def test_an_objective_needs_a_model(objective: Objective) -> None:
    problem = Problem([[4.0, 1.0, 0.0]] * 3, [[1, 3, 6]] * 3, 8)
    with pytest.raises(ValueError, match=r"`objective` .* Problem\.from_profile"):
        solve(problem, OptunaSearch(objective))


def test_a_constraint_that_merges_caches_is_searched_by_search_plans_only(
    profile: Profile, objective: Objective
) -> None:
    equal = Problem.from_profile(
        profile, budget="40%", context_tokens=100, constraints=(constraints.EqualInLayer(),)
    )
    search = OptunaSearch(objective, trials=10)
    with pytest.raises(ValueError, match="made several caches one"):
        solve(equal, search)
    result = search_plans(equal, search)
    assert {r.outcome for r in result.records} <= {Outcome.MEASURED, Outcome.REPEATED}
    assert result.calls >= 1
    tokens = result.plan.capacity_tokens
    assert (tokens == tokens[:, :1]).all()


def test_constraints_hold_in_every_measured_plan(profile: Profile) -> None:
    least = Problem.from_profile(
        profile, budget="60%", context_tokens=100, constraints=(constraints.LeastTokens(25),)
    )

    def check(plan: Plan) -> float:
        assert plan.capacity_tokens[[0, 2]].min() >= 25
        return plan.loss

    result = search_plans(least, OptunaSearch(check, trials=15))
    assert len(result.records) == 15
    assert solve(least, OptunaSearch(check, trials=15)).levels.tolist() == (
        result.best.levels.tolist()
    )


def test_what_a_search_cannot_honour_is_refused(profile: Profile) -> None:
    few = Problem.from_profile(
        profile, budget="40%", context_tokens=100, constraints=(constraints.MostCapacities(2),)
    )
    with pytest.raises(ValueError, match="must honour MostCapacities"):
        search_plans(few, OptunaSearch())


def test_a_budget_that_is_too_small_is_refused(profile: Profile) -> None:
    small = Problem.from_profile(profile, budget=1, context_tokens=100)
    with pytest.raises(InfeasibleBudget, match="No plan fits 1 B"):
        search_plans(small, OptunaSearch())


def test_the_worst_sample_can_be_searched(profile: Profile) -> None:
    worst = Problem.from_profile(profile, budget="40%", context_tokens=100, risk=WorstSample())
    mean = Problem.from_profile(profile, budget="40%", context_tokens=100)
    solution = solve(worst, OptunaSearch())
    assert solution.loss <= worst.total_loss(solve(mean, Hull()).levels)
    assert solution.bound <= solution.loss


@pytest.mark.parametrize("sampler", [Tpe(), NsgaII(8)], ids=repr)
def test_a_front_falls_in_value_as_memory_rises(
    deep: Problem, objective: Objective, sampler: Sampler
) -> None:
    search = OptunaSearch(objective, sampler=sampler, trials=40)
    result = search_front(deep, search)
    front = result.front
    used, values = (np.array([getattr(r, n) for r in front]) for n in ("used_bytes", "value"))
    assert len(front) >= 5
    assert (np.diff(used) > 0).all()
    assert (np.diff(values) < 0).all()
    assert used[0] == deep.floor_bytes
    assert used[-1] <= deep.budget_bytes
    for record in result.records:
        assert any(r.used_bytes <= record.used_bytes and r.value <= record.value for r in front)


def test_plans_of_a_front_have_their_memory_as_budget(
    problem: Problem, objective: Objective
) -> None:
    result = search_front(problem, OptunaSearch(objective, trials=10))
    for record in result.front:
        plan = result.plan_of(record)
        assert plan.used_bytes == plan.budget_bytes == record.used_bytes
        assert objective(plan) == record.value
        assert plan.certificate.bound <= plan.certificate.loss


def test_a_front_works_without_an_objective_and_with_estimates(problem: Problem) -> None:
    def twice(plan: Plan) -> Iterator[float]:
        yield 1e9
        yield plan.loss

    predicted = search_front(problem, OptunaSearch(trials=12))
    measured = search_front(problem, OptunaSearch(twice, trials=12))
    assert predicted.front == measured.front
    assert len(predicted.records) == 12


def test_a_front_does_not_end_at_a_proven_plan() -> None:
    proven = Problem([[9.0, 5.0, 1.0]] * 2, [[1, 2, 3]] * 2, 4)
    assert len(search_front(proven, OptunaSearch(trials=9)).records) == 9


def test_optuna_stays_quiet_and_as_loud_as_it_was(problem: Problem, objective: Objective) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    logger = logging.getLogger("optuna")
    logger.addHandler(handler)
    try:
        search_plans(problem, OptunaSearch(objective, sampler=CmaEs(), trials=8))
        assert heard == []
        assert optuna.logging.get_verbosity() == logging.INFO
        optuna.create_study()
        assert len(heard) == 1
    finally:
        logger.removeHandler(handler)


SEARCHES = pytest.mark.parametrize("run", [search_plans, search_front])


@SEARCHES
@pytest.mark.parametrize("wrong", [Hull(), OptunaSearch, EvolKV(), len, None], ids=repr)
def test_something_else_than_a_search_is_refused(
    problem: Problem, run: Callable[..., object], wrong: object
) -> None:
    with pytest.raises(TypeError, match="`search` must be an OptunaSearch object, but got "):
        run(problem, wrong)


@SEARCHES
def test_something_else_than_a_problem_is_refused(
    problem: Problem, profile: Profile, run: Callable[..., object]
) -> None:
    for swapped in ((OptunaSearch(), problem), (profile, OptunaSearch()), (None, None)):
        with pytest.raises(
            TypeError, match=r"`problem` must be a Problem, but got .* pass it first"
        ):
            run(*swapped)


def test_a_sampler_of_one_objective_is_refused_before_anything_is_measured(
    problem: Problem, tmp_path: Path
) -> None:
    def never(plan: Plan) -> float:
        raise AssertionError("measured")

    search = OptunaSearch(never, sampler=CmaEs(), storage=tmp_path / "k.journal")
    with pytest.raises(ValueError, match=r"`sampler` must search two objectives, but got CmaEs\("):
        search_front(problem, search)
    assert not (tmp_path / "k.journal").exists()


@pytest.mark.filterwarnings("error")
def test_a_search_warns_of_nothing(problem: Problem, objective: Objective) -> None:
    for sampler in (Tpe(), NsgaII(5)):
        assert search_front(problem, OptunaSearch(objective, sampler=sampler, trials=12)).front
    assert search_plans(problem, OptunaSearch(objective, sampler=CmaEs(), trials=12)).best
