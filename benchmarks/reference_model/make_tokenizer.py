"""Train the tokenizer: byte-level BPE of 2048 pieces, every digit a token of its own.

python make_tokenizer.py --data FOLDER --out tokenizer.json

The shipped tokenizer was made in this way from an earlier mixture of the same kinds of documents; a
new one has other ids, so it only serves a model trained from scratch with it.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

from tasks import copying, key_values, needles, variables
from texts import Texts, data_folder, training_texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PIECES, DOCUMENTS, CHARS, SEED = 2048, 6000, 3000, 1


def documents(texts: Texts) -> Iterator[str]:
    """Book text for two documents in five, tasks for the others."""
    rng = random.Random(SEED)
    makers = (
        lambda: needles(rng, texts, rng.randrange(200, CHARS)),
        lambda: key_values(rng, rng.randrange(150, CHARS)),
        lambda: variables(rng, rng.randrange(150, CHARS)),
        lambda: copying(rng, rng.randrange(100, CHARS // 2)),
    )
    for _ in range(DOCUMENTS):
        if rng.random() < 0.4:
            book = rng.choice(texts.books)
            start = rng.randrange(max(1, len(book) - CHARS))
            yield book[start : start + CHARS]
        else:
            (make,) = rng.choices(makers, weights=(25, 15, 10, 10))
            yield "".join(text for text, _ in make())


def train_tokenizer(texts: Texts) -> Tokenizer:
    """Learn the pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(documents(texts), trainer)
    return tokenizer


def main() -> None:
    """Read the arguments, train, write."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", help="folder that holds gutenberg.jsonl.xz")
    arguments.add_argument("--out", type=Path, required=True, help="file to write")
    options = arguments.parse_args()
    tokenizer = train_tokenizer(training_texts(data_folder(options.data)))
    unfinished = options.out.with_suffix(".part")
    tokenizer.save(str(unfinished))
    unfinished.replace(options.out)


if __name__ == "__main__":
    main()
