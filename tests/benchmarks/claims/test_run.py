"""A claim from the first prompt to the page, and what is committed."""

import json
from dataclasses import replace

import pytest

from kvbudget.prose import built_in_sentences


@pytest.fixture(scope="module")
def small(claims):
    """A claim that is run in seconds."""
    razor = claims("papers.razor_attention")
    kinds = ("needles",)
    theirs, equal = razor.razor(30), claims("papers.shelf").equal(claims("tokens").STREAMING, 30)
    ours = claims("papers.shelf").ours(claims("tokens").STREAMING, 30)
    return replace(
        razor.CLAIM,
        arms=((equal, kinds), (theirs, kinds), (ours, kinds)),
        tests=(claims("claim").Beats(theirs, equal, kinds, "30 % kept"),),
        ours=claims("claim").Beats(ours, theirs, kinds, "30 % kept"),
        beside=(),
    )


@pytest.fixture(scope="module")
def rows(claims, small, reader, tmp_path_factory):
    """The rows of that claim."""
    folder = tmp_path_factory.mktemp("claims")
    size = claims("running").Size(prompts=2, calibration=1)
    run = claims("running").run
    run([small], built_in_sentences(), size, folder / "rows.jsonl", folder / "measured")
    return folder / "rows.jsonl"


def test_a_run_finds_that_retrieval_heads_matter_and_frees_the_bytes(claims, small, rows):
    records = claims("record").read_records(rows)
    assert small.verdict(records) is claims("claim").Verdict.REPRODUCED
    assert all(0.25 < records[arm.name, "needles"].held <= 0.3 for arm, _ in small.arms)
    equal, _, ours = (records[arm.name, "needles"].right.sum() for arm, _ in small.arms)
    assert equal < ours
    full = records["full cache", "needles"]
    assert full.right.sum() >= 0.8 * full.asked.sum() > 0


def test_a_run_goes_on_where_it_was(claims, small, rows, capsys):
    before = rows.read_text()
    # as if it had been stopped before the last line, in the middle of it
    rows.write_text(before[:-40])
    size = claims("running").Size(prompts=2, calibration=1)
    folder = rows.parent / "measured"
    claims("running").run([small], built_in_sentences(), size, rows, folder)
    assert len([line for line in capsys.readouterr().out.splitlines() if "nats" in line]) == 1
    again, first = claims("record").read_records(rows), before.splitlines()
    assert len(again) == len(first)
    last = json.loads(first[-1])
    assert again[last["arm"], last["kind"]].divergence == pytest.approx(last["divergence"])


def test_the_page_tells_claim_verdict_and_figures(claims, small, rows):
    module = claims("record")
    text = claims("page").page([small], module.read_records(rows), module.read_lines(rows))
    assert "| [RazorAttention](#razorattention) | reproduced | 1 of 1 | " in text
    assert "**Reproduced.**" in text
    assert "- holds: 30 % kept: `StreamingLLM, RazorAttention, 30 %` against" in text
    assert small.says in text
    assert small.link in text
    assert text.count("| **StreamingLLM, solved for divergence, 30 %** |") == 1


def test_a_page_of_missing_rows_is_refused(claims, small):
    with pytest.raises(ValueError, match=r"but lack 3, .* Run them with --run\."):
        claims("page").page([small], {}, [])


def test_the_committed_page_is_that_of_the_committed_rows(claims, root):
    module, rows = claims("record"), root / "benchmarks" / "results" / "claims.jsonl"
    every = claims("everything").CLAIMS
    text = claims("page").page(every, module.read_records(rows), module.read_lines(rows))
    assert (root / "docs" / "claims.md").read_text(encoding="utf-8") == text


def test_every_committed_arm_has_at_least_a_dozen_prompts(claims, root):
    rows = root / "benchmarks" / "results" / "claims.jsonl"
    records = claims("record").read_records(rows)
    assert records
    assert all(len(set(each.seeds)) == len(each.outcomes) >= 12 for each in records.values())


def test_the_committed_rows_hold_nothing_that_no_claim_needs(claims, root):
    records = claims("record").read_records(root / "benchmarks" / "results" / "claims.jsonl")
    every = claims("everything").CLAIMS
    wanted = {(arm.name, kind) for arm, kind in claims("running").wanted(every)}
    full = {("full cache", kind) for kind in claims("kinds").KINDS}
    assert set(records) == wanted | full
