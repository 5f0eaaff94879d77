"""The menu of levels that is measured when the caller names none."""

DEFAULT_LEVELS: tuple[float, ...] = (
    *(0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25),
    *(0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
"""Shares of the context that a cache may keep, strictly rising, dense where curves bend most."""
