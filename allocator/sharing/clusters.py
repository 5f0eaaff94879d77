"""Exact clusters of numbers: one-dimensional k-means without a random start.

Reference:
    Wang and Song, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic
    Programming", The R Journal, 2011. https://doi.org/10.32614/RJ-2011-015
"""

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints


def cluster(values: Floats, most_clusters: int) -> Ints:
    """Cluster of each value, int64 [values], numbered from the lowest values up.

    The sum of squared distances to the means of the clusters is least. Equal values share a
    cluster, so there may be fewer clusters than asked for.

    Args:
        values: Numbers, [values], finite, at least one.
        most_clusters: Clusters, at least 1.
    """
    points, label, count = np.unique(values, return_inverse=True, return_counts=True)
    # within -1..1, so that squares neither overflow nor vanish
    points = points / (np.abs(points).max() or 1.0)
    starts = cluster_starts(points - points.mean(), count, min(most_clusters, len(points)))
    bounds: Ints = np.searchsorted(starts, np.arange(len(points)), side="right") - 1
    return bounds[label]


def cluster_starts(points: Floats, count: Ints, clusters: int) -> list[int]:
    """First point of each cluster, [clusters].

    Args:
        points: Different numbers, [points], rising.
        count: How often each occurs, [points].
        clusters: Clusters, at most as many as points.
    """
    ends = np.arange(len(points))
    moments = np.cumsum([count, count * points, count * points**2], axis=1)
    moments = np.pad(moments, ((0, 0), (1, 0)))
    # least sum of squares of the points up to each end, in ever more clusters
    least = squares(moments, np.zeros_like(ends), ends)
    firsts = []
    for size in range(1, clusters):
        first, totals = np.zeros_like(ends), least.copy()
        for end in range(size, len(points)):
            start = np.arange(size, end + 1)
            total = least[start - 1] + squares(moments, start, np.full_like(start, end))
            first[end] = start[total.argmin()]
            totals[end] = total.min()
        firsts.append(first)
        least = totals
    starts, end = [], len(points) - 1
    for first in reversed(firsts):
        starts.append(int(first[end]))
        end = starts[-1] - 1
    return [0, *reversed(starts)]


def squares(moments: Floats, start: Ints, end: Ints) -> Floats:
    """Sum of squared distances to their mean of the points ``start..end``, [ranges]."""
    number, total, square = moments[:, end + 1] - moments[:, start]
    distances: Floats = square - total**2 / number
    return distances
