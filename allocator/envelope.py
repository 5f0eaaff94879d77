"""The JSON record around saved values: format, version, checksum, content.

The checksum covers the content and the arrays that lie beside it, so a flipped bit cannot
turn one plan into another that looks as good.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import NoReturn

from .json_fields import read_field


def seal(kind: str, version: int, content: Mapping[str, object], payload: bytes = b"") -> str:
    """Return JSON text that holds ``content`` under a checksum.

    Args:
        kind: Name of the format, such as ``"kvbudget-plan"``.
        version: Version of the format.
        content: Fields of JSON types with finite numbers.
        payload: Bytes stored elsewhere that the checksum shall cover as well.
    """
    record = {"format": kind, "version": version, **content}
    return json.dumps({**record, "sha256": checksum(record, payload)}, indent=1, allow_nan=False)


def unseal(text: str, kind: str, version: int, payload: bytes = b"") -> dict[str, object]:
    """Return the fields that :func:`seal` stored.

    Raises:
        ValueError: If the text is not JSON, of another format, newer, or damaged. The message
            completes the sentence "the file is not usable: ...".
    """
    record = parse_object(text)
    found = read_field(record, "format", str)
    if found != kind:
        raise ValueError(f"its format is {found!r:.60}, not {kind!r}")
    found_version = read_field(record, "version", int)
    if found_version > version:
        raise ValueError(
            f"it was written by a newer version of kvbudget, which uses file version"
            f" {found_version!s:.20} where this one reads {version}"
        )
    if found_version < 1:
        raise ValueError(f"its version must be at least 1, but is {found_version!s:.20}")
    stated = read_field(record, "sha256", str)
    del record["sha256"]
    if stated != checksum(record, payload):
        raise ValueError("its content does not match its checksum: it was damaged or edited")
    return record


def decode_text(raw: bytes) -> str:
    """Return the text of a file.

    Raises:
        ValueError: If it is no text; completes the same sentence as in :func:`unseal`.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        # a safetensors file begins with the length of its JSON header, in 8 bytes
        if raw[8:9] == b"{":
            raise ValueError(
                "it is a safetensors file, as profiles are, which Profile.load reads"
            ) from error
        raise ValueError("it is a binary file, not JSON text") from error


def checksum(record: Mapping[str, object], payload: bytes) -> str:
    """SHA-256 of the record in a fixed spelling, followed by the payload."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii") + b"\n" + payload).hexdigest()


def parse_object(text: str) -> dict[str, object]:
    """Parse JSON text that must be an object without NaN or infinity.

    Raises:
        ValueError: If it is anything else.
    """
    try:
        record = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError("it does not hold JSON, or only a part of it") from error
    if not isinstance(record, dict):
        raise ValueError("its JSON is not an object")
    return record


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which are not JSON.

    Raises:
        ValueError: Always.
    """
    raise ValueError(name)
