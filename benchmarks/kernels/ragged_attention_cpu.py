"""Times decoding attention over a ragged cache on the CPU, as ratios within one run.

A busy machine makes absolute times worthless, so every round times all contenders one after the
other in CPU seconds, and what is reported is the median and the quartiles of the rounds' ratios.

    python benchmarks/kernels/ragged_attention_cpu.py > rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kvbudget.kernels import ragged_attention

KV_HEADS, HEAD_DIM, LAYERS, TAIL, SEED = 8, 64, 8, 64, 0


@dataclass(frozen=True, slots=True)
class Case:
    """One token decoded by a model of eight layers with eight KV heads each."""

    context_tokens: int
    group: int
    kept_fraction: float
    even: bool
    dtype: torch.dtype

    def __str__(self) -> str:
        shape = "even" if self.even else "uneven"
        kind = str(self.dtype).removeprefix("torch.")
        return f"{kind} {self.context_tokens} group {self.group} kept {self.kept_fraction} {shape}"


def cases() -> Iterator[Case]:
    """All cases, small contexts first."""
    for context in (1024, 4096, 16384):
        for dtype in (torch.float32, torch.bfloat16):
            for group in (1, 4):
                yield Case(context, group, 0.25, False, dtype)
        yield Case(context, 4, 0.25, True, torch.float32)


class Layer:
    """Random full and ragged caches of one layer, and the contenders."""

    def __init__(self, case: Case, lengths: Tensor) -> None:
        random = partial(torch.randn, dtype=case.dtype)
        full = (1, KV_HEADS, case.context_tokens, HEAD_DIM)
        self.case = case
        self.full = random(full), random(full)
        self.queries = random(1, KV_HEADS * case.group, 1, HEAD_DIM)
        self.new = random(1, KV_HEADS, 1, HEAD_DIM)
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        rows = int(self.offsets[-1])
        self.flat = random(rows, HEAD_DIM), random(rows, HEAD_DIM)
        self.positions = torch.zeros(rows, dtype=torch.int32)
        tail = (1, KV_HEADS, TAIL, HEAD_DIM)
        self.tail = random(tail), random(tail)

    def cat_sdpa(self) -> Tensor:
        """What transformers' DynamicCache and SDPA attention do for one token."""
        keys, values = (torch.cat([kept, self.new], -2) for kept in self.full)
        return F.scaled_dot_product_attention(self.queries, keys, values, enable_gqa=True)

    def full_sdpa(self) -> Tensor:
        """SDPA over the full cache in place, the group's queries as rows of one matrix."""
        rows = self.queries.view(1, KV_HEADS, self.case.group, HEAD_DIM)
        return F.scaled_dot_product_attention(rows, *self.full)

    def ragged(self) -> Tensor:
        """One token written to a half-filled tail, then ragged attention."""
        for tail in self.tail:
            tail[:, :, TAIL // 2 - 1 : TAIL // 2] = self.new
        return ragged_attention(
            self.queries,
            *self.flat,
            self.offsets,
            self.positions,
            *self.tail,
            TAIL // 2,
            seen_tokens=self.case.context_tokens,
            scaling=HEAD_DIM**-0.5,
        )


def check(layer: Layer) -> None:
    """Refuse to time a kernel that is wrong: on the full cache it must equal SDPA."""
    keys, values = (kept.flatten(0, 2) for kept in layer.full)
    rows = layer.case.context_tokens
    empty = layer.new[:, :, :0]
    got = ragged_attention(
        layer.queries,
        keys,
        values,
        torch.arange(0, KV_HEADS * rows + 1, rows),
        torch.zeros(len(keys), dtype=torch.int32),
        empty,
        empty,
        0,
        seen_tokens=rows,
        scaling=HEAD_DIM**-0.5,
    )
    tolerance = 1e-5 if layer.case.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got.flatten(), layer.full_sdpa().flatten(), rtol=0, atol=tolerance)


def lengths_of(case: Case) -> Tensor:
    """Kept tokens of every layer and KV head, [layers, kv_heads], the mean as the case asks."""
    weight = torch.ones(LAYERS, KV_HEADS) if case.even else torch.rand(LAYERS, KV_HEADS) ** 1.5
    weight = weight + 0.05
    mean = case.kept_fraction * case.context_tokens
    return (weight / weight.mean() * mean).long().clamp(1, case.context_tokens)


def seconds(contender: Callable[[Layer], Tensor], layers: list[Layer], repeats: int) -> float:
    """CPU seconds of one token."""
    start = time.process_time()
    for _ in range(repeats):
        for layer in layers:
            contender(layer)
    return (time.process_time() - start) / repeats


def ratios(case: Case, rounds: int) -> Iterator[dict[str, object]]:
    """One row per baseline: how many times longer it takes than ragged attention."""
    torch.manual_seed(SEED)
    layers = [Layer(case, lengths) for lengths in lengths_of(case)]
    check(layers[0])
    contenders = (Layer.ragged, Layer.cat_sdpa, Layer.full_sdpa)
    repeats = max(1, 32768 // case.context_tokens)
    for contender in contenders:
        seconds(contender, layers, 1)
    times = [[seconds(c, layers, repeats) for c in contenders] for _ in range(rounds)]
    for i, baseline in enumerate(contenders[1:], 1):
        ratio = [row[i] / row[0] for row in times]
        low, median, high = statistics.quantiles(ratio, n=4)
        yield {
            "case": str(case),
            **{k: v for k, v in asdict(case).items() if k != "dtype"},
            "metric": f"{baseline.__name__} / ragged, CPU time",
            "value": round(median, 2),
            "quartiles": [round(low, 2), round(high, 2)],
            "unit": "1",
            "rounds": rounds,
            "seed": SEED,
        }


def main() -> None:
    """Time all cases and write one JSON row per ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}"
    for case in cases():
        for row in ratios(case, arguments.rounds):
            sys.stdout.write(json.dumps({**row, "machine": machine}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    with torch.no_grad():
        main()
