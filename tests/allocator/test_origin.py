import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import Origin, Profile
from kvbudget.allocator.origin import whole_pages


def test_it_remembers_the_request_and_the_profile(profile: Profile) -> None:
    origin = Origin.of(profile, 100, 3)
    assert (origin.context_tokens, origin.batch_size, origin.page_tokens) == (100, 3, 1)
    assert (origin.model, origin.heuristic) == (profile.model, profile.heuristic)
    assert origin.capacity_tokens.tolist()[:3] == [[10, 25, 50, 100]] * 2 + [[10, 16, 16, 16]]
    assert not origin.capacity_tokens.flags.writeable


def test_without_pages_what_is_stored_is_what_is_kept(profile: Profile) -> None:
    origin = Origin.of(profile, 100, 1)
    assert (origin.stored_tokens == origin.capacity_tokens).all()


def test_with_pages_the_last_may_be_partly_empty(profile: Profile) -> None:
    origin = Origin.of(profile, 100, 1, page_tokens=30)
    assert origin.capacity_tokens[0].tolist() == [30, 30, 60, 100]
    assert origin.stored_tokens[0].tolist() == [30, 30, 60, 120]
    assert origin.capacity_tokens[2].tolist() == [16, 16, 16, 16]
    assert origin.stored_tokens[2].tolist() == [30, 30, 30, 30]


@given(st.integers(0, 10**9), st.integers(1, 10**4))
def test_whole_pages_are_the_fewest_that_hold_the_tokens(tokens: int, page_tokens: int) -> None:
    rounded = int(whole_pages(np.array([tokens]), page_tokens)[0])
    assert rounded % page_tokens == 0
    assert 0 <= rounded - tokens < page_tokens


def test_origins_are_equal_by_content(profile: Profile) -> None:
    assert Origin.of(profile, 100, 1) == Origin.of(profile, 100, 1)
    assert Origin.of(profile, 100, 1) != Origin.of(profile, 99, 1)
    assert Origin.of(profile, 100, 1) != Origin.of(profile, 100, 1, page_tokens=4)
