"""CORM: what no recent query looked at can go, without any budget."""

from ..arms import Arm
from ..claim import Beats, Claim, Holds
from ..divisions import Demanded
from ..kinds import KNOWN, UNKNOWN, WRITING
from ..tokens import CORM, H2O, H2O_WITH_WINDOW, STREAMING
from .shelf import by, equal, ours

OWN = (*KNOWN, WRITING)


def demanded(window: int) -> Arm:
    """What the rule keeps by itself."""
    return by(CORM, f"own demand, window {window}", Demanded(window), 0)


CLAIM = Claim(
    paper="CORM",
    title=(
        "Dai et al., CORM: Cache Optimization with Recent Message for Large Language Model "
        "Inference, 2024"
    ),
    link="https://arxiv.org/abs/2404.15949",
    says=(
        "Queries close to each other look at the same tokens, so a token that none of the last "
        "queries gave its even share can go. This needs no budget and saves up to 70 % with "
        "negligible loss."
    ),
    tried=(
        "The rule's own demand with windows of 64 queries, a share of the context like the "
        "authors', and of 256, their number; each cache keeps what it demands of this prompt. "
        "The authors' setting: question known, and text that is cut again every 16 tokens within "
        "the size that the prompt demanded. The rule as an order of tokens, at equal shares of "
        "30 %, against StreamingLLM's and H2O's, half of which are the newest."
    ),
    arms=(
        (demanded(64), OWN),
        (demanded(256), OWN),
        (equal(CORM, 30), (*OWN, *UNKNOWN)),
        (equal(STREAMING, 30), (*OWN, *UNKNOWN)),
        (equal(H2O_WITH_WINDOW, 30), OWN),
        (equal(H2O, 30), UNKNOWN),
        (ours(CORM, 30), OWN),
    ),
    tests=(
        Holds(demanded(64), OWN, "authors' setting, window 64"),
        Beats(equal(CORM, 30), equal(STREAMING, 30), KNOWN, "question known, 30 % kept"),
        Beats(equal(CORM, 30), equal(H2O_WITH_WINDOW, 30), KNOWN, "question known, 30 % kept"),
        Beats(
            equal(CORM, 30), equal(STREAMING, 30), (WRITING,), "text cut while writing, 30 % kept"
        ),
        Beats(
            equal(CORM, 30),
            equal(H2O_WITH_WINDOW, 30),
            (WRITING,),
            "text cut while writing, 30 % kept",
        ),
    ),
    beside=(
        Holds(demanded(256), OWN, "authors' setting, window 256"),
        Beats(equal(CORM, 30), equal(H2O, 30), UNKNOWN, "question unknown, 30 % kept"),
    ),
    ours=Beats(ours(CORM, 30), equal(CORM, 30), OWN, "authors' setting, 30 % kept"),
    short="holds for text, not for answers",
    why=(
        "For text the claim shows: with a window of 64 the rule demands about a third of "
        "the memory, the text becomes less than 5 % less likely, and at equal bytes its order of "
        "tokens is the best of the three. It fails where a question asks for a number: digits "
        "behind the first, which no recent query has looked at, are dropped. SnapKV, which sees "
        "the same queries, keeps them once it pools over 15 tokens ([KVzip](#kvzip)); CORM pools "
        "nothing."
    ),
    untested="LongBench scores of LLaMA-2-7B-Chat and Vicuna-7B.",
)
