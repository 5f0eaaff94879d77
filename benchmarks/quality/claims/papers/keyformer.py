"""Keyformer: noise and a temperature choose better tokens than accumulated attention."""

from ..claim import Beats, Claim, Holds
from ..kinds import KNOWN, UNKNOWN, WRITING
from ..tokens import (
    H2O,
    H2O_SHORT_WINDOW,
    H2O_WITH_WINDOW,
    KEYFORMER,
    KEYFORMER_WITH_WINDOW,
    STREAMING,
)
from .shelf import equal, ours

KEPT = 50
OWN = (*KNOWN, WRITING)
WINDOW = equal(STREAMING, KEPT)
SAME_WINDOW = equal(H2O_SHORT_WINDOW, KEPT)
THEIRS, RIVAL = equal(KEYFORMER_WITH_WINDOW, KEPT), equal(H2O_WITH_WINDOW, KEPT)

CLAIM = Claim(
    paper="Keyformer",
    title=(
        "Adnan et al., Keyformer: KV Cache Reduction through Key Tokens Selection for Efficient "
        "Generative Inference, MLSys 2024"
    ),
    link="https://arxiv.org/abs/2403.09054",
    says=(
        "With half of the prompt's cache, tokens that gather attention under Gumbel noise and a "
        "rising temperature keep the quality of summaries and conversations, better than H2O's "
        "tokens and much better than a window of the newest ones."
    ),
    tried=(
        "Equal shares of 50 %. The authors' setting: question known, and text that is cut again "
        "every 16 tokens while it is written; 30 % of Keyformer's kept tokens and half of H2O's "
        "are the newest. Besides, both as they are (16 newest tokens) with the question unknown. "
        "The window is StreamingLLM's, with 4 first tokens, which a plain window lacks; query "
        "heads that share a cache are averaged, which the authors' models never have to."
    ),
    arms=(
        (WINDOW, (*UNKNOWN, *OWN)),
        (RIVAL, OWN),
        (THEIRS, OWN),
        (SAME_WINDOW, OWN),
        (equal(H2O, KEPT), UNKNOWN),
        (equal(KEYFORMER, KEPT), UNKNOWN),
        (ours(KEYFORMER, KEPT), UNKNOWN),
    ),
    tests=(
        Beats(THEIRS, WINDOW, KNOWN, "question known"),
        Beats(THEIRS, RIVAL, KNOWN, "question known"),
        Beats(THEIRS, WINDOW, (WRITING,), "text cut while writing"),
        Beats(THEIRS, RIVAL, (WRITING,), "text cut while writing"),
        Holds(THEIRS, OWN, "authors' setting"),
    ),
    beside=(
        Beats(THEIRS, SAME_WINDOW, KNOWN, "question known, equal windows"),
        Beats(THEIRS, SAME_WINDOW, (WRITING,), "text cut while writing, equal windows"),
        Beats(equal(KEYFORMER, KEPT), equal(H2O, KEPT), UNKNOWN, "question unknown"),
        Beats(equal(KEYFORMER, KEPT), WINDOW, UNKNOWN, "question unknown"),
    ),
    ours=Beats(ours(KEYFORMER, KEPT), equal(KEYFORMER, KEPT), UNKNOWN, "question unknown"),
    short="noise changes next to nothing; the window decides",
    why=(
        "Noise and temperature change next to nothing: with windows of equal size Keyformer's "
        "tokens lose what H2O's lose, to within about 1 %, in every setting. That is what theory "
        "lets one expect, for over hundreds of queries the noise averages out, and what is left "
        "is a softmax that is a little flatter. What tells the two apart with the authors' own "
        "numbers is the window: text here lives on its newest tokens, and Keyformer keeps fewer "
        "of them. Against a window alone gathered attention helps where a question is asked, "
        "though not to more right answers. None of them holds the answers at equal shares of "
        "half the memory."
    ),
    untested="ROUGE scores of GPT-J, Cerebras-GPT and MPT; latency and throughput.",
)
