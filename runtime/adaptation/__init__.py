"""Divisions made anew for each prompt, from the scores of its own tokens."""

from .adaptation import Adaptation, LayerScores
from .whole_cache import Global
from .within_layer import WithinLayer

__all__ = ["Adaptation", "Global", "LayerScores", "WithinLayer"]
