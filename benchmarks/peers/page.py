"""Write docs/comparison.md and its pictures from the rows of a run.

    python -m benchmarks.peers.page FOLDER      # rows from the journals of a run, then the page
    python -m benchmarks.peers.page             # the page alone, from the rows

Nothing on the page is written by hand but the sentences in this file.
"""

import argparse
import json
from pathlib import Path

from benchmarks.peers import plots, tables
from benchmarks.peers.attempt import FULL_CACHE
from benchmarks.peers.cells import KVPRESS, OURS, Cost, read_cells, summarise, write_cells
from benchmarks.peers.findings import ENOUGH, Findings
from benchmarks.peers.journal import VERSIONS
from benchmarks.peers.not_run import NOT_RUN
from benchmarks.peers.shares import NEEDLES, SHARES
from benchmarks.peers.tables import LOOKUPS, number, percent
from benchmarks.peers.trial import CONTEXT_TOKENS, FUTURE_TOKENS

ROWS = "peers.jsonl"
SAME = 1.1
DIVERGENCE_PICTURE, NEEDLES_PICTURE = "comparison-divergence.png", "comparison-needles.png"


def page(found: Findings, costs: list[Cost], versions: dict[str, str]) -> str:
    """The whole page, as Markdown."""
    sections = [
        opening(found, versions),
        short_answer(found),
        bytes_needed(found),
        where_not(found),
        apart(found),
        all_presses(found),
        all_of_ours(found),
        time_and_memory(costs),
        how(found),
        not_run(),
    ]
    return "\n".join(line for section in sections for line in section).rstrip() + "\n"


def opening(found: Findings, versions: dict[str, str]) -> list[str]:
    """What this is."""
    presses = len(found.names(KVPRESS))
    return [
        "# Compared with kvpress",
        "",
        "<!-- written by `benchmarks/peers/run`; do not edit -->",
        "",
        f"[kvpress](https://github.com/NVIDIA/kvpress) {versions.get('kvpress', '')} is the "
        f"library that papers on key/value caches compare with. Here {presses} of its presses and "
        "this package read the same token ids with the same weights, and one function scores both. "
        f"The model is the one that comes with this package, contexts have {CONTEXT_TOKENS} "
        f"tokens, and a context is cut before anybody knows the {FUTURE_TOKENS} tokens that "
        "follow: four kinds of them, "
        + ", ".join(found.kinds())
        + ". One command repeats it all: `benchmarks/peers/run`.",
        "",
        "Read the figures as a comparison of methods on one small model that was trained to find "
        "facts and whose caches differ much; a model whose caches are more alike gains less from "
        "dividing memory unequally.",
        "",
    ]


def short_answer(found: Findings) -> list[str]:
    """The best of each class at each share."""
    lines = ["## In short", ""]
    for kept in SHARES:
        lines.append(_sentence(found, kept))
    picture = f"![Divergence from the full cache over the share kept]({DIVERGENCE_PICTURE})"
    return [
        *lines,
        "",
        *tables.headline(found),
        "The best of each class: presses that free what they drop and read the context once, "
        "those that free and may read it twice, those that only mask; ours with and without a "
        "second reading, chosen on other prompts. *Kept* is what a press is asked for, *held* what "
        "the live storages hold once the context "
        "has been read; ours are given the bytes that are asked of the presses. *Mean divergence* "
        "is the Kullback-Leibler divergence from the full cache in nats per token, over the "
        "prompts of a kind and then over the kinds; *needles* and *lookups* are exact answers "
        f"(full cache: {_full(found, NEEDLES)} and {_full(found, LOOKUPS)}).",
        "",
        picture,
        "",
        "*Each grey line is a press; dotted ones only mask what they drop and hold all of it. The "
        "best of each class at each share is drawn over them.*",
        "",
    ]


def _sentence(found: Findings, kept: float) -> str:
    ours, free = found.chosen(kept), found.best(kept, freeing=True)
    mask = found.best(kept, freeing=False)
    masked = found.mean(KVPRESS, mask, kept)
    here, there = found.mean(OURS, ours, kept), found.mean(KVPRESS, free, kept)
    return (
        f"- At {percent(kept)}: {ours} loses {number(here)} nats per token, "
        f"{_times(there, here)} {free} ({number(there)}), the best press that frees, and "
        f"{_times(masked, here)} {mask} ({number(masked)}), the best one that holds "
        "everything."
    )


