import numpy as np
import pytest

from kvbudget.allocator import CVaR, Problem, terms_of
from kvbudget.allocator.constraints import ByteLimit, MostCapacities
from kvbudget.allocator.coupled.highs import run_relaxed, run_whole
from kvbudget.allocator.coupled.share_model import (
    MOST_LOSS,
    MOST_ROOM,
    ShareModel,
    build_model,
    rule_out,
    scale_bytes,
    scale_loss,
)
from kvbudget.allocator.coupled.stacked import stack


def model_of(problem: Problem, *, whole: bool = True) -> ShareModel:
    stacked = stack(problem)
    return build_model(stacked, terms_of(problem), stacked.fits_alone(), 1.0, whole=whole)


def test_bytes_are_counted_above_the_lowest_and_in_what_they_have_in_common() -> None:
    cost = np.array([[100, 400, 1000], [50, 350, 950]])
    each, room, scale = scale_bytes(stack(Problem(np.zeros((2, 3)), cost, 1500)))
    assert each.tolist() == [[0.0, 1.0, 3.0, 0.0, 1.0, 3.0]]
    # 1350 bytes above the lowest are four times 300 and a rest that nothing can use
    assert (room.tolist(), scale.tolist()) == ([4.0], [300.0])


def test_large_bytes_are_scaled_down_and_never_by_more_than_needed() -> None:
    cost = np.array([[0, 2**40, 2**41 + 1]] * 3)
    each, room, scale = scale_bytes(stack(Problem(np.zeros((3, 3)), cost, 2**42)))
    assert room[0] == pytest.approx(MOST_ROOM, rel=1e-9)
    assert each[0, 1] * scale[0] == pytest.approx(2**40)


def test_a_level_that_fits_nowhere_does_not_spoil_what_bytes_have_in_common() -> None:
    cost = np.array([[0, 10, 7777]] * 2)
    _, room, scale = scale_bytes(stack(Problem(np.zeros((2, 3)), cost, 25)))
    assert (room.tolist(), scale.tolist()) == ([2.0], [10.0])


def test_losses_are_counted_above_the_least_and_cut_where_highs_would_not_follow() -> None:
    problem = Problem([[1e30, 7.0, 4.0], [6.0, 6.0, 2.0]], [[1, 2, 3]] * 2, 9)
    each, base, loss_base = scale_loss(stack(problem), 0.5)
    assert each.tolist() == [[MOST_LOSS, 6.0, 0.0, 8.0, 8.0, 0.0]]
    assert (base.tolist(), loss_base) == ([0.0], 6.0)


def test_the_objective_is_the_loss() -> None:
    problem = Problem([[9.0, 5.0, 1.0]] * 3, [[1, 2, 3]] * 3, 7)
    model = model_of(problem)
    answer = run_whole(model)
    assert answer.levels is not None
    assert model.loss(model.program.value) == pytest.approx(problem.total_loss(answer.levels))
    assert answer.bound == pytest.approx(11.0, rel=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.4, 0.5, 0.9])
def test_the_objective_is_the_risk(level: float) -> None:
    samples = np.array(
        [[[9.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [7.0, 3.0]], [[4.0, 0.0], [4.0, 2.0]]]
    )
    problem = Problem(samples.mean(axis=0), [[1, 2]] * 2, 3, sample_loss=samples, risk=CVaR(level))
    model = model_of(problem)
    answer = run_whole(model)
    assert answer.levels is not None
    assert model.loss(model.program.value) == pytest.approx(problem.total_loss(answer.levels))


def test_the_dual_values_are_prices_and_weights() -> None:
    # a byte is worth 4, and of the limit 2 more, until it is 4 bytes larger
    problem = Problem([[12.0, 0.0], [8.0, 0.0]], [[0, 2], [0, 2]], 3, (ByteLimit(1, layers=(0,)),))
    model = model_of(problem, whole=False)
    stacked = stack(problem)
    model = build_model(stacked, terms_of(problem), np.ones((2, 2), dtype=bool), 1.0, whole=False)
    run_relaxed(model)
    price = model.multipliers().price
    assert price == pytest.approx([0.0, 6.0], abs=1e-6) or price == pytest.approx([4.0, 2.0])
    assert model.multipliers().weight.tolist() == [1.0]


def test_levels_that_are_not_possible_are_not_used() -> None:
    problem = Problem([[9.0, 5.0, 1.0]] * 2, [[1, 2, 3]] * 2, 6)
    possible = np.array([[True, True, False], [True, True, True]])
    model = build_model(stack(problem), terms_of(problem), possible, 1.0, whole=True)
    answer = run_whole(model)
    assert answer.levels is not None
    assert answer.levels.tolist() == [1, 2]


def test_a_choice_that_is_ruled_out_is_not_made_again() -> None:
    problem = Problem([[9.0, 5.0, 1.0]] * 2, [[1, 2, 3]] * 2, 4, (MostCapacities(2),))
    model, seen = model_of(problem), []
    for _ in range(6):
        answer = run_whole(model)
        assert answer.levels is not None
        seen.append(tuple(answer.levels.tolist()))
        model = rule_out(model, answer.levels)
    # six of the nine choices fit
    assert len(set(seen)) == 6
    assert run_whole(model).levels is None


def test_the_relaxed_count_of_kinds_is_the_tight_one() -> None:
    # each unit wants another level; two thirds of each kind may be open
    loss = np.ones((3, 3)) - np.eye(3)
    problem = Problem(np.zeros((3, 3)), np.zeros((3, 3)), 0, (MostCapacities(2),))
    stacked = stack(problem)
    stacked = type(stacked)(loss[None], 1.0, stacked.cost_bytes, stacked.most_bytes)
    everything = np.ones((3, 3), dtype=bool)
    model = build_model(stacked, terms_of(problem), everything, 1.0, whole=False)
    run_relaxed(model)
    assert model.program.value == pytest.approx(1.0)
