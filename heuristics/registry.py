"""Names of heuristics: a registry maps each name to a class, never to an instance.

Names exist for files and the command line; in a program one passes objects. Classes of other
installed packages are imported when somebody asks for their name; see ``installed.py``.
"""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from .heuristic import CacheHeuristic, TokenHeuristic
from .installed import Installed, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Heuristic: TypeAlias = TokenHeuristic | CacheHeuristic
Setting: TypeAlias = bool | int | float | str
Settings: TypeAlias = tuple[tuple[str, Setting], ...]
Kind = TypeVar("Kind")
Class = TypeVar("Class", bound=type)


class Registry(Generic[Kind]):
    """Classes of one kind of plug-in by name.

    Args:
        what: What a plug-in is called in messages.
        bases: Abstract classes of which a plug-in extends one.
        group: Entry points under which installed packages declare theirs; None for none.
    """

    def __init__(self, what: str, *bases: type, group: str | None = None) -> None:
        self._what = what
        self._bases = bases
        self._group = group
        self._classes: dict[str, type[Kind]] = {}

    def register(self, name: str) -> Callable[[Class], Class]:
        """Decorate a class to own ``name``.

        Raises:
            ValueError: If the name is not lower-case words joined by underscores, or is taken.
            TypeError: If the class is no plug-in, is abstract, cannot be built without
                arguments, or takes some that are no fields. Or if there is no name.
        """
        if not isinstance(name, str):
            raise TypeError(
                f'`name` must be a text, as in @register("a_name"), but got {name!r:.80}.'
            )
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                "`name` must be lower-case letters, digits and underscores, starting with a "
                f"letter, but got {name!r}."
            )

        def add(cls: Class) -> Class:
            self._require_plugin(cls)
            owner = self._classes.get(name)
            # the same class again, as when a notebook's cell is run twice
            if owner is not None and _path_of(owner) != _path_of(cls):
                raise ValueError(f"{_taken(name, owner)} Choose another name.")
            self._classes[name] = cls
            return cls

        return add

    def get(self, name: str) -> type[Kind]:
        """Return the class that owns a name.

        Where an installed package declares the name of a built-in class, a warning names it.

        Raises:
            ValueError: If nobody owns it; the message lists the names there are. Or if it belongs
                to an installed package and cannot be used.
        """
        others = self._installed()
        if name in self._classes:
            owner = self._classes[name]
            if name in others and _is_built_in(owner):
                warnings.warn(others[name].blame(_taken(name, owner)), stacklevel=2)
            return owner
        if name in others:
            return self._load(others[name])
        names = self.names()
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        known = ", ".join(names)
        raise ValueError(f"`name` must be one of {known}, but got {name!r}.{hint}")

    def names(self, kind: type = object) -> list[str]:
        """Return the names there are in order, of all classes or of those of one kind.

        To tell the kind of a class of another installed package it has to be imported. One that
        cannot be used is left out, with a warning.
        """
        others = self._installed()
        if kind is object:
            return sorted({*self._classes, *others})
        for other in others.values():
            try:
                self._load(other)
            except ValueError as error:
                warnings.warn(str(error), stacklevel=2)
        return sorted(name for name, cls in self._classes.items() if issubclass(cls, kind))

    def name_of(self, plugin: Kind) -> str:
        """Return the name under which the class of a plug-in is registered.

        Raises:
            ValueError: If it is not registered.
        """
        cls = type(plugin)
        if cls not in self._owners():
            for other in self._installed().values():
                if other.may_hold(cls):
                    self._load(other)
        if cls in self._owners():
            return self._owners()[cls]
        raise ValueError(
            f"`{self._what}` must be of a registered class, but got {plugin!r}. "
            'Put @register("a_name") above its class.'
        )

    def build(self, name: str, settings: Iterable[tuple[str, Setting]] = ()) -> Kind:
        """Make a plug-in from its name and settings: the reverse of the two ``*_of`` functions.

        Raises:
            ValueError: If the name, or the name of a setting, is unknown.
            TypeError: If a setting has the wrong type.
        """
        cls = self.get(name)
        default = cls()
        current = {field: getattr(default, field) for field in _field_names(default)}
        given: dict[str, object] = {}
        for field, value in settings:
            if field not in current:
                known = ", ".join(current) or "it has none"
                raise ValueError(
                    f"`settings` must name fields of {cls.__name__} ({known}), but got {field!r}."
                )
            given[field] = _restored(field, value, current[field])
        return cls(**given)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Forget, at the end of the block, whatever was registered inside it."""
        before = dict(self._classes)
        try:
            yield
        finally:
            self._classes = before

    def _owners(self) -> dict[type, str]:
        return {cls: name for name, cls in self._classes.items()}

    def _installed(self) -> dict[str, Installed]:
        """What other packages declare and nobody has asked for yet, and what they cannot have."""
        declared = installed(self._what, self._group)
        return {name: each for name, each in declared.items() if not self._holds(each)}

    def _holds(self, other: Installed) -> bool:
        return other.name in self._classes and other.may_hold(self._classes[other.name])

    def _load(self, other: Installed) -> type[Kind]:
        """Import and register a class of an installed package.

        Raises:
            ValueError: If it cannot be used; names the package.
        """
        before = dict(self._classes)
        try:
            cls: Any = other.load()
        except ValueError:
            # its module may have got half-way
            self._classes = before
            raise
        try:
            self._require_plugin(cls)
            name = self._owners().get(cls, other.name)
            if name != other.name:
                raise ValueError(f"it registers itself as {name!r}")
            self.register(name)(cls)
        except (TypeError, ValueError) as error:
            raise ValueError(other.blame(str(error))) from error
        return self._classes[name]

    def _require_plugin(self, cls: type) -> None:
        if not (isinstance(cls, type) and issubclass(cls, self._bases)):
            wanted = " or ".join(base.__name__ for base in self._bases)
            raise TypeError(f"`{self._what}` must be a subclass of {wanted}, but got {cls!r}.")
        if inspect.isabstract(cls):
            missing = ", ".join(_abstract_methods(cls))
            raise TypeError(
                f"`{cls.__name__}` must define every abstract method, but lacks {missing}."
            )
        needed = [
            parameter.name
            for parameter in inspect.signature(cls).parameters.values()
            if parameter.default is parameter.empty
        ]
        written = {field.name for field in fields(cls) if field.init} if is_dataclass(cls) else ()
        lost = [name for name in inspect.signature(cls).parameters if name not in written]
        if needed:
            raise TypeError(
                f"`{cls.__name__}` must work without arguments, but needs {', '.join(needed)}. "
                "Make it a frozen dataclass whose fields all have defaults."
            )
        if lost:
            raise TypeError(
                f"`{cls.__name__}` must hold its settings in fields, which files remember, but "
                f"takes {', '.join(lost)}. Make it a frozen dataclass."
            )


def _abstract_methods(cls: type) -> list[str]:
    members = inspect.getmembers(cls)
    return [name for name, member in members if getattr(member, "__isabstractmethod__", False)]


def _path_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _taken(name: str, owner: type) -> str:
    return f"`name` must be new, but got {name!r}, which belongs to {_path_of(owner)}."


def _is_built_in(cls: type) -> bool:
    return cls.__module__.startswith("kvbudget.")


def settings_of(plugin: object) -> Settings:
    """Return the fields of a plug-in with their values, as they can be written to a file.

    A member of an Enum is written as its name.

    Raises:
        TypeError: If a field is neither bool, int, float, str nor an Enum.
    """
    return tuple((field, _written(field, getattr(plugin, field))) for field in _field_names(plugin))


def _field_names(plugin: object) -> list[str]:
    if not is_dataclass(plugin):
        return []
    return [field.name for field in fields(plugin) if field.init]


def _written(field: str, value: object) -> Setting:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"`{field}` must be a bool, int, float, str or Enum, but got {value!r}.")


def _restored(field: str, value: Setting, default: object) -> object:
    """Turn a written value back into the type that the field has by default."""
    if isinstance(default, Enum):
        members = type(default).__members__
        if value not in members:
            raise ValueError(f"`{field}` must be one of {', '.join(members)}, but got {value!r}.")
        return members[str(value)]
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise TypeError(f"`{field}` must be of type {type(default).__name__}, but got {value!r}.")
    return value


_heuristics: Registry[Heuristic] = Registry(
    "heuristic", TokenHeuristic, CacheHeuristic, group="kvbudget.heuristics"
)
register = _heuristics.register
get = _heuristics.get
names = _heuristics.names
name_of = _heuristics.name_of
build = _heuristics.build
registration_scope = _heuristics.scope
