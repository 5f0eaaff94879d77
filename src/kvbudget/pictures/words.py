"""Pieces of the sentences that stand for a picture."""

import math
from collections.abc import Sequence

from kvbudget.allocator import Geometry


def of_model(name: str) -> str:
    """The model's name, if it has one."""
    return name or "an unnamed model"


def share(value: float) -> str:
    """A share as a percentage of three digits at most: `25%`, `0.4%`."""
    percent = 100 * value
    return f"{percent:.0f}%" if percent >= 9.5 or percent == 0 else f"{percent:.2g}%"


def amount(value: float) -> str:
    """A number of two digits, as people write it: `0.012`, `3.4`, `1.2e-05`."""
    return "0" if value == 0 else f"{value:.2g}" if math.isfinite(value) else "infinite"


def layer_name(layer: int, tokens: float) -> str:
    """A layer and the mean tokens of its caches."""
    return f"layer {layer} ({tokens:.0f})"


def counted(count: int, noun: str) -> str:
    """A number of things: `1 layer`, `6 layers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def caches(geometry: Geometry) -> str:
    """The caches of a model: `6 layers x 4 KV heads`."""
    layers, heads = counted(geometry.layers, "layer"), counted(geometry.kv_heads, "KV head")
    return f"{layers} x {'' if geometry.present.all() else 'up to '}{heads}"


def several(names: Sequence[str]) -> str:
    """Names with commas between them and an `and` before the last."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
