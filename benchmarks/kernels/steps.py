"""Whole decode steps of a Llama with the sizes of eight billion parameters, but eight layers.

The budgeted cache, as it comes and with the model's forward compiled (CUDA graphs), against
DynamicCache and against a compiled StaticCache. Contexts are random keys and values, put into the
caches layer by layer, since what a step costs does not depend on which they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from kvbudget.allocator import Certificate, Plan
from kvbudget.heuristics import SinkRecent
from kvbudget.runtime import BudgetedCache, budgeted, geometry_of
from kvbudget.runtime.attention_call import AttentionCall, LogitRules

from .case import HEAD_DIM, KV_HEADS, SEED, Case
from .clock import Times

HIDDEN, INNER = 4096, 14336
FEWEST_KEPT = 128
PAIRS = (("budgeted", "DynamicCache"), ("budgeted, compiled", "StaticCache, compiled"))
"""Who is compared with whom."""


class Extent(NamedTuple):
    """How much is done.

    Args:
        layers: Layers of the model.
        vocabulary: Its tokens.
        tokens: Tokens decoded in a round: from one eviction to the next.
        rounds: Rounds that are timed; two before them are not.
    """

    layers: int = 8
    vocabulary: int = 32_000
    tokens: int = 32
    rounds: int = 7


def build_model(case: Case, extent: Extent, device: torch.device) -> LlamaForCausalLM:
    """A random model of the case's sizes."""
    torch.manual_seed(SEED)
    heads = KV_HEADS * case.group
    config = LlamaConfig(
        vocab_size=extent.vocabulary,
        hidden_size=heads * HEAD_DIM,
        intermediate_size=heads * HEAD_DIM * INNER // HIDDEN,
        num_hidden_layers=extent.layers,
        num_attention_heads=heads,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=1 << 20,
        eos_token_id=None,
    )
    with torch.device(device):
        return LlamaForCausalLM(config).to(case.dtype).eval()


def plan_of(model: LlamaForCausalLM, case: Case) -> Plan:
    """The case's capacities, the same in every layer."""
    one = case.lengths().view(case.batch, KV_HEADS)[0].clamp(min=FEWEST_KEPT).numpy()
    geometry = geometry_of(model)
    capacity = one[None].repeat(geometry.layers, 0)
    return Plan(
        capacity_tokens=capacity,
        context_tokens=case.context_tokens,
        batch_size=case.batch,
        budget_bytes=int(capacity.sum()) * case.batch * geometry.bytes_per_token,
        certificate=Certificate("by hand", "FEASIBLE", 0.0, 0.0, 0.0),
        geometry=geometry,
        model="random",
        heuristic="sink_recent",
        heuristic_settings=(),
        measure="none",
    )


def fill(cache: Cache, case: Case, layers: nn.ModuleList, device: torch.device) -> None:
    """Give a cache the case's context; a budgeted one cuts every layer at once."""
    if isinstance(cache, BudgetedCache):
        cache.stack.expect(case.batch, case.context_tokens)
    for layer, module in enumerate(layers):
        shape = (case.batch, KV_HEADS, case.context_tokens, HEAD_DIM)
        keys, values = (torch.randn(shape, dtype=case.dtype, device=device) for _ in range(2))
        if not isinstance(cache, BudgetedCache):
            cache.update(keys, values, layer)
            continue
        queries = keys[:, :, -1:].repeat_interleave(case.group, 1).expand(-1, -1, 1, -1)
        held = cache.stack.layers[layer]
        held.admit(keys, values)
        rules = LogitRules(HEAD_DIM**-0.5)
        mask = torch.ones(1, 1, 1, case.context_tokens, dtype=torch.bool, device=device)
        held.absorb_prompt(AttentionCall(module.self_attn, queries, keys, values, mask, rules))


@torch.no_grad()
def times(case: Case, extent: Extent, device: torch.device) -> dict[str, Times]:
    """Milliseconds of a round with every cache."""
    plain, ours = (build_model(case, extent, device) for _ in range(2))
    room = case.context_tokens + 2 * (extent.rounds + 2) * extent.tokens
    dynamic, static = DynamicCache(), StaticCache(plain.config, max_cache_len=room)
    for cache in (dynamic, static):
        fill(cache, case, plain.model.layers, device)
    with budgeted(ours, plan_of(ours, case), SinkRecent()) as cache:
        fill(cache, case, ours.model.layers, device)
        contenders = {
            "budgeted": _decoder(ours, cache, case, extent.tokens, device),
            "DynamicCache": _decoder(plain, dynamic, case, extent.tokens, device),
        }
        found = _race(contenders, extent.rounds, device)
        with _compiled(ours, device), _compiled(plain, device):
            contenders = {
                "budgeted, compiled": _decoder(ours, cache, case, extent.tokens, device),
                "StaticCache, compiled": _decoder(plain, static, case, extent.tokens, device),
            }
            return found | _race(contenders, extent.rounds, device)


@contextmanager
def _compiled(model: LlamaForCausalLM, device: torch.device) -> Iterator[None]:
    """Compile a model's forward in place, on a GPU with CUDA graphs."""
    before = model.forward
    if device.type == "cuda":
        model.forward = torch.compile(before, mode="reduce-overhead")
    else:
        model.forward = torch.compile(before, backend="eager")
    try:
        yield
    finally:
        model.forward = before


def _decoder(
    model: LlamaForCausalLM, cache: Cache, case: Case, tokens: int, device: torch.device
) -> Callable[[], None]:
    """A function that decodes some tokens with this cache."""
    token = torch.full((case.batch, 1), 5, device=device)

    def decode() -> None:
        nonlocal token
        for _ in range(tokens):
            torch.compiler.cudagraph_mark_step_begin()
            logits: Tensor = model(token, past_key_values=cache).logits
            token = logits[:, -1:].argmax(-1)

    return decode


def _race(
    contenders: dict[str, Callable[[], None]], timed: int, device: torch.device
) -> dict[str, Times]:
    """Milliseconds that everybody takes for some tokens, in turn."""
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(timed + 2):
        for name, decode in contenders.items():
            took = _seconds(decode, device)
            if number > 1:  # before, things are compiled and recorded
                rounds[name].append(took * 1e3)
    return {name: Times(tuple(each), is_captured=False) for name, each in rounds.items()}


def _seconds(decode: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    decode()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
