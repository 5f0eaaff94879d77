"""The texts: public-domain books, and the prose of the standard library's docstrings."""

import ast
import json
import lzma
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kvbudget.needles import split

HELD_OUT_BOOKS = 24
DEFAULT_DATA = Path(__file__).resolve().parents[2] / "data"


@dataclass(frozen=True, slots=True)
class Texts:
    """What documents are made of.

    Args:
        books: Whole books.
        sentences: Consecutive sentences of the books.
        technical: Consecutive sentences of technical prose.
    """

    books: list[str]
    sentences: list[str]
    technical: list[str]


def data_folder(argument: str | None) -> Path:
    """The folder of the books: the argument, else $KVBUDGET_DATA, else `data` in the root.

    Raises:
        FileNotFoundError: If it does not hold `gutenberg.jsonl.xz`.
    """
    folder = Path(argument or os.environ.get("KVBUDGET_DATA") or DEFAULT_DATA)
    if not (folder / "gutenberg.jsonl.xz").is_file():
        raise FileNotFoundError(
            f"`--data` must name a folder with gutenberg.jsonl.xz, but got {folder}. The file has "
            'one JSON object a line with the field "text"; the last 24 lines are never trained on.'
        )
    return folder


def read_books(folder: Path) -> list[str]:
    """All books, in order; the last `HELD_OUT_BOOKS` are for measuring only."""
    with lzma.open(folder / "gutenberg.jsonl.xz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def training_texts(folder: Path) -> Texts:
    """Everything the model may be trained on."""
    books = [book[2000:] for book in read_books(folder)[:-HELD_OUT_BOOKS]]
    sentences = [sentence for book in books for sentence in split(book)]
    return Texts(books, sentences, list(docstring_sentences()))


def held_out_books(folder: Path) -> list[str]:
    """The books that no training has seen, without their first pages."""
    return [book[2000:] for book in read_books(folder)[-HELD_OUT_BOOKS:]]


def docstring_sentences() -> Iterator[str]:
    """Sentences of the docstrings of Python's standard library, in the order of the files.

    Only the top level of the library is read, so `pydoc_data/topics.py` stays unseen.
    """
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8", errors="ignore"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                # code and tables are no prose
                prose = re.sub(
                    r"^\s*(>>>|\.\.\.|[-=+*|]).*$",
                    "",
                    ast.get_docstring(node) or "",
                    flags=re.MULTILINE,
                )
                yield from (s for s in split(prose) if re.match(r"[A-Z].*[.!?:]$", s))
