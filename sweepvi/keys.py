"""Declared keys: every component is a frozen dataclass whose fields say type, range and meaning.

A field is written once, as ``lr: Annotated[float, Key("step size", gt=0)] = 1e-3``. From that line come the
check of a configuration, the listing of ``--components`` and the check of plain Python construction.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from sweepvi.errors import ConfigError, Problem, raise_if, unknown

REQUIRED = dataclasses.MISSING

Resolve: TypeAlias = Callable[[str, Any], Any]
"""Makes a component of a group's node; ``ConfigError`` with keys relative to the node."""


@dataclass(frozen=True)
class Key:
    """What a key means, and what its values must keep to.

    Attributes:
        meaning: one line for the user.
        gt, ge, lt, le: bounds of a number, or of each entry of a tuple.
        infinite: whether infinity is a sensible value.
        pattern: what text must match in full, a regular expression.
        component: the group of the component, or components, that the value describes; empty if it is none.

    """

    meaning: str
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    infinite: bool = False
    pattern: str | None = None
    component: str = ""

    def bounds(self) -> str:
        """The bounds in words, ``"> 0 and < 1"``; empty when there are none."""
        signs = ((">", self.gt), (">=", self.ge), ("<", self.lt), ("<=", self.le))
        return " and ".join(f"{sign} {bound}" for sign, bound in signs if bound is not None)

    def admits(self, number: float) -> bool:
        """Whether a number keeps the bounds; NaN never does."""
        return (
            (math.isfinite(number) or (self.infinite and not math.isnan(number)))
            and (self.gt is None or number > self.gt)
            and (self.ge is None or number >= self.ge)
            and (self.lt is None or number < self.lt)
            and (self.le is None or number <= self.le)
        )


@dataclass(frozen=True)
class KeySpec:
    """A key of a component, as read off its dataclass field."""

    name: str
    type: Any
    default: Any
    key: Key

    @property
    def required(self) -> bool:
        """Whether the key has no default."""
        return self.default is REQUIRED

    def expects(self) -> str:
        """What a valid value is, in words: ``"a number > 0"``."""
        if self.key.pattern:
            return self.key.meaning
        return f"{_type_words(self.type)} {self.key.bounds()}".strip()


class Keyed:
    """Base of frozen dataclasses with :class:`Key` fields; bad values raise ``ConfigError`` on construction."""

    def __post_init__(self) -> None:
        """Check and convert the fields in place: a list given for a tuple becomes a tuple."""
        values = {spec.name: getattr(self, spec.name) for spec in keys_of(type(self))}
        converted, problems = check_values(type(self), values, type(self).__name__)
        raise_if(problems)
        for name, value in converted.items():
            object.__setattr__(self, name, value)
        raise_if([Problem.of(f"{type(self).__name__}.{k}", values[k], m) for k, m in self.conflicts().items()])

    def conflicts(self) -> dict[str, str]:
        """Problems between keys that are valid one by one: key → what would be valid."""
        return {}


@functools.cache
def keys_of(cls: type) -> tuple[KeySpec, ...]:
    """The declared keys of a component class, in order."""
    hints = get_type_hints(cls, include_extras=True)
    specs = []
    for field in sorted(dataclasses.fields(cls), key=lambda field: field.kw_only is True):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            continue
        annotation, *extras = get_args(hint)
        key = next(extra for extra in extras if isinstance(extra, Key))
        specs.append(KeySpec(field.name, annotation, _default(field), key))
    return tuple(specs)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def check_values(
    cls: type, values: Mapping[str, Any], where: str, resolve: Resolve | None = None
) -> tuple[dict[str, Any], list[Problem]]:
    """Check ``values`` against the keys of ``cls``.

    Returns the converted values of the valid keys, and all problems: unknown keys, missing ones, wrong types,
    values out of range. ``where`` prefixes the keys in the problems (``"optimizer"`` gives ``"optimizer.lr"``).
    ``resolve`` makes components of nodes; without it, only components themselves are valid where one is due.
    """
    specs = {spec.name: spec for spec in keys_of(cls)}
    problems = [
        Problem.of(f"{where}.{name}", value, unknown("key", str(name), specs))
        for name, value in values.items()
        if name not in specs
    ]
    converted = {}
    for name, spec in specs.items():
        if (name not in values and spec.required) or (name in values and _is_missing(values[name])):
            problems.append(Problem(f"{where}.{name}", f"missing; give {spec.expects()}: {spec.key.meaning}"))
        elif name in values:
            try:
                converted[name] = convert(spec, values[name], resolve)
            except ConfigError as error:
                problems += _under(f"{where}.{name}", error)
            except ValueError:
                problems.append(Problem.of(f"{where}.{name}", values[name], f"must be {spec.expects()}"))
    return converted, problems


