"""What goes to standard output, and where a file may go."""

import json
import math

import pytest

from kvbudget.commands.output import check_can_write, check_folder, print_json


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
