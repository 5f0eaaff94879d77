"""Checks, then times, decoding attention over a ragged cache on a CUDA device.

Baseline is SDPA over the full cache in place. Writes one JSON file with a row per case.

    python benchmarks/kernels/ragged_attention_gpu.py results.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KV_HEADS, GROUP, HEAD_DIM, TAIL, SEED = 8, 4, 128, 64, 0
DTYPE, DEVICE = torch.bfloat16, "cuda"


@dataclass(frozen=True, slots=True)
class Case:
    """One token of every sequence through one layer, heads of very unequal length."""

    batch: int
    context_tokens: int
    kept_fraction: float


CASES = [
    Case(batch, context, kept)
    for batch in (1, 8)
    for context in (8192, 32768)
    for kept in (0.1, 0.25, 1.0)
]


def ragged_arguments(case: Case, queries: Tensor) -> dict[str, Any]:
    """Random prefix with the case's mean length, and a half-filled tail."""
    pairs = case.batch * KV_HEADS
    weight = torch.rand(pairs) ** 1.5 + 0.05 if case.kept_fraction < 1 else torch.ones(pairs)
    lengths = weight / weight.mean() * case.kept_fraction * case.context_tokens
    lengths = lengths.long().clamp(1, case.context_tokens)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(DEVICE)
    random = partial(torch.randn, dtype=DTYPE, device=DEVICE)
    rows = int(lengths.sum())
    tail = (case.batch, KV_HEADS, TAIL, HEAD_DIM)
    return {
        "queries": queries,
        "keys": random(rows, HEAD_DIM),
        "values": random(rows, HEAD_DIM),
        "offsets": offsets,
        "positions": torch.zeros(rows, dtype=torch.int32, device=DEVICE),
        "tail_keys": random(tail),
        "tail_values": random(tail),
        "tail_tokens": TAIL // 2,
        "seen_tokens": case.context_tokens + TAIL,
        "scaling": HEAD_DIM**-0.5,
    }


def rows(case: Case) -> Iterator[dict[str, object]]:
    """Check and time one case."""
    # here, so that --help works without triton
    from triton.testing import do_bench

    from kvbudget.kernels import Prefix, ragged_attention
    from kvbudget.kernels.ragged_attention import reference

    torch.manual_seed(SEED)
    random = partial(torch.randn, dtype=DTYPE, device=DEVICE)
    queries = random(case.batch, KV_HEADS * GROUP, 1, HEAD_DIM)
    arguments = ragged_arguments(case, queries)
    expected = reference.ragged_attention(**arguments)
    torch.testing.assert_close(ragged_attention(**arguments), expected, rtol=0, atol=2e-2)
    full = (case.batch, KV_HEADS, case.context_tokens, HEAD_DIM)
    keys, values = random(full), random(full)
    kept = Prefix(*(arguments[name] for name in ("keys", "values", "offsets", "positions")))
    contenders: dict[str, Callable[[], Tensor]] = {
        "sdpa_full": partial(
            F.scaled_dot_product_attention, queries, keys, values, enable_gqa=True
        ),
        "ragged": partial(ragged_attention, **arguments),
        "ragged_kept_prefix": partial(ragged_attention, **arguments, prefix=kept),
    }
    for name, contender in contenders.items():
        low, median, high = do_bench(contender, quantiles=[0.25, 0.5, 0.75])
        yield {
            "case": asdict(case),
            "metric": name,
            "value": median,
            "quartiles": [low, high],
            "unit": "ms",
            "seed": SEED,
        }


def main() -> None:
    """Run all cases and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device, but torch sees none.")
    machine = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    results = [{**row, "machine": machine} for case in CASES for row in rows(case)]
    output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
