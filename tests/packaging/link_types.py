"""Make `.types/kvbudget`, a tree of links in which type checkers find the package.

The package's folders lie apart in the repository (see `package-dir` in pyproject.toml), which a
type checker cannot know. Run it again at any time: `MYPYPATH=.types mypy -p kvbudget`.
"""

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Rebuild the link tree from pyproject.toml."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        folders = tomllib.load(file)["tool"]["setuptools"]["package-dir"]
    target = ROOT / ".types" / "kvbudget"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for entry in sorted((ROOT / folders.pop("kvbudget")).iterdir()):
        if entry.name != "__pycache__":
            (target / entry.name).symlink_to(entry)
    for package, folder in folders.items():
        (target / package.removeprefix("kvbudget.")).symlink_to(ROOT / folder)


if __name__ == "__main__":
    main()
