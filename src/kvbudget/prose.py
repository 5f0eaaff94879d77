"""Real English sentences to measure and test on, without a download."""

import re
from importlib import import_module
from pathlib import Path

from kvbudget.needles import split

# code, markup, tables and long numbers are no prose; a number could pass for a needle's answer
_NO_PROSE = re.compile(r"[`*|=<>{}_\[\]\\]|::|\d{3}")


def built_in_sentences() -> list[str]:
    """Sentences of the language reference that every Python carries, about 85,000 characters.

    Raises:
        ValueError: This Python was shipped without its reference.
    """
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise ValueError(
            "This Python lacks `pydoc_data.topics`, the built-in text. Name a text with --text."
        ) from error
    paragraphs = [p for topic in topics.values() for p in re.split(r"\n\s*\n", topic)]
    flowing = " ".join(p for p in paragraphs if not _is_indented(p))
    sentences = (s for s in split(flowing) if s[0].isupper() and not _NO_PROSE.search(s))
    return list(dict.fromkeys(sentences))


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text.

    Raises:
        ValueError: There is no such file, it is not UTF-8, or it holds nothing.
    """
    if not path.is_file():
        raise ValueError(f"There is no text file at {path}.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text, but byte {error.start} is not.") from error
    if not text.strip():
        raise ValueError(f"{path} must hold text, but it is empty.")
    return text


def file_sentences(path: Path) -> list[str]:
    """Sentences of a text file.

    Raises:
        ValueError: There is no such file, it is not UTF-8, or holds fewer than 20 sentences.
    """
    sentences = split(read_text(path))
    if len(sentences) < 20:
        raise ValueError(
            f"{path} must hold at least 20 sentences of 31 to 219 characters, but got "
            f"{len(sentences)}. Name a longer text."
        )
    return sentences


def _is_indented(paragraph: str) -> bool:
    return any(line.startswith(" ") for line in paragraph.splitlines())
