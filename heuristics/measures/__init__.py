"""Measures: what a cache loses at each level. One file each."""

from .ablation import Ablation
from .attention_mass import AttentionMass
from .divergence import Divergence
from .measure import (
    Measure,
    RefinedMeasure,
    build,
    get,
    name_of,
    names,
    register,
    registration_scope,
)
from .output_error import OutputError

__all__ = [
    "Ablation",
    "AttentionMass",
    "Divergence",
    "Measure",
    "OutputError",
    "RefinedMeasure",
    "build",
    "get",
    "name_of",
    "names",
    "register",
    "registration_scope",
]
