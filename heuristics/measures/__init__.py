"""Measures: what a cache loses at each level. One file each."""

from .attention_mass import AttentionMass
from .divergence import Divergence
from .measure import Measure, build, get, name_of, names, register, registration_scope
from .output_error import OutputError

__all__ = [
    "AttentionMass",
    "Divergence",
    "Measure",
    "OutputError",
    "build",
    "get",
    "name_of",
    "names",
    "register",
    "registration_scope",
]
