"""The search as a solver: what solve() gets from it."""

import inspect
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import CVaR, Hull, Problem, Status, WorstSample, search, solve
from kvbudget.allocator.search import (
    CmaEs,
    LayerGroups,
    Parameters,
    PriceAndGroups,
    Sampler,
    ShareAndRatio,
    Tpe,
)
from kvbudget.allocator.solvers.optuna_search import OptunaSearch

TWINS = Problem([[4.0, 1.0, 0.0]] * 3, [[1, 3, 6]] * 3, 8)


def random_problem(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 90, (12, 6)), axis=1)
    loss = np.sort(rng.exponential(size=(12, 6)), axis=1)[:, ::-1]
    return Problem(loss, cost, int(cost[:, -1].sum() // 3))


@pytest.mark.parametrize("parameters", [PriceAndGroups(), ShareAndRatio(), LayerGroups()], ids=repr)
def test_it_never_loses_more_than_the_hull(parameters: Any) -> None:
    for seed in range(4):
        problem = random_problem(seed)
        found = solve(problem, OptunaSearch(parameters=parameters, trials=12))
        assert found.loss <= solve(problem, Hull()).loss
        assert found.status in (Status.LIMIT_REACHED, Status.OPTIMAL)


def test_it_can_lose_less_than_the_hull() -> None:
    better = [
        solve(random_problem(seed), OptunaSearch()).loss
        < solve(random_problem(seed), Hull()).loss - 1e-12
        for seed in range(6)
    ]
    assert any(better)


def test_it_ends_at_the_limit_of_trials_or_with_a_proof() -> None:
    assert solve(TWINS, OptunaSearch(trials=5)).status is Status.LIMIT_REACHED
    whole = Problem(TWINS.loss, TWINS.cost_bytes, TWINS.ceiling_bytes)
    assert solve(whole, OptunaSearch(trials=5)).status is Status.OPTIMAL


def test_risks_are_searched_by_their_own_measure() -> None:
    samples = np.array([[[9.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [8.0, 0.0]]])
    cost = [[0, 5], [0, 5]]
    # the mean prefers unit 0 by a hair, and so does the worst sample; other way round below
    mean = samples.mean(axis=0)
    for risk, samples_of_risk in ((WorstSample(), samples), (CVaR(0.5), samples[:, ::-1])):
        loss = mean if samples_of_risk is samples else mean[::-1]
        problem = Problem(loss, cost, 5, sample_loss=samples_of_risk, risk=risk)
        brute = min(problem.total_loss(np.array(x)) for x in ([0, 0], [1, 0], [0, 1]))
        assert solve(problem, OptunaSearch()).loss == brute


def test_its_name_holds_settings_that_make_the_plan_but_no_objects_or_places() -> None:
    named = OptunaSearch(len, ShareAndRatio(), CmaEs(), 7, 3, "/some/where", "mine")  # type: ignore[arg-type]
    assert repr(named) == (
        "OptunaSearch(parameters=ShareAndRatio(steps=5), sampler=CmaEs(population=0),"
        " trials=7, seed=3)"
    )
    assert solve(TWINS, OptunaSearch(trials=2, study_name="x")).solver == "OptunaSearch(trials=2)"


def test_its_help_names_every_sampler_and_every_kind_of_parameters() -> None:
    text = inspect.getdoc(OptunaSearch) or ""
    kinds = [getattr(search, name) for name in search.__all__]
    for base in (Sampler, Parameters):
        names = [
            kind.__name__
            for kind in kinds
            if isinstance(kind, type) and kind is not base and issubclass(kind, base)
        ]
        assert len(names) == 3
        assert all(f"``{name}()``" in text for name in names)
    for words in ("kvbudget.allocator.search", "generator", "search_front", "pickle", "go on"):
        assert words in text


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"objective": "ppl"}, TypeError, "`objective` must be a function .* but got 'ppl'"),
        ({"objective": 3.0}, TypeError, "`objective` must be a function .* but got 3.0"),
        ({"trials": 0}, ValueError, "`trials` must be at least 1"),
        ({"trials": 2.5}, TypeError, "`trials` must be an integer"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0"),
        ({"study_name": None}, TypeError, "`study_name` must be a string"),
        ({"parameters": PriceAndGroups}, TypeError, "`parameters` must be an object of Parameters"),
        ({"sampler": "tpe"}, TypeError, "`sampler` must be an object of Sampler, but got 'tpe'"),
        ({"sampler": Tpe}, TypeError, "`sampler` must be an object of Sampler"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        OptunaSearch(**settings)
