import itertools

import numpy as np
import pytest

from kvbudget.allocator import Problem, Status
from kvbudget.allocator.constraints import ByteLimit, MostCapacities
from kvbudget.allocator.coupled.choose import known_plan
from kvbudget.allocator.coupled.columns import relax_stacked
from kvbudget.allocator.coupled.stacked import stack
from kvbudget.allocator.coupled.whole_model import choose_whole, loss_scale, worth_a_look
from kvbudget.allocator.terms import terms_of
from kvbudget.testing import least_loss


def random_problem(seed: int, *constraints: object) -> Problem:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 99, (5, 4)), axis=1)
    loss = np.sort(rng.exponential(size=(5, 4)), axis=1)[:, ::-1]
    return Problem(loss, cost, int(cost[:, 1].sum()), constraints)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("constraints", [(), (ByteLimit("50%", layers=(0, 2)),)], ids=str)
def test_no_level_of_a_better_plan_is_left_out(seed: int, constraints: tuple[object, ...]) -> None:
    problem = random_problem(seed, *constraints)
    stacked = stack(problem)
    relaxed = relax_stacked(problem, stacked)
    lowest = np.zeros(5, dtype=np.int64)
    for known in (known_plan(problem, stacked, terms_of(problem), relaxed), lowest):
        assert known is not None
        look = worth_a_look(problem, stacked, relaxed, known)
        assert look[np.arange(5), known].all()
        for levels in itertools.product(range(4), repeat=5):
            at = np.array(levels)
            better = problem.total_loss(at) < problem.total_loss(known)
            if better and stacked.fits(at):
                assert look[np.arange(5), at].all()


def test_a_good_plan_leaves_little_to_look_at() -> None:
    rng = np.random.default_rng(0)
    cost = np.cumsum(rng.integers(1, 99, (200, 20)), axis=1)
    loss = np.sort(rng.exponential(size=(200, 20)), axis=1)[:, ::-1]
    problem = Problem(loss, cost, int(cost[:, 5].sum()))
    stacked = stack(problem)
    relaxed = relax_stacked(problem, stacked)
    known = known_plan(problem, stacked, terms_of(problem), relaxed)
    assert worth_a_look(problem, stacked, relaxed, known).mean() < 0.2
    assert (worth_a_look(problem, stacked, relaxed, None) == stacked.fits_alone()).all()


def test_a_choice_among_some_levels_uses_no_other() -> None:
    problem = random_problem(1, MostCapacities(3))
    among = np.ones(problem.loss.shape, dtype=bool)
    among[:, 1] = False
    choice = choose_whole(problem, seconds=9.0, among=among)
    known = least_loss(problem)
    assert choice.status is not Status.INFEASIBLE
    assert problem.total_loss(choice.levels) >= known


def test_a_plan_at_its_bound_needs_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvbudget.allocator.coupled.whole_model.run_whole", None)
    problem = Problem([[9.0, 0.0]] * 2, [[0, 1]] * 2, 2)
    assert choose_whole(problem, seconds=1.0).levels.tolist() == [1, 1]


def test_the_scale_is_a_part_of_what_is_open() -> None:
    problem = random_problem(2)
    stacked = stack(problem)
    relaxed = relax_stacked(problem, stacked)
    lowest = np.zeros(5, dtype=np.int64)
    open_loss = problem.total_loss(lowest) - relaxed.bound
    assert loss_scale(problem, relaxed, lowest) == pytest.approx(1e-3 * open_loss)
    assert loss_scale(problem, relaxed, None) > 0
