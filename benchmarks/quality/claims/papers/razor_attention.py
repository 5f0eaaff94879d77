"""RazorAttention: retrieval heads whole, all others short."""

from kvbudget import solvers
from kvbudget.heuristics import RetrievalHeads

from ..arms import Arm
from ..claim import Beats, Claim, Holds
from ..divisions import ByRule
from ..kinds import LOOKUPS, NEEDLES, UNKNOWN
from ..tokens import H2O, STREAMING
from .shelf import by, equal, ours


def razor(kept: int) -> Arm:
    """Retrieval heads found by repeated random tokens stay whole."""
    return by(STREAMING, "RazorAttention", ByRule(solvers.RazorAttention, RetrievalHeads()), kept)


CLAIM = Claim(
    paper="RazorAttention",
    title=(
        "Tang et al., RazorAttention: Efficient KV Cache Compression Through Retrieval Heads, ICLR "
        "2025"
    ),
    link="https://arxiv.org/abs/2407.15891",
    says=(
        "A few heads look things up and the others look at what is near. With the former whole "
        "and the latter short, 30 % of the memory does without noticeable loss, better than "
        "StreamingLLM and H2O with the same memory."
    ),
    tried=(
        "Retrieval heads by repeated random tokens, first and newest tokens in all other caches, a "
        "fifth of the context each; as many caches whole as 30 or 35 % allow. Question unknown. "
        "Without the token that stands in for those dropped."
    ),
    arms=(
        (equal(STREAMING, 30), UNKNOWN),
        (equal(H2O, 30), UNKNOWN),
        (razor(30), UNKNOWN),
        (razor(35), UNKNOWN),
        (ours(STREAMING, 30), UNKNOWN),
    ),
    tests=(
        Beats(razor(30), equal(STREAMING, 30), UNKNOWN, "30 % kept"),
        Beats(razor(30), equal(H2O, 30), UNKNOWN, "30 % kept"),
        Holds(razor(30), UNKNOWN, "30 % kept"),
    ),
    beside=(Holds(razor(35), (NEEDLES, LOOKUPS), "35 % kept"),),
    ours=Beats(ours(STREAMING, 30), razor(30), UNKNOWN, "30 % kept"),
    short="one retrieval head does nearly all of the finding",
    why=(
        "The probe with repeated random tokens finds the one cache that does nearly all of the "
        "looking up, and the rule keeps it whole. The model was trained to look things up, so "
        "this is the paper's premise at its purest. The solved division loses less still, "
        "because the other caches differ too."
    ),
    untested="The compensation token, ALiBi models, and contexts of 4000 tokens and more.",
)
