"""SqueezeAttention: layers whose attention changes little can give memory to the others."""

from kvbudget.allocator.constraints import EqualInLayer

from ..arms import Arm
from ..claim import Beats, Claim
from ..divisions import Solved, SqueezedPerPrompt
from ..kinds import UNKNOWN
from ..tokens import H2O, STREAMING, Tokens
from .shelf import by, equal, ours


def squeezed(tokens: Tokens, kept: int) -> Arm:
    """Layer shares made anew for each prompt."""
    return by(tokens, "SqueezeAttention", SqueezedPerPrompt(), kept)


BEST_LAYERS = by(STREAMING, "solved, layers even", Solved(constraints=(EqualInLayer(),)), 30)

CLAIM = Claim(
    paper="SqueezeAttention",
    title=(
        "Wang et al., SqueezeAttention: 2D Management of KV-Cache in LLM Inference via Layer-wise "
        "Optimal Budget, 2024"
    ),
    link="https://arxiv.org/abs/2404.04793",
    says=(
        "Layers whose attention hardly turns the residual stream need little cache. Moving their "
        "memory to the other layers beats equal shares with the same tokens, so that 30 to 70 % "
        "less memory does."
    ),
    tried=(
        "As published: the layers are weighed and clustered anew for each prompt, those of least "
        "importance get 0.35 of an equal share. StreamingLLM's and H2O's tokens, 30 %, the "
        "former at 20 % too; question unknown. Beside it stands what the best division with even "
        "layers can do."
    ),
    arms=(
        (equal(STREAMING, 30), UNKNOWN),
        (squeezed(STREAMING, 30), UNKNOWN),
        (BEST_LAYERS, UNKNOWN),
        (ours(STREAMING, 30), UNKNOWN),
        (equal(STREAMING, 20), UNKNOWN),
        (squeezed(STREAMING, 20), UNKNOWN),
        (equal(H2O, 30), UNKNOWN),
        (squeezed(H2O, 30), UNKNOWN),
        (ours(H2O, 30), UNKNOWN),
    ),
    tests=(
        Beats(squeezed(STREAMING, 30), equal(STREAMING, 30), UNKNOWN, "30 % kept"),
        Beats(squeezed(STREAMING, 20), equal(STREAMING, 20), UNKNOWN, "20 % kept"),
        Beats(squeezed(H2O, 30), equal(H2O, 30), UNKNOWN, "30 % kept"),
    ),
    beside=(
        Beats(BEST_LAYERS, equal(STREAMING, 30), UNKNOWN, "30 % kept, solved for whole layers"),
        Beats(
            ours(STREAMING, 30), BEST_LAYERS, UNKNOWN, "30 % kept, solved for caches against layers"
        ),
    ),
    ours=Beats(ours(STREAMING, 30), squeezed(STREAMING, 30), UNKNOWN, "30 % kept"),
    short="layers differ, but the residual stream points at the wrong ones",
    why=(
        "The opposite shows. Attention of the first layer turns the residual stream ten times "
        "more than that of the fifth, which finds the facts, so the rule takes memory from where "
        "it is needed. Layers do differ as the paper says: the best division with even layers, "
        "at the same bytes, gives nearly all answers that the full cache gives. It is the signal "
        "that fails, perhaps because there are only six layers and the first is the one that "
        "fills the stream."
    ),
    untested="Throughput, and models of 32 layers and more.",
)
