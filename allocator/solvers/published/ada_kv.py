"""Equal layers; inside a layer, the top tokens of all heads together decide.

Reference: Feng et al., 2024. https://arxiv.org/abs/2407.11550
"""

from dataclasses import dataclass

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.head_step import divide_layers
from kvbudget.allocator.sharing.ranges import check_range, check_tokens
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class AdaKV(Solver):
    """Divide the budget equally over layers and by the top tokens inside each layer.

    Every layer gets the same bytes. Inside a layer the tokens of largest weight are kept, whatever
    cache they lie in, which minimises the bound on the change of the layer's output that the paper
    proves. With the bytes ``won`` of a cache there and the equal part ``base``, it gets

        (1 - alpha) * won + alpha * base

    Layers are equal up to one level of each of their caches, and but for bytes that remove no loss
    there, which go to others.

    The signal is the weight of tokens, read from the curves: buying the steepest segments of their
    lower convex hulls is the same as keeping the top tokens where the loss is lost attention mass
    at a menu of single tokens. On coarser menus, and with another loss, it is the nearest to it.
    There is no importance to pass.

    The division and the safeguard are the published ones. The original works per prompt and rounds
    each cache by itself, which misses the total; here the total is exact.

    Args:
        alpha: Share of the budget that every cache gets, whatever it wins, in 0..1.
        window_tokens: Tokens that every cache keeps before any is won. In a problem without an
            origin the lowest levels stand in for them.

    Reference:
        Feng et al., "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for
        Efficient LLM Inference", 2024. https://arxiv.org/abs/2407.11550
    """

    alpha: float = 0.2
    window_tokens: int = 32

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("alpha", self.alpha, 0.0, 1.0)
        check_tokens("window_tokens", self.window_tokens)

    def choose(self, problem: Problem) -> Choice:
        """Give every layer the same and let its heads compete."""
        equal = [1] * problem.shape[0]
        return Choice(divide_layers(problem, equal, self.alpha, self.window_tokens))
