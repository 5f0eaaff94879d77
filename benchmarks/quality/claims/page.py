"""The page: a table of all claims, then each with its figures."""

from collections.abc import Iterator, Mapping, Sequence

from .arms import Arm
from .claim import Claim, Records, Test, figures
from .kinds import KINDS, TEXT_KINDS
from .record import FULL, Record

COMMAND = "python -m benchmarks.quality.claims --write docs/claims.md"


def page(claims: Sequence[Claim], records: Records, lines: Sequence[Mapping[str, object]]) -> str:
    """Markdown of the whole page.

    Raises:
        ValueError: The records lack an arm that a claim needs.
    """
    check_complete(claims, records)
    parts = [*head(claims, records, lines)]
    for claim in claims:
        parts += section(claim, records)
    return "\n".join(parts) + "\n"


def check_complete(claims: Sequence[Claim], records: Records) -> None:
    """Refuse records that lack what a claim needs.

    Raises:
        ValueError: Names the first arm that is missing.
    """
    needed = {(arm.name, kind) for claim in claims for arm, kinds in claim.arms for kind in kinds}
    missing = sorted(needed - set(records))
    if missing:
        arm, kind = missing[0]
        raise ValueError(
            f"The rows must hold every arm of every claim, but lack {len(missing)}, the first "
            f"being {arm!r} on {kind!r}. Run them with --run."
        )


def head(
    claims: Sequence[Claim], records: Records, lines: Sequence[Mapping[str, object]]
) -> Iterator[str]:
    """What the page is, how it was made, and one line for each claim."""
    prompts = len(next(iter(records.values())).seeds)
    yield from (
        "# What papers claim, tried on the shipped model",
        "",
        "<!-- made by the command below; change the generator, not this file -->",
        "",
        "A paper says that its rule beats another one. Does the direction of that show on the "
        "model that comes with this package, at equal bytes that are really freed? This page "
        f"tries it for {len(claims)} papers. Their absolute figures are of models some thousand "
        "times larger and cannot be had here; what can be had is which of two rules loses less, "
        "prompt by prompt.",
        "",
        f"    {COMMAND}",
        "",
        "makes this page from `benchmarks/results/claims.jsonl`; with `--run` it first runs what "
        "the rows lack, all of them in about half an hour on one core if they are gone.",
        "",
        "| paper | verdict | tests that hold | in short | ours against the paper's: divergence x |",
        "|---|---|---|---|---|",
    )
    for claim in claims:
        held = sum(test.look(records).holds for test in claim.tests)
        link = f"[{claim.paper}](#{claim.paper.lower()})"
        counts, ratio = f"{held} of {len(claim.tests)}", figures(claim.ours.ratio(records))
        yield f"| {link} | {claim.verdict(records).value} | {counts} | {claim.short} | {ratio} |"
    yield from (
        "",
        "## How it is measured",
        "",
        "- **Model.** The shipped one: 6 layers of 4 KV heads, two query heads to each. It was "
        "trained to find facts, and few of its caches do the finding; a model of yours will show "
        "smaller differences between divisions.",
        f"- **Prompts.** {prompts} of each kind, contexts of 768 tokens. *text* goes on for 256 "
        "tokens; *needles* are 6 facts hidden in prose and asked for one by one; *lookups* are a "
        "table of random keys and values. The cache is cut before the question is known. "
        "*Question known*: the context ends in a question, two prompts of each context, and the "
        "answer's first token comes of the full cache, as where a prompt is cut once it has been "
        "read. *Cut for another question*: the context ends in one question with its answer, and "
        "the others are asked. *Cut while writing*: the text's 256 tokens come in blocks of 16, "
        "and the cache is cut back behind each. What is calibrated on is of other texts and "
        "seeds.",
        "- **Answers.** Numbers have a token for each digit. The head that finds an answer looks "
        "at its first digit alone, at the next one when that is said, and so on: a rule that "
        "keeps what the question looked at keeps the first digit, and the others only if it "
        "pools over neighbours. Larger models may look at a whole answer at once.",
        "- **Bytes.** Shares are of the context's keys and values; *held* is the most that the "
        "live storages came to over all prompts. Every cache keeps its 4 first and 16 newest "
        "tokens.",
        "- **Figures.** Divergence from the full cache in nats per token, mean over prompts "
        "(standard deviation over prompts); under it the share of questions answered exactly. "
        "Ratios are paired: geometric mean over kinds, and in brackets the interval that holds "
        "95 % of 10,000 bootstrap resamples of the prompts.",
        "- **Verdict.** A rule *beats* another if the whole interval of the ratio is below 1; it "
        "*holds the quality* if it answers at least 95 % as many questions as the full cache, "
        "and the text that the full cache would write becomes at most 5 % less likely per token. "
        "*Reproduced*: all tests hold. *Not reproduced*: none does. Tests and limits were set "
        "after a trial run with one or two prompts of each kind. One was changed while the "
        "prompts ran: in CORM and A2SF the rival became H2O with the window that its authors "
        "give it; the table of A2SF shows both.",
        "- **Not done.** Intervals are not corrected for the number of comparisons, and they say "
        "nothing about other models.",
        "",
        *made_with(lines),
    )