def _times(other: float, here: float) -> str:
    if max(here, other) < SAME * min(here, other):
        return "about as much as"
    less = here < other
    return f"{other / here:.1f} times less than" if less else f"{here / other:.1f} times more than"


def _full(found: Findings, kind: str) -> str:
    return percent(found.exact(KVPRESS, FULL_CACHE, 1.0, kind))


def bytes_needed(found: Findings) -> list[str]:
    """Fewest bytes for the needles."""
    if not found.on_grid(KVPRESS) or not found.on_grid(OURS):
        return []
    return [
        "## Bytes needed to find the needles",
        "",
        f"To find {percent(ENOUGH)} of what the full cache finds, from that size on upwards: "
        + " ".join(_least(found, barred) for barred in (False, True)),
        "",
        f"![Needles found over bytes held]({NEEDLES_PICTURE})",
        "",
        *tables.fewest(found),
        "The presses are those that found most needles at the four main shares, on these same "
        "prompts; ours are the plans chosen on other prompts.",
        "",
    ]


def _least(found: Findings, read_once: bool) -> str:
    names = {
        side: [n for n in found.on_grid(side) if not (read_once and found.reads_twice(n))]
        for side in (KVPRESS, OURS)
    }
    press, ours = names[KVPRESS][0], names[OURS][0]
    there, here = found.fewest_bytes(KVPRESS, press), found.fewest_bytes(OURS, ours)
    among = "Of those that read the context once, " if read_once else ""
    return (
        f"{among}{ours} needs {100 * here:.1f} % of the full cache's bytes, and {press}, the best "
        f"press that frees memory, {100 * there:.1f} %: {there / here:.1f} times as many."
    )


def where_not(found: Findings) -> list[str]:
    """Presses that lose less than the chosen plan, kind by kind."""
    return [
        "## Where a press loses less",
        "",
        "The plan that is chosen at each share, kind by kind, against every press; masking ones "
        "hold the whole cache and are compared at the bytes they are asked for.",
        "",
        *tables.by_kind(found),
        "A plan minimises the mean loss over all kinds it was measured on, and lookups lose most: "
        "where bytes are scarcest they go to the caches that look up, and needles and prose are "
        "given what is left. The presses that lose less there read the context twice and divide "
        "over all caches, or over layers, anew for each prompt, so that tasks need not share.",
        "",
    ]


def apart(found: Findings) -> list[str]:
    """Scoring and division told apart."""
    return [
        "## Scoring and division told apart",
        "",
        "The same token heuristic as a press, in this package with equal shares, and with the "
        "division solved for the measured losses. The first two differ in details (which tokens "
        "are always kept, windows, pooling); the step from the second to the third is the "
        "division alone (a dash: not run). Mean divergence, nats per token.",
        "",
        *tables.told_apart(found),
    ]


def all_presses(found: Findings) -> list[str]:
    """Every press."""
    return [
        "## Every press",
        "",
        "*KL* is the mean divergence. *Held* is in percent of the full cache at each share: a "
        "press that holds 100 masks what it drops with fake keys and frees nothing. *Block* is "
        "the most tokens that could be read at a time after the context: below 256, reading more "
        "at once failed (a shape error where layers hold different lengths, or no fake key was "
        "found), so the same tokens were read in pieces of 16 or one by one, which changes "
        "nothing else. *KVCompose, unstructured* leaves both readings of a context in the cache, "
        "the second one whole, and is shown for the first prompt of each kind only.",
        "",
        *tables.everything(found, KVPRESS),
        *_errors(found),
    ]


def _errors(found: Findings) -> list[str]:
    failed = [cell for cell in found.cells if cell.side == KVPRESS and cell.errors]
    if not failed:
        return []
    lines = [
        f"- {cell.name} at {percent(cell.kept)} on {cell.kind}: {count} times `{error}`"
        for cell in failed
        for error, count in cell.errors.items()
    ]
    told = "Prompts on which a press failed even token by token are left out of its means:"
    return [told, "", *lines, ""]


def all_of_ours(found: Findings) -> list[str]:
    """Every arm."""
    chosen = "; ".join(
        f"{percent(kept)}: {found.chosen(kept)} ({found.chosen(kept, read_once=True)})"
        for kept in SHARES
    )
    return [
        "## Everything of ours",
        "",
        "Named by heuristic and division. `WithinLayer` divides each layer's bytes anew for each "
        "prompt, as AdaKV does; `Global` divides those of the whole cache, at a peak of the full "
        "cache while a prompt is read. *Measured on prose only* is the same plan whose profile has "
        "seen neither needles nor lookups. *Fine levels* are measured at 0.2, 0.5 and 1 % of the "
        "context too, where the smallest level by default is 2 %. Chosen on other prompts (in "
        f"brackets: of those that read the context once): {chosen}.",
        "",
        *tables.everything(found, OURS),
    ]


