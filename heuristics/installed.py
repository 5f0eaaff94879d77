"""Plug-ins that other installed packages declare as entry points.

A package says in its ``pyproject.toml`` what it brings, and need not be imported to be found:

    [project.entry-points."kvbudget.heuristics"]
    value_norm = "their_package.value_norm:ValueNorm"
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

LOAD_ERRORS = (Exception, SystemExit)
"""What importing somebody else's module may raise."""


@dataclass(frozen=True, slots=True)
class Installed:
    """Who declares one name.

    Args:
        what: What a plug-in is called in messages.
        name: The name.
        declared: Its entry points, one unless packages are at odds.
    """

    what: str
    name: str
    declared: tuple[EntryPoint, ...]

    @property
    def packages(self) -> str:
        """Names of the packages, to be read."""
        found = (each.dist.name if each.dist else "?" for each in self.declared)
        return " and ".join(sorted(found))

    def load(self) -> object:
        """Import what was declared.

        Raises:
            ValueError: If it cannot be imported, or several packages declare the name; says in one
                sentence which package is to blame.
        """
        if len(self.declared) > 1:
            raise ValueError(
                f"The {self.what} {self.name!r} is declared by the installed packages "
                f"{self.packages}. Uninstall all but one."
            )
        try:
            return self.declared[0].load()
        except LOAD_ERRORS as error:
            raise ValueError(self.blame(f"{type(error).__name__}: {error}")) from error

    def blame(self, fault: str) -> str:
        """Say in one sentence that the package is at fault."""
        return (
            f"The {self.what} {self.name!r} of the installed package {self.packages} cannot be "
            f"used: {' '.join(fault.split()).rstrip('.: ')}. Update or uninstall the package."
        )

    def may_hold(self, cls: type) -> bool:
        """Whether a class may be what is declared: it comes from the same import package."""
        package = cls.__module__.partition(".")[0]
        return any(each.module.partition(".")[0] == package for each in self.declared)


def installed(what: str, group: str | None) -> dict[str, Installed]:
    """Everything that installed packages declare in a group, by name; imports none of it."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for each in entry_points(group=group) if group else ():
        found[each.name] = (*found.get(each.name, ()), each)
    return {name: Installed(what, name, declared) for name, declared in found.items()}
