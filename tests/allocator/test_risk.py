import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import (
    CVaR,
    Mean,
    Problem,
    Profile,
    Risk,
    WorstSample,
    running_minimum,
    solve,
    solvers,
)
from kvbudget.allocator.risk import tail_mean
from kvbudget.allocator.solvers.mixed_integer import MixedInteger

totals_of = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9).map(np.array)


@given(totals_of, st.floats(0, 1))
def test_the_mean_of_the_tail_is_the_least_value_of_its_definition(
    totals: np.ndarray[tuple[int], np.dtype[np.float64]], part: float
) -> None:
    count = 1 + part * (len(totals) - 1)
    least = min(start + np.maximum(totals - start, 0).sum() / count for start in totals)
    assert tail_mean(totals, count) == pytest.approx(least, rel=1e-9, abs=1e-6)


@given(totals_of)
def test_its_ends_are_the_mean_and_the_worst(
    totals: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> None:
    count = len(totals)
    assert tail_mean(totals, Mean().tail_samples(count)) == pytest.approx(totals.mean(), abs=1e-9)
    assert tail_mean(totals, WorstSample().tail_samples(count)) == totals.max()
    assert CVaR(0.0).tail_samples(count) == count
    assert CVaR(0.9999).tail_samples(count) == 1.0


def test_a_sample_may_count_in_part() -> None:
    totals = np.array([1.0, 8.0, 4.0, 2.0])
    assert tail_mean(totals, 2.0) == 6.0
    assert tail_mean(totals, 1.5) == pytest.approx((8 + 0.5 * 4) / 1.5)
    assert CVaR(0.5).tail_samples(4) == 2.0


def test_more_of_the_tail_never_raises_the_risk() -> None:
    totals = np.random.default_rng(0).normal(size=20)
    risks = [tail_mean(totals, CVaR(level).tail_samples(20)) for level in np.linspace(0, 0.99, 30)]
    assert (np.diff(risks) >= -1e-12).all()


@pytest.mark.parametrize("level", [-0.1, 1.0, 2, float("nan"), float("inf")])
def test_a_level_outside_its_range_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="`level` must be"):
        CVaR(level)


@pytest.mark.parametrize("level", ["0.9", None, True])
def test_a_level_must_be_a_number(level: object) -> None:
    with pytest.raises(TypeError, match="`level` must be a number"):
        CVaR(level)  # type: ignore[arg-type]


@pytest.mark.parametrize("risk", [Mean(), WorstSample(), CVaR(0.5)])
def test_a_problem_judges_a_choice_by_its_risk(profile: Profile, risk: Risk) -> None:
    problem = Problem.from_profile(profile, budget="50%", context_tokens=100, risk=risk)
    levels = np.array([0, 1, 2, 3, 1, 0])
    samples = profile.sample_loss.reshape(5, 6, 4)
    totals = samples[:, np.arange(6), levels].sum(axis=1)
    expected = {Mean(): totals.mean(), WorstSample(): totals.max()}
    half = (np.sort(totals)[3:].sum() + 0.5 * np.sort(totals)[2]) / 2.5
    assert problem.total_loss(levels) == pytest.approx(expected.get(risk, half))


def test_a_risk_needs_the_losses_of_samples() -> None:
    with pytest.raises(ValueError, match="`sample_loss` must be given for the risk WorstSample"):
        Problem([[1.0]], [[1]], 1, risk=WorstSample())
    with pytest.raises(TypeError, match="`risk` must be a risk such as"):
        Problem([[1.0]], [[1]], 1, risk="worst")  # type: ignore[arg-type]


def test_the_worst_sample_protects_a_prompt_that_the_mean_forgets() -> None:
    # three prompts need cache 0 a little, one needs cache 1 very much
    samples = np.zeros((4, 2, 2))
    samples[:3, 0, 0] = 4.0
    samples[3, 1, 0] = 9.0
    cost = [[1, 5], [1, 5]]
    mean = Problem(samples.mean(axis=0), cost, 6, sample_loss=samples)
    worst = Problem(mean.loss, cost, 6, sample_loss=samples, risk=WorstSample())
    for solver in (MixedInteger(), solvers.LinearProgram()):
        average, protected = solve(mean, solver), solve(worst, solver)
        assert average.levels.tolist() == [1, 0]
        assert protected.levels.tolist() == [0, 1]
        assert samples[:, [0, 1], average.levels].sum(axis=1).max() == 9.0
        assert protected.loss == 4.0


@pytest.mark.parametrize("seed", range(6))
def test_the_best_plans_at_its_ends_are_those_of_the_mean_and_of_the_worst(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 30, (5, 4, 3)).astype(float)
    cost = np.cumsum(rng.integers(0, 9, (4, 3)), axis=1)
    loss = running_minimum(samples.mean(axis=0))

    def least(risk: Risk) -> float:
        budget = int(cost[:, 1].sum())
        problem = Problem(loss, cost, budget, sample_loss=samples, risk=risk)
        return solve(problem, MixedInteger()).loss

    assert least(CVaR(0.0)) == pytest.approx(least(Mean()), rel=1e-12)
    assert least(CVaR(0.999)) == pytest.approx(least(WorstSample()), rel=1e-12)
    assert least(CVaR(0.0)) <= least(CVaR(0.5)) <= least(CVaR(0.9))
