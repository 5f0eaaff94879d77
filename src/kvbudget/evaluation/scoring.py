"""What an answer is worth."""

import re


def share_found(said: str, answers: tuple[str, ...]) -> float:
    """Share of the right answers that occur in what was said, whatever the case of the letters.

    A number counts as a whole only: 123 is not found in 41235.

    Reference:
        Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?",
        COLM 2024. https://arxiv.org/abs/2404.06654
    """
    return sum(_is_in(said, answer) for answer in answers) / len(answers)


def any_found(said: str, answers: tuple[str, ...]) -> float:
    """1 if one of several ways to put the right answer occurs in what was said, else 0."""
    return float(any(_is_in(said, answer) for answer in answers))


def begins_exactly(said: str, answers: tuple[str, ...]) -> float:
    """1 if what was said begins with one of the right answers and its word ends there, else 0."""
    return float(any(re.match(rf"\s*{re.escape(each.strip())}(?!\w)", said) for each in answers))


def share_in_place(said: str, answers: tuple[str, ...]) -> float:
    """Share of the words that stand where they should, counted from the first word said."""
    words = said.split()[: len(answers)]
    return sum(a == b for a, b in zip(words, answers, strict=False)) / len(answers)


def _is_in(said: str, right: str) -> bool:
    answer = right.strip()
    before = r"(?<!\d)" if answer[:1].isdigit() else ""
    behind = r"(?!\d)" if answer[-1:].isdigit() else ""
    return bool(re.search(before + re.escape(answer) + behind, said, re.IGNORECASE))
