"""What of ours is compared: token heuristics, divisions, and divisions made anew per prompt."""

from dataclasses import dataclass

from kvbudget import Solver
from kvbudget.allocator import DEFAULT_LEVELS
from kvbudget.allocator.solvers import Hull, PyramidKV, Uniform
from kvbudget.heuristics import TokenHeuristic
from kvbudget.heuristics import tokens as heuristics
from kvbudget.runtime.adaptation import Adaptation, Global, WithinLayer

DIVERGENCE = "divergence"
# a cache may shrink below 2 % of the context, the smallest level that is measured by default
FINE_LEVELS = (0.002, 0.005, 0.01, *DEFAULT_LEVELS)
EVERYTHING, PROSE = "needles, lookups, prose", "prose"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to read a context into a byte budget.

    Args:
        heuristic: Chooses the tokens.
        division: Divides the bytes over the caches.
        measure: What the division minimises the sum of.
        calibration: Which prompts it was measured on.
        adapt: Divides anew for each prompt, if anything does.
        levels: Shares of the context that a cache may keep.
    """

    heuristic: TokenHeuristic
    division: Solver = Hull()  # noqa: RUF009
    measure: str = DIVERGENCE
    calibration: str = EVERYTHING
    adapt: Adaptation | None = None
    levels: tuple[float, ...] = DEFAULT_LEVELS

    @property
    def name(self) -> str:
        """What it is called in tables."""
        division = type(self.division).__name__
        parts = [f"{type(self.heuristic).__name__}, {division}"]
        parts += [] if self.levels == DEFAULT_LEVELS else ["fine levels"]
        parts += [] if self.calibration == EVERYTHING else ["measured on prose only"]
        parts += [] if self.adapt is None else [type(self.adapt).__name__]
        return ", ".join(parts)


# the counterpart of a press, where there is one, in its authors' settings as ours are
HEURISTICS: dict[TokenHeuristic, str] = {
    heuristics.ChunkKV(): "ChunkKV (SnapKV)",
    heuristics.CriticalKV(): "CriticalKV (SnapKV)",
    heuristics.ExpectedAttention(): "ExpectedAttention",
    heuristics.GlobalLocal(): "",
    heuristics.HeavyHitter(): "ObservedAttention (H2O)",
    heuristics.KeyDiff(): "KeyDiff",
    heuristics.KeyNorm(): "Knorm",
    heuristics.KVZip(): "KVzip",
    heuristics.LagKV(): "LagKV",
    heuristics.Leverage(): "LeverageScore",
    heuristics.NonCausalAttention(): "NonCausalAttention",
    heuristics.ObservationWindow(): "SnapKV",
    heuristics.RandomOrder(): "Random",
    heuristics.RKV(): "",
    heuristics.SinkRecent(): "StreamingLLM",
    heuristics.Tova(): "TOVA",
    heuristics.ZipCache(): "",
}
FINE = tuple(
    Arm(each, levels=FINE_LEVELS)
    for each in (
        heuristics.GlobalLocal(),
        heuristics.HeavyHitter(),
        heuristics.KeyDiff(),
        heuristics.KVZip(),
        heuristics.NonCausalAttention(),
    )
)
SOLVED = tuple(Arm(each) for each in HEURISTICS) + FINE
# reading the prompt twice costs as much again, so those that do not are a class of their own
READ_ONCE = tuple(arm for arm in SOLVED if not isinstance(arm.heuristic, heuristics.KVZip))
DIVIDED = (heuristics.KeyDiff(), heuristics.ObservationWindow())
OTHER_DIVISIONS = tuple(
    arm
    for each in DIVIDED
    for arm in (
        Arm(each, Uniform()),
        Arm(each, PyramidKV()),
        Arm(each, Uniform(), adapt=WithinLayer(trust=1.0)),
        Arm(each, adapt=Global()),
        Arm(each, calibration=PROSE),
    )
)
ARMS = (*SOLVED, Arm(heuristics.KVZip(), Uniform()), *OTHER_DIVISIONS)
