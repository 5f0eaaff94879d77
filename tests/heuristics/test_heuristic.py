"""The abstract kinds, and what a class says of itself."""

import pytest

from kvbudget.heuristics import (
    CacheHeuristic,
    HeavyHitter,
    KeyNorm,
    ObservationWindow,
    RandomOrder,
    RunningHeuristic,
    SinkRecent,
    TokenHeuristic,
)


@pytest.mark.parametrize("kind", [TokenHeuristic, RunningHeuristic, CacheHeuristic])
def test_an_abstract_kind_cannot_be_built(kind: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_queries_and_tokens_are_read_unless_a_heuristic_says_otherwise() -> None:
    said = {
        cls: (cls.reads_queries, cls.reads_tokens, cls.draws)
        for cls in (
            TokenHeuristic,
            ObservationWindow,
            HeavyHitter,
            KeyNorm,
            SinkRecent,
            RandomOrder,
        )
    }
    assert said == {
        TokenHeuristic: (True, True, False),
        ObservationWindow: (True, True, False),
        HeavyHitter: (True, True, False),
        KeyNorm: (False, True, False),
        SinkRecent: (False, False, False),
        RandomOrder: (False, False, True),
    }


def test_a_running_heuristic_is_a_token_heuristic_with_one_number_per_token_by_default() -> None:
    assert issubclass(RunningHeuristic, TokenHeuristic)
    assert RunningHeuristic.channels == 1
