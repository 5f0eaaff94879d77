"""Whether a long generation holds its bytes and its speed.

    python -m benchmarks.decode.long_generation --json long_generation.jsonl

A tiny random model generates 20,000 tokens through `generate`. After every token the bytes held
are read and compared with the budget; the speed of the last 2,000 tokens is compared with that of
the tokens from 2,000 to 4,000, in processor time. Minutes lie between the two, in which a shared
machine may have become busier, so the early tokens are generated once more afterwards, and both
times of theirs are given. Then the bytes kept beside keys and values are read for the contexts of
the decoding benchmark.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer

from benchmarks.rows import Row, report
from kvbudget import heuristics
from kvbudget.allocator import Certificate, Plan
from kvbudget.heuristics import TokenHeuristic
from kvbudget.runtime import BudgetedCache, budgeted, geometry_of

from .caches import fill_budgeted
from .case import SEED, Case
from .end_to_end import build_model, decoder, uneven_plan

PROMPT, CAPACITIES, STRETCH = 64, ((48, 96, 160, 336), (80, 128, 240, 192)), 2000


class Watcher(BaseStreamer):
    """Notes bytes and processor time after every token.

    Args:
        cache: Whose bytes.
    """

    def __init__(self, cache: BudgetedCache) -> None:
        self._cache = cache
        self.held: list[int] = []
        self.seconds: list[float] = []

    def stretch(self, first: int) -> float:
        """Processor time of a stretch that begins behind this token."""
        return self.seconds[first + STRETCH] - self.seconds[first]

    def put(self, value: torch.Tensor) -> None:
        """Called with the prompt first, and then with every token."""
        if value.dim() > 1:
            return
        self.held.append(self._cache.nbytes())
        self.seconds.append(time.process_time())

    def end(self) -> None:
        """Nothing is left to do."""


def tiny_model() -> LlamaForCausalLM:
    """Two layers of four KV heads."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=65_536,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def tiny_plan(model: LlamaForCausalLM) -> Plan:
    """Capacities of very unequal size."""
    geometry, tokens = geometry_of(model), sum(map(sum, CAPACITIES))
    return Plan(
        capacity_tokens=CAPACITIES,
        context_tokens=4096,
        batch_size=1,
        budget_bytes=tokens * geometry.bytes_per_token,
        certificate=Certificate("by hand", "FEASIBLE", 0.0, 0.0, 0.0),
        geometry=geometry,
        model="random",
        heuristic="sink_recent",
        heuristic_settings=(),
        measure="none",
    )


def generation(heuristic: TokenHeuristic, tokens: int) -> Iterator[Row]:
    """Generate, and compare the end with the beginning."""
    model = tiny_model()
    plan = tiny_plan(model)
    with budgeted(model, plan, heuristic) as cache:
        watcher = watched(model, cache, tokens)
        cache.reset()
        again = watched(model, cache, 2 * STRETCH + 1)
    early, late = watcher.stretch(STRETCH), watcher.stretch(tokens - STRETCH - 1)
    share = plan.budget_bytes // (plan.geometry.bytes_per_token * int(plan.geometry.present.sum()))
    settled = watcher.held[share:]
    case = f"{tokens} tokens generated, {type(heuristic).__name__}"
    yield Row(case, "most bytes held / budget", max(watcher.held) / plan.budget_bytes, "1", SEED)
    yield Row(case, "least bytes held after the first eviction", min(settled), "bytes", SEED)
    yield Row(case, "most bytes held after the first eviction", max(settled), "bytes", SEED)
    yield Row(case, "speed of the early tokens", STRETCH / early, "tokens/s", SEED)
    yield Row(case, "speed of the last tokens / the early ones", early / late, "1", SEED)
    repeated = again.stretch(STRETCH) / late
    yield Row(case, "speed of the last tokens / the early ones, repeated", repeated, "1", SEED)


def watched(model: LlamaForCausalLM, cache: BudgetedCache, tokens: int) -> Watcher:
    """Generate greedily from a short prompt."""
    watcher, prompt = Watcher(cache), torch.randint(0, 64, (1, PROMPT))
    model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        past_key_values=cache,
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        streamer=watcher,
    )
    return watcher


@torch.inference_mode()
def bookkeeping(heuristic: TokenHeuristic, context: int) -> Iterator[Row]:
    """Bytes beside keys and values after a context and some decoded tokens."""
    case = Case(context, 4)
    model = build_model(case)
    with budgeted(model, uneven_plan(model, case), heuristic) as cache:
        fill_budgeted(cache, case, model.model.layers[0].self_attn)
        decode = decoder(model, cache)
        most = 0.0
        for _ in range(40):
            decode()
            most = max(most, cache.nbytes(overhead=True) / cache.nbytes() - 1)
    name = f"{case}, {type(heuristic).__name__}"
    yield Row(name, "most bookkeeping / bytes held", most, "1", SEED)


def main() -> None:
    """Measure and print one line per figure."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.decode.long_generation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--tokens", type=int, default=20_000)
    arguments.add_argument("--contexts", type=int, nargs="*", default=[4096, 16384, 32768])
    names = ["sink_recent", "observation_window"]
    arguments.add_argument("--heuristics", nargs="+", default=names)
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    kinds = [heuristics.get(name)() for name in chosen.heuristics]
    long = (generation(kind, chosen.tokens) for kind in kinds)
    beside = (bookkeeping(kind, context) for context in chosen.contexts for kind in kinds)
    report(chain.from_iterable(chain(long, beside)), chosen.json)


if __name__ == "__main__":
    main()
