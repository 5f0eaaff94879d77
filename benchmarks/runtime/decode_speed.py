"""Time generation with a quarter of the cache against transformers with all of it, in one run.

    python -m benchmarks.runtime.decode_speed --json decode_speed.jsonl

The caches are filled by a real prefill of a random model. Each round decodes a few tokens with
every contender in turn; what is reported is the median of the rounds' ratios and their quartiles.
`copying` is transformers' own DynamicCache, which copies the cache for every token; `in place` is
a cache that writes into memory set aside beforehand, the strongest plain opponent.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from transformers import Cache, DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from benchmarks.rows import Row, report
from kvbudget.allocator import Certificate, Plan
from kvbudget.heuristics import SinkRecent
from kvbudget.runtime import budgeted, geometry_of

SEED, KEPT, ROUNDS, TOKENS_PER_ROUND = 0, 0.25, 7, 6


@dataclass(frozen=True, slots=True)
class Case:
    """A model of eight layers with eight KV heads each, and a context."""

    context_tokens: int
    group: int

    def __str__(self) -> str:
        return f"context {self.context_tokens}, {self.group} queries per KV head, kept {KEPT:.0%}"


def build_model(case: Case) -> LlamaForCausalLM:
    """A random Llama of hidden size 512."""
    torch.manual_seed(SEED)
    heads = 8 * case.group
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=65_536,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def uneven_plan(model: LlamaForCausalLM, case: Case) -> Plan:
    """Capacities spread widely around a quarter of the context."""
    geometry = geometry_of(model)
    drawn = np.random.default_rng(SEED).random((geometry.layers, geometry.kv_heads)) ** 2 + 0.05
    share = np.minimum(drawn / drawn.mean() * KEPT, 1.0)
    capacity = np.maximum(64, (share * case.context_tokens).astype(np.int64))
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


def bytes_of(cache: Cache) -> int:
    """Bytes of the keys and values of one of transformers' caches."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@torch.inference_mode()
def seconds_per_token(model: LlamaForCausalLM, cache: Cache, switch: Callable[[], None]) -> float:
    """Decode a few tokens and take the processor time of this process."""
    switch()
    token = torch.tensor([[5]])
    start = time.process_time()
    for _ in range(TOKENS_PER_ROUND):
        token = model(token, past_key_values=cache).logits[:, -1:].argmax(-1)
    return (time.process_time() - start) / TOKENS_PER_ROUND


@torch.inference_mode()
def measure(case: Case) -> Iterator[Row]:
    """Fill the three caches, time them in turn, and give ratios."""
    model, room = build_model(case), case.context_tokens + (ROUNDS + 1) * TOKENS_PER_ROUND + 1
    prompt = torch.randint(0, 1024, (1, case.context_tokens))
    plain = {"copying": DynamicCache(), "in place": StaticCache(model.config, max_cache_len=room)}
    for cache in plain.values():
        model(prompt, past_key_values=cache, logits_to_keep=1)
    with ExitStack() as stack:
        ours = stack.enter_context(budgeted(model, uneven_plan(model, case), SinkRecent()))
        model(prompt, past_key_values=ours, logits_to_keep=1)
        # only the attention function differs between the contenders
        contenders: dict[str, tuple[Cache, str]] = {
            "budgeted": (ours, model.config._attn_implementation),
            **{name: (cache, "sdpa") for name, cache in plain.items()},
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS + 1):
            for name, (cache, attention) in contenders.items():

                def switch(attention: str = attention) -> None:
                    model.set_attn_implementation(attention)

                seconds[name].append(seconds_per_token(model, cache, switch))
        held = ours.nbytes() / bytes_of(plain["copying"])
        yield Row(str(case), "bytes held / full", held, "1", SEED)
    for name in plain:
        pairs = zip(seconds[name][1:], seconds["budgeted"][1:], strict=True)
        ratios = [theirs / mine for theirs, mine in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4)
        yield Row(str(case), f"speed-up over {name}, median", middle, "times", SEED)
        yield Row(str(case), f"speed-up over {name}, lower quartile", low, "times", SEED)
        yield Row(str(case), f"speed-up over {name}, upper quartile", high, "times", SEED)


def main() -> None:
    """Measure all contexts and print one line per figure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--contexts", type=int, nargs="+", default=[1024, 4096, 16384])
    arguments.add_argument("--groups", type=int, nargs="+", default=[1, 4])
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    cases = [Case(context, group) for context in chosen.contexts for group in chosen.groups]
    report(chain.from_iterable(measure(case) for case in cases), chosen.json)


if __name__ == "__main__":
    main()
