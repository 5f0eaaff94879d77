"""The shape of one layer's caches, for models whose layers differ in it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .checks import check_count

MOST_ELEMENTS = 2**40


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The caches of one layer.

    Args:
        kv_heads: KV heads of the layer; each has a cache of its own.
        head_dim: Elements of one key.
        value_dim: Elements of one value.

    Raises:
        TypeError: If a field is not an integer.
        ValueError: If a field is below 1 or above 2**40.
    """

    kv_heads: int
    head_dim: int
    value_dim: int

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("kv_heads", "head_dim", "value_dim"):
            count = check_count(name, getattr(self, name), most=MOST_ELEMENTS)
            object.__setattr__(self, name, count)

    @property
    def token_elements(self) -> int:
        """Elements of the key and the value of one token in one cache."""
        return self.head_dim + self.value_dim

    @property
    def size_text(self) -> str:
        """The sizes of a key and a value in words."""
        if self.head_dim == self.value_dim:
            return f"head size {self.head_dim}"
        return f"key size {self.head_dim}, value size {self.value_dim}"


def largest(shapes: Sequence[CacheShape]) -> CacheShape:
    """The smallest shape that covers all of these, at least one."""
    return CacheShape(
        kv_heads=max(shape.kv_heads for shape in shapes),
        head_dim=max(shape.head_dim for shape in shapes),
        value_dim=max(shape.value_dim for shape in shapes),
    )


def check_shapes(value: object, layers: int) -> tuple[CacheShape, ...]:
    """Return one shape per layer as a tuple.

    Raises:
        TypeError: If it is not a sequence of shapes.
        ValueError: If its length is not the number of layers.
    """
    if not isinstance(value, tuple | list):
        raise TypeError(
            "`layer_shapes` must be a tuple with one CacheShape per layer or None,"
            f" but got {value!r:.60}."
        )
    for shape in value:
        if not isinstance(shape, CacheShape):
            raise TypeError(f"`layer_shapes` must hold CacheShapes, but got {shape!r:.60}.")
    if len(value) != layers:
        raise ValueError(
            f"`layer_shapes` must have one entry per layer, but got {len(value)} for {layers}"
            " layers."
        )
    return tuple(value)


def describe_shapes(shapes: Iterable[CacheShape]) -> str:
    """How many layers have which shape: ``"25 with 8 KV heads, head size 256; 5 with ..."``."""
    return "; ".join(
        f"{count} with {shape.kv_heads} KV head{'s' if shape.kv_heads > 1 else ''},"
        f" {shape.size_text}"
        for shape, count in Counter(shapes).items()
    )
