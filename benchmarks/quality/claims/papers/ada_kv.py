"""AdaKV: heads of a layer that compete for its memory lose less than equal heads."""

from kvbudget import WithinLayer

from ..arms import Arm
from ..claim import Beats, Claim
from ..divisions import Equal
from ..kinds import KNOWN, UNKNOWN
from ..tokens import SNAPKV, SNAPKV_WIDE, Tokens
from .shelf import by, equal, ours


def ada(kept: int, tokens: Tokens = SNAPKV) -> Arm:
    """The top tokens of each layer for each prompt, with the authors' safeguard."""
    return by(tokens, "AdaKV", Equal(WithinLayer(trust=1.0)), kept)


CLAIM = Claim(
    paper="AdaKV",
    title=(
        "Feng et al., Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for "
        "Efficient LLM Inference, NeurIPS 2025"
    ),
    link="https://arxiv.org/abs/2407.11550",
    says=(
        "Keeping the top tokens of all heads of a layer together, so that heads get unequal shares "
        "prompt by prompt, beats equal heads with the same tokens, question known or not."
    ),
    tried=(
        "SnapKV's tokens, each layer the same bytes, 12 and 25 %; every head keeps at least 0.2 of "
        "an equal share. The safeguard is a lower limit here, not a mixture."
    ),
    arms=(
        (equal(SNAPKV, 12), (*KNOWN, *UNKNOWN)),
        (ada(12), (*KNOWN, *UNKNOWN)),
        (ours(SNAPKV, 12), (*KNOWN, *UNKNOWN)),
        (equal(SNAPKV, 25), (*KNOWN, *UNKNOWN)),
        (ada(25), (*KNOWN, *UNKNOWN)),
        (ours(SNAPKV, 25), (*KNOWN, *UNKNOWN)),
        (equal(SNAPKV_WIDE, 12), KNOWN),
        (ada(12, SNAPKV_WIDE), KNOWN),
    ),
    tests=tuple(
        Beats(ada(kept), equal(SNAPKV, kept), kinds, f"question {word}, {kept} % kept")
        for kept in (12, 25)
        for word, kinds in (("known", KNOWN), ("unknown", UNKNOWN))
    ),
    beside=(
        Beats(
            ada(12, SNAPKV_WIDE),
            equal(SNAPKV_WIDE, 12),
            KNOWN,
            "question known, 12 % kept, pooling over 15",
        ),
        Beats(ours(SNAPKV, 12), ada(12), KNOWN, "question known, 12 % kept, solved"),
    ),
    ours=Beats(ours(SNAPKV, 12), ada(12), UNKNOWN, "question unknown, 12 % kept"),
    short="heads that compete win, most where memory is scarce",
    why=(
        "Inside the layer that finds the facts the head that does it wins memory from the "
        "others, so the direction shows, most where there is little memory. With the question "
        "known and 25 % kept the division makes no difference: pooled over 7 tokens, the last "
        "digits of a long answer get no score, and no division keeps what has none. With 15 "
        "tokens the gain at 12 % is large. What is left to the solved division is that layers "
        "differ too."
    ),
    untested="LongBench and Ruler scores of 7 to 8 billion parameters.",
)
