"""The shape of a model's KV caches: all that is needed to turn tokens into bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Ints, float_array
from .cache_shape import CacheShape, check_shapes, describe_shapes, largest
from .checks import check_count, check_text
from .json_fields import read_field
from .terms import Bools

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of one element of each type a cache may be stored in."""

MOST_TOKENS = 2**40


@dataclass(frozen=True, slots=True)
class Geometry:
    """The KV caches of a model: how many there are and what a token costs in each.

    Arrays over all caches have the shape [layers, kv_heads]. Where a layer has fewer KV heads than
    another, its last places there are *absent*: no cache, no bytes, no loss, no capacity.

    Args:
        architecture: Name of the model class, such as ``"LlamaForCausalLM"``.
        layers: Number of layers that hold a KV cache, counted in the order of the model. Layers
            without one, such as state-space layers, and layers that read another's are left out.
        kv_heads: KV heads of each layer, each with a cache of its own; where layers differ, those
            of the widest layer.
        head_dim: Elements of one key; where layers differ, of the largest.
        value_dim: Elements of one value; where layers differ, of the largest.
        dtype: Element type of the caches: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        windows: Most tokens that a layer can look back on, [layers]: its sliding window, or the
            chunk of chunked attention; ``None`` is full attention.
        layer_shapes: Shape of each layer's caches, [layers], where layers differ; ``None`` where
            all have the shape above.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is below 1, the type is unknown, a window or a shape is missing, or
            the shape above is not the largest of the layers.
    """

    architecture: str
    layers: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: str
    windows: tuple[int | None, ...]
    layer_shapes: tuple[CacheShape, ...] | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check_text("architecture", self.architecture)
        for name in ("layers", "kv_heads", "head_dim", "value_dim"):
            count = check_count(name, getattr(self, name), most=MOST_TOKENS)
            object.__setattr__(self, name, count)
        check_dtype(self.dtype)
        object.__setattr__(self, "windows", check_windows(self.windows, self.layers))
        if self.layer_shapes is not None:
            shapes = check_shapes(self.layer_shapes, self.layers)
            self._check_largest(largest(shapes))
            # one spelling for equal layers, so that equal geometries compare equal
            object.__setattr__(self, "layer_shapes", shapes if len(set(shapes)) > 1 else None)

    def _check_largest(self, shape: CacheShape) -> None:
        """Refuse numbers that are not the largest of the layers."""
        stated = CacheShape(self.kv_heads, self.head_dim, self.value_dim)
        if stated != shape:
            raise ValueError(
                "`kv_heads`, `head_dim` and `value_dim` must be the largest of `layer_shapes`,"
                f" {shape}, but got {stated}. Use Geometry.of_layers."
            )

    @classmethod
    def of_layers(
        cls,
        architecture: str,
        shapes: Sequence[CacheShape],
        dtype: str,
        windows: tuple[int | None, ...],
    ) -> "Geometry":
        """The geometry of layers that may differ.

        Args:
            architecture: Name of the model class.
            shapes: Shape of each layer's caches, [layers].
            dtype: Element type of the caches.
            windows: Most tokens that a layer can look back on, [layers].

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If there are no layers, or an argument is out of range.
        """
        check_count("layers", len(shapes))
        each = check_shapes(tuple(shapes), len(shapes))
        most = largest(each)
        return cls(
            architecture,
            len(each),
            most.kv_heads,
            most.head_dim,
            most.value_dim,
            dtype,
            windows,
            each,
        )

    @property
    def shapes(self) -> tuple[CacheShape, ...]:
        """Shape of each layer's caches, [layers], whether layers differ or not."""
        if self.layer_shapes is not None:
            return self.layer_shapes
        return (CacheShape(self.kv_heads, self.head_dim, self.value_dim),) * self.layers

    def shape_of(self, layer: int) -> CacheShape:
        """Shape of the caches of one layer."""
        return self.shapes[layer]

    @property
    def caches(self) -> int:
        """Number of caches: one per layer and KV head that the layer has."""
        if self.layer_shapes is None:
            return self.layers * self.kv_heads
        return sum(shape.kv_heads for shape in self.layer_shapes)

    @property
    def present(self) -> Bools:
        """Where there is a cache, [layers, kv_heads]."""
        heads = np.array([shape.kv_heads for shape in self.shapes])
        mask: Bools = np.arange(self.kv_heads) < heads[:, None]
        return mask

    @property
    def token_bytes(self) -> Ints:
        """Bytes of one token's key and value in each cache, int64 [layers, kv_heads]; 0 if absent.

        Their sum is what one token costs in all caches.
        """
        each = np.array([shape.token_elements for shape in self.shapes], dtype=np.int64)
        return np.where(self.present, each[:, None] * DTYPE_BYTES[self.dtype], 0)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the key and the value of one token in any one cache.

        Raises:
            ValueError: If that depends on the layer; :attr:`token_bytes` holds then, too.
        """
        sizes = {shape.token_elements for shape in self.shapes}
        if len(sizes) > 1:
            raise ValueError(
                "`bytes_per_token` must be the same for all caches, but differs between the"
                f" layers of {self}. Use token_bytes."
            )
        return sizes.pop() * DTYPE_BYTES[self.dtype]

    def on_grid(self, values: NDArray[Any]) -> NDArray[Any]:
        """Spread one value per cache over layers and KV heads, 0 where a cache is absent.

        Args:
            values: Values of the caches in order, layer by layer, [caches, ...].

        Returns:
            The values as [layers, kv_heads, ...]; ``array[geometry.present]`` takes them back.

        Raises:
            ValueError: If there is not one value per cache.
        """
        if len(values) != self.caches:
            raise ValueError(
                f"`values` must have one entry per cache, {self.caches}, but got {len(values)}."
            )
        grid = np.zeros((self.layers, self.kv_heads, *values.shape[1:]), dtype=values.dtype)
        grid[self.present] = values
        return grid

    def most_tokens(self, context_tokens: int) -> tuple[int, ...]:
        """Most tokens a cache of each layer can need for a context, [layers].

        A layer with a sliding window, or with chunked attention, never needs more than that.
        """
        context = check_count("context_tokens", context_tokens, most=MOST_TOKENS)
        return tuple(context if window is None else min(context, window) for window in self.windows)

    def capacity_tokens(self, kept_fraction: ArrayLike, context_tokens: int) -> Ints:
        """Tokens each cache may keep at each level, int64 [layers, kv_heads, levels].

        Shares are of the context, rounded down to whole tokens, so that a level of 10 % fits a
        budget of 10 %; at least one token and never more than the layer can need. Absent caches
        keep none.

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
        return np.where(self.present[..., None], by_layer[:, None], 0)

    def bytes_of(self, layer_tokens: Sequence[int], batch_size: int = 1) -> int:
        """Bytes of all caches when every cache of a layer holds so many tokens.

        Args:
            layer_tokens: Tokens in each cache of each layer, [layers].
            batch_size: Sequences that are cached side by side.
        """
        # plain integers, which cannot overflow
        elements = sum(
            tokens * shape.kv_heads * shape.token_elements
            for tokens, shape in zip(layer_tokens, self.shapes, strict=True)
        )
        return elements * DTYPE_BYTES[self.dtype] * check_count("batch_size", batch_size)

    def full_bytes(self, context_tokens: int, batch_size: int = 1) -> int:
        """Bytes of all caches together when nothing is evicted.

        Args:
            context_tokens: Length of the context in tokens.
            batch_size: Sequences that are cached side by side.
        """
        return self.bytes_of(self.most_tokens(context_tokens), batch_size)

    def with_dtype(self, dtype: str) -> "Geometry":
        """The same caches stored in another element type."""
        return replace(self, dtype=dtype)

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types.

        Where layers differ, their shapes stand for the largest one, so that a version of kvbudget
        that knows nothing of them refuses the record instead of misreading it.
        """
        shape: dict[str, object] = {
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "value_dim": self.value_dim,
        }
        if self.layer_shapes is not None:
            rows = [[each.kv_heads, each.head_dim, each.value_dim] for each in self.layer_shapes]
            shape = {"layer_shapes": rows}
        return {
            "architecture": self.architecture,
            "layers": self.layers,
            **shape,
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
        architecture = read_field(record, "architecture", str)
        layers = read_field(record, "layers", int)
        each = read_shapes(record, layers)
        most = (
            largest(each)
            if each
            else CacheShape(
                read_field(record, "kv_heads", int),
                read_field(record, "head_dim", int),
                read_field(record, "value_dim", int),
            )
        )
        return cls(
            architecture=architecture,
            layers=layers,
            kv_heads=most.kv_heads,
            head_dim=most.head_dim,
            value_dim=most.value_dim,
            dtype=read_field(record, "dtype", str),
            windows=tuple(read_field(record, "windows", list)),
            layer_shapes=each,
        )

    def __str__(self) -> str:
        """One line: the architecture and the shape of its caches."""
        if self.layer_shapes is not None:
            shapes = describe_shapes(self.layer_shapes)
            return f"{self.architecture} ({self.layers} layers: {shapes}; {self.dtype})"
        size = self.shapes[0].size_text
        shape = f"{self.layers} layers x {self.kv_heads} KV heads"
        return f"{self.architecture} ({shape}, {size}, {self.dtype})"


def read_shapes(record: Mapping[str, object], layers: int) -> tuple[CacheShape, ...] | None:
    """The shapes of the layers in a record; None where all are alike.

    Raises:
        TypeError: If a number of them is no integer.
        ValueError: If they are not a list of three numbers for each layer.
    """
    if "layer_shapes" not in record:
        return None
    rows = read_field(record, "layer_shapes", list)
    if len(rows) != layers or not all(isinstance(row, list) and len(row) == 3 for row in rows):
        raise ValueError(
            f"the field `layer_shapes` must hold three numbers for each of {layers} layers,"
            f" but is {rows!r:.60}"
        )
    return tuple(CacheShape(*row) for row in rows)


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
