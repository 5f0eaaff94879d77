"""A fixed slope over depth: much for the first layers, little for the last.

Reference: Cai et al., 2024. https://arxiv.org/abs/2406.02069
"""

from dataclasses import dataclass
from fractions import Fraction

from kvbudget.allocator.layers import layer_of_units
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.ranges import check_range, check_tokens
from kvbudget.allocator.sharing.shares import divide
from kvbudget.allocator.sharing.token_bytes import bytes_of_tokens, token_sizes
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class PyramidKV(Solver):
    """Divide the budget over layers in an arithmetic series.

    With the mean bytes ``base`` of a cache beyond its window, layer ``l`` of ``L`` gets, beyond
    it,

        top - l * (top - bottom) / (L - 1),    bottom = base / beta,    top = 2 * base - bottom

    If ``top`` is more than a cache can hold beyond its window, it is that much and ``bottom`` is
    ``2 * base - top``. If twice ``base`` is more than a whole cache, all layers are equal. All
    caches of a layer are equal, up to one level of the menu, and but for caches that a smaller
    level serves as well. No signal is used, so there is no importance to pass.

    The schedule is the published one. Its totals differ from the original's by the integer
    division there, which spends up to one token per layer too much or too little; here none is
    lost.

    Args:
        beta: Mean bytes over the bytes of the last layer, at least 1; 1 makes all layers equal.
        window_tokens: Tokens that every cache gets besides. In a problem without an origin the
            lowest levels stand in for them.

    Reference:
        Cai et al., "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information
        Funneling", 2024. https://arxiv.org/abs/2406.02069
    """

    beta: float = 20.0
    window_tokens: int = 8

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("beta", self.beta, 1.0)
        check_tokens("window_tokens", self.window_tokens)

    def choose(self, problem: Problem) -> Choice:
        """Round the series to levels."""
        window = bytes_of_tokens(problem, self.window_tokens)
        whole = problem.cost_bytes[:, -1].tolist()
        sizes, layer = token_sizes(problem), layer_of_units(problem).tolist()
        # of a token of mean size, as the series
        most = max((b - a) / size for a, b, size in zip(window, whole, sizes, strict=True))
        base = Fraction(max(problem.budget_bytes - sum(window), 0), len(window))
        layers = problem.shape[0]
        if layers == 1 or 2 * base > max(b / size for b, size in zip(whole, sizes, strict=True)):
            series = [base] * layers
        else:
            series = arithmetic_series(base, Fraction(self.beta), most, layers)
        wanted = [a + series[at] * size for a, at, size in zip(window, layer, sizes, strict=True)]
        return Choice(divide(problem, wanted))


def arithmetic_series(
    base: Fraction, beta: Fraction, most: Fraction, layers: int
) -> list[Fraction]:
    """Bytes of a cache of each layer, [layers], falling, with the mean ``base``.

    Args:
        base: Mean bytes, at most ``most``.
        beta: Mean bytes over the bytes of the last layer.
        most: Bytes that no layer can exceed.
        layers: Number of layers, at least 2.
    """
    top = min(2 * base - base / beta, most)
    step = (2 * top - 2 * base) / (layers - 1)
    return [top - layer * step for layer in range(layers)]
