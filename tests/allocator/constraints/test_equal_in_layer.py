import pytest

from kvbudget.allocator import Problem, Profile, allocate, solve
from kvbudget.allocator.constraints import EqualInLayer
from kvbudget.allocator.solvers import Hull


def test_heads_of_a_layer_get_the_same(profile: Profile) -> None:
    plan = allocate(profile, budget="40%", context_tokens=100, constraints=(EqualInLayer(),))
    assert (plan.capacity_tokens[:, 0] == plan.capacity_tokens[:, 1]).all()
    ragged = allocate(profile, budget="40%", context_tokens=100)
    assert (ragged.capacity_tokens[:, 0] != ragged.capacity_tokens[:, 1]).any()


def test_only_the_layers_that_are_named(profile: Profile) -> None:
    problem = Problem.from_profile(
        profile, budget="40%", context_tokens=100, constraints=(EqualInLayer([2]),)
    )
    group = problem.constraints[0].terms(problem).group
    assert group is not None
    assert group.tolist() == [0, 1, 2, 3, 4, 4]


def test_it_is_the_best_among_plans_with_equal_heads(profile: Profile) -> None:
    problem = Problem.from_profile(
        profile, budget="60%", context_tokens=100, constraints=(EqualInLayer(),)
    )
    layers = Problem(
        problem.loss.reshape(3, 2, -1).sum(axis=1),
        problem.cost_bytes.reshape(3, 2, -1).sum(axis=1),
        problem.budget_bytes,
    )
    ours, theirs = solve(problem, Hull()), solve(layers, Hull())
    assert ours.levels.tolist() == [level for level in theirs.levels for _ in range(2)]
    assert ours.loss == pytest.approx(theirs.loss)
    assert ours.bound == pytest.approx(theirs.bound)


def test_without_heads_it_changes_nothing() -> None:
    plain = Problem([[9.0, 1.0], [8.0, 1.0]], [[1, 3], [1, 3]], 4)
    equal = Problem(plain.loss, plain.cost_bytes, 4, (EqualInLayer(),))
    assert solve(equal, Hull()).levels.tolist() == solve(plain, Hull()).levels.tolist() == [1, 0]


def test_bad_layers_are_refused(profile: Profile) -> None:
    with pytest.raises(TypeError, match="`layers` must be a list of indices or None"):
        EqualInLayer(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`layers` must be in 0..2, but got 3"):
        allocate(profile, budget="40%", context_tokens=100, constraints=(EqualInLayer([3]),))
