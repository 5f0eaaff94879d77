"""Bytes that caches hold over a generation, read from the live storages after every step.

    python -m benchmarks.quality.memory_over_time --json memory.jsonl --picture memory.png

The reference model reads a short prompt and generates until its context is full: with the full
cache, and inside plans for shares of it.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import DynamicCache

import kvbudget as kvb
from benchmarks.quality.needle_grid import measured
from benchmarks.rows import Row, report
from kvbudget import Plan, Profile, reference_model
from kvbudget.demo.trying import Reader, full_cache_bytes
from kvbudget.pictures import MemoryTrace, MemoryWatch, draw_memory
from kvbudget.prose import built_in_sentences, file_sentences
from kvbudget.trials import TrialMaker

CONTEXT_TOKENS, PROMPT_TOKENS, SEED = 1024, 64, 5000
SHARES = ("25%", "10%")


def generate(reader: Reader, prompt: Sequence[int], cache: Any, watch: MemoryWatch) -> None:
    """Generate greedily until the context is full."""
    ids = torch.tensor([list(prompt)], device=reader.model.device)
    new_tokens = CONTEXT_TOKENS - len(prompt)
    cast(Any, reader.model).generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=reader.tokenizer.eos_token_id,
        stopping_criteria=[watch],
    )


def full_trace(reader: Reader, prompt: Sequence[int]) -> MemoryTrace:
    """What the full cache holds."""
    cache = DynamicCache()
    watch = MemoryWatch(lambda: full_cache_bytes(cache))
    generate(reader, prompt, cache, watch)
    return watch.trace("full cache")


def plan_trace(reader: Reader, prompt: Sequence[int], plan: Plan, name: str) -> MemoryTrace:
    """What the caches of a plan hold."""
    with kvb.budgeted(reader.model, plan) as cache:
        watch = MemoryWatch(cache.nbytes)
        generate(reader, prompt, cache, watch)
    return watch.trace(name, plan.budget_bytes)


def traces(reader: Reader, profile: Profile, prompt: Sequence[int]) -> list[MemoryTrace]:
    """The full cache first, then every share."""
    plans = {
        f"Hull, {share}": kvb.allocate(profile, budget=share, context_tokens=CONTEXT_TOKENS)
        for share in SHARES
    }
    planned = [plan_trace(reader, prompt, plan, name) for name, plan in plans.items()]
    return [full_trace(reader, prompt), *planned]


def rows_of(found: Sequence[MemoryTrace]) -> Iterator[Row]:
    """The figures of each generation."""
    for trace in found:
        case = f"{trace.name}, {trace.tokens[0]} to {trace.tokens[-1]} tokens"
        yield Row(case, "bytes held at first", trace.held_bytes[0], "bytes", SEED)
        yield Row(case, "bytes held at last", trace.held_bytes[-1], "bytes", SEED)
        yield Row(case, "most bytes held", max(trace.held_bytes), "bytes", SEED)
        if trace.budget_bytes is not None:
            share = max(trace.held_bytes) / trace.budget_bytes
            yield Row(case, "most bytes held / budget", share, "1", SEED)


def make_prompt(reader: Reader, sentences: Sequence[str]) -> list[int]:
    """Prose to go on from."""
    maker = TrialMaker(sentences, reader.tokenizer, PROMPT_TOKENS, 1)
    return maker.text(SEED).context


def main() -> None:
    """Run, print one line per figure, and draw."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.memory_over_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--text", type=Path, help="prose to use; the built-in text by default")
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--picture", type=Path, help="a .png or .svg file to draw into")
    chosen = arguments.parse_args()
    sentences = built_in_sentences() if chosen.text is None else file_sentences(chosen.text)
    reader = Reader(*reference_model())
    profile = measured(reader, sentences)
    found = traces(reader, profile, make_prompt(reader, sentences[len(sentences) // 2 :]))
    report(rows_of(found), chosen.json)
    if chosen.picture is not None:
        picture = draw_memory(found)
        picture.save(chosen.picture)
        print(picture)


if __name__ == "__main__":
    main()
