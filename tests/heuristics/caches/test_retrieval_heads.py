"""Echo and induction scores, against loops and against heads built to look repeats up."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, LayerView, RetrievalHeads

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]
PROMPT = range(500, 530)


def repeated(view: CacheView, length: int = 5) -> CacheView:
    """A first token, and then the same ``length`` tokens again and again."""
    columns = torch.arange(view.layer.new)
    return replace(view, copied_from=torch.where(columns > length, columns - length, -1))


def naive_importance(rule: RetrievalHeads, view: CacheView, attention: Tensor) -> list[float]:
    source, valid = view.sources().tolist(), view.layer.valid[:, 0]
    heads = []
    for head in range(attention.shape[1]):
        found = []
        for row in range(len(attention)):
            for token in range(attention.shape[2]):
                if source[token] < 0 or not valid[row, token] or not valid[row, source[token]]:
                    continue
                echo = induction = 0.0
                earlier, steps = source[token], 0
                while earlier >= 0 and steps < rule.repeats - 1:
                    echo += float(attention[row, head, token, earlier])
                    if earlier + 1 < token:
                        induction += float(attention[row, head, token, earlier + 1])
                    earlier, steps = source[earlier], steps + 1
                found.append((1 - rule.echo_weight) * induction + rule.echo_weight * echo)
        heads.append(sum(found) / len(found))
    group = view.layer.group
    return [max(heads[first : first + group]) for first in range(0, len(heads), group)]


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize(
    "rule", [RetrievalHeads(), RetrievalHeads(repeats=2), RetrievalHeads(echo_weight=0.6)], ids=str
)
def test_importance_equals_the_formula_written_with_loops(
    rule: RetrievalHeads, length: int, make_cache_view: MakeCacheView, dense_attention: Oracle
) -> None:
    view = repeated(make_cache_view(tokens=21, padding=(0, 4), group=3, window=17), length)
    wanted = naive_importance(rule, view, dense_attention(view.layer))
    assert rule.importance(view).tolist() == pytest.approx(wanted, rel=1e-4)


def test_heads_that_look_repeats_up_stand_out() -> None:
    """KV head 0 attends behind the last copy, 1 to the last copy, 2 to the token before."""
    length, tokens = 6, 25
    columns = torch.arange(tokens)
    wanted = torch.stack([columns - length + 1, columns - length, columns - 1]).clamp_min(0)
    places = torch.eye(tokens)
    view = CacheView(
        layer=LayerView(
            layer=0,
            keys=places.expand(1, 3, -1, -1),
            values=torch.ones(1, 3, tokens, 2),
            valid=torch.ones(1, 3, tokens, dtype=torch.bool),
            positions=columns.expand(1, 3, -1),
            queries=places[wanted].unsqueeze(0),
            query_positions=columns,
            scaling=50.0,
        ),
        residual=torch.ones(1, tokens, 4),
        output_weight=torch.ones(3, 2, 4),
        copied_from=torch.where(columns > length, columns - length, -1),
    )
    rule = RetrievalHeads(echo_weight=0.25)
    assert rule.importance(view).tolist() == pytest.approx([0.75, 0.25, 0.0], abs=1e-6)


def test_the_probe_repeats_random_tokens_behind_the_first_one() -> None:
    probe = RetrievalHeads(random_tokens=5).probe(PROMPT, 40, random.Random(1))
    assert probe.tokens[0] == 500
    assert len(probe.tokens) == 21
    assert probe.tokens[1:6] == probe.tokens[6:11] == probe.tokens[11:16] == probe.tokens[16:]
    assert len(set(probe.tokens[1:6])) == 5
    assert probe.copied_from == (*[-1] * 6, *range(1, 16))
    assert probe == RetrievalHeads(random_tokens=5).probe(PROMPT, 40, random.Random(1))
    assert probe != RetrievalHeads(random_tokens=5).probe(PROMPT, 40, random.Random(2))


def test_the_probe_is_no_longer_than_the_prompt() -> None:
    probe = RetrievalHeads().probe(PROMPT, 4000, random.Random(1))
    assert len(probe.tokens) == 1 + 4 * 7
    with pytest.raises(ValueError, match="`prompt` must have at least 9 tokens for 4 repeats"):
        RetrievalHeads().probe(PROMPT[:8], 4000, random.Random(1))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"repeats": 1}, "repeats"),
        ({"random_tokens": 1}, "random_tokens"),
        ({"echo_weight": 1.5}, "echo_weight"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be .*, but got {name}="):
        RetrievalHeads(**settings)  # type: ignore[arg-type]
