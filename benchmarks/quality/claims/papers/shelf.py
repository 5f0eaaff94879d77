"""Arms that more than one claim needs."""

from ..arms import Arm
from ..divisions import Division, Equal, Solved
from ..tokens import Tokens


def by(tokens: Tokens, named: str, division: Division, kept: int) -> Arm:
    """By a division of this name."""
    return Arm(tokens, named, division, kept)


def equal(tokens: Tokens, kept: int) -> Arm:
    """Equal shares for every cache."""
    return Arm(tokens, "equal shares", Equal(), kept)


def ours(tokens: Tokens, kept: int) -> Arm:
    """Solved by Hull for the measured divergence of these tokens."""
    return Arm(tokens, "solved for divergence", Solved(), kept)
