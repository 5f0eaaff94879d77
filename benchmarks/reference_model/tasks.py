"""The training mixture: books, and retrieval tasks that make heads worth telling apart.

A document is a list of segments `(text, weight)`; the weight is that of its tokens in the loss.
Answers weigh more than text, and what nobody can predict (random keys and values) weighs less.
The first token of an answer weighs most: it is the one that has to be found, the others follow.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from texts import Texts

from kvbudget.needles import KINDS, NAMES, Needle, draw_needles

Segments = list[tuple[str, float]]
Encode = Callable[[str], list[int]]

FIRST, ANSWER, TEXT, NOISE = 14.0, 12.0, 1.0, 0.2
CHARS_PER_TOKEN = 2.6
END_OF_TEXT = 0
SMALLEST = 120


@dataclass(frozen=True, slots=True)
class Mixture:
    """How often each kind of document is drawn, and how long the rows are.

    Args:
        until: Share of the run at which the next mixture takes over.
        lengths: Rows are of one of these lengths in tokens, drawn anew for every batch.
        text: Share of books.
        repeats: Share of random runs of tokens said twice.
        copying: Share of lists said twice.
        key_values: Share of tables with lookups.
        needles: Share of needles in a haystack.
        variables: Share of assignments with uses.
        alphabets: Numbers of different tokens in `repeats`.
    """

    until: float
    lengths: tuple[int, ...]
    text: float
    repeats: float
    copying: float
    key_values: float
    needles: float
    variables: float
    alphabets: tuple[int, ...] = (16, 64, 256, 2047)


# retrieval starts only on a small alphabet; the tasks come back once it is there
FROM_SCRATCH = (
    Mixture(0.12, (128,), 0.02, 0.90, 0.04, 0.02, 0.02, 0.00, alphabets=(64,)),
    Mixture(0.35, (256,), 0.10, 0.30, 0.20, 0.20, 0.15, 0.05),
    Mixture(0.55, (512,), 0.30, 0.05, 0.05, 0.20, 0.30, 0.10),
    Mixture(1.00, (512, 1024, 2112), 0.09, 0.06, 0.06, 0.08, 0.68, 0.03),
)
CONTINUED = (Mixture(1.00, (512, 1024, 2112, 2112, 2112), 0.09, 0.06, 0.06, 0.08, 0.68, 0.03),)


def needles(rng: random.Random, texts: Texts, chars: int) -> Segments:
    """Facts among consecutive sentences, then questions about one or all of them."""
    facts = _facts(rng, rng.choice((1, 2, 4, 6, 8) if chars < 2000 else (1, 4, 8, 12, 16, 20)))
    asked = facts[:1] if rng.random() < 0.2 else facts
    room = chars - sum(len(f.sentence) for f in facts) - sum(len(f.question) + 7 for f in asked)
    parts = _sentences(rng, texts, max(60, room))
    for fact in rng.sample(facts, len(facts)):
        parts.insert(rng.randrange(len(parts) + 1), fact.sentence)
    # the ends are the hardest places, so some facts always lie there
    if rng.random() < 0.3:
        end = 0 if rng.random() < 0.5 else len(parts) - 1
        parts.remove(facts[0].sentence)
        parts.insert(end, facts[0].sentence)
    # two line ends in one segment would be one token
    segments = [(" ".join(parts) + "\n", TEXT), ("\n", NOISE)]
    for fact in asked:
        # the line's end belongs to the answer: it says that there are no more digits
        segments += [(fact.question.lstrip(), NOISE), (fact.number + "\n", ANSWER)]
    return segments


def key_values(rng: random.Random, chars: int) -> Segments:
    """A table of random values, then lookups."""
    table: dict[str, str] = {}
    while len(table) < max(3, chars // 40):
        table[_who(rng) + str(rng.randrange(100))] = _hexes(rng)
    keys = list(table)
    rows = ", ".join(f'"{key}": "{table[key]}"' for key in keys)
    segments = [("{" + rows + "}\n", NOISE)]
    rng.shuffle(keys)
    for key in keys[: max(2, len(keys) // 3)]:
        segments += [(f'get("{key}") -> "', NOISE), (table[key] + '"', ANSWER), ("\n", TEXT)]
    return segments


def variables(rng: random.Random, chars: int) -> Segments:
    """Assignments, with values printed now and then."""
    values: dict[str, str] = {}
    segments: Segments = []
    for _ in range(max(3, chars // 32)):
        name = rng.choice(NAMES) + "_" + str(rng.randrange(50))
        values[name] = _number(rng)
        segments.append((f"{name} = {values[name]}\n", NOISE))
        if rng.random() < 0.4:
            use = rng.choice(list(values))
            segments += [(f"print({use})  # ", NOISE), (values[use] + "\n", ANSWER)]
    return segments


def copying(rng: random.Random, chars: int) -> Segments:
    """A list of words, said twice."""
    many = max(6, chars // 16)
    words = " ".join(_hexes(rng) if rng.random() < 0.5 else _who(rng) for _ in range(many))
    return [("list: " + words, NOISE), ("\nagain:", NOISE), (" " + words + "\n", TEXT)]


def repeats(rng: random.Random, room: int, vocabulary: int, alphabet: int) -> list[int]:
    """Token ids, not text: half of a random run over `alphabet` neighbouring ids said twice."""
    first = 1 + rng.randrange(vocabulary - alphabet)
    longest = min(30 if alphabet <= 64 else 400, room // 2)
    return [first + rng.randrange(alphabet) for _ in range(rng.randrange(6, longest + 1))]


def rows(
    rng: random.Random, encode: Encode, texts: Texts, mixture: Mixture, length: int
) -> Iterator[tuple[list[int], list[float]]]:
    """Endless rows of whole documents: `length` token ids and their weights in the loss."""
    while True:
        ids: list[int] = []
        weights: list[float] = []
        while (room := length - len(ids)) > SMALLEST:
            size = room if rng.random() < 0.6 else rng.randrange(SMALLEST, room + 1)
            more, worth = _document(rng, encode, texts, mixture, size - 1)
            # prompts need not start with the end of another text, so rows need not either
            if ids or rng.random() < 0.3:
                ids.append(END_OF_TEXT)
                weights.append(NOISE)
            ids += more[: size - 1]
            weights += worth[: size - 1]
        tail = encode(_window(rng, texts.books, 8 * room))[:room]
        yield ids + tail, weights + [TEXT] * len(tail)


def _document(
    rng: random.Random, encode: Encode, texts: Texts, mixture: Mixture, room: int
) -> tuple[list[int], list[float]]:
    """One document of at most about `room` tokens."""
    m = mixture
    chars = int(room * CHARS_PER_TOKEN)
    shares = (m.text, m.repeats, m.copying, m.key_values, m.needles, m.variables)
    match rng.choices(range(6), shares)[0]:
        case 0:
            segments = [(_window(rng, texts.books, 8 * room), TEXT)]
        case 1:
            run = repeats(rng, room, 2048, rng.choice(m.alphabets))
            return run + run, [0.0] * len(run) + [TEXT] * len(run)
        case 2:
            segments = copying(rng, rng.randrange(80, max(81, min(1500, chars // 2))))
        case 3:
            segments = key_values(rng, int(chars * 0.75))
        case 4:
            segments = needles(rng, texts, int(chars * 1.08))
        case _:
            segments = variables(rng, int(chars * 0.6))
    ids: list[int] = []
    weights: list[float] = []
    for text, weight in segments:
        piece = encode(text)
        ids += piece
        weights += [FIRST if weight == ANSWER else weight] + [weight] * (len(piece) - 1)
    return ids, weights


def _facts(rng: random.Random, count: int) -> list[Needle]:
    """Needles; now and then they may share names, which is harder than the task itself."""
    if rng.random() < 0.7:
        return draw_needles(rng, count)
    facts: dict[tuple[str, str], Needle] = {}
    while len(facts) < count:
        fact = Needle(rng.choice(KINDS), _who(rng), _number(rng))
        facts[fact.kind, fact.who] = fact
    return list(facts.values())


def _sentences(rng: random.Random, texts: Texts, chars: int) -> list[str]:
    """Consecutive sentences of about `chars` characters in all."""
    source = texts.technical if rng.random() < 0.15 else texts.sentences
    at = rng.randrange(len(source))
    out: list[str] = []
    total = 0
    while total < chars:
        out.append(source[at % len(source)])
        total += len(out[-1]) + 1
        at += 1
    return out


def _window(rng: random.Random, books: list[str], chars: int) -> str:
    """A piece of a book."""
    book = rng.choice(books)
    start = rng.randrange(max(1, len(book) - chars))
    return book[start : start + chars]


def _number(rng: random.Random) -> str:
    return "".join(rng.choice("0123456789") for _ in range(rng.choice((4, 5, 6))))


def _hexes(rng: random.Random) -> str:
    return "".join(rng.choice("0123456789abcdef") for _ in range(rng.choice((4, 6, 8))))


def _who(rng: random.Random) -> str:
    return rng.choice(NAMES) + ("-" + rng.choice(NAMES) if rng.random() < 0.5 else "")
