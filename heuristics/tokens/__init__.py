"""Token heuristics: which tokens a cache keeps. One file each."""

from .heavy_hitter import HeavyHitter
from .key_norm import KeyNorm
from .observation_window import ObservationWindow
from .sink_recent import SinkRecent

__all__ = ["HeavyHitter", "KeyNorm", "ObservationWindow", "SinkRecent"]
