"""Numbers on shades can be read."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure

from kvbudget.allocator.picture_style import SHADES
from kvbudget.pictures.cells import ink_on, luminance, number_cells


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_luminance_is_that_of_the_guidelines():
    assert luminance("black") == 0
    assert luminance("white") == pytest.approx(1)
    # the middle grey against which black and white are equally easy to read
    assert luminance("#757575") == pytest.approx(0.1779, abs=1e-4)


def test_every_number_can_be_read_on_every_shade():
    for shade in colormaps[SHADES](np.linspace(0, 1, 200)):
        ink = ink_on(shade)
        assert contrast(ink, shade) >= 4.5
        assert contrast(ink, shade) == max(contrast("black", shade), contrast("white", shade))


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (6, 6), (20, 20), (80, 20), (1000, 16)])
def test_cells_are_numbered_as_far_as_there_is_room(count, shown):
    axis = Figure().subplots().xaxis
    number_cells(axis, count, most=20)
    labels = [tick.get_text() for tick in axis.get_ticklabels()]
    assert len(labels) == shown
    assert [float(label) + 0.5 for label in labels] == axis.get_ticklocs().tolist()
