"""The reconstruction of BaKlaVa, against the same formula written with loops."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import (
    Baklava,
    CacheView,
    HeadInput,
    HeadWeight,
    LayerScore,
    LayerView,
    Reduction,
)
from kvbudget.heuristics.caches import baklava

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]
SETTINGS = [
    Baklava(*choices) for choices in itertools.product(HeadInput, Reduction, HeadWeight, LayerScore)
]


def turned(before: Tensor, after: Tensor) -> float:
    return 1.0 - float(before @ after / (before.norm() * after.norm()))


def naive_importance(rule: Baklava, view: CacheView, attention: Tensor) -> list[float]:
    layer = view.layer
    batch, kv_heads, tokens = layer.valid.shape
    values = layer.values.double().nan_to_num(0.0)
    weight = view.output_weight.double()
    heads = [0.0] * layer.queries.shape[1]
    whole, count = 0.0, 0
    for row in range(batch):
        real = layer.valid[row, 0].nonzero().flatten().tolist()
        for token in real[rule.skip_first :]:
            residual = view.residual[row, token].double()
            written = torch.zeros_like(residual)
            for head in range(len(heads)):
                kv_head = head // (len(heads) // kv_heads)
                output = torch.zeros_like(values[row, kv_head, 0])
                for j in range(tokens):
                    output += attention[row, head, token, j] * values[row, kv_head, j]
                projected = output @ weight[head]
                written += projected
                if rule.head_input is HeadInput.VALUE:
                    change = turned(values[row, kv_head, token], output)
                else:
                    change = turned(residual, projected)
                if rule.head_weight is HeadWeight.OUTPUT_NORM:
                    change *= float(projected.norm() / residual.norm())
                heads[head] += change
            whole += turned(residual, residual + written)
            count += 1
    groups = torch.tensor(heads).view(kv_heads, -1) / count
    caches = groups.mean(-1) if rule.reduction is Reduction.MEAN else groups.max(-1).values
    layer_score = whole / count if rule.layer_score is LayerScore.RESIDUAL_CHANGE else 1.0
    return (layer_score * caches / caches.mean()).tolist()


@pytest.mark.parametrize("rule", SETTINGS, ids=str)
def test_importance_equals_the_formula_written_with_loops(
    rule: Baklava, make_cache_view: MakeCacheView, dense_attention: Oracle
) -> None:
    view = make_cache_view(kv_heads=3, tokens=10, padding=(0, 3), window=7, softcap=9.0)
    wanted = naive_importance(rule, view, dense_attention(view.layer))
    found = rule.importance(view)
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)


def test_every_setting_makes_a_difference(make_cache_view: MakeCacheView) -> None:
    view = make_cache_view(kv_heads=3)
    answers = {tuple(rule.importance(view).tolist()) for rule in SETTINGS}
    assert len(answers) == len(SETTINGS)


def test_chunks_of_tokens_do_not_change_the_answer(
    make_cache_view: MakeCacheView, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = make_cache_view()
    whole = Baklava().importance(view)
    monkeypatch.setattr(baklava, "ROWS_PER_CHUNK", 5)
    torch.testing.assert_close(Baklava().importance(view), whole)


def test_a_cache_whose_heads_pass_their_input_through_gets_nothing(
    make_cache_view: MakeCacheView,
) -> None:
    view = make_cache_view(window=12, padding=(0, 0))
    values = view.layer.values.clone()
    values[:, 1] = values[:, 1, :1]  # every value alike: whatever is attended to is the input
    found = Baklava().importance(replace(view, layer=replace(view.layer, values=values)))
    assert found[1].item() == pytest.approx(0.0, abs=1e-5)
    assert found[0].item() > 0.01


def test_a_layer_that_turns_nothing_gives_its_caches_equal_finite_shares(
    make_cache_view: MakeCacheView,
) -> None:
    view = make_cache_view(window=1)  # every token attends to itself alone
    assert Baklava(layer_score=LayerScore.EQUAL).importance(view).tolist() == [1.0, 1.0]


def test_the_mean_over_caches_is_the_score_of_the_layer(make_cache_view: MakeCacheView) -> None:
    view = make_cache_view(kv_heads=3)
    quiet = replace(view, output_weight=view.output_weight * 1e-2)
    means = [Baklava().importance(each).mean().item() for each in (view, quiet)]
    assert means[0] > 10 * means[1] > 0


def test_the_first_tokens_do_not_count(make_cache_view: MakeCacheView) -> None:
    view = make_cache_view(padding=(0, 0))
    residual = view.residual.clone()
    residual[:, :4] *= -3.0
    other = replace(view, residual=residual)
    assert torch.equal(Baklava().importance(view), Baklava().importance(other))
    assert not torch.equal(
        Baklava(skip_first=3).importance(view), Baklava(skip_first=3).importance(other)
    )


def test_a_prompt_too_short_for_the_skipped_tokens_is_refused(
    make_cache_view: MakeCacheView,
) -> None:
    with pytest.raises(ValueError, match=r"got skip_first=12 for 12 tokens\. Use"):
        Baklava(skip_first=12).importance(make_cache_view())


def test_a_negative_number_of_skipped_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="`skip_first` must be at least 0, but got skip_first=-1"):
        Baklava(skip_first=-1)
