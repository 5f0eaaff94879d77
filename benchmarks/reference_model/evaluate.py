"""Measure what the reference model can do with the full cache.

python evaluate.py --model FOLDER --prompts 200 --json scores.json
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from tasks import key_values
from texts import data_folder, held_out_books
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kvbudget.needles import is_exact, make_needle_prompt, split

ANSWER_TOKENS = 10
SEED = 90_000
Scores = dict[str, float | int]


def continuation(model: PreTrainedModel, ids: list[int]) -> list[int]:
    """What the model says next, greedily, with the full cache."""
    prompt = torch.tensor([ids])
    said = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
    )
    return said[0, len(ids) :].tolist()


def needle_score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: list[str],
    tokens: int,
    prompts: int,
) -> float:
    """Share of needle questions answered exactly; prompt and answer fit in `tokens`."""
    right = 0
    for seed in range(SEED, SEED + prompts):
        prompt = make_needle_prompt(
            sentences, tokenizer.encode, tokens=tokens - ANSWER_TOKENS, seed=seed
        )
        said = tokenizer.decode(continuation(model, tokenizer.encode(prompt.text)))
        right += is_exact(said, prompt.answer)
    return right / prompts


def lookup_score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, num_rows: int, prompts: int
) -> float:
    """Share of lookups in a table of random values answered exactly."""
    rng = random.Random(SEED)
    right = 0
    for _ in range(prompts):
        (table, _), (question, _), (answer, _) = key_values(rng, 40 * num_rows)[:3]
        said = tokenizer.decode(continuation(model, tokenizer.encode(table + question)))
        right += said.startswith(answer)
    return right / prompts


@torch.no_grad()
def repeat_score(model: PreTrainedModel, tokens: int, prompts: int) -> float:
    """Share of right tokens in the second half of random runs said twice."""
    generator = torch.Generator().manual_seed(SEED)
    size = (prompts, tokens // 2)
    runs = torch.randint(1, model.config.vocab_size, size, generator=generator)
    said = torch.cat([model(torch.cat([run, run])[None]).logits.argmax(-1) for run in runs])
    # the first token of the second half cannot be known
    return (said[:, tokens // 2 : -1] == runs[:, 1:]).float().mean().item()


@torch.no_grad()
def text_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, books: list[str], per_book: int
) -> float:
    """Mean next-token loss in nats on pieces of held-out books, a full context each."""
    total = 0.0
    tokens = model.config.max_position_embeddings
    for book in books:
        for part in range(per_book):
            start = part * len(book) // per_book
            ids = tokenizer.encode(book[start : start + 12 * tokens])[:tokens]
            batch = torch.tensor([ids])
            total += model(batch, labels=batch).loss.item()
    return total / (len(books) * per_book)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    books: list[str],
    prompts: int,
    note: Callable[[str], None],
) -> Scores:
    """All scores, by name."""
    sentences = [sentence for book in books for sentence in split(book)]
    scores: Scores = {"prompts": prompts}

    def add(name: str, value: float) -> None:
        scores[name] = round(value, 4)
        note(f"{name}: {value:.3f}")

    for tokens in (512, 1024, 2048):
        score = needle_score(model, tokenizer, sentences, tokens, prompts)
        add(f"needles_exact_{tokens}", score)
    for num_rows in (25, 51):
        score = lookup_score(model, tokenizer, num_rows, prompts)
        add(f"lookups_exact_{num_rows}_rows", score)
    for tokens in (200, 800):
        add(f"repeats_accuracy_{tokens}", repeat_score(model, tokens, max(1, prompts // 4)))
    per_book = max(1, prompts // 50)
    scores["text_tokens"] = per_book * len(books) * model.config.max_position_embeddings
    add("text_loss_nats", text_loss(model, tokenizer, books, per_book))
    return scores


def main() -> None:
    """Evaluate a folder and write its scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--prompts", type=int, default=100, help="prompts per score")
    parser.add_argument("--json", type=Path, help="file to write the scores to")
    parser.add_argument("--data", help="folder of gutenberg.jsonl.xz")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    books = held_out_books(data_folder(options.data))
    scores = evaluate(model, tokenizer, books, options.prompts, lambda s: print(s, flush=True))
    if options.json:
        options.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
