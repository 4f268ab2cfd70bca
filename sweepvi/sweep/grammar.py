"""What an override searches: ``a,b``, ``choice``, ``range``, ``interval``, ``tag(log, …)`` and the rest of the grammar.

The grammar is Hydra's, read by Hydra's own parser. A range is like Python's: its end is left out. An interval of whole
numbers, ``int(interval(1, 10))``, has both ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, QuotedString, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweepvi.config.overrides import parsed, quoted
from sweepvi.errors import ConfigError, Problem, listed, raise_if

TAGS = ("log",)
"""The tags that mean something: ``log``, even on the logarithmic scale."""

MOST = 100_000
"""Values of a range of fractions, at most."""


@dataclass(frozen=True)
class Domain:
    """The values that a group or key may take."""

    key: str
    text: str
    """As it was written, without the key."""
    distribution: BaseDistribution
    """Over primitive data: lists and mappings are there as their text in the grammar."""
    values: Sequence[Any] | None
    """All of them, plain data, in the order in which a grid takes them; None for an interval."""
    shuffled: bool = False
    """Whether a grid takes them in random order."""
    _of_text: Mapping[str, Any] = field(default_factory=dict)

    def value(self, suggested: Any) -> Any:
        """The plain data that a value of the distribution stands for."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self._of_text.get(suggested, suggested) if isinstance(suggested, str) else suggested
        return int(suggested) if isinstance(self.distribution, IntDistribution) else float(suggested)

    def suggestion(self, value: Any) -> Any:
        """The value of the distribution that stands for plain data; ``ValueError`` if none does."""
        if isinstance(self.distribution, CategoricalDistribution):
            found = _primitive(value)
            # Optuna takes 1, 1.0 and True for the same.
            if found not in self.distribution.choices:
                raise ValueError(f"{value!r} is not among {self.distribution.choices}")
            return found
        whole = isinstance(self.distribution, IntDistribution)
        if isinstance(value, bool) or not isinstance(value, int | float) or (whole and int(value) != value):
            raise ValueError(f"{value!r} is no number")
        found = int(value) if whole else float(value)
        low, high = self.distribution.low, self.distribution.high  # pyright: ignore[reportAttributeAccessIssue]
        step = self.distribution.step if self.values is not None else None  # pyright: ignore[reportAttributeAccessIssue]
        places = (found - low) / step if step else 0
        if not low <= found <= high or abs(places - round(places)) > 1e-8:
            raise ValueError(f"{value!r} is not in {self.text}")
        return found

    def ends(self) -> list[Any]:
        """The values to check: all of a list; both ends of numbers, and one between them."""
        if isinstance(self.distribution, CategoricalDistribution):
            return list(self.values or ())
        if self.values is not None:
            return list(dict.fromkeys([self.values[0], self.values[len(self.values) // 2], self.values[-1]]))
        low, high = self.distribution.low, self.distribution.high  # pyright: ignore[reportAttributeAccessIssue]
        between = (low + high) // 2 if isinstance(self.distribution, IntDistribution) else low + 0.618 * (high - low)
        return list(dict.fromkeys([low, between, high]))


def domain_of(text: str, options: Sequence[str] | None = None) -> Domain | None:
    """What an override searches; None if it sets one value, deletes, or cannot be read.

    Args:
        text: the override, such as ``optimizer.lr=tag(log,interval(1e-4,1e-1))``.
        options: the options of the group that it chooses from; None for a key. ``optimizer=*`` searches all of them.

    Raises:
        ConfigError: for what can be read and does not make sense, such as the logarithm of a bound that is not
            positive.

    """
    override = parsed(text)
    if override is None or override.is_delete():
        return None
    value = override.value()
    if options is not None and isinstance(value, str) and set(value) & set("*?["):
        value = Glob(include=[value])
    if isinstance(value, Glob):
        return _of_values(
            text, override, value.filter(list(options or [])), f"matches no option; valid: {_all(options)}"
        )
    if isinstance(value, ChoiceSweep):
        _demand(
            text, not value.tags, f"a tag says how numbers between two bounds are spread; valid tags: {listed(TAGS)}"
        )
        found = _of_values(text, override, [_plain(entry) for entry in value.list], "has no values")
        return _shuffled(found) if value.shuffle else found
    if isinstance(value, RangeSweep):
        return _of_range(text, override, value)
    return _of_interval(text, override, value) if isinstance(value, IntervalSweep) else None


def _all(options: Sequence[str] | None) -> str:
    return listed(options or ["(none: only groups have options)"])


def _key(override: Override) -> str:
    return override.key_or_group


def _written(text: str) -> str:
    return text.partition("=")[2]


def _demand(text: str, condition: bool, message: str) -> None:
    raise_if([] if condition else [Problem(text, message)])


def _plain(value: Any) -> Any:
    """A value of the parser's without its marks of quotes."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return {_plain(key): _plain(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _primitive(value: Any) -> Any:
    """A value as Optuna can keep it."""
    return value if value is None or isinstance(value, bool | int | float | str) else quoted(value)


def _of_values(text: str, override: Override, values: Sequence[Any], if_none: str) -> Domain:
    _demand(text, bool(values), if_none)
    unlike = {f"{type(value).__name__} {value!r}": value for value in values}
    primitives = {key: _primitive(value) for key, value in unlike.items()}
    return Domain(
        _key(override),
        _written(text),
        CategoricalDistribution(list(primitives.values())),
        tuple(unlike.values()),
        _of_text={quoted(value): value for value in unlike.values() if isinstance(value, list | dict)},
    )


def _shuffled(domain: Domain) -> Domain:
    return Domain(domain.key, domain.text, domain.distribution, domain.values, True, domain._of_text)


def _of_range(text: str, override: Override, value: RangeSweep) -> Domain:
    log = _log(text, value.tags)
    numbers = [value.start, value.stop, value.step]
    _demand(text, all(number is not None and math.isfinite(number) for number in numbers), "needs finite bounds")
    _demand(text, value.step != 0, "needs a step that is not 0")
    whole = all(isinstance(number, int) for number in numbers)
    start, stop, step = (Decimal(repr(number)) for number in numbers)
    count = max(0, math.ceil((stop - start) / step))
    _demand(text, count > 0, "is empty: it ends before its second argument")
    _demand(text, whole or count <= MOST, f"has {count:,} values; search an interval instead")
    values = (
        range(int(start), int(stop), int(step))
        if whole
        else tuple(float(start + step * place) for place in range(count))
    )
    low, high = sorted((values[0], values[-1]))
    _demand(text, not log or low > 0, "tag(log, …) needs bounds > 0")
    _demand(text, not log or (whole and abs(step) == 1), "tag(log, …) goes with steps of 1, or with an interval")
    distribution = (
        IntDistribution(int(low), int(high), log=log, step=1 if log else abs(int(step)))
        if whole
        else FloatDistribution(low, high, step=abs(float(step)))
    )
    return Domain(_key(override), _written(text), distribution, values, value.shuffle)


def _of_interval(text: str, override: Override, value: IntervalSweep) -> Domain:
    log = _log(text, value.tags)
    low, high = value.start, value.end
    finite = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    _demand(text, finite, "needs finite bounds")
    assert low is not None
    assert high is not None
    _demand(text, low <= high, "is empty: its first bound is above its second")
    _demand(text, not log or low > 0, f"tag(log, …) needs bounds > 0, not {low:g}")
    distribution = (
        IntDistribution(low, high, log=log)
        if isinstance(low, int) and isinstance(high, int)
        else FloatDistribution(low, high, log=log)
    )
    return Domain(_key(override), _written(text), distribution, None)


def _log(text: str, tags: set[str]) -> bool:
    strange = sorted(tags - set(TAGS))
    _demand(text, not strange, f"no such tag: {listed(strange)}; valid: {listed(TAGS)}")
    return "log" in tags


def domains_of(
    texts: Mapping[str, Any], where: str, options: Mapping[str, Sequence[str]], prefix: str = ""
) -> Iterator[Domain | Problem]:
    """The domains of a mapping from group or key to text, as files hold it, or what is wrong with each.

    Args:
        texts: the mapping.
        where: names it in a problem.
        options: group → its options.
        prefix: what the keys lack.

    """
    for key, written in texts.items():
        place = f"{where}.{key}"
        if not isinstance(written, str):
            yield Problem.of(place, written, "must be text in the grammar of overrides, such as interval(0.1, 1)")
            continue
        try:
            found = domain_of(f"{prefix}{key}={written}", options.get(key))
        except ConfigError as error:
            yield from (Problem.of(place, written, problem.message) for problem in error.problems)
            continue
        if found is None:
            yield Problem.of(place, written, "searches nothing; give a list a,b,c, choice, range or interval")
        else:
            yield found
