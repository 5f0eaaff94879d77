"""One HTML file that needs nothing but itself."""

import base64
import hashlib
import json
import os
import re
import shlex
from html import escape
from importlib.resources import files
from pathlib import PurePath

from kvbudget import __version__
from kvbudget.allocator import Plan, Profile
from kvbudget.allocator.files import FilePath, write_whole
from kvbudget.model_source import model_name

from .content import Record, content_of
from .facts import facts_of
from .source import Source
from .trust import verdict

SCRIPTS = (
    *("numbers", "menu", "hull", "divide", "plan_file"),
    *("shapes", "charts", "heat_map", "table", "state", "figures", "page"),
)


def save_report(
    plan: Plan,
    path: FilePath,
    *,
    profile: Profile | None = None,
    plan_name: str = "plan.json",
    profile_name: str = "profile.safetensors",
) -> None:
    """Write a plan as one HTML page that opens without a server or a network.

    In the page the budget, the context and the batch size can be changed; it then shows what
    ``allocate`` would give with ``Hull()``, to the byte. Plans that cannot be divided anew in a
    page (constraints that couple caches, a risk, no losses in the file) are shown as they are.

    Args:
        plan: What to show.
        path: Where to write the page; ends in ``.html``.
        profile: The profile behind the plan: it adds how much single prompts lose, and losses
            where the plan holds none.
        plan_name: What the plan's file is called.
        profile_name: What the profile's file is called, for commands that the page offers.

    Raises:
        FileNotFoundError: If the folder does not exist.
        IsADirectoryError: If the path is a folder.
        TypeError: If the plan or the profile is something else.
        ValueError: If the profile is not the one that the plan was made from, or the path does not
            end in ``.html``.
    """
    check_ending(path)
    page = report_html(plan, profile=profile, plan_name=plan_name, profile_name=profile_name)
    write_whole(path, page.encode("utf-8"))


def check_ending(path: FilePath, name: str = "path") -> None:
    """Refuse a file that a browser would show as plain text.

    Raises:
        ValueError: If the path ends in neither ``.html`` nor ``.htm``.
    """
    if PurePath(os.fspath(path)).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"`{name}` must end in .html, but got {os.fspath(path)!r}.")


def report_html(
    plan: Plan,
    *,
    profile: Profile | None = None,
    plan_name: str = "plan.json",
    profile_name: str = "profile.safetensors",
) -> str:
    """The page of :func:`save_report` as text.

    Args:
        plan: What to show.
        profile: The profile behind the plan.
        plan_name: What the plan's file is called.
        profile_name: What the profile's file is called.

    Raises:
        TypeError: If the plan or the profile is something else.
        ValueError: If the profile is not the one that the plan was made from.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"`plan` must be a Plan, but got {plan!r:.60}.")
    if profile is not None and not isinstance(profile, Profile):
        raise TypeError(f"`profile` must be a Profile or None, but got {profile!r:.60}.")
    parts = parts_of(Source.of(plan, profile), plan_name, profile_name)
    # in one pass, so that no value is searched for the names of others
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], template("report.html"))


def parts_of(source: Source, plan_name: str, profile_name: str) -> dict[str, str]:
    """What stands in the page at the places that the template names, as HTML."""
    plan, style = source.plan, template("report.css")
    program = "\n".join(template(f"{name}.js") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{program}\n}})();\n'
    words = {
        "TITLE": f"KV cache report: {plan.model or 'unnamed model'}",
        "MODEL": plan.model or "Unnamed model",
        "CACHES": str(plan.geometry),
        "VERSION": __version__,
        "PLAN": plan_name,
        "TRUST": "Can this be trusted?" if source.check else "These losses were never checked.",
        "VERDICT": verdict(source.check),
        "CHECK": f"In numbers: {source.check}." if source.check else "",
        "RUN": generate_command(plan),
        "SUMMARY": str(plan),
    }
    return {
        **{name: escape(text) for name, text in words.items()},
        "POLICY": policy(script, style),
        "FACTS": facts_html(source),
        "STYLE": style,
        "DATA": script_json(content_of(source, plan_name, profile_name)),
        "SCRIPT": script,
    }


def generate_command(plan: Plan) -> str:
    """What runs the plan's model within it; without a name the shipped model is meant."""
    named = plan.model and plan.model != model_name(None)
    model = f" --model {shlex.quote(plan.model)}" if named else ""
    return f"kvbudget generate plan.json{model} --prompt-file question.txt"


def template(name: str) -> str:
    """A file that the page is made from."""
    return (files(__package__) / "template" / name).read_text(encoding="utf-8")


def facts_html(source: Source) -> str:
    """Terms and descriptions."""
    rows = (f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in facts_of(source))
    return "\n".join(rows)


def script_json(record: Record) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def policy(script: str, style: str) -> str:
    """What the browser may load for the page: nothing but its own program and style."""
    kinds = {"script-src": script, "style-src": style}
    own = (f"{kind} 'sha256-{digest(text)}'" for kind, text in kinds.items())
    rest = "default-src 'none'; base-uri 'none'; form-action 'none'"
    return "; ".join((rest, *own))


def digest(text: str) -> str:
    """The SHA-256 of a text as policies spell it."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
