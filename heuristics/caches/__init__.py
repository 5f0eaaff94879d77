"""Cache heuristics: how much each cache deserves. One file each."""

from .baklava import Baklava, HeadInput, HeadWeight, LayerScore, Reduction

__all__ = ["Baklava", "HeadInput", "HeadWeight", "LayerScore", "Reduction"]
