"""The page as a file: it holds all it needs, lets nothing else in, and takes text for text."""

import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

import kvbudget as kvb
from kvbudget.report import report_html
from kvbudget.report.page import SCRIPTS, digest, script_json


class Elements(HTMLParser):
    """All tags with their attributes, and the text inside each kind of element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes something else"

    def handle_data(self, data: str) -> None:
        self.inside.setdefault(self.open[-1] if self.open else "", []).append(data)


def test_the_page_is_well_formed_and_loads_nothing(plan: kvb.Plan) -> None:
    elements = Elements(report_html(plan))
    assert elements.open == []
    for tag, attributes in elements.tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "action", "style", "onclick"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    program = "".join(elements.inside["script"] + elements.inside["style"])
    addresses = set(re.findall(r"https?://[^\"' ]+", program))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML|eval\(", program)


def test_the_policy_allows_this_program_and_this_style_alone(plan: kvb.Plan) -> None:
    elements = Elements(report_html(plan))
    (policy,) = [a["content"] for tag, a in elements.tags if a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    (style,) = elements.inside["style"]
    _, program = elements.inside["script"]
    assert f"script-src 'sha256-{digest(program)}'" in policy
    assert f"style-src 'sha256-{digest(style)}'" in policy
    assert "unsafe" not in policy


def test_the_same_plan_gives_the_same_page(plan: kvb.Plan, profile: kvb.Profile) -> None:
    assert report_html(plan, profile=profile) == report_html(plan, profile=profile)
    assert report_html(plan, profile=profile) != report_html(plan)


def test_text_of_users_cannot_end_an_element(plan: kvb.Plan) -> None:
    name = "</script><script>alert(1)</script><!-- <img onerror=x> {{SCRIPT}}"
    page = report_html(replace(plan, model=name, heuristic=name, measure=name), plan_name=name)
    plain, bad = Elements(report_html(plan)), Elements(page)
    assert [tag for tag, _ in bad.tags] == [tag for tag, _ in plain.tags]
    assert bad.inside["h1"] == [name]
    assert json.loads(bad.inside["script"][0])["name"] == name


def test_what_was_measured_stands_in_the_page_itself(plan: kvb.Plan, profile: kvb.Profile) -> None:
    elements = Elements(report_html(plan, profile=profile))
    facts = dict(zip(elements.inside["dt"], elements.inside["dd"], strict=True))
    assert facts["Tokens chosen by"] == "observation_window(window=32, kernel=7)"
    assert facts["Prompts measured"] == "4"
    assert facts["Loss"].startswith("divergence: ")
    assert facts["Levels measured"].startswith("9: 2, 5, 10, ")
    assert facts["Its predicted loss"] == str(plan.certificate)
    assert elements.inside["pre"] == [str(plan)]


def test_the_command_that_runs_it_names_the_model(plan: kvb.Plan) -> None:
    for model, option in (("my model", " --model 'my model'"), ("the reference model", "")):
        command = f"kvbudget generate plan.json{option} --prompt-file question.txt"
        assert escape(command) in report_html(replace(plan, model=model))


def test_what_is_not_known_is_said(plan: kvb.Plan) -> None:
    unnamed = replace(plan, model="", heuristic="", heuristic_settings=(), measure="")
    elements = Elements(report_html(unnamed))
    facts = dict(zip(elements.inside["dt"], elements.inside["dd"], strict=True))
    assert (facts["Tokens chosen by"], facts["Model"]) == ("unknown", "unnamed")
    assert facts["Loss"] == "of an unknown measure"


def test_without_its_program_the_page_shows_the_plan_in_words(plan: kvb.Plan) -> None:
    shown = {
        attributes.get("id"): "hidden" not in attributes
        for _, attributes in Elements(report_html(plan)).tags
    }
    assert [shown[name] for name in ("plain", "trust", "main", "controls")] == [
        *(True, True, False, False)
    ]


def test_every_part_of_the_program_is_in_the_package() -> None:
    from importlib.resources import files

    names = {each.name for each in (files("kvbudget.report") / "template").iterdir()}
    assert names == {f"{name}.js" for name in SCRIPTS} | {"report.html", "report.css"}


def test_json_in_a_page_reads_back_and_holds_no_markup() -> None:
    record = {"text": "<!--</script>&\u2028", "number": 1e-300}
    assert json.loads(script_json(record)) == record
    assert not set(script_json(record)) & set("<>&\u2028")


def test_a_page_is_written_whole(plan: kvb.Plan, tmp_path: Path) -> None:
    kvb.save_report(plan, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report_html(plan)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(ValueError, match=r"`path` must end in .html, but got"):
        kvb.save_report(plan, tmp_path / "plan.json")
    with pytest.raises(FileNotFoundError, match="folder that exists"):
        kvb.save_report(plan, tmp_path / "missing" / "report.html")


def test_something_else_than_a_plan_is_refused(plan: kvb.Plan, profile: kvb.Profile) -> None:
    with pytest.raises(TypeError, match=r"`plan` must be a Plan, but got"):
        report_html("plan.json")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`profile` must be a Profile or None"):
        report_html(plan, profile="profile.safetensors")  # type: ignore[arg-type]
