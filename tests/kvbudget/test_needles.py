import re

import pytest

from kvbudget.needles import (
    KINDS,
    NAMES,
    Needle,
    NeedlePrompt,
    hide,
    is_exact,
    make_needle_prompt,
    split,
)

SENTENCES = [
    f"Sentence {word} tells of a {word} that was seen beside the road to town."
    for word in ("horse", "wagon", "farmer", "lantern", "traveller", "stranger", "mill", "bridge")
]
SEEDS = range(12)


def encode(text: str) -> list[int]:
    """A stand-in tokenizer: words and single digits, with the space before them."""
    return [len(piece) for piece in re.findall(r" ?[A-Za-z]+|\s|\d|[^\w\s]", text)]


def prompt(tokens: int = 400, seed: int = 0, **options: float) -> NeedlePrompt:
    return make_needle_prompt(SENTENCES, encode, tokens=tokens, seed=seed, **options)


def haystack(made: NeedlePrompt) -> str:
    return made.text.rsplit("\n\nQuestion: ", 1)[0]


def asked(made: NeedlePrompt) -> str:
    """The needle that the question is about."""
    kind, who = re.search(r"What is the (.+) of (.+)\?\nAnswer: $", made.text).groups()
    return Needle(kind, who, made.answer).sentence


@pytest.mark.parametrize("tokens", [200, 201, 333, 1024])
@pytest.mark.parametrize("seed", SEEDS)
def test_prompt_fills_its_tokens_and_never_exceeds_them(tokens, seed):
    length = len(encode(prompt(tokens, seed).text))
    assert tokens - 40 <= length <= tokens


@pytest.mark.parametrize("seed", SEEDS)
def test_answer_occurs_once_and_in_the_needle_asked_for(seed):
    made = prompt(seed=seed)
    assert made.text.count(made.answer) == 1
    assert asked(made) in haystack(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_answer_is_redrawn_when_the_haystack_holds_it(seed):
    answer = prompt(seed=seed).answer
    sentences = [f"{sentence[:-1]} {answer} times." for sentence in SENTENCES]
    made = make_needle_prompt(sentences, encode, tokens=400, seed=seed)
    assert made.text.count(made.answer) == 1


@pytest.mark.parametrize("num_needles", [1, 2, 8])
def test_all_needles_are_hidden(num_needles):
    text = haystack(prompt(800, num_needles=num_needles))
    found = re.findall(rf"The (?:{'|'.join(KINDS)}) of [a-z-]+ is \d{{4,6}}\.", text)
    assert len(found) == len(set(found)) == num_needles


@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_depth_is_honoured_to_a_sentence(depth, seed):
    made = prompt(800, seed, depth=depth, num_needles=1)
    before, after = haystack(made).split(asked(made))
    share = len(before) / (len(before) + len(after))
    assert abs(share - depth) <= max(map(len, SENTENCES)) / (len(before) + len(after))


def test_depth_zero_is_the_start_and_depth_one_the_end():
    first, last = (prompt(depth=depth, num_needles=1) for depth in (0.0, 1.0))
    assert haystack(first).startswith(asked(first))
    assert haystack(last).endswith(asked(last))


def test_same_seed_gives_the_same_prompt_and_another_seed_another():
    assert prompt(seed=3) == prompt(seed=3)
    assert prompt(seed=3) != prompt(seed=4)


def test_haystack_keeps_the_order_of_the_sentences():
    made = prompt(800, num_needles=1)
    words = re.findall(r"Sentence (\w+)", haystack(made).replace(asked(made), ""))
    order = [sentence.split()[1] for sentence in SENTENCES] * (len(words) // len(SENTENCES) + 2)
    start = order.index(words[0])
    assert words == order[start : start + len(words)]


def test_prompt_and_answer_meet_at_a_token_border():
    made = prompt()
    assert encode(made.text) + encode(made.answer) == encode(made.text + made.answer)


def test_needles_of_a_prompt_share_no_name():
    text = haystack(prompt(1500, num_needles=20))
    names = re.findall(r"[a-z]+", " ".join(re.findall(r" of ([a-z-]+) is \d", text)))
    assert len(names) == len(set(names))
    assert set(names) <= set(NAMES)


@pytest.mark.parametrize(
    ("generated", "right"),
    [
        ("48213", True),
        (" 48213\nQuestion: What", True),
        ("48213.", True),
        ("482137", False),
        ("4821", False),
        ("the 48213", False),
        ("", False),
    ],
)
def test_only_exactly_the_answer_is_exact(generated, right):
    assert is_exact(generated, "48213") is right


def test_split_keeps_whole_sentences_in_order_and_joins_their_lines():
    first = "This sentence goes on for\nmore than thirty characters!"
    second = "And so does this one here, does it not?"
    assert split(f"Short one. {first} {second}") == [first.replace("\n", " "), second]


def test_hide_puts_each_needle_below_its_own_depth():
    needles = [Needle("passcode", "elm", "1234"), Needle("passcode", "fern", "5678")]
    text = hide(["aaaa", "bbbb"], needles, [0.6, 0.0])
    assert text == f"{needles[1].sentence} aaaa {needles[0].sentence} bbbb"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"depth": 1.5}, "depth"),
        ({"num_needles": 0}, "num_needles"),
        ({"num_needles": 23}, "num_needles"),
        ({"tokens": 20}, "tokens"),
    ],
)
def test_misuse_is_refused_by_name(options, named):
    with pytest.raises(ValueError, match=f"`{named}` must"):
        prompt(**options)


def test_an_empty_haystack_is_refused():
    with pytest.raises(ValueError, match="`sentences` must"):
        make_needle_prompt([], encode, tokens=400, seed=0)
