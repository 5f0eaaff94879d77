"""Whole decoding steps of a Llama: a quarter of the cache against all of it."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from transformers import Cache, DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from benchmarks.rows import Row
from kvbudget.allocator import Certificate, Plan
from kvbudget.heuristics import TokenHeuristic
from kvbudget.runtime import budgeted, geometry_of
from kvbudget.runtime.eviction import MAX_TAIL_TOKENS

from .caches import InPlaceLayer, fill, fill_budgeted
from .case import HEAD_DIM, KV_HEADS, LAYERS, SEED, Case
from .rounds import Contender, compare

# of a cache that does the same for every token
FEW_TOKENS = 3


def build_model(case: Case) -> LlamaForCausalLM:
    """A random Llama of hidden size 512."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=LAYERS,
        num_attention_heads=KV_HEADS * case.group,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=65_536,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def uneven_plan(model: LlamaForCausalLM, case: Case) -> Plan:
    """The case's capacities as a plan."""
    geometry, capacity = geometry_of(model), case.capacities()
    return Plan(
        capacity_tokens=capacity,
        context_tokens=case.context_tokens,
        batch_size=1,
        budget_bytes=int(capacity.sum()) * geometry.bytes_per_token,
        certificate=Certificate("by hand", "FEASIBLE", 0.0, 0.0, 0.0),
        geometry=geometry,
        model="random",
        heuristic="sink_recent",
        heuristic_settings=(),
        measure="none",
    )


def decoder(model: LlamaForCausalLM, cache: Cache) -> Callable[[], None]:
    """A function that decodes one token with this cache."""
    token = torch.tensor([[5]])

    def decode() -> None:
        nonlocal token
        token = model(token, past_key_values=cache).logits[:, -1:].argmax(-1)

    return decode


@torch.inference_mode()
def measure(case: Case, heuristic: TokenHeuristic, rounds: int) -> Iterator[Row]:
    """Time one token with every cache."""
    plain, model = build_model(case), build_model(case)  # twice, for each its attention function
    room = case.context_tokens + (rounds + 1) * FEW_TOKENS + 1
    full: dict[str, Cache] = {
        "DynamicCache": DynamicCache(),
        "StaticCache": StaticCache(plain.config, max_cache_len=room),
        "a cache that copies nothing": Cache([InPlaceLayer(room) for _ in range(LAYERS)]),
    }
    for cache in full.values():
        fill(cache, case)
    name = f"{case}, {type(heuristic).__name__}"
    with budgeted(model, uneven_plan(model, case), heuristic) as ours:
        fill_budgeted(ours, case, model.model.layers[0].self_attn)
        # from one eviction to the next, so that each round has as many of them
        budgeted_decoding = Contender("BudgetedCache", decoder(model, ours), MAX_TAIL_TOKENS)
        make = partial(Contender, tokens=FEW_TOKENS)
        others = [make(name, decoder(plain, cache)) for name, cache in full.items()]
        yield from compare(name, budgeted_decoding, others, rounds)
        token_bytes = 2 * LAYERS * KV_HEADS * HEAD_DIM * 4
        held = ours.nbytes() / (token_bytes * case.context_tokens)
        extra = ours.nbytes(overhead=True) / ours.nbytes() - 1
        yield Row(name, "bytes held / full", held, "1", SEED)
        yield Row(name, "bookkeeping / bytes held", extra, "1", SEED)
