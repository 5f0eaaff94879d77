"""The two abstract kinds."""

import pytest

from kvbudget.heuristics import CacheHeuristic, HeavyHitter, KeyNorm, SinkRecent, TokenHeuristic


@pytest.mark.parametrize("kind", [TokenHeuristic, CacheHeuristic])
def test_an_abstract_kind_cannot_be_built(kind: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_attention_is_watched_unless_a_heuristic_says_otherwise() -> None:
    assert TokenHeuristic.watches_attention
    assert HeavyHitter.watches_attention
    assert not SinkRecent.watches_attention
    assert not KeyNorm.watches_attention
