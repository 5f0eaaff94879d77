"""BaKlaVa: a budget for each cache beats equal ones and budgets for layers."""

from functools import partial

from kvbudget import solvers
from kvbudget.heuristics import Baklava, ResidualChange
from kvbudget.heuristics.caches.baklava import HeadWeight

from ..claim import Beats, Claim, Holds
from ..divisions import ByRule
from ..kinds import LOOKUPS, NEEDLES, UNKNOWN
from ..tokens import STREAMING
from .shelf import by, equal, ours

_PLAIN = ByRule(solvers.BaKlaVa, Baklava())
_WEIGHTED = ByRule(solvers.BaKlaVa, Baklava(head_weight=HeadWeight.OUTPUT_NORM))
_LAYERS = ByRule(solvers.SqueezeAttention, ResidualChange())
searched = partial(by, STREAMING, "BaKlaVa", _PLAIN)
weighted = partial(by, STREAMING, "BaKlaVa with weighted heads", _WEIGHTED)
layers = partial(by, STREAMING, "SqueezeAttention once", _LAYERS)

CLAIM = Claim(
    paper="BaKlaVa",
    title=(
        "Gulhan et al., BaKlaVa -- Budgeted Allocation of KV cache for Long-context Inference, 2025"
    ),
    link="https://arxiv.org/abs/2502.13176",
    says=(
        "Caches differ in importance. A budget of its own for each, from one profiling of how far "
        "heads turn their input and a search scored by perplexity, keeps the quality at 30 % of "
        "the memory and beats StreamingLLM's equal budgets and SqueezeAttention's layer budgets "
        "clearly, the more the less memory there is."
    ),
    tried=(
        "StreamingLLM's tokens for all, at 30 and 15 % of the context. The authors' formula was "
        "not to be had in full, so the importance is a reconstruction: the cosine of a head's "
        "value and output, times that of the layer. The search is over how many caches shrink "
        "and how far, scored by the measured divergence on calibration prompts instead of "
        "perplexity."
    ),
    arms=tuple(
        (make(kept), UNKNOWN)
        for kept in (30, 15)
        for make in (
            partial(equal, STREAMING),
            layers,
            searched,
            weighted,
            partial(ours, STREAMING),
        )
    ),
    tests=(
        Beats(searched(30), equal(STREAMING, 30), UNKNOWN, "30 % kept"),
        Beats(searched(30), layers(30), UNKNOWN, "30 % kept"),
        Beats(searched(15), equal(STREAMING, 15), UNKNOWN, "15 % kept"),
        Beats(searched(15), layers(15), UNKNOWN, "15 % kept"),
        Holds(searched(30), UNKNOWN, "30 % kept"),
    ),
    beside=(
        Beats(
            weighted(30),
            equal(STREAMING, 30),
            UNKNOWN,
            "30 % kept, heads weighted by what they write",
        ),
        Holds(ours(STREAMING, 30), (NEEDLES, LOOKUPS), "30 % kept, solved"),
    ),
    ours=Beats(ours(STREAMING, 30), searched(30), UNKNOWN, "30 % kept"),
    short="budgets for caches help, but the cosines point at the wrong layer",
    why=(
        "Budgets for caches beat layer budgets at both sizes and equal ones at 30 %, but the "
        "quality is not held. Nearly all that memory can save here lies in one cache of the "
        "fifth layer, which finds the facts; the cosines rate the first layer's caches ten times "
        "higher, because attention turns the residual stream most where there is little in it "
        "yet. The search, which sees true losses, mends a part of that. Divided by those losses "
        "themselves, the same tokens hold the quality at the same bytes: a budget for each cache "
        "is worth what the paper says, but this signal does not find it here."
    ),
    untested="LongBench scores of LLaMA-3-8B and Qwen2.5-7B, and the authors' own formula.",
)
