"""Maps of cells: numbers on shades, and numbers beside them."""

import numpy as np
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.typing import ColorType

STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 40, 64, 80, 128)
_WEIGHTS = (0.2126, 0.7152, 0.0722)


def ink_on(colour: ColorType) -> str:
    """Black or white, whichever is easier to read on a colour.

    Reference:
        World Wide Web Consortium, "Web Content Accessibility Guidelines", 2.2, 2023, contrast
        ratio. https://www.w3.org/TR/WCAG22/
    """
    light = luminance(colour)
    return "black" if (light + 0.05) ** 2 > 0.05 * 1.05 else "white"


def luminance(colour: ColorType) -> float:
    """How light a colour looks, from 0 (black) to 1 (white)."""
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ _WEIGHTS)


def number_cells(axis: Axis, count: int, *, most: int) -> None:
    """Number cells from 0, all of them or every so many.

    Args:
        axis: Along which cells of width 1 lie.
        count: Cells.
        most: Numbers for which there is room.
    """
    step = next((step for step in STEPS if count <= step * most), count)
    shown = np.arange(0, count, step)
    axis.set_ticks(shown + 0.5, [str(each) for each in shown.tolist()])
    axis.set_tick_params(length=2.0)
