"""Heuristics of other installed packages are found by name, without being imported before."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvbudget import heuristics
from kvbudget.heuristics import CacheHeuristic, KeyNorm, TokenHeuristic, registration_scope
from kvbudget.runtime.session import named_heuristic

MODULE = """
from dataclasses import dataclass

from kvbudget.heuristics import TokenHeuristic, register


@register("{name}")
@dataclass(frozen=True, slots=True)
class Theirs(TokenHeuristic):
    order: float = 2.0

    def score(self, view):
        return view.values.float().norm(self.order, dim=-1)
"""
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{package}"
version = "3.1"

[project.entry-points."kvbudget.heuristics"]
{entry}

[tool.setuptools]
py-modules = ["{module}"]
"""
Declare = Callable[..., Path]


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Declare]:
    """Puts packages where an installer would, each a module and an entry point."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def add(package: str, entry: str, code: str) -> Path:
        module = package.replace("-", "_") + "_code"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{package.replace('-', '_')}-3.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 3.1\n")
        (info / "entry_points.txt").write_text(f"[kvbudget.heuristics]\n{entry}\n")
        return tmp_path

    with registration_scope():
        yield add
    for module in modules:
        sys.modules.pop(module, None)


def test_a_package_that_pip_installed_is_found_by_name(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "their_code.py").write_text(MODULE.format(name="their_norm"))
    entry = 'their_norm = "their_code:Theirs"'
    project = PROJECT.format(package="their-package", entry=entry, module="their_code")
    (source / "pyproject.toml").write_text(project)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True)
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(target)!r})\n"
        "from kvbudget import heuristics\n"
        "assert 'their_norm' in heuristics.names()\n"
        "assert 'their_code' not in sys.modules\n"
        "built = heuristics.build('their_norm', [('order', 1.0)])\n"
        "print(built, heuristics.name_of(built))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "Theirs(order=1.0) their_norm\n"


def test_it_is_imported_only_when_it_is_asked_for(declare: Declare) -> None:
    declare("their-a", "norm_a = their_a_code:Theirs", MODULE.format(name="norm_a"))
    declare("their-b", "norm_b = their_b_code:Theirs", MODULE.format(name="norm_b"))
    assert {"norm_a", "norm_b"} <= set(heuristics.names())
    assert heuristics.get("key_norm") is KeyNorm
    assert not {"their_a_code", "their_b_code"} & set(sys.modules)
    assert heuristics.get("norm_a").__name__ == "Theirs"
    assert "their_b_code" not in sys.modules
    assert "norm_b" in heuristics.names(TokenHeuristic)
    assert "norm_b" not in heuristics.names(CacheHeuristic)
    assert "norm_a" in heuristics.names(TokenHeuristic)


def test_a_class_need_not_register_itself(declare: Declare) -> None:
    code = MODULE.format(name="unused").replace('@register("unused")\n', "")
    declare("their-a", "norm_a = their_a_code:Theirs", code)
    cls = heuristics.get("norm_a")
    assert heuristics.name_of(cls()) == "norm_a"


def test_an_imported_class_that_nobody_asked_for_has_its_name(declare: Declare) -> None:
    code = MODULE.format(name="unused").replace('@register("unused")\n', "")
    declare("their-a", "norm_a = their_a_code:Theirs", code)
    import their_a_code  # type: ignore[import-not-found]

    assert heuristics.name_of(their_a_code.Theirs()) == "norm_a"


def test_what_a_scope_forgets_can_be_asked_for_again(declare: Declare) -> None:
    declare("their-a", "norm_a = their_a_code:Theirs", MODULE.format(name="norm_a"))
    with registration_scope():
        first = heuristics.get("norm_a")
    assert heuristics.get("norm_a") is first


def test_a_plan_finds_the_heuristic_it_names(declare: Declare, make_plan) -> None:
    declare("their-a", "norm_a = their_a_code:Theirs", MODULE.format(name="norm_a"))
    found = named_heuristic(make_plan("norm_a", (("order", 1.0),)), "")
    assert type(found).__name__ == "Theirs"
    assert found.order == 1.0


def test_the_command_line_finds_it_too(declare: Declare) -> None:
    from kvbudget.commands.named import cache_heuristic_named, token_heuristic_named

    declare("their-a", "norm_a = their_a_code:Theirs", MODULE.format(name="norm_a"))
    declare("their-b", "norm_b = their_b_code:Theirs", "import nothing_of_that_name\n")
    assert type(token_heuristic_named("norm_a")).__name__ == "Theirs"
    with pytest.raises(ValueError, match=r"'norm_b' of the installed package their-b cannot"):
        token_heuristic_named("norm_b")
    with pytest.raises(ValueError, match=r"`--importance` must be one of .*, but got 'norm_a'"):
        cache_heuristic_named("norm_a")


BROKEN = {
    "ModuleNotFoundError: No module named 'nothing'": "import nothing\n",
    "AttributeError: module 'bad_code' has no attribute 'Theirs'": "",
    "ZeroDivisionError: division by zero": MODULE.format(name="half_way") + "1 / 0\n",
    "SyntaxError: ": "def\n",
    "SystemExit: 3": "raise SystemExit(3)\n",
    "`heuristic` must be a subclass of TokenHeuristic or CacheHeuristic, but got 5": "Theirs = 5\n",
    "it registers itself as 'other'": MODULE.format(name="other"),
    "must be new, but got 'key_norm', which belongs to": MODULE.format(name="key_norm"),
}


@pytest.mark.parametrize(("fault", "code"), BROKEN.items(), ids=[each[:30] for each in BROKEN])
def test_a_broken_package_is_named_in_one_sentence_and_harms_no_other(
    declare: Declare, fault: str, code: str
) -> None:
    before = set(heuristics.names())
    declare("bad", "bad_one = bad_code:Theirs", code)
    declare("their-a", "norm_a = their_a_code:Theirs", MODULE.format(name="norm_a"))
    message = "The heuristic 'bad_one' of the installed package bad cannot be used: "
    for _ in range(2):
        with pytest.raises(ValueError, match=message) as caught:
            heuristics.get("bad_one")
        assert fault in str(caught.value)
        assert str(caught.value).endswith("Update or uninstall the package.")
        assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match=message):
        names = heuristics.names(TokenHeuristic)
    assert "norm_a" in names
    assert "bad_one" not in names
    assert set(heuristics.names()) - {"other"} == before | {"bad_one", "norm_a"}
    assert heuristics.get("norm_a").__name__ == "Theirs"


def test_a_name_that_is_taken_stays_with_its_owner(declare: Declare) -> None:
    declare("bad", "key_norm = bad_code:Theirs", MODULE.format(name="key_norm"))
    message = r"package bad cannot be used: .* must be new, but got 'key_norm', which belongs to"
    with pytest.warns(UserWarning, match=message):
        assert heuristics.get("key_norm") is KeyNorm
    assert "bad_code" not in sys.modules
    with pytest.warns(UserWarning, match=message):
        assert "key_norm" in heuristics.names(TokenHeuristic)
    with pytest.warns(UserWarning, match=message):
        assert heuristics.build("key_norm") == KeyNorm()


def test_a_class_of_ones_own_may_shadow_a_declared_one_in_silence(
    declare: Declare, recwarn: pytest.WarningsRecorder
) -> None:
    declare("their-a", "norm_a = their_a_code:Theirs", MODULE.format(name="norm_a"))
    mine = type("Mine", (KeyNorm,), {"__module__": "my_notebook"})
    heuristics.register("norm_a")(mine)
    assert heuristics.get("norm_a") is mine
    assert not recwarn.list


def test_two_packages_that_declare_one_name_are_both_named(declare: Declare) -> None:
    declare("their-a", "norm = their_a_code:Theirs", MODULE.format(name="norm"))
    declare("their-b", "norm = their_b_code:Theirs", MODULE.format(name="norm"))
    with pytest.raises(
        ValueError, match=r"declared by the installed packages their-a and their-b\. Uninstall"
    ):
        heuristics.get("norm")
    assert not {"their_a_code", "their_b_code"} & set(sys.modules)


def test_an_unknown_name_lists_installed_ones_too(declare: Declare) -> None:
    declare("their-a", "norm_a = their_a_code:Theirs", MODULE.format(name="norm_a"))
    with pytest.raises(ValueError, match=r"norm_a, .*but got 'norma'\. Did you mean 'norm_a'\?"):
        heuristics.get("norma")


@pytest.fixture
def make_plan():
    """A plan for a tiny model that names a heuristic."""
    from kvbudget.allocator import Geometry, Profile, allocate

    def make(name: str, settings: tuple[tuple[str, float], ...]):
        geometry = Geometry("LlamaForCausalLM", 2, 2, 8, 8, "float32", (None, None))
        profile = Profile.from_importance(
            [[1.0, 2.0], [3.0, 4.0]], geometry, heuristic=name, heuristic_settings=settings
        )
        return allocate(profile, budget="50%", context_tokens=100)

    return make