def time_and_memory(costs: list[Cost]) -> list[str]:
    """Cost columns."""
    return [
        "## Time and memory",
        "",
        "At 25 % kept, over the full cache in the same process on one thread: processor time of "
        "reading and cutting a context and of each of the 16 tokens after it, most bytes of "
        "tensors alive at once while the context is read, and bytes of all tensors alive because "
        "of it afterwards, index lists and counters among them. Times are medians of three, and "
        "good to about a fifth. On a model this small attention "
        "is hardly any of the work, so cutting it cannot make a token cheaper.",
        "",
        *tables.costs(costs),
    ]


def how(found: Findings) -> list[str]:
    """What makes it fair."""
    counts = {
        kind: len(found.of(KVPRESS, FULL_CACHE, 1.0)[kind].divergence) for kind in found.kinds()
    }
    prompts = ", ".join(f"{count} of {kind}" for kind, count in counts.items())
    return [
        "## How it was measured",
        "",
        f"- Prompts: {prompts}. Needles are six facts in prose and questions about all of them; "
        "lookups ask for values of a table of random keys. Books are held out from the model's "
        "training; nothing was fitted to the books of the test or to WikiText-2.",
        "- Presses run with their authors' defaults, as kvpress' own pipeline runs them: the "
        "context inside the press, all else outside. Wrappers are paired as in kvpress' "
        "evaluation, with SnapKV where that has no pair.",
        "- A press that is fitted to texts of the hub (ExpectedAttention with statistics, "
        "DuoAttention) was fitted, by kvpress' own code, to prose that our profiles are measured "
        "on.",
        "- Ours need a profile, presses do not: each was measured on twelve other prompts "
        "(needles, lookups, books) with other texts and seeds. What it is worth where it has not "
        "seen the kind of task is the rows *measured on prose only*, and WikiText-2.",
        "- The heuristic at each share is the one whose solved plan loses least on six more "
        "prompts; no plan was chosen on the prompts of the test. That plans with fine levels are "
        "among the candidates was decided when the first two of those prompts had been seen: the "
        "smallest of the default levels holds plans back at 5 %, and the tables show both.",
        "- An answer is exact if each of its tokens and its terminator is the likeliest behind "
        "the true tokens before it, which is so just when greedy generation gives that answer.",
        "- After the context every contender reads the same future with all of what it holds. "
        "Presses let the cache grow by it; ours are within the budget again after it.",
        "",
    ]


def not_run() -> list[str]:
    """Presses left out, with the reason."""
    lines = [f"- `{name}`: {reason}." for name, reason in sorted(NOT_RUN.items())]
    return ["## Presses that were not run", "", *lines, ""]


def read_run(rows: Path) -> tuple[Findings, list[Cost], dict[str, str]]:
    """Figures, costs, and the versions that the presses ran on."""
    cells, costs = read_cells(rows)
    first = json.loads(rows.read_text().splitlines()[0])
    return Findings(tuple(cells)), costs, first["versions"]


def main() -> None:
    """Write rows if there is a run, then pictures and page."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path, nargs="?")
    arguments.add_argument("--first", type=int, default=1000, help="so many prompts of each kind")
    arguments.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments.add_argument("--docs", type=Path, default=Path("docs"))
    chosen = arguments.parse_args()
    chosen.docs.mkdir(parents=True, exist_ok=True)
    if chosen.folder:
        versions = json.loads((chosen.folder / VERSIONS).read_text())
        write_cells(chosen.results / ROWS, *summarise(chosen.folder, chosen.first), versions)
    found, costs, versions = read_run(chosen.results / ROWS)
    described = " ".join(_sentence(found, kept).removeprefix("- ") for kept in SHARES)
    plots.save(plots.divergence(found), chosen.docs / DIVERGENCE_PICTURE, described)
    if found.on_grid(OURS):
        described = bytes_needed(found)[2]
        plots.save(plots.needles(found), chosen.docs / NEEDLES_PICTURE, described)
    (chosen.docs / "comparison.md").write_text(page(found, costs, versions))


if __name__ == "__main__":
    main()