def construct(
    cls: type, values: Mapping[str, Any], where: str, resolve: Resolve | None = None
) -> tuple[Any, list[Problem]]:
    """Make a component of ``values``, or None and all that is wrong with them, under keys prefixed by ``where``."""
    converted, problems = check_values(cls, values, where, resolve)
    if problems:
        return None, problems
    try:
        return cls(**converted), []
    except ConfigError as error:
        return None, [dataclasses.replace(p, key=p.key.replace(cls.__name__, where, 1)) for p in error.problems]


def _under(where: str, error: ConfigError) -> list[Problem]:
    return [dataclasses.replace(problem, key=f"{where}{problem.key}") for problem in error.problems]


def _is_missing(value: object) -> bool:
    return isinstance(value, str) and value == "???"


def convert(spec: KeySpec, value: Any, resolve: Resolve | None = None) -> Any:
    """Convert ``value`` to the type of the key.

    Raises ``ValueError`` where it does not fit; a ``ConfigError`` says which parts of it do not.
    """
    return _Conversion(spec.key, resolve).to(spec.type, value)


@dataclass(frozen=True)
class _Conversion:
    """Conversion of a key's value, whatever its type."""

    key: Key
    resolve: Resolve | None

    def to(self, annotation: Any, value: Any) -> Any:
        origin = get_origin(annotation)
        if origin in (Union, types.UnionType):
            return self._to_union(annotation, value)
        if origin is Literal:
            return _demand(value if any(value is c or value == c for c in get_args(annotation)) else None)
        if origin is tuple:
            return self._to_tuple(annotation, value)
        if origin is Mapping:
            return self._to_mapping(annotation, value)
        if annotation is Any:
            return value
        if isinstance(annotation, type) and issubclass(annotation, Keyed):
            return self._to_keyed(annotation, value)
        return self._to_scalar(annotation, value)

    def _to_union(self, annotation: Any, value: Any) -> Any:
        members = get_args(annotation)
        if value is None and type(None) in members:
            return None
        for member in (member for member in members if member is not type(None)):
            try:
                return self.to(member, value)
            except ConfigError:
                raise
            except ValueError:
                continue
        raise ValueError

    def _to_tuple(self, annotation: Any, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError
        members, entries = get_args(annotation), tuple(value)
        if members[-1] is Ellipsis:
            members = (members[0],) * len(entries)
        if len(members) != len(entries):
            raise ValueError
        pairs = enumerate(zip(members, entries, strict=True))
        return tuple(self._all([(f".{place}", member, entry) for place, (member, entry) in pairs]))

    def _to_mapping(self, annotation: Any, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
            raise ValueError
        member = get_args(annotation)[1]
        entries = self._all([(f".{name}", member, entry) for name, entry in value.items()])
        return dict(zip(value, entries, strict=True))

    def _all(self, entries: list[tuple[str, Any, Any]]) -> list[Any]:
        """Convert all entries of a collection; what is wrong with each, if more can be said than that it is."""
        made, problems = [], []
        for place, annotation, entry in entries:
            try:
                made.append(self.to(annotation, entry))
            except ConfigError as error:
                problems += _under(place, error)
        raise_if(problems)
        return made

    def _to_keyed(self, annotation: type[Keyed], value: Any) -> Any:
        if isinstance(value, annotation):
            return value
        if self.key.component:
            if self.resolve is None:
                raise ValueError
            return self.resolve(self.key.component, value)
        if not isinstance(value, Mapping):
            raise ValueError
        made, problems = construct(annotation, value, "", self.resolve)
        raise_if(problems)
        return made

    def _to_scalar(self, annotation: Any, value: Any) -> Any:
        if annotation is bool:
            return _demand(value if isinstance(value, bool) else None)
        if annotation is str:
            return _demand(value if self._is_text(value) else None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        try:
            if annotation is int and not float(value).is_integer():
                raise ValueError
            number = annotation(value)
            if self.key.admits(number):
                return number
        except OverflowError as error:
            raise ValueError from error
        raise ValueError

    def _is_text(self, value: Any) -> bool:
        pattern = self.key.pattern or ".*"
        return isinstance(value, str) and bool(value) and bool(re.fullmatch(pattern, value, re.DOTALL | re.ASCII))


def _demand(value: Any) -> Any:
    if value is None:
        raise ValueError
    return value


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _type_words(annotation: Any) -> str:
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Mapping:
        return "a mapping" + ("" if members[1] is Any else f" from name to {_type_words(members[1])}")
    if isinstance(annotation, type) and issubclass(annotation, Keyed):
        keys = ", ".join(spec.name for spec in keys_of(annotation))
        return "a component" if inspect.isabstract(annotation) else f"a mapping of {keys}"
    if origin in (Union, types.UnionType):
        words = ["null" for member in members if member is type(None)]
        return " or ".join([*words, *(_type_words(member) for member in members if member is not type(None))])
    if origin is Literal:
        return "one of " + ", ".join(map(str, members))
    if origin is tuple:
        if members[-1] is Ellipsis:
            return f"a list, each {_type_words(members[0])}"
        return f"{len(members)} values, each {_type_words(members[0])}"
    return _WORDS[annotation]
