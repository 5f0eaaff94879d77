"""What the cells of a data set hold, however they were written."""

import json
import re

DEFAULT_NEW_TOKENS = 50
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_QUOTED = r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\""""
_ITEM = rf"(?:{_QUOTED}|-?\d+(?:\.\d+)?)"
_LIST = re.compile(rf"\[\s*(?:{_ITEM}(?:\s*,\s*|\s+|(?=\])))*\]")


def answers_in(number: int, value: object) -> tuple[str, ...]:
    """The answers in a cell: a list, a list written as text, or one text or number.

    Args:
        number: Of the row, for messages.
        value: The cell.

    Raises:
        ValueError: There is no answer, or it is none of these.
    """
    listed = _list_in(value.strip()) if isinstance(value, str) else None
    found = value if isinstance(value, list) else [value] if listed is None else listed
    if any(isinstance(each, dict | list | None) for each in found):
        raise ValueError(
            f"the answer of row {number} must be a text, a number or a list of them, but is "
            f"{value!r:.40}"
        )
    if not found or not all(str(each).strip() for each in found):
        raise ValueError(f"row {number} must have an answer, but it is empty")
    return tuple(map(str, found))


def count_in(number: int, value: object) -> int:
    """The tokens in a cell; 50 if it is empty. pandas writes 7.0 where some are missing.

    Args:
        number: Of the row, for messages.
        value: The cell.

    Raises:
        ValueError: It is no whole number of at least 1.
    """
    if value is None or value == "":
        return DEFAULT_NEW_TOKENS
    text = str(value).strip().removesuffix(".0")
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise ValueError(
            f"`max_new_tokens` of row {number} must be a whole number of at least 1, but got "
            f"{value!r:.40}"
        )
    return int(text)


def _list_in(text: str) -> list[object] | None:
    """The list that a cell shows in the way of JSON, Python or NumPy; None if it shows none."""
    try:
        found = json.loads(text)
    except ValueError:
        return [_plain(each) for each in re.findall(_ITEM, text)] if _LIST.fullmatch(text) else None
    return found if isinstance(found, list) else None


def _plain(item: str) -> str:
    """An item of a list without its quotes; numbers stay as they are written."""
    if item[0] not in "'\"":
        return item
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), item[1:-1])
