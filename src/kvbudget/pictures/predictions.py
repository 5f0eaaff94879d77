"""What plans were predicted to lose against what they lost."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from kvbudget.allocator import ProfileCheck
from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.picture_style import FAINT, INK, NOTE, fitting, new_figure, styled
from kvbudget.allocator.profile_check import FACTOR

from .picture import Picture
from .words import amount, counted, of_model, share

LEAST_SPAN = 100.0
KINDS = ((True, "solved plan", "o", INK), (False, "random plan", "s", NOTE))


def draw_check(check: ProfileCheck, *, model: str = "") -> Picture:
    """Draw predicted against measured loss, a mark for each plan that was run.

    Marks above the line lost more than was predicted. Both scales are logarithmic; a loss of 0
    stands at the edge. Between the dashed lines a prediction is wrong by a factor of 2 at most.
    Where the profile is in another unit than the measured nats there is no such line, as only the
    order can be compared.

    Args:
        check: What ``check_profile`` stored: ``profile.check`` or ``plan.check``.
        model: Name of the model, for the heading.

    Raises:
        TypeError: If there was no check.
    """
    if not isinstance(check, ProfileCheck):
        raise TypeError(
            f"`check` must be a ProfileCheck, but got {check!r:.60}. Run check_profile first: it"
            " gives a profile whose `check` holds one."
        )
    with styled():
        figure = new_figure(5.2, 5.4)
        axes = figure.subplots()
        predicted, measured = _on_scale(check.predicted), _on_scale(check.measured)
        _scale(axes, check, predicted, measured)
        is_solved = np.array(check.is_solved)
        for kind, name, marker, ink in KINDS:
            mask = is_solved == kind
            at = predicted[mask], measured[mask]
            axes.plot(*at, marker, color=ink, markerfacecolor="none", label=name)
        axes.set_title(_heading(check, model), parse_math=False)
        figure.legend(loc="outside lower center", ncols=2)
    return Picture(figure, "Predicted against measured loss", _describe(check, model))


def _on_scale(losses: tuple[float, ...]) -> Floats:
    """Losses for a logarithmic scale: what is 0 stands a little below the least other one."""
    values = np.array(losses)
    positive = values[values > 0]
    edge = positive.min() / FACTOR if len(positive) else 1.0
    return np.asarray(np.where(values > 0, values, edge), dtype=np.float64)


def _scale(axes: Axes, check: ProfileCheck, predicted: Floats, measured: Floats) -> None:
    """Logarithmic scales, which are equal where both are in nats."""
    axes.set(xscale="log", yscale="log")
    axes.set(xlim=_ends(predicted), ylim=_ends(measured))
    for axis in (axes.xaxis, axes.yaxis):
        # powers of ten are enough, and what lies between them would not fit
        axis.set_minor_formatter(NullFormatter())
    axes.grid(color=FAINT)
    axes.set_ylabel("measured divergence (nats per token)")
    if not check.in_nats:
        axes.set_xlabel("predicted loss (in another unit)")
        return
    axes.set_xlabel("predicted divergence (nats per token)")
    ends = _ends(np.concatenate([predicted, measured]))
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    axes.plot(ends, ends, "-", color=INK, linewidth=0.8, label="equal")
    name = f"wrong by a factor of {FACTOR:.0f}"
    axes.plot(ends, ends * FACTOR, "--", color=NOTE, linewidth=0.8, label=name)
    axes.plot(ends, ends / FACTOR, "--", color=NOTE, linewidth=0.8)


def _ends(losses: Floats) -> Floats:
    """Ends of a scale around losses, far enough apart for two powers of ten."""
    low, high = losses.min() / FACTOR, losses.max() * FACTOR
    room = max(1.0, float(np.sqrt(LEAST_SPAN / (high / low))))
    return np.array([low / room, high * room])


def _heading(check: ProfileCheck, model: str) -> str:
    plans, prompts = len(check.predicted), counted(check.prompts, "prompt")
    order = f"rank correlation {check.spearman:.3f}"
    near = f", {share(check.within_two)} within a factor of 2" if check.in_nats else ""
    about = f"{plans} plans on {prompts}"
    return f"{fitting(f'{model}: {about}' if model else about)}\n{order}{near}"


def _describe(check: ProfileCheck, model: str) -> str:
    """What is to be seen, in words."""
    solved = sum(check.is_solved)
    low, high = min(check.measured), max(check.measured)
    near = (
        f" The prediction is within a factor of 2 for {share(check.within_two)} of all plans"
        + (f" and {share(check.solved_within_two)} of the solved ones" if solved else "")
        + f"; the worst ratio of predicted to measured is {amount(check.worst)}."
        if check.in_nats
        else " Predictions are in another unit than the measured nats per token."
    )
    return (
        f"Scatter of measured over predicted loss of {counted(solved, 'solved plan')} and"
        f" {counted(len(check.predicted) - solved, 'random plan')} of {of_model(model)}, run on"
        f" {counted(check.prompts, 'prompt')}: measured {amount(low)} to {amount(high)} nats per"
        f" token, rank correlation {check.spearman:.3f}.{near}"
    )
