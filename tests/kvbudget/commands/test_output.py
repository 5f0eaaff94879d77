"""What goes to standard output, and where a file may go."""

import json
import math
from pathlib import Path

import pytest

from kvbudget.commands.output import check_can_write, check_folder, check_picture, print_json


def test_json_is_one_document_without_nan(capsys):
    print_json({"loss": math.inf, "rows": [(1, math.nan)], "name": "schön"})
    assert json.loads(capsys.readouterr().out) == {
        "loss": None,
        "rows": [[1, None]],
        "name": "schön",
    }


def test_checking_leaves_nothing_behind(tmp_path):
    check_can_write(tmp_path / "plan.json")
    check_folder(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []


def test_the_option_that_names_a_file_is_blamed(tmp_path):
    with pytest.raises(ValueError, match="`--plot` must name a file"):
        check_can_write(tmp_path, "--plot")
    with pytest.raises(ValueError, match="`--out` must lie in a folder that exists"):
        check_can_write(tmp_path / "no" / "plan.json")


@pytest.mark.parametrize(
    "name", ["text.txt", "./text.txt", "link.txt", "twin.txt", "sub/../text.txt"]
)
def test_an_input_is_not_written_over_however_it_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "text.txt").write_text("words")
    (tmp_path / "link.txt").symlink_to("text.txt")
    (tmp_path / "twin.txt").hardlink_to("text.txt")
    inputs = [("`--model`", None), ("`--text`", tmp_path / "text.txt")]
    with pytest.raises(ValueError, match="`--plot` must not be the file of `--text`, but got "):
        check_can_write(Path(name), "--plot", inputs)
    check_can_write(Path("other.txt"), "--plot", inputs)


def test_nothing_is_written_into_the_folder_of_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny" / "sub").mkdir(parents=True)
    (tmp_path / "tiny" / "model.safetensors").write_text("weights")
    (tmp_path / "also").symlink_to("tiny")
    (tmp_path / "into.json").symlink_to("tiny/model.safetensors")
    names = ("tiny/model.safetensors", "tiny/new.json", "tiny/sub/a.json", "also/new.json")
    for name in (*names, "into.json"):
        with pytest.raises(ValueError, match="must not lie in the folder of `--model`"):
            check_can_write(Path(name), inputs=[("`--model`", "tiny")])
    for model in ("tiny", "", "some/name", None):
        check_can_write(Path("tiny.json"), inputs=[("`--model`", model)])


def test_a_picture_that_cannot_be_drawn_blames_the_option():
    check_picture(Path("a.SVG"), "--plot")
    with pytest.raises(ValueError, match=r"`--plot` must end in .png or .svg, but got 'a.jpg'."):
        check_picture(Path("a.jpg"), "--plot")
