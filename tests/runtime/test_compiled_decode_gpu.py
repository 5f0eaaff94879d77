"""Recorded decoding on a GPU: CUDA graphs of a step, replayed between and across evictions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvbudget.allocator import KVBudgetError, Plan
from kvbudget.heuristics import HeavyHitter, ObservationWindow, TokenHeuristic
from kvbudget.runtime import budgeted, geometry_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU"),
]

STEPS = 60
HEURISTICS = [ObservationWindow(window=8, kernel=3), HeavyHitter()]
# sums in another order; a token that went another way would differ by more
TOLERANCE = 2e-4


@pytest.fixture
def model(model_of) -> PreTrainedModel:
    return model_of("LlamaForCausalLM").cuda()


@pytest.fixture
def plan(model, plan_for, random_capacity) -> Plan:
    geometry = geometry_of(model)
    return plan_for(geometry, random_capacity(geometry, 8, 17), 40)


@pytest.fixture
def tokens() -> Tensor:
    draw = torch.Generator().manual_seed(7)
    return torch.randint(3, 90, (1, 30 + STEPS), generator=draw).cuda()


def decoded(
    model: PreTrainedModel, plan: Plan, heuristic: TokenHeuristic, tokens: Tensor, step: Callable
) -> tuple[Tensor, list[list[list[Tensor]]]]:
    """Logits of the tokens behind a prompt, and what is held at the end."""
    seen = []
    with torch.no_grad(), budgeted(model, plan, heuristic) as cache:
        model(tokens[:, :30], past_key_values=cache)
        for at in range(30, tokens.shape[1]):
            seen.append(step(cache, tokens[:, at : at + 1]).clone())
        return torch.stack(seen), [cache.kept_positions(at) for at in range(3)]


def assert_same(found, expected) -> None:
    torch.testing.assert_close(found[0], expected[0], atol=TOLERANCE, rtol=0)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours[0], theirs[0], strict=True))


@pytest.mark.parametrize("heuristic", HEURISTICS, ids=["window", "running"])
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_forward_compiled_in_place_gives_the_same(model, plan, tokens, heuristic, mode):
    def step(cache, token):
        return model(token, past_key_values=cache).logits

    expected = decoded(model, plan, heuristic, tokens, step)
    torch._dynamo.reset()
    model.forward = torch.compile(model.forward, mode=mode, fullgraph=True)
    assert_same(decoded(model, plan, heuristic, tokens, step), expected)
    assert_same(decoded(model, plan, heuristic, tokens, step), expected)


@pytest.mark.parametrize("heuristic", HEURISTICS, ids=["window", "running"])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_recorded_step_gives_the_same(model, plan, tokens, heuristic, is_compiled):
    expected = decoded(
        model,
        plan,
        heuristic,
        tokens,
        lambda cache, token: model(token, past_key_values=cache).logits,
    )
    torch._dynamo.reset()
    if is_compiled:
        model.forward = torch.compile(model.forward, backend="eager", fullgraph=True)
    graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
    token_in = tokens[:, :1].clone()

    def step(cache, token):
        token_in.copy_(token)
        with cache.decoding_step() as number:
            if number not in graphs:
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):  # doing it twice does no harm
                    for _ in range(2):
                        model(token_in, past_key_values=cache)
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    logits = model(token_in, past_key_values=cache).logits
                graphs[number] = graph, logits
            graph, logits = graphs[number]
            graph.replay()
        return logits

    assert_same(decoded(model, plan, heuristic, tokens, step), expected)
    assert len(graphs) < STEPS // 6  # replayed far more often than recorded


def test_a_forward_that_nobody_got_ready_is_not_recorded(model, plan, tokens):
    with torch.no_grad(), budgeted(model, plan, HEURISTICS[0]) as cache:
        model(tokens[:, :30], past_key_values=cache)
        call = torch.compile(model.forward, backend="eager", fullgraph=True)
        call(tokens[:, :1], past_key_values=cache)
        with (
            pytest.raises(KVBudgetError, match=r"cache\.decoding_step\(\)"),
            torch.cuda.graph(torch.cuda.CUDAGraph()),
        ):
            call(tokens[:, :1], past_key_values=cache)
