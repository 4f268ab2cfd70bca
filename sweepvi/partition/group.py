"""A group of parameters: which ones, and what is different for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypeAlias

from sweepvi.keys import Key, Keyed
from sweepvi.schedule import Schedule

Kind: TypeAlias = Literal["loc", "scale", "nn", "baseline", "rest"]
"""What a parameter is for: see :mod:`sweepvi.partition.kinds`."""


@dataclass(frozen=True)
class Overrides(Keyed):
    """What is different for a group of parameters."""

    optimizer: Annotated[
        Mapping[str, Any], Key("the optimizer's settings that differ; with a name, another optimizer altogether")
    ] = field(default_factory=dict)
    lr_factor: Annotated[float, Key("factor on the step size", gt=0)] = 1.0
    scheduler: Annotated[
        Schedule | None, Key("another schedule of the step size; null is the fit's", component="scheduler")
    ] = None
    frozen: Annotated[bool, Key("leave the parameters as they start")] = False

    def conflicts(self) -> dict[str, str]:
        """What is frozen has no optimizer."""
        if self.frozen and (self.optimizer or self.lr_factor != 1 or self.scheduler is not None):
            return {"frozen": "goes with no optimizer, lr_factor or scheduler"}
        return {}


@dataclass(frozen=True)
class Group(Overrides):
    """Parameters matched by name or kind, and what is different for them."""

    glob: Annotated[
        tuple[str, ...] | str | None, Key("names, with * and ? as in file names: a pattern or a list of them")
    ] = None
    regex: Annotated[str | None, Key("names, as a regular expression that is found anywhere in them")] = None
    kind: Annotated[Kind | None, Key("what the parameters are for; rest is all that no group before takes")] = None

    def conflicts(self) -> dict[str, str]:
        """One matcher, and one that can be read."""
        given = [key for key in ("glob", "regex", "kind") if getattr(self, key) is not None]
        if len(given) != 1:
            return {given[-1] if given else "kind": "give exactly one of glob, regex and kind"}
        if self.glob == ():
            return {"glob": "has no pattern in it"}
        try:
            re.compile(self.regex or "")
        except re.error as error:
            return {"regex": f"is no regular expression: {error}"}
        return super().conflicts()

    def matches(self, name: str, kind: Kind) -> bool:
        """Whether the group takes a parameter that no group before it has taken."""
        if self.glob is not None:
            patterns = (self.glob,) if isinstance(self.glob, str) else self.glob
            return any(fnmatchcase(name, pattern) for pattern in patterns)
        if self.regex is not None:
            return re.search(self.regex, name) is not None
        return self.kind in (kind, "rest")

    def matcher(self) -> str:
        """The matcher in words: ``glob *.scales.*``."""
        key = next(key for key in ("glob", "regex", "kind") if getattr(self, key) is not None)
        value = getattr(self, key)
        return f"{key} {value if isinstance(value, str) else ', '.join(value)}"
