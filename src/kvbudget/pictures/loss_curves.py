"""What single caches lose when they keep less, and the lower convex hulls that solvers see."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kvbudget.allocator import Profile
from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.comparison_plot import UNITS
from kvbudget.allocator.curves import lower_hull, running_minimum
from kvbudget.allocator.picture_style import FAINT, INK, NOTE, fitting, new_figure, styled
from kvbudget.allocator.terms import Bools

from .picture import Picture
from .words import amount, counted, of_model, share

Cache = tuple[int, int]
COLUMNS = 4
PANEL_WIDTH, PANEL_HEIGHT = 2.3, 2.0
MOST_PANELS = 48
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
SPREAD = (0.1, 0.9)


def draw_curves(
    profile: Profile,
    caches: Iterable[Cache] | None = None,
    *,
    most: int = 4,
    least: int = 4,
) -> Picture:
    """Draw the loss of some caches over the share of the context that they keep.

    Every measured level is a dot, the corners of the lower convex hull are rings, joined by a
    line. A band holds the middle 80 % of the prompts. Every cache has a scale of its own, because
    losses of caches differ by orders of magnitude.

    Args:
        profile: Measured losses.
        caches: Which, as (layer, KV head) pairs; those that lose most and least if left out.
        most: So many of those that lose most at the lowest level.
        least: And so many of those that lose least there.

    Raises:
        ValueError: If there is no such cache, there are none or too many to draw, or `most` or
            `least` is negative.
    """
    rows = _rows(profile, caches, most, least)
    columns = max(map(len, rows))
    with styled():
        size = max(4.5, 0.7 + PANEL_WIDTH * columns), 0.9 + PANEL_HEIGHT * len(rows)
        figure = new_figure(*size)
        panels = figure.subplots(len(rows), columns, sharex=True, squeeze=False)
        for row, names in zip(panels, rows, strict=True):
            for panel, cache in zip(row, names, strict=False):
                _draw_curve(panel, profile, cache)
            for panel in row[len(names) :]:
                panel.set_axis_off()
        for column in range(columns):
            _label_below(panels[sum(len(names) > column for names in rows) - 1, column])
        figure.suptitle(_heading(profile), x=0.01, ha="left", size=10, parse_math=False)
        figure.supylabel(loss_label(profile.measure), size=9)
        keys = panels[0, 0].get_legend_handles_labels()
        figure.legend(*keys, loc="outside lower center", ncols=3)
    return Picture(figure, "Loss of single KV caches over what they keep", _describe(profile, rows))


def loss_label(measure: str) -> str:
    """What an axis of losses shows, with its unit if it has one."""
    about = ", ".join(filter(None, (measure, UNITS.get(measure))))
    return f"loss ({about})" if about else "loss"


def hull_corners(kept_fraction: Floats, loss: Floats) -> Bools:
    """Which levels of a curve are corners of its lower convex hull.

    Args:
        kept_fraction: Share of the context kept at each level, [levels], rising.
        loss: Loss at each level, [levels].

    Returns:
        Mask, [levels].
    """
    # as whole numbers, which is what hulls are made from
    shares = np.round(kept_fraction * 2**40).astype(np.int64)
    corners: Bools = lower_hull(shares[None], running_minimum(loss)[None])[0]
    return corners


def _rows(
    profile: Profile, caches: Iterable[Cache] | None, most: int, least: int
) -> list[list[Cache]]:
    """The caches of each row of panels."""
    if caches is not None:
        chosen = [_known(profile, cache) for cache in caches]
        _check_number("caches", len(chosen))
        return [chosen[at : at + COLUMNS] for at in range(0, len(chosen), COLUMNS)]
    if min(most, least) < 0:
        raise ValueError(
            f"`most` and `least` must be at least 0, but got most={most} and least={least}."
        )
    _check_number("most + least", most + least)
    lowest = np.where(profile.geometry.present, profile.loss[..., 0], -1.0)
    order = np.argsort(-lowest, axis=None, kind="stable")[: profile.geometry.caches]
    ranked = [divmod(int(each), profile.geometry.kv_heads) for each in order]
    ends = ranked[:most], ranked[max(most, len(ranked) - least) :]
    return [end[at : at + COLUMNS] for end in ends for at in range(0, len(end), COLUMNS)]


def _known(profile: Profile, cache: Cache) -> Cache:
    geometry = profile.geometry
    layer, head = cache
    if not (0 <= layer < geometry.layers and 0 <= head < geometry.shape_of(layer).kv_heads):
        raise ValueError(
            f"`caches` must hold (layer, KV head) pairs of the model, {geometry}, but got {cache}."
        )
    return int(layer), int(head)


def _check_number(name: str, count: int) -> None:
    if not 1 <= count <= MOST_PANELS:
        raise ValueError(f"`{name}` must be 1 to {MOST_PANELS} caches, but got {count}.")


def _draw_curve(axes: Axes, profile: Profile, cache: Cache) -> None:
    """One cache: levels, hull, and the spread over the prompts."""
    kept, loss = profile.kept_fraction, profile.loss[cache]
    corner = hull_corners(kept, loss)
    if len(profile.sample_loss) > 1:
        low, high = np.quantile(profile.sample_loss[:, *cache], SPREAD, axis=0)
        axes.fill_between(kept, low, high, color=FAINT, label="middle 80% of the prompts")
    axes.plot(kept, loss, ".", color=NOTE, markersize=3.5, label="level")
    (hull,) = axes.plot(kept[corner], loss[corner], "o-", color=INK, linewidth=1.0, label="hull")
    hull.set(markerfacecolor="none", markersize=5.5)
    axes.set_title(f"{_cache_name(cache)}\nloses {amount(loss[0])} at {share(kept[0])}", size=9)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xticks(QUARTERS)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(lambda value, _: amount(value))
    axes.grid(color=FAINT)


def _label_below(axes: Axes) -> None:
    """Say what is below the lowest panel of a column."""
    axes.set_xlabel("share of the context kept")
    axes.tick_params(axis="x", labelbottom=True)


def _heading(profile: Profile) -> str:
    return fitting(of_model(profile.model))


def _describe(profile: Profile, rows: list[list[Cache]]) -> str:
    """What is to be seen, in words."""
    shown = [cache for row in rows for cache in row]
    first = share(float(profile.kept_fraction[0]))
    lowest = {cache: float(profile.loss[*cache, 0]) for cache in shown}
    worst, best = max(shown, key=lowest.__getitem__), min(shown, key=lowest.__getitem__)
    least = f" and {_cache_name(best)} {amount(lowest[best])}" if best != worst else ""
    falls = all(profile.loss[*cache, -1] == 0 for cache in shown)
    end = "; every curve falls to 0 where everything is kept" if falls else ""
    return (
        f"Curves of {loss_label(profile.measure)} over the share of the context kept, with their"
        f" lower convex hulls, for {counted(len(shown), 'KV cache')} of"
        f" {of_model(profile.model)}. Keeping {first}, {_cache_name(worst)} loses"
        f" {amount(lowest[worst])}{least}{end}."
    )


def _cache_name(cache: Cache) -> str:
    return f"layer {cache[0]}, KV head {cache[1]}"
