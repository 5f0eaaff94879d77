"""Make the prompts of the comparison, once, as token ids that both libraries read.

    python -m benchmarks.peers.prompts FILE --data FOLDER

Those that plans are measured and chosen on and those that everything is compared on have no text
and no seed in common: the first half of the held-out books serves the former, the second half and
WikiText-2, which nothing is fitted to, the latter. The model was trained on none of them.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from benchmarks.peers.trial import (
    CHOOSE,
    CONTEXT_TOKENS,
    FIT,
    FUTURE_TOKENS,
    TEST,
    PeerTrial,
    write_trials,
)
from benchmarks.reference_model.texts import HELD_OUT_BOOKS, data_folder, held_out_books
from kvbudget import reference_model
from kvbudget.needles import NAMES, split
from kvbudget.trials import Trial, TrialMaker

WIKITEXT = "wikitext-2-raw-test.txt"
FIRST_SEED = {FIT: 10_000, CHOOSE: 20_000, TEST: 30_000}
CHARS_PER_TOKEN = 8


@dataclass(frozen=True, slots=True)
class PromptMaker:
    """Makes trials of every kind from some texts.

    Args:
        tokenizer: That of the model.
        texts: Long texts.
    """

    tokenizer: PreTrainedTokenizerBase
    texts: list[str]

    def prose(self, seed: int) -> Trial:
        """A piece of a text, from anywhere in it."""
        rng = random.Random(f"prose {seed}")
        tokens = CONTEXT_TOKENS + FUTURE_TOKENS
        text = self.texts[seed % len(self.texts)]
        start = rng.randrange(len(text) - CHARS_PER_TOKEN * tokens)
        ids = self._encode(text[start : start + CHARS_PER_TOKEN * tokens])[:tokens]
        return Trial(ids[:CONTEXT_TOKENS], ids[CONTEXT_TOKENS:])

    def needles(self, seed: int) -> Trial:
        """Six facts hidden in prose, then questions about all of them."""
        sentences = [sentence for text in self.texts for sentence in split(text)]
        maker = TrialMaker(sentences, self.tokenizer, CONTEXT_TOKENS, FUTURE_TOKENS)
        return maker.needles(seed)

    def lookups(self, seed: int) -> Trial:
        """A table of random values at the end of the context, then lookups in random order.

        The end of another text stands before the table, so that every context is equally long.
        """
        rng = random.Random(f"lookups {seed}")
        table: dict[str, str] = {}
        rows = self._encode("{")
        while len(rows) < CONTEXT_TOKENS - 40:
            key = f"{rng.choice(NAMES)}-{rng.choice(NAMES)}{rng.randrange(100)}"
            table[key] = "".join(rng.choice("0123456789abcdef") for _ in range(6))
            rows = self._encode("{" + ", ".join(f'"{k}": "{v}"' for k, v in table.items()) + "}\n")
        future: list[int] = []
        answers: list[tuple[int, int]] = []
        for key in rng.sample(sorted(table), len(table)):
            future += self._encode(f'get("{key}") -> "')
            start = len(future)
            future += self._encode(table[key])
            answers += [(start, len(future))] if len(future) < FUTURE_TOKENS else []
            future += [*self._encode('"'), *self._encode("\n")]
        before = self.prose(seed).context[: CONTEXT_TOKENS - len(rows) - 1]
        context = [*before, self.tokenizer.eos_token_id, *rows]
        return Trial(context, future[:FUTURE_TOKENS], tuple(answers))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def kinds(use: str, data: Path) -> dict[str, tuple[PromptMaker, str]]:
    """What makes the trials of each kind, and how."""
    _, tokenizer = reference_model()
    books, half = held_out_books(data), HELD_OUT_BOOKS // 2
    maker = PromptMaker(tokenizer, books[half:] if use == TEST else books[:half])
    found = {name: (maker, name) for name in ("needles", "lookups")}
    found["books"] = (maker, "prose")
    if use == TEST:
        wikitext = (data / WIKITEXT).read_text(encoding="utf-8")
        found["WikiText-2"] = (PromptMaker(tokenizer, [wikitext]), "prose")
    return found


def make_trials(use: str, data: Path, counts: dict[str, int]) -> Iterator[PeerTrial]:
    """All trials of one use."""
    for kind, (maker, how) in kinds(use, data).items():
        for number in range(counts.get(kind, counts[""])):
            seed = FIRST_SEED[use] + number
            made = {"prose": maker.prose, "needles": maker.needles, "lookups": maker.lookups}[how](
                seed
            )
            context, future = tuple(made.context), tuple(made.future)
            yield PeerTrial(use, kind, number, context, future, made.answers)


def main() -> None:
    """Write the file unless it is there."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--data", help="folder of the books and of WikiText-2")
    arguments.add_argument("--tests", type=int, default=6, help="of each kind; needles twice")
    chosen = arguments.parse_args()
    if chosen.file.is_file():
        return
    data, tests = data_folder(chosen.data), chosen.tests
    counts = {FIT: {"": 4}, CHOOSE: {"": 2}, TEST: {"": tests, "needles": 2 * tests}}
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    trials = [each for use in counts for each in make_trials(use, data, counts[use])]
    write_trials(chosen.file, trials)


if __name__ == "__main__":
    main()
