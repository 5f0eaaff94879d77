"""PyramidKV: the first layers need more than the last ones."""

from kvbudget import solvers

from ..arms import Arm
from ..claim import Beats, Claim, Holds
from ..divisions import Solved
from ..kinds import KNOWN, UNKNOWN
from ..tokens import SNAPKV, SNAPKV_WIDE, Tokens
from .shelf import by, equal, ours


def pyramid(kept: int, tokens: Tokens = SNAPKV) -> Arm:
    """The published slope."""
    return by(tokens, "PyramidKV", Solved(solvers.PyramidKV()), kept)


CLAIM = Claim(
    paper="PyramidKV",
    title=(
        "Cai et al., PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information "
        "Funneling, 2024"
    ),
    link="https://arxiv.org/abs/2406.02069",
    says=(
        "Attention spreads in the first layers and narrows in the last. A fixed slope, much for "
        "the first and little for the last, beats equal layers where memory is very small, and "
        "matches the full cache at 12 %."
    ),
    tried=(
        "SnapKV's tokens (32 queries, pooling over 7), at 12 and 6 % of the context, slope 20 as "
        "published. The authors' setting is the question known; unknown besides, at 12 %, and "
        "pooling over 15 tokens, because numbers have a token for each digit here."
    ),
    arms=(
        (equal(SNAPKV, 12), (*KNOWN, *UNKNOWN)),
        (pyramid(12), (*KNOWN, *UNKNOWN)),
        (ours(SNAPKV, 12), (*KNOWN, *UNKNOWN)),
        (equal(SNAPKV, 6), KNOWN),
        (pyramid(6), KNOWN),
        (ours(SNAPKV, 6), KNOWN),
        (equal(SNAPKV_WIDE, 12), KNOWN),
        (pyramid(12, SNAPKV_WIDE), KNOWN),
    ),
    tests=(
        Beats(pyramid(12), equal(SNAPKV, 12), KNOWN, "question known, 12 % kept"),
        Beats(pyramid(6), equal(SNAPKV, 6), KNOWN, "question known, 6 % kept"),
        Holds(pyramid(12), KNOWN, "question known, 12 % kept"),
    ),
    beside=(
        Beats(
            pyramid(12, SNAPKV_WIDE),
            equal(SNAPKV_WIDE, 12),
            KNOWN,
            "question known, 12 % kept, wider pooling",
        ),
        Beats(pyramid(12), equal(SNAPKV, 12), UNKNOWN, "question unknown, 12 % kept"),
        Beats(ours(SNAPKV, 12), equal(SNAPKV, 12), KNOWN, "question known, 12 % kept, solved"),
        Beats(ours(SNAPKV, 12), pyramid(12), UNKNOWN, "question unknown, 12 % kept, solved"),
    ),
    ours=Beats(ours(SNAPKV, 12), pyramid(12), KNOWN, "question known, 12 % kept"),
    short="the layer that finds facts is one of the last",
    why=(
        "The slope takes from the last layers, and here the fifth of six finds the facts: with "
        "12 % kept it has less than an equal share, and loses in every setting. At 6 % both "
        "divisions have lost nearly all answers. Pooled over 15 tokens equal shares answer most "
        "questions at 12 %, the slope fewer, and the division solved for the published tokens "
        "answers all of them."
    ),
    untested="LongBench, caches of 0.7 % (here 5 tokens, fewer than every cache keeps anyway).",
)
