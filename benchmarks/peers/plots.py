"""Pictures of the page."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.peers.cells import KVPRESS, OURS
from benchmarks.peers.findings import Findings
from benchmarks.peers.shares import SHARES
from kvbudget.allocator.picture_style import file_bytes, new_figure, styled

OURS_COLOUR, FREEING_COLOUR, MASKING_COLOUR, OTHERS = "#0072B2", "#D55E00", "#009E73", "#C8C8C8"


def _figure(rows: int, columns: int) -> Figure:
    figure = new_figure(4.3 * columns, 3.2 * rows)
    figure.subplots(rows, columns)
    return figure


def save(figure: Figure, path: Path, description: str) -> None:
    """Write a PNG that carries its description."""
    path.write_bytes(file_bytes(figure, "png", "Compared with kvpress", description))


@styled()
def divergence(found: Findings) -> Figure:
    """Divergence over the share kept, one panel for each of four kinds of prompts."""
    figure = _figure(2, 2)
    for axes, kind in zip(figure.axes, found.kinds(), strict=True):
        for name in found.names(KVPRESS):
            frees = found.frees(name)
            points = _points(found, KVPRESS, [name] * len(SHARES), kind)
            axes.plot(*points, color=OTHERS, lw=0.8, ls="-" if frees else ":")
        for label, colour, marker, names in _highlighted(found):
            side = OURS if "ours" in label else KVPRESS
            points = _points(found, side, names, kind)
            axes.plot(*points, color=colour, marker=marker, ms=5, lw=1.8, label=label)
        axes.set(xscale="log", yscale="log")
        axes.set_title(kind, fontsize=10)
        axes.set_xticks(SHARES, [f"{100 * kept:.0f} %" for kept in SHARES])
        axes.minorticks_off()
        axes.grid(visible=True)
    figure.supylabel("divergence from the full cache, nats per token", fontsize=9)
    figure.supxlabel("share of the cache kept", fontsize=9)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


def _highlighted(found: Findings) -> list[tuple[str, str, str, list[str]]]:
    return [
        (
            "best press that frees",
            FREEING_COLOUR,
            "s",
            [found.best(kept, freeing=True) for kept in SHARES],
        ),
        (
            "best press that masks",
            MASKING_COLOUR,
            "^",
            [found.best(kept, freeing=False) for kept in SHARES],
        ),
        (
            "ours, context read once",
            "#56B4E9",
            "o",
            [found.chosen(kept, read_once=True) for kept in SHARES],
        ),
        (
            "ours, context may be read twice",
            OURS_COLOUR,
            "D",
            [found.chosen(kept) for kept in SHARES],
        ),
    ]


def _points(
    found: Findings, side: str, names: list[str], kind: str
) -> tuple[list[float], list[float]]:
    known = [
        (kept, cell.mean)
        for kept, name in zip(SHARES, names, strict=True)
        if (cell := found.of(side, name, kept).get(kind)) and cell.divergence
    ]
    return [kept for kept, _ in known], [value for _, value in known]


@styled()
def needles(found: Findings) -> Figure:
    """Needles found over bytes held."""
    figure = _figure(1, 1)
    figure.set_size_inches(9, 4)
    axes = figure.axes[0]
    for side, style in ((KVPRESS, "--"), (OURS, "-")):
        for at, name in enumerate(found.on_grid(side)):
            points = found.needles(side, name)
            colour = OURS_COLOUR if side == OURS else FREEING_COLOUR
            marker = "Do^v"[at % 4] if side == OURS else "sXP*hp"[at % 6]
            axes.plot(
                [100 * held for held, _ in points],
                [100 * exact for _, exact in points],
                color=colour,
                marker=marker,
                ms=4,
                lw=1.4,
                ls=style,
                alpha=1 - 0.12 * at,
                label=f"{side}: {name}",
            )
    axes.set(
        xscale="log",
        xlabel="bytes held, % of the full cache",
        ylabel="needles found exactly, %",
        ylim=(-3, 103),
    )
    axes.set_xticks((0.5, 1, 2, 5, 10, 25, 50), ["0.5", "1", "2", "5", "10", "25", "50"])
    axes.minorticks_off()
    axes.grid(visible=True)
    figure.legend(loc="outside right upper")
    return figure
