"""Accumulated attention with noise and a temperature."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import HeavyHitter, Keyformer, LayerView
from kvbudget.heuristics.draws import gumbel

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


def scores(heuristic: Keyformer | HeavyHitter, view: LayerView, show: Show) -> Tensor:
    return heuristic.score(show(heuristic, view)).double()


def at_temperature(view: LayerView, tau: float) -> LayerView:
    """A view whose dense attention is that of the other one at a temperature."""
    sinks = None if view.sinks is None else view.sinks / tau
    return replace(view, scaling=view.scaling / tau, sinks=sinks)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 999),
    prompt=st.integers(1, 20) | st.none(),
    sinks=st.booleans(),
    ragged=st.booleans(),
)
def test_without_noise_scores_are_column_sums_at_each_querys_temperature(
    seed: int,
    prompt: int | None,
    sinks: bool,
    ragged: bool,
    make_view: MakeView,
    show: Show,
    dense_attention: Oracle,
) -> None:
    view = make_view(seed=seed, sinks=sinks, ragged=ragged, prompt_columns=prompt, tokens=14)
    heuristic = Keyformer(tau_init=0.5, tau_end=2.0, max_new_tokens=6, noise=False)
    wanted = torch.zeros(2, 2, 14, dtype=torch.float64)
    for query, column in enumerate(view.query_positions.tolist()):
        decoded = 0 if prompt is None else min(max(column - prompt + 1, 0), 6)
        dense = dense_attention(at_temperature(view, 0.5 + decoded * 1.5 / 6))
        wanted += dense[:, :, query].view(2, 2, 2, 14).mean(dim=2)
    found = scores(heuristic, view, show)
    torch.testing.assert_close(found[view.valid], wanted[view.valid], rtol=1e-5, atol=1e-5)


def test_the_first_decoded_query_is_one_step_from_the_start(
    make_view: MakeView, show: Show, dense_attention: Oracle
) -> None:
    view = make_view(new=1, prompt_columns=11)
    heuristic = Keyformer(tau_init=1.0, tau_end=2.0, max_new_tokens=4, noise=False)
    dense = dense_attention(at_temperature(view, 1.25)).view(2, 2, 2, 12).mean(dim=2)
    torch.testing.assert_close(scores(heuristic, view, show), dense, rtol=1e-5, atol=1e-6)


def test_without_noise_at_temperature_1_it_is_accumulated_attention(
    make_view: MakeView, show: Show
) -> None:
    view = make_view(softcap=4.0, sinks=True, window=7)
    found = scores(Keyformer(noise=False), view, show)
    torch.testing.assert_close(found, scores(HeavyHitter(), view, show), rtol=1e-5, atol=1e-5)


def test_each_query_head_query_and_token_has_noise_of_its_own(
    make_view: MakeView, show: Show
) -> None:
    view = make_view(tokens=6, padding=(0, 2))
    view = replace(view, layer=5, queries=torch.zeros_like(view.queries))
    heuristic = Keyformer(seed=9)
    found = scores(heuristic, view, show)
    for row, pads in enumerate((0, 2)):
        for kv_head in range(2):
            wanted = torch.zeros(6, dtype=torch.float64)
            for head in (2 * kv_head, 2 * kv_head + 1):
                for query in range(6 - pads):
                    drawn = [
                        gumbel(9, 5, *map(torch.tensor, (head, query, token))).item()
                        for token in range(query + 1)
                    ]
                    shares = torch.tensor(drawn, dtype=torch.float64).softmax(dim=-1)
                    wanted[pads : pads + query + 1] += shares / 2
            torch.testing.assert_close(found[row, kv_head], wanted, rtol=1e-5, atol=1e-5)


def test_the_colder_it_is_the_nearer_the_mean_comes_to_accumulated_attention(
    make_view: MakeView, show: Show
) -> None:
    one = make_view(kv_heads=1, group=1, tokens=6, sinks=True)
    many = 3000  # heads that hold the same, so that their noise is all that differs
    view = replace(
        one,
        **{
            name: getattr(one, name).repeat(1, many, *[1] * (getattr(one, name).dim() - 2))
            for name in ("keys", "values", "valid", "positions", "queries")
        },
        sinks=torch.zeros(many) + one.sinks,
    )
    wanted = scores(HeavyHitter(), one, show)[:, 0]

    def farthest(tau: float) -> float:
        drawn = scores(Keyformer(tau_init=tau, tau_end=tau), view, show)
        return (drawn.mean(dim=1) - wanted).abs().max().item()

    # standard error at most sqrt(6 queries / 4 / 3000 heads) = 0.022
    assert farthest(0.01) < 0.08 < farthest(1.0)


def test_expected_scores_at_temperature_1_are_flatter_than_softmax(
    make_view: MakeView, show: Show
) -> None:
    logits = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0, -4.0])
    view = make_view(kv_heads=50_000, batch=1, group=1, tokens=6, new=1, head_dim=1, padding=(0,))
    view = replace(
        view,
        keys=logits.view(6, 1).expand_as(view.keys),
        queries=torch.ones_like(view.queries),
        scaling=1.0,
    )
    found = scores(Keyformer(), view, show).mean(dim=(0, 1))
    # simulated elsewhere with 200,000 draws
    wanted = torch.tensor([0.518, 0.263, 0.129, 0.060, 0.028, 0.002]).double()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.004)
    assert found[0] < logits.softmax(dim=-1)[0] - 0.1


def test_another_seed_draws_other_noise_and_none_touches_a_generator(
    make_view: MakeView, show: Show
) -> None:
    view = make_view()
    before = torch.get_rng_state()
    one, other = (scores(Keyformer(seed=seed), view, show) for seed in (0, 1))
    assert not torch.allclose(one, other)
    assert torch.equal(one, scores(Keyformer(seed=0), view, show))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau_init": 0.0}, "`tau_init` must be above 0, but got tau_init=0.0."),
        ({"tau_end": float("inf")}, "`tau_end` must be above 0, but got tau_end=inf."),
        (
            {"max_new_tokens": 0},
            "`max_new_tokens` must be at least 1, but got max_new_tokens=0.",
        ),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Keyformer(**settings)  # type: ignore[arg-type]
    assert str(error.value) == message
