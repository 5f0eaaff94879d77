"""What the tests of pictures share: profiles of small and of large models, and eyes."""

import io

import numpy as np
import pytest
from PIL import Image

import kvbudget as kvb


@pytest.fixture
def profile():
    """Six layers of four KV heads on five prompts, some of which rise."""
    return measured((6, 4), samples=5)


@pytest.fixture
def measured_profile():
    """Makes a profile of so many layers and KV heads."""
    return measured


def measured(shape, samples=1, model="a model"):
    rng = np.random.default_rng(0)
    geometry = kvb.Geometry(
        "LlamaForCausalLM", *shape, 8, 8, "bfloat16", (None,) * shape[0], layer_shapes=None
    )
    kept = np.array([0.05, 0.1, 0.2, 0.4, 0.7, 1.0])
    scale = rng.lognormal(0.0, 2.0, (samples, *shape, 1))
    noise = rng.uniform(0.8, 1.2, (samples, *shape, len(kept)))
    loss = scale * np.maximum(0.0, (1 - kept) ** 2) * noise
    return kvb.Profile(
        loss=loss.mean(0),
        sample_loss=loss,
        kept_fraction=kept,
        geometry=geometry,
        model=model,
        heuristic="observation_window",
        heuristic_settings=(),
        measure="divergence",
    )


@pytest.fixture
def ragged_plan():
    """A plan for a model whose layers have four KV heads and two."""
    shapes = (kvb.CacheShape(4, 8, 8), kvb.CacheShape(2, 8, 8), kvb.CacheShape(4, 8, 8))
    geometry = kvb.Geometry.of_layers("Gemma4ForCausalLM", shapes, "float32", (None,) * 3)
    importance = np.arange(1.0, 13.0).reshape(3, 4) * geometry.present
    profile = kvb.Profile.from_importance(importance, geometry)
    return kvb.allocate(profile, budget="50%", context_tokens=77)


@pytest.fixture
def seen():
    """The grey picture as it is printed, [height, width], 0 to 255."""
    return lambda picture: np.asarray(
        Image.open(io.BytesIO(picture._repr_png_())).convert("L"), dtype=float
    )


@pytest.fixture
def said():
    """Every text in a picture."""
    from matplotlib.text import Text

    return lambda picture: [
        text.get_text() for text in picture.figure.findobj(Text) if text.get_text()
    ]


@pytest.fixture
def texts_that_touch():
    """Pairs of texts that lie over each other, or lie outside of the picture."""
    return touching


def touching(picture):
    figure = picture.figure
    figure.canvas.draw()
    texts = [text for text in shown_texts(figure) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    paper = figure.bbox.padded(1)
    outside = [
        (name, "the edge")
        for name, box in boxes
        if not (paper.contains(*box.min) and paper.contains(*box.max))
    ]
    return outside + [
        (name, other_name)
        for place, (name, box) in enumerate(boxes)
        for other_name, other in boxes[place + 1 :]
        if box.padded(-1).overlaps(other.padded(-1))
    ]


def shown_texts(figure):
    """Every text that is drawn; of the labels of ticks those inside the axis."""
    from matplotlib.text import Text

    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for axes in figure.axes:
        if axes.axison:
            yield from (part for part in axes.get_children() if isinstance(part, Text))
            for place, axis in enumerate((axes.xaxis, axes.yaxis)):
                low, high = sorted(axis.get_view_interval())
                yield axis.label
                yield from (
                    label
                    for label in axis.get_ticklabels(which="both")
                    if low <= label.get_position()[place] <= high
                )
