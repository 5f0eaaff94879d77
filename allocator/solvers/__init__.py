"""Ways to solve a problem, one file each. Import cost: NumPy only."""

from .greedy import Greedy
from .hull import Hull
from .linear_program import LinearProgram
from .uniform import Uniform

__all__ = ["Greedy", "Hull", "LinearProgram", "Uniform"]
