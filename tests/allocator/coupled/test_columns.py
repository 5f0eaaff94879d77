import numpy as np
import pytest
from scipy.optimize import linprog

from kvbudget.allocator import CVaR, Problem, Risk, WorstSample, hull_bound
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.coupled import columns
from kvbudget.allocator.coupled.columns import first_columns, relax_stacked, unit_stake
from kvbudget.allocator.coupled.stacked import Stacked, stack
from kvbudget.allocator.relaxation import relax


def random_problem(seed: int, units: int = 20, risk: Risk | None = None) -> Problem:
    rng = np.random.default_rng(seed)
    samples = np.sort(rng.exponential(size=(6, units, 5)), axis=2)[..., ::-1]
    cost = np.cumsum(rng.integers(1, 10**6, (units, 5)), axis=1)
    limits = (
        ByteLimit(int(cost[:8].mean() * 9), layers=range(8)),
        ByteLimit(int(cost[5:].mean() * (units - 5)), layers=range(5, units)),
    )
    budget = int(cost.mean() * units * 0.9)
    if risk is None:
        return Problem(samples.mean(axis=0), cost, budget, limits)
    return Problem(samples.mean(axis=0), cost, budget, limits, sample_loss=samples, risk=risk)


def linear_optimum(stacked: Stacked) -> float:
    """Optimum of the whole relaxation at once; the tail by its definition, dense."""
    samples, units, levels = stacked.sample_loss.shape
    limits = len(stacked.most_bytes)
    shares = units * levels
    tail = np.hstack((-np.ones((samples, 1)), -np.eye(samples)))
    answer = linprog(
        np.concatenate((np.zeros(shares), [1.0], np.full(samples, 1 / stacked.tail_samples))),
        A_ub=np.block(
            [
                [stacked.cost_bytes.reshape(limits, -1) / 1e6, np.zeros((limits, 1 + samples))],
                [stacked.sample_loss.reshape(samples, -1), tail],
            ]
        ),
        b_ub=np.concatenate((stacked.most_bytes / 1e6, np.zeros(samples))),
        A_eq=np.hstack((np.kron(np.eye(units), np.ones(levels)), np.zeros((units, 1 + samples)))),
        b_eq=np.ones(units),
        bounds=[(0, None)] * shares + [(None, None)] + [(0, None)] * samples,
    )
    assert answer.status == 0
    return float(answer.fun)


RISKS = [None, WorstSample(), CVaR(0.5), CVaR(0.7)]


@pytest.mark.parametrize("risk", RISKS, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_the_optimum_of_the_linear_program(seed: int, risk: Risk | None) -> None:
    problem = random_problem(seed, risk=risk)
    stacked = stack(problem)
    relaxed = relax_stacked(problem, stacked)
    assert relaxed.bound == pytest.approx(linear_optimum(stacked), rel=1e-8)
    assert relaxed.share.sum(axis=1) == pytest.approx(1.0)
    used = (stacked.cost_bytes * relaxed.share).sum(axis=(1, 2))
    assert (used <= stacked.most_bytes * (1 + 1e-7)).all()


@pytest.mark.parametrize("seed", range(4))
def test_with_one_limit_it_is_that_of_the_hull(seed: int) -> None:
    whole = random_problem(seed)
    plain = Problem(whole.loss, whole.cost_bytes, whole.budget_bytes)
    relaxed = relax_stacked(plain, stack(plain))
    assert relaxed.bound == pytest.approx(hull_bound(plain), rel=1e-9)
    assert relaxed.multipliers.price[0] == pytest.approx(relax(plain).price, rel=1e-6)


def test_only_some_levels_are_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    solve_held = columns.solve_held

    def watch(stacked: Stacked, among: np.ndarray, scale: float) -> object:
        held.append(int(among.sum()))
        return solve_held(stacked, among, scale)

    monkeypatch.setattr(columns, "solve_held", watch)
    rng = np.random.default_rng(0)
    loss = np.sort(rng.exponential(size=(60, 40)), axis=1)[:, ::-1]
    cost = np.cumsum(rng.integers(1, 99, (60, 40)), axis=1)
    problem = Problem(loss, cost, int(cost.mean() * 50), (ByteLimit("30%", layers=range(20)),))
    relax_stacked(problem, stack(problem))
    assert len(held) < 10
    assert held == sorted(held)
    assert held[-1] < loss.size / 4


def test_a_search_that_is_cut_short_still_proves_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(1, risk=WorstSample())
    full = relax_stacked(problem, stack(problem))
    monkeypatch.setattr(columns, "ROUNDS", 1)
    monkeypatch.setattr(columns, "AROUND", (1.0,))
    short = relax_stacked(problem, stack(problem))
    assert short.bound < full.bound
    assert short.share.sum(axis=1) == pytest.approx(1.0)


def test_the_first_levels_always_hold_a_plan() -> None:
    problem = random_problem(2)
    held = first_columns(problem, relax(problem))
    assert held[:, 0].all()


def test_the_stake_is_above_0() -> None:
    flat = Problem([[0.0, 0.0]], [[1, 2]], 2)
    assert unit_stake(flat, np.array([1])) == 1.0
    assert unit_stake(Problem([[3.0, 1.0]], [[1, 2]], 2), np.array([1])) == 2.0
    assert unit_stake(Problem([[3.0, 1.0]] * 2, [[1, 2]] * 2, 3), np.array([1, 0])) == 1.0


def test_losses_of_very_different_size_keep_a_valid_bound() -> None:
    loss = [[1e200, 1e-200], [1e-3, 0.0], [5e-324, 0.0]]
    for budget in range(3, 10):
        problem = Problem(loss, [[1, 3]] * 3, budget, (ByteLimit(6, layers=(0, 1)),))
        assert relax_stacked(problem, stack(problem)).bound <= 1.0 + loss[0][0] * (budget < 5)
