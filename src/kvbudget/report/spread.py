"""How much single prompts lose along the path: the band around the mean."""

from dataclasses import asdict, dataclass

import numpy as np

from kvbudget.allocator import Path, Problem, Profile

POINTS = 80


@dataclass(frozen=True, slots=True)
class Spread:
    """What the prompts of a profile lose with the plans of a path.

    Args:
        prompts: Number of prompts.
        kept_fraction: Share of the full cache at some breakpoints, [points], rising.
        least: Loss of the prompt that loses least, [points].
        most: Loss of the prompt that loses most, [points].
    """

    prompts: int
    kept_fraction: list[float]
    least: list[float]
    most: list[float]

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types."""
        return asdict(self)


def spread_of(problem: Problem, profile: Profile) -> Spread | None:
    """The spread over the prompts, or ``None`` where there are fewer than 2.

    Args:
        problem: A problem made from the profile, without constraints that couple caches.
        profile: Losses of each prompt.
    """
    samples = profile.sample_loss[:, profile.geometry.present]  # [samples, units, levels]
    if len(samples) < 2:
        return None
    path = Path.of(problem)
    ends = path.budget_bytes[0], path.budget_bytes[-1]
    near = np.searchsorted(path.budget_bytes, np.linspace(*ends, POINTS))
    points = np.unique(near)
    units = np.arange(samples.shape[1])
    totals = np.array(
        [samples[:, units, path.frontier.levels(int(point))].sum(axis=1) for point in points]
    )
    return Spread(
        prompts=len(samples),
        kept_fraction=path.kept_fraction[points].tolist(),
        least=totals.min(axis=1).tolist(),
        most=totals.max(axis=1).tolist(),
    )
