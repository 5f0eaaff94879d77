from kvbudget.allocator import Problem, Profile
from kvbudget.allocator.sharing.token_bytes import bytes_of_tokens


def test_tokens_cost_what_the_geometry_says_within_the_levels(profile: Profile) -> None:
    problem = Problem.from_profile(profile, budget="40%", context_tokens=100, batch_size=2)
    # 24 bytes per token, two sequences; levels keep 10 to 100 tokens, at most 16 in layer 1
    assert bytes_of_tokens(problem, 12) == [576] * 6
    assert bytes_of_tokens(problem, 3) == [480] * 6
    assert bytes_of_tokens(problem, 20) == [960, 960, 768, 768, 960, 960]
    assert bytes_of_tokens(problem, 999) == [4800, 4800, 768, 768, 4800, 4800]


def test_without_an_origin_the_lowest_levels_stand_in() -> None:
    problem = Problem([[1.0, 0.0]] * 2, [[2, 9], [3, 9]], 20)
    assert bytes_of_tokens(problem, 7) == [2, 3]
