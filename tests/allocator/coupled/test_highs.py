import warnings

import cvxpy as cp
import numpy as np
import pytest

from kvbudget.allocator import Problem, Status, terms_of
from kvbudget.allocator.constraints import Custom
from kvbudget.allocator.coupled import highs
from kvbudget.allocator.coupled.highs import margin, run_relaxed, run_whole
from kvbudget.allocator.coupled.share_model import ShareModel, build_model
from kvbudget.allocator.coupled.stacked import stack


def random_model(seed: int, *, whole: bool = True, units: int = 60) -> ShareModel:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 10**4, (units, 8)), axis=1)
    loss = np.sort(rng.exponential(size=(units, 8)), axis=1)[:, ::-1]
    problem = Problem(loss, cost, int(cost.mean() * units * 0.7))
    stacked = stack(problem)
    return build_model(stacked, terms_of(problem), stacked.fits_alone(), 0.1, whole=whole)


def test_a_finished_run_has_levels_and_a_bound_a_little_below_them() -> None:
    model = random_model(0)
    answer = run_whole(model)
    objective = model.loss(model.program.value)
    assert answer.status is Status.FEASIBLE
    assert answer.levels is not None
    assert answer.bound < objective
    assert answer.bound == pytest.approx(objective, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_search_does_not_stop_at_the_gap_that_highs_would(seed: int) -> None:
    model = random_model(seed)
    proved = run_whole(model).bound
    missing = model.loss(model.program.value) - proved
    assert missing == pytest.approx(model.loss_scale * margin(model), rel=1e-3)
    assert run_whole(random_model(seed), gap=0.05).bound < proved


def test_a_run_without_time_has_no_levels() -> None:
    answer = run_whole(random_model(2), seconds=1e-9)
    assert answer.status is Status.LIMIT_REACHED
    assert answer.levels is None


def test_a_run_may_stop_at_its_first_plan() -> None:
    answer = run_whole(random_model(2), plans=1)
    assert answer.levels is not None
    assert answer.status is Status.LIMIT_REACHED


def test_a_limit_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = run_whole(random_model(3), plans=1)
    assert answer.status is Status.LIMIT_REACHED


@pytest.mark.parametrize("whole", [True, False])
def test_what_cannot_be_is_infeasible(whole: bool) -> None:
    problem = Problem([[1.0, 0.0]], [[1, 2]], 2, (Custom(lambda share: [cp.sum(share) >= 2]),))
    stacked = stack(problem)
    model = build_model(stacked, terms_of(problem), stacked.fits_alone(), 1.0, whole=whole)
    answer = run_whole(model) if whole else run_relaxed(model)
    assert answer.status is Status.INFEASIBLE
    assert answer.levels is None
    assert answer.bound == np.inf


def test_the_relaxed_optimum_is_below_the_whole_one() -> None:
    relaxed = run_relaxed(random_model(4, whole=False))
    whole = run_whole(random_model(4))
    assert relaxed.bound < whole.bound


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (cp.OPTIMAL, Status.FEASIBLE),
        (cp.OPTIMAL_INACCURATE, Status.FEASIBLE),
        (cp.USER_LIMIT, Status.LIMIT_REACHED),
        (cp.INFEASIBLE, Status.INFEASIBLE),
    ],
)
def test_every_end_of_a_run_has_a_status(ended: str, status: Status) -> None:
    assert highs.STATUSES[ended] is status


def test_any_other_end_is_an_error() -> None:
    model = random_model(5)
    unbounded = cp.Problem(cp.Minimize(cp.sum(cp.Variable(2))))
    object.__setattr__(model, "program", unbounded)
    with pytest.raises(RuntimeError, match="HiGHS ended as unbounded"):
        run_whole(model)
