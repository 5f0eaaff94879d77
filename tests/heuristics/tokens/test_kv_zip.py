"""KVzip: which tokens are read again, and the most attention they get."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget import heuristics
from kvbudget.heuristics import KVZip, LayerView, checked_parts, observed
from kvbudget.heuristics.tokens.kv_zip import LEAST_PART_TOKENS, SINKS

MakeView = Callable[..., LayerView]
Dense = Callable[[LayerView], Tensor]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", [{}, {"window": 5}, {"softcap": 2.0}, {"sinks": True}], ids=str)
def test_the_state_is_the_most_attention_of_any_other_token(
    make_view: MakeView, dense_attention: Dense, ragged: bool, kind: dict[str, object]
) -> None:
    view = make_view(ragged=ragged, **kind)
    dense = dense_attention(view)
    found = KVZip().score(observed(KVZip(), view))
    for row in range(2):
        for head in range(4):
            for query, column in enumerate(view.query_positions.tolist()):
                own = view.positions[row, head // 2] == column
                dense[row, head, query][own] = 0.0
    wanted = 1 + dense.unflatten(1, (2, 2)).amax(dim=(2, 3))
    torch.testing.assert_close(found[view.valid], wanted.float()[view.valid], atol=1e-6, rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(cut=st.integers(0, 12))
def test_queries_may_come_in_blocks(make_view: MakeView, cut: int) -> None:
    view = make_view()
    at_once = observed(KVZip(), view).state
    first = replace(
        view, queries=view.queries[:, :, :cut], query_positions=view.query_positions[:cut]
    )
    then = replace(view.newest(12 - cut), state=observed(KVZip(), first).state)
    torch.testing.assert_close(observed(KVZip(), then).state, at_once)


def test_no_query_judges_nothing(make_view: MakeView) -> None:
    view = replace(make_view(new=0), state=torch.rand(2, 2, 12, 1))
    found = KVZip().observe(view)
    assert view.state is not None
    assert torch.equal(found, view.state)


def test_later_tokens_stand_above_the_judged_ones_and_the_newest_highest(
    make_view: MakeView,
) -> None:
    state = 1 + torch.rand(2, 2, 12, 1)
    state[..., 8:, :] = 0.0
    score = KVZip().score(replace(make_view(), state=state))
    assert torch.equal(score[..., :8], state[..., :8, 0])
    assert (score[..., 8] > 2).all()
    assert (score[..., 8:].diff() > 0).all()


def test_a_short_prompt_is_one_part() -> None:
    (part,) = KVZip().parts(range(100), None)
    assert (part.first, part.last, part.beside) == (0, 100, 0)
    assert part.ids == tuple(range(100))


def test_a_part_begins_with_the_instruction_and_the_end_of_the_part_before() -> None:
    zipped = KVZip(part_tokens=16, lead_tokens=3, instruction=" 7  900 ")
    parts = zipped.parts(list(range(40, 80)), None)
    assert [(part.first, part.last) for part in parts] == [(0, 13), (13, 26), (26, 40)]
    assert [part.beside for part in parts] == [0, SINKS, SINKS]
    assert parts[0].ids == (7, 900, *range(40, 53))
    assert parts[1].ids == (7, 900, *range(50, 66))


@settings(max_examples=200)
@given(
    tokens=st.integers(1, 300),
    part_tokens=st.integers(16, 200),
    lead=st.integers(0, 20),
    words=st.integers(0, 5),
    spare=st.none() | st.integers(0, 400),
)
def test_parts_cover_the_prompt_evenly_and_fit_the_positions(
    tokens: int, part_tokens: int, lead: int, words: int, spare: int | None
) -> None:
    zipped = KVZip(part_tokens, lead, " ".join(["1"] * words))
    needed = words + min(tokens, lead + LEAST_PART_TOKENS)
    if spare is not None and spare < needed:
        with pytest.raises(ValueError, match=f"only {spare} positions left"):
            zipped.parts([2] * tokens, spare)
        return
    parts = checked_parts(zipped, [2] * tokens, spare, 3)
    lengths = [part.last - part.first for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= part_tokens
    if spare is None:
        assert len(parts) == -(-tokens // part_tokens)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"part_tokens": 15}, "`part_tokens` must be at least 16, but got part_tokens=15"),
        ({"lead_tokens": -1}, "`lead_tokens` must be at least 0, but got lead_tokens=-1"),
        ({"instruction": "Repeat!"}, "must be token ids .*, but got instruction='Repeat!'"),
        ({"instruction": "3 -4"}, "must be token ids"),
    ],
)
def test_bad_settings_are_refused(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KVZip(**settings_)  # type: ignore[arg-type]


def test_an_instruction_survives_a_file() -> None:
    made = KVZip(instruction="4 5 6")
    assert heuristics.build("kv_zip", heuristics.settings_of(made)) == made
