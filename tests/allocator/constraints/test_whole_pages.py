import pytest

from kvbudget.allocator import Problem, Profile, allocate, solve
from kvbudget.allocator.constraints import LeastTokens, WholePages
from kvbudget.allocator.solvers import Hull


@pytest.mark.parametrize("page_tokens", [1, 7, 16, 64, 128])
def test_capacities_are_whole_pages_or_all(profile: Profile, page_tokens: int) -> None:
    problem = Problem.from_profile(
        profile, budget="100%", context_tokens=100, constraints=(WholePages(page_tokens),)
    )
    assert problem.origin is not None
    menu = problem.origin.capacity_tokens
    assert ((menu % page_tokens == 0) | (menu == menu[:, -1:])).all()
    assert menu[:, -1].tolist() == [100, 100, 16, 16, 100, 100]


def test_bytes_are_those_of_whole_pages(profile: Profile) -> None:
    problem = Problem.from_profile(
        profile, budget="70%", context_tokens=100, batch_size=2, constraints=(WholePages(32),)
    )
    token_bytes = profile.geometry.bytes_per_token * 2
    assert (problem.cost_bytes % (32 * token_bytes) == 0).all()
    # three pages of 32 would not hold 100 tokens
    assert problem.cost_bytes[0].tolist() == [32 * token_bytes * n for n in (1, 1, 2, 4)]
    solution = solve(problem, Hull())
    assert solution.plan.used_bytes <= solution.used_bytes <= problem.budget_bytes


def test_a_level_rounded_up_keeps_the_loss_of_fewer_tokens(profile: Profile) -> None:
    paged = Problem.from_profile(
        profile, budget="70%", context_tokens=100, constraints=(WholePages(32),)
    )
    plain = Problem.from_profile(profile, budget="70%", context_tokens=100)
    assert (paged.loss == plain.loss).all()


def test_several_sizes_mean_their_common_multiple(profile: Profile) -> None:
    limits = (WholePages(4), WholePages(6))
    plan = allocate(profile, budget="80%", context_tokens=100, constraints=limits)
    assert all(tokens in (16, 100) or tokens % 12 == 0 for tokens in plan.capacity_tokens.ravel())


def test_a_floor_counts_the_tokens_of_the_page(profile: Profile) -> None:
    limits = (WholePages(16), LeastTokens(12))
    plan = allocate(profile, budget="25%", context_tokens=100, constraints=limits)
    assert (plan.capacity_tokens == 16).all()


def test_pages_cannot_be_asked_of_a_finished_problem(problem: Problem) -> None:
    with pytest.raises(ValueError, match="must hold WholePages from the start"):
        Problem(
            problem.loss,
            problem.cost_bytes,
            problem.budget_bytes,
            (WholePages(4),),
            problem.origin,
        )
    with pytest.raises(ValueError, match="must not hold WholePages where"):
        Problem([[1.0]], [[1]], 1, (WholePages(4),))


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="`page_tokens` must be at least 1, but got page_tokens=0"):
        WholePages(0)
    with pytest.raises(TypeError, match="`page_tokens` must be an integer"):
        WholePages(None)  # type: ignore[arg-type]
