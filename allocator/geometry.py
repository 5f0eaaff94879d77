"""The shape of a model's KV caches: all that is needed to turn tokens into bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Ints, float_array
from .checks import check_count, check_text
from .json_fields import read_field

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of one element of each type a cache may be stored in."""

MOST_TOKENS = 2**40


@dataclass(frozen=True, slots=True)
class Geometry:
    """The KV caches of a model: how many there are and what a token costs in each.

    Args:
        architecture: Name of the model class, such as ``"LlamaForCausalLM"``.
        layers: Number of layers that hold a cache.
        kv_heads: KV heads of each layer; each has a cache of its own.
        head_dim: Elements of one key.
        value_dim: Elements of one value.
        dtype: Element type of the caches: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        windows: Sliding window of each layer in tokens, [layers]; ``None`` is full attention.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is below 1, the type is unknown, or a window is missing.
    """

    architecture: str
    layers: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: str
    windows: tuple[int | None, ...]

    def __post_init__(self) -> None:
        """Check every field."""
        check_text("architecture", self.architecture)
        for name in ("layers", "kv_heads", "head_dim", "value_dim"):
            count = check_count(name, getattr(self, name), most=MOST_TOKENS)
            object.__setattr__(self, name, count)
        check_dtype(self.dtype)
        object.__setattr__(self, "windows", check_windows(self.windows, self.layers))

    @property
    def caches(self) -> int:
        """Number of caches: one per layer and KV head."""
        return self.layers * self.kv_heads

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the key and the value of one token in one cache."""
        return (self.head_dim + self.value_dim) * DTYPE_BYTES[self.dtype]

    def most_tokens(self, context_tokens: int) -> tuple[int, ...]:
        """Most tokens a cache of each layer can need for a context, [layers].

        A layer with a sliding window never needs more than its window.
        """
        context = check_count("context_tokens", context_tokens, most=MOST_TOKENS)
        return tuple(context if window is None else min(context, window) for window in self.windows)

    def capacity_tokens(self, kept_fraction: ArrayLike, context_tokens: int) -> Ints:
        """Tokens each cache may keep at each level, int64 [layers, kv_heads, levels].

        Shares are of the context, rounded down to whole tokens, so that a level of 10 % fits a
        budget of 10 %; at least one token and never more than the layer can need.

        Args:
            kept_fraction: Share of the context kept at each level, [levels], above 0.
            context_tokens: Longest context to plan for, in tokens.

        Raises:
            TypeError: If an argument does not hold numbers.
            ValueError: If a share is not finite or the context is below 1.
        """
        most = np.array(self.most_tokens(context_tokens), dtype=np.int64)
        shares = float_array("kept_fraction", kept_fraction, ("levels",))
        # 0.29 * 100 is a little less than 29 in floating point and must not become 28
        wanted = np.floor(shares * context_tokens + 1e-9)
        by_layer = np.clip(wanted[None].astype(np.int64), 1, most[:, None])
        return np.repeat(by_layer[:, None], self.kv_heads, axis=1)

    def full_bytes(self, context_tokens: int, batch_size: int = 1) -> int:
        """Bytes of all caches together when nothing is evicted.

        Args:
            context_tokens: Length of the context in tokens.
            batch_size: Sequences that are cached side by side.
        """
        tokens = sum(self.most_tokens(context_tokens)) * self.kv_heads
        return tokens * self.bytes_per_token * check_count("batch_size", batch_size)

    def with_dtype(self, dtype: str) -> "Geometry":
        """The same caches stored in another element type."""
        return replace(self, dtype=dtype)

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types."""
        return {
            "architecture": self.architecture,
            "layers": self.layers,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "value_dim": self.value_dim,
            "dtype": self.dtype,
            "windows": list(self.windows),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> "Geometry":
        """Read what :meth:`to_json` wrote.

        Raises:
            TypeError: If a field cannot be used.
            ValueError: If a field is missing or cannot be used.
        """
        return cls(
            architecture=read_field(record, "architecture", str),
            layers=read_field(record, "layers", int),
            kv_heads=read_field(record, "kv_heads", int),
            head_dim=read_field(record, "head_dim", int),
            value_dim=read_field(record, "value_dim", int),
            dtype=read_field(record, "dtype", str),
            windows=tuple(read_field(record, "windows", list)),
        )

    def __str__(self) -> str:
        """One line: the architecture and the shape of its caches."""
        size = (
            f"head size {self.head_dim}"
            if self.head_dim == self.value_dim
            else f"key size {self.head_dim}, value size {self.value_dim}"
        )
        shape = f"{self.layers} layers x {self.kv_heads} KV heads"
        return f"{self.architecture} ({shape}, {size}, {self.dtype})"


def check_dtype(dtype: object) -> None:
    """Refuse an element type whose size is not known.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it is not in the table.
    """
    if check_text("dtype", dtype) not in DTYPE_BYTES:
        known = ", ".join(repr(name) for name in DTYPE_BYTES)
        raise ValueError(f"`dtype` must be one of {known}, but got {dtype!r}.")


def check_windows(windows: object, layers: int) -> tuple[int | None, ...]:
    """Return one window per layer as a tuple.

    Raises:
        TypeError: If it is not a sequence of integers and ``None``.
        ValueError: If its length is not the number of layers or a window is below 1.
    """
    if not isinstance(windows, tuple | list):
        raise TypeError(f"`windows` must be a tuple with one entry per layer, but got {windows!r}.")
    if len(windows) != layers:
        raise ValueError(
            f"`windows` must have one entry per layer, but got {len(windows)} for {layers} layers."
        )
    return tuple(None if w is None else check_count("windows", w) for w in windows)