def made_with(lines: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Versions and machines of the rows."""
    facts = ("kvbudget", "torch", "transformers", "commit", "machine")
    found = [", ".join(sorted({str(line[fact]) for line in lines})) for fact in facts]
    said = "; ".join(f"{fact} {value}" for fact, value in zip(facts, found, strict=True))
    yield f"Made with {said}."
    yield ""


def section(claim: Claim, records: Records) -> Iterator[str]:
    """One claim."""
    verdict = claim.verdict(records)
    yield from (
        f"## {claim.paper}",
        "",
        f"**Claim.** {claim.says} ([{claim.title}]({claim.link}))",
        "",
        f"**Tried.** {claim.tried}",
        "",
        *table(claim, records),
        "",
        f"**{verdict.value.capitalize()}.** {claim.why}".rstrip(),
        "",
        *tests("Tests:", claim.tests, records),
        *tests("Beside, without counting:", (*claim.beside, claim.ours), records),
        f"**Cannot be tested here.** {claim.untested}",
        "",
    )


def tests(title: str, several: Sequence[Test], records: Records) -> Iterator[str]:
    """One line for each test."""
    if several:
        yield title
        yield ""
        for test in several:
            finding = test.look(records)
            yield f"- {'holds' if finding.holds else 'fails'}: {finding.text}"
        yield ""


def table(claim: Claim, records: Records) -> Iterator[str]:
    """One row for each arm, one column for each kind."""
    kinds = [kind for kind in KINDS if any(kind in asked for _, asked in claim.arms)]
    yield "| tokens, division, share | held | " + " | ".join(kinds) + " |"
    yield "|---" * (2 + len(kinds)) + "|"
    for arm, asked in claim.arms:
        held = max(records[arm.name, kind].held for kind in asked)
        found = (cell(records[arm.name, kind]) if kind in asked else "" for kind in kinds)
        yield f"| {shown(arm)} | {100 * held:.1f} % | " + " | ".join(found) + " |"
    full = (cell(records[FULL, kind]) for kind in kinds)
    yield f"| {FULL} | 100 % | " + " | ".join(full) + " |"


def shown(arm: Arm) -> str:
    """An arm's name, ours in bold."""
    return f"**{arm.name}**" if arm.named == "solved for divergence" else arm.name


def cell(record: Record) -> str:
    """Divergence with its spread, and answers."""
    answers = ""
    if record.kind not in TEXT_KINDS:
        answers = f"{100 * record.right.sum() / record.asked.sum():.0f} % right"
    if record.arm == FULL:
        return answers
    nats = f"{record.divergence.mean():.3g} ({record.divergence.std():.1g})"
    return f"{nats}<br>{answers}" if answers else nats
