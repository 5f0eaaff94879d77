"""Heuristics order the tokens of a random model as kvpress 0.5.5 does at the same settings.

The scores were recorded by ``benchmarks/peers/record_kvpress_scores.py``; kvpress is not needed
here. Each test says which tokens are left out, and what else differs.
"""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from kvbudget.heuristics import (
    CriticalKV,
    ExpectedAttention,
    HeavyHitter,
    KeyDiff,
    KeyNorm,
    LagKV,
    LayerView,
    Leverage,
    NonCausalAttention,
    ObservationWindow,
    Rotation,
    SinkRecent,
    TokenHeuristic,
    Tova,
    ZipCache,
    checked_scores,
    observed,
)

FILE = Path(__file__).with_name("kvpress_scores.safetensors")
SINKS, LAG, CHUNK, NARROW_WINDOW = 4, 32, 64, 16
TOKENS = 192
QUERIES_THAT_SAW = torch.arange(TOKENS, 0, -1)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return load_file(FILE)


@pytest.fixture(scope="module")
def view(recorded: dict[str, Tensor]) -> LayerView:
    keys, columns = recorded["keys"], torch.arange(TOKENS)
    return LayerView(
        layer=1,
        keys=keys,
        values=recorded["values"],
        valid=torch.ones(keys.shape[:3], dtype=torch.bool),
        positions=columns.expand(keys.shape[:3]),
        queries=recorded["queries"],
        query_positions=columns,
        scaling=keys.shape[-1] ** -0.5,
        rotation=Rotation(recorded["frequencies"]),
        output_weight=recorded["output_weight"],
    )


def scores_of(heuristic: TokenHeuristic, view: LayerView) -> Tensor:
    return checked_scores(heuristic, observed(heuristic, view))


def order(scores: Tensor) -> list[list[int]]:
    return scores[0].argsort(dim=-1, descending=True, stable=True).tolist()


def best(scores: Tensor, capacity: int) -> list[set[int]]:
    return [set(head[:capacity]) for head in order(scores)]


def test_the_file_says_what_it_was_made_with() -> None:
    with safe_open(FILE, "pt") as file:
        assert file.metadata()["kvpress"] == "0.5.5"
    assert FILE.stat().st_size < 200_000


@pytest.mark.parametrize(
    ("name", "heuristic", "compared"),
    [
        # kvpress puts the first tokens above the others, all equal
        ("expected_attention", ExpectedAttention(), slice(SINKS, None)),
        (
            "expected_attention_mean_only",
            ExpectedAttention(covariance=False, epsilon=0.02),
            slice(SINKS, None),
        ),
        ("key_diff", KeyDiff(), slice(None)),
        ("key_norm", KeyNorm(), slice(None)),
        # kvpress puts the window above the others, all equal
        ("snap_kv", ObservationWindow(64, 5, mean_pooling=True), slice(-64)),
        # kvpress puts the newest token above the others
        ("tova", Tova(), slice(-1)),
        # kvpress divides by the queries that could see the token, as ZipCache does
        ("observed_attention", ZipCache(), slice(None)),
    ],
)
def test_scores_and_so_the_order_are_those_of_kvpress(
    name: str,
    heuristic: TokenHeuristic,
    compared: slice,
    view: LayerView,
    recorded: dict[str, Tensor],
) -> None:
    ours = scores_of(heuristic, view)[..., compared]
    theirs = recorded[f"score.{name}"][..., compared]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert order(ours) == order(theirs)


def test_heavy_hitter_is_observed_attention_without_its_division(
    view: LayerView, recorded: dict[str, Tensor]
) -> None:
    ours = scores_of(HeavyHitter(), view)
    torch.testing.assert_close(
        ours / QUERIES_THAT_SAW, recorded["score.observed_attention"], rtol=1e-5, atol=1e-6
    )


def test_non_causal_attention_is_standardised_over_the_layer_by_kvpress(
    view: LayerView, recorded: dict[str, Tensor]
) -> None:
    # 192 tokens are whole chunks: kvpress 0.5.5 lets the last chunk attend to its padding
    ours = scores_of(NonCausalAttention(chunk=CHUNK), view)
    theirs = recorded["score.non_causal_attention"]
    torch.testing.assert_close((ours - ours.mean()) / ours.std(), theirs, rtol=1e-4, atol=1e-5)
    assert order(ours) == order(theirs)


def test_leverage_differs_by_the_draw_of_the_sketch_alone(
    view: LayerView, recorded: dict[str, Tensor]
) -> None:
    # kvpress draws 48 directions per head even of 16 numbers, to which its ridge then refers;
    # here 16 numbers are not projected
    ours, theirs = scores_of(Leverage(), view), recorded["score.leverage"]
    for head in range(2):
        ranks = torch.stack([each[0, head].argsort().argsort().float() for each in (ours, theirs)])
        assert torch.corrcoef(ranks)[0, 1] > 0.9999
    torch.testing.assert_close((ours - ours.mean()) / ours.std(), theirs, rtol=1e-3, atol=1e-3)


def test_lag_kv_orders_alike_whatever_kvpress_does_not_leave_equal(
    view: LayerView, recorded: dict[str, Tensor]
) -> None:
    # kvpress gives sinks and tail 1 each, and the same ranks to every partition
    ours = scores_of(LagKV(lag=LAG, sinks=SINKS), view)[0]
    theirs = recorded["score.lag_kv"][0]
    better_here = ours.unsqueeze(-1) > ours.unsqueeze(-2)
    better_there = theirs.unsqueeze(-1) > theirs.unsqueeze(-2)
    assert better_there.float().mean() > 0.4
    assert better_here[better_there].all()


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(
    ("name", "heuristic"),
    [
        # half of each capacity is above the window, whose order kvpress leaves open
        ("critical_kv", CriticalKV(window=NARROW_WINDOW, kernel=1)),
        ("streaming_llm", SinkRecent(SINKS)),
    ],
)
def test_one_order_keeps_at_every_capacity_what_kvpress_selects_for_it(
    name: str,
    heuristic: TokenHeuristic,
    ratio: float,
    view: LayerView,
    recorded: dict[str, Tensor],
) -> None:
    capacity = int(TOKENS * (1 - ratio))
    theirs = recorded[f"score.{name}_{ratio}"]
    assert best(scores_of(heuristic, view), capacity) == best(theirs, capacity)
