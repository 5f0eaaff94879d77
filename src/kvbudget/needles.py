"""Needles in a haystack: the task the reference model is trained, shown and tested on.

Sentences of the form `The locker number of river is 48213.` are hidden among consecutive sentences
of ordinary text, and the prompt ends with a question about one of them. The prompt's last
character is the space before the answer: the reference tokenizer gives that space and every digit
a token of their own, so the prompt's tokens are the same with and without the answer behind them.
"""

import bisect
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

KINDS = (
    "secret code",
    "badge number",
    "locker number",
    "passcode",
    "account number",
    "ticket number",
    "room number",
    "serial number",
)
NAMES = tuple(
    "amber birch cedar delta ember flint grove hazel iris jade kite lotus maple north ocean pearl "
    "quartz river stone tulip umber violet willow yarrow zephyr acorn basil clover dune elm fern "
    "garnet holly ivory juniper kelp linden moss nectar olive pine reed sage thyme".split()
)
MAX_NEEDLES = len(NAMES) // 2


@dataclass(frozen=True, slots=True)
class Needle:
    """One fact to find.

    Args:
        kind: What is asked for, such as `locker number`.
        who: Whom it belongs to, one or two names.
        number: The answer, a string of digits.
    """

    kind: str
    who: str
    number: str

    @property
    def sentence(self) -> str:
        """The sentence that is hidden."""
        return f"The {self.kind} of {self.who} is {self.number}."

    @property
    def question(self) -> str:
        """The question, up to and with the space before the answer."""
        return f"\nQuestion: What is the {self.kind} of {self.who}?\nAnswer: "


@dataclass(frozen=True, slots=True)
class NeedlePrompt:
    """A haystack, one question about it, and the answer.

    Args:
        text: The whole prompt; it ends with the space before the answer.
        answer: The digits that a model with all of the prompt at hand should say next.
    """

    text: str
    answer: str


def split(text: str) -> list[str]:
    """Cut prose into sentences of 31 to 219 characters; shorter and longer ones are left out."""
    pieces = (" ".join(piece.split()) for piece in re.split(r"(?<=[.!?])\s+", text))
    return [piece for piece in pieces if 30 < len(piece) < 220]


def is_exact(generated: str, answer: str) -> bool:
    """Whether the generated text starts with exactly the answer's digits, no more and no fewer."""
    match = re.match(r"\s*(\d+)", generated)
    return match is not None and match.group(1) == answer


def draw_needles(rng: random.Random, num_needles: int) -> list[Needle]:
    """Draw needles that share no name, none of whose numbers is found inside another's."""
    names = iter(rng.sample(NAMES, len(NAMES)))
    needles: list[Needle] = []
    while len(needles) < num_needles:
        who = next(names) if rng.random() < 0.5 else f"{next(names)}-{next(names)}"
        number = draw_number(rng, " ".join(needle.number for needle in needles))
        needles.append(Needle(rng.choice(KINDS), who, number))
    return needles


def draw_number(rng: random.Random, taken: str) -> str:
    """Draw 4 to 6 digits that neither occur in the text `taken` nor contain one of its numbers."""
    while True:
        number = "".join(rng.choice("0123456789") for _ in range(rng.choice((4, 5, 6))))
        if number not in taken and not any(known in number for known in taken.split()):
            return number


def hide(sentences: Sequence[str], needles: Sequence[Needle], depths: Sequence[float]) -> str:
    """Join the sentences with each needle at the sentence border next below its depth.

    Args:
        sentences: The haystack, in order.
        needles: What to hide.
        depths: For each needle, the share of the haystack's characters that may precede it, 0..1.
    """
    ends = [0]
    for sentence in sentences:
        ends.append(ends[-1] + len(sentence))
    borders = [bisect.bisect_right(ends, depth * ends[-1]) - 1 for depth in depths]
    out: list[str] = []
    for border in range(len(ends)):
        out += [n.sentence for n, own in zip(needles, borders, strict=True) if own == border]
        out += sentences[border : border + 1]
    return " ".join(out)


def make_needle_prompt(
    sentences: Sequence[str],
    encode: Callable[[str], list[int]],
    *,
    tokens: int,
    depth: float | None = None,
    num_needles: int = 4,
    seed: int,
) -> NeedlePrompt:
    """Build a prompt of at most `tokens` tokens and hardly fewer (40 fewer at most).

    Args:
        sentences: Ordinary text to hide the needles in; used in order from a random start.
        encode: Text to token ids, as of the model that will read the prompt.
        tokens: Most tokens the prompt may have, without the answer.
        depth: Share of the haystack before the needle that is asked for, 0..1; None for anywhere.
        num_needles: Needles to hide; the question is about one of them.
        seed: The same arguments and seed give the same prompt.

    Raises:
        ValueError: If an argument is out of range, or the needles alone are more than `tokens`.
    """
    if not sentences:
        raise ValueError("`sentences` must hold at least one sentence, but got none.")
    if depth is not None and not 0 <= depth <= 1:
        raise ValueError(f"`depth` must lie in 0..1, but got depth={depth}.")
    if not 1 <= num_needles <= MAX_NEEDLES:
        raise ValueError(f"`num_needles` must lie in 1..{MAX_NEEDLES}, but got {num_needles}.")
    rng = random.Random(seed)
    needles = draw_needles(rng, num_needles)
    depths = [rng.random() for _ in needles]
    if depth is not None:
        depths[0] = depth
    filler = _consecutive(sentences, rng.randrange(len(sentences)), words=tokens)
    while any(needle.number in " ".join(filler) for needle in needles):
        needles = draw_needles(rng, num_needles)

    def build(num_words: int) -> str:
        return hide(_first_words(filler, num_words), needles, depths) + "\n" + needles[0].question

    # bisect finds the first count of words whose prompt is too long
    counts = range(tokens + 1)
    too_long = bisect.bisect_right(counts, tokens, key=lambda count: len(encode(build(count))))
    if too_long == 0:
        least = len(encode(build(0)))
        raise ValueError(f"`tokens` must be at least {least} for these needles, but got {tokens}.")
    return NeedlePrompt(build(too_long - 1), needles[0].number)


def _consecutive(sentences: Sequence[str], start: int, words: int) -> list[str]:
    """Sentences in order from `start`, round again at the end, until they hold enough words."""
    out: list[str] = []
    count = 0
    while count < words:
        out.append(sentences[(start + len(out)) % len(sentences)])
        count += max(1, len(out[-1].split()))
    return out


def _first_words(sentences: Sequence[str], num_words: int) -> list[str]:
    """The sentences' first `num_words` words; the last sentence may be cut."""

    def pieces() -> Iterator[str]:
        left = num_words
        for sentence in sentences:
            words = sentence.split()[:left]
            left -= len(words)
            if words:
                yield " ".join(words)

    return list(pieces())
