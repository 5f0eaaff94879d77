"""A picture of a plan: how many tokens each cache keeps."""

import io
from pathlib import Path

import numpy as np

from kvbudget.allocator import Plan
from kvbudget.allocator.files import write_whole

_MOST_NUMBERS = 1024


def save_heat_map(plan: Plan, path: Path) -> None:
    """Draw the plan's capacities, layers by KV heads, as a PNG that can be read in grey.

    Where a layer has fewer KV heads than another, its last places stay empty.

    Args:
        plan: The plan to draw.
        path: Where to write the picture.

    Raises:
        OSError: The picture cannot be written.
    """
    write_whole(path, heat_map_png(plan))


def heat_map_png(plan: Plan) -> bytes:
    """The picture of `save_heat_map` as the bytes of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tokens, present = plan.capacity_tokens, plan.geometry.present
    layers, kv_heads = tokens.shape
    figure = Figure(figsize=(3.2 + 0.62 * kv_heads, 1.9 + 0.36 * layers), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # one colour map whose lightness rises steadily, from 0 so that equal shades mean equal room
    shown = np.ma.masked_array(tokens, ~present)
    image = axes.imshow(shown, cmap="cividis", vmin=0, vmax=plan.context_tokens, aspect="auto")
    axes.set_title(_title(plan), fontsize=9)
    axes.set_xlabel("KV head")
    axes.set_ylabel("layer")
    axes.set_xticks(range(kv_heads))
    axes.set_yticks(range(layers))
    if tokens.size <= _MOST_NUMBERS:
        for layer, head in np.argwhere(present).tolist():
            count = int(tokens[layer, head])
            shade = "black" if count > plan.context_tokens / 2 else "white"
            axes.text(head, layer, f"{count}", ha="center", va="center", color=shade, size=8)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(f"tokens kept of a context of {plan.context_tokens}")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _title(plan: Plan) -> str:
    share = plan.used_bytes / plan.geometry.full_bytes(plan.context_tokens, plan.batch_size)
    return f"{plan.certificate.solver}: {share:.0%} of the full cache\n{plan.model}"
