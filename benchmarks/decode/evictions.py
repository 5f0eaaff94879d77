"""Time one eviction while decoding: newest tokens put into the holes, or everything moved together.

    python -m benchmarks.decode.evictions

A layer of eight KV heads keeps equally many tokens before and after; of all tokens but the newest
as many go as came. The alternative copies whatever stays, as a cache without holes has to.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.rows import Row, report
from kvbudget.runtime.arena import Region
from kvbudget.runtime.eviction import MAX_TAIL_TOKENS
from kvbudget.runtime.padded_tokens import block_tokens
from kvbudget.runtime.ragged import RaggedStore

from .case import HEAD_DIM, KV_HEADS, SEED


def build_store(kept: int) -> tuple[RaggedStore, Tensor]:
    """A layer that holds so many tokens in each head, and its capacities, [1, kv_heads]."""
    shape, rows = (1, KV_HEADS, kept, HEAD_DIM), KV_HEADS * (kept + MAX_TAIL_TOKENS)
    region = Region(torch.empty(rows, HEAD_DIM), torch.empty(rows, HEAD_DIM))
    every = torch.ones(1, kept, dtype=torch.bool)
    tokens = block_tokens(torch.randn(shape), torch.randn(shape), 0, every, 0)
    capacities = torch.full((1, KV_HEADS), kept + MAX_TAIL_TOKENS)
    store = RaggedStore.of(
        tokens, tokens.valid, region, capacities, first_column=kept, tail=MAX_TAIL_TOKENS
    )
    return store, capacities


def chosen_at_random(store: RaggedStore, round_number: int) -> Tensor:
    """What stays: everything in the tail, and of the others as many as there is room for."""
    valid = store.padded(dense=False).valid
    random = torch.Generator().manual_seed(SEED + round_number)
    worth = torch.rand(valid.shape, generator=random)
    worth[..., -MAX_TAIL_TOKENS:] = 2
    least = worth.topk(valid.shape[-1] - MAX_TAIL_TOKENS, sorted=False).values.amin(-1)
    return worth >= least[..., None]


def seconds(run: Callable[[], object]) -> float:
    """Processor time of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(kept: int, rounds: int) -> Iterator[Row]:
    """Time both ways in turn."""
    torch.manual_seed(SEED)
    store, capacities = build_store(kept)
    newest = torch.randn(1, KV_HEADS, MAX_TAIL_TOKENS, HEAD_DIM)
    stay = torch.arange(KV_HEADS * kept) + MAX_TAIL_TOKENS

    def move_everything() -> None:
        for storage in (store.region.keys, store.region.values):
            storage[: len(stay)] = storage.index_select(0, stay)

    ratios = []
    for number in range(rounds + 2):
        store.append(newest, newest)
        keep = chosen_at_random(store, number)
        state = store.padded(dense=False).state

        def put_into_holes(keep: Tensor = keep, state: Tensor = state) -> None:
            store.merge(keep, state, MAX_TAIL_TOKENS, capacities)

        ours = seconds(put_into_holes)
        theirs = seconds(move_everything)
        if number > 1:
            ratios.append(theirs / ours)
    case = f"{KV_HEADS} KV heads keep {kept} tokens each, float32"
    low, middle, high = statistics.quantiles(ratios, n=4)
    name = "eviction: speed-up over moving all that stays"
    yield Row(case, f"{name}, median", middle, "times", SEED)
    yield Row(case, f"{name}, lower quartile", low, "times", SEED)
    yield Row(case, f"{name}, upper quartile", high, "times", SEED)


def main() -> None:
    """Measure and print one line per figure."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.decode.evictions")
    arguments.add_argument("--kept", type=int, nargs="+", default=[256, 1024, 4096, 8192])
    arguments.add_argument("--rounds", type=int, default=25)
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    report((row for kept in chosen.kept for row in measure(kept, chosen.rounds)), chosen.json)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
