"""Selection of the largest scores in Triton: radix select, one program for each row.

Scores become whole numbers that rise with them. Four passes over a row fix the number of its
`count`-th largest score, eight bits each, from a histogram of those that agree in the bits above;
a fifth marks what is larger, and of what is equal the first ones. Rows are not divided
among programs: five passes over the scores are next to nothing beside the attention that as many
tokens have been through.

Reference:
    Alabi, Blanchard, Gordon, Steinbach, "Fast k-selection algorithms for graphics processing
    units", ACM Journal of Experimental Algorithmics, 2012 (radix select).
    https://doi.org/10.1145/2133803.2345676
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launches import Program, launch_for


def select_top(scores: Tensor, counts: Tensor) -> Tensor:
    """Do what the package's `select_top` documents; arguments are not checked again."""
    rows, tokens = scores.shape
    marks = torch.empty(rows, tokens, dtype=torch.uint8, device=scores.device)
    if not scores.numel():
        return marks.bool()
    launch = launch_for(Program.SELECT, scores.device)
    with torch.cuda.device_of(scores):
        select_kernel[(rows,)](
            *(scores.contiguous(), counts.contiguous(), marks, tokens),
            BLOCK_TOKENS=launch.tokens,
            **launch.options,
        )
    return marks.view(torch.bool)


@triton.jit
def _load_ordered(scores, o_n, n_ok):
    """Scores as unsigned numbers that rise with them; -0.0 becomes 0.0."""
    b_x = tl.load(scores + o_n, mask=n_ok, other=0)
    if b_x.dtype == tl.float32:
        b_x = b_x.to(tl.int32, bitcast=True)
        b_x = tl.where(b_x == -2147483648, 0, b_x)
        # the more negative a float, the larger its other bits
        b_x = tl.where(b_x < 0, b_x ^ 0x7FFFFFFF, b_x)
    return (b_x ^ -2147483648).to(tl.uint32, bitcast=True)


@triton.jit(do_not_specialize=("tokens",))
def select_kernel(scores, counts, marks, tokens, BLOCK_TOKENS: tl.constexpr):
    """Mark the largest scores of one row; grid (rows,)."""
    i_r = tl.program_id(0)
    p_scores = scores + i_r.to(tl.int64) * tokens
    p_marks = marks + i_r.to(tl.int64) * tokens
    count = tl.minimum(tl.load(counts + i_r), tokens).to(tl.int32)
    # bits of the border found so far, and how many of what agrees with them are wanted
    border = tl.full([], 0, tl.uint32)
    wanted = count
    for i_pass in tl.static_range(4):
        b_bins = tl.zeros([256], tl.int32)
        for first in range(0, tokens, BLOCK_TOKENS):
            o_n = first + tl.arange(0, BLOCK_TOKENS)
            n_ok = o_n < tokens
            b_x = _load_ordered(p_scores, o_n, n_ok)
            agrees = n_ok
            if i_pass > 0:
                agrees = n_ok & (b_x >> (32 - 8 * i_pass) == border)
            b_digit = (b_x >> (24 - 8 * i_pass)) & 255
            b_bins += tl.histogram(b_digit.to(tl.int32), 256, mask=agrees)
        b_above = tl.sum(b_bins, 0) - tl.cumsum(b_bins, 0)
        hit = (b_above < wanted) & (b_above + b_bins >= wanted)
        digit = tl.sum(tl.where(hit, tl.arange(0, 256), 0), 0)
        wanted -= tl.sum(tl.where(hit, b_above, 0), 0)
        border = (border << 8) | digit.to(tl.uint32)
    equals = 0
    for first in range(0, tokens, BLOCK_TOKENS):
        o_n = first + tl.arange(0, BLOCK_TOKENS)
        n_ok = o_n < tokens
        b_x = _load_ordered(p_scores, o_n, n_ok)
        # what is behind the row comes last, and takes nobody's place
        equal = (b_x == border).to(tl.int32)
        b_place = equals + tl.cumsum(equal, 0)
        marked = (b_x > border) | ((equal > 0) & (b_place <= wanted))
        # no histogram has a border above everything
        marked = tl.where(count > 0, marked, False)
        tl.store(p_marks + o_n, marked.to(tl.uint8), mask=n_ok)
        equals += tl.sum(equal, 0)
