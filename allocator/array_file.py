"""Arrays and their description in one safetensors file.

The description is one JSON string under one key of the file's metadata.
"""

import json
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from .arrays import Floats
from .envelope import seal, unseal

METADATA_KEY = "kvbudget"


def pack_arrays(
    kind: str, version: int, content: Mapping[str, object], arrays: Mapping[str, Floats]
) -> bytes:
    """Return a safetensors file of float64 arrays and the JSON fields that describe them."""
    header = seal(kind, version, content, payload(arrays))
    return save(dict(arrays), metadata={METADATA_KEY: header})


def unpack_arrays(
    raw: bytes, kind: str, version: int, names: tuple[str, ...]
) -> tuple[dict[str, object], dict[str, Floats]]:
    """Return the fields and the arrays that :func:`pack_arrays` stored.

    Raises:
        ValueError: If the content cannot be used; the message says what is wrong with it.
    """
    arrays = parse_arrays(raw, names)
    return unseal(parse_header(raw), kind, version, payload(arrays)), arrays


def parse_arrays(raw: bytes, names: tuple[str, ...]) -> dict[str, Floats]:
    """Return the named float64 arrays of a safetensors file.

    Raises:
        ValueError: If the file is damaged, or an array is missing or of another type.
    """
    try:
        tensors = dict(deserialize(raw))
    except SafetensorError as error:
        if raw.lstrip().startswith(b"{"):
            raise ValueError("it is JSON text, as plans are, which Plan.load reads") from error
        raise ValueError(f"it is not a complete safetensors file ({error})") from error
    for name in names:
        if name not in tensors:
            raise ValueError(f"the array `{name}` is missing")
        if tensors[name]["dtype"] != "F64":
            raise ValueError(f"the array `{name}` must be F64, but is {tensors[name]['dtype']}")
    return {
        name: np.frombuffer(tensors[name]["data"], "<f8").reshape(tensors[name]["shape"])
        for name in names
    }


def parse_header(raw: bytes) -> str:
    """Return our JSON text from a file that safetensors has found to be well formed.

    Raises:
        ValueError: If the file holds no such text.
    """
    length = int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8 : 8 + length]).get("__metadata__") or {}
    if METADATA_KEY not in metadata:
        raise ValueError("it is a safetensors file of another program")
    return str(metadata[METADATA_KEY])


def payload(arrays: Mapping[str, Floats]) -> bytes:
    """Names, shapes and bytes of the arrays in a fixed order, for the checksum."""
    parts = [
        f"{name}{array.shape}".encode() + array.astype("<f8").tobytes()
        for name, array in sorted(arrays.items())
    ]
    return b"\n".join(parts)
