"""A2SF: accumulated attention that forgets is fairer to new tokens."""

from ..claim import Beats, Claim
from ..kinds import KNOWN, UNKNOWN, WRITING
from ..tokens import A2SF_LEAST, A2SF_MOST, H2O, H2O_WITH_WINDOW
from .shelf import equal, ours

OWN = (*KNOWN, WRITING)
LEAST, MOST = equal(A2SF_LEAST, 30), equal(A2SF_MOST, 30)
RIVAL, PLAIN = equal(H2O_WITH_WINDOW, 30), equal(H2O, 30)

CLAIM = Claim(
    paper="A2SF",
    title=(
        "Jo and Shin, A2SF: Accumulative Attention Scoring with Forgetting Factor for Token "
        "Pruning in Transformer Decoder, 2024"
    ),
    link="https://arxiv.org/abs/2407.20485",
    says=(
        "A sum of attention favours old tokens, which more queries have seen. If earlier "
        "attention fades with every query, better tokens are kept than with H2O's plain sum; the "
        "tasks gain up to 7.8 points."
    ),
    tried=(
        "Equal shares of 30 %. Forgetting factors of 0.1 and 0.5, the ends of the range from which "
        "the authors choose for each task. Their setting: question at the end of the prompt, and "
        "text that is cut again every 16 tokens. Half of H2O's kept tokens are the newest, as its "
        "authors have it; besides, without that window, and with the question unknown."
    ),
    arms=(
        (RIVAL, OWN),
        (PLAIN, (*OWN, *UNKNOWN)),
        (LEAST, OWN),
        (MOST, (*OWN, *UNKNOWN)),
        (ours(A2SF_MOST, 30), OWN),
    ),
    tests=(
        Beats(LEAST, RIVAL, KNOWN, "question known"),
        Beats(MOST, RIVAL, KNOWN, "question known"),
        Beats(LEAST, RIVAL, (WRITING,), "text cut while writing"),
        Beats(MOST, RIVAL, (WRITING,), "text cut while writing"),
    ),
    beside=(
        Beats(MOST, PLAIN, KNOWN, "question known, H2O without its window"),
        Beats(MOST, PLAIN, (WRITING,), "text cut while writing, H2O without its window"),
        Beats(MOST, PLAIN, UNKNOWN, "question unknown, H2O without its window"),
    ),
    ours=Beats(ours(A2SF_MOST, 30), MOST, OWN, "authors' setting, 30 % kept"),
    short="better than H2O with its window, not than H2O without",
    why=(
        "Forgetting does better than H2O with its window where a question is asked, and with a "
        "factor of 0.5 where text is written, though hardly more answers are right. With 0.1 "
        "text is no better; the authors choose the factor for each task, and so chosen both "
        "settings would hold. Against H2O without its window nothing is gained where a question "
        "is asked: there it is the window that costs H2O half of its places, more than its "
        "liking for old tokens."
    ),
    untested="Zero-shot and one-shot tasks of OPT and LLaMA.",
)
