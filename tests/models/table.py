"""The table of all classes in docs/models.md. Run this file to write it anew."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from findings import FEWEST, MOST, TOLERANCE, Finding, Verdict, find
from reading import BLOCKS, PAD, PROMPT
from zoo import class_names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"

TEXT = f"""\
# Models

What kvbudget does with every causal language model class of transformers {{version}}. A test \
builds a tiny random model of each class and finds its verdict; nothing here is written by hand. \
`make test-models` checks this page (a sample of it is checked by every `make test`), and \
`python tests/models/table.py` writes it anew.

{{counts}}

The four verdicts:

- **exact per head**: every KV head of every layer may keep tokens of its own, in a number of its \
own.
- **exact per layer**: the model rewrites what it has stored before it attends, as latent \
attention does, so all KV heads of a layer keep the same tokens. Layers differ as they like.
- **untouched**: the model keeps no keys and values. There is nothing to cut, and \
`budgeted()` says so.
- **refused**: `budgeted()` raises `UnsupportedModel`, before any token is wrong, with the reason \
that the table gives.

What is measured: two rows of text, the second with {PAD} columns of padding on its left, a prompt \
of {PROMPT} tokens and then blocks of {", ".join(map(str, BLOCKS))}. Once with room for all, \
against plain transformers; once with {FEWEST} to {MOST - 1} tokens per cache, each cache its own \
number, against the attention of transformers itself over a cache that keeps everything, with \
those columns hidden that the budgeted cache does not hold. The table gives the largest difference \
of two logits in float32, in units of the largest logit where that is above 1; no class may exceed \
{TOLERANCE:.0e}. The bytes held never exceed the budget, and afterwards the model computes what it \
computed before, bit for bit. "Without padding" stands where transformers itself lets the tokens \
in padding columns change the others.

The words for what layers have: *full* attention; *sliding* windows or *chunked* attention; \
*states* besides or instead of keys and values; *shared*, layers that read another's keys and \
values; *rewritten* before they attend; *unequal layers*; *sinks*, a *softcap* or a *bias* on the \
logits; *attention of its own*, outside the attention interface of transformers; *special*, caches \
that hold something else besides.

## Language models

{{language}}

## Models that see pictures

Their language part; the part for pictures keeps nothing and stays as it is. Where it says so, \
the prompt was read with a picture in every row, too.

{{pictures}}
"""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    verdict: str
    kinds: str
    result: str

    def __str__(self) -> str:
        return f"| `{self.name}` | {self.verdict} | {self.kinds} | {self.result} |"


def row_of(finding: Finding) -> Row:
    """The line for a class."""
    kinds = ", ".join(finding.kinds) or "-"
    return Row(finding.name, finding.verdict.value, kinds, _result(finding))


def _result(finding: Finding) -> str:
    if finding.difference is None:
        return finding.reason.replace("|", "/")
    return ", ".join((f"{finding.difference:.0e}", *finding.notes))


def page(findings: Iterable[Finding]) -> str:
    """The whole page."""
    found = sorted(findings, key=lambda each: each.name)
    tables = [
        _table(row_of(each) for each in found if each.sees_pictures is seeing)
        for seeing in (False, True)
    ]
    return TEXT.format(
        version=transformers.__version__,
        counts=counts_line(each.verdict.value for each in found),
        language=tables[0],
        pictures=tables[1],
    )


def counts_line(verdicts: Iterable[str]) -> str:
    """How many classes have each verdict."""
    counts = Counter(verdicts)
    each = ", ".join(f"{counts[verdict.value]} {verdict.value}" for verdict in Verdict)
    return f"**{counts.total()} classes: {each}.**"


def _table(rows: Iterable[Row]) -> str:
    head = ["| class | verdict | its layers | largest difference, or reason |"]
    return "\n".join([*head, "|---|---|---|---|", *map(str, rows)])


def rows_in(text: str) -> list[Row]:
    """The lines of a page, in order."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [Row(name.strip("`"), *rest) for name, *rest in cells]


def main() -> None:
    """Find the verdict of every class and write the page; write nothing if one cannot be found."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    found, failed, began = [], [], time.monotonic()
    for name in class_names():
        try:
            found.append(find(name))
            print(row_of(found[-1]), flush=True)
        except Exception:
            failed.append(name)
            traceback.print_exc()
    if failed:
        sys.exit(f"No verdict for {', '.join(failed)}.")
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"{PAGE}: {len(found)} classes in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
