"""`kvbudget report` on files."""

import json

import kvbudget as kvb
from kvbudget.report import report_html


def test_the_page_is_the_one_the_library_makes(run, plan_file, tmp_path):
    done = run("report", plan_file)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert done.code == 0
    assert page == report_html(kvb.Plan.load(plan_file))
    assert done.out == f"Open {(tmp_path / 'report.html').as_uri()} in a browser.\n"
    assert done.err == "Wrote report.html.\n"


def test_the_profile_and_the_names_reach_the_page(run, plan_file, profile, tmp_path):
    profile.save(tmp_path / "my losses.safetensors")
    options = ("--profile", tmp_path / "my losses.safetensors", "--out", "page.html", "--json")
    kvb.Plan.load(plan_file).save(tmp_path / "quarter.json")
    done = run("report", "quarter.json", *options)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    record = json.loads(done.out)
    assert record == {"out": "page.html", "bytes": len(page.encode("utf-8"))}
    assert "kvbudget allocate 'my losses.safetensors'" in page
    assert "Made from quarter.json by" in page


def test_bad_input_is_one_sentence(run, plan_file, profile_file, tmp_path):
    for arguments, said in (
        (("absent.json",), "No file at absent.json"),
        ((profile_file,), "is not a usable plan"),
        ((plan_file, "--profile", plan_file), "is not a usable profile"),
        ((plan_file, "--out", "absent/report.html"), "must lie in a folder that exists"),
        ((plan_file, "--out", tmp_path), "is a folder"),
        ((plan_file, "--out", "report"), "`--out` must end in .html"),
        ((plan_file, "--out", plan_file), "`--out` must end in .html"),
    ):
        done = run("report", *arguments)
        assert done.code == 2
        assert said in done.err
        assert len(done.err.splitlines()) == 1


def test_the_profile_of_another_model_is_refused(run, plan_file, profile, tmp_path):
    from dataclasses import replace

    replace(profile, model="other").save(tmp_path / "other.safetensors")
    done = run("report", plan_file, "--profile", tmp_path / "other.safetensors")
    assert done.code == 2
    assert "differ in `model`" in done.err
    assert not (tmp_path / "report.html").exists()


def test_the_page_is_not_written_over_what_it_shows(run, plan_file, profile, tmp_path):
    (tmp_path / "plan.html").write_bytes(plan_file.read_bytes())
    profile.save(tmp_path / "profile.html")
    options = ("--profile", "profile.html")
    for out, name in (("plan.html", "PLAN"), ("profile.html", "`--profile`")):
        before = (tmp_path / out).read_bytes()
        done = run("report", "plan.html", *options, "--out", out)
        assert done.code == 2
        assert f"`--out` must not be the file of {name}, but got {out}." in done.err
        assert (tmp_path / out).read_bytes() == before
