"""Pictures of plans, profiles and runs, each with the words that stand for it.

    picture = kvbudget.pictures.draw_plan(plan)
    picture.save("plan.png")  # or .svg
    str(picture)  # alternative text for a page

All look alike, can be read in grey, and carry their description in the file.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .frontier import draw_frontier
from .loss_curves import draw_curves
from .memory_trace import MemoryTrace, draw_memory
from .needle_grid import NeedleGrid, draw_needles
from .picture import Picture
from .plan_map import draw_plan
from .predictions import draw_check

if TYPE_CHECKING:
    from .memory_watch import MemoryWatch

__all__ = [
    "MemoryTrace",
    "MemoryWatch",
    "NeedleGrid",
    "Picture",
    "draw_check",
    "draw_curves",
    "draw_frontier",
    "draw_memory",
    "draw_needles",
    "draw_plan",
]


def __getattr__(name: str) -> object:
    # watching a model needs torch, which drawing does without
    if name != "MemoryWatch":
        raise AttributeError(f"module 'kvbudget.pictures' has no attribute {name!r}")
    value: object = import_module("kvbudget.pictures.memory_watch").MemoryWatch
    globals()[name] = value
    return value
